package node

import (
	"time"

	"peerdex/feed"
	"peerdex/statebatch"
)

// pushGrace is how long a small change is left to a push of its owner, who is connected, before it is
// pulled. When two meet, each hears at once what the other holds; and heads that are gossiped may overtake
// the push they tell of. Without it both roads would bring the change.
const pushGrace = time.Second

// lack is a feed's being behind, as far as that waits for a push.
type lack struct {
	settled uint64    // seq where the feed is settled
	since   time.Time // when it was first seen to lack something there; zero: the owner's push has not fitted
}

func settledSeq(st feed.State) uint64 {
	if st.Settled == nil {
		return 0
	}
	return st.Settled.Seq
}

// graceLeft returns how long a feed is left to a push of its owner, zero if it is to be pulled now. reached
// says that there is a session with the owner, not paused; most is how many seqs are pushed.
func graceLeft(st feed.State, reached bool, l lack, most uint64, now time.Time) time.Duration {
	if !reached || l.since.IsZero() || !pushable(st, most) {
		return 0
	}
	return max(0, l.since.Add(pushGrace).Sub(now))
}

// pushable reports whether the owner of a feed, told where this node is settled, pushes what is lacking.
func pushable(st feed.State, most uint64) bool {
	switch {
	case st.Settled != nil:
		return statebatch.Near(*st.Settled, st.Best, most)
	case st.Count == 0 && st.Floor.IsGenesis():
		return statebatch.Near(st.Floor, st.Best, most)
	}
	return false
}

// noteLacks keeps account of how long feeds have lacked something without getting on; n.mu is held.
func (n *Node) noteLacks(lacking []feed.State, now time.Time) {
	lacks := make(map[feed.ID]lack, len(lacking))
	for _, st := range lacking {
		at := settledSeq(st)
		l, known := n.lacks[st.Feed]
		if !known || l.settled != at {
			l = lack{settled: at, since: now}
		}
		lacks[st.Feed] = l
	}
	n.lacks = lacks
}

// grace is graceLeft of a feed as it stands; n.mu is held.
func (n *Node) grace(st feed.State, now time.Time) time.Duration {
	owner := n.peers[st.Feed.Device]
	return n.graceIf(owner != nil && owner.session != nil && !n.pausedFor(owner.id), st, now)
}

// graceIf is grace, whether its owner is reached or not; n.mu is held.
func (n *Node) graceIf(reached bool, st feed.State, now time.Time) time.Duration {
	l, known := n.lacks[st.Feed]
	if !known || l.settled != settledSeq(st) { // it is not looked at yet
		l.since = now
	}
	return graceLeft(st, reached, l, n.cfg.Thresholds.Push, now)
}

// hasten ends the wait for a push of a feed: it came, and did not fit.
func (n *Node) hasten(id feed.ID) {
	st, _ := n.store.State(id)
	n.mu.Lock()
	n.lacks[id] = lack{settled: settledSeq(st)}
	n.mu.Unlock()
	n.wake()
}
