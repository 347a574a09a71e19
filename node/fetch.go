package node

import (
	"cmp"
	"fmt"

	"peerdex/internal/english"
	"peerdex/internal/mutant"
	"peerdex/statebatch"
)

// Fetch says whether the entries of another device's location are kept here. It is a fact of this device alone.
type Fetch string

// Policies.
const (
	FetchEager   Fetch = "eager"   // all entries are kept, and followed; what holds if nobody said otherwise
	FetchLazy    Fetch = "lazy"    // by head only: no entry is kept, and whoever is settled is asked when a person asks
	FetchMetered Fetch = "metered" // as eager, but much at once waits for a person
)

// Fetches is every policy.
var Fetches = []Fetch{FetchEager, FetchLazy, FetchMetered}

// Decisions about the entries that a location lacks here. Closed set.
const (
	DecideFetch    = "fetch"
	DecideOnDemand = "on_demand" // whoever is settled is asked when a person asks
	DecideWait     = "wait"      // until a person says so
	DecideRefuse   = "refuse"    // until there is room
	DecideInStep   = "in_step"   // nothing is lacking
	DecideIgnore   = "ignore"    // of what was announced: it is not known that there is such a location
)

// Why. Closed set; each goes with one decision.
const (
	whyEager   = "eager"
	whyLazy    = "lazy"
	whySmall   = "metered_small" // at most the bulk threshold
	whyLarge   = "metered_large"
	whyAsked   = "asked_for" // a person said so
	whyDisk    = "disk_low"
	whySettled = "in_step"
	whyUnknown = "unknown_location"
)

// FetchCase is what it is decided from whether the entries of a location are fetched.
type FetchCase struct {
	Policy  Fetch
	Settled bool   // at the best head known
	Lacks   uint64 // entries, at most
	Recent  uint64 // entries that came within the last meterWindow without being asked for
	Asked   uint64 // of those lacking, entries that a person wants
	Room    uint64 // bytes that may be written; zero: not known
	Bulk    uint64 // entries above which it is much at once
}

// entryOnDisk is about what an entry takes on disk, as package store lays it out: a little over 300 bytes
// with its keys, indexes and share of the tree.
const entryOnDisk = 320

// DecideEntries says what to do about the entries that a location lacks, and why.
func DecideEntries(c FetchCase) (decision, why string) {
	switch {
	case c.Settled:
		return DecideInStep, whySettled
	case c.Policy == FetchLazy && !mutant.Is("lazy_fetched"):
		return DecideOnDemand, whyLazy
	case c.Policy == FetchMetered && c.Lacks-min(c.Lacks, c.Asked)+c.Recent > c.Bulk:
		return DecideWait, whyLarge
	case c.Lacks > c.Bulk && c.Room > 0 && c.Lacks*entryOnDisk > c.Room:
		return DecideRefuse, whyDisk
	case c.Policy == FetchMetered && c.Asked > 0:
		return DecideFetch, whyAsked
	case c.Policy == FetchMetered:
		return DecideFetch, whySmall
	}
	return DecideFetch, whyEager
}

// Strategies to come into step. Closed set; they are a label of metrics.
const (
	StrategyPush  = "push"  // its owner pushes it, in one batch
	StrategyPages = "pages" // a delta or a tree diff
	StrategyBulk  = "bulk"  // the same, of so much that it is announced, and may be declined
	// StrategySnapshot: all at once, of so much, where little is held.
	StrategySnapshot = "snapshot"
)

// Thresholds say by how much that is lacking a strategy is chosen.
type Thresholds struct {
	Push     uint64 `json:"push"`     // seqs that an owner pushes at most in one batch; 0 means 100, or Bulk if that is less; the most is 1,000
	Bulk     uint64 `json:"bulk"`     // entries above which it is much at once: announced, and for a metered location waiting; 0 means 10,000
	Snapshot uint64 `json:"snapshot"` // entries above which a snapshot is fetched, where fewer are held; 0 means Bulk
}

// defaultBulk is how many entries are much at once.
const defaultBulk = 10_000

func (t Thresholds) withDefaults() Thresholds {
	t.Bulk = cmp.Or(t.Bulk, defaultBulk)
	t.Push, t.Snapshot = cmp.Or(t.Push, min(statebatch.DefaultNear, t.Bulk)), cmp.Or(t.Snapshot, t.Bulk)
	return t
}

// Check returns a *Problem if no choice can be made by t.
func (t Thresholds) Check() error {
	t = t.withDefaults()
	p := &Problem{Code: CodeUsage, Message: "thresholds do not fit together", Try: "peer start --push 100 --bulk 10000"}
	switch {
	case t.Push > statebatch.Limit:
		p.Cause = fmt.Sprintf("one push takes at most %s, not %s", english.Plural(statebatch.Limit, "change", "changes"), english.Count(t.Push))
	case t.Push > t.Bulk:
		p.Cause = fmt.Sprintf("what is pushed unannounced (%s) cannot be more than what is much at once (%s)", english.Count(t.Push), english.Count(t.Bulk))
	default:
		return nil
	}
	return p
}

// strategy names the way in which lacks entries come: pushed says that the owner is expected to push them.
func strategy(lacks uint64, t Thresholds, pushed bool) (name, why string) {
	switch {
	case pushed:
		return StrategyPush, "its owner is connected, and pushes up to " + english.Count(t.Push)
	case lacks <= t.Bulk:
		return StrategyPages, "at most " + english.Count(t.Bulk)
	}
	return StrategyBulk, "more than " + english.Count(t.Bulk)
}
