package feed

import (
	"time"

	"peerdex/internal/mutant"
	"peerdex/record"
)

// Cursor is where an interrupted delta stands (rule 10).
type Cursor struct {
	Seq  uint64 // entries up to here have been drawn
	GC   uint64 // the donor's gc when they were
	High uint64 // the highest head seq drawn from
}

// State is what a node knows of one feed it holds.
type State struct {
	Feed    ID
	Settled *Head   // the head whose root was recomputed from the entries held; nil: unsettled
	Cursor  *Cursor // of a delta that was cut; nil otherwise
	Floor   Head    // the last settled head; genesis if there was none
	Best    Head    // the highest head seen, signature checked
	Count   uint64  // entries held
}

// Lag returns the changes by which the node may be behind: an upper bound, since superseded entries
// vanish.
func (s State) Lag() uint64 {
	at := uint64(0)
	if s.Settled != nil {
		at = s.Settled.Seq
	}
	if s.Best.Seq <= at {
		return 0
	}
	return s.Best.Seq - at
}

// InStep reports whether the node is settled at the best head it has seen.
func (s State) InStep() bool { return s.Settled != nil && s.Settled.Compare(s.Best) >= 0 }

// Push says what to do with a pushed batch that continues prev and leads to next (rule 8).
type Push uint8

const (
	PushApply     Push = iota // apply it, in one transaction, if the root then matches
	PushKnown                 // nothing new in it
	PushUnsettled             // this node is not settled: the pull that settles it covers the batch
	PushGap                   // it does not continue the head held: pull
)

func (p Push) String() string {
	return [...]string{"apply", "known", "unsettled", "gap"}[p]
}

// DecidePush applies rule 8 to a node's state. prev is the head the entries continue.
func (s State) DecidePush(prev Head, next Head) Push {
	switch {
	case s.Settled == nil && s.Count == 0 && s.Floor.IsGenesis() && prev.IsGenesis() && Continues(prev, next):
		return PushApply // a feed never held is as good as settled at genesis
	case s.Settled == nil:
		return PushUnsettled
	case next.Compare(*s.Settled) <= 0:
		return PushKnown
	case !s.Settled.Same(prev) && !mutant.Is("push_noprev"), !Continues(prev, next):
		return PushGap
	}
	return PushApply
}

// Continues reports whether the entries of own after prev, put onto the live set of prev, give own's
// live set: what a sender may push to a peer settled at prev (rules 8 and 9).
func Continues(prev, own Head) bool {
	return prev.Seq < own.Seq && (own.GC <= prev.Seq || prev.IsGenesis())
}

// Road is the way a pull takes.
type Road uint8

const (
	RoadNone    Road = iota // nothing to get from this donor
	RoadDelta               // every entry after a position, in order
	RoadDiff                // walk both trees
	RoadBlocked             // the donor is below this node's floor (rule 18): try another
)

func (r Road) String() string { return [...]string{"none", "delta", "diff", "blocked"}[r] }

// Route is a road with where it begins and why it was chosen.
type Route struct {
	Road   Road
	From   uint64 // of a delta: the last seq held
	Reason string // closed set: in_step, below_floor, fork, position, cursor, empty, gc, interrupted
}

// DecideRoute chooses how to get from s to the head a donor is settled at (rules 9, 12, 18).
// orphaned allows a head below the floor (rule 17).
func (s State) DecideRoute(donor Head, orphaned bool) Route {
	if s.Settled != nil && donor.Compare(*s.Settled) <= 0 {
		return Route{Road: RoadNone, Reason: "in_step"}
	}
	if s.Settled == nil && donor.Compare(s.Floor) < 0 && !orphaned && !mutant.Is("accept_lower") {
		return Route{Road: RoadBlocked, Reason: "below_floor"}
	}
	var (
		from, reach uint64
		known       bool
		reason      = "interrupted"
	)
	switch {
	case s.Settled != nil:
		from, reach, known, reason = s.Settled.Seq, max(s.Settled.Seq, s.Settled.GC), true, "position"
	case s.Cursor != nil:
		from, reach, known, reason = s.Cursor.Seq, max(s.Cursor.Seq, s.Cursor.GC), true, "cursor"
	}
	if s.Count == 0 && (!known || donor.GC > reach) {
		from, reach, known, reason = 0, donor.GC, true, "empty"
	}
	switch {
	case !known:
		return Route{Road: RoadDiff, Reason: reason}
	case donor.Seq <= from:
		return Route{Road: RoadDiff, Reason: "fork"}
	case donor.GC > reach && !mutant.Is("delta_across_gc"):
		return Route{Road: RoadDiff, Reason: "gc"}
	}
	return Route{Road: RoadDelta, From: from, Reason: reason}
}

// Own says what an owner does about heads of its own feed that peers hold (rules 15 and 16).
type Own uint8

const (
	OwnIgnore Own = iota // all of them are its own past
	OwnAbsorb            // the peer is settled at one: take its entries, then sign above
	OwnJump              // nobody here holds the entries: only sign above
	OwnFreeze            // the same key is alive twice: stop writing and say so
)

func (o Own) String() string { return [...]string{"ignore", "absorb", "jump", "freeze"}[o] }

// OwnVerdict is an Own with the head that must be signed over.
type OwnVerdict struct {
	Own  Own
	Over Head // the unrecognised head: sign at a seq above it, onto its boot
}

// DecideOwn compares an owner's state with the heads a peer shows of that feed: settled, where it can
// serve from, and best. boot is the nonce of the owner's process. In the owner's state Settled is never
// nil once something was written.
func (s State) DecideOwn(boot uint64, settled *Head, best Head) OwnVerdict {
	at := Head{}
	if s.Settled != nil {
		at = *s.Settled
	}
	seen := []Head{best}
	if mutant.Is("owner_ignores_best") {
		seen = nil
	}
	if settled != nil {
		seen = append(seen, *settled)
	}
	var over Head
	absorb := false
	for _, h := range seen {
		if h.IsGenesis() {
			continue
		}
		if h.Boot != boot && h.Onto == boot && !mutant.Is("clone_unnoticed") {
			return OwnVerdict{Own: OwnFreeze, Over: h}
		}
		if h.Seq < at.Seq || h.Same(at) {
			continue
		}
		if settled != nil && h.Same(*settled) {
			absorb = true
		}
		if h.Compare(over) > 0 {
			over = h
		}
	}
	switch {
	case over.IsGenesis():
		return OwnVerdict{Own: OwnIgnore}
	case absorb:
		return OwnVerdict{Own: OwnAbsorb, Over: *settled}
	}
	return OwnVerdict{Own: OwnJump, Over: over}
}

// Rescue reports whether old must be emitted again in this device's own feed, because a transaction
// replaces it in another device's feed by next (nil: by nothing) and it outranks that at now, and all of
// others, the same register in other device feeds (rule 13).
func Rescue(now time.Time, old record.Register, next *record.Register, others []record.Register) bool {
	if next != nil && !old.Outranks(*next, now) {
		return false
	}
	for _, o := range others {
		if !old.Outranks(o, now) {
			return false
		}
	}
	return true
}
