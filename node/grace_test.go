package node

import (
	"testing"
	"time"

	"peerdex/feed"
)

// A small change is left to its owner for a moment, and pulled when no push can be expected, none has come,
// or one came and did not fit.
func TestGraceLeft(t *testing.T) {
	now := time.Unix(1e9, 0)
	at := func(seq, gc uint64) feed.Head { return feed.Head{Seq: seq, GC: gc} }
	settled := func(here, best feed.Head) feed.State {
		return feed.State{Settled: &here, Floor: here, Best: best, Count: 5}
	}
	fresh := lack{since: now}
	for what, c := range map[string]struct {
		st      feed.State
		reached bool
		lack    lack
		want    time.Duration
	}{
		"just seen":                   {settled(at(5, 0), at(6, 0)), true, fresh, pushGrace},
		"nearly over":                 {settled(at(5, 0), at(6, 0)), true, lack{since: now.Add(1 - pushGrace)}, 1},
		"over":                        {settled(at(5, 0), at(6, 0)), true, lack{since: now.Add(-pushGrace)}, 0},
		"long over":                   {settled(at(5, 0), at(6, 0)), true, lack{since: now.Add(-time.Hour)}, 0},
		"the push did not fit":        {settled(at(5, 0), at(6, 0)), true, lack{}, 0},
		"the owner is away":           {settled(at(5, 0), at(6, 0)), false, fresh, 0},
		"as much as is pushed":        {settled(at(5, 0), at(105, 0)), true, fresh, pushGrace},
		"more":                        {settled(at(5, 0), at(106, 0)), true, fresh, 0},
		"collected beyond":            {settled(at(5, 0), at(9, 6)), true, fresh, 0},
		"never held":                  {feed.State{Best: at(100, 0)}, true, fresh, pushGrace},
		"never held, and much":        {feed.State{Best: at(101, 0)}, true, fresh, 0},
		"cut off":                     {feed.State{Best: at(6, 0), Floor: at(5, 0), Count: 5}, true, fresh, 0},
		"cut off at the very first":   {feed.State{Best: at(6, 0), Count: 3}, true, fresh, 0},
		"let go, and its floor stays": {feed.State{Best: at(6, 0), Floor: at(5, 0)}, true, fresh, 0},
	} {
		if got := graceLeft(c.st, c.reached, c.lack, 100, now); got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

// What was waited for since a moment is waited for anew only once the feed has got on.
func TestNoteLacks(t *testing.T) {
	n := &Node{}
	one, other := feed.ID{Location: [16]byte{1}}, feed.ID{Location: [16]byte{2}}
	at := func(id feed.ID, seq uint64) feed.State {
		return feed.State{Feed: id, Settled: &feed.Head{Seq: seq}, Best: feed.Head{Seq: 100}}
	}
	first := time.Unix(1e9, 0)
	since := func(now time.Time, id feed.ID, lacking ...feed.State) time.Time {
		n.noteLacks(lacking, now)
		return n.lacks[id].since
	}
	if got := since(first, one, at(one, 5)); !got.Equal(first) {
		t.Error(got)
	}
	if got := since(first.Add(1), one, at(one, 5), at(other, 7)); !got.Equal(first) {
		t.Errorf("seen again: %v", got)
	}
	if got := since(first.Add(2), one, at(one, 6), at(other, 7)); !got.Equal(first.Add(2)) || !n.lacks[other].since.Equal(first.Add(1)) {
		t.Errorf("one has got on: %v, %v", got, n.lacks[other])
	}
	if since(first.Add(3), one, at(one, 6)); len(n.lacks) != 1 {
		t.Errorf("in step, and still there: %v", n.lacks)
	}
}

// The owner's push wins over the pull when a device comes back to a small change: it comes once.
func TestPushWinsAtReconnect(t *testing.T) {
	t.Parallel()
	a, b, _, folder, loc := pair(t)
	home := string(b.home)
	b.stop()
	for _, name := range []string{"two", "three", "four"} {
		touch(t, folder, name)
	}
	await(t, "A has the files", func() bool { return len(a.names(a.self, loc)) == 4 })
	b = start(t, home, "b")
	await(t, "the files at B", func() bool { return len(b.names(a.self, loc)) == 4 && inStep(a, b)() })
	m := b.metrics.Snapshot(time.Now()).Operations
	if m.Received.By["live"] != m.Received.Total || m.Processed.By["applied"] != m.Processed.Total {
		t.Errorf("received %v, processed %v", m.Received.By, m.Processed.By)
	}
}
