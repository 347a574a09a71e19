package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corepeer "github.com/libp2p/go-libp2p/core/peer"

	"peerdex/catalog"
	"peerdex/metrics"
	"peerdex/protocol"
	"peerdex/record"
)

// deviceOf reads a peer ID as text.
func deviceOf(text string) (record.DeviceID, error) {
	id, err := corepeer.Decode(text)
	if err != nil {
		return record.DeviceID{}, &Problem{Code: CodeUnknownDevice, Message: fmt.Sprintf("%q is no device of this library", text), Cause: err.Error(), Try: "peer devices"}
	}
	d, err := protocol.DeviceOf(id)
	if err != nil {
		return d, &Problem{Code: CodeUnknownDevice, Message: fmt.Sprintf("%q is no device of this library", text), Cause: err.Error(), Try: "peer devices"}
	}
	return d, nil
}

// defaultListing is how many entries one page of a listing holds.
const defaultListing = 1000

// List returns what lies directly in a folder of any device.
func (n *Node) List(_ context.Context, q ListQuery) (Listing, error) {
	start := time.Now()
	defer func() { n.metrics.Query("ls", time.Since(start)) }()
	d, err := deviceOf(q.Device)
	if err != nil {
		return Listing{}, err
	}
	at, err := n.catalog.Resolve(d, q.Path)
	if errors.Is(err, catalog.ErrNotFound) {
		return Listing{}, &Problem{Code: CodeNotFound, Message: fmt.Sprintf("nothing is catalogued at %q", q.Path),
			Cause: "no location of the device holds that path", Try: "peer locations"}
	}
	if err != nil {
		return Listing{}, err
	}
	limit := cmp.Or(q.Limit, defaultListing)
	items := []catalog.Item{at}
	if at.File.ID == (record.EntryID{}) || at.File.Kind == record.Directory {
		if items, err = n.catalog.List(at, q.After, limit+1); err != nil {
			return Listing{}, err
		}
	}
	m, err := n.catalog.Marks()
	if err != nil {
		return Listing{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	out := Listing{Now: start, Device: q.Device, DeviceName: n.nameOf(d), Online: n.online(d), Path: at.Path, Entries: []Entry{}}
	out.AsOf = n.asOf(at.Location)
	if len(items) > limit {
		items, out.More = items[:limit], true
	}
	for _, it := range items {
		e := n.entry(it)
		e.Tags = tagsShown(m, it)
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}

// asOf returns how fresh a location is; n.mu is held.
func (n *Node) asOf(l catalog.Location) time.Time {
	if l.Owner == n.self {
		return time.Now()
	}
	if st, ok := n.store.State(l.Feed()); ok && st.Settled != nil && !st.Settled.IsGenesis() {
		return st.Settled.Stamp.Time()
	}
	return time.Time{}
}

// entry makes the view of one entry; n.mu is held.
func (n *Node) entry(it catalog.Item) Entry {
	e := Entry{
		Device: idText(it.Location.Owner), DeviceName: n.nameOf(it.Location.Owner), Online: n.online(it.Location.Owner),
		AsOf: n.asOf(it.Location), Location: it.Location.ID.String(), ID: it.File.ID.String(), Kind: it.File.Kind.String(),
		Name: it.File.Name, Path: it.Path, Target: it.File.Target, Size: it.File.Size, Mode: it.File.Mode,
	}
	if it.File.ModTime != 0 {
		e.Modified = time.Unix(0, it.File.ModTime)
	}
	if !it.File.Hash.IsZero() {
		e.Hash = it.File.Hash.String()
	}
	return e
}

// Find calls fn for each entry whose name holds all words of the query.
func (n *Node) Find(ctx context.Context, q FindQuery, fn func(Entry) error) (FindResult, error) {
	start := time.Now()
	defer func() { n.metrics.Query("find", time.Since(start)) }()
	devices := make([]record.DeviceID, 0, len(q.Device))
	for _, text := range q.Device {
		d, err := deviceOf(text)
		if err != nil {
			return FindResult{}, err
		}
		devices = append(devices, d)
	}
	if len(devices) == 0 {
		devices = append(devices, record.DeviceID{})
	}
	res := FindResult{Now: start}
	var sorted []Entry
	emit := func(e Entry) error {
		res.Found++
		return fn(e)
	}
	limit := 0
	if q.Limit > 0 && q.Sort == "" {
		limit = q.Limit + 1
	}
	for _, d := range devices {
		err := n.catalog.Find(ctx, strings.Fields(q.Text), catalog.FindOptions{Device: d, Limit: limit}, func(it catalog.Item) error {
			n.mu.Lock()
			e := n.entry(it)
			n.mu.Unlock()
			if q.Sort != "" {
				sorted = append(sorted, e)
				return nil
			}
			if q.Limit > 0 && res.Found == uint64(q.Limit) {
				res.More = true
				return nil
			}
			return emit(e)
		})
		if err != nil {
			return res, err
		}
	}
	slices.SortStableFunc(sorted, entryOrder(q.Sort))
	if q.Limit > 0 && len(sorted) > q.Limit {
		sorted, res.More = sorted[:q.Limit], true
	}
	for _, e := range sorted {
		if err := emit(e); err != nil {
			return res, err
		}
	}
	all, err := n.Devices(ctx)
	if err != nil {
		return res, err
	}
	for _, v := range all {
		if len(q.Device) == 0 || slices.Contains(q.Device, v.ID) {
			res.Devices = append(res.Devices, v)
		}
	}
	res.Took = metrics.Seconds(time.Since(start))
	return res, nil
}

// entryOrder compares entries by what a query asks for: names and paths from a to z, sizes and times from
// the greatest.
func entryOrder(by string) func(a, b Entry) int {
	return func(a, b Entry) int {
		c := 0
		switch by {
		case "name":
			c = strings.Compare(a.Name, b.Name)
		case "size":
			c = cmp.Compare(b.Size, a.Size)
		case "modified":
			c = b.Modified.Compare(a.Modified)
		}
		return cmp.Or(c, strings.Compare(a.Path, b.Path), strings.Compare(a.Device, b.Device))
	}
}
