package backfill

import (
	"bytes"
	"slices"
	"time"

	"peerdex/internal/mutant"
	"peerdex/record"
)

// failureMemory is how long a failed session weighs on a donor's score.
const failureMemory = 10 * time.Minute

// Candidate is a peer that could serve what is wanted, with everything its score is made of.
type Candidate struct {
	Device      record.DeviceID
	Online      bool
	Complete    float64       // share of the wanted heads it is settled at, 0 to 1
	Latency     time.Duration // smoothed round trip
	ActiveSyncs int           // sessions it serves or runs, as it last reported
	Failed      time.Time     // when a session with it last failed; zero: never
}

// Score returns 100·online + 50·complete − latency_ms/10 − 10·active_syncs, less 40 for ten minutes after
// a failure (replication rules, donor election).
func (c Candidate) Score(now time.Time) float64 {
	score := 50*c.Complete - float64(c.Latency.Microseconds())/1e4 - 10*float64(c.ActiveSyncs)
	if c.Online {
		score += 100
	}
	if c.Lately(now) {
		score -= 40
	}
	return score
}

// Lately reports whether a session with it failed so lately that it weighs on its score.
func (c Candidate) Lately(now time.Time) bool {
	return !c.Failed.IsZero() && now.Sub(c.Failed) < failureMemory && !mutant.Is("failure_forgotten")
}

// Elect orders candidates from best to worst, ties by device ID. Those that are away or can serve
// nothing stay in the list, last, so that a report can show them.
func Elect(now time.Time, candidates []Candidate) []Candidate {
	out := slices.Clone(candidates)
	able := func(c Candidate) bool { return c.Online && c.Complete > 0 }
	slices.SortFunc(out, func(a, b Candidate) int {
		if able(a) != able(b) {
			if able(a) {
				return -1
			}
			return 1
		}
		if x, y := a.Score(now), b.Score(now); x != y {
			if x > y {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.Device[:], b.Device[:])
	})
	return out
}
