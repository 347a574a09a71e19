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
	id := realDisk{}.stat(from, false).id
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
