package catalog

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/query"
	"peerdex/record"
	"peerdex/store"
)

// Sort orders what a search finds.
type Sort int

// Names and paths come from a to z, sizes and times from the greatest.
const (
	Unsorted   Sort = iota // location by location, those of this device first
	ByName                 // large and small letters being equal
	BySize                 //
	ByModified             //
	ByPath                 //
)

// FindOptions say what to search for, and how it is shown. The zero value finds everything.
type FindOptions struct {
	Query   query.Query
	Sets    []Set    // what each of the query's terms names
	Only    *feed.ID // the one location to search; nil: all
	Sort    Sort
	Reverse bool // the other way round
}

// Set is what a term of a query names: all that some devices have, and single entries.
type Set struct {
	Devices []record.DeviceID
	Entries map[feed.ID]map[record.EntryID]bool
}

// Entries returns the set of single entries of one location.
func Entries(id feed.ID, entries ...record.EntryID) (s Set) {
	for _, e := range entries {
		s.add(id, e)
	}
	return s
}

func (s *Set) add(id feed.ID, e record.EntryID) {
	if s.Entries == nil {
		s.Entries = map[feed.ID]map[record.EntryID]bool{}
	}
	if s.Entries[id] == nil {
		s.Entries[id] = map[record.EntryID]bool{}
	}
	s.Entries[id][e] = true
}

// Tagged returns what shows one of some tags, by what was put on the entry or on its content.
func (c *Catalog) Tagged(ctx context.Context, m *Marks, tags []Tag) (s Set, err error) {
	of := map[record.Hash]bool{}
	for _, t := range tags {
		m.On(t.ID, s.add, func(h record.Hash) { of[h] = true })
	}
	err = c.addContents(ctx, &s, of)
	return s, err
}

// addContents adds what has one of some contents.
func (c *Catalog) addContents(ctx context.Context, s *Set, of map[record.Hash]bool) error {
	if len(of) == 0 {
		return nil
	}
	return c.contents(ctx, of, func(_ record.Hash, id feed.ID, e record.EntryID) error {
		s.add(id, e)
		return nil
	})
}

// Hashed returns what has a content whose hash begins with one of some hexadecimal digits.
func (c *Catalog) Hashed(ctx context.Context, digits []string) (s Set, err error) {
	err = c.beginning(ctx, digits, func(_ record.Hash, id feed.ID, e record.EntryID) error {
		s.add(id, e)
		return nil
	})
	return s, err
}

// Find calls fn for everything that o asks for: with the entry found and those entries found whose content is
// known to be the same, so that each is handed over once. An error of fn ends the search and is returned,
// kv.Stop as nil. What changes while fn is called is shown as it is by then, or left out.
func (c *Catalog) Find(ctx context.Context, o FindOptions, fn func([]Item) error) error {
	s, err := c.search(ctx, o)
	if err != nil {
		return err
	}
	for n := range s.hits {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		items, err := s.items(n)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			continue
		}
		if err := fn(items); errors.Is(err, kv.Stop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// search is what one search has found.
type search struct {
	*Catalog
	scopes []*scope
	hits   []hit

	taken map[int]bool       // hits that were handed over with another
	sizes map[uint64][]int   // hits whose records say more, of sizes that were not compared
	same  map[sameness][]int // hits of the sizes that were
}

// sameness is what copies have in common. Only a lie gives one hash to two sizes.
type sameness struct {
	hash record.Hash
	size uint64
}

func samenessOf(f record.File) sameness { return sameness{f.Hash, f.Size} }

// hit is a slot that matched, with the beginning of its ID: it may become another entry's.
type hit struct {
	scope uint32 // index into search.scopes
	slot  uint32
	id    [8]byte
}

// search looks at every entry.
func (c *Catalog) search(ctx context.Context, o FindOptions) (*search, error) {
	scopes, err := c.scopes(ctx)
	if err != nil {
		return nil, err
	}
	s := &search{Catalog: c, scopes: scopes, taken: map[int]bool{}}
	for k, p := range scopes {
		if o.Only != nil && p.Feed() != *o.Only {
			continue
		}
		for _, set := range o.Sets {
			p.in = append(p.in, member{slices.Contains(set.Devices, p.Owner), set.Entries[p.Feed()]})
		}
		s.hits = append(s.hits, p.scan(o.Query, uint32(k))...)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	s.sort(o.Sort, o.Reverse)
	return s, nil
}

// items returns what the n-th hit shows, with the other hits of that content: nothing if it was shown, or is
// gone.
func (s *search) items(n int) ([]Item, error) {
	if s.taken[n] {
		return nil, nil
	}
	it, ok, err := s.show(n)
	if err != nil || !ok {
		return nil, err
	}
	if it.File.Hash.IsZero() {
		return []Item{it}, nil
	}
	if err := s.compare(it.File.Size); err != nil {
		return nil, err
	}
	out, group := []Item{it}, s.same[samenessOf(it.File)]
	delete(s.same, samenessOf(it.File)) // whoever turns out later to be a copy of it comes alone
	for _, other := range group {
		if other <= n { // what comes before n was handed over, be it before its content was known
			continue
		}
		if o, ok, err := s.show(other); err != nil {
			return nil, err
		} else if ok && samenessOf(o.File) == samenessOf(it.File) {
			out = append(out, o)
			s.taken[other] = true
		}
	}
	return out, nil
}

// compare finds out which hits of a size have the same content.
func (s *search) compare(size uint64) error {
	if s.sizes == nil {
		s.sizes, s.same = map[uint64][]int{}, map[sameness][]int{}
		for n, h := range s.hits {
			p := s.scopes[h.scope]
			p.RLock()
			if b, i := p.at(h.slot); b.parents[i]&moreBit != 0 {
				s.sizes[b.sizes[i]] = append(s.sizes[b.sizes[i]], n)
			}
			p.RUnlock()
		}
	}
	for _, n := range s.sizes[size] {
		if it, ok, err := s.show(n); err != nil {
			return err
		} else if ok && !it.File.Hash.IsZero() {
			s.same[samenessOf(it.File)] = append(s.same[samenessOf(it.File)], n)
		}
	}
	delete(s.sizes, size)
	return nil
}

// show returns the n-th hit; false if it is gone.
func (s *search) show(n int) (Item, bool, error) {
	h := s.hits[n]
	p := s.scopes[h.scope]
	return s.Catalog.show(p, func() (uint32, bool) {
		b, i := p.at(h.slot)
		return h.slot, [8]byte(b.ids[i][:]) == h.id
	})
}

// show returns the entry in the slot that pick chooses while p is locked; false if there is none.
func (c *Catalog) show(p *scope, pick func() (uint32, bool)) (it Item, ok bool, err error) {
	p.RLock()
	n, ok := pick()
	more := false
	if ok {
		if b, i := p.at(n); b.names[i] == noName {
			ok = false
		} else {
			it, more = p.item(n)
		}
	}
	p.RUnlock()
	if !more {
		return it, ok, nil
	}
	it.File, ok, err = c.file(p.Feed(), it.File.ID)
	if errors.Is(err, store.ErrUnknownFeed) { // dropped just now
		return it, false, nil
	}
	return it, ok, err
}

// sort puts the hits in order.
func (s *search) sort(by Sort, reverse bool) {
	if by == Unsorted {
		if reverse {
			slices.Reverse(s.hits)
		}
		return
	}
	type ranked struct {
		hit
		number int64  // the greatest first
		name   string // then from a to z
	}
	all := make([]ranked, len(s.hits))
	for i, h := range s.hits {
		p := s.scopes[h.scope]
		r := ranked{hit: h}
		p.RLock()
		b, k := p.at(h.slot)
		switch by {
		case BySize:
			r.number = int64(b.sizes[k])
		case ByModified:
			r.number = b.times[k]
		case ByName:
			if b.names[k] != noName {
				r.name = string(b.folded(p.names, k))
			}
		}
		p.RUnlock()
		all[i] = r
	}
	paths := map[hit]string{} // made where they decide
	path := func(h hit) string {
		if text, ok := paths[h]; ok {
			return text
		}
		p := s.scopes[h.scope]
		p.RLock()
		defer p.RUnlock()
		if b, k := p.at(h.slot); b.names[k] != noName {
			it, _ := p.item(h.slot)
			paths[h] = it.Path
		}
		return paths[h]
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		c := cmp.Or(cmp.Compare(b.number, a.number), cmp.Compare(a.name, b.name))
		if c == 0 {
			c = cmp.Compare(path(a.hit), path(b.hit))
		}
		if reverse {
			return -c
		}
		return c
	})
	for i, r := range all {
		s.hits[i] = r.hit
	}
}
