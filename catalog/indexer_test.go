//go:build linux

package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"peerdex/feed"
	"peerdex/record"
	"slices"
	"syscall"
	"testing"
	"time"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func TestIndexFollowsTheDisk(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "d/b", "d/e/c", "empty/", "\xff\xfe", "new\nline", "d/"+string(make255()))
	must(t, os.Symlink("../nowhere", filepath.Join(dir, "link")))
	b := newBench(t, Config{})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	b.settles(l)
	write(t, dir, "a2", "d/e/f/g/h")
	b.settles(l)
	must(t, os.Remove(filepath.Join(dir, "a")))
	must(t, os.WriteFile(filepath.Join(dir, "d/b"), []byte("longer than before"), 0o600))
	must(t, os.Chmod(filepath.Join(dir, "d/e"), 0o700))
	b.settles(l)
	must(t, os.RemoveAll(filepath.Join(dir, "d")))
	b.settles(l)
	b.feeds.count()
	b.rescan()
	if n := b.feeds.count(); n != 0 {
		t.Fatalf("a rescan with nothing changed wrote %d records", n)
	}
}

func make255() []byte {
	b := make([]byte, 255)
	for i := range b {
		b[i] = byte(0x80 + i%0x7f)
	}
	return b
}

// Moving a folder is one change, however much lies in it, and everything keeps its identity.
func TestMoveOfAFolderIsOneRecord(t *testing.T) {
	const files = 10_000
	dir := t.TempDir()
	write(t, dir, "target/")
	for i := range files {
		write(t, dir, fmt.Sprintf("from/%d/%d", i%50, i))
	}
	for _, way := range []string{"watched", "while away"} {
		t.Run(way, func(t *testing.T) {
			b := newBench(t, Config{})
			b.run()
			l := b.add(dir, Options{})
			b.phase(Watching)
			b.settles(l)
			_, before := b.catalogued(l)
			b.feeds.count()
			if way == "while away" {
				b.stop()
			}
			must(t, os.Rename(filepath.Join(dir, "from"), filepath.Join(dir, "target", "to")))
			if way == "while away" {
				b.ix = b.indexer(Config{})
				b.run()
				b.phase(Watching)
			}
			b.settles(l)
			if n := b.feeds.count(); n != 1 {
				t.Errorf("the move wrote %d records", n)
			}
			_, after := b.catalogued(l)
			for _, p := range []string{"", "/7", "/7/57"} {
				if before["from"+p] != after["target/to"+p] {
					t.Errorf("from%s did not keep its identity", p)
				}
			}
			write(t, dir, "target/to/7/new") // the watches moved along
			b.settles(l)
			must(t, os.Rename(filepath.Join(dir, "target", "to"), filepath.Join(dir, "from")))
			b.settles(l)
			must(t, os.Remove(filepath.Join(dir, "from/7/new")))
			b.settles(l)
		})
	}
}

func (b *bench) names(l Location) []string {
	_, ids := b.catalogued(l)
	out := []string{}
	for p := range ids {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

func (b *bench) shows(l Location, want ...string) {
	b.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !slices.Equal(b.names(l), want) {
		if time.Now().After(deadline) {
			b.Fatalf("catalogued: %q, want %q", b.names(l), want)
		}
		time.Sleep(time.Millisecond)
	}
}

// Rules take effect at once, both ways, while the folder is watched.
func TestIgnoreRulesTakeEffect(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.o", "keep.o", "src/b.o", "src/c", ".DS_Store", "big/x/y", "skip.me")
	b := newBench(t, Config{})
	b.run()
	l := b.add(dir, Options{Ignore: []string{"skip.*", "# none"}})
	all := []string{"a.o", "big", "big/x", "big/x/y", "keep.o", "src", "src/b.o", "src/c"}
	b.shows(l, all...)
	_, before := b.catalogued(l)
	rules := filepath.Join(dir, IgnoreFile)
	must(t, os.WriteFile(rules, []byte("*.o\n!keep.o\n/big/\n!.DS_Store\n!skip.me\n"), 0o644))
	b.shows(l, ".DS_Store", IgnoreFile, "keep.o", "skip.me", "src", "src/c")
	write(t, dir, "big/x/z", "src/d.o", "src/e") // unseen, unseen, seen
	b.shows(l, ".DS_Store", IgnoreFile, "keep.o", "skip.me", "src", "src/c", "src/e")
	must(t, os.WriteFile(filepath.Join(dir, "src", IgnoreFile), []byte("!d.o\nc\n"), 0o644))
	b.shows(l, ".DS_Store", IgnoreFile, "keep.o", "skip.me", "src", "src/"+IgnoreFile, "src/d.o", "src/e")
	must(t, os.Rename(filepath.Join(dir, "src"), filepath.Join(dir, "lib"))) // the rules move along
	b.shows(l, ".DS_Store", IgnoreFile, "keep.o", "lib", "lib/"+IgnoreFile, "lib/d.o", "lib/e", "skip.me")
	must(t, os.Rename(filepath.Join(dir, "lib"), filepath.Join(dir, "src")))
	must(t, os.Remove(rules))
	must(t, os.Remove(filepath.Join(dir, "src", IgnoreFile)))
	b.shows(l, "a.o", "big", "big/x", "big/x/y", "big/x/z", "keep.o", "src", "src/b.o", "src/c", "src/d.o", "src/e")
	if _, after := b.catalogued(l); after["keep.o"] != before["keep.o"] {
		t.Error("what was never left out did not keep its identity")
	}
	b.feeds.count()
	b.rescan()
	if n := b.feeds.count(); n != 0 {
		t.Errorf("a rescan wrote %d records", n)
	}
}

func TestAddRefuses(t *testing.T) {
	base := t.TempDir()
	write(t, base, "one/in/", "two/", "file", "home/deep/", "outer/home/", "one2/")
	must(t, os.Symlink("one", filepath.Join(base, "alias")))
	b := newBench(t, Config{Home: filepath.Join(base, "home")})
	one := b.add(filepath.Join(base, "one"), Options{Name: "first"})
	for _, c := range []struct {
		path, name string
		want       error
	}{
		{"none", "", ErrMissing}, {"file/x", "", ErrMissing}, {"file", "", ErrNotDirectory}, {"one", "", ErrIndexed},
		{"one/", "x", ErrIndexed}, {"alias", "", ErrIndexed}, {"one/in", "", ErrInside}, {"alias/in", "", ErrInside},
		{".", "", ErrContains}, {"two", "first", ErrNameTaken}, {"two", "a/b", ErrBadName}, {"two", "\xff", ErrBadName},
		{"home", "", ErrHome}, {"home/deep", "", ErrHome},
	} {
		_, err := b.ix.Add(context.Background(), filepath.Join(base, c.path), Options{Name: c.name})
		var r *Refusal
		if !errors.Is(err, c.want) || !errors.As(err, &r) {
			t.Errorf("add %s as %q: %v, want %v", c.path, c.name, err, c.want)
		} else if other := r.Other.ID; (c.want == ErrIndexed || c.want == ErrInside || c.want == ErrContains || c.want == ErrNameTaken) != (other == one.ID) {
			t.Errorf("add %s: in the way is %+v", c.path, r.Other)
		}
	}
	if l := b.add(filepath.Join(base, "one2"), Options{}); l.Name != "one2" { // a common beginning is no containment
		t.Errorf("named %q", l.Name)
	}
	write(t, base, "x/one2/")
	if l := b.add(filepath.Join(base, "x/one2"), Options{}); l.Name != "one2-2" {
		t.Errorf("a second one2 is named %q", l.Name)
	}
	write(t, base, "fh\xff/")
	if l := b.add(filepath.Join(base, "fh\xff"), Options{}); l.Name != "fh\xff" {
		t.Errorf("a folder whose name is no UTF-8 is named %q", l.Name)
	}
	got, err := New(b.feeds).Locations()
	must(t, err)
	if len(got) != 4 || got[1].Path != one.Path || got[0].Owner != testDevice() || !got[0].Exists {
		t.Errorf("locations: %+v", got)
	}
	if err := b.ix.Remove(context.Background(), record.LocationID{9}); !errors.Is(err, ErrUnknown) {
		t.Errorf("remove nobody's location: %v", err)
	}
}

// peer's own directory inside a location is not catalogued: it would never come to rest.
func TestHomeInsideIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", ".local/peer/store/x", ".local/other", "peer")
	b := newBench(t, Config{Home: filepath.Join(dir, ".local/peer")})
	b.run()
	l := b.add(dir, Options{})
	b.shows(l, ".local", ".local/other", "a", "peer")
}

func TestRemoveIsOneRegister(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "b/c")
	b := newBench(t, Config{})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	b.feeds.count()
	before, _ := b.feeds.State(feed.ID{Device: testDevice()})
	must(t, b.ix.Remove(context.Background(), l.ID))
	after, _ := b.feeds.State(feed.ID{Device: testDevice()})
	if n := b.feeds.count(); n != 0 || after.Settled.Seq != before.Settled.Seq+1 {
		t.Errorf("%d records and registers %d to %d", n, before.Settled.Seq, after.Settled.Seq)
	}
	if got, err := New(b.feeds).Locations(); err != nil || len(got) != 0 {
		t.Errorf("locations: %+v, %v", got, err)
	}
	if len(b.ix.Status()) != 0 || !b.notes.has("removed 001 2") || !b.notes.has("location gone") {
		t.Errorf("told: %q", b.notes.said)
	}
	b.add(dir, Options{}) // and it may come back
	b.phase(Watching)
}

// Two names of one file are two entries, and a change through one shows at both.
func TestHardLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "d/a", "e/")
	must(t, os.Link(filepath.Join(dir, "d/a"), filepath.Join(dir, "e/b")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	b := newBench(t, Config{})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	b.settles(l)
	must(t, os.WriteFile(filepath.Join(dir, "d/a"), []byte("longer than it was"), 0o644))
	b.settles(l)
	_, before := b.catalogued(l)
	must(t, os.Link(filepath.Join(dir, "d/a"), filepath.Join(dir, "e/c")))
	b.settles(l) // seen at once, nothing would tell which of the new names was the old one
	must(t, os.Rename(filepath.Join(dir, "e/b"), filepath.Join(dir, "d/b")))
	b.settles(l)
	_, after := b.catalogued(l)
	if before["d/a"] != after["d/a"] || before["e/b"] != after["d/b"] || after["e/c"] == after["d/a"] {
		t.Errorf("before %v, after %v", before, after)
	}
}

// Two folders change places: both keep their identity, and nothing in them is touched.
func TestFoldersChangePlaces(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a/x/1", "b/x/2", "c/d/3")
	b := newBench(t, Config{})
	b.run()
	l := b.add(dir, Options{})
	b.phase(Watching)
	_, before := b.catalogued(l)
	b.stop()
	b.feeds.count()
	p := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Rename(p("a"), p("t")))
	must(t, os.Rename(p("b"), p("a")))
	must(t, os.Rename(p("t"), p("b")))
	b.ix = b.indexer(Config{})
	b.run()
	b.phase(Watching)
	b.settles(l)
	_, after := b.catalogued(l)
	if before["a"] != after["b"] || before["b/x/2"] != after["a/x/2"] {
		t.Errorf("before %v, after %v", before, after)
	}
	if n := b.feeds.count(); n > 3 {
		t.Errorf("the swap wrote %d records", n)
	}
	write(t, dir, "a/x/4", "b/x/5")
	b.settles(l)
}
