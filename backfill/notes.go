package backfill

import (
	"time"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// Pull names one feed being pulled from one donor.
type Pull struct {
	Session protocol.SessionID
	Donor   record.DeviceID
	Feed    feed.ID
	Head    feed.Head // the donor's
	Route   feed.Route
	Lacks   uint64 // upper bound of the entries wanted when it began
}

// Notes is told what happens on both sides of a pull, as it happens: metrics, events and progress are
// made of it. Calls come from the goroutine that runs the pull.
type Notes interface {
	Chosen(Pull)                                              // the road was decided
	Asked(p Pull, request string)                             // a request left: open, delta, nodes, leaves, fetch
	Received(p Pull, entries int, bytes int, d time.Duration) // a page came in, d after it was asked for or the page before it
	Applied(p Pull, res store.Result, d time.Duration)        // and was committed
	Settled(tx kv.Tx, p Pull, res *store.Result) error        // inside the transaction that settles the feed
	Mismatch(p Pull)                                          // a delta did not add up: a tree diff follows (rule 11)
	RolledBack(p Pull, absorbed int, to feed.Head)            // an own feed took back what it had lost and signed above it
	Served(session protocol.SessionID, to record.DeviceID, id feed.ID, request string, entries int, bytes int)
}
