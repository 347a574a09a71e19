package catalog

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"peerdex/feed"
	"peerdex/record"
	"peerdex/store"
)

// column is what searches read: the names of all locations, in memory, in step with the store. It follows
// the store's transactions, so that a name can be found when the call that wrote it returns.
type column struct {
	ready chan struct{} // closed once everything that was there at the start is in

	mu       sync.RWMutex // guards segments; taken before a segment's lock
	segments map[feed.ID]*segment
	loading  bool
	waiting  []store.FileChange // happened since Begin, and come after what was there then
}

func newColumn() *column {
	return &column{ready: make(chan struct{}), segments: map[feed.ID]*segment{}}
}

// Begin is store.Follower's.
func (c *column) Begin(feeds []feed.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loading = true
	for _, id := range feeds {
		c.segments[id] = newSegment()
	}
}

// Changed is store.Follower's.
func (c *column) Changed(changes []store.FileChange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loading {
		c.waiting = append(c.waiting, changes...)
		return
	}
	c.apply(changes)
}

// apply takes in changes; c.mu is held.
func (c *column) apply(changes []store.FileChange) {
	for len(changes) > 0 {
		id, n := changes[0].Feed, 1
		for n < len(changes) && changes[n].Feed == id {
			n++
		}
		s := c.segments[id]
		if s == nil {
			s = newSegment()
			c.segments[id] = s
		}
		s.Lock()
		for _, ch := range changes[:n] {
			if ch.Gone {
				s.remove(ch.File.ID)
			} else {
				s.Put(ch.File)
			}
		}
		s.Unlock()
		changes = changes[n:]
	}
}

// Dropped is store.Follower's.
func (c *column) Dropped(id feed.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(id)
}

// drop forgets a feed; c.mu is held.
func (c *column) drop(id feed.ID) {
	delete(c.segments, id)
	c.waiting = slices.DeleteFunc(c.waiting, func(ch store.FileChange) bool { return ch.Feed == id })
}

// loadPart is how many files of a feed one goroutine reads at a time.
const loadPart = 100_000

// load reads what the store holds, with as many goroutines as there are processors.
func (c *column) load(ctx context.Context, past *store.Past) error {
	segments := c.all() // one dropped meanwhile is filled for nobody
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for id, s := range segments {
		files := past.Files(id)
		s.Lock()
		s.index(files)
		s.Unlock()
		parts := files/loadPart + 1
		for part := range parts {
			g.Go(func() error { return s.fill(ctx, past, id, part, parts) })
		}
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("read all names: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apply(c.waiting)
	c.loading, c.waiting = false, nil
	close(c.ready)
	return nil
}

// fill puts in one part of a feed.
func (s *segment) fill(ctx context.Context, past *store.Past, id feed.ID, part, parts int) error {
	batch := make([]record.File, 0, 1000) // so that the lock is taken rarely
	flush := func() error {
		s.Lock()
		defer s.Unlock()
		for _, f := range batch {
			s.Put(f)
		}
		batch = batch[:0]
		return ctx.Err()
	}
	err := past.Scan(id, part, parts, func(f record.File) error {
		if batch = append(batch, f); len(batch) < cap(batch) {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// segment returns the names of a location; nil if the store holds none.
func (c *column) segment(id feed.ID) *segment {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.segments[id]
}

// all returns the names of every location that the store holds entries of.
func (c *column) all() map[feed.ID]*segment {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return maps.Clone(c.segments)
}

// Fresh is store.Follower's.
func (c *column) Fresh() store.Fresh { return newSegment() }

// Replaced is store.Follower's.
func (c *column) Replaced(id feed.ID, fresh store.Fresh) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(id)
	c.segments[id] = fresh.(*segment)
}

// Follow takes note of every change of files from now on. It returns what brings in the files that are there
// already: that blocks until all can be found, about a second for a million, and searches wait for it; nil if ctx
// ends it. Both are called once.
func (c *Catalog) Follow() (load func(ctx context.Context) error, err error) {
	past, err := c.feeds.Follow(c.column)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		defer past.Close()
		if err := c.column.load(ctx, past); ctx.Err() == nil {
			return err
		}
		return nil
	}, nil
}

func (c *column) isReady() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// loaded waits until Load has done its work.
func (c *Catalog) loaded(ctx context.Context) error {
	select {
	case <-c.column.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var _ store.Follower = (*column)(nil)
