//go:build linux

package catalog

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Random things happen to a folder, watched or not; afterwards the catalogue is what an independent walk
// sees, and what moved alone kept its identity. The ledger checks every record on the way.
func TestCatalogueEqualsDisk(t *testing.T) {
	for _, watching := range []bool{true, false} {
		t.Run(fmt.Sprintf("watching=%v", watching), func(t *testing.T) {
			b := newBench(t, Config{Gather: 5 * time.Millisecond})
			b.run()
			n := 0
			rapid.Check(t, func(rt *rapid.T) {
				n++
				dir := filepath.Join(b.TempDir(), fmt.Sprint(n))
				write(t, dir, "a/b/x", "a/y", "c/d/e/z", "f")
				l := b.add(dir, Options{})
				defer func() { must(t, b.ix.Remove(t.Context(), l.ID)) }()
				b.rescan(l.ID)
				b.settles(l)
				m := mess{dir: dir, links: !watching}
				for range rapid.IntRange(1, 6).Draw(rt, "rounds") {
					_, before := b.catalogued(l)
					moved := ""
					ops := rapid.IntRange(1, 12).Draw(rt, "operations")
					for range ops {
						moved = m.step(rt)
					}
					if !watching {
						b.rescan(l.ID)
					}
					b.settles(l)
					if _, after := b.catalogued(l); ops == 1 && moved != "" {
						var from, to string
						fmt.Sscanf(moved, "%q %q", &from, &to)
						if before[from] != after[to] {
							rt.Fatalf("moved %q to %q: was %v, is %v", from, to, before[from], after[to])
						}
					}
				}
			})
		})
	}
}

// mess does things to a folder.
type mess struct {
	dir   string
	count int
	links bool // hard links too: a change through a name that is gone at once is reported for no other name
}

// all returns what lies in the folder, paths below it; dirs only if asked.
func (m *mess) all(dirs bool) []string {
	out := []string{}
	if dirs {
		out = append(out, ".")
	}
	filepath.WalkDir(m.dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && p != m.dir && (!dirs || d.IsDir()) {
			rel, _ := filepath.Rel(m.dir, p)
			out = append(out, rel)
		}
		return nil
	})
	return out
}

// step does one thing. If it was a move to a free name it returns from where to where.
func (m *mess) step(rt *rapid.T) (moved string) {
	m.count++
	pick := func(dirs bool, label string) string {
		all := m.all(dirs)
		if len(all) == 0 {
			return ""
		}
		return filepath.Join(m.dir, rapid.SampledFrom(all).Draw(rt, label))
	}
	name := rapid.SampledFrom([]string{"a", "b", "c", "d", "x", "y", "\xff", "n\n"}).Draw(rt, "name")
	at := filepath.Join(pick(true, "directory"), name)
	some := pick(false, "entry")
	what := rapid.SampledFrom([]string{"write", "append", "mkdir", "remove", "move", "move", "move", "swap", "link", "symlink", "chmod", "touch", "save", "recreate"}).Draw(rt, "operation")
	// What the system refuses has not happened: that is part of the game.
	switch what {
	case "write":
		os.WriteFile(at, []byte(fmt.Sprint(m.count)), 0o644)
	case "append":
		if f, err := os.OpenFile(some, os.O_APPEND|os.O_WRONLY, 0); err == nil {
			f.WriteString("more")
			f.Close()
		}
	case "mkdir":
		os.MkdirAll(filepath.Join(at, "deep", name), 0o755)
	case "remove":
		if some != "" {
			os.RemoveAll(some)
		}
	case "move":
		_, err := os.Lstat(at)
		if some != "" && os.Rename(some, at) == nil && some != at && os.IsNotExist(err) {
			from, _ := filepath.Rel(m.dir, some)
			to, _ := filepath.Rel(m.dir, at)
			return fmt.Sprintf("%q %q", from, to)
		}
	case "swap":
		other := pick(false, "other")
		aside := filepath.Join(m.dir, "aside")
		if some != "" && other != "" && os.Rename(some, aside) == nil {
			if os.Rename(other, some) != nil {
				os.Rename(aside, some)
			} else if os.Rename(aside, other) != nil {
				os.RemoveAll(aside)
			}
		}
	case "link":
		if m.links {
			os.Link(some, at)
		}
	case "symlink":
		os.Symlink(name, at)
	case "chmod":
		os.Chmod(some, os.FileMode(0o700|m.count%0o100))
	case "touch":
		stamp := time.Unix(1_000_000_000+int64(m.count), 5)
		os.Chtimes(some, stamp, stamp)
	case "save": // as editors do
		if info, err := os.Lstat(some); err == nil && info.Mode().IsRegular() {
			os.WriteFile(some+"~", []byte(fmt.Sprint("saved", m.count)), 0o644)
			os.Rename(some+"~", some)
		}
	case "recreate":
		if info, err := os.Lstat(some); err == nil && info.IsDir() {
			os.RemoveAll(some)
			os.MkdirAll(filepath.Join(some, name), 0o755)
		}
	}
	return ""
}
