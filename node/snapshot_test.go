package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/snapshot"
	"peerdex/store"
)

// many makes a folder of so many empty files.
func many(tb testing.TB, n int) (folder string) {
	tb.Helper()
	folder = tb.TempDir()
	for i := range n {
		f, err := os.Create(filepath.Join(folder, fmt.Sprint("file ", i)))
		if err := errors.Join(err, f.Close()); err != nil {
			tb.Fatal(err)
		}
	}
	return folder
}

// toldOf reports whether r has heard that a location of o has so many entries.
func (r *running) toldOf(o *running, l record.LocationID, entries uint64) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		p := r.peers[o.self]
		return p != nil && p.heads[locationFeed(o.self, l)].Best.Count >= entries
	}
}

// A device that joins a library of many entries gets them as a snapshot, says so, goes on by pushes, and finds
// everything again when it starts anew. The library then moves on by disk to a device that does not sync.
func TestJoinBySnapshot(t *testing.T) {
	const files = defaultBulk + 100
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	home := filepath.Join(t.TempDir(), "b")
	b := start(t, home, "b")
	own := t.TempDir()
	touch(t, own, "mine")
	b.joins(a)
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	c.joins(a)
	if _, err := c.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	mine := b.index(own)
	if _, err := b.Pause(t.Context(), "", 0); err != nil { // or it would be told of the files one by one
		t.Fatal(err)
	}
	folder := many(t, files)
	loc := a.index(folder)
	await(t, "word of all files", b.toldOf(a, loc, files))
	if _, err := b.Resume(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	id := locationFeed(a.self, loc)
	settled := func(r *running) func() bool {
		return func() bool {
			x, _ := a.store.State(id)
			y, _ := r.store.State(id)
			return x.Settled != nil && y.Settled != nil && *x.Settled == *y.Settled
		}
	}
	await(t, "the snapshot", settled(b))
	if got, want := b.names(a.self, loc), a.names(a.self, loc); len(got) != files || !slices.Equal(got, want) {
		t.Fatalf("%d names, want %d", len(got), len(want))
	}
	chosen := eventlog.StrategySelected{}
	for _, e := range b.logged(chosen.Type()) {
		var d eventlog.StrategySelected
		if err := json.Unmarshal(e.Details, &d); err != nil {
			t.Fatal(err)
		}
		if d.Strategy == StrategySnapshot {
			chosen = d
		}
	}
	if chosen.EntryCount < files || chosen.Why == "" {
		t.Errorf("the choice was told as %+v", chosen)
	}
	done := 0
	for _, e := range b.logged(eventlog.BackfillSessionCompleted{}.Type()) {
		var d eventlog.BackfillSessionCompleted
		if err := json.Unmarshal(e.Details, &d); err != nil {
			t.Fatal(err)
		}
		if d.Feed == id.String() {
			done++
			if d.Records != files || d.Pages != 0 || d.Chunks == 0 || d.Bytes < files*20 {
				t.Errorf("told %+v", d)
			}
		}
	}
	if done != 1 {
		t.Errorf("told %d times that the feed is here", done)
	}
	b.endsAll(t)
	b.tellsOf(a, "in", StrategySnapshot, files, PhasePreparing, PhaseLoading, PhaseInstalling, PhaseApplying, PhaseDone)
	a.tellsOf(b, "out", StrategySnapshot, files, PhaseLoading, PhaseDone)
	if st, _ := b.store.State(locationFeed(b.self, mine)); st.Settled == nil || st.Count != 1 {
		t.Errorf("the own location is %+v", st)
	}
	touch(t, folder, "one more")
	await(t, "a change after the snapshot", func() bool { return len(b.names(a.self, loc)) == files+1 && settled(b)() })

	file := filepath.Join(t.TempDir(), "library")
	out, err := b.ExportSnapshot(t.Context(), file)
	if err != nil || out.Records < files || out.Feeds < 4 {
		t.Fatalf("exported %+v, %v", out, err)
	}
	b.awaitEvent(&eventlog.SnapshotExportStarted{})
	b.awaitEvent(&eventlog.SnapshotExportCompleted{})
	var told []Progress
	in, err := c.ImportSnapshot(t.Context(), file, func(p Progress) { told = append(told, p) })
	if err != nil || in.Records < files || len(told) == 0 || told[0].Phase != PhaseVerifying || told[len(told)-1].Done < files {
		t.Fatalf("imported %+v, %v, told %+v", in, err, told)
	}
	c.awaitEvent(&eventlog.SnapshotImportCompleted{})
	if got := c.names(a.self, loc); len(got) != files+1 {
		t.Errorf("%d names imported", len(got))
	}
	if got := c.names(b.self, mine); !slices.Equal(got, []string{"mine"}) {
		t.Errorf("of b's location %v was imported", got)
	}
	b.stop()
	b = start(t, home, "b")
	if got := b.names(a.self, loc); len(got) != files+1 {
		t.Errorf("%d names after a restart", len(got))
	}
	await(t, "in step after the restart", settled(b))
}

// A donor that gives no snapshot is pulled from page by page, at once.
func TestNoSnapshotToBeHad(t *testing.T) {
	const files = defaultBulk + 100
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	a.snapshots.Admit = func(record.DeviceID) error { return protocol.CodeBusy }
	b := start(t, filepath.Join(t.TempDir(), "b"), "b")
	b.joins(a)
	if _, err := b.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	loc := a.index(many(t, files))
	await(t, "word of all files", b.toldOf(a, loc, files))
	if _, err := b.Resume(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	await(t, "the pages", func() bool { return len(b.names(a.self, loc)) == files && inStep(a, b)() })
	b.awaitEvent(&eventlog.BackfillSessionFailed{})
	b.endsAll(t)
	b.tellsOf(a, "in", StrategyBulk, files, PhaseLoading, PhaseDone)
	a.tellsOf(b, "out", StrategyPages, files, PhaseLoading, PhaseDone)
	if _, err := os.Stat(filepath.Join(string(b.home), "store", "CURRENT")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the store was loaded: %v", err)
	}
}

// endsAll waits until no session is open, and fails unless each that was begun for a feed was told to end once, and no
// other.
func (r *running) endsAll(t *testing.T) {
	t.Helper()
	type of struct {
		kind    string
		session eventlog.ID
		feed    string
	}
	var wrong string
	await(t, "the end of every session", func() bool {
		open := map[of]bool{}
		wrong = ""
		for _, e := range r.logged() {
			kind, what, session := strings.Cut(string(e.Type), "_session_")
			if !session {
				continue
			}
			d := details[eventlog.BackfillSessionCompleted](t, e) // the feed is what all have
			k := of{kind, e.CorrelationID, d.Feed}
			if began := what == "started"; began == open[k] {
				wrong = fmt.Sprintf("%s of %s in session %s, open: %v", e.Type, d.Feed, k.session, open[k])
			} else if open[k] = began; !began {
				delete(open, k)
			}
		}
		return len(open) == 0
	})
	if wrong != "" {
		t.Error(wrong)
	}
}

// A donor that made its snapshot before it had another location is asked for that one at once, page by page.
func TestSnapshotOfBefore(t *testing.T) {
	const files = defaultBulk + 100
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	large := a.index(many(t, files))
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	c.joins(a)
	await(t, "the snapshot for c", func() bool { return len(c.names(a.self, large)) == files })
	c.stop()
	const few = 200 // more than is pushed
	small := a.index(many(t, few))
	b := start(t, filepath.Join(t.TempDir(), "b"), "b")
	b.joins(a)
	await(t, "both", func() bool { return len(b.names(a.self, large)) == files && len(b.names(a.self, small)) == few })
	by := map[string][]string{}
	for _, e := range b.logged(eventlog.BackfillSessionStarted{}.Type()) {
		d := details[eventlog.BackfillSessionStarted](t, e)
		by[d.Feed] = append(by[d.Feed], d.Strategy)
	}
	for id, want := range map[record.LocationID]string{large: StrategySnapshot, small: StrategyPages} {
		if got := by[locationFeed(a.self, id).String()]; len(got) != 1 || got[0] != want {
			t.Errorf("began with %v, want one by %s", got, want)
		}
	}
	b.endsAll(t)
}

// What of this device's own ended a snapshot decides how it goes on: with what is kept where the disk ran full, else by
// pages, until there is the room it lacked.
func TestSnapshotEndedHere(t *testing.T) {
	_, b, _, _, _ := pair(t)
	now := time.Now()
	p := &pulling{snapshot: &snapshotPull{}}
	lacked := &store.SpaceError{Free: 1, Need: 1 << 60}
	for _, c := range []struct {
		err   error
		pages bool
		later bool // no snapshot is asked for
	}{
		{fmt.Errorf("keep chunk: %w", syscall.ENOSPC), false, false},
		{context.Canceled, false, false},
		{fmt.Errorf("begin: %w", store.ErrLoading), false, false},
		{fmt.Errorf("begin: %w", lacked), true, true},
		{fmt.Errorf("begin: %w", &store.SpaceError{Free: 1, Need: 2}), true, false}, // there is by now
		{errors.New("permission denied"), true, true},
		{&protocol.MemoryError{}, true, true},
	} {
		b.mu.Lock()
		b.unloaded = failedLoad{}
		pages := b.snapshotEnded(p, nil, c.err, now)
		yes, why := b.mayLoad(1, "asked", now)
		again, _ := b.mayLoad(1, "asked", now.Add(snapshot.Again))
		b.mu.Unlock()
		if pages != c.pages || yes == c.later || !again || yes && why != "asked" {
			t.Errorf("%v: pages %v, then a snapshot: %v, %s; ten minutes later: %v", c.err, pages, yes, why, again)
		}
	}
}

// Chunks of a snapshot that broke off go when all has come by pages, and not before.
func TestChunksKeptInVain(t *testing.T) {
	a, b, _, folder, loc := pair(t)
	if err := os.MkdirAll(b.fetcher.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	touch(t, b.fetcher.Dir, "chunk")
	kept := func() (files, vain bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.fetcher.Kept(), b.keepsInVain()
	}
	b.setFetch(a, loc, FetchLazy)
	if _, err := b.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	b.setFetch(a, loc, FetchEager)
	if files, vain := kept(); !files || vain {
		t.Errorf("before all has come: kept %v, in vain %v", files, vain)
	}
	fillFolder(t, folder, 200) // more than is pushed
	await(t, "word of all files", b.toldOf(a, loc, 201))
	if _, err := b.Resume(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of the chunks", func() bool { files, vain := kept(); return !files && vain })
}

// Of two donors, of which neither holds what the other does, one gives a snapshot, and the other pages meanwhile: a
// store is loaded with one at a time, and nothing has to be refused for that.
func TestOneSnapshotAtATime(t *testing.T) {
	const files = defaultBulk + 100
	a, b, _, inA, ofA := pair(t)
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	inC := t.TempDir()
	touch(t, inC, "one")
	ofC := c.index(inC)
	c.joins(a)
	await(t, "all in step", inStep(a, b, c))
	await(t, "all have met", func() bool { return connected(a, b)() && connected(b, c)() && connected(a, c)() })
	a.setFetch(c, ofC, FetchLazy)
	c.setFetch(a, ofA, FetchLazy)
	b.setFetch(a, ofA, FetchLazy) // what is held of it goes
	b.setFetch(c, ofC, FetchLazy)
	if _, err := b.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	b.setFetch(a, ofA, FetchEager)
	b.setFetch(c, ofC, FetchEager)
	fillFolder(t, inA, files)
	fillFolder(t, inC, files)
	await(t, "word of all files", func() bool { return b.toldOf(a, ofA, files)() && b.toldOf(c, ofC, files)() })
	if _, err := b.Resume(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	await(t, "the files of both", func() bool { return len(b.names(a.self, ofA)) == files+1 && len(b.names(c.self, ofC)) == files+1 })
	by := map[string]string{}
	for _, e := range b.logged(eventlog.StrategySelected{}.Type()) {
		if d := details[eventlog.StrategySelected](t, e); d.EntryCount >= files {
			by[d.Strategy] += d.Why
		}
	}
	if !strings.HasPrefix(by[StrategySnapshot], "0 entries are held") || !strings.HasSuffix(by[StrategyBulk], "no snapshot: another is being taken") || len(by) != 2 {
		t.Errorf("chose %q", by)
	}
	if e := b.logged(eventlog.MemoryRefused{}.Type(), eventlog.BackfillSessionFailed{}.Type()); len(e) > 0 {
		t.Errorf("told %s", e[0].Summary)
	}
	b.endsAll(t)
}

// While the disk has room for nothing, that is said and nobody is asked. With room for the entries and not for a second
// store beside the first they come page by page, which is said before. A disk that fills up once a snapshot was offered
// is told of, and nobody is blamed. With room again it goes on by itself.
func TestSnapshotAndLittleRoom(t *testing.T) {
	const (
		files  = defaultBulk + 100
		little = store.MinFree + 1
		plenty = 2 * store.MinFree
	)
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	var asked atomic.Pointer[func()]
	a.snapshots.Admit = func(record.DeviceID) error {
		if f := asked.Swap(nil); f != nil {
			(*f)()
		}
		return nil
	}
	loc := a.index(many(t, files))
	id := locationFeed(a.self, loc)
	for strategy, room := range map[string]uint64{StrategyBulk: store.MinFree + 400*files, StrategySnapshot: plenty} {
		var free atomic.Uint64
		free.Store(little)
		b := startOn(t, filepath.Join(t.TempDir(), "b"), "b", func(dir string, cfg store.Config) (*store.Store, error) {
			cfg.Free = func(string) (uint64, error) { return free.Load(), nil }
			return store.Open(dir, cfg)
		})
		planned := func() (f FeedPlan) {
			v, err := b.SyncPlan(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range v.Feeds {
				if f.Feed == id.String() {
					return f
				}
			}
			return f
		}
		b.joins(a)
		await(t, "too little room", func() bool { return planned().Decision == DecideRefuse })
		if l, err := b.Locations(t.Context()); err != nil || len(l) != 1 || l[0].Waits != whyDisk {
			t.Errorf("shown as %+v, %v", l, err)
		}
		if _, err := b.Pause(t.Context(), "", 0); err != nil {
			t.Fatal(err)
		}
		free.Store(room)
		why := "0 entries are held"
		if strategy == StrategyBulk {
			why = "no snapshot: the disk has 541 MB free, and it takes "
		}
		if f := planned(); f.Strategy != strategy || !strings.Contains(f.Reason, why) {
			t.Errorf("planned %s: %s; want %s: %s", f.Strategy, f.Reason, strategy, why)
		}
		if strategy == StrategySnapshot {
			fill := func() { free.Store(little) }
			asked.Store(&fill)
		}
		if _, err := b.Resume(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if strategy == StrategySnapshot {
			if d := details[eventlog.StoreError](t, b.awaitEvent(eventlog.StoreError{})); d.Code != "disk_full" {
				t.Errorf("told %+v", d)
			}
			if d := details[eventlog.BackfillSessionFailed](t, b.awaitEvent(eventlog.BackfillSessionFailed{})); d.Feed != id.String() || d.ReasonCode != "disk_full" {
				t.Errorf("told %+v", d)
			}
			b.wantsNobody(t, a, id)
			if f := planned(); f.Decision != DecideRefuse {
				t.Errorf("planned %+v", f)
			}
			free.Store(plenty)
		}
		await(t, "the files by "+strategy, func() bool { return len(b.names(a.self, loc)) == files })
		var chosen []string
		for _, e := range b.logged(eventlog.StrategySelected{}.Type()) {
			if d := details[eventlog.StrategySelected](t, e); d.EntryCount >= files && strings.Contains(d.Why, why) {
				chosen = append(chosen, d.Strategy)
			}
		}
		if chosen = slices.Compact(chosen); !slices.Equal(chosen, []string{strategy}) {
			t.Errorf("chose %v, want %s", chosen, strategy)
		}
		b.endsAll(t)
		b.stop()
	}
}

// An export says what it lacks of other devices' feeds: those that are lazy, those that have not come, those that are
// behind. It says nothing of those it has all of.
func TestExportTellsWhatIsMissing(t *testing.T) {
	a, b, _, folder, loc := pair(t)
	exported := func(name string) []MissingFeed {
		v, err := b.ExportSnapshot(t.Context(), filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		return v.Missing
	}
	if got := exported("whole"); got == nil || len(got) > 0 {
		t.Errorf("of a whole library %+v is missing", got)
	}
	b.setFetch(a, loc, FetchLazy)
	want := MissingFeed{Device: idText(a.self), DeviceName: "a", Location: loc.String(), Name: filepath.Base(folder), Fetch: "lazy", Lacks: 1}
	if got := exported("lazy"); len(got) != 1 || got[0] != want {
		t.Errorf("missing %+v, want %+v", got, want)
	}
	b.setFetch(a, loc, FetchEager)
	await(t, "it is here again", inStep(a, b))
	if _, err := b.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	touch(t, folder, "two")
	other := a.index(t.TempDir()) // of which the paused one hears no name
	touch(t, folder, "three")
	await(t, "word of two more files", b.toldOf(a, loc, 3))
	want.Fetch, want.Behind, want.Lacks = "eager", true, 2
	got := exported("behind")
	if i := slices.IndexFunc(got, func(f MissingFeed) bool { return f.Location == want.Location }); i < 0 || got[i] != want {
		t.Errorf("missing %+v, want %+v", got, want)
	}
	if i := slices.IndexFunc(got, func(f MissingFeed) bool { return f.Location == "" }); i < 0 || !got[i].Behind || got[i].Lacks == 0 {
		t.Errorf("missing %+v, want what the device says of itself, as location %s is of it", got, other)
	}
}

// What is no snapshot of this library changes nothing and is told with the reason.
func TestImportRefuses(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	folder := t.TempDir()
	touch(t, folder, "one")
	a.index(folder)
	other := start(t, filepath.Join(t.TempDir(), "other"), "other")
	dir := t.TempDir()
	file := filepath.Join(dir, "library")
	if _, err := a.ExportSnapshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "cut")
	if err := os.WriteFile(cut, whole[:len(whole)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	before := other.store.States()
	for _, c := range []struct {
		what, path, reason string
		code               Code
		node               *running
	}{
		{"of another library", file, "library", CodeOtherLibrary, other},
		{"cut short", cut, "damaged", CodeIntegrity, other},
		{"not there", filepath.Join(dir, "none"), "not_found", CodeNotFound, other},
	} {
		_, err := c.node.ImportSnapshot(t.Context(), c.path, func(Progress) {})
		var p *Problem
		if !errors.As(err, &p) || p.Code != c.code || p.Try == "" {
			t.Errorf("%s: %v", c.what, err)
		}
		await(t, "the reason "+c.reason, func() bool {
			for _, e := range c.node.logged(eventlog.SnapshotImportFailed{}.Type()) {
				var d eventlog.SnapshotImportFailed
				if err := json.Unmarshal(e.Details, &d); err == nil && d.ReasonCode == c.reason && d.File == c.path {
					return true
				}
			}
			return false
		})
	}
	if after := other.store.States(); !slices.EqualFunc(before, after, func(x, y feed.State) bool { return *x.Settled == *y.Settled }) {
		t.Errorf("the store has changed: %+v", after)
	}
	for path, code := range map[string]Code{file: CodeConflict, filepath.Join(dir, "no", "folder"): CodeFolderMissing, "library": CodeUsage} {
		_, err := a.ExportSnapshot(t.Context(), path)
		var p *Problem
		if !errors.As(err, &p) || p.Code != code {
			t.Errorf("export to %s: %v", path, err)
		}
	}
	reasons := map[string]string{}
	await(t, "both exports that failed", func() bool {
		for _, e := range a.logged(eventlog.SnapshotExportFailed{}.Type()) {
			var d eventlog.SnapshotExportFailed
			if err := json.Unmarshal(e.Details, &d); err != nil {
				t.Fatal(err)
			}
			reasons[d.File] = d.ReasonCode
		}
		return len(reasons) == 2
	})
	if reasons[file] != "exists" || reasons[filepath.Join(dir, "no", "folder")] != "not_found" {
		t.Errorf("exports failed by %v", reasons)
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != string(whole) {
		t.Errorf("the file that was there has changed: %v", err)
	}
	if got := a.importProblem("x", 0, store.ErrNoSpace).(*Problem); got.Code != CodeConflict {
		t.Errorf("a full disk is %+v", got)
	}
}
