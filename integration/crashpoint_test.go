package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerdex/internal/failpoint"
)

// Crash points C11 to C15: the receiver of a snapshot dies at exactly one of them. Its disk holds the old files or
// the new ones whole, it goes on with the chunks it kept, and in the end it is equal to the donor.
func TestN17KilledAtEachPointOfASnapshot(t *testing.T) {
	t.Parallel()
	folders := []string{tempDir(t), tempDir(t), tempDir(t)}
	for _, dir := range folders {
		fill(t, dir, 1500)
	}
	points := []struct {
		at       string
		switched bool
		kept     int // whole chunks on disk
	}{
		{failpoint.C11, false, 1},
		{failpoint.C12, false, len(folders)},
		{failpoint.C13, false, len(folders)},
		{failpoint.C14, true, len(folders)},
		{failpoint.C15, true, len(folders)},
	}
	a := newPeer(t, "alpha")
	a.start("")
	all := []*peer{a}
	for _, c := range points { // members that hold nothing of alpha's yet
		b := newPeer(t, "dies at "+c.at, "--snapshot", "1000")
		b.join(a.invite())
		inStep(t, a, b)
		b.stop()
		all = append(all, b)
	}
	for _, dir := range folders {
		a.add(dir)
	}
	for i, c := range points {
		b := all[i+1]
		b.dies = c.at + ":1"
		if c.at == failpoint.C11 {
			b.dies = c.at + ":2" // a chunk is kept by then
		}
		if _, err := b.tryStart(""); err == nil { // else it was dead before it had told that it runs
			b.wait()
		}
		b.dies = ""
		if b.code != -1 {
			t.Fatalf("%s: exit %d", b.name, b.code)
		}
		name, err := os.ReadFile(filepath.Join(b.home, "store", "CURRENT"))
		if switched := err == nil; switched != c.switched || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: CURRENT is %q, %v", b.name, name, err)
		}
		if _, err := os.Stat(filepath.Join(b.home, "store", "MANIFEST")); err != nil {
			t.Errorf("%s: the old files: %v", b.name, err)
		}
		n, bytes := keptChunks(t, b)
		if n != c.kept {
			t.Fatalf("%s: %d chunks are kept, want %d", b.name, n, c.kept)
		}
		f := openHome(t, b.home)
		f.wantWhole(t)
		held := 0
		for _, st := range f.States() {
			if !st.Feed.IsDevice() && st.Count > 0 {
				held++
			}
		}
		f.close(t)
		if want := map[bool]int{true: len(folders)}[c.switched]; held != want {
			t.Errorf("%s: %d locations are there, want %d", b.name, held, want)
		}
		b.start("")
		inStep(t, a, b)
		chunk := bytes / int64(n) // all are about as large
		if more := int64(*b.metrics().Volume.ReceivedBytes); more > chunk*int64(len(folders)-c.kept)+chunk/2 {
			t.Errorf("%s: %d chunks of %d bytes were kept, and %d bytes came", b.name, n, chunk, more)
		}
		if _, err := os.Stat(filepath.Join(b.home, "snapshot", "in")); !errors.Is(err, fs.ErrNotExist) && !c.switched {
			t.Errorf("%s: chunks that are of no more use: %v", b.name, err)
		}
		b.stop()
		if names, err := filepath.Glob(filepath.Join(b.home, "store", "0*")); err != nil || len(names) != 1 {
			t.Errorf("%s: the store has files in %v, %v", b.name, names, err)
		}
		if _, err := os.Stat(filepath.Join(b.home, "store", "MANIFEST")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: files that CURRENT does not name: %v", b.name, err)
		}
	}
	wantEqualOnDisk(t, all...)
}

// keptChunks counts the chunks that lie under their names in the home of a peer, and says how large they are.
func keptChunks(t *testing.T, p *peer) (n int, bytes int64) {
	t.Helper()
	names, err := os.ReadDir(filepath.Join(p.home, "snapshot", "in"))
	if err != nil {
		t.Error(err)
	}
	for _, e := range names {
		if strings.HasSuffix(e.Name(), ".part") {
			continue
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n++
		bytes += info.Size()
	}
	return n, bytes
}

// A first scan of very many files that dies at any point of bringing them into fresh files has brought all of them or
// none; the next start brings the rest.
func TestKilledAtEachPointOfAFill(t *testing.T) {
	t.Parallel()
	const files = 20_200 // and 202 folders: more than are committed as they come
	dir := tempDir(t)
	fill(t, dir, files)
	for _, at := range []string{failpoint.C12, failpoint.C13, failpoint.C14, failpoint.C15} {
		a := newPeer(t, "dies at "+at)
		a.dies = at + ":1"
		a.start("")
		if out := a.run("add", dir, "--hash", "none"); out.code == 0 {
			t.Errorf("%s: added nevertheless: %s", a.name, out.stdout)
		}
		a.wait()
		if a.code != -1 {
			t.Fatalf("%s: exit %d", a.name, a.code)
		}
		a.dies = ""
		f := openHome(t, a.home)
		f.wantWhole(t)
		held := uint64(0)
		for _, st := range f.States() {
			if !st.Feed.IsDevice() {
				held += st.Count
			}
		}
		f.close(t)
		if want := map[bool]uint64{true: files + files/100}[at >= failpoint.C14]; held != want {
			t.Errorf("%s: %d entries are there, want %d", a.name, held, want)
		}
		a.start("")
		eventually(t, "all files", func() string {
			if st := a.status(); st.Files != files {
				return fmt.Sprintf("%d files", st.Files)
			}
			return ""
		})
		if fills := a.metrics().Performance.Store["fill"].Count; (fills == 0) != (held > 0) {
			t.Errorf("%s: %d fills, with %d entries there before", a.name, fills, held)
		}
		a.stop()
		if names, err := filepath.Glob(filepath.Join(a.home, "store", "0*")); err != nil || len(names) != 1 {
			t.Errorf("%s: the store has files in %v, %v", a.name, names, err)
		}
	}
}
