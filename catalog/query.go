package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"peerdex/feed"
	"peerdex/record"
	"peerdex/store"
)

// ErrNotFound is returned, wrapped with the path, for what no catalogue lists.
var ErrNotFound = errors.New("not in the catalogue")

// Item is one entry with where it belongs.
type Item struct {
	Location Location
	File     record.File // the zero ID: the location itself
	Path     string      // on its device
	Lost     bool        // its parents are not all known, so Path begins at LostMark
}

// LostMark stands in a path for parents that are not known, as when a feed has not come in completely.
const LostMark = "(parent unknown)"

// slashed returns a path with slashes if it is one of Windows, where both kinds part names.
func slashed(path string) string {
	if len(path) > 1 && path[1] == ':' || strings.HasPrefix(path, `\\`) {
		return strings.ReplaceAll(path, `\`, "/")
	}
	return path
}

// within returns the names that lead from folder to path; false if path is not there.
func within(path, folder string) ([]string, bool) {
	path, folder = strings.TrimRight(slashed(path), "/"), strings.TrimRight(slashed(folder), "/")
	rest, ok := strings.CutPrefix(path, folder)
	if !ok || rest != "" && rest[0] != '/' {
		return nil, false
	}
	return strings.FieldsFunc(rest, func(r rune) bool { return r == '/' }), true
}

// Ref is a path on a device: absolute, or the name of a location with names below it.
type Ref struct {
	Device record.DeviceID
	Path   string
}

// Resolved is what a path leads to, or why it leads nowhere: ErrNotFound for a path that is in no location, or that its
// location does not list. The item then tells that location.
type Resolved struct {
	Item
	Err error
}

// Resolve is ResolveAll for one path.
func (c *Catalog) Resolve(ctx context.Context, at Ref) (Item, error) {
	all, err := c.ResolveAll(ctx, []Ref{at})
	if err != nil {
		return Item{}, err
	}
	return all[0].Item, all[0].Err
}

// ResolveAll returns what lies at some paths, in their order. It waits until all names are in memory.
func (c *Catalog) ResolveAll(ctx context.Context, refs []Ref) ([]Resolved, error) {
	all, err := c.Locations()
	if err != nil {
		return nil, err
	}
	type within struct {
		Location
		paths [][]string
		refs  []int // that the paths are of
	}
	var (
		out = make([]Resolved, len(refs))
		in  = map[feed.ID]*within{}
	)
	for i, ref := range refs {
		l, names, err := Locate(all, ref.Device, ref.Path)
		if err != nil {
			out[i].Err = err
			continue
		}
		w := in[l.Feed()]
		if w == nil {
			w = &within{Location: l}
			in[l.Feed()] = w
		}
		w.paths, w.refs = append(w.paths, names), append(w.refs, i)
	}
	for _, w := range in {
		found, err := c.descend(ctx, w.Location, w.paths)
		if err != nil {
			return nil, err
		}
		for k, r := range found {
			out[w.refs[k]] = r
		}
	}
	return out, nil
}

// Descend follows names from the folder of a location down. It returns ErrNotFound where they lead nowhere, and waits
// until all names are in memory.
func (c *Catalog) Descend(ctx context.Context, l Location, names []string) (Item, error) {
	all, err := c.descend(ctx, l, [][]string{names})
	if err != nil {
		return Item{}, err
	}
	return all[0].Item, all[0].Err
}

func (c *Catalog) descend(ctx context.Context, l Location, paths [][]string) ([]Resolved, error) {
	if err := c.loaded(ctx); err != nil {
		return nil, err
	}
	out := make([]Resolved, len(paths))
	s := c.column.segment(l.Feed())
	if s == nil {
		s = newSegment()
	}
	s.RLock()
	ids := make([]record.EntryID, len(paths))
	for i, n := range s.descend(paths) {
		if n != nowhere && n != noParent {
			b, k := s.at(n)
			ids[i] = b.ids[k]
		}
	}
	s.RUnlock()
	for i, names := range paths {
		out[i].Item = l.Root()
		if len(names) == 0 {
			continue
		}
		f, ok, err := c.file(l.Feed(), ids[i])
		if err != nil && !errors.Is(err, store.ErrUnknownFeed) {
			return nil, err
		}
		if !ok {
			out[i] = Resolved{Item{Location: l}, fmt.Errorf("%q: %w", l.Item(names[:len(names)-1], record.File{Name: names[len(names)-1]}, false).Path, ErrNotFound)}
			continue
		}
		out[i].Item = l.Item(names[:len(names)-1], f, false)
	}
	return out, nil
}

// under puts a name below a path in the manner of the path.
func under(dir, name string) string {
	sep := "/"
	if slashed(dir) != dir {
		sep = `\`
	}
	if strings.HasSuffix(dir, sep) {
		return dir + name
	}
	return dir + sep + name
}

// file returns a live entry.
func (c *Catalog) file(id feed.ID, e record.EntryID) (record.File, bool, error) {
	if e == (record.EntryID{}) {
		return record.File{}, false, nil
	}
	row, ok, err := c.feeds.Entry(id, e[:])
	if err != nil || !ok {
		return record.File{}, false, err
	}
	rec, err := record.Decode(row.Key, row.Record)
	f, isFile := rec.(record.File)
	return f, err == nil && isFile, nil // a record of a newer version is shown to nobody
}

// List returns up to limit entries of a directory that Resolve found, sorted by the bytes of their
// names, after the name after; limit 0 returns all. It waits until all names are in memory.
func (c *Catalog) List(ctx context.Context, dir Item, after string, limit int) ([]Item, error) {
	if err := c.loaded(ctx); err != nil {
		return nil, err
	}
	id := dir.Location.Feed()
	s := c.column.segment(id)
	if s == nil {
		return nil, nil
	}
	var (
		out  []Item
		more []int // of out, whose records say more
	)
	for left := limit; ; left = limit - len(out) {
		listed := s.list(dir.File.ID, after, left)
		s.RLock()
		folder, _ := s.folderSlot(dir.File.ID)
		for _, e := range listed {
			if b, i := s.at(e.slot); b.names[i] == noName || b.parents[i]&parentMask != folder || s.name(e.slot) != e.name {
				continue // it went away in between
			}
			f, says := s.file(e.slot)
			if says {
				more = append(more, len(out))
			}
			out = append(out, Item{Location: dir.Location, File: f, Path: under(dir.Path, f.Name), Lost: dir.Lost})
		}
		s.RUnlock()
		if limit == 0 || len(listed) < left || len(out) == limit { // else as many are asked for as went away
			break
		}
		after = listed[left-1].name
	}
	for _, i := range more {
		f, ok, err := c.file(id, out[i].File.ID)
		if errors.Is(err, store.ErrUnknownFeed) { // dropped just now
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if ok {
			out[i].File = f
		}
	}
	return out, nil
}
