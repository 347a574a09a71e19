//go:build linux

package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"lukechampine.com/blake3"

	"peerdex/record"
	"peerdex/store"
)

// shelf is a disk that notes which files are opened, and may hinder it.
type shelf struct {
	faulty
	mu    sync.Mutex
	opens map[string]int
	gate  chan struct{}    // if not nil, a file is opened for each receive
	touch func(rel string) // called after each read
	deny  map[string]error // by path below the location
}

func (d *shelf) open(folder, rel string) (content, error) {
	d.mu.Lock()
	if d.opens == nil {
		d.opens = map[string]int{}
	}
	d.opens[rel]++
	gate, touch, err := d.gate, d.touch, d.deny[rel]
	d.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: rel, Err: err}
	}
	c, err := d.realDisk.open(folder, rel)
	if err == nil && touch != nil {
		c = touched{c, func() { touch(rel) }}
	}
	return c, err
}

// touched is a file that something happens to when it was read.
type touched struct {
	content
	then func()
}

func (f touched) Read(b []byte) (int, error) {
	defer f.then()
	return f.content.Read(b)
}

func (d *shelf) opened(rel string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opens[rel]
}

func (d *shelf) change(fn func(*shelf)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn(d)
}

// soon hashes at once.
var soon = Config{HashAfter: time.Millisecond}

func shelved(tb testing.TB, cfg Config) (*bench, *shelf) {
	tb.Helper()
	b, d := newBench(tb, cfg), &shelf{}
	b.ix.disk = d
	return b, d
}

// hashOf returns what the feed says of the content at a path of a location.
func (b *bench) hashOf(l Location, rel string) record.Hash {
	b.Helper()
	c := New(b.feeds)
	load(b.TB, c)
	it, err := c.Resolve(b.Context(), Ref{l.Owner, l.Path + "/" + rel})
	if err != nil {
		return record.Hash{}
	}
	return it.File.Hash
}

func sum(text string) record.Hash { return blake3.Sum256([]byte(text)) }

// learns waits until the content at a path is known to be text.
func (b *bench) learns(l Location, rel, text string) {
	b.Helper()
	b.until("the hash of "+rel, func() bool { return b.hashOf(l, rel) == sum(text) })
}

func (b *bench) put(dir, rel, text string) {
	b.Helper()
	write(b, dir, rel)
	must(b, os.WriteFile(filepath.Join(dir, rel), []byte(text), 0o644))
}

// Names are there before any content was read; then those files are read whose size occurs twice, and no
// others; what is known is found by its hash.
func TestTwinsAreHashed(t *testing.T) {
	dir := t.TempDir()
	for i := range 50 {
		b := make([]byte, 100+i)
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("unique ", i)), b, 0o644))
	}
	b, d := shelved(t, soon)
	b.put(dir, "here/a", "same")
	b.put(dir, "there/b", "same")
	b.put(dir, "c", "else")
	write(t, dir, "empty/")
	must(t, os.WriteFile(filepath.Join(dir, "empty/1"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "empty/2"), nil, 0o644))
	must(t, os.Symlink("here/a", filepath.Join(dir, "link")))
	must(t, os.Symlink("there/b", filepath.Join(dir, "knil")))
	d.gate = make(chan struct{})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	b.settles(l)
	b.until("3 files are left to read", func() bool { return only(b.ix.Status()).Unhashed == 3 && b.notes.has("backlog 3") })
	if got := b.hashOf(l, "c"); !got.IsZero() {
		t.Errorf("the content of c is known as %v before it was read", got)
	}
	close(d.gate)
	b.learns(l, "here/a", "same")
	b.learns(l, "there/b", "same")
	b.learns(l, "c", "else")
	b.until("nothing is left to read", func() bool { return only(b.ix.Status()).Unhashed == 0 && b.notes.has("backlog 0") })
	found := 0
	same := sum("same")
	must(t, b.feeds.Entries(l.Feed(), func(r store.Row) error {
		if f, ok := fileOf(r); ok && f.Hash == same {
			found++
		}
		return nil
	}))
	if found != 2 {
		t.Errorf("%d files are found by the content", found)
	}
	b.put(dir, "d", "a third of 100 bytes"+string(make([]byte, 80))) // as long as one of the others
	b.learns(l, "d", "a third of 100 bytes"+string(make([]byte, 80)))
	b.learns(l, "unique 0", string(make([]byte, 100)))
	d.change(func(d *shelf) {
		if len(d.opens) != 5 {
			t.Errorf("opened %v", d.opens)
		}
		for rel, n := range d.opens {
			if n != 1 {
				t.Errorf("%s was read %d times", rel, n)
			}
		}
	})
	b.stop()
	if !b.notes.has("read hashed 4") || !b.notes.has("read hashed 100") {
		t.Error("what was read is not counted")
	}
	files, bytes := b.notes.hashes()
	if files != 5 || bytes != 212 {
		t.Errorf("told of %d files of %d bytes", files, bytes)
	}
}

// A hash stays with its file through renames, moves, swaps and changes of its mode, and goes with its content.
func TestHashFollowsTheFile(t *testing.T) {
	dir := t.TempDir()
	b, d := shelved(t, soon)
	b.put(dir, "a", "first")
	b.put(dir, "b", "other")
	b.run()
	l := b.add(dir, Options{})
	b.learns(l, "a", "first")
	b.learns(l, "b", "other")
	at := func(rel string) string { return filepath.Join(dir, rel) }
	write(t, dir, "sub/")
	must(t, os.Rename(at("a"), at("sub/a")))
	b.learns(l, "sub/a", "first")
	must(t, os.Chmod(at("b"), 0o600))
	b.settles(l)
	b.learns(l, "b", "other")
	must(t, os.Rename(at("sub"), at("bus")))
	b.learns(l, "bus/a", "first")
	must(t, os.Rename(at("bus/a"), at("a")))
	b.learns(l, "a", "first")
	swap := func() {
		must(t, os.Rename(at("a"), at("x")))
		must(t, os.Rename(at("b"), at("a")))
		must(t, os.Rename(at("x"), at("b")))
	}
	swap()
	b.settles(l)
	b.learns(l, "b", "first")
	b.learns(l, "a", "other")
	b.stop() // the next pass sees them changed without knowing how
	swap()
	b.ix = b.indexer(soon)
	b.ix.disk = d
	b.run()
	b.phase(Watching)
	b.settles(l)
	b.learns(l, "b", "other")
	b.learns(l, "a", "first")
	if x, y := d.opened("a"), d.opened("b"); x != 1 || y != 1 || len(d.opens) != 2 {
		t.Errorf("read again: %v", d.opens)
	}
	d.change(func(d *shelf) { d.gate = make(chan struct{}) })
	must(t, os.WriteFile(at("b"), []byte("third"), 0o644))
	b.until("the hash is gone", func() bool { return b.hashOf(l, "b").IsZero() })
	close(d.gate)
	b.learns(l, "b", "third")
	if b.hashOf(l, "a") != sum("first") {
		t.Error("the other file lost its hash")
	}
}

// What changes while it is read is not believed, left alone for a while, and read again.
func TestChangedWhileRead(t *testing.T) {
	for what, change := range map[string]func(path string){
		"time": func(path string) { must(t, os.Chtimes(path, time.Time{}, time.Unix(1, 0))) },
		"size": func(path string) { must(t, os.WriteFile(path, []byte("longer"), 0o644)) },
		"file": func(path string) {
			must(t, os.WriteFile(path+".new", []byte("word"), 0o644))
			info, err := os.Lstat(path)
			must(t, err)
			must(t, os.Chtimes(path+".new", time.Time{}, info.ModTime()))
			must(t, os.Rename(path+".new", path))
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			b, d := shelved(t, soon)
			b.put(dir, "a", "text")
			var once sync.Once
			changed := make(chan struct{})
			d.touch = func(string) {
				once.Do(func() {
					change(filepath.Join(dir, "a"))
					close(changed)
				})
			}
			b.run()
			l := b.add(dir, Options{Hash: HashAll})
			<-changed
			now, err := os.ReadFile(filepath.Join(dir, "a"))
			must(t, err)
			b.learns(l, "a", string(now))
			if n := d.opened("a"); n != 2 {
				t.Errorf("read %d times", n)
			}
			if !b.notes.has("read changed 4") && !b.notes.has("read changed 6") {
				t.Error("what was read in vain is not counted")
			}
		})
	}
}

// What cannot be read is shown, and tried again when the location is scanned, not before.
func TestUnreadableContent(t *testing.T) {
	dir := t.TempDir()
	b, d := shelved(t, soon)
	b.put(dir, "a", "text")
	b.put(dir, "b", "word")
	d.deny = map[string]error{"a": syscall.EACCES}
	b.run()
	l := b.add(dir, Options{})
	b.learns(l, "b", "word")
	b.until("it is shown", func() bool { return only(b.ix.Status()).Unreadable == 1 })
	if s := only(b.ix.Status()); s.Samples[0] != (Sample{"a", "permission denied"}) || !b.notes.has("read unreadable 0") {
		t.Errorf("%+v", s)
	}
	for i := range 3 { // each is a reason to look for what is to be read
		b.put(dir, fmt.Sprint("c", i), "four")
		b.learns(l, fmt.Sprint("c", i), "four")
	}
	if n := d.opened("a"); n != 1 {
		t.Errorf("tried %d times", n)
	}
	d.change(func(d *shelf) { d.deny = nil })
	b.rescan()
	b.learns(l, "a", "text")
	if s := only(b.ix.Status()); s.Unreadable != 0 {
		t.Errorf("still shown: %+v", s)
	}
}

// A policy holds from the next look on, for files there are and files to come.
func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	b, d := shelved(t, soon)
	b.put(dir, "a", "same")
	b.put(dir, "b", "same")
	b.put(dir, "c", "unique")
	if _, err := b.ix.Add(t.Context(), dir, Options{Hash: "some"}); !errors.Is(err, ErrBadPolicy) || len(b.exist()) != 0 {
		t.Errorf("policy some: %v", err)
	}
	b.run()
	l := b.add(dir, Options{Hash: HashNone})
	b.phase(Watching)
	set := func(p Policy) {
		t.Helper()
		got, err := b.ix.SetPolicy(l.ID, p)
		if err != nil || got.Hash != p || b.exist()[0].Hash != p {
			t.Errorf("%s: %+v, %v", p, got, err)
		}
	}
	other := t.TempDir()
	b.put(other, "d", "in another location")
	m := b.add(other, Options{Hash: HashAll})
	b.learns(m, "d", "in another location") // so the first one had its turn
	if len(d.opens) != 1 {
		t.Errorf("opened %v", d.opens)
	}
	set(HashAuto)
	b.learns(l, "a", "same")
	b.learns(l, "b", "same")
	set(HashAll)
	b.learns(l, "c", "unique")
	set(HashNone)
	if b.hashOf(l, "c").IsZero() {
		t.Error("a hash went")
	}
	if !b.notes.has("policy " + l.Name + " none") {
		t.Error("a change of the policy is not told")
	}
	if _, err := b.ix.SetPolicy(l.ID, "some"); !errors.Is(err, ErrBadPolicy) {
		t.Errorf("policy some: %v", err)
	}
	if _, err := b.ix.SetPolicy(record.LocationID{9}, HashAll); !errors.Is(err, ErrUnknown) {
		t.Errorf("of no location: %v", err)
	}
}

// What was not read when the indexer ended is read by the next one, and nothing else.
func TestHashingGoesOn(t *testing.T) {
	dir := t.TempDir()
	b, d := shelved(t, soon)
	for i := range 5 {
		b.put(dir, fmt.Sprint(i), fmt.Sprint("text ", i))
	}
	d.gate = make(chan struct{}, 2)
	d.gate <- struct{}{}
	d.gate <- struct{}{}
	b.run()
	l := b.add(dir, Options{})
	known := func() (n int) {
		for i := range 5 {
			if b.hashOf(l, fmt.Sprint(i)) == sum(fmt.Sprint("text ", i)) {
				n++
			}
		}
		return n
	}
	opened := func() (n int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, k := range d.opens {
			n += k
		}
		return n
	}
	b.until("the third is opened", func() bool { return opened() == 3 })
	close(d.gate)
	b.stop()
	had, tried := known(), opened()
	if had == 5 {
		t.Fatal("all were read")
	}
	b.ix = b.indexer(soon)
	b.ix.disk = d
	b.run()
	b.until("all are known", func() bool { return known() == 5 })
	if n := opened() - tried; n != 5-had {
		t.Errorf("%d were read again, %d were lacking", n, 5-had)
	}
}

// Contents wait while a location is scanned.
func TestHashingWaitsForScans(t *testing.T) {
	var (
		c    calm
		done = make(chan error)
	)
	end, end2 := c.disturb(), c.disturb()
	go func() { done <- c.wait(t.Context()) }()
	end()
	select {
	case <-done:
		t.Error("it did not wait for the second scan")
	default:
	}
	end2()
	must(t, <-done)
	must(t, c.wait(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	defer c.disturb()()
	if err := c.wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
}

func TestHashNow(t *testing.T) {
	dir := t.TempDir()
	b, d := shelved(t, soon)
	b.put(dir, "a", "text")
	b.put(dir, "sub/b", "words")
	must(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o644))
	b.run()
	l := b.add(dir, Options{Hash: HashNone})
	b.phase(Watching)
	_, ids := b.catalogued(l)
	now := func(rel string) (record.Hash, error) { return b.ix.HashNow(t.Context(), l.ID, ids[rel]) }
	for range 2 {
		if got, err := now("sub/b"); err != nil || got != sum("words") || b.hashOf(l, "sub/b") != got {
			t.Errorf("%v, %v", got, err)
		}
	}
	if n := d.opened("sub/b"); n != 1 {
		t.Errorf("read %d times", n)
	}
	for _, rel := range []string{"sub", "empty", "not there"} {
		if _, err := now(rel); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", rel, err)
		}
	}
	if _, err := b.ix.HashNow(t.Context(), record.LocationID{9}, ids["a"]); !errors.Is(err, ErrUnknown) {
		t.Errorf("of no location: %v", err)
	}
	d.change(func(d *shelf) {
		d.touch = func(rel string) { must(t, os.Chtimes(filepath.Join(dir, rel), time.Time{}, time.Unix(5, 0))) }
	})
	if _, err := now("a"); !errors.Is(err, ErrChanging) {
		t.Errorf("while it changes: %v", err)
	}
	d.change(func(d *shelf) { d.touch, d.deny = nil, map[string]error{"a": syscall.EACCES} })
	b.settles(l)
	if _, err := now("a"); !errors.Is(err, syscall.EACCES) {
		t.Errorf("denied: %v", err)
	}
}

// A file is opened only where it is: no link leads to it, at its name or on the way, and nothing is left
// of having read it.
func TestOpenFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "sub/a", "b")
	must(t, os.Symlink("sub", filepath.Join(dir, "dir")))
	must(t, os.Symlink("b", filepath.Join(dir, "c")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	read := func(rel string) error {
		v := version{}
		if info, err := os.Stat(filepath.Join(dir, rel)); err == nil {
			v = version{uint64(info.Size()), info.ModTime().UnixNano()}
		}
		_, _, err := digest(t.Context(), realDisk{}, dir, rel, v, context.Context.Err)
		return err
	}
	old := time.Unix(1e9, 0)
	must(t, os.Chtimes(filepath.Join(dir, "b"), old, old))
	for _, rel := range []string{"sub/a", "b"} {
		must(t, read(rel))
	}
	for _, rel := range []string{"dir/a", "c", "../x", "pipe", "none"} {
		if err := read(rel); err == nil {
			t.Errorf("%s was read", rel)
		}
	}
	var st syscall.Stat_t
	must(t, syscall.Stat(filepath.Join(dir, "b"), &st))
	if st.Atim.Sec != 1e9 {
		t.Errorf("the time of its last reading became %v", st.Atim)
	}
}

// Content that is longer than what is read at one time, and as long as that.
func TestDigestInChunks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, size := range []int{1, chunk - 1, chunk, chunk + 1, 3*chunk + 7} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i * 7)
		}
		must(t, os.WriteFile(path, data, 0o644))
		info, err := os.Stat(path)
		must(t, err)
		got, read, err := digest(t.Context(), realDisk{}, filepath.Dir(path), "f", version{uint64(size), info.ModTime().UnixNano()}, context.Context.Err)
		if err != nil || read != size || got != blake3.Sum256(data) {
			t.Errorf("%d bytes: %d read, %v", size, read, err)
		}
	}
}

// Thousands of files that changed names with each other keep their hashes, though the tombstones of some are
// committed before they turn up again.
func TestHashesGoRound(t *testing.T) {
	const files = 2*batchPuts + 1000 // so that the pass has to wait for its first commit
	dir := t.TempDir()
	b, d := shelved(t, soon)
	at := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	for i := range files {
		must(t, os.WriteFile(at(i), []byte(fmt.Sprint(i)), 0o644))
	}
	b.run()
	l := b.add(dir, Options{Hash: HashAll})
	known := func() map[string]record.Hash {
		out := map[string]record.Hash{}
		must(t, b.feeds.Entries(l.Feed(), func(row store.Row) error {
			if f, ok := fileOf(row); ok && !f.Hash.IsZero() {
				out[f.Name] = f.Hash
			}
			return nil
		}))
		return out
	}
	b.phase(Watching)
	b.until("all are known", func() bool { return len(known()) == files })
	b.stop()
	must(t, os.Rename(at(files-1), at(files)))
	for i := files - 1; i > 0; i-- {
		must(t, os.Rename(at(i-1), at(i)))
	}
	must(t, os.Rename(at(files), at(0)))
	d.change(func(d *shelf) { d.gate = make(chan struct{}) })
	defer close(d.gate)
	b.ix = b.indexer(soon)
	b.ix.disk = d
	b.run()
	b.phase(Watching)
	b.settles(l)
	now := known()
	for i := range files {
		if was := (i + files - 1) % files; now[fmt.Sprint(i)] != sum(fmt.Sprint(was)) {
			t.Fatalf("%d of %d are known, the hash of %d is %v", len(now), files, i, now[fmt.Sprint(i)])
		}
		if n := d.opened(fmt.Sprint(i)); n != 1 {
			t.Fatalf("%d was read %d times", i, n)
		}
	}
}

// A file that changed after it was read does not get the hash of what it was.
func TestLateHashIsNotBelieved(t *testing.T) {
	dir := t.TempDir()
	b, _ := shelved(t, soon)
	b.put(dir, "a", "text")
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	lo := b.ix.readable(l.ID)
	_, ids := b.catalogued(l)
	f, _, _, err := lo.lookup(ids["a"])
	must(t, err)
	for _, late := range []version{{f.Size + 1, f.ModTime}, {f.Size, f.ModTime - 1}} {
		must(t, lo.hand(t.Context(), []hashed{{f.ID, late, sum("other")}}))
	}
	if got := b.hashOf(l, "a"); !got.IsZero() {
		t.Errorf("the hash became %v", got)
	}
	b.stop()
	if err := lo.hand(t.Context(), []hashed{{f.ID, versionOf(f), sum("text")}}); !errors.Is(err, ErrStopped) {
		t.Errorf("when it stopped: %v", err)
	}
}
