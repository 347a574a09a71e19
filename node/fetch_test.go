package node

import (
	"testing"
	"time"

	"peerdex/feed"
)

// What is decided about the entries that a location lacks, and why.
func TestDecideEntries(t *testing.T) {
	const bulk = 100
	for what, c := range map[string]struct {
		in            FetchCase
		decision, why string
	}{
		"eager, a little":                 {FetchCase{Policy: FetchEager, Lacks: 1}, DecideFetch, "eager"},
		"eager, much":                     {FetchCase{Policy: FetchEager, Lacks: 1e6, Room: 1e9}, DecideFetch, "eager"},
		"eager, much, room not known":     {FetchCase{Policy: FetchEager, Lacks: 1e6}, DecideFetch, "eager"},
		"eager, much, little room":        {FetchCase{Policy: FetchEager, Lacks: 1e6, Room: 1e8}, DecideRefuse, "disk_low"},
		"eager, a little, no room":        {FetchCase{Policy: FetchEager, Lacks: bulk, Room: 1}, DecideFetch, "eager"},
		"eager, in step, no room":         {FetchCase{Policy: FetchEager, Settled: true, Room: 1}, DecideInStep, "in_step"},
		"lazy":                            {FetchCase{Policy: FetchLazy, Lacks: 1}, DecideOnDemand, "lazy"},
		"lazy, no room":                   {FetchCase{Policy: FetchLazy, Lacks: 1e6, Room: 1}, DecideOnDemand, "lazy"},
		"lazy, and asked for":             {FetchCase{Policy: FetchLazy, Lacks: 1e6, Asked: 1e6}, DecideOnDemand, "lazy"},
		"metered, as much as may be":      {FetchCase{Policy: FetchMetered, Lacks: bulk}, DecideFetch, "metered_small"},
		"metered, one more":               {FetchCase{Policy: FetchMetered, Lacks: bulk + 1}, DecideWait, "metered_large"},
		"metered, one more since an hour": {FetchCase{Policy: FetchMetered, Lacks: 1, Recent: bulk}, DecideWait, "metered_large"},
		"metered, much, asked for":        {FetchCase{Policy: FetchMetered, Lacks: 1e6, Asked: 1e6, Room: 1e9}, DecideFetch, "asked_for"},
		"metered, and a little more":      {FetchCase{Policy: FetchMetered, Lacks: 1e6 + bulk, Asked: 1e6}, DecideFetch, "asked_for"},
		"metered, and much more":          {FetchCase{Policy: FetchMetered, Lacks: 1e6 + bulk + 1, Asked: 1e6}, DecideWait, "metered_large"},
		"metered, asked for, no room":     {FetchCase{Policy: FetchMetered, Lacks: 1e6, Asked: 1e6, Room: 1e8}, DecideRefuse, "disk_low"},
		"metered, in step":                {FetchCase{Policy: FetchMetered, Settled: true, Recent: 1e6}, DecideInStep, "in_step"},
	} {
		c.in.Bulk = bulk
		if decision, why := DecideEntries(c.in); decision != c.decision || why != c.why {
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
