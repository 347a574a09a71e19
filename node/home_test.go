package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerdex/hlc"
)

// What a home holds is for its owner alone, is the same at the next start, and is refused in plain words
// when it is damaged; nothing is then made anew in its place.
func TestHome(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	n, err := Open(Config{Home: dir, Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	self, lib := n.self, n.lib.id
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("home has mode %v, %v", info.Mode(), err)
	}
	for _, name := range []string{"identity.key", "root.key", "library.json", "clock", "port", "marker"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if n, err = Open(Config{Home: dir}); err != nil {
		t.Fatal(err)
	}
	if n.self != self || n.lib.id != lib || n.name() != "a" {
		t.Errorf("came back as %v in %v, called %q", n.self, n.lib.id, n.name())
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]string{
		"library.json": {"", "{", `{"library":""}`, `{"root_key":"zz"}`, "half"},
		"identity.key": {"", "zz", "00", "half"},
		"root.key":     {"", "zz"},
		"clock":        {"", "x", "half"},
		"port":         {"", "-1", "70000"},
	} {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range bad {
			if text == "half" {
				text = string(whole[:len(whole)/2])
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			n, err := Open(Config{Home: dir})
			if err == nil {
				t.Errorf("%s of %q is accepted", name, text)
				n.Close()
				continue
			}
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%s of %q: %v does not name the file", name, text, err)
			}
			if now, err := os.ReadFile(path); err != nil || string(now) != text {
				t.Errorf("%s was written over: %q, %v", name, now, err)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err = Open(Config{Home: dir}); err != nil || n.self != self {
		t.Fatalf("mended: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

// A write that is cut leaves the old file; the clock's bound holds across restarts.
func TestHomeClock(t *testing.T) {
	h := home(t.TempDir())
	c, err := h.clock(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Now()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Observe(hlc.At(time.Now().Add(4 * time.Minute))); err != nil {
		t.Fatal(err)
	}
	if c, err = h.clock(time.Now); err != nil {
		t.Fatal(err)
	}
	if next, err := c.Now(); err != nil || next <= first || next.Time().Before(time.Now().Add(3*time.Minute)) {
		t.Errorf("%v after %v, %v", next, first, err)
	}
	left, err := filepath.Glob(h.path("*"))
	if err != nil || len(left) != 1 {
		t.Errorf("files left: %v", left)
	}
	if err := h.remove("clock"); err != nil {
		t.Error(err)
	}
	if err := h.remove("clock"); err != nil {
		t.Errorf("removing nothing: %v", err)
	}
}

// A device was cut off while it moved to another library: library.json names the new one, the feeds are
// signed for the old one and the old root key is still there. The next start finishes the move.
func TestMoveCutOff(t *testing.T) {
	dir, other := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	b, err := Open(Config{Home: other, Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := Open(Config{Home: dir, Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	lib := b.lib
	if err := a.home.saveLibrary(lib); err != nil { // as move does first, and then the power fails
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if a, err = Open(Config{Home: dir}); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, st := range a.store.States() {
		if st.Settled.Library != lib.id || st.Settled.Verify() != nil {
			t.Errorf("feed %v is signed for library %x", st.Feed, st.Settled.Library[:4])
		}
	}
	if _, err := os.Stat(a.home.path("root.key")); a.root != nil || !os.IsNotExist(err) {
		t.Errorf("the old root key is still there: %v", err)
	}
	if _, _, err := a.newInvite(time.Minute, 1, time.Now()); err == nil {
		t.Error("it invites into a library whose root key it never had")
	}
}
