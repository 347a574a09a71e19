package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"peerdex/catalog"
	"peerdex/protocol"
	"peerdex/query"
	"peerdex/record"
)

// What people ask about locations that are followed by head only: whoever is settled is asked, and nothing of
// the answer is kept.

// lazyAt returns the lazy location that a path leads into, and the names that lead on; false if it is none.
func (n *Node) lazyAt(p PathRef) (l catalog.Location, names []string, lazy bool, err error) {
	d := n.self
	if p.Device != "" {
		if d, err = deviceOf(p.Device); err != nil {
			return l, nil, false, err
		}
	}
	if d == n.self {
		return l, nil, false, nil
	}
	all, err := n.catalog.Locations()
	if err != nil {
		return l, nil, false, err
	}
	l, names, err = catalog.Locate(all, d, p.Path)
	if errors.Is(err, catalog.ErrNotFound) {
		return l, nil, false, nil
	}
	return l, names, err == nil && len(n.lazyIn([]catalog.Location{l})) > 0, err
}

// askPath asks what lies at the end of names in a lazy location, or in it.
func (n *Node) askPath(ctx context.Context, l catalog.Location, names []string, itself bool, after string, limit int) (answer, error) {
	if itself && len(names) == 0 {
		return answer{loc: l, items: []catalog.Item{l.Root()}, itself: true}, nil
	}
	path := strings.Join(names, "/")
	if len(path) > protocol.MaxPath {
		return answer{}, nothingAt(path, "no path is that long")
	}
	a := n.ask(ctx, l, "lookup", func(s protocol.SessionID) protocol.Message {
		return &protocol.Lookup{Session: s, Feed: l.Feed(), Path: path, Itself: itself, After: after, Limit: min(limit, protocol.MaxEntries)}
	})
	switch {
	case ctx.Err() != nil:
		return a, ctx.Err()
	case a.Problem != "":
		return a, unanswered(a.Asked)
	case a.absent:
		return a, nothingAt(path, fmt.Sprintf("%s:%s has nothing there, says %s", a.DeviceName, a.Name, a.ViaName))
	}
	if !a.itself { // it told the names in the folder
		for i, it := range a.items {
			a.items[i] = l.Item(names, it.File, it.Lost)
		}
	} else if len(a.items) == 1 {
		it := l.Item(names[:len(names)-1], a.items[0].File, a.items[0].Lost)
		if it.File.Name != names[len(names)-1] {
			return a, fmt.Errorf("%s was asked for %q and told of %q", a.ViaName, names[len(names)-1], it.File.Name)
		}
		a.items[0] = it
	}
	return a, nil
}

func nothingAt(path, cause string) error {
	return &Problem{Code: CodeNotFound, Message: fmt.Sprintf("nothing is catalogued at %q", path), Cause: cause, Try: "peer locations"}
}

// listAsked is List for a folder of a lazy location.
func (n *Node) listAsked(ctx context.Context, q ListQuery, l catalog.Location, names []string, out Listing) (Listing, error) {
	a, err := n.askPath(ctx, l, names, false, q.After, q.Limit)
	if err != nil {
		return out, err
	}
	m, err := n.catalog.Marks()
	if err != nil {
		return out, err
	}
	in := n.viewOf(a)
	out.DeviceName, out.Gone, out.Online, out.AsOf, out.Current = in.DeviceName, in.Gone, in.Online, in.AsOf, in.Current
	out.Path, out.More, out.Asked, out.Entries = l.Path, a.More, &a.Asked, []Entry{}
	if len(names) > 0 {
		out.Path = l.Item(names[:len(names)-1], record.File{Name: names[len(names)-1]}, false).Path
	}
	for _, it := range a.items {
		e := in.of(it)
		e.Tags = tagsShown(m, it)
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}

// termed is a query for the entries that one term names.
func termed(key string, values ...string) query.Query {
	return query.Query{}.And(query.Term{Key: key, Values: values})
}

// askSearch puts a query to lazy locations.
func (n *Node) askSearch(ctx context.Context, locations []catalog.Location, q query.Query, limit int) []answer {
	encoded := q.Append(nil)
	return n.askAll(ctx, locations, "search", func(l catalog.Location, s protocol.SessionID) protocol.Message {
		return &protocol.Search{Session: s, Feed: l.Feed(), Query: encoded, Limit: limit}
	})
}

// lazyLocations returns every location that is followed by head only.
func (n *Node) lazyLocations() ([]catalog.Location, error) {
	all, err := n.catalog.Locations()
	if err != nil {
		return nil, err
	}
	return n.lazyIn(all), nil
}

// MostAsked is how many entries of one lazy location a search finds at most.
const MostAsked = protocol.MaxHits

// askFind puts a search to those lazy locations that it can find something in. others reports whether there
// are further locations that it can find something in.
func (n *Node) askFind(ctx context.Context, q FindQuery, o catalog.FindOptions, m *catalog.Marks) (answers []answer, others bool, err error) {
	all, err := n.catalog.Locations()
	if err != nil {
		return nil, false, err
	}
	terms := o.Query.Terms()
	all = possible(o, all)
	lazy := n.lazyIn(all)
	if len(lazy) == 0 {
		return nil, true, nil
	}
	limit := MostAsked
	if q.Limit > 0 {
		limit = min(limit, q.Limit)
	}
	answers = n.askAll(ctx, lazy, "search", func(l catalog.Location, s protocol.SessionID) protocol.Message {
		sent := o.Query.WithTerms(wireTerms(terms, o.Sets, m, l.Owner))
		return &protocol.Search{Session: s, Feed: l.Feed(), Query: sent.Append(nil), Order: orderOf(o.Sort), Reverse: o.Reverse, Limit: limit}
	})
	return answers, len(lazy) < len(all), ctx.Err()
}

// possible returns those of some locations that a search can find something in.
func possible(o catalog.FindOptions, all []catalog.Location) []catalog.Location {
	terms := o.Query.Terms()
	return slices.DeleteFunc(all, func(l catalog.Location) bool {
		return !o.Query.Possible(func(i int) (in, known bool) {
			return slices.Contains(o.Sets[i].Devices, l.Owner), terms[i].Key == "on"
		})
	})
}

// unsearched names the lazy locations that a search could find something in if their entries were kept here.
func (n *Node) unsearched(o catalog.FindOptions) ([]string, error) {
	all, err := n.catalog.Locations()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range n.lazyIn(possible(o, all)) {
		out = append(out, n.nameLocked(l.Owner)+":"+l.Name)
	}
	slices.Sort(out)
	return out, nil
}

func orderOf(by catalog.Sort) protocol.Order {
	for order, sort := range orders {
		if sort == by {
			return order
		}
	}
	return protocol.OrderNone
}

// wireTerms says what terms name in a way that every device understands alike: of devices only whether the
// owner of the location is among them, of tags the IDs.
func wireTerms(terms []query.Term, sets []catalog.Set, m *catalog.Marks, owner record.DeviceID) []query.Term {
	out := make([]query.Term, len(terms))
	for i, t := range terms {
		out[i] = t
		switch t.Key {
		case "on":
			out[i].Values = nil
			if slices.Contains(sets[i].Devices, owner) {
				out[i].Values = []string{idText(owner)}
			}
		case "tag":
			out[i].Values = nil
			for _, name := range t.Values {
				found := m.Named(name)
				if tag, err := tagNamed(m, name); err == nil && len(found) == 0 {
					found = append(found, tag)
				}
				for _, tag := range found {
					out[i].Values = append(out[i].Values, tag.ID.String())
				}
			}
		}
	}
	return out
}

// merging hands out what was found here and what was answered in one order, copies of a content together.
type merging struct {
	by      catalog.Sort
	reverse bool
	asked   []foundItem
	taken   []bool
	same    map[content][]int
	here    map[content][]foundItem // copies of what was answered that were found here
	done    map[content]bool        // of those, handed out
	next    int
	show    func([]foundItem) error
}

// foundItem is one that was found, with what the views of its location have in common.
type foundItem struct {
	catalog.Item
	in Entry
}

// content is what copies have in common.
type content struct {
	hash record.Hash
	size uint64
}

func contentOf(it catalog.Item) content { return content{it.File.Hash, it.File.Size} }

// merge prepares what was answered; show is called with one content after the other.
func (n *Node) merge(ctx context.Context, answers []answer, o catalog.FindOptions, show func([]foundItem) error) (*merging, error) {
	m := &merging{by: o.Sort, reverse: o.Reverse, same: map[content][]int{}, here: map[content][]foundItem{}, done: map[content]bool{}, show: show}
	for _, a := range answers {
		in := n.viewOf(a)
		for _, it := range a.items {
			m.asked = append(m.asked, foundItem{it, in})
		}
	}
	slices.SortStableFunc(m.asked, func(a, b foundItem) int { return m.compare(a.Item, b.Item) })
	for i, f := range m.asked {
		if !f.File.Hash.IsZero() {
			m.same[contentOf(f.Item)] = append(m.same[contentOf(f.Item)], i)
		}
	}
	m.taken = make([]bool, len(m.asked))
	if len(m.same) == 0 {
		return m, nil
	}
	var hashes []string
	for c := range m.same {
		hashes = append(hashes, c.hash.String())
	}
	copies, err := n.catalog.Hashed(ctx, hashes)
	if err != nil {
		return nil, err
	}
	o.Query, o.Sets = o.Query.And(query.Term{Key: "hash", Values: hashes}), append(slices.Clone(o.Sets), copies)
	return m, n.catalog.Find(ctx, o, func(items []catalog.Item) error {
		for _, it := range items {
			m.here[contentOf(it)] = append(m.here[contentOf(it)], foundItem{it, n.viewIn(it.Location)})
		}
		return nil
	})
}

func (m *merging) compare(a, b catalog.Item) int {
	if m.reverse {
		a, b = b, a
	}
	return m.by.Compare(a, b)
}

// local hands out items of one content that were found here, and before them what comes before.
func (m *merging) local(items []foundItem) error {
	for m.by != catalog.Unsorted && m.next < len(m.asked) && m.compare(m.asked[m.next].Item, items[0].Item) < 0 {
		if err := m.one(); err != nil {
			return err
		}
	}
	if m.done[contentOf(items[0].Item)] {
		return nil
	}
	return m.show(m.withCopies(items))
}

// one hands out the next of what was answered, with its copies.
func (m *merging) one() error {
	i := m.next
	m.next++
	if m.taken[i] {
		return nil
	}
	m.taken[i] = true
	items, c := m.withCopies([]foundItem{m.asked[i]}), contentOf(m.asked[i].Item)
	if here := m.here[c]; len(here) > 0 {
		items, m.done[c] = append(items, here...), true
	}
	return m.show(items)
}

func (m *merging) withCopies(items []foundItem) []foundItem {
	for _, i := range m.same[contentOf(items[0].Item)] {
		if !m.taken[i] && !items[0].File.Hash.IsZero() {
			m.taken[i] = true
			items = append(items, m.asked[i])
		}
	}
	return items
}

// rest hands out what is left.
func (m *merging) rest() error {
	for m.next < len(m.asked) {
		if err := m.one(); err != nil {
			return err
		}
	}
	return nil
}
