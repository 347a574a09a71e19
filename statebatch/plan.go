// Package statebatch pushes what this device has just written to peers that hold what came before it,
// and applies what peers push. A push is a short cut: what it misses, backfill finds.
package statebatch

import (
	"peerdex/feed"
)

// Limit is the most entries one push carries; more are left to a pull, which the peer starts when it
// sees the new head.
const Limit = 1000

// DefaultNear is how many seqs a peer may lack, by its own word, and still be pushed to, if nobody said otherwise.
const DefaultNear = 100

// Near reports whether an owner at own pushes to a peer that says it is settled at held, and lacks at most so many
// seqs: the peer then waits for that a moment before it pulls, or both would bring it.
func Near(held, own feed.Head, most uint64) bool {
	return feed.Continues(held, own) && own.Seq-held.Seq <= most
}

// plan says whether the entries after held lead a peer settled there to own, in one push.
func plan(held feed.Head, own feed.State) bool {
	return own.Settled != nil && feed.Continues(held, *own.Settled) && own.Settled.Seq-held.Seq <= Limit
}
