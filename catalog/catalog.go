package catalog

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/record"
	"peerdex/store"
)

// fieldIgnore is a field of a location: its own ignore patterns, one a line.
const fieldIgnore = "ignore"

// Location is an indexed folder of some device.
type Location struct {
	Owner  record.DeviceID
	ID     record.LocationID
	Name   string // for people
	Path   string // on its device, as that file system has it
	Exists bool
	Ignore []string // its own ignore patterns
	Hash   Policy   // which of its files are read

	placed hlc.Stamp // of its path
	ended  bool      // a register says that it exists no more
}

// Feed returns the feed that holds the location's entries.
func (l Location) Feed() feed.ID { return feed.ID{Device: l.Owner, Location: l.ID} }

func (l Location) entity() record.Entity { return record.Location(l.Owner, l.ID) }

// Catalog answers what is known of the folders of all devices. Its methods read the store, and may be
// called from any goroutine.
type Catalog struct {
	feeds  Reader
	column *column

	marking sync.Mutex // guards what follows
	marks   *Marks
	marked  store.Edition // what marks was made of
}

// New returns the catalogue that feeds hold.
func New(feeds Reader) *Catalog { return &Catalog{feeds: feeds, column: newColumn()} }

// Locations returns every location of every device that exists, by owner and name.
func (c *Catalog) Locations() ([]Location, error) {
	all, err := locations(c.feeds)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(l Location) bool { return !l.Exists }), nil
}

// locations returns what the registers say, removed locations included.
func locations(feeds Reader) ([]Location, error) {
	var out []Location
	err := feeds.Registers(record.LocationEntity, func(r record.Register) error {
		id, ok := r.Entity.LocationID()
		owner, owned := r.Entity.Owner()
		if !ok || !owned {
			return nil
		}
		if n := len(out); n == 0 || out[n-1].ID != id || out[n-1].Owner != owner {
			out = append(out, Location{Owner: owner, ID: id, Hash: HashAuto})
		}
		l := &out[len(out)-1]
		switch r.Field {
		case record.FieldName:
			l.Name = string(r.Value)
		case record.FieldPath:
			l.Path, l.placed = string(r.Value), r.Stamp
		case record.FieldExists:
			l.Exists = len(r.Value) == 1 && r.Value[0] == 1
			l.ended = !l.Exists
		case fieldIgnore:
			l.Ignore = strings.Split(string(r.Value), "\n")
		case fieldHash:
			l.Hash = policyOf(r.Value)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b Location) int {
		return cmp.Or(slices.Compare(a.Owner[:], b.Owner[:]), cmp.Compare(a.Name, b.Name), slices.Compare(a.ID[:], b.ID[:]))
	})
	return out, nil
}
