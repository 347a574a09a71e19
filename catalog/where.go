package catalog

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/query"
	"peerdex/record"
)

// scopes returns the locations that can be searched: those of this device first, then by owner and name.
func (c *Catalog) scopes(ctx context.Context) ([]*scope, error) {
	if err := c.loaded(ctx); err != nil {
		return nil, err
	}
	all, err := c.Locations()
	if err != nil {
		return nil, err
	}
	own := func(l Location) int {
		if l.Owner == c.feeds.Device() {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b Location) int { return own(a) - own(b) })
	var out []*scope
	for _, l := range all {
		if names := c.column.segment(l.Feed()); names != nil { // else known by its registers alone, so far
			base := strings.TrimRight(slashed(l.Path), "/") + "/"
			out = append(out, &scope{Location: l, segment: names, base: query.Fold(nil, []byte(base))})
		}
	}
	return out, nil
}

// lookup returns an entry of a location.
func (c *Catalog) lookup(p *scope, id record.EntryID) (it Item, ok bool, err error) {
	return c.show(p, func() (uint32, bool) { return p.find(id) })
}

// Copies returns every entry whose content has a hash, location by location and by path, those of this device first.
func (c *Catalog) Copies(ctx context.Context, h record.Hash) (out []Item, err error) {
	scopes, err := c.scopes(ctx)
	if err != nil {
		return nil, err
	}
	at := map[feed.ID][]record.EntryID{}
	err = c.contents(ctx, map[record.Hash]bool{h: true}, func(_ record.Hash, id feed.ID, e record.EntryID) error {
		at[id] = append(at[id], e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, p := range scopes {
		var here []Item
		for _, e := range at[p.Feed()] {
			it, ok, err := c.lookup(p, e)
			if err != nil {
				return nil, err
			}
			if ok && it.File.Hash == h {
				here = append(here, it)
			}
		}
		slices.SortFunc(here, func(a, b Item) int { return cmp.Compare(a.Path, b.Path) })
		out = append(out, here...)
	}
	return out, nil
}

// Contents returns up to most hashes of files that begin with some hexadecimal digits.
func (c *Catalog) Contents(ctx context.Context, digits string, most int) (out []record.Hash, err error) {
	err = c.beginning(ctx, []string{digits}, func(h record.Hash, _ feed.ID, _ record.EntryID) error {
		if len(out) > 0 && out[len(out)-1] == h {
			return nil
		}
		if out = append(out, h); len(out) == most {
			return kv.Stop
		}
		return nil
	})
	return out, err
}

// ByID returns the entries of an ID: one, unless somebody gave it out twice.
func (c *Catalog) ByID(ctx context.Context, id record.EntryID) (out []Item, err error) {
	scopes, err := c.scopes(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range scopes {
		if it, ok, err := c.lookup(p, id); err != nil {
			return nil, err
		} else if ok {
			out = append(out, it)
		}
	}
	return out, nil
}

// Sized returns how many files of all devices have a size.
func (c *Catalog) Sized(ctx context.Context, size uint64) (n int, err error) {
	scopes, err := c.scopes(ctx)
	for _, p := range scopes {
		p.RLock()
		for slot := range p.count {
			if b, i := p.at(slot); b.sizes[i] == size && b.names[i] != noName && b.kind(i) == record.Regular {
				n++
			}
		}
		p.RUnlock()
	}
	return n, err
}
