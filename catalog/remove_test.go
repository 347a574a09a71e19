//go:build linux

package catalog

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"peerdex/record"
	"peerdex/store"
)

// full is a ledger that has no room for registers.
type full struct {
	*ledger
	now atomic.Bool
}

func (f *full) SetRegisters(regs ...record.Register) error {
	if f.now.Load() {
		return store.ErrNoSpace
	}
	return f.ledger.SetRegisters(regs...)
}

// stuck is a disk that answers nothing while it is held, as a network file system without its server.
type stuck struct {
	realDisk
	held    atomic.Bool
	waiting chan struct{} // receives for each question that waits
	free    chan struct{} // closed: it answers again
}

func (d *stuck) list(dir place, names []string, keep wanted, out []found) ([]found, error) {
	if d.held.Load() {
		d.waiting <- struct{}{}
		<-d.free
	}
	return d.realDisk.list(dir, names, keep, out)
}

// A removal that could not be written has not happened: the folder is followed as before.
func TestRemoveThatFailsChangesNothing(t *testing.T) {
	for _, why := range []string{"no room", "no answer from the disk"} {
		t.Run(why, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "a", "b/c")
			b := newBench(t, Config{})
			disk := &stuck{waiting: make(chan struct{}, 100), free: make(chan struct{})}
			feeds := &full{ledger: b.feeds}
			b.ix.disk, b.ix.feeds = disk, feeds
			b.run()
			l := b.add(dir, Options{})
			b.phase(Watching)
			ctx, want := t.Context(), store.ErrNoSpace
			if why == "no room" {
				feeds.now.Store(true)
			} else {
				disk.held.Store(true)
				write(t, dir, "b/d")
				<-disk.waiting
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				want = context.DeadlineExceeded
			}
			if err := b.ix.Remove(ctx, l.ID); !errors.Is(err, want) {
				t.Fatalf("remove: %v, want %v", err, want)
			}
			if s := b.ix.Status(); len(s) != 1 || s[0].Location != l.ID {
				t.Fatalf("after a removal that failed: %+v", s)
			}
			feeds.now.Store(false)
			disk.held.Store(false)
			close(disk.free)
			write(t, dir, "e")
			b.phase(Watching)
			b.settles(l)
			must(t, b.ix.Remove(t.Context(), l.ID))
			if s := b.ix.Status(); len(s) != 0 || !b.notes.has("location gone") {
				t.Errorf("after the removal: %+v, told %q", s, b.notes.said)
			}
		})
	}
}
