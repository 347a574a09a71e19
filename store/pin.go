package store

import (
	"fmt"

	"peerdex/feed"
	"peerdex/kv"
)

// Pinned is feeds as they all stood at one moment. Several goroutines may read it. Close it soon: it keeps old
// versions on disk.
type Pinned struct {
	Heads []feed.Head // at which they are settled, in order of the feeds
	snap  kv.Snapshot
	nums  map[feed.ID]num
}

// Pin pins the settled feeds that pick wants, for handing them out: all of it is durable (rules 2 and 6). It
// may block for one Sync. Feeds to which nothing was ever written are left out.
func (s *Store) Pin(pick func(feed.ID) bool) (*Pinned, error) {
	snap, err := s.eng.Snapshot()
	if err != nil {
		return nil, err
	}
	p := &Pinned{snap: snap, nums: map[feed.ID]num{}}
	err = snap.Scan([]byte{famFeed}, nil, func(k, v []byte) error {
		id := feed.ParseID(k[1:])
		r, err := decodeRow(id, v)
		if err != nil {
			return err
		}
		if h := r.state.Settled; h != nil && !h.IsGenesis() && pick(id) {
			p.Heads = append(p.Heads, *h)
			p.nums[id] = r.num
		}
		return nil
	})
	if err == nil {
		err = s.Sync() // after the snapshot, so that it covers all of it
	}
	if err != nil {
		snap.Close()
		return nil, fmt.Errorf("pin feeds: %w", err)
	}
	return p, nil
}

// Entries calls fn for each entry of a pinned feed with a seq from from to below to, in order. The slices are
// valid during the call.
func (p *Pinned) Entries(id feed.ID, from, to uint64, fn func(feed.Entry) error) error {
	n, ok := p.nums[id]
	if !ok {
		return fmt.Errorf("read feed %v: %w", id, ErrUnknownFeed)
	}
	return p.snap.Scan(n.key(famEntry, 0), n.entry(from, nil), func(k, v []byte) error {
		seq, key := splitEntry(k)
		if seq >= to {
			return kv.Stop
		}
		_, rec, err := splitValue(v)
		if err != nil {
			return fmt.Errorf("entry %x of feed %v: %w", k, id, err)
		}
		return fn(feed.Entry{Key: key, Seq: seq, Record: rec})
	})
}

// Close lets the moment go.
func (p *Pinned) Close() { p.snap.Close() }
