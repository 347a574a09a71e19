//go:build linux

package catalog

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"peerdex/record"
	"peerdex/store"
)

// faulty is a disk on which things fail.
type faulty struct {
	realDisk
	mu     sync.Mutex
	refuse map[string]error // by path: of listing it, or of looking at a name in it
}

func (d *faulty) set(path string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse == nil {
		d.refuse = map[string]error{}
	}
	if err == nil {
		delete(d.refuse, path)
	} else {
		d.refuse[path] = err
	}
}

func (d *faulty) fails(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refuse[path]
}

func (d *faulty) list(dir place, names []string, keep wanted, out []found) ([]found, error) {
	if err := d.fails(dir.path); err != nil {
		return out, &fs.PathError{Op: "open", Path: dir.path, Err: err}
	}
	out, err := d.realDisk.list(dir, names, keep, out)
	for i := range out {
		if err := d.fails(dir.path + "/" + out[i].name + "?"); err != nil {
			out[i] = found{name: out[i].name, err: err}
		}
	}
	return out, err
}

func only(s []Status) Status {
	if len(s) != 1 {
		return Status{}
	}
	return s[0]
}

func TestUnreadableIsKeptAndShown(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "open/a", "closed/deep/b", "closed/c", "half/d", "half/e")
	b := newBench(t, Config{})
	d := &faulty{}
	b.ix.disk = d
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	b.settles(l)
	before, _ := b.catalogued(l)
	d.set(dir+"/closed", syscall.EACCES)
	d.set(dir+"/half/d?", syscall.EIO)
	must(t, os.Remove(filepath.Join(dir, "closed/c")))
	b.rescan()
	if after, _ := b.catalogued(l); !equal(before, after) {
		t.Errorf("what could not be read was changed:\n%s\nnow\n%s", minus(before, after), minus(after, before))
	}
	s := only(b.ix.Status())
	want := []Sample{{"closed", "permission denied"}, {"half/d", "input/output error"}}
	if s.Unreadable != 2 || len(s.Samples) != 2 || s.Samples[0] != want[0] || s.Samples[1] != want[1] || s.Last.Errors != 2 {
		t.Errorf("status says %+v, want %+v", s, want)
	}
	d.set(dir+"/closed", nil)
	d.set(dir+"/half/d?", nil)
	b.rescan()
	b.settles(l)
	if s := only(b.ix.Status()); s.Unreadable != 0 {
		t.Errorf("status still says %+v", s)
	}
}

// A disk that is taken away takes nothing out of the catalogue.
func TestVanishedFolderIsUnavailable(t *testing.T) {
	base := t.TempDir()
	dir, away := filepath.Join(base, "disk"), filepath.Join(base, "away")
	write(t, dir, "a", "b/c")
	b := newBench(t, Config{RetryEvery: time.Millisecond})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	before, _ := b.catalogued(l)
	kept := func(what string) {
		t.Helper()
		if after, _ := b.catalogued(l); !equal(before, after) {
			t.Errorf("%s: the catalogue changed", what)
		}
	}
	must(t, os.Rename(dir, away))
	b.phase(Unavailable)
	kept("the folder is gone")
	must(t, os.Mkdir(dir, 0o755)) // as the place where a disk is mounted looks without it
	b.until("the reason names the empty directory", func() bool {
		return strings.Contains(only(b.ix.Status()).Reason, "mounted")
	})
	kept("the folder is empty")
	b.stop()
	b.ix = b.indexer(Config{RetryEvery: time.Millisecond}) // and a start without the disk
	b.run()
	b.phase(Unavailable)
	kept("started without it")
	must(t, os.Remove(dir))
	must(t, os.WriteFile(dir, nil, 0o644))
	b.until("the reason says it is no directory", func() bool {
		return only(b.ix.Status()).Reason == "not a directory any more"
	})
	kept("a file in its place")
	if err := b.ix.Rescan(context.Background()); err == nil {
		t.Error("a rescan of what is not there succeeds")
	}
	must(t, os.Remove(dir))
	must(t, os.Rename(away, dir))
	write(t, dir, "new")
	b.phase(Watching)
	b.settles(l)
	must(t, os.RemoveAll(filepath.Join(dir, "a"))) // but what is deleted is deleted, to the last file
	must(t, os.RemoveAll(filepath.Join(dir, "b")))
	must(t, os.RemoveAll(filepath.Join(dir, "new")))
	b.settles(l)
}

func TestWatchLimitMeansPolling(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a")
	b := newBench(t, Config{PollEvery: time.Millisecond})
	var full sync.Mutex
	limit := true
	real := b.ix.watcher
	b.ix.watcher = func() (*fsnotify.Watcher, error) {
		full.Lock()
		defer full.Unlock()
		if limit {
			return nil, os.NewSyscallError("inotify_init1", syscall.EMFILE)
		}
		return real()
	}
	b.run()
	l := b.add(dir, Options{})
	b.phase(Polling)
	write(t, dir, "b", "c/d")
	b.settles(l)
	if !b.notes.has("degraded: limit") || !b.notes.has("watch active false") || b.notes.has("recovered") {
		t.Errorf("told: %q", b.notes.said)
	}
	full.Lock()
	limit = false
	full.Unlock()
	b.phase(Watching)
	b.until("recovery is told", func() bool { return b.notes.has("recovered") && b.notes.has("watch active true") })
	write(t, dir, "c/e")
	b.settles(l)
}

func TestOverflowMeansAFullPass(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a")
	b := newBench(t, Config{})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	b.ix.mu.Lock()
	w := b.ix.locations[l.ID].watch
	b.ix.mu.Unlock()
	w.mu.Lock()
	for p := range w.byPath { // whatever happens now is lost
		must(t, w.w.Remove(p))
	}
	w.mu.Unlock()
	write(t, dir, "b")
	w.fault(fsnotify.ErrEventOverflow)
	b.settles(l)
	b.until("it is told", func() bool {
		return b.notes.has("overflow") && b.notes.has("degraded: overflow") && b.notes.has("recovered")
	})
	write(t, dir, "c")
	b.settles(l)
}

// Somebody puts a link where the folder was. What it leads to is nobody's to know: the location is
// unavailable, and nothing of the target gets into the catalogue.
func TestLinkInPlaceOfTheFolderIsNotFollowed(t *testing.T) {
	base := t.TempDir()
	dir, secret := filepath.Join(base, "dir"), filepath.Join(base, "secret")
	write(t, dir, "ok")
	write(t, secret, "private")
	b := newBench(t, Config{RetryEvery: time.Millisecond})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	before, _ := b.catalogued(l)
	must(t, os.RemoveAll(dir))
	must(t, os.Symlink(secret, dir))
	b.until("the reason says it is no directory", func() bool {
		return only(b.ix.Status()).Reason == "not a directory any more"
	})
	if after, _ := b.catalogued(l); !equal(before, after) {
		t.Errorf("catalogued through the link: %v", after)
	}
}

// A disk mounted inside the folder is taken away: an empty directory stands there, and says nothing.
func TestUnmountedInsideIsKept(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "usb/a", "usb/b/c", "x")
	b := newBench(t, Config{})
	d := &mounted{at: dir + "/usb"}
	b.ix.disk = d
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	b.settles(l)
	before, _ := b.catalogued(l)
	d.gone(true)
	must(t, os.Rename(dir+"/usb", dir+".away"))
	must(t, os.Mkdir(dir+"/usb", 0o755))
	for range 2 {
		b.rescan()
		if after, _ := b.catalogued(l); !equal(before, after) {
			t.Fatalf("changed:\n%s\nnow\n%s", minus(before, after), minus(after, before))
		}
		if s := only(b.ix.Status()); s.Unreadable != 1 || s.Samples[0].Path != "usb" {
			t.Fatalf("status %+v", s)
		}
	}
	must(t, os.Remove(dir+"/usb"))
	must(t, os.Rename(dir+".away", dir+"/usb"))
	d.gone(false)
	b.rescan()
	b.settles(l)
}

// mounted is a disk where what lies at a path is on a file system of its own, while it is there.
type mounted struct {
	realDisk
	at   string
	mu   sync.Mutex
	away bool
}

func (d *mounted) gone(away bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = away
}

func (d *mounted) turn(path string, id *identity) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.away && (path == d.at || strings.HasPrefix(path, d.at+"/")) {
		id.dev ^= 1 << 40
	}
}

func (d *mounted) stat(path string) found {
	f := d.realDisk.stat(path)
	d.turn(path, &f.id)
	return f
}

func (d *mounted) list(dir place, names []string, keep wanted, out []found) ([]found, error) {
	d.turn(dir.path, &dir.id)
	out, err := d.realDisk.list(dir, names, keep, out)
	for i := range out {
		if out[i].err == nil {
			d.turn(dir.path+"/"+out[i].name, &out[i].id)
		}
	}
	return out, err
}

// After the feed came back from somewhere without its local facts, or damaged, names tell what is what.
func TestReloadSettlesWhatTheFeedSays(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "b/c")
	b := newBench(t, Config{})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	b.settles(l)
	_, before := b.catalogued(l)
	var puts []store.Put
	for _, f := range b.feeds.live {
		puts = append(puts, store.Put{Record: f}) // without facts
	}
	extra := func(n byte, parent record.EntryID, kind record.Kind, name string) store.Put {
		return store.Put{Record: record.File{ID: record.EntryID{n}, Parent: parent, Kind: kind, Name: name}}
	}
	puts = append(puts, extra(1, record.EntryID{77}, record.Regular, "orphan"), extra(2, record.EntryID{3}, record.Directory, "ring"),
		extra(3, record.EntryID{2}, record.Directory, "ring"), extra(4, before["a"], record.Regular, "below a file"), extra(5, record.EntryID{}, record.Regular, "gone"))
	_, err := b.feeds.Commit(l.Feed(), puts)
	must(t, err)
	must(t, b.ix.Reload(context.Background(), l.ID))
	b.settles(l)
	if _, after := b.catalogued(l); after["b/c"] != before["b/c"] || after["a"] != before["a"] {
		t.Error("entries without local facts were not known by their names")
	}
	if !errors.Is(b.ix.Rescan(context.Background(), record.LocationID{1}), ErrUnknown) {
		t.Error("a location nobody knows is rescanned")
	}
}

// The folder itself is moved away and comes back, soon or late, the same or another: the catalogue follows,
// and so do the watches.
func TestFolderMovesAwayAndBack(t *testing.T) {
	base := t.TempDir()
	dir, away, other := filepath.Join(base, "dir"), filepath.Join(base, "away"), filepath.Join(base, "other")
	write(t, base, "dir/a", "dir/b/c", "other/x", "other/b/y")
	b := newBench(t, Config{RetryEvery: time.Millisecond})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	b.settles(l)
	_, before := b.catalogued(l)
	for range 20 { // at once
		must(t, os.Rename(dir, away))
		write(t, away, "b/d")
		must(t, os.Rename(away, dir))
	}
	b.settles(l)
	write(t, dir, "e", "b/f")
	b.settles(l)
	must(t, os.Rename(dir, away)) // and once that is known
	b.phase(Unavailable)
	write(t, away, "b/g")
	must(t, os.Rename(away, dir))
	b.settles(l)
	b.phase(Watching)
	if _, after := b.catalogued(l); after["b/c"] != before["b/c"] || after["a"] != before["a"] {
		t.Errorf("was %v, is %v", before, after)
	}
	must(t, os.Rename(dir, away)) // another in its place, at once
	must(t, os.Rename(other, dir))
	b.settles(l)
	write(t, dir, "z", "b/z")
	b.settles(l)
	write(t, away, "b/nobody sees this")
	b.settles(l)
}

// Directories that wait to be listed are the backlog; in the end there is none.
func TestBacklog(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a/a", "b/b", "c/c", "d/d")
	b := newBench(t, Config{})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	b.settles(l)
	b.until("the backlog is told", func() bool { return b.notes.has("backlog 4") && b.notes.last("backlog ") == "backlog 0" })
}
