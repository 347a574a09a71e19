package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"peerdex/kv"
	"peerdex/record"
	"peerdex/store"
)

// FindOptions narrow a search.
type FindOptions struct {
	Device   record.DeviceID   // zero: of all devices
	Location record.LocationID // zero: all locations
	Limit    int               // most entries found; 0: no limit
}

const (
	maxDepth  = 4096    // directories above an entry; more, and the chain is a ring
	maxCached = 100_000 // directories whose paths one search remembers
)

// Find calls fn for every entry whose name contains each of words, large and small letters being equal
// (Unicode simple folding; bytes that are no UTF-8 equal themselves). No words find everything. Entries
// come location by location as they are found; an error of fn ends the search and is returned, kv.Stop as
// nil. One search is one pass over the names of each location.
func (c *Catalog) Find(ctx context.Context, words []string, o FindOptions, fn func(Item) error) error {
	all, err := c.Locations()
	if err != nil {
		return err
	}
	folded := make([][]byte, len(words))
	for i, w := range words {
		folded[i] = fold(nil, []byte(w))
	}
	left := o.Limit
	for _, l := range all {
		if o.Device != (record.DeviceID{}) && l.Owner != o.Device || !o.Location.IsZero() && l.ID != o.Location {
			continue
		}
		s := search{Catalog: c, location: l, words: folded, left: left, limited: o.Limit > 0, fn: fn, paths: map[record.EntryID]where{}}
		err := c.feeds.Names(l.Feed(), func(_ record.EntryID, name []byte, child record.EntryID) error {
			return s.name(ctx, name, child)
		})
		if errors.Is(err, store.ErrUnknownFeed) { // known by its registers alone, so far
			continue
		}
		if err != nil {
			return fmt.Errorf("search %q: %w", l.Name, err)
		}
		if s.over {
			return nil
		}
		left = s.left
	}
	return nil
}

// search is what Find does in one location.
type search struct {
	*Catalog
	location Location
	words    [][]byte
	limited  bool
	left     int
	over     bool
	fn       func(Item) error
	paths    map[record.EntryID]where // of directories
	buf      []byte
	seen     int
}

// where is the path of a directory.
type where struct {
	path string
	lost bool
}

func (s *search) name(ctx context.Context, name []byte, child record.EntryID) error {
	if s.seen++; s.seen%4096 == 0 && ctx.Err() != nil {
		return ctx.Err()
	}
	s.buf = fold(s.buf[:0], name)
	for _, w := range s.words {
		if !bytes.Contains(s.buf, w) {
			return nil
		}
	}
	f, ok, err := s.file(s.location.Feed(), child)
	if err != nil || !ok {
		return err
	}
	dir, err := s.dir(f.Parent)
	if err != nil {
		return err
	}
	err = s.fn(Item{Location: s.location, File: f, Path: under(dir.path, f.Name), Lost: dir.lost})
	if s.left--; err == nil && s.limited && s.left == 0 {
		err = kv.Stop
	}
	s.over = s.over || errors.Is(err, kv.Stop)
	return err
}

// dir returns the path of a directory, following the chain of its parents.
func (s *search) dir(id record.EntryID) (where, error) {
	var chain []record.File
	at := where{path: s.location.Path}
	for id != (record.EntryID{}) {
		if w, ok := s.paths[id]; ok {
			at = w
			break
		}
		f, ok, err := s.file(s.location.Feed(), id)
		if err != nil {
			return at, err
		}
		if !ok || len(chain) == maxDepth {
			at = where{path: under(s.location.Path, LostMark), lost: true}
			if len(chain) == maxDepth {
				return at, nil // a ring of parents: no name of it says where the entry is
			}
			break
		}
		chain = append(chain, f)
		id = f.Parent
	}
	if len(s.paths) > maxCached {
		clear(s.paths)
	}
	for i := len(chain) - 1; i >= 0; i-- {
		at.path = under(at.path, chain[i].Name)
		s.paths[chain[i].ID] = at
	}
	return at, nil
}

// fold appends text with every letter replaced by the least of those that are equal to it under simple
// folding, so that equal texts become equal bytes.
func fold(out, text []byte) []byte {
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c >= 'a' && c <= 'z' {
				c -= 'a' - 'A'
			}
			out = append(out, c)
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			out = append(out, c)
			i++
			continue
		}
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		out = utf8.AppendRune(out, least)
		i += size
	}
	return out
}
