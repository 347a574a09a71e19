package node

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"peerdex/catalog"
	"peerdex/internal/english"
	"peerdex/record"
)

// WhereQuery names an entry or a content, by one of Path, Entry and Hash.
type WhereQuery struct {
	Device string // peer ID of the device that Path is on
	Path   string // absolute on the device, or the name of a location with names below it
	Entry  string // hex of record.EntryID
	Hash   string // the first hexadecimal digits of record.Hash, at least minHash
}

// minHash is how many digits of a hash are enough to ask for it.
const minHash = 4

// Whereabouts are the places of a content, or one entry if its content is not known.
type Whereabouts struct {
	Now     time.Time `json:"now"`
	Hash    string    `json:"hash,omitempty"`    // hex; empty: not known
	Why     string    `json:"why,omitempty"`     // why it is not
	Unique  bool      `json:"unique"`            // the hash is not known, but no other file of any device has that size
	Places  []Entry   `json:"places"`            // by device and path
	On      int       `json:"on_devices"`        // how many devices those are on
	Asked   []Asked   `json:"asked,omitempty"`   // locations that are not kept here, and who answered for them
	Partial bool      `json:"partial,omitempty"` // nobody answered for some of those, or not in full
}

// Info is all that is known of one entry.
type Info struct {
	Now          time.Time `json:"now"`
	Entry        Entry     `json:"entry"`
	LocationName string    `json:"location_name"`
	Lost         bool      `json:"lost"`              // the folders above it are not all known yet
	Why          string    `json:"why,omitempty"`     // why the hash of the content is not known
	Unique       bool      `json:"unique"`            // like Whereabouts.Unique
	Copies       int       `json:"copies"`            // places of the content, this one included; 0: not known
	On           int       `json:"on_devices"`        // how many devices those are on
	Asked        []Asked   `json:"asked,omitempty"`   // like Whereabouts.Asked
	Partial      bool      `json:"partial,omitempty"` // like Whereabouts.Partial
}

// Where returns every place of a content, on devices that are away too.
func (n *Node) Where(ctx context.Context, q WhereQuery) (Whereabouts, error) {
	start := time.Now()
	defer func() { n.metrics.Query("where", time.Since(start)) }()
	out := Whereabouts{Now: start}
	s, err := n.seek()
	if err != nil {
		return out, err
	}
	var items []catalog.Item
	if q.Hash != "" {
		h, err := s.content(ctx, q.Hash)
		if err != nil {
			return out, err
		}
		if items, err = s.copiesOf(ctx, h); err != nil {
			return out, err
		}
		if len(items) == 0 {
			return out, noContent(q.Hash)
		}
		out.Hash = h.String()
	} else {
		it, err := s.named(ctx, q)
		if err != nil {
			return out, err
		}
		if items, out.Why, out.Unique, err = s.copies(ctx, it); err != nil {
			return out, err
		}
		if out.Why == "" {
			out.Hash = it.File.Hash.String()
		}
	}
	out.Places, err = s.marked(items)
	out.On, out.Asked = devicesOf(items), s.reports()
	out.Partial = partly(out.Asked)
	return out, err
}

// Info returns all that is known of one entry.
func (n *Node) Info(ctx context.Context, q WhereQuery) (Info, error) {
	start := time.Now()
	defer func() { n.metrics.Query("info", time.Since(start)) }()
	out := Info{Now: start}
	s, err := n.seek()
	if err != nil {
		return out, err
	}
	it, err := s.named(ctx, q)
	if err != nil {
		return out, err
	}
	items, why, unique, err := s.copies(ctx, it)
	if err != nil {
		return out, err
	}
	if out.Why, out.Unique = why, unique; why == "" {
		out.Copies, out.On = len(items), devicesOf(items)
	}
	entries, err := s.marked([]catalog.Item{it})
	if err != nil {
		return out, err
	}
	out.Asked = s.reports()
	out.Partial = partly(out.Asked)
	out.Entry, out.LocationName, out.Lost = entries[0], it.Location.Name, it.Lost
	return out, nil
}

type plainInfo Info

type infoJSON struct {
	plainInfo
	LocationNameB64 []byte `json:"location_name_b64,omitempty"`
}

// MarshalJSON keeps the bytes of the location's name.
func (i Info) MarshalJSON() ([]byte, error) {
	return json.Marshal(infoJSON{plainInfo(i), raw(i.LocationName)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (i *Info) UnmarshalJSON(b []byte) error {
	var j infoJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*i = Info(j.plainInfo)
	restore(&i.LocationName, j.LocationNameB64)
	return nil
}

func devicesOf(items []catalog.Item) int {
	devices := map[record.DeviceID]bool{}
	for _, it := range items {
		devices[it.Location.Owner] = true
	}
	return len(devices)
}

// copies returns every place of an item's content; the item alone, and why, if its content is not known.
func (s *seeking) copies(ctx context.Context, it catalog.Item) (items []catalog.Item, why string, unique bool, err error) {
	alone := []catalog.Item{it}
	switch {
	case it.File.Kind != record.Regular:
		return alone, "it is no regular file", false, nil
	case it.File.Size == 0:
		return alone, "it is empty", false, nil
	case !it.File.Hash.IsZero():
		items, err = s.copiesOf(ctx, it.File.Hash)
		if len(items) == 0 { // gone, or changed, just now
			items = alone
		}
		return items, "", false, err
	}
	same, err := s.sized(ctx, it)
	switch {
	case same <= 1 && partly(s.reports()):
		return alone, "no other file that could be looked at has its size", false, err
	case same <= 1:
		return alone, "no other file has its size, so that there is no copy of it", true, err
	}
	least := ""
	if partly(s.reports()) {
		least = "at least "
	}
	return alone, "its device has not read it; " + least + english.Plural(same, "file has", "files have") + " its size", false, err
}

// marked makes views of items, with their tags and notes.
func (s *seeking) marked(items []catalog.Item) ([]Entry, error) {
	m, err := s.catalog.Marks()
	if err != nil {
		return nil, err
	}
	out := []Entry{}
	for _, it := range items {
		e := s.in(it.Location).of(it)
		e.Tags = tagsShown(m, it)
		e.Note, e.ContentNote = m.In(it.Location.Feed()).Notes(it.File.ID, it.File.Hash)
		out = append(out, e)
	}
	return out, nil
}

// named returns the entry that a query names by its path or ID.
func (s *seeking) named(ctx context.Context, q WhereQuery) (catalog.Item, error) {
	if q.Entry == "" {
		return s.at(ctx, PathRef{q.Device, q.Path})
	}
	id, err := record.ParseEntryID(q.Entry)
	if err != nil {
		return catalog.Item{}, &Problem{Code: CodeUsage, Message: fmt.Sprintf("%q is no id of an entry", q.Entry), Cause: err.Error(), Try: "peer find --json shows ids"}
	}
	found, err := s.catalog.ByID(ctx, id)
	if err == nil && len(found) == 0 {
		found, err = s.byID(ctx, id)
	}
	switch {
	case err != nil:
		return catalog.Item{}, err
	case len(found) == 0:
		return catalog.Item{}, &Problem{Code: CodeNotFound, Message: fmt.Sprintf("no entry has the id %s", q.Entry),
			Cause: "it was never catalogued here, or is gone", Try: "peer find"}
	case len(found) > 1:
		return catalog.Item{}, &Problem{Code: CodeAmbiguous, Message: fmt.Sprintf("%s the id %s", english.Plural(len(found), "entry has", "entries have"), q.Entry),
			Cause: "an id is given out once; some device does not keep to that", Try: "name it by its path: peer info " + found[0].Path}
	}
	return found[0], nil
}

// content returns the one hash that begins with some digits.
func (s *seeking) content(ctx context.Context, digits string) (h record.Hash, err error) {
	digits = strings.ToLower(digits)
	if len(digits) < minHash || len(digits) > 2*len(h) || strings.Trim(digits, "0123456789abcdef") != "" {
		return h, &Problem{Code: CodeUsage, Message: fmt.Sprintf("%q is no hash", digits),
			Cause: fmt.Sprintf("it is %d to %d hexadecimal digits", minHash, 2*len(h)), Try: "peer where blake3:9f2c41d8"}
	}
	const most = 10
	found, err := s.contents(ctx, digits, most)
	switch {
	case err != nil:
		return h, err
	case len(found) == 0:
		return h, noContent(digits)
	case len(found) > 1:
		all := make([]string, len(found))
		for i, h := range found {
			all[i] = h.String()
		}
		return h, &Problem{Code: CodeAmbiguous, Message: fmt.Sprintf("several contents have a hash that begins with %s", digits),
			Cause: "among them " + strings.Join(all, ", "), Try: "peer where blake3:" + all[0], Details: map[string]any{"hashes": all}}
	}
	return found[0], nil
}

func noContent(digits string) error {
	return &Problem{Code: CodeNotFound, Message: fmt.Sprintf("no file known here has a content whose hash begins with %s", digits),
		Cause: "none was catalogued, or none that has it was read", Try: "peer find --json shows hashes"}
}
