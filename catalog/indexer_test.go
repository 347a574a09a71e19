package catalog

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
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
