package integration

import (
	"os"
	"path/filepath"
	"testing"

	"peerdex/api"
)

// copyHome copies the home of a device that does not run, as a backup tool would.
func copyHome(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to, 0o700); err != nil {
		t.Fatal(err)
	}
}

// A home restored from a backup: what the owner wrote since is found out from the peer, nobody loses
// anything, and both are equal in the end.
func TestHomeRestored(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	fill(t, dir, 300)
	a, b := two(t, []string{dir}, nil)
	inStep(t, a, b)
	a.stop()
	backup := filepath.Join(tempDir(t), "backup")
	copyHome(t, a.home, backup)
	a.start("")
	write(t, filepath.Join(dir, "since"), "1")
	if err := os.Remove(filepath.Join(dir, "d000", "f00000")); err != nil {
		t.Fatal(err)
	}
	inStep(t, a, b)
	same(t, 303, a.client, b.client)
	a.stop()
	copyHome(t, backup, a.home)
	a.start("")
	write(t, filepath.Join(dir, "after"), "12")
	same(t, 304, a.client, b.client).wantOnDisk(t, dir)
	inStep(t, a, b)
	wantEqualOnDisk(t, a, b)
}

// One home copied and both started: the first that finds out stops writing and says so, before it could do
// harm. Whether the other does too depends on what each had written by then; package node has both.
func TestHomeCloned(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	fill(t, dir, 10)
	a, b := two(t, []string{dir}, nil)
	inStep(t, a, b)
	a.stop()
	twin := newPeer(t, "twin")
	copyHome(t, a.home, twin.home)
	a.start("")
	inStep(t, a, b)
	twin.start("")
	write(t, filepath.Join(dir, "x"), "1") // both index the same folder
	eventually(t, "one of them knows", func() string {
		for _, p := range []*peer{a, twin} {
			st := p.status()
			frozen := len(st.Attention) > 0 && st.Attention[0].Severity == "problem"
			if frozen && len(p.events(api.EventQuery{Types: []string{"feed_cloned"}})) > 0 {
				return ""
			}
		}
		return "neither"
	})
	if n := len(b.status().Devices); n != 2 {
		t.Errorf("%d devices: the clone counts as one", n)
	}
}
