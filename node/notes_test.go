package node

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"peerdex/backfill"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/member"
	"peerdex/protocol"
	"peerdex/record"
)

// What a person is told of forks, clocks, old positions and waiting changes: each event once, with its facts.
func TestNotes(t *testing.T) {
	a, b, _, _, loc := pair(t)
	id := locationFeed(a.self, loc)
	st, _ := b.store.State(id)
	at := *st.Settled

	fork := at
	fork.Root[0]++
	fork = fork.Sign(a.key)
	for range 3 { // heard again and again
		b.noteFork(a.self, fork)
	}
	b.noteConverged(id, at) // the owner's word at that seq settles nothing
	b.awaitEvent(eventlog.CatalogDiverged{})
	var diverged eventlog.CatalogDiverged
	if all := b.logged(diverged.Type()); len(all) != 1 || json.Unmarshal(all[0].Details, &diverged) != nil || diverged.Seq != at.Seq || diverged.Ours == diverged.Theirs {
		t.Errorf("diverged: %+v, %+v", all, diverged)
	}
	if all := b.logged(eventlog.CatalogConverged{}.Type()); len(all) != 0 {
		t.Errorf("converged too early: %+v", all)
	}
	next := at
	next.Seq++
	for range 2 {
		b.noteConverged(id, next)
	}
	var converged eventlog.CatalogConverged
	b.awaitEvent(converged)
	if all := b.logged(converged.Type()); len(all) != 1 || json.Unmarshal(all[0].Details, &converged) != nil || converged.Seq != next.Seq {
		t.Errorf("converged: %+v", all)
	}

	b.mu.Lock()
	s := b.peers[a.self].session
	b.mu.Unlock()
	now := time.Now()
	b.noteClock(s, protocol.Clock{Offset: skewWarn + time.Second, RTT: time.Millisecond, Uncertainty: 2 * time.Second}, now)
	if all := b.logged(eventlog.ClockSkewDetected{}.Type()); len(all) != 0 {
		t.Errorf("within the uncertainty: %+v", all)
	}
	b.noteClock(s, protocol.Clock{Offset: -2 * skewWarn, RTT: time.Millisecond, Uncertainty: time.Millisecond}, now)
	var skew eventlog.ClockSkewDetected
	if e := b.awaitEvent(skew); json.Unmarshal(e.Details, &skew) != nil || skew.OffsetMS != -2*skewWarn.Milliseconds() || e.PeerDeviceID != idText(a.self) {
		t.Errorf("skew: %+v", e)
	}

	p := backfill.Pull{Session: protocol.NewSessionID(), Donor: a.self, Feed: id, Head: at, Route: feed.Route{Road: feed.RoadDiff, Reason: "gc"}}
	pullNotes{b.Node}.Chosen(p)
	if e := b.awaitEvent(eventlog.WatermarkTooOld{}); e.CorrelationID != eventlog.ID(p.Session) {
		t.Errorf("watermark: %+v", e)
	}
	pullNotes{b.Node}.Ended(p, &protocol.Error{Code: protocol.CodeLost})
	if e := b.awaitEvent(eventlog.ReconcileSessionFailed{}); e.CorrelationID != eventlog.ID(p.Session) {
		t.Errorf("failed: %+v", e)
	}
}

// A location is added while registers are being read, over and over: its entries are never dropped.
func TestRefreshBesideAdd(t *testing.T) {
	a, _, _, _, _ := pair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 400 {
			if err := a.refresh(); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var locs []record.LocationID
	for range 6 {
		dir := t.TempDir()
		touch(t, dir, "file")
		locs = append(locs, a.index(dir))
	}
	<-done
	for _, l := range locs {
		if got := a.names(a.self, l); len(got) != 1 {
			t.Errorf("location %v holds %v", l, got)
		}
		if !a.follows(locationFeed(a.self, l)) {
			t.Errorf("location %v is not followed", l)
		}
	}
}

// A peer shows a head of this device's own feed that this device never signed: it is accused, and nothing is
// signed over it. One that this device signed in another life is taken for what it is.
func TestHeadOfOwnFeed(t *testing.T) {
	a, b, _, _, loc := pair(t)
	id := locationFeed(a.self, loc)
	before, _ := a.store.State(id)
	a.mu.Lock()
	s := a.peers[b.self].session
	a.mu.Unlock()
	lie := *before.Settled
	lie.Seq += 100
	forged := lie.Sign(b.key)
	err := a.hearOwn(s, protocol.HeadInfo{Best: forged})
	if code := protocol.CodeOf(err); code != protocol.CodeMismatch {
		t.Errorf("a forged head gives %v", err)
	}
	clone := lie
	clone.Boot, clone.Onto = 77, a.boot // would freeze this device, had it been signed
	if err := a.hearOwn(s, protocol.HeadInfo{Best: clone.Sign(b.key)}); protocol.CodeOf(err) != protocol.CodeMismatch || a.store.Frozen() {
		t.Errorf("a forged clone gives %v, frozen %v", err, a.store.Frozen())
	}
	if now, _ := a.store.State(id); *now.Settled != *before.Settled {
		t.Errorf("signed %+v over a lie", now.Settled)
	}
	lie.Boot = 55
	real := lie.Sign(a.key)
	if err := a.hearOwn(s, protocol.HeadInfo{Best: real}); err != nil {
		t.Fatal(err)
	}
	now, _ := a.store.State(id)
	if now.Settled.Seq <= real.Seq || now.Settled.Onto != 55 {
		t.Errorf("signed %+v over %+v", now.Settled, real)
	}
	var back eventlog.FeedRolledBack
	if e := a.awaitEvent(back); json.Unmarshal(e.Details, &back) != nil || back.Method != "jump" || back.SeenSeq != real.Seq || back.ToSeq != now.Settled.Seq {
		t.Errorf("%s", e.Details)
	}
}

// A device reads registers, over and over, while it joins another library: what it read of the library it
// left must not become the membership of the new one, on disk at that, with nobody in it.
func TestJoinBesideRefresh(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	for range 5 {
		b := start(t, filepath.Join(t.TempDir(), "b"), "b")
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := b.refresh(); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		b.joins(a)
		close(stop)
		<-done
		lib, ok, err := b.home.loadLibrary()
		if err != nil || !ok || lib.id != a.lib.id || member.Evaluate(lib.root, lib.certs).Role(b.self) == 0 {
			t.Fatalf("kept %d certificates of library %x, %v", len(lib.certs), lib.id[:4], err)
		}
		b.stop()
	}
}

// A push that is answered counts as delivered, whatever the answer, unless its content was refused.
func TestDelivered(t *testing.T) {
	n := start(t, filepath.Join(t.TempDir(), "a"), "a")
	notes, to := pushNotes{n.Node}, record.DeviceID{9}
	id := feed.ID{Device: n.self}
	for _, o := range []protocol.Outcome{protocol.Applied, protocol.Known, protocol.Unsettled, protocol.Gap, protocol.Busy} {
		notes.Acked(to, protocol.SessionID{}, id, 1, o, time.Millisecond)
	}
	want := func(delivered, failed uint64) {
		t.Helper()
		m := n.metrics.Snapshot(time.Now())
		if m.Performance.Broadcast.Count != delivered || m.Operations.FailedBroadcasts.Total != failed {
			t.Errorf("%d delivered, failed: %v", m.Performance.Broadcast.Count, m.Operations.FailedBroadcasts)
		}
	}
	want(5, 0)
	for _, o := range []protocol.Outcome{protocol.Mismatch, protocol.Rejected} {
		notes.Acked(to, protocol.SessionID{}, id, 1, o, time.Millisecond)
	}
	notes.PushFailed(to, protocol.SessionID{}, id, 1, &protocol.Error{Code: protocol.CodeLost})
	notes.PushFailed(to, protocol.SessionID{}, id, 1, protocol.CodeTimeout)
	want(5, 4)
	by := n.metrics.Snapshot(time.Now()).Operations.FailedBroadcasts.By
	for _, reason := range []string{"mismatch", "rejected", "reset", "timeout"} {
		if by[reason] != 1 {
			t.Errorf("%s: %d", reason, by[reason])
		}
	}
}
