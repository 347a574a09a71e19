package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"lukechampine.com/blake3"

	"peerdex/node"
)

// hashesOf returns the hash of each file below dir that is not empty, read by this test itself, by path.
func hashesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range onDisk(t, dir) {
		if r.Kind == "file" && r.Size > 0 {
			content, err := os.ReadFile(r.Path)
			if err != nil {
				t.Fatal(err)
			}
			out[r.Path] = fmt.Sprintf("%x", blake3.Sum256(content))
		}
	}
	return out
}

// R4: after A has hashed contents, every hashed file of A has its hash on B. What is hashed follows what A
// was told, and what was read is left as it was.
func TestR4HashesArrive(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	odd(t, dir)
	write(t, filepath.Join(dir, "copy of plain"), "not the same")
	before := onDisk(t, dir)
	a, b := two(t, nil, nil)
	a.add(dir, "--hash", "none")
	var l node.LocationView
	a.ask(&l, "locations", "set", dir, "--hash", "all")
	if l.Hash != "all" {
		t.Errorf("the location is %+v", l)
	}
	want := hashesOf(t, dir)
	eventually(t, "every hash", func() string {
		if got := a.dumpCatalogue().hashes; len(got) != len(want) {
			return fmt.Sprintf("%d of %d hashes", len(got), len(want))
		}
		return ""
	})
	c := inStep(t, a, b)
	for _, r := range c.rows {
		if got := c.hashes[r.ID]; got != want[r.Path] {
			t.Errorf("%q: hash %q, want %q", r.Path, got, want[r.Path])
		}
	}
	c.wantOnDisk(t, dir)
	if after := onDisk(t, dir); firstDifference(before, after) != "" {
		t.Errorf("the folder changed: %s", firstDifference(before, after))
	}
	code, p := b.problem("locations", "set", filepath.Base(dir), "--hash", "none")
	if code != 7 || p.Code != node.CodeConflict {
		t.Errorf("a folder of another device: exit %d, %+v", code, p)
	}
	code, p = a.problem("locations", "set", dir, "--hash", "some")
	if code != 2 || p.Code != node.CodeUsage {
		t.Errorf("hash some: exit %d, %+v", code, p)
	}
}

// Ten thousand files of as many sizes on A: nothing is read. B gets one with a size of theirs: the two are
// read, on each device one, and nothing else.
func TestOnlyTwinsAreRead(t *testing.T) {
	t.Parallel()
	dirA, dirB := tempDir(t), tempDir(t)
	const files, twin = 10_000, 5000
	fill(t, dirA, files)
	name := func(i int) string { return filepath.Join(dirA, fmt.Sprintf("d%03d", i/100), fmt.Sprintf("f%05d", i)) }
	for i := range files {
		if err := os.Truncate(name(i), int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	a, b := two(t, []string{dirA}, []string{dirB})
	inStep(t, a, b)
	if m := a.metrics().Catalog.Scan; m.HashedBytes != 0 || m.Hashed.Total != 0 {
		t.Errorf("read before there was a twin: %+v", m)
	}
	write(t, filepath.Join(dirB, "twin"), string(make([]byte, twin)))
	var c catalogue
	eventually(t, "two hashes", func() string {
		c = inStep(t, a, b)
		if len(c.hashes) != 2 {
			return plural(len(c.hashes), "hash")
		}
		return ""
	})
	x, y := c.find(name(twin)), c.find(filepath.Join(dirB, "twin"))
	if h := fmt.Sprintf("%x", blake3.Sum256(make([]byte, twin))); c.hashes[x.ID] != h || c.hashes[y.ID] != h {
		t.Errorf("%v", c.hashes)
	}
	for _, p := range []*peer{a, b} {
		if m := p.metrics().Catalog.Scan; m.HashedBytes != twin || m.Hashed.Total != 1 || m.Hashed.By["hashed"] != 1 || m.HashBacklog != 0 {
			t.Errorf("%s read %d bytes of %+v", p.name, m.HashedBytes, m.Hashed)
		}
	}
}
