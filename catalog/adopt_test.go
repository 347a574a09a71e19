//go:build linux

package catalog

import (
	"context"
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/record"
)

// returns puts a location into the registers as if a peer had brought it back, written at some time.
func (b *bench) returns(l Location, written time.Time) Location {
	b.Helper()
	l.Owner, l.Exists = testDevice(), true
	var entries []feed.Entry
	for field, value := range map[string]string{record.FieldPath: l.Path, record.FieldName: l.Name, record.FieldExists: "\x01"} {
		r := record.Register{Entity: l.entity(), Field: field, Author: l.Owner, Stamp: hlc.At(written), Value: []byte(value)}
		entries = append(entries, feed.Entry{Key: r.Key(), Record: r.Append(nil)})
	}
	if _, err := b.feeds.AbsorbRegisters(feed.Head{}, entries, 0); err != nil {
		b.Fatal(err)
	}
	return l
}

// exist returns the locations of the registers.
func (b *bench) exist() []Location {
	b.Helper()
	all, err := New(b.feeds).Locations()
	if err != nil {
		b.Fatal(err)
	}
	return all
}

// A store was lost, and a peer brings the location back when the indexer runs already.
func TestAdoptWhatComesBack(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "b/c")
	b := newBench(t, Config{})
	must(t, b.ix.Adopt()) // before Run there is nothing to do
	b.run()
	must(t, b.ix.Adopt())
	l := b.returns(Location{ID: record.LocationID{1}, Name: "old", Path: dir}, time.Now())
	b.returns(Location{ID: record.LocationID{2}, Name: "no path yet"}, time.Now())
	must(t, b.ix.Adopt())
	b.phase(Watching)
	b.settles(l)
	must(t, b.ix.Reload(t.Context(), l.ID))
	must(t, b.ix.Adopt()) // again changes nothing
	b.rescan()
	write(t, dir, "d")
	b.settles(l)
	must(t, b.feeds.SetRegisters(record.Register{Entity: l.entity(), Field: record.FieldExists, Value: []byte{0}}))
	must(t, b.ix.Adopt())
	if s := b.ix.Status(); len(s) != 0 || !b.notes.has("removed old 3") || !b.notes.has("location gone") {
		t.Errorf("removed elsewhere, and still %+v; told %q", s, b.notes.said)
	}
	b.feeds.count()
	write(t, dir, "e")
	b.stop() // whatever was under way has ended
	if n := b.feeds.count(); n != 0 {
		t.Errorf("%d records of a location that exists no more", n)
	}
}

// A removal waits for a disk that does not answer, and the rest of the device does not wait with it.
func TestAdoptDoesNotWaitForADisk(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a")
	b := newBench(t, Config{})
	disk := &stuck{waiting: make(chan struct{}, 100), free: make(chan struct{})}
	b.ix.disk = disk
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	disk.held.Store(true)
	write(t, dir, "b")
	<-disk.waiting
	removed := make(chan error, 1)
	go func() { removed <- b.ix.Remove(context.Background(), l.ID) }()
	b.until("the removal is under way", func() bool {
		free := b.ix.change.TryLock()
		if free {
			b.ix.change.Unlock()
		}
		return !free
	})
	adopted := make(chan error, 1)
	go func() { adopted <- b.ix.Adopt() }()
	select {
	case err := <-adopted:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Error("waits for the disk")
	}
	close(disk.free)
	must(t, <-removed)
}

// Somebody added the folder again before the old location came back: the old one, whose entries peers know,
// stays, and nothing is listed twice.
func TestOfTwoWithOnePathTheOlderStays(t *testing.T) {
	for _, running := range []bool{true, false} {
		dir, other := t.TempDir(), t.TempDir()
		write(t, dir, "a", "b/c")
		b := newBench(t, Config{})
		if running {
			b.run()
		}
		b.add(dir, Options{Name: "again"})
		apart := b.add(other, Options{})
		old := b.returns(Location{ID: record.LocationID{0xff}, Name: "old", Path: dir}, time.Now().Add(-time.Hour))
		if running {
			must(t, b.ix.Adopt())
		} else {
			b.run()
		}
		have := b.exist()
		if len(have) != 2 || have[0].ID != apart.ID && have[1].ID != apart.ID || have[0].ID != old.ID && have[1].ID != old.ID {
			t.Errorf("running %v: %+v exist, want %v and %v", running, have, old.ID, apart.ID)
		}
		b.settles(old)
		b.rescan()
		if s := b.ix.Status(); len(s) != 2 || !b.notes.has("location gone") {
			t.Errorf("running %v: %+v; told %q", running, s, b.notes.said)
		}
		b.returns(Location{ID: record.LocationID{1}, Name: "later", Path: dir}, time.Now().Add(-time.Minute))
		must(t, b.ix.Adopt())
		if have := b.exist(); len(have) != 2 {
			t.Errorf("running %v: one that comes back later stays: %+v", running, have)
		}
		b.stop()
	}
	tie := []Location{{ID: record.LocationID{3}, Path: "x"}, {ID: record.LocationID{2}, Path: "x"}}
	if first, again := single(tie); len(first) != 1 || first[0].ID != tie[1].ID || len(again) != 1 {
		t.Errorf("of %+v stay %+v", tie, first)
	}
}
