package node

import (
	"testing"
	"time"

	"peerdex/feed"
)

// What is decided about the entries that a location lacks, and why.
func TestDecideFetch(t *testing.T) {
	const bulk = 100
	for what, c := range map[string]struct {
		in            fetchCase
		decision, why string
	}{
		"eager, a little":                 {fetchCase{policy: FetchEager, lacks: 1}, DecideFetch, "eager"},
		"eager, much":                     {fetchCase{policy: FetchEager, lacks: 1e6, room: 1e9}, DecideFetch, "eager"},
		"eager, much, room not known":     {fetchCase{policy: FetchEager, lacks: 1e6}, DecideFetch, "eager"},
		"eager, much, little room":        {fetchCase{policy: FetchEager, lacks: 1e6, room: 1e8}, DecideRefuse, "disk_low"},
		"eager, a little, no room":        {fetchCase{policy: FetchEager, lacks: bulk, room: 1}, DecideFetch, "eager"},
		"eager, in step, no room":         {fetchCase{policy: FetchEager, settled: true, room: 1}, DecideInStep, "in_step"},
		"lazy":                            {fetchCase{policy: FetchLazy, lacks: 1}, DecideOnDemand, "lazy"},
		"lazy, no room":                   {fetchCase{policy: FetchLazy, lacks: 1e6, room: 1}, DecideOnDemand, "lazy"},
		"lazy, and asked for":             {fetchCase{policy: FetchLazy, lacks: 1e6, asked: 1e6}, DecideOnDemand, "lazy"},
		"metered, as much as may be":      {fetchCase{policy: FetchMetered, lacks: bulk}, DecideFetch, "metered_small"},
		"metered, one more":               {fetchCase{policy: FetchMetered, lacks: bulk + 1}, DecideWait, "metered_large"},
		"metered, one more since an hour": {fetchCase{policy: FetchMetered, lacks: 1, recent: bulk}, DecideWait, "metered_large"},
		"metered, much, asked for":        {fetchCase{policy: FetchMetered, lacks: 1e6, asked: 1e6, room: 1e9}, DecideFetch, "asked_for"},
		"metered, and a little more":      {fetchCase{policy: FetchMetered, lacks: 1e6 + bulk, asked: 1e6}, DecideFetch, "asked_for"},
		"metered, and much more":          {fetchCase{policy: FetchMetered, lacks: 1e6 + bulk + 1, asked: 1e6}, DecideWait, "metered_large"},
		"metered, asked for, no room":     {fetchCase{policy: FetchMetered, lacks: 1e6, asked: 1e6, room: 1e8}, DecideRefuse, "disk_low"},
		"metered, in step":                {fetchCase{policy: FetchMetered, settled: true, recent: 1e6}, DecideInStep, "in_step"},
	} {
		c.in.bulk = bulk
		if decision, why := decideFetch(c.in); decision != c.decision || why != c.why {
			t.Errorf("%s: %s, %s; want %s, %s", what, decision, why, c.decision, c.why)
		}
	}
}

func TestStrategy(t *testing.T) {
	for _, c := range []struct {
		lacks  uint64
		pushed bool
		want   string
	}{
		{1, true, StrategyPush}, {1, false, StrategyPages}, {100, true, StrategyPush}, {5_000, false, StrategyPages},
		{10_000, false, StrategyPages}, {10_001, false, StrategyBulk}, {200_000, false, StrategyBulk},
	} {
		if got, why := strategy(c.lacks, Thresholds{}.withDefaults(), c.pushed); got != c.want || why == "" {
			t.Errorf("%d, pushed %v: %s (%s), want %s", c.lacks, c.pushed, got, why, c.want)
		}
	}
}

// What came within an hour adds up, but for what a person asked for.
func TestMeter(t *testing.T) {
	now := time.Unix(1e9, 0)
	m := meter{since: now, at: 1000}
	for _, c := range []struct {
		after time.Duration
		at    uint64
		asked uint64
		want  uint64
	}{
		{0, 1000, 0, 0},
		{time.Minute, 1500, 0, 500},
		{59 * time.Minute, 1900, 0, 900},
		{59 * time.Minute, 5000, 4900, 100}, // up to 4,900 were asked for
		{59 * time.Minute, 4000, 9000, 0},   // on its way to what was asked for
		{time.Hour, 5000, 4900, 0},          // another hour begins
		{time.Hour + time.Minute, 5100, 0, 100},
		{time.Minute, 5100, 0, 0}, // the clock was set back
	} {
		m.asked = c.asked
		if got := m.look(now.Add(c.after), c.at); got != c.want {
			t.Errorf("after %v at %d: %d, want %d", c.after, c.at, got, c.want)
		}
	}
}

// How far a feed reaches that is held in part, and what counts as held.
func TestHeldSeq(t *testing.T) {
	settled := feed.Head{Seq: 7}
	for _, c := range []struct {
		st  feed.State
		seq uint64
		any bool
	}{
		{feed.State{Best: feed.Head{Seq: 9}}, 0, false},
		{feed.State{Settled: &settled, Best: feed.Head{Seq: 9}}, 7, true},
		{feed.State{Cursor: &feed.Cursor{Seq: 5}, Count: 5}, 5, true},
		{feed.State{Count: 1}, 0, true},
		{feed.State{Floor: settled}, 0, true},
		{feed.State{Floor: settled, Count: 5}, 7, true},
		{feed.State{Floor: settled, Count: 5, Cursor: &feed.Cursor{Seq: 8}}, 8, true},
	} {
		if got := heldSeq(c.st); got != c.seq || holdsAny(c.st) != c.any {
			t.Errorf("%+v: %d, %v", c.st, got, holdsAny(c.st))
		}
	}
}
