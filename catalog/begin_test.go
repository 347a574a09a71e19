//go:build linux

package catalog

import (
	"context"
	"sync"
	"testing"
	"time"
)

// gated is a ledger whose next Sync waits.
type gated struct {
	*ledger
	once      sync.Once
	reached   chan struct{}
	letItPass chan struct{}
}

func (g *gated) Sync() error {
	g.once.Do(func() {
		close(g.reached)
		<-g.letItPass
	})
	return g.ledger.Sync()
}

// A folder named on the command line is added while the indexer begins to run. Both found the location
// new and began to index it, and every file was in the catalogue twice.
func TestAddWhileRunBegins(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "d/b")
	b := newBench(t, Config{})
	g := &gated{ledger: b.feeds, reached: make(chan struct{}), letItPass: make(chan struct{})}
	b.ix.feeds = g
	added := make(chan Location, 1)
	go func() {
		l, err := b.ix.Add(context.Background(), dir, Options{})
		if err != nil {
			t.Error(err)
		}
		added <- l
	}()
	<-g.reached // the location's registers are written, and Add has not ended
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.ix.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for range 1000 { // Run gets as far as it can
		b.ix.mu.Lock()
		running := b.ix.spawn != nil
		b.ix.mu.Unlock()
		if running {
			break
		}
		time.Sleep(10 * time.Microsecond)
	}
	close(g.letItPass)
	l := <-added
	b.phase(Watching)
	b.settles(l)
	b.rescan() // whoever else began it is through, too
	starts := 0
	b.notes.mu.Lock()
	for _, s := range b.notes.said {
		if s == "scan started" {
			starts++
		}
	}
	b.notes.mu.Unlock()
	if n := b.feeds.count(); n != 3 || starts != 2 {
		t.Errorf("%d records of 3 names, %d scans, want 3 and 2", n, starts)
	}
}
