package node

import (
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/record"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Every edge of a link's states, with the time it was entered.
func TestLinkEdges(t *testing.T) {
	id := feed.ID{Location: record.LocationID{1}}
	at := func(seq uint64) *feed.Head { return &feed.Head{Feed: id, Seq: seq} }
	settled := func(h *feed.Head, followed bool) func(feed.ID) (*feed.Head, bool) {
		return func(feed.ID) (*feed.Head, bool) { return h, followed }
	}
	lacks := func(l *link) {
		l.opened(noon)
		l.told(map[feed.ID]feed.Head{id: {Feed: id, Seq: 7}})
	}
	for name, c := range map[string]struct {
		before func(*link)
		event  func(*link, time.Time)
		state  string
		moved  bool
	}{
		"dial":                       {func(*link) {}, func(l *link, now time.Time) { l.dialing(now) }, LinkConnecting, true},
		"dial fails":                 {func(l *link) { l.dialing(noon) }, func(l *link, now time.Time) { l.failed(now, "refused") }, LinkDisconnected, true},
		"dial opens":                 {func(l *link) { l.dialing(noon) }, func(l *link, now time.Time) { l.opened(now) }, LinkSyncing, true},
		"it dials us":                {func(*link) {}, func(l *link, now time.Time) { l.opened(now) }, LinkSyncing, true},
		"dial is not taken up":       {func(l *link) { l.dialing(noon) }, func(l *link, now time.Time) { l.closed(now) }, LinkDisconnected, true},
		"another session takes over": {func(l *link) { l.opened(noon) }, func(l *link, now time.Time) { l.opened(now) }, LinkSyncing, false},
		"nothing told yet":           {func(l *link) { l.opened(noon) }, func(l *link, now time.Time) { l.look(now, settled(at(9), true)) }, LinkSyncing, false},
		"nothing lacks":              {func(l *link) { l.opened(noon); l.told(map[feed.ID]feed.Head{}) }, func(l *link, now time.Time) { l.look(now, settled(nil, true)) }, LinkConnected, true},
		"lacks still":                {lacks, func(l *link, now time.Time) { l.look(now, settled(at(6), true)) }, LinkSyncing, false},
		"unsettled":                  {lacks, func(l *link, now time.Time) { l.look(now, settled(nil, true)) }, LinkSyncing, false},
		"settled":                    {lacks, func(l *link, now time.Time) { l.look(now, settled(at(7), true)) }, LinkConnected, true},
		"settled beyond":             {lacks, func(l *link, now time.Time) { l.look(now, settled(at(8), true)) }, LinkConnected, true},
		"no longer followed":         {lacks, func(l *link, now time.Time) { l.look(now, settled(nil, false)) }, LinkConnected, true},
		"told again": {func(l *link) {
			lacks(l)
			l.look(noon, settled(at(7), true))
			l.told(map[feed.ID]feed.Head{id: {Feed: id, Seq: 9}})
		}, func(l *link, now time.Time) { l.look(now, settled(at(7), true)) }, LinkConnected, false},
		"ends while syncing":   {lacks, func(l *link, now time.Time) { l.closed(now) }, LinkDisconnected, true},
		"ends when connected":  {func(l *link) { lacks(l); l.look(noon, settled(at(7), true)) }, func(l *link, now time.Time) { l.closed(now) }, LinkDisconnected, true},
		"looked at when apart": {func(*link) {}, func(l *link, now time.Time) { l.look(now, settled(at(9), true)) }, LinkDisconnected, false},
	} {
		l := newLink(noon)
		c.before(&l)
		later := noon.Add(time.Hour)
		c.event(&l, later)
		since := noon
		if c.moved {
			since = later
		}
		if l.state != c.state || !l.since.Equal(since) {
			t.Errorf("%s: %s since %v, want %s since %v", name, l.state, l.since, c.state, since)
		}
	}
}

// Failures wait one second, doubled up to a minute, and up to a quarter more; a session forgets them; a kick
// makes the next attempt due at once; nobody is dialed who is being dialed or is there.
func TestLinkBackoff(t *testing.T) {
	l := newLink(noon)
	if !l.due(noon) {
		t.Error("a new peer is not due")
	}
	want := time.Second
	for i := 1; i <= 70; i++ {
		l.dialing(noon)
		if l.due(noon.Add(time.Hour)) {
			t.Fatal("dialed twice at once")
		}
		l.failed(noon, "refused")
		if l.failures != i || l.lastErr != "refused" {
			t.Fatalf("failure %d: %+v", i, l)
		}
		if wait := l.retryAt.Sub(noon); wait < want || wait >= want+want/4 {
			t.Fatalf("failure %d waits %v, want %v and up to a quarter more", i, wait, want)
		}
		if l.due(l.retryAt.Add(-1)) || !l.due(l.retryAt) {
			t.Fatalf("failure %d: not due exactly at %v", i, l.retryAt)
		}
		want = min(2*want, time.Minute)
	}
	l.kick()
	if !l.due(noon) {
		t.Error("kicked and not due")
	}
	l.dialing(noon)
	l.opened(noon)
	if l.failures != 0 || l.lastErr != "" || l.due(noon.Add(time.Hour)) {
		t.Errorf("after a session: %+v", l)
	}
	l.closed(noon)
	if wait := l.retryAt.Sub(noon); wait < 0 || wait >= time.Second/4 {
		t.Errorf("dialed again after %v", wait)
	}
	shunned := noon.Add(10 * time.Minute)
	l = newLink(noon)
	l.opened(noon)
	l.retryAt = shunned
	l.closed(noon)
	if !l.retryAt.Equal(shunned) {
		t.Errorf("the end of a session shortens a longer wait to %v", l.retryAt)
	}
}

// The state follows from what is known, in this order: paused, alone, never settled, behind, nothing yet.
func TestDecideState(t *testing.T) {
	head := func(seq uint64) feed.Head { return feed.Head{Seq: seq} }
	behind := func(servable bool) feedSituation {
		h := head(5)
		return feedSituation{state: feed.State{Settled: &h, Floor: h, Best: head(9)}, servable: servable}
	}
	cut := feedSituation{state: feed.State{Floor: head(5), Best: head(9), Cursor: &feed.Cursor{Seq: 6}}, servable: true}
	never := func(servable bool) feedSituation {
		return feedSituation{state: feed.State{Best: head(9)}, servable: servable}
	}
	for name, c := range map[string]struct {
		in     situation
		state  string
		reason string
	}{
		"paused":               {situation{paused: "by a person", others: 2, online: 2, feeds: []feedSituation{behind(true)}}, StatePaused, "by a person"},
		"put out":              {situation{out: true, paused: "by a person", others: 1, everSettled: true}, StatePaused, "this device was put out of the library: the others refuse it"},
		"paused alone":         {situation{paused: "the disk is almost full"}, StatePaused, "the disk is almost full"},
		"alone":                {situation{}, StateReady, "no other devices"},
		"nobody reached":       {situation{others: 1}, StateUninitialized, "no other device reached yet"},
		"reached, no heads":    {situation{others: 1, online: 1}, StateUninitialized, "nothing received yet"},
		"first feed":           {situation{others: 1, online: 1, feeds: []feedSituation{never(true)}}, StateBackfilling, "1 feed never settled here"},
		"a new one among old":  {situation{others: 1, online: 1, everSettled: true, feeds: []feedSituation{behind(true), never(true)}}, StateBackfilling, "1 feed never settled here"},
		"behind":               {situation{others: 1, online: 1, everSettled: true, feeds: []feedSituation{behind(true)}}, StateCatchingUp, "1 feed behind"},
		"cut":                  {situation{others: 1, online: 1, everSettled: true, feeds: []feedSituation{cut, behind(true)}}, StateCatchingUp, "2 feeds behind"},
		"nobody can serve":     {situation{others: 1, online: 1, everSettled: true, feeds: []feedSituation{behind(false), never(false)}}, StateReady, "settled at every head that anyone reachable can serve"},
		"nobody reachable":     {situation{others: 1, everSettled: true, feeds: []feedSituation{behind(false)}}, StateReady, "no other device is connected"},
		"never, nobody serves": {situation{others: 1, online: 1, feeds: []feedSituation{never(false)}}, StateUninitialized, "nothing received yet"},
	} {
		if state, reason := decideState(c.in); state != c.state || reason != c.reason {
			t.Errorf("%s: %s, %q; want %s, %q", name, state, reason, c.state, c.reason)
		}
	}
	p := phase{state: StateReady, reason: "a", since: noon}
	if q, changed := p.step(StateReady, "b", noon.Add(1)); changed || q != (phase{StateReady, "b", noon}) {
		t.Errorf("same state: %+v, %v", q, changed)
	}
	if q, changed := p.step(StatePaused, "b", noon.Add(1)); !changed || q != (phase{StatePaused, "b", noon.Add(1)}) {
		t.Errorf("new state: %+v, %v", q, changed)
	}
}

// Somebody on the network who pretends all the time that a device has come back makes this one dial it every
// ten seconds, no more.
func TestLinkSighted(t *testing.T) {
	l := newLink(noon)
	l.sighted(noon, yield)
	if !l.due(noon) {
		t.Error("an announcement put off a dial that was due")
	}
	dials := 0
	for at := noon; at.Before(noon.Add(time.Hour)); at = at.Add(100 * time.Millisecond) {
		l.sighted(at, 0)
		if l.due(at) {
			dials++
			l.dialing(at)
			l.failed(at, "refused")
		}
	}
	if dials < 60 || dials > 60*60/10+10 {
		t.Errorf("%d dials in an hour", dials)
	}
	l = newLink(noon)
	for range 10 {
		l.failed(noon, "refused")
	}
	l.sighted(noon.Add(time.Second), yield)
	if l.due(noon.Add(time.Second)) || !l.due(noon.Add(time.Second+yield)) {
		t.Errorf("not due after %v: %v", yield, l.retryAt.Sub(noon))
	}
}
