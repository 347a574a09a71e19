//go:build linux

package catalog

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A directory moves, and is taken for something new where it is now before the node it was lets go of it.
// What happens in it from then on was lost: the system has one watch of a directory.
func TestWatchSurvivesTheOldOwner(t *testing.T) {
	base := t.TempDir()
	from, to := filepath.Join(base, "from"), filepath.Join(base, "to")
	write(t, base, "from/a")
	s := newWatches(func() (*fsnotify.Watcher, error) { return fsnotify.NewBufferedWatcher(16) })
	must(t, s.start())
	defer s.stop()
	id := realDisk{}.stat(from).id
	there := func() bool { return true }
	s.add(1, from, id, there)
	must(t, os.Rename(from, to))
	s.add(2, to, id, there)
	s.forget(1)
	write(t, to, "b")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if d := s.take()[2]; d != nil && (d.all || d.names["b"]) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("nothing was reported")
		}
	}
}

// A move is reported as two changes, and the first may be looked at before there is word of the second.
func TestMoveToldInTwo(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "from/a", "to/")
	b := newBench(t, Config{Gather: 200 * time.Millisecond, RescanEvery: time.Hour})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	_, before := b.catalogued(l)
	b.stop() // now its goroutine is ours
	b.ix.mu.Lock()
	lo := b.ix.locations[l.ID]
	b.ix.mu.Unlock()
	must(t, lo.watch.start())
	defer lo.watch.stop()
	must(t, os.Rename(filepath.Join(dir, "from/a"), filepath.Join(dir, "to/b")))
	from, to := lo.tree.child(root, "from"), lo.tree.child(root, "to")
	say := func(n uint32, name string) {
		lo.watch.mu.Lock()
		if lo.watch.w != nil { // else the pass is through
			lo.watch.soil(n, name)
		}
		lo.watch.mu.Unlock()
		lo.watch.signal()
	}
	say(from, "a")
	jobs := lo.dirty()
	time.AfterFunc(20*time.Millisecond, func() { say(to, "b") })
	p := lo.newPass()
	must(t, p.run(t.Context(), jobs, lo.more))
	if _, after := b.catalogued(l); after["to/b"] != before["from/a"] {
		t.Errorf("was %v, is %v", before, after)
	}
}
