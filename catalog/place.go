package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"peerdex/query"
	"peerdex/record"
)

// Locate returns the location, of all there are, of a device that a path leads into, and the names that lead on from its folder.
// The path is absolute, or the name of a location with names below it. It returns ErrNotFound for a path that
// is in no location; whether anything lies there is not asked.
func Locate(all []Location, device record.DeviceID, path string) (Location, []string, error) {
	for _, l := range all {
		if l.Owner != device {
			continue
		}
		names, ok := within(path, l.Path)
		if !ok {
			names, ok = within(path, l.Name)
		}
		if ok {
			return l, names, nil
		}
	}
	return Location{}, nil, fmt.Errorf("%q: %w", path, ErrNotFound)
}

// Root returns the location as an item.
func (l Location) Root() Item {
	return Item{Location: l, Path: l.Path, File: record.File{Kind: record.Directory}}
}

// Item returns a file that lies in a folder of the location, named by the names that lead there.
func (l Location) Item(folder []string, f record.File, lost bool) Item {
	path := l.Path
	for _, name := range folder {
		path = under(path, name)
	}
	return Item{Location: l, Path: under(path, f.Name), File: f, Lost: lost}
}

// Folder returns the names that lead from the location to the folder that an item lies in.
func (it Item) Folder() []string {
	names, ok := within(it.Path, it.Location.Path)
	if !ok || len(names) == 0 {
		return nil
	}
	return names[:len(names)-1]
}

// Compare orders two items as a search does that finds both.
func (by Sort) Compare(a, b Item) (c int) {
	switch by {
	case Unsorted:
		return 0
	case BySize:
		c = cmp.Compare(b.File.Size, a.File.Size)
	case ByModified:
		c = cmp.Compare(b.File.ModTime, a.File.ModTime)
	case ByName:
		c = slices.Compare(query.Fold(nil, []byte(a.File.Name)), query.Fold(nil, []byte(b.File.Name)))
	}
	return cmp.Or(c, strings.Compare(a.Path, b.Path))
}
