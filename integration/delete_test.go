package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerdex/api"
	"peerdex/feed"
	"peerdex/node"
	"peerdex/record"
	"peerdex/store"
)

const many = 10_000 // files in the folder that is deleted, renamed and moved

// received returns the changes that came in, by source.
func (p *peer) received() (total uint64, by map[string]uint64) {
	p.t.Helper()
	m := p.metrics()
	return m.Operations.Received.Total, m.Operations.Received.By
}

// Renaming and moving a folder with 10,000 files is exactly one change on the other device, and everything
// keeps its identity. A new file of an old name is another file.
func TestRenameAndMoveIsOneChange(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	old := filepath.Join(dir, "old")
	fill(t, filepath.Join(old, "deep"), many)
	if err := os.MkdirAll(filepath.Join(dir, "elsewhere"), 0o755); err != nil {
		t.Fatal(err)
	}
	a, b := two(t, []string{dir}, nil)
	before := inStep(t, a, b)
	for i, to := range []string{"new", "elsewhere/moved", "old"} {
		n, _ := b.received()
		from := old
		old = filepath.Join(dir, to)
		if err := os.Rename(from, old); err != nil {
			t.Fatal(err)
		}
		probe := filepath.Join(old, "deep", "d042", "f04242")
		eventually(t, "the move arrives", func() string {
			if dumpOf(t, b.client).find(probe) == nil {
				return probe + " is not there"
			}
			return ""
		})
		c := inStep(t, a, b)
		c.wantOnDisk(t, dir)
		if got, _ := b.received(); got != n+1 {
			t.Errorf("move %d cost %d changes", i, got-n)
		}
	}
	after := inStep(t, a, b)
	if d := before.diff(after); d != "" {
		t.Errorf("moved there and back, the catalogue has changed: %s", d)
	}
	wantEqualOnDisk(t, a, b)
}

// A file, a folder of 10,000 and a location are deleted while the other device is in step; then names
// come back. Deleting the location costs one change.
func TestDeletedOnline(t *testing.T) {
	t.Parallel()
	dir, other := tempDir(t), tempDir(t)
	write(t, filepath.Join(dir, "kept"), "1")
	write(t, filepath.Join(dir, "file"), "12")
	fill(t, filepath.Join(dir, "folder"), many)
	fill(t, other, 1000)
	a, b := two(t, []string{dir}, []string{other})
	before := inStep(t, a, b)

	n, _ := b.received()
	if err := os.Remove(filepath.Join(dir, "file")); err != nil {
		t.Fatal(err)
	}
	same(t, len(before.rows)-1, a.client, b.client)
	if got, _ := b.received(); got != n+1 {
		t.Errorf("deleting a file cost %d changes", got-n)
	}

	if err := os.RemoveAll(filepath.Join(dir, "folder")); err != nil {
		t.Fatal(err)
	}
	same(t, 1+1010, a.client, b.client)

	write(t, filepath.Join(dir, "file"), "123") // the names come back
	fill(t, filepath.Join(dir, "folder"), 100)
	c := same(t, 1+1010+1+1+1+100, a.client, b.client)
	c.wantOnDisk(t, dir)
	if r := c.find(filepath.Join(dir, "file")); r.ID == before.find(r.Path).ID {
		t.Error("the new file has the identity of the deleted one")
	}
	inStep(t, a, b)

	n, _ = b.received()
	var l node.LocationView
	a.ask(&l, "locations", "remove", dir)
	if l.Path != dir || l.Files != 102 {
		t.Errorf("removed %+v", l)
	}
	same(t, 1010, a.client, b.client)
	inStep(t, a, b).wantOnDisk(t, other)
	if got, _ := b.received(); got != n+1 {
		t.Errorf("deleting a location cost %d changes", got-n)
	}
	if _, err := os.Stat(filepath.Join(dir, "folder", "d000", "f00000")); err != nil {
		t.Errorf("removing a location touched its files: %v", err)
	}
	wantEqualOnDisk(t, a, b)
	f := openHome(t, b.home)
	defer f.close(t)
	for _, st := range f.States() {
		if st.Feed.Location.String() == l.ID && st.Count > 0 {
			t.Errorf("the feed of the deleted location is still held: %+v", st)
		}
	}
}

// Things are deleted while the other device is off. It comes back before their tombstones are collected,
// or after: then no delta can tell it, and the tree diff does. No ghost either way, nothing comes back.
func TestDeletedWhileAway(t *testing.T) {
	t.Parallel()
	for _, collected := range []bool{false, true} {
		t.Run(fmt.Sprintf("collected %v", collected), func(t *testing.T) {
			dir, gone := tempDir(t), tempDir(t)
			const files = 2500
			fill(t, filepath.Join(dir, "folder"), files)
			write(t, filepath.Join(dir, "kept", "file"), "1")
			fill(t, gone, 300)
			a, b := two(t, []string{dir, gone}, nil)
			inStep(t, a, b)
			id := locationAt(t, a, dir)
			b.stop()

			if err := os.RemoveAll(filepath.Join(dir, "folder")); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "new"), "12")
			a.ask(&node.LocationView{}, "locations", "remove", gone)
			var scan node.ScanView
			a.ask(&scan, "locations", "rescan", dir)
			want := a.dumpCatalogue()
			want.wantOnDisk(t, dir)
			a.stop()
			tombstones := a.tombstones(t, id, collected)
			if want := uint64(files + files/100 + 1); tombstones != want {
				t.Errorf("%d tombstones, want %d", tombstones, want)
			}
			a.start("")
			b.start("")
			got := inStep(t, a, b)
			if d := want.diff(got); d != "" {
				t.Errorf("deleted while away: %s", d)
			}
			total, by := b.received()
			if collected && (by["reconcile"] == 0 || total > 100) || !collected && by["reconcile"] != 0 {
				t.Errorf("received %v", by)
			}
			if n := len(b.events(api.EventQuery{Types: []string{"watermark_too_old"}})); collected != (n == 1) {
				t.Errorf("%d events say that the delta was refused", n)
			}
			wantEqualOnDisk(t, a, b)
			for _, p := range []*peer{a, b} {
				want := uint64(files + files/100 + 1)
				if collected {
					want = 0
				}
				if n := p.tombstones(t, id, false); n != want {
					t.Errorf("%s holds %d tombstones, want %d", p.name, n, want)
				}
			}
		})
	}
}

func locationAt(t testing.TB, p *peer, path string) string {
	t.Helper()
	for _, l := range p.status().Locations {
		if l.Path == path {
			return l.ID
		}
	}
	t.Fatalf("%s has no location at %s", p.name, path)
	return ""
}

// tombstones returns how many a location's feed holds in the files of a device that does not run, and has
// its owner collect them if collect says so.
func (p *peer) tombstones(t testing.TB, location string, collect bool) (n uint64) {
	t.Helper()
	f := openHome(t, p.home)
	defer f.close(t)
	for _, st := range f.States() {
		if st.Feed.Location.String() != location {
			continue
		}
		counted := uint64(0)
		err := f.Entries(st.Feed, func(r store.Row) error {
			if record.IsTombstone(r.Record) {
				counted++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n = f.Counts(st.Feed).Tombstones; n != counted {
			t.Errorf("%d tombstones are counted, %d are there", n, counted)
		}
		if collect {
			collectAll(t, f, st)
		}
		return n
	}
	t.Fatalf("%s has no feed of location %s", p.name, location)
	return 0
}

func collectAll(t testing.TB, f *files, st feed.State) {
	t.Helper()
	for h := *st.Settled; h.GC < st.Settled.Seq; {
		var err error
		if h, err = f.Collect(st.Feed, st.Settled.Seq); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// An old upsert of a file that its owner has deleted is still on its way through a third device: the file
// stays deleted.
func TestDeletedStaysDeletedThroughThird(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	fill(t, dir, 200)
	a, b := two(t, []string{dir}, nil)
	inStep(t, a, b)
	c := newPeer(t, "gamma")
	c.join(b.invite())
	inStep(t, a, b, c)
	c.stop() // with the files in its store

	for i := range 100 {
		if err := os.Remove(filepath.Join(dir, "d000", fmt.Sprintf("f%05d", i))); err != nil {
			t.Fatal(err)
		}
	}
	want := same(t, 102, a.client, b.client)
	a.stop()
	c.start("") // beta hears of the old upserts from gamma, and gamma of the tombstones from beta
	got := inStep(t, b, c)
	if d := want.diff(got); d != "" {
		t.Errorf("through gamma: %s", d)
	}
	a.start("")
	if d := want.diff(inStep(t, a, b, c)); d != "" {
		t.Errorf("with alpha again: %s", d)
	}
	if strings.Contains(fmt.Sprint(want.rows), "f00099") {
		t.Error("deleted files are shown")
	}
	wantEqualOnDisk(t, a, b, c)
}

// A location of 20,000 entries is removed, and at once the process is killed that deletes them. What is on its disk is
// whole, without the location; the next process goes on, records and sends what comes, and in the end the keys are gone.
func TestKilledWhileDeleting(t *testing.T) {
	t.Parallel()
	dir, other := tempDir(t), tempDir(t)
	fill(t, dir, 20_000)
	fill(t, other, 100)
	a, b := two(t, []string{dir, other}, nil)
	inStep(t, a, b)
	var l node.LocationView
	a.ask(&l, "locations", "remove", dir)
	a.kill()
	f := openHome(t, a.home)
	f.wantWhole(t)
	for _, st := range f.States() {
		if st.Feed.Location.String() == l.ID {
			t.Errorf("the feed of the removed location is there: %+v", st)
		}
	}
	f.close(t)
	a.start("")
	write(t, filepath.Join(other, "later"), "x")
	same(t, 100+1+1, a.client, b.client)
	inStep(t, a, b).wantOnDisk(t, other)
	wantEqualOnDisk(t, a, b)
}
