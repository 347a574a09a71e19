package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	"peerdex/kv/memory"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/snapshot"
	"peerdex/store"
)

// details decodes what an event says.
func details[D eventlog.Detail](t *testing.T, e eventlog.Event) (d D) {
	t.Helper()
	if err := json.Unmarshal(e.Details, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// While the disk is almost full nothing is recorded: sync pauses and says why, a folder is refused, and no
// node opens. With room again all that was missed comes.
func TestDiskLow(t *testing.T) {
	t.Parallel()
	var free atomic.Uint64
	free.Store(2 * store.MinFree)
	open := func(dir string, cfg store.Config) (*store.Store, error) {
		cfg.Free = func(string) (uint64, error) { return free.Load(), nil }
		return store.Open(dir, cfg)
	}
	folder, other := t.TempDir(), t.TempDir()
	touch(t, folder, "one")
	touch(t, other, "more")
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	loc := a.index(folder)
	b := startOn(t, filepath.Join(t.TempDir(), "b"), "b", open)
	b.joins(a)
	await(t, "both in step", inStep(a, b))

	const left = store.MinFree - 1
	under, cancel := context.WithCancelCause(t.Context())
	b.mu.Lock()
	b.pulls[a.self] = &pulling{donor: a.self, cancel: cancel}
	b.mu.Unlock()
	free.Store(left)
	d := details[eventlog.DiskLow](t, b.awaitEvent(eventlog.DiskLow{}))
	if d.FreeBytes != left || d.NeedBytes != store.MinFree {
		t.Errorf("%+v", d)
	}
	<-under.Done()
	if err := context.Cause(under); !ownFault(err) || reasonCode(err) != "disk_full" {
		t.Errorf("what was under way ended with %v", err)
	}
	b.mu.Lock()
	delete(b.pulls, a.self)
	b.mu.Unlock()
	await(t, "sync pauses", func() bool { return b.stateNow() == StatePaused })
	if s, err := b.SyncStatus(t.Context()); err != nil || s.Reason != "the disk is almost full" {
		t.Errorf("paused because of %q, %v", s.Reason, err)
	}
	if n := b.metrics.Snapshot(time.Now()).Errors.Counts.By["database"]; n != 1 {
		t.Errorf("%d errors of the database", n)
	}
	touch(t, folder, "two")
	await(t, "A has the file", func() bool { return len(a.names(a.self, loc)) == 2 })
	var problem *Problem
	if _, err := b.AddLocation(t.Context(), AddRequest{Path: other}, func(ScanProgress) {}); !errors.As(err, &problem) || problem.Code != CodeConflict || !strings.Contains(problem.Message, "almost full") {
		t.Errorf("a folder more: %v", err)
	}
	if all, err := b.Locations(t.Context()); err != nil || slices.ContainsFunc(all, func(l LocationView) bool { return l.Self }) {
		t.Errorf("refused, and there all the same: %+v, %v", all, err)
	}
	if got := b.names(a.self, loc); !slices.Equal(got, []string{"one"}) {
		t.Errorf("recorded while the disk was full: %v", got)
	}
	free.Store(store.MinFree/2 - 1)
	home := filepath.Join(t.TempDir(), "c")
	if _, err := Open(Config{Home: home, Listen: loopback(), openStore: open}); !errors.As(err, &problem) || problem.Code != CodeConflict || problem.Try == "" {
		t.Errorf("opened with no room: %v", err)
	}

	free.Store(store.MinFree)
	await(t, "sync goes on", func() bool {
		return slices.Equal(b.names(a.self, loc), []string{"one", "two"}) && b.stateNow() == StateReady
	})
	b.index(other)
	await(t, "both in step", inStep(a, b))
	if all := b.logged(eventlog.DiskLow{}.Type()); len(all) != 1 {
		t.Errorf("said %d times", len(all))
	}
}

// The disk does not take what a peer serves: that is told, nobody is blamed, and once the disk works again
// it is there.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	const files = 300
	var fails atomic.Pointer[error]
	open := func(_ string, cfg store.Config) (*store.Store, error) {
		return store.New(memory.New(memory.Config{OnCommit: func(writes, _ int) error {
			if err := fails.Load(); err != nil && writes > files { // a page of entries, and nothing else
				return *err
			}
			return nil
		}}), cfg)
	}
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	b := startOn(t, filepath.Join(t.TempDir(), "b"), "b", open)
	b.joins(a)
	broken := errors.New("input/output error")
	fails.Store(&broken)
	folder := t.TempDir()
	for i := range files {
		touch(t, folder, fmt.Sprint(i))
	}
	loc := a.index(folder)
	failed := b.awaitEvent(eventlog.ApplyFailed{})
	if d := details[eventlog.ApplyFailed](t, failed); d.Op != "apply" || d.Code != "internal" || !strings.Contains(d.Message, broken.Error()) || failed.PeerDeviceID != idText(a.self) {
		t.Errorf("%+v", failed)
	}
	b.wantsNobody(t, a, locationFeed(a.self, loc))
	full := fmt.Errorf("write: %w", store.ErrNoSpace)
	fails.Store(&full)
	if d := details[eventlog.StoreError](t, b.awaitEvent(eventlog.StoreError{})); d.Op != "apply" || d.Code != "disk_full" {
		t.Errorf("%+v", d)
	}
	errs := b.metrics.Snapshot(time.Now()).Errors.Counts
	if errs.By["apply"] == 0 || errs.By["database"] == 0 || errs.Total != errs.By["apply"]+errs.By["database"] {
		t.Errorf("errors: %+v", errs)
	}
	for _, e := range b.logged(eventlog.SyncError{}.Type()) { // with all that are errors
		if e.Type != failed.Type && e.Type != (eventlog.StoreError{}).Type() && e.Type != (eventlog.BackfillSessionFailed{}).Type() {
			t.Errorf("told besides: %s %s", e.Type, e.Summary)
		}
	}
	if got := b.names(a.self, loc); len(got) != 0 {
		t.Errorf("%d entries of a transaction that failed", len(got))
	}
	b.wantsNobody(t, a, locationFeed(a.self, loc))
	fails.Store(nil)
	await(t, "the files", func() bool { return len(b.names(a.self, loc)) == files && inStep(a, b)() })
}

// wantsNobody fails if o is held to have failed at a feed, or another donor would be asked at once.
func (r *running) wantsNobody(t *testing.T, o *running, id feed.ID) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.peers[o.self]; !p.failedPull.IsZero() || p.snapshots != (snapshot.Attempts{}) {
		t.Errorf("%s is blamed: failed at %v, %+v", o.label, p.failedPull, p.snapshots)
	}
	for k := range r.retries {
		if k.feed == id && k.donor != anyDonor {
			t.Errorf("another donor than %s would be asked at once", o.label)
		}
	}
}

// What this device's disk or memory did is nothing of the donor's.
func TestOwnFault(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	for _, c := range []struct {
		err  error
		own  bool
		code string
	}{
		{nil, false, "other"},
		{store.ErrNoSpace, true, "disk_full"},
		{fmt.Errorf("load: %w", &store.SpaceError{Free: 1, Need: 2}), true, "disk_full"},
		{fmt.Errorf("keep chunk: %w", full), true, "disk_full"},
		{&protocol.Error{Code: protocol.CodeInternal, Remote: true}, false, "internal"},
		{errors.New("input/output error"), true, "internal"},
		{fmt.Errorf("parse: %w", snapshot.ErrNewer), false, "internal"},
		{fmt.Errorf("finish: %w", store.ErrMismatch), false, "delta_mismatch"},
		{&protocol.Error{Code: protocol.CodeLost}, false, "lost"},
		{unopened(errors.New("connection refused")), false, "lost"},
		{unopened(fmt.Errorf("dial: %w", context.DeadlineExceeded)), false, "timeout"},
	} {
		if got := ownFault(c.err); got != c.own || c.err != nil && reasonCode(c.err) != c.code {
			t.Errorf("%v: own %v, %s", c.err, got, reasonCode(c.err))
		}
	}
}

// An fsync fails once. That is final: the node says so and ends, nothing that it covered leaves it, and no
// later fsync is believed. A new process takes up what is on disk.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	a, b, home, folder, loc := pair(t)
	log := filepath.Join(home, "store", "00000.mem") // the log of a full memtable, that cannot be synced
	if err := os.Mkdir(log, 0o700); err != nil {
		t.Fatal(err)
	}
	touch(t, folder, "two")
	err := <-a.ended
	a.ended <- nil // for stop
	if err == nil || !strings.Contains(err.Error(), "sync store") {
		t.Fatalf("ended with %v", err)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if again := a.store.Sync(); again == nil {
		t.Error("a later fsync is believed")
	}
	told := a.logged(eventlog.StoreError{}.Type())
	if len(told) == 0 || details[eventlog.StoreError](t, told[0]).Op != "sync" {
		t.Errorf("told: %+v", told)
	}
	if st, _ := a.store.State(locationFeed(a.self, loc)); st.Count != 2 {
		t.Errorf("%d entries committed", st.Count)
	}
	if got := b.names(a.self, loc); !slices.Equal(got, []string{"one"}) {
		t.Errorf("left the device without being durable: %v", got)
	}
	a.stop()
	a = start(t, home, "a")
	await(t, "the file at B", func() bool { return slices.Equal(b.names(a.self, loc), []string{"one", "two"}) })
}

// week is a little more than a feed must be stuck for (rule 17).
const week = orphanAfter + time.Hour

// A feed is unsettled here, and whoever could complete it is gone for a week: it settles below its floor, at
// what somebody holds. When its owner comes back it goes on from there.
func TestOrphanBelowTheFloor(t *testing.T) {
	t.Parallel()
	a, b, home, folder, loc := pair(t)
	id := locationFeed(a.self, loc)
	late := filepath.Join(t.TempDir(), "c")
	c := start(t, late, "c")
	c.joins(a)
	await(t, "all in step", inStep(a, b, c))
	c.stop()
	touch(t, folder, "two")
	await(t, "the file at B", func() bool { return slices.Equal(b.names(a.self, loc), []string{"one", "two"}) })
	a.stop()
	unsettle(t, b, id)
	c = start(t, late, "c")
	await(t, "B knows what C holds", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		st, _ := b.store.State(id)
		return b.offers(c.self, st, true) && !b.offers(c.self, st, false)
	})
	now := time.Now()
	b.review(t, now, now.Add(orphanAfter-time.Hour))
	if all := b.logged(eventlog.FeedOrphaned{}.Type()); len(all) != 0 {
		t.Fatalf("too early: %s", all[0].Summary)
	}
	before, _ := b.store.State(id)
	b.review(t, now, now.Add(2*time.Hour))
	e := b.awaitEvent(eventlog.FeedOrphaned{})
	at, _ := c.store.State(id)
	if d := details[eventlog.FeedOrphaned](t, e); d.Feed != id.String() || d.FloorSeq != before.Floor.Seq || d.SettledSeq != at.Settled.Seq || d.SettledSeq >= d.FloorSeq {
		t.Errorf("%+v", d)
	}
	if got := b.names(a.self, loc); !slices.Equal(got, []string{"one"}) || e.PeerDeviceID != idText(c.self) {
		t.Errorf("settled at %v, of %s", got, e.PeerDeviceID)
	}
	a = start(t, home, "a")
	await(t, "all in step", func() bool { return inStep(a, b, c)() && slices.Equal(c.names(a.self, loc), []string{"one", "two"}) })
}

// A device feed is unsettled here and nobody holds it at all. After a week, restarts not counted, it is let
// go: what it said is said by this device from now on.
func TestOrphanOfNobody(t *testing.T) {
	t.Parallel()
	a, b, _, _, _ := pair(t)
	id := feed.ID{Device: a.self}
	held, _ := b.store.State(id)
	a.stop()
	unsettle(t, b, id)
	now := time.Now()
	b.review(t, now, now.Add(week/2))
	home := string(b.home)
	b.stop()
	b = start(t, home, "b")
	now = time.Now()
	b.review(t, now)
	if all := b.logged(eventlog.FeedOrphaned{}.Type()); len(all) != 0 {
		t.Fatalf("too early: %s", all[0].Summary)
	}
	b.review(t, now, now.Add(week/2))
	if d := details[eventlog.FeedOrphaned](t, b.awaitEvent(eventlog.FeedOrphaned{})); d.Feed != id.String() || d.FloorSeq != held.Floor.Seq || d.SettledSeq != 0 {
		t.Errorf("%+v", d)
	}
	if d := details[eventlog.FeedRescued](t, b.awaitEvent(eventlog.FeedRescued{})); d.Feed != id.String() || uint64(d.Registers) != held.Count {
		t.Errorf("%+v, of %d", d, held.Count)
	}
	if r, ok, err := b.store.Register(record.Device(a.self), record.FieldName); err != nil || !ok || string(r.Value) != "a" {
		t.Errorf("its name is %q, %v", r.Value, err)
	}
	b.review(t, now)
	if err := b.store.Locals(stuckPrefix, func(string, []byte) error { return errors.New("still stuck") }); err != nil {
		t.Error(err)
	}
}

// review has orphans reviewed at each of some moments.
func (r *running) review(t *testing.T, at ...time.Time) {
	t.Helper()
	for _, now := range at {
		if err := r.reviewOrphans(now); err != nil {
			t.Fatal(err)
		}
	}
}

// unsettle leaves a feed as a pull does that was cut off in the middle of a tree diff.
func unsettle(t *testing.T, r *running, id feed.ID) {
	t.Helper()
	if _, err := r.store.Apply(store.Change{Feed: id}); err != nil {
		t.Fatal(err)
	}
	if st, _ := r.store.State(id); st.Settled != nil || st.Count == 0 {
		t.Fatalf("%+v", st)
	}
}
