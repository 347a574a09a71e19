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
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
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

// An import says which folders are lacking here even so: the file has not got them, or only an older state, or they are
// lazy here. Of what is known already nothing is taken, and that is no failure.
func TestImportTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	a, b, _, folder, loc := pair(t)
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	c.joins(a)
	await(t, "all in step", inStep(a, b, c))
	b.setFetch(a, loc, FetchLazy)
	if _, err := c.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	touch(t, folder, "two")
	await(t, "word of a second file", c.toldOf(a, loc, 2))
	export := func(by *running) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "library")
		if _, err := by.ExportSnapshot(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	imported := []string{}
	imports := func(path string) SnapshotView {
		t.Helper()
		v, err := c.ImportSnapshot(t.Context(), path, func(Progress) {})
		if err != nil {
			t.Fatal(err)
		}
		imported = append(imported, path)
		return v
	}
	of := func(v SnapshotView, loc record.LocationID) (MissingFeed, bool) {
		i := slices.IndexFunc(v.Missing, func(f MissingFeed) bool { return f.Location == loc.String() })
		if i < 0 {
			return MissingFeed{}, false
		}
		return v.Missing[i], true
	}
	want := MissingFeed{Device: idText(a.self), DeviceName: "a", Location: loc.String(), Name: filepath.Base(folder), Fetch: "eager", Behind: true, Lacks: 1}
	if got, _ := of(imports(export(b)), loc); got != want {
		t.Errorf("of a file without the folder %+v, want %+v", got, want)
	}
	c.setFetch(a, loc, FetchLazy)
	whole := export(a)
	want.Fetch, want.Behind, want.Lacks, want.InFile = "lazy", false, 2, true
	if got, _ := of(imports(whole), loc); got != want {
		t.Errorf("of a folder that is lazy here %+v, want %+v", got, want)
	}
	c.setFetch(a, loc, FetchEager)
	v := imports(whole)
	if _, missing := of(v, loc); missing || v.Feeds == 0 || v.Held == 0 || len(c.names(a.self, loc)) != 2 {
		t.Errorf("of a file with something new %+v", v)
	}
	all := v.Feeds + v.Held
	if v := imports(whole); v.Feeds != 0 || v.Records != 0 || v.Held != all {
		t.Errorf("of a file that is known %+v, of %d feeds", v, all)
	}
	later := t.TempDir()
	touch(t, later, "three")
	unheard := a.index(later)
	await(t, "the new folder", func() bool { return len(b.names(a.self, unheard)) == 1 })
	b.setFetch(a, unheard, FetchLazy)
	brief := export(b)
	a.stop()
	if got, missing := of(imports(brief), unheard); !missing || got.InFile || got.Behind || got.Name != filepath.Base(later) {
		t.Errorf("of a folder that nobody told a head of %+v, %v", got, missing)
	}
	await(t, "events of all imports", func() bool {
		return len(c.logged(eventlog.SnapshotImportCompleted{}.Type())) == len(imported)
	})
	if n := len(c.logged(eventlog.SnapshotImportFailed{}.Type())); n > 0 {
		t.Errorf("%d failures told", n)
	}
}

// One snapshot is taken at a time. Who comes second is told what goes on, in words, and nothing has changed.
func TestImportBesideAnother(t *testing.T) {
	t.Parallel()
	a, b, _, _, _ := pair(t)
	file := filepath.Join(t.TempDir(), "library")
	if _, err := b.ExportSnapshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	refused := func(what, cause string, err error) {
		t.Helper()
		var p *Problem
		if !errors.As(err, &p) || p.Code != CodeConflict || p.Cause != cause+"; there is memory for no more at once" || p.Try == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	var second, third error
	_, err := a.ImportSnapshot(t.Context(), file, func(Progress) {
		if second == nil {
			release := a.fillUpRest(protocol.UseSnapshot)
			_, second = a.ImportSnapshot(t.Context(), file, func(Progress) {})
			_, third = a.ExportSnapshot(t.Context(), file+" again")
			release()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	refused("an import beside another", file+" is being imported", second)
	refused("an export beside an import", file+" is being imported", third)
	a.mu.Lock()
	a.pulls[b.self] = &pulling{donor: b.self, snapshot: &snapshotPull{}}
	a.mu.Unlock()
	release := a.fillUp(protocol.UseSnapshot)
	_, err = a.ImportSnapshot(t.Context(), file, func(Progress) {})
	refused("an import beside a snapshot on its way", "a snapshot is being fetched from b", err)
	release()
	a.mu.Lock()
	delete(a.pulls, b.self)
	a.mu.Unlock()
	if _, err := a.ImportSnapshot(t.Context(), file, func(Progress) {}); err != nil {
		t.Errorf("once that is through: %v", err)
	}
	var told []string
	await(t, "both refusals", func() bool {
		told = nil
		for _, e := range a.logged(eventlog.SnapshotImportFailed{}.Type()) {
			told = append(told, e.Summary)
		}
		return len(told) == 2
	})
	if want := file + ": " + file + " is being imported; there is memory for no more at once"; told[0] != want {
		t.Errorf("told %q, want %q", told[0], want)
	}
}

// While a large folder is brought in by fresh files, a snapshot has to wait, and the person is told for what.
func TestImportBesideAFill(t *testing.T) {
	t.Parallel()
	a, b, _, _, _ := pair(t)
	file := filepath.Join(t.TempDir(), "library")
	dir := t.TempDir()
	touch(t, dir, "one")
	loc := b.index(dir)
	if _, err := b.ExportSnapshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	b.stop() // so that none of it comes by itself
	f, err := a.store.Fill(feed.ID{Device: a.self, Location: record.LocationID{1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.store.Drop(locationFeed(b.self, loc)); err != nil && !errors.Is(err, store.ErrUnknownFeed) {
		t.Fatal(err)
	}
	var p *Problem
	if _, err = a.ImportSnapshot(t.Context(), file, func(Progress) {}); !errors.As(err, &p) || p.Code != CodeConflict || !strings.Contains(p.Cause, "first scan of a large folder") {
		t.Errorf("beside a fill: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
