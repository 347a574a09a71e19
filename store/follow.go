package store

import (
	"fmt"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/record"
)

// Follower is told what becomes of the files of every location feed, so that it can keep something in step
// with them. Calls come one at a time, in the order of the transactions, each after its transaction has
// committed and before the call that made it returns. Writers wait meanwhile; a Follower must not call the
// store.
type Follower interface {
	// Begin is called once, before the others, with the feeds that the Past holds.
	Begin(feeds []feed.ID)
	// Changed hands over what one transaction did, in order. The slice is the follower's to keep.
	Changed([]FileChange)
	// Dropped says that a feed is gone with all its files.
	Dropped(feed.ID)
	// Fresh returns where the files go of a feed that a Load brings whole. It may be called beside the others,
	// and what it returns comes back with Replaced, or never.
	Fresh() Fresh
	// Replaced says that a feed holds from now on what went into fresh, and nothing of what it held before.
	Replaced(id feed.ID, fresh Fresh)
}

// Fresh takes the files of one feed, each once, from one goroutine.
type Fresh interface{ Put(record.File) }

// FileChange is a file that was put in, in place of whatever its ID stood for, or taken out.
type FileChange struct {
	Feed feed.ID
	File record.File // of one taken out: as it was
	Gone bool
}

// Follow makes f the follower of this store, in place of one before it. It returns the files of all feeds
// as they are when Begin is called: f hears of everything after that, and of nothing before. Close the Past
// soon. It returns ErrLoading while a Load goes on.
func (s *Store) Follow(f Follower) (*Past, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if !s.startLoading() {
		return nil, ErrLoading
	}
	defer s.stopLoading()
	snap, err := s.eng.Snapshot()
	if err != nil {
		return nil, err
	}
	p := &Past{snap: snap, rows: map[feed.ID]row{}}
	var ids []feed.ID
	s.mu.Lock()
	for id, r := range s.rows {
		if !id.IsDevice() && r.num != 0 {
			p.rows[id] = *r
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	s.follower = f
	f.Begin(ids)
	return p, nil
}

// Past is the files of all location feeds at one moment. Its methods may be called from several goroutines
// at once.
type Past struct {
	snap kv.Snapshot
	rows map[feed.ID]row
}

// Close lets the moment go.
func (p *Past) Close() { p.snap.Close() }

// Files returns how many files and folders a feed holds.
func (p *Past) Files(id feed.ID) int { c := p.rows[id].counts; return int(c.Files + c.Dirs) }

// Scan calls fn for each file of a feed in order of seq. A feed can be read in parts, by as many goroutines:
// part counts from 0, each file is in one of them.
func (p *Past) Scan(id feed.ID, part, parts int, fn func(record.File) error) error {
	r, ok := p.rows[id]
	if !ok {
		return fmt.Errorf("feed %v: %w", id, ErrUnknownFeed)
	}
	top := max(r.state.Best.Seq, r.state.Floor.Seq, r.after) / uint64(parts)
	first, last := top*uint64(part), top*uint64(part+1) // seqs above first, up to last
	return p.snap.Scan(r.num.key(famEntry, 0), r.num.entry(first+1, nil), func(k, v []byte) error {
		seq, key := splitEntry(k)
		if seq > last && part < parts-1 {
			return kv.Stop
		}
		_, rec, err := splitValue(v)
		if err != nil {
			return fmt.Errorf("entry %x of feed %v: %w", key, id, err)
		}
		if record.IsTombstone(rec) {
			return nil
		}
		if got, err := accept(id, key, rec); err == nil {
			if f, ok := got.(record.File); ok {
				return fn(f)
			}
		}
		return nil // kept, and shown to nobody
	})
}
