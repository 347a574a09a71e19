package node

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"peerdex/backfill"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/snapshot"
)

// tellsOf waits for the end of a transfer from or to o, and checks what was told of it on the way: each phase, in
// order, ever more entries up to all of them, and not much more often than each tenth.
func (r *running) tellsOf(o *running, direction, strategy string, entries int64, phases ...string) {
	r.tb.Helper()
	var told []eventlog.TransferProgress
	await(r.tb, "the end of the transfer "+direction, func() bool {
		told = nil
		for _, e := range r.logged(eventlog.TransferProgress{}.Type()) {
			var d eventlog.TransferProgress
			if err := json.Unmarshal(e.Details, &d); err != nil {
				r.tb.Fatal(err)
			}
			if d.Direction == direction && d.Strategy == strategy && e.PeerDeviceID == idText(o.self) {
				told = append(told, d)
			}
		}
		return len(told) > 0 && told[len(told)-1].Phase == PhaseDone
	})
	var got []string
	for i, d := range told {
		if got = append(got, d.Phase); i > 0 && (d.Records < told[i-1].Records || d.Bytes < told[i-1].Bytes) {
			r.tb.Errorf("went from %+v to %+v", told[i-1], d)
		}
		if d.Phase != PhasePreparing && (d.Total < entries || d.Total > entries+100 || d.Records > d.Total) {
			r.tb.Errorf("of %d entries told %+v", entries, d)
		}
	}
	if got = slices.Compact(got); !slices.Equal(got, phases) || len(told) > 10+len(phases) {
		r.tb.Errorf("phases %v, want %v; told %d times", got, phases, len(told))
	}
	if last := told[len(told)-1]; last.Records != last.Total || last.Bytes == 0 || last.RecordsPerSecond == 0 || last.ETAMS != 0 {
		r.tb.Errorf("at the end told %+v", last)
	}
}

// clock is a time that moves when it is told to.
type clock struct{ now time.Time }

func (c *clock) after(d time.Duration) time.Time {
	c.now = c.now.Add(d)
	return c.now
}

// A pull of three feeds: what is to come shrinks as it comes, as feeds turn out to lack less, and as they are over;
// the share that has come only grows.
func TestPullProgress(t *testing.T) {
	c := clock{time.Unix(1e9, 0)}
	ids := []feed.ID{{Location: [16]byte{1}}, {Location: [16]byte{2}}, {Location: [16]byte{3}}}
	p := &pulling{feeds: ids}
	p.expect(map[feed.ID]uint64{ids[0]: 1000, ids[1]: 5000, ids[2]: 4000}, c.now)
	ratio := 0.0
	want := func(done, total uint64, phase string, rate, eta float64) {
		t.Helper()
		v := p.progress.view(c.now)
		if (v != Progress{Phase: phase, Done: done, Total: total, Bytes: 10 * done, Rate: rate, ETASeconds: eta}) {
			t.Errorf("%+v", v)
		}
		if r := p.progress.ratio(); r < ratio {
			t.Errorf("the ratio fell from %v to %v", ratio, r)
		} else {
			ratio = r
		}
	}
	begin := func(i int, lacks uint64, phase string) {
		p.now.feed = ids[i]
		p.reach(ids[i], lacks, phase, c.now)
	}
	want(0, 10_000, PhaseLoading, 0, 0)
	begin(0, 1000, PhaseLoading)
	c.after(time.Second)
	p.come(500, 5000, c.now)
	want(500, 10_000, PhaseLoading, 500, 19)
	begin(1, 5000, PhaseComparing) // of the first half was superseded
	want(500, 9500, PhaseComparing, 0, 0)
	c.after(time.Second)
	begin(1, 100, PhaseLoading) // and so little differs
	want(500, 4600, PhaseLoading, 0, 0)
	c.after(2 * time.Second)
	p.come(200, 2000, c.now) // more than was expected
	want(700, 4700, PhaseLoading, 100, 40)
	begin(2, 4000, PhaseLoading)
	c.after(2 * time.Second)
	p.come(4000, 40_000, c.now)
	want(4700, 4700, PhaseLoading, 1050, 0)
	if v := p.progress.over(c.now); v.Phase != PhaseDone || v.Done != 4700 || v.Total != 4700 || v.Rate != 4700./6 || v.ETASeconds != 0 {
		t.Errorf("over: %+v", v)
	}
}

// A snapshot goes through its phases; only while entries come there is a rate.
func TestSnapshotProgress(t *testing.T) {
	c := clock{time.Unix(1e9, 0)}
	p := newProgress(PhasePreparing, 1000, c.now)
	if v := p.view(c.after(time.Second)); !reflect.DeepEqual(v, Progress{Phase: PhasePreparing, Total: 1000}) {
		t.Errorf("%+v", v)
	}
	p.snapshot(snapshot.Progress{Phase: snapshot.Loading, Total: 900, Of: 9000}, c.after(time.Second))
	p.snapshot(snapshot.Progress{Phase: snapshot.Loading, Records: 300, Total: 900, Bytes: 3000, Of: 9000}, c.after(time.Second))
	if v := p.view(c.now); !reflect.DeepEqual(v, Progress{Phase: PhaseLoading, Done: 300, Total: 900, Bytes: 3000, TotalBytes: 9000, Rate: 300, ETASeconds: 2}) {
		t.Errorf("%+v", v)
	}
	p.snapshot(snapshot.Progress{Phase: snapshot.Installing, Records: 900, Total: 900, Bytes: 9000, Of: 9000}, c.after(time.Second))
	if v := p.view(c.now); !reflect.DeepEqual(v, Progress{Phase: PhaseInstalling, Done: 900, Total: 900, Bytes: 9000, TotalBytes: 9000}) {
		t.Errorf("%+v", v)
	}
}

// A file is read twice: what was verified does not count as loaded.
func TestImportProgress(t *testing.T) {
	c := clock{time.Unix(1e9, 0)}
	p := newProgress(PhaseVerifying, 0, c.now)
	for _, phase := range []snapshot.Phase{snapshot.Verifying, snapshot.Loading} {
		p.snapshot(snapshot.Progress{Phase: phase, Total: 900, Of: 9000}, c.after(time.Second))
		if v := p.view(c.after(time.Second)); v.Done != 0 || v.Rate != 0 || v.Total != 900 {
			t.Errorf("at first %+v", v)
		}
		p.snapshot(snapshot.Progress{Phase: phase, Records: 300, Total: 900, Bytes: 3000, Of: 9000}, c.after(time.Second))
		if v := p.view(c.now); v.Phase != string(phase) || v.Done != 300 || v.ETASeconds < 4 || v.ETASeconds > 6 {
			t.Errorf("%+v", v)
		}
	}
}

// Of many entries each phase and each tenth is told, of few nothing, unless it takes long.
func TestProgressDue(t *testing.T) {
	c := clock{time.Unix(1e9, 0)}
	run := func(total uint64, each time.Duration) (told int) {
		p := newProgress(PhaseLoading, total, c.now)
		for i := range total + 1 {
			p.at(i, total-i, 0, c.after(each))
			if p.due(100, c.now) {
				told++
			}
			if p.due(100, c.now) {
				t.Errorf("told twice of %d", i)
			}
		}
		return told
	}
	for _, x := range []struct {
		total uint64
		each  time.Duration
		want  int
	}{
		{1000, time.Millisecond, 11}, {101, time.Millisecond, 11}, {100, time.Millisecond, 0}, {3, 25 * time.Second, 2}, {0, time.Hour, 1},
	} {
		if got := run(x.total, x.each); got != x.want {
			t.Errorf("%d, one in %v: told %d times, want %d", x.total, x.each, got, x.want)
		}
	}
}

func TestSumOfProgress(t *testing.T) {
	if got := sum(nil); got != (Progress{}) {
		t.Errorf("of none: %+v", got)
	}
	got := sum([]Progress{
		{Phase: PhaseLoading, Done: 10, Total: 110, Bytes: 5, TotalBytes: 50, Rate: 10, ETASeconds: 10},
		{Phase: PhaseComparing, Done: 0, Total: 300},
		{Phase: PhaseInstalling, Done: 7, Total: 7, Bytes: 7, TotalBytes: 7},
	})
	if want := (Progress{Phase: PhaseComparing, Done: 17, Total: 417, Bytes: 12, TotalBytes: 57, Rate: 10, ETASeconds: 40}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// What was said would be done is what is done: a snapshot where nothing is held, pages of little, bulk of much, by
// the thresholds of this device.
func TestPlanIsWhatHappens(t *testing.T) {
	a, b := start(t, t.TempDir(), "a"), startAs(t, Config{Home: t.TempDir(), Name: "b", Thresholds: Thresholds{Push: 2, Bulk: 20, Snapshot: 40}})
	b.joins(a)
	await(t, "in step", inStep(a, b))
	folder := t.TempDir()
	loc := a.index(folder) // empty, and known
	id := locationFeed(a.self, loc)
	await(t, "the location", func() bool { return b.follows(id) })
	counted := map[string]uint64{}
	for _, x := range []struct {
		files     int
		want, why string
	}{
		{60, StrategySnapshot, "0 entries are held, 61 are lacking"},
		{10, StrategyPages, "at most 20; delta: position"},
		{30, StrategyBulk, "more than 20; delta: position"},
	} {
		if err := a.indexer.Rescan(t.Context(), loc); err != nil { // or a change of the folder itself comes late
			t.Fatal(err)
		}
		if st, _ := a.store.State(id); st.Settled != nil {
			await(t, "in step before", inStep(a, b))
		}
		if _, err := b.Pause(t.Context(), "", 0); err != nil {
			t.Fatal(err)
		}
		fillFolder(t, filepath.Join(folder, x.want), x.files)
		if err := a.indexer.Rescan(t.Context(), loc); err != nil {
			t.Fatal(err)
		}
		await(t, "word of it", func() bool { return b.shownAll(a) })
		p, err := b.SyncPlan(t.Context(), "")
		i := slices.IndexFunc(p.Feeds, func(f FeedPlan) bool { return f.Feed == id.String() })
		if err != nil || p.Paused == "" || i < 0 || p.Feeds[i].Strategy != x.want || !strings.Contains(p.Feeds[i].Reason, x.why) || p.Feeds[i].DonorName != "a" {
			t.Fatalf("plan %+v, %v; want %s", p, err, x.want)
		}
		if p.Thresholds != (Thresholds{Push: 2, Bulk: 20, Snapshot: 40}) {
			t.Errorf("by %+v", p.Thresholds)
		}
		if _, err := b.Resume(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		await(t, "all of it", inStep(a, b))
		counted[x.want]++
		var last eventlog.StrategySelected
		await(t, "the choice", func() bool {
			for _, e := range b.logged(last.Type()) {
				var d eventlog.StrategySelected
				if err := json.Unmarshal(e.Details, &d); err != nil {
					t.Fatal(err)
				}
				if d.Feed == id.String() || d.Feed == StrategySnapshot {
					last = d
				}
			}
			return last.Strategy == x.want
		})
		got := b.metrics.Snapshot(time.Now()).Operations.Strategies
		for name, n := range counted {
			if name != StrategyPages && got[name] != n || got[name] < n { // the device feed came by pages too
				t.Errorf("counted %v, want %v", got, counted)
			}
		}
	}
}

// What the owner is expected to push is planned as that, until the push has failed to come.
func TestPlanOfPush(t *testing.T) {
	a, b, _, _, loc := pair(t)
	id := locationFeed(a.self, loc)
	st, _ := b.store.State(id)
	st.Best.Seq++
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.lacks, id)
	was := b.peers[a.self].heads[id]
	b.peers[a.self].heads[id] = protocol.HeadInfo{Settled: &st.Best, Best: st.Best}
	defer func() { b.peers[a.self].heads[id] = was }()
	plan := func() FeedPlan { return b.planFeed(st, backfill.Elect(now, b.candidates([]feed.State{st})), now) }
	if f := plan(); f.Strategy != StrategyPush || f.DonorName != "a" || f.Road != "" || f.Reason != "up to 1 lacking: its owner is connected, and pushes up to 100" {
		t.Errorf("%+v", f)
	}
	b.lacks[id] = lack{settled: st.Settled.Seq, since: now.Add(-pushGrace)}
	defer delete(b.lacks, id)
	if f := plan(); f.Strategy != StrategyPages || f.DonorName != "a" || f.Road != "delta" || f.Reason != "up to 1 lacking: at most 10,000; delta: position" {
		t.Errorf("%+v", f)
	}
}

// shownAll reports whether o has told r where it is settled on each of its feeds, and r has taken that for the best.
func (r *running) shownAll(o *running) bool {
	for _, st := range o.store.States() {
		if st.Feed.Device != o.self {
			continue
		}
		if seen, _ := r.store.State(st.Feed); st.Settled == nil || seen.Best != *st.Settled {
			return false
		}
		r.mu.Lock()
		at := r.peers[o.self].heads[st.Feed].Settled
		r.mu.Unlock()
		if at == nil || *at != *st.Settled {
			return false
		}
	}
	return true
}

// Thresholds that contradict each other are refused, and nothing is made.
func TestThresholds(t *testing.T) {
	if got := (Thresholds{}).withDefaults(); got != (Thresholds{Push: 100, Bulk: 10_000, Snapshot: 10_000}) {
		t.Errorf("defaults %+v", got)
	}
	if got := (Thresholds{Bulk: 50}).withDefaults(); got != (Thresholds{Push: 50, Bulk: 50, Snapshot: 50}) {
		t.Errorf("of few %+v", got)
	}
	for _, x := range []struct {
		in   Thresholds
		says string
	}{
		{Thresholds{}, ""}, {Thresholds{Push: 1000, Bulk: 1000, Snapshot: 1}, ""},
		{Thresholds{Push: 1001}, "at most 1,000 changes, not 1,001"}, {Thresholds{Push: 51, Bulk: 50}, "much at once (50)"},
	} {
		switch err := x.in.Check(); {
		case x.says == "" && err != nil:
			t.Errorf("%+v: %v", x.in, err)
		case x.says != "":
			p, ok := err.(*Problem)
			if !ok || p.Code != CodeUsage || !strings.Contains(p.Cause, x.says) || p.Try == "" {
				t.Errorf("%+v: %+v", x.in, err)
			}
			home := t.TempDir()
			if _, err := Open(Config{Home: home + "/new", Thresholds: x.in}); err == nil {
				t.Errorf("%+v opens a node", x.in)
			}
		}
	}
}
