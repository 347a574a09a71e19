package node

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"peerdex/catalog"
	"peerdex/feed"
	"peerdex/query"
	"peerdex/record"
)

// seeking is one question about an entry or a content, asked of the catalogue here and of others where entries
// are not kept here. It belongs to one goroutine.
type seeking struct {
	*Node
	lazy    []catalog.Location
	answers map[feed.ID]answer // the last of each location
}

func (n *Node) seek() (*seeking, error) {
	lazy, err := n.lazyLocations()
	return &seeking{Node: n, lazy: lazy, answers: map[feed.ID]answer{}}, err
}

// reports says who answered for what.
func (s *seeking) reports() []Asked {
	var out []answer
	for _, l := range s.lazy {
		if a, asked := s.answers[l.Feed()]; asked {
			out = append(out, a)
		}
	}
	return askedOf(out)
}

// search puts a query to every lazy location. What one has beyond limit is cut off, and is reported.
func (s *seeking) search(ctx context.Context, q query.Query, limit int) (out []catalog.Item, err error) {
	for _, a := range s.askSearch(ctx, s.lazy, q, limit) {
		a.Cut = a.More
		s.answers[a.loc.Feed()] = a
		out = append(out, a.items...)
	}
	return out, ctx.Err()
}

// in is what the views of a location's entries have in common.
func (s *seeking) in(l catalog.Location) Entry {
	if a, asked := s.answers[l.Feed()]; asked && a.Via != "" {
		return s.viewOf(a)
	}
	return s.viewIn(l)
}

// at returns what lies at a path.
func (s *seeking) at(ctx context.Context, p PathRef) (catalog.Item, error) {
	l, names, lazy, err := s.lazyAt(p)
	if err != nil || !lazy {
		if err == nil {
			return s.resolvePath(ctx, p)
		}
		return catalog.Item{}, err
	}
	a, err := s.askPath(ctx, l, names, true, "", 1)
	if err != nil {
		return catalog.Item{}, err
	}
	if len(a.items) == 0 {
		return catalog.Item{}, nothingAt(p.Path, "this version of the program does not know what lies there")
	}
	if a.Via != "" {
		s.answers[l.Feed()] = a
	}
	return a.items[0], nil
}

// byID returns the entries of an ID that are not kept here.
func (s *seeking) byID(ctx context.Context, id record.EntryID) ([]catalog.Item, error) {
	found, err := s.search(ctx, termed(termID, id.String()), 2)
	if err == nil && len(found) == 0 {
		err = s.unanswered()
	}
	return slices.DeleteFunc(found, func(it catalog.Item) bool { return it.File.ID != id }), err
}

// unanswered is the problem of a search of which nothing could be had, nil if everybody answered.
func (s *seeking) unanswered() error {
	for _, a := range s.reports() {
		if a.Problem != "" {
			return unanswered(a)
		}
	}
	return nil
}

// copiesOf returns every place of a content, those that are kept here first.
func (s *seeking) copiesOf(ctx context.Context, h record.Hash) ([]catalog.Item, error) {
	items, err := s.catalog.Copies(ctx, h)
	if err != nil || len(s.lazy) == 0 {
		return items, err
	}
	found, err := s.search(ctx, termed("hash", h.String()), MostAsked)
	for _, it := range found {
		if it.File.Hash == h {
			items = append(items, it)
		}
	}
	return items, err
}

// sized returns how many files have the size of one.
func (s *seeking) sized(ctx context.Context, it catalog.Item) (int, error) {
	same, err := s.catalog.Sized(ctx, it.File.Size)
	if err != nil || len(s.lazy) == 0 {
		return same, err
	}
	found, err := s.search(ctx, query.BySize(it.File.Size), MostAsked)
	for _, f := range found {
		if f.File.Kind == record.Regular && f.File.Size == it.File.Size {
			same++
		}
	}
	return same, err
}

// contents returns up to most hashes that begin with some digits.
func (s *seeking) contents(ctx context.Context, digits string, most int) ([]record.Hash, error) {
	found, err := s.catalog.Contents(ctx, digits, most)
	if err != nil || len(s.lazy) == 0 {
		return found, err
	}
	items, err := s.search(ctx, termed("hash", digits), most)
	for _, it := range items {
		if h := it.File.Hash; !h.IsZero() && len(found) < most && !slices.Contains(found, h) && bytes.HasPrefix([]byte(h.String()), []byte(digits)) {
			found = append(found, h)
		}
	}
	if len(found) == 0 {
		err = errors.Join(err, s.unanswered())
	}
	return found, err
}
