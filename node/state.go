package node

import (
	"time"

	"peerdex/feed"
	"peerdex/internal/english"
)

// situation is what the sync state is decided from.
type situation struct {
	out         bool   // this device was put out of the library
	paused      string // why, or empty
	others      int    // members besides this device
	online      int    // of those, with a live session
	everSettled bool   // some feed of another device is settled, or was, here
	waiting     int    // followed locations whose entries wait for a person, or for room on the disk
	feeds       []feedSituation
}

// feedSituation is one followed feed of another device.
type feedSituation struct {
	state    feed.State
	servable bool // some reachable peer is settled above where this device is
}

// decideState returns the node's sync state and why (docs/replication.md, 6).
func decideState(s situation) (state, reason string) {
	if s.out {
		return StatePaused, "this device was put out of the library: the others refuse it"
	}
	if s.paused != "" {
		return StatePaused, s.paused
	}
	if s.others == 0 {
		return StateReady, "no other devices"
	}
	first, behind := 0, uint64(0)
	lacking := 0
	for _, f := range s.feeds {
		if !f.servable {
			continue
		}
		lacking++
		behind += f.state.Lag()
		if f.state.Floor.IsGenesis() {
			first++
		}
	}
	switch {
	case first > 0:
		return StateBackfilling, feedCount(first) + " never settled here"
	case lacking > 0:
		return StateCatchingUp, feedCount(lacking) + " behind"
	case !s.everSettled && s.online == 0:
		return StateUninitialized, "no other device reached yet"
	case !s.everSettled:
		return StateUninitialized, "nothing received yet"
	case s.online == 0:
		return StateReady, "no other device is connected"
	}
	if s.waiting > 0 {
		return StateReady, "settled at all that is wanted; " + english.Plural(s.waiting, "folder waits", "folders wait")
	}
	return StateReady, "settled at every head that anyone reachable can serve"
}

func feedCount(n int) string { return english.Plural(n, "feed", "feeds") }

// phase is the current state with its history of one step.
type phase struct {
	state  string
	reason string
	since  time.Time
}

// step returns the phase after a decision, and whether the state changed.
func (p phase) step(state, reason string, now time.Time) (phase, bool) {
	if p.state == state {
		p.reason = reason
		return p, false
	}
	return phase{state, reason, now}, true
}
