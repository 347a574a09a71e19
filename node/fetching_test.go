package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
)

// setFetch changes the policy of a location and fails if that fails.
func (r *running) setFetch(owner *running, l record.LocationID, policy Fetch) LocationView {
	r.tb.Helper()
	v, err := r.SetFetch(r.tb.Context(), idText(owner.self), l.String(), policy)
	if err != nil {
		r.tb.Fatal(err)
	}
	return v
}

// fillFolder makes files in a folder.
func fillFolder(tb testing.TB, folder string, n int) {
	tb.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		touch(tb, folder, fmt.Sprintf("f%05d", i))
	}
}

// A device gives up the entries of a location, knows its head all the same, is no donor of it to a third, is
// not pushed to, calls itself ready; another start changes nothing of that. Then it fetches all of it.
func TestLazyLocation(t *testing.T) {
	a, b, _, folder, loc := pair(t)
	id := locationFeed(a.self, loc)
	home := string(b.home)
	v := b.setFetch(a, loc, FetchLazy)
	if v.Fetch != "lazy" || v.Entries != 1 || v.Files != 0 || v.AsOf.IsZero() {
		t.Errorf("lazy location: %+v", v)
	}
	if st, known := b.store.State(id); !known || holdsAny(st) || st.Best.Count != 1 {
		t.Errorf("held after it became lazy: %+v", st)
	}
	if names := b.names(a.self, loc); len(names) > 0 {
		t.Errorf("names after it became lazy: %v", names)
	}
	await(t, "A hears that B takes no entries", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		info := a.peers[b.self].heads[id]
		_, held := a.peers[b.self].session.sender.Held(id)
		return info.Declines && info.Settled == nil && !held
	})

	touch(t, folder, "two")
	newer := func(n *running) func() bool {
		return func() bool { st, _ := n.store.State(id); return st.Best.Count == 2 }
	}
	await(t, "B hears of the newer head", newer(b))
	var d eventlog.LocationFetchChanged
	if e := b.awaitEvent(&d); e.Summary == "" || d.Fetch != "lazy" || d.Was != "eager" {
		t.Errorf("event %+v", d)
	}
	if st, _ := b.store.State(id); holdsAny(st) {
		t.Errorf("B holds %+v", st)
	}
	if s, err := b.Status(t.Context()); err != nil || s.State != StateReady {
		t.Errorf("state %s (%s), %v", s.State, s.Reason, err)
	}
	if _, err := b.store.Serve(id); err == nil {
		t.Error("B serves a feed it has no entries of")
	}
	if ack, err := b.receiver.Receive(a.self, a.batchOf(id)); err != nil || ack.Outcome != protocol.Declined {
		t.Errorf("a push is answered %+v, %v", ack, err)
	}
	lacks := func() uint64 {
		all, err := b.Devices(t.Context())
		if err != nil || len(all) != 2 || all[1].WeLack == nil {
			return 99
		}
		return *all[1].WeLack
	}
	await(t, "B lacks nothing", func() bool { return lacks() == 0 })

	b.stop()
	b = start(t, home, "b")
	await(t, "connected again", connected(a, b))
	touch(t, folder, "three")
	await(t, "B hears of the newest head", func() bool { st, _ := b.store.State(id); return st.Best.Count == 3 })
	if st, _ := b.store.State(id); holdsAny(st) {
		t.Errorf("B holds %+v after a start", st)
	}
	if v := b.setFetch(a, loc, FetchEager); v.Fetch != "eager" {
		t.Errorf("%+v", v)
	}
	await(t, "all of it is fetched", inStep(a, b))
	if names := b.names(a.self, loc); len(names) != 3 {
		t.Errorf("names %v", names)
	}
	touch(t, folder, "four")
	await(t, "it is followed as before", func() bool { return len(b.names(a.self, loc)) == 4 })
}

// batchOf makes the push that brings all of a feed.
func (r *running) batchOf(id feed.ID) *protocol.StateBatch {
	r.tb.Helper()
	v, err := r.store.Serve(id)
	if err != nil {
		r.tb.Fatal(err)
	}
	defer v.Close()
	b := &protocol.StateBatch{Session: protocol.NewSessionID(), Next: *v.State.Settled}
	if err := v.After(0, func(e feed.Entry) error { b.Entries = append(b.Entries, e); return nil }); err != nil {
		r.tb.Fatal(err)
	}
	return b
}

// A node that was cut off while it gave up a location does so when it starts.
func TestGivingUpIsFinished(t *testing.T) {
	a, b, _, _, loc := pair(t)
	id := locationFeed(a.self, loc)
	home := string(b.home)
	b.stop()
	a.stop()
	n, err := Open(Config{Home: home, Name: "b", Listen: loopback()})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.store.SetLocal(fetchPrefix+string(id.Append(nil)), []byte(FetchLazy)), n.Close()); err != nil {
		t.Fatal(err)
	}
	b = start(t, home, "b")
	if st, known := b.store.State(id); !known || holdsAny(st) || st.Best.Count != 1 {
		t.Errorf("%+v", st)
	}
}

// A large scan is announced. Who follows eagerly fetches, who is metered waits for a word, and who is lazy
// neither; the decisions are events. Small changes come to the metered one without a word.
func TestBulkIndex(t *testing.T) {
	folder := t.TempDir()
	touch(t, folder, "one")
	bulky := func(name string) *running {
		return startAs(t, Config{Home: filepath.Join(t.TempDir(), name), Name: name, Thresholds: Thresholds{Bulk: 50}})
	}
	a, b, c := bulky("a"), bulky("b"), bulky("c")
	loc := a.index(folder)
	b.joins(a)
	c.joins(a)
	await(t, "all in step", inStep(a, b, c))
	id := locationFeed(a.self, loc)
	b.setFetch(a, loc, FetchMetered)
	c.setFetch(a, loc, FetchLazy)
	fillFolder(t, filepath.Join(folder, "few"), 40)
	await(t, "the metered one follows small changes", func() bool { return len(b.names(a.self, loc)) == 42 })

	// written while the indexer is paused by no means: the scan that finds them is one
	if err := a.indexer.Rescan(t.Context(), loc); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.meters[id] = meter{since: time.Now(), at: 42} // an hour later
	b.mu.Unlock()
	other := t.TempDir()
	fillFolder(t, other, 60)
	wide := a.index(other) // one scan
	var told eventlog.BulkIndexAnnounced
	if a.awaitEvent(&told); told.EntryCount != 60 || told.Location != wide.String() || told.Bytes < 60*50 {
		t.Errorf("announced: %+v", told)
	}
	await(t, "the eager ones fetch it", func() bool { return len(b.names(a.self, wide)) == 60 && len(c.names(a.self, wide)) == 60 })
	var decided eventlog.BulkIndexDecided
	if b.awaitEvent(&decided); decided.Decision != DecideFetch && decided.Decision != DecideInStep || decided.EntryCount != 60 {
		t.Errorf("decided: %+v", decided)
	}

	b.setFetch(a, wide, FetchMetered)
	c.setFetch(a, wide, FetchLazy)
	a.hearsDeclines(c, locationFeed(a.self, wide))
	fillFolder(t, filepath.Join(other, "more"), 60)
	if err := a.indexer.Rescan(t.Context(), wide); err != nil {
		t.Fatal(err)
	}
	await(t, "the metered one waits", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		if at := b.peers[a.self].heads[locationFeed(a.self, wide)].Settled; at == nil || at.Count != 121 {
			return false // told by C so far, of whom it cannot be had
		}
		st, _ := b.store.State(locationFeed(a.self, wide))
		decision, why, _ := b.decideOn(st, time.Now())
		return st.Best.Count == 121 && decision == DecideWait && why == whyLarge
	})
	if s, err := b.Status(t.Context()); err != nil || s.State != StateReady || len(s.Attention) == 0 || s.Attention[0].Try != "peer sync now" || s.Attention[0].Severity != "problem" {
		t.Errorf("state %s (%s), attention %+v, %v", s.State, s.Reason, s.Attention, err)
	}
	p, err := b.SyncPlan(t.Context(), "")
	if err != nil || len(p.Feeds) != 1 || p.Feeds[0].Decision != DecideWait || p.Feeds[0].Lacks == 0 || p.Feeds[0].Strategy != "" || len(p.Feeds[0].Candidates) != 2 {
		t.Errorf("plan %+v, %v", p, err)
	}
	if p, err := c.SyncPlan(t.Context(), idText(a.self)); err != nil || len(p.Feeds) != 2 || p.Feeds[0].Decision != DecideOnDemand {
		t.Errorf("plan of the lazy one %+v, %v", p, err)
	}
	if p, err := c.SyncPlan(t.Context(), idText(b.self)); err != nil || len(p.Feeds) != 0 {
		t.Errorf("plan of the lazy one for B's feeds: %+v, %v", p, err)
	}
	if _, err := b.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	var paused *Problem
	if _, err := b.SyncNow(t.Context(), "", func(Progress) {}); !errors.As(err, &paused) || paused.Code != CodeConflict || paused.Try != "peer sync resume" {
		t.Errorf("while sync is paused: %v", err)
	}
	if _, err := b.Resume(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := b.SyncNow(t.Context(), "", func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	if n := len(b.names(a.self, wide)); n != 121 {
		t.Errorf("after a word %d names are here", n)
	}
	await(t, "the lazy one knows the head", func() bool { st, _ := c.store.State(locationFeed(a.self, wide)); return st.Best.Count == 121 })
	if st, _ := c.store.State(locationFeed(a.self, wide)); holdsAny(st) {
		t.Errorf("the lazy one holds %+v", st)
	}
}

// What is reported as changed in a watched folder, much of it at once, is announced like a scan; once.
func TestBulkIndexOfWatched(t *testing.T) {
	bulky := func(name string) *running {
		return startAs(t, Config{Home: filepath.Join(t.TempDir(), name), Name: name, Thresholds: Thresholds{Bulk: 50}})
	}
	a, b := bulky("a"), bulky("b")
	folder, made := t.TempDir(), filepath.Join(t.TempDir(), "many")
	touch(t, folder, "one")
	loc := a.index(folder)
	b.joins(a)
	await(t, "all in step", inStep(a, b))
	scans := len(a.logged(eventlog.ScanStarted{}.Type()))
	fillFolder(t, made, 60)
	if err := os.Rename(made, filepath.Join(folder, "many")); err != nil { // all at once
		t.Fatal(err)
	}
	var told eventlog.BulkIndexAnnounced
	if a.awaitEvent(&told); told.EntryCount != 61 || told.Location != loc.String() || told.Told != 1 {
		t.Errorf("announced: %+v", told)
	}
	var decided eventlog.BulkIndexDecided
	if b.awaitEvent(&decided); decided.EntryCount != 61 {
		t.Errorf("decided: %+v", decided)
	}
	await(t, "it is fetched", func() bool { return len(b.names(a.self, loc)) == 62 })
	if again := len(a.logged(eventlog.ScanStarted{}.Type())); again != scans {
		t.Errorf("it was %d scans that found it, not the watcher", again-scans)
	}
	if n := len(a.logged(told.Type())); n != 1 {
		t.Errorf("announced %d times", n)
	}
}

// A device that comes back and is told to sync at once fetches what its metered location lacks as of then, not as of
// what it knew before, and has it when it is told that the round is over.
func TestSyncNowOfMetered(t *testing.T) {
	bulky := func(home, name string) *running {
		return startAs(t, Config{Home: home, Name: name, Thresholds: Thresholds{Bulk: 50}})
	}
	folder := t.TempDir()
	touch(t, folder, "one")
	a, home := bulky(filepath.Join(t.TempDir(), "a"), "a"), filepath.Join(t.TempDir(), "b")
	loc := a.index(folder)
	b := bulky(home, "b")
	b.joins(a)
	await(t, "in step", inStep(a, b))
	b.setFetch(a, loc, FetchMetered)
	for round := range 2 {
		b.stop()
		fillFolder(t, filepath.Join(folder, fmt.Sprint("much ", round)), 100)
		if err := a.indexer.Rescan(t.Context(), loc); err != nil {
			t.Fatal(err)
		}
		b = bulky(home, "b")
		if v, err := b.SyncNow(t.Context(), "", func(Progress) {}); err != nil || len(v.Devices) != 1 || !v.Devices[0].Online {
			t.Fatalf("%+v, %v", v, err)
		}
		if got, want := b.names(a.self, loc), a.names(a.self, loc); !slices.Equal(got, want) {
			t.Errorf("round %d: %d names, want %d", round, len(got), len(want))
		}
	}
	a.stop()
	if v, err := b.SyncNow(t.Context(), "", func(Progress) {}); err != nil || len(v.Devices) != 1 || v.Devices[0].Online {
		t.Errorf("with nobody there: %+v, %v", v, err)
	}
}

// hearsDeclines waits until r has heard that o takes no entries of a feed.
func (r *running) hearsDeclines(o *running, id feed.ID) {
	r.tb.Helper()
	await(r.tb, "it is told that no entries are taken", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		p := r.peers[o.self]
		return p != nil && p.heads[id].Declines
	})
}

// An announcement that overtakes the device feed is decided about once that tells of the location.
func TestBulkIndexEarly(t *testing.T) {
	a, b, _, _, _ := pair(t)
	folder := t.TempDir()
	fillFolder(t, folder, 5)
	b.setPause(nil, time.Time{})
	id := locationFeed(a.self, a.index(folder))
	await(t, "it is indexed", func() bool { return len(a.names(a.self, id.Location)) == 5 })
	st, _ := a.store.State(id)
	b.mu.Lock()
	s := b.peers[a.self].session
	b.mu.Unlock()
	if b.accepts(id) {
		t.Fatal("B knows of the location, though it is paused")
	}
	if err := b.hearBulk(s, &protocol.BulkIndexComplete{Head: *st.Settled, Entries: 5, Bytes: 500, Time: 1}); err != nil {
		t.Fatal(err)
	}
	var d eventlog.BulkIndexDecided
	if n := len(b.logged(d.Type())); n > 0 {
		t.Errorf("%d decisions about a location that is not known", n)
	}
	b.resume(nil)
	e := b.awaitEvent(&d)
	if d.Decision != DecideFetch && d.Decision != DecideInStep || d.EntryCount != 5 || d.Name != filepath.Base(folder) || e.CorrelationID != eventlog.ID(s.id) {
		t.Errorf("decided: %+v of %v", d, e)
	}
	await(t, "it is fetched", inStep(a, b))
	if n := len(b.logged(d.Type())); n != 1 {
		t.Errorf("%d decisions", n)
	}
}

func TestSift(t *testing.T) {
	now := time.Now()
	heard := func(location byte, ago time.Duration) earlyBulk {
		h := feed.Head{Feed: feed.ID{Location: record.LocationID{location}}}
		return earlyBulk{&protocol.BulkIndexComplete{Head: h}, now.Add(-ago)}
	}
	early := []earlyBulk{heard(1, earlyFor), heard(2, 2*earlyFor)}
	for i := range byte(bulkQueue + 2) {
		early = append(early, heard(10+i, time.Second))
	}
	due, over, left := sift(early, func(id feed.ID) bool { return id.Location[0] == 2 || id.Location[0] == 11 }, now)
	for what, c := range map[string]struct {
		got  []earlyBulk
		want []byte
	}{
		"known":   {due, []byte{2, 11}},
		"too old": {over, []byte{1, 10}},
		"kept on": {left, []byte{12, 13, 14, 15, 16, 17, 18, 19}},
	} {
		var got []byte
		for _, m := range c.got {
			got = append(got, m.Head.Feed.Location[0])
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}

// Announcements of what is not the sender's, or not signed, end its session. Of what nobody knows few are kept.
func TestHearBulk(t *testing.T) {
	a, b, _, _, loc := pair(t)
	id := locationFeed(a.self, loc)
	st, _ := b.store.State(id)
	s := &session{id: protocol.NewSessionID(), early: make(chan earlyBulk, 1)}
	hear := func(from *running, change func(*protocol.BulkIndexComplete)) error {
		m := &protocol.BulkIndexComplete{Head: *st.Settled, Entries: 1, Bytes: 100, Time: 1}
		change(m)
		s.peer = from.self
		return b.hearBulk(s, m)
	}
	if err := hear(a, func(*protocol.BulkIndexComplete) {}); err != nil {
		t.Error(err)
	}
	var d eventlog.BulkIndexDecided
	if b.awaitEvent(&d); d.Decision != DecideInStep || d.Lacks != 0 {
		t.Errorf("%+v", d)
	}
	if err := hear(b, func(*protocol.BulkIndexComplete) {}); !errors.Is(err, protocol.CodeUnauthorized) {
		t.Errorf("of another's location: %v", err)
	}
	if err := hear(a, func(m *protocol.BulkIndexComplete) { m.Head.Seq++ }); !errors.Is(err, protocol.CodeMismatch) {
		t.Errorf("not signed: %v", err)
	}
	unknown := func(m *protocol.BulkIndexComplete) { m.Head.Feed.Location[0]++; m.Head = m.Head.Sign(a.key) }
	if err := hear(a, unknown); err != nil || len(s.early) != 1 {
		t.Errorf("of a location nobody knows: %v, %d are kept", err, len(s.early))
	}
	if n := len(b.logged(d.Type())); n != 1 {
		t.Errorf("%d decisions", n)
	}
	if err := hear(a, unknown); err != nil || len(s.early) != 1 {
		t.Errorf("of another: %v, %d are kept", err, len(s.early))
	}
	var all []eventlog.Event
	decisions := func(want int) func() bool {
		return func() bool { all = b.logged(d.Type()); return len(all) == want }
	}
	await(t, "the other is ignored", decisions(2))
	if d := details[eventlog.BulkIndexDecided](t, all[1]); d.Decision != DecideIgnore || d.Why != whyUnknown || d.Lacks != int64(st.Settled.Count) {
		t.Errorf("%+v", d)
	}
	m := <-s.early
	if left, err := b.decideEarly(s, []earlyBulk{m}, m.at.Add(earlyFor)); err != nil || len(left) > 0 {
		t.Errorf("%d wait, %v", len(left), err)
	}
	await(t, "so is the one that has waited", decisions(3))
	if by := b.Node.metrics.Snapshot(time.Now()).Operations.BulkDecisions.By; by["ignore"] != 2 || by["in_step"] != 1 {
		t.Errorf("%+v", by)
	}
}

func TestSetFetchRefuses(t *testing.T) {
	a, b, _, _, loc := pair(t)
	for what, c := range map[string]struct {
		on     *running
		device record.DeviceID
		id     string
		policy Fetch
		code   Code
	}{
		"an own folder":    {a, a.self, loc.String(), FetchLazy, CodeConflict},
		"no such policy":   {b, a.self, loc.String(), "soon", CodeUsage},
		"no such location": {b, a.self, record.LocationID{1}.String(), FetchLazy, CodeUnknownLocation},
		"another device's": {b, b.self, loc.String(), FetchLazy, CodeUnknownLocation},
	} {
		_, err := c.on.SetFetch(t.Context(), idText(c.device), c.id, c.policy)
		var p *Problem
		if !errors.As(err, &p) || p.Code != c.code {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := b.names(a.self, loc); len(got) != 1 {
		t.Errorf("names %v", got)
	}
}

// Of entries that are to be fetched it is known from whom they come, or why they do not.
func TestComesFrom(t *testing.T) {
	t.Parallel()
	a, b, _, _, loc := pair(t)
	b.setFetch(a, loc, FetchLazy) // so that they are lacking for as long as it is looked at
	id := locationFeed(a.self, loc)
	says := func(what, name, paused string) {
		t.Helper()
		st, _ := b.store.State(id)
		b.mu.Lock()
		defer b.mu.Unlock()
		if from, why := b.comesFrom(st, time.Now()); from != name || why != paused {
			t.Errorf("%s: from %q, paused by %q; want %q and %q", what, from, why, name, paused)
		}
	}
	says("its owner is connected", "a", "")
	for _, c := range []struct{ device, paused string }{{"", "paused by a person until resumed"}, {idText(a.self), "sync with a is paused"}} {
		if _, err := b.Pause(t.Context(), c.device, 0); err != nil {
			t.Fatal(err)
		}
		says("paused with "+c.device, "", c.paused)
		if _, err := b.Resume(t.Context(), c.device); err != nil {
			t.Fatal(err)
		}
	}
	b.mu.Lock()
	b.pulls[a.self] = &pulling{donor: a.self, feeds: []feed.ID{id}}
	b.mu.Unlock()
	says("it is coming", "a", "")
	b.mu.Lock()
	delete(b.pulls, a.self)
	b.mu.Unlock()
	a.stop()
	await(t, "the end of the session", func() bool { return !connected(a, b)() })
	says("nobody is connected", "", "")
}

// Who joins while sync is paused is told so, and does not wait for what cannot come.
func TestJoinWhilePaused(t *testing.T) {
	t.Parallel()
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	dir := t.TempDir()
	touch(t, dir, "one")
	loc := a.index(dir)
	b := start(t, filepath.Join(t.TempDir(), "b"), "b")
	if _, err := b.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	var p *Problem
	if err := b.Join(t.Context(), a.invite(1), func(JoinProgress) {}); !errors.As(err, &p) || p.Code != CodeConflict || p.Try != "peer sync resume" {
		t.Fatalf("joined with %v", err)
	}
	if _, err := b.Resume(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	await(t, "what was lacking", func() bool { return len(b.names(a.self, loc)) == 1 })
}
