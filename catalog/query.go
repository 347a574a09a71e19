package catalog

import (
	"errors"
	"fmt"
	"strings"

	"peerdex/feed"
	"peerdex/kv"
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

// Resolve returns what lies at a path on a device: an absolute path, or the name of a location with
// names below it. It returns ErrNotFound for a path that is in no location, or that its location does not list: the
// item then tells that location.
func (c *Catalog) Resolve(device record.DeviceID, path string) (Item, error) {
	all, err := c.Locations()
	if err != nil {
		return Item{}, err
	}
	return c.ResolveIn(all, device, path)
}

// ResolveIn is Resolve for who asks for many paths and has what Locations returned.
func (c *Catalog) ResolveIn(all []Location, device record.DeviceID, path string) (Item, error) {
	l, names, err := Locate(all, device, path)
	if err != nil {
		return Item{}, err
	}
	return c.Descend(l, names)
}

// Descend follows names from the folder of a location down. It returns ErrNotFound where they lead nowhere.
func (c *Catalog) Descend(l Location, names []string) (Item, error) {
	item := l.Root()
	for _, name := range names {
		var child record.EntryID
		err := c.feeds.Children(l.Feed(), item.File.ID, name, func(have string, id record.EntryID) error {
			if have == name {
				child = id
			}
			return kv.Stop
		})
		if err != nil && !errors.Is(err, store.ErrUnknownFeed) {
			return Item{}, err
		}
		f, ok, err := c.file(l.Feed(), child)
		if err != nil {
			return Item{}, err
		}
		if !ok {
			return Item{Location: l}, fmt.Errorf("%q in %q: %w", name, item.Path, ErrNotFound)
		}
		item.File, item.Path = f, under(item.Path, name)
	}
	return item, nil
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
// names, after the name after; limit 0 returns all.
func (c *Catalog) List(dir Item, after string, limit int) ([]Item, error) {
	var (
		ids []record.EntryID
		out []Item
	)
	id := dir.Location.Feed()
	err := c.feeds.Children(id, dir.File.ID, after, func(name string, child record.EntryID) error {
		if after != "" && name <= after {
			return nil
		}
		if limit > 0 && len(ids) == limit {
			return kv.Stop
		}
		ids = append(ids, child)
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrUnknownFeed) {
		return nil, err
	}
	for _, child := range ids {
		f, ok, err := c.file(id, child)
		if err != nil {
			return nil, err
		}
		if ok { // else it went away in between
			out = append(out, Item{Location: dir.Location, File: f, Path: under(dir.Path, f.Name), Lost: dir.Lost})
		}
	}
	return out, nil
}
