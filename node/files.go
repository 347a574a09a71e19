package node

import (
	"cmp"
	"context"
	"fmt"
	"time"

	corepeer "github.com/libp2p/go-libp2p/core/peer"

	"peerdex/catalog"
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

// List returns what lies directly in a folder of any device. Of one whose entries are not kept here, a device
// that has them is asked.
func (n *Node) List(ctx context.Context, q ListQuery) (Listing, error) {
	start := time.Now()
	defer func() { n.metrics.Query("ls", time.Since(start)) }()
	limit := cmp.Or(q.Limit, defaultListing)
	if l, names, lazy, err := n.lazyAt(PathRef{q.Device, q.Path}); err != nil {
		return Listing{}, err
	} else if lazy {
		q.Limit = limit
		return n.listAsked(ctx, q, l, names, Listing{Now: start, Device: q.Device})
	}
	at, err := n.resolvePath(ctx, PathRef{q.Device, q.Path})
	if err != nil {
		return Listing{}, err
	}
	items := []catalog.Item{at}
	if at.File.ID == (record.EntryID{}) || at.File.Kind == record.Directory {
		if items, err = n.catalog.List(ctx, at, q.After, limit+1); err != nil {
			return Listing{}, err
		}
	}
	m, err := n.catalog.Marks()
	if err != nil {
		return Listing{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	out := Listing{Now: start, Device: q.Device, DeviceName: n.nameOf(at.Location.Owner), Gone: n.goneAs(at.Location.Owner), Online: n.online(at.Location.Owner), Path: at.Path, Entries: []Entry{}}
	out.AsOf, out.Current = n.freshness(at.Location.Feed())
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

// entry makes the view of one entry; n.mu is held.
func (n *Node) entry(it catalog.Item) Entry { return n.inLocation(it.Location).of(it) }

// inLocation is what the views of all entries of a location have in common; n.mu is held.
func (n *Node) inLocation(l catalog.Location) Entry {
	e := Entry{
		Device: idText(l.Owner), DeviceName: n.nameOf(l.Owner), Gone: n.goneAs(l.Owner), Online: n.online(l.Owner),
		Location: l.ID.String(),
	}
	e.AsOf, e.Current = n.freshness(l.Feed())
	return e
}

// viewIn is inLocation for who does not hold n.mu.
func (n *Node) viewIn(l catalog.Location) Entry {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.inLocation(l)
}

// of completes the view of an entry of its location.
func (e Entry) of(it catalog.Item) Entry {
	e.ID, e.Kind, e.Name, e.Path, e.Target = it.File.ID.String(), it.File.Kind.String(), it.File.Name, it.Path, it.File.Target
	e.Size, e.Mode = it.File.Size, it.File.Mode
	if it.File.ModTime != 0 {
		e.Modified = time.Unix(0, it.File.ModTime)
	}
	if !it.File.Hash.IsZero() {
		e.Hash = it.File.Hash.String()
	}
	return e
}
