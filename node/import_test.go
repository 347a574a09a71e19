package node

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/store"
)

// holding is what a store holds: where it is settled on which feed, and which files it is in.
func (r *running) holding() map[string]feed.Head {
	r.tb.Helper()
	out := map[string]feed.Head{}
	for _, st := range r.store.States() {
		if st.Settled != nil {
			out[st.Feed.String()] = *st.Settled
		}
	}
	current, err := os.ReadFile(filepath.Join(string(r.home), "store", "CURRENT"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.tb.Fatal(err)
	}
	out["files "+string(current)] = feed.Head{}
	return out
}

// lastChunkSpoilt returns a snapshot with a wrong byte in its last chunk.
func lastChunkSpoilt(whole []byte) []byte {
	b := slices.Clone(whole)
	tail := len("end of snapshot\n") + 4
	manifest := int(binary.BigEndian.Uint32(b[len(b)-tail:]))
	b[len(b)-tail-manifest-1] ^= 1
	return b
}

// failedImport returns why an import of path failed, as the log says.
func (r *running) failedImport(path string) (reason string) {
	for _, e := range r.logged(eventlog.SnapshotImportFailed{}.Type()) {
		var d eventlog.SnapshotImportFailed
		if err := json.Unmarshal(e.Details, &d); err != nil {
			r.tb.Fatal(err)
		}
		if d.File == path {
			reason = d.ReasonCode
		}
	}
	return reason
}

// A file is verified to its last byte before anything of it is taken, also those folders that this device hears of by
// the file itself; and so is the room on the disk. Then it brings everything, conflicts with what was here included.
func TestImportAllOrNothing(t *testing.T) {
	t.Parallel()
	var free atomic.Uint64
	free.Store(1 << 40)
	open := func(dir string, cfg store.Config) (*store.Store, error) {
		cfg.Free = func(string) (uint64, error) { return free.Load(), nil }
		return store.Open(dir, cfg)
	}
	known, fresh := t.TempDir(), t.TempDir()
	touch(t, known, "one")
	touch(t, fresh, "two")
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	a.index(known)
	c := startOn(t, filepath.Join(t.TempDir(), "c"), "c", open)
	c.joins(a)
	await(t, "both in step", inStep(a, c))
	if _, err := c.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	one := filepath.Join(known, "one")
	a.note(a, one, "what a says")
	c.note(a, one, "what c says")
	loc := a.index(fresh)
	file, bad := filepath.Join(t.TempDir(), "library"), filepath.Join(t.TempDir(), "spoilt")
	if _, err := a.ExportSnapshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, lastChunkSpoilt(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	before := c.holding()
	var phases []string
	refused := func(what, path, reason string, code Code) {
		t.Helper()
		phases = nil
		_, err := c.ImportSnapshot(t.Context(), path, func(p Progress) { phases = append(phases, p.Phase) })
		wantProblem(t, what, err, code)
		await(t, what, func() bool { return c.failedImport(path) == reason })
		if after := c.holding(); !maps.Equal(before, after) {
			t.Errorf("%s: the store held %v, now %v", what, before, after)
		}
	}
	refused("a folder's chunk is spoilt", bad, "damaged", CodeIntegrity)
	if len(phases) == 0 || slices.ContainsFunc(phases, func(p string) bool { return p != "verifying" }) {
		t.Errorf("got as far as %v", phases)
	}
	free.Store(store.MinFree + 1<<10)
	refused("no room for fresh files", file, "disk_full", CodeConflict)
	if phases != nil {
		t.Errorf("a disk too small was told after %v", phases)
	}
	out := filepath.Join(t.TempDir(), "library")
	_, err = c.ExportSnapshot(t.Context(), out)
	wantProblem(t, "no room for an export", err, CodeConflict)
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left by an export without room: %v", err)
	}

	free.Store(1 << 40)
	if v, err := c.ImportSnapshot(t.Context(), file, func(Progress) {}); err != nil || v.Feeds != 2 {
		t.Fatalf("imported %+v, %v", v, err)
	}
	if got := c.names(a.self, loc); !slices.Equal(got, []string{"two"}) {
		t.Errorf("of the folder it did not know it has %v", got)
	}
	if n := c.metrics.Snapshot(time.Now()).Errors.Conflicts.Total; n != 1 || len(c.conflicts()) != 1 {
		t.Errorf("%d conflicts counted, %v told", n, c.conflicts())
	}
}
