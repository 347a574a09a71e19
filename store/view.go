package store

import (
	"bytes"
	"fmt"

	"peerdex/feed"
	"peerdex/internal/mutant"
	"peerdex/kv"
)

// View is one feed as it stood at one moment. Close it soon.
type View struct {
	State feed.State
	snap  kv.Snapshot
	nodes nodes
}

// Serve pins a feed for serving it to a peer: settled, and durable with everything else in the view
// (rules 2 and 6). It may block for one Sync. It returns ErrUnsettled or ErrUnknownFeed.
func (s *Store) Serve(id feed.ID) (*View, error) {
	v, err := s.Peek(id)
	if err != nil {
		return nil, err
	}
	if v.State.Settled == nil && mutant.Is("serve_unsettled") {
		v.State.Settled = &v.State.Best
	}
	if v.State.Settled == nil {
		v.Close()
		return nil, fmt.Errorf("serve feed %v: %w", id, ErrUnsettled)
	}
	if mutant.Is("publish_volatile") {
		return v, nil
	}
	if err := s.Sync(); err != nil { // after the snapshot, so that it covers all of it
		v.Close()
		return nil, err
	}
	return v, nil
}

// Peek pins a feed as it is, settled or not, for this device's own eyes.
func (s *Store) Peek(id feed.ID) (*View, error) {
	snap, err := s.eng.Snapshot()
	if err != nil {
		return nil, err
	}
	b, err := snap.Get(feedKey(id))
	if err == nil && b == nil {
		err = ErrUnknownFeed
	}
	var r *row
	if err == nil {
		r, err = decodeRow(id, b)
	}
	if err != nil {
		snap.Close()
		return nil, fmt.Errorf("open feed %v: %w", id, err)
	}
	return &View{State: r.state, snap: snap, nodes: nodes{r: snap, shape: s.cfg.Shape, row: r}}, nil
}

// Close lets the moment go.
func (v *View) Close() { v.snap.Close() }

// Height returns the highest level of the tree as kept on disk.
func (v *View) Height() int { return v.nodes.row.height }

// Node returns the hashes of a node's children, cut after the last that is not zero.
func (v *View) Node(level int, i uint64) ([]feed.Hash, error) { return v.nodes.Node(level, i) }

// Leaf returns what leaf i holds.
func (v *View) Leaf(i uint64) (feed.Leaf, error) { return v.nodes.Leaf(i) }

// Pack writes a leaf for the wire, in the shape of this store's trees.
func (v *View) Pack(l feed.Leaf) []byte { return v.nodes.shape.Pack(l) }

// LeavesFrom calls fn with the index of each leaf that is not empty, from i upwards.
func (v *View) LeavesFrom(i uint64, fn func(i uint64) error) error {
	prefix := v.nodes.row.num.tree(0, 0)[:6]
	return v.snap.ScanKeys(prefix, v.nodes.row.num.tree(0, i), func(k []byte) error {
		return fn(feedUint(k[6:]))
	})
}

// After calls fn for each entry with a seq above seq, in order. The slices are fn's to keep.
func (v *View) After(seq uint64, fn func(feed.Entry) error) error {
	return v.scan(seq+1, fn)
}

// At calls fn for each entry that stands at seq: one, or two while the feed is being repaired.
func (v *View) At(seq uint64, fn func(feed.Entry) error) error {
	return v.scan(seq, func(e feed.Entry) error {
		if e.Seq != seq {
			return kv.Stop
		}
		return fn(e)
	})
}

func (v *View) scan(from uint64, fn func(feed.Entry) error) error {
	n := v.nodes.row.num
	return v.snap.Scan(n.key(famEntry, 0), n.entry(from, nil), func(k, val []byte) error {
		_, rec, err := splitValue(val)
		if err != nil {
			return fmt.Errorf("entry %x: %w", k, err)
		}
		seq, key := splitEntry(k)
		return fn(feed.Entry{Key: bytes.Clone(key), Seq: seq, Record: bytes.Clone(rec)})
	})
}
