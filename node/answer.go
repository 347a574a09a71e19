package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"peerdex/catalog"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/kv"
	"peerdex/protocol"
	"peerdex/query"
	"peerdex/record"
)

// Limits on the questions of others.
const (
	answerAtOnce = 4 // more are told to come back
	answerWithin = askWithin
)

// serveLookup answers one question of a device that keeps no entries of a location.
func (n *Node) serveLookup(ctx context.Context, conn *protocol.Conn) error {
	m, err := conn.Recv()
	if err != nil {
		return err
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var (
		kind    string
		session protocol.SessionID
	)
	switch q := m.(type) {
	case *protocol.Lookup:
		kind, session = "lookup", q.Session
		err = n.answering(conn, q.Feed, func(l catalog.Location, at feed.Head) error { return n.answerLookup(ctx, conn, l, at, q) })
	case *protocol.Search:
		kind, session = "search", q.Session
		err = n.answering(conn, q.Feed, func(l catalog.Location, at feed.Head) error { return n.answerSearch(ctx, conn, l, at, q) })
	default:
		return protocol.Unexpected(m)
	}
	result := "answered"
	if code, refused := errors.AsType[protocol.Code](err); refused {
		result = "refused"
		if code == protocol.CodeBusy {
			result = "busy"
		}
		if err = conn.Send(&protocol.Refused{Code: code}); err == nil {
			err = conn.Flush()
		}
	}
	if err != nil {
		result = "failed"
	}
	n.metrics.Lookup("in", result)
	n.events.AddBatch(eventlog.Tally{Type: eventlog.LookupAnswered{}.Type(), Peer: idText(conn.Device()), Session: eventlog.ID(session), Reason: kind,
		Outcomes: map[string]int{result: 1}, Took: time.Since(start)})
	return err
}

// answering calls fn for a location that this node can answer for, with the head that it is settled at. It
// returns a protocol.Code to refuse the question with.
func (n *Node) answering(conn *protocol.Conn, id feed.ID, fn func(catalog.Location, feed.Head) error) error {
	select {
	case n.answers <- struct{}{}:
		defer func() { <-n.answers }()
	default:
		return protocol.CodeBusy
	}
	if err := n.admit(conn.Device()); err != nil {
		return protocol.CodeOf(err)
	}
	st, known := n.store.State(id)
	switch {
	case !known || !n.follows(id):
		return protocol.CodeUnknownFeed
	case st.Settled == nil || st.Settled.IsGenesis():
		return protocol.CodeNotSettled
	}
	all, err := n.catalog.Locations()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(l catalog.Location) bool { return l.Feed() == id })
	if i < 0 {
		return protocol.CodeUnknownFeed
	}
	return fn(all[i], *st.Settled)
}

// tellFound sends one part of an answer, once all that it was read from is durable and still whole (rules 2 and 6).
func (n *Node) tellFound(conn *protocol.Conn, f *protocol.Found) error {
	if st, _ := n.store.State(f.Head.Feed); st.Settled == nil {
		return protocol.CodeNotSettled
	}
	if err := n.store.Sync(); err != nil {
		return err
	}
	if err := conn.Send(f); err != nil {
		return err
	}
	return conn.Flush()
}

func (n *Node) answerLookup(ctx context.Context, conn *protocol.Conn, l catalog.Location, at feed.Head, q *protocol.Lookup) error {
	f := &protocol.Found{Head: at, Last: true}
	names := strings.FieldsFunc(q.Path, func(r rune) bool { return r == '/' })
	it, err := n.catalog.Descend(ctx, l, names)
	switch {
	case errors.Is(err, catalog.ErrNotFound), err == nil && q.Itself && len(names) == 0:
		f.Absent = true
		return n.tellFound(conn, f)
	case err != nil:
		return err
	}
	items := []catalog.Item{it}
	if f.Itself = q.Itself || it.File.Kind != record.Directory; !f.Itself {
		if items, err = n.catalog.List(ctx, it, q.After, q.Limit+1); err != nil {
			return err
		}
	}
	size := 0
	for i, it := range items {
		h := hitOf(it)
		h.Folder = ""
		if size += protocol.HitSize(h); i == q.Limit || size > protocol.MaxPage {
			f.More = true
			break
		}
		f.Hits = append(f.Hits, h)
	}
	return n.tellFound(conn, f)
}

func hitOf(it catalog.Item) protocol.Hit {
	return protocol.Hit{Folder: strings.Join(it.Folder(), "/"), Lost: it.Lost, Key: it.File.Key(), Record: it.File.Append(nil)}
}

// orders are the sorts of searches by their numbers on the wire.
var orders = map[protocol.Order]catalog.Sort{
	protocol.OrderNone: catalog.Unsorted, protocol.OrderName: catalog.ByName, protocol.OrderSize: catalog.BySize,
	protocol.OrderModified: catalog.ByModified, protocol.OrderPath: catalog.ByPath,
}

func (n *Node) answerSearch(ctx context.Context, conn *protocol.Conn, l catalog.Location, at feed.Head, q *protocol.Search) error {
	parsed, err := query.Decode(q.Query)
	if err != nil {
		return falsely("%v", err)
	}
	id := l.Feed()
	o := catalog.FindOptions{Query: parsed, Only: &id, Sort: orders[q.Order], Reverse: q.Reverse}
	if o.Sets, err = n.namedOnWire(ctx, id, parsed.Terms()); err != nil {
		return err
	}
	page, size, files, hits := &protocol.Found{Head: at}, 0, 0, 0
	err = n.catalog.Find(ctx, o, func(items []catalog.Item) error {
		files++
		for _, it := range items {
			if files > q.Limit || hits == protocol.MaxHits {
				page.More = true
				return kv.Stop
			}
			h := hitOf(it)
			if len(h.Folder) > protocol.MaxPath {
				continue // deeper than can be told
			}
			if len(page.Hits) == protocol.MaxEntries || size+protocol.HitSize(h) > protocol.MaxPage {
				if err := n.tellFound(conn, page); err != nil {
					return err
				}
				page, size = &protocol.Found{Head: at}, 0
			}
			page.Hits = append(page.Hits, h)
			size += protocol.HitSize(h)
			hits++
		}
		return nil
	})
	if err != nil {
		return err
	}
	page.Last = true
	return n.tellFound(conn, page)
}

// namedOnWire returns what the terms of another device's query name in a location. What is not known here
// names nothing.
func (n *Node) namedOnWire(ctx context.Context, id feed.ID, terms []query.Term) (sets []catalog.Set, err error) {
	for _, t := range terms {
		var set catalog.Set
		switch t.Key {
		case "on":
			for _, v := range t.Values {
				if d, err := deviceOf(v); err == nil {
					set.Devices = append(set.Devices, d)
				}
			}
		case "tag":
			set, err = n.taggedOnWire(ctx, t.Values)
		case "hash":
			set, err = n.catalog.Hashed(ctx, slices.DeleteFunc(slices.Clone(t.Values), func(v string) bool {
				return len(v) < minHash || len(v) > 2*len(record.Hash{}) || strings.Trim(v, "0123456789abcdef") != ""
			}))
		case termID:
			var entries []record.EntryID
			for _, v := range t.Values {
				if e, err := record.ParseEntryID(v); err == nil {
					entries = append(entries, e)
				}
			}
			set = catalog.Entries(id, entries...)
		}
		if err != nil {
			return nil, err
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// termID is the key of a term that names entries by their IDs; nobody can type it.
const termID = "id"

func (n *Node) taggedOnWire(ctx context.Context, ids []string) (catalog.Set, error) {
	m, err := n.catalog.Marks()
	if err != nil {
		return catalog.Set{}, err
	}
	var tags []catalog.Tag
	for _, t := range m.Tags() {
		if slices.Contains(ids, t.ID.String()) {
			tags = append(tags, t)
		}
	}
	return n.catalog.Tagged(ctx, m, tags)
}
