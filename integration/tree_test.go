package integration

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// write makes a file with content, and the folders above it.
func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fill makes n empty files below dir, a hundred to a folder.
func fill(t testing.TB, dir string, n int) {
	t.Helper()
	for i := range n {
		folder := filepath.Join(dir, fmt.Sprintf("d%03d", i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.OpenFile(filepath.Join(folder, fmt.Sprintf("f%05d", i)), os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// odd makes a small tree of what names may be on this system.
func odd(t testing.TB, dir string) {
	t.Helper()
	for i, name := range []string{
		"plain", "with space", "new\nline", "tab\tand \x1b[31mcolour", "\xff\xfe not utf-8", "ünïcödé", "-rf", "'quoted\" $(x)",
		strings.Repeat("n", 255), "\u202egnp.exe", " leading and trailing ",
	} {
		write(t, filepath.Join(dir, name), strings.Repeat("x", i))
		write(t, filepath.Join(dir, "below", name[:min(len(name), 200)]+".d", name), "")
	}
	if err := os.Symlink("../nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// source is a real source tree: a part of Go's own.
func source(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(strings.TrimSpace(string(out)), "src", "encoding"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// onDisk returns what a location at dir must hold, by the device whose it is: the oracle of all tests.
func onDisk(t testing.TB, dir string) (out []row) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		r := row{Path: path, Name: d.Name()}
		switch {
		case d.IsDir():
			r.Kind = "dir"
		case d.Type() == fs.ModeSymlink:
			r.Kind = "link"
			if r.Target, err = os.Readlink(path); err != nil {
				return err
			}
		default:
			r.Kind, r.Size, r.Modified = "file", uint64(info.Size()), info.ModTime().UnixNano()
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(out, func(a, b row) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// wantOnDisk fails unless the rows below dir are exactly what lies there, each with a parent that is a
// folder of the same location, no two with one path.
func (c catalogue) wantOnDisk(t testing.TB, dir string) {
	t.Helper()
	want := onDisk(t, dir)
	var got []row
	folders := map[string]row{}
	for _, r := range c.rows {
		if strings.HasPrefix(r.Path, dir+"/") {
			got = append(got, r)
			if r.Kind == "dir" {
				folders[r.Path] = r
			}
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, %d on disk: %v", dir, len(got), len(want), firstDifference(got, want))
	}
	for i, g := range got {
		if g.Name != filepath.Base(g.Path) {
			t.Errorf("%q is called %q", g.Path, g.Name)
		}
		if parent := filepath.Dir(g.Path); parent != dir {
			if f, ok := folders[parent]; !ok || f.Location != g.Location || f.Device != g.Device {
				t.Errorf("%q has no parent in its location", g.Path)
			}
		}
		if i > 0 && got[i-1].Path == g.Path && got[i-1].Device == g.Device {
			t.Errorf("%q is there twice", g.Path)
		}
		w := want[i]
		if g.Kind == "dir" { // sizes and times of folders are the file system's own affair
			g.Size, g.Modified = w.Size, w.Modified
		}
		if g.Kind == "link" {
			g.Size, g.Modified = w.Size, w.Modified
		}
		if g.Path != w.Path || g.Kind != w.Kind || g.Size != w.Size || g.Target != w.Target || g.Modified != w.Modified {
			t.Errorf("catalogued %v, on disk %v", g, w)
		}
	}
}

func firstDifference(got, want []row) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("missing %q", want[i].Path)
		case i >= len(want), got[i].Path < want[i].Path:
			return fmt.Sprintf("too many: %q", got[i].Path)
		case got[i].Path > want[i].Path:
			return fmt.Sprintf("missing %q", want[i].Path)
		}
	}
	return ""
}
