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
	First   bool   // the feed was never settled here before
	Lacks   uint64 // upper bound of the entries wanted when it began
}

// PullNotes is told what happens in a pull, in order: metrics, events and progress are made of it. Calls
// come from the goroutine that runs it. Every entry received is applied or dropped before Ended.
type PullNotes interface {
	Asked(p Pull, request string)                                        // a request left: open, delta, nodes, leaves or fetch
	Chosen(p Pull)                                                       // the road was decided
	Compared(p Pull, lack, spare, leaves int)                            // the trees were: entries lacking, entries that only this device holds, leaves that differed
	Received(p Pull, entries int, bytes int, d time.Duration)            // a page came in, d after it was asked for or after the page before it
	Committing(tx kv.Tx, p Pull, settling bool, res *store.Result) error // last in the transaction of a change
	Applied(p Pull, res store.Result, d time.Duration)                   // that transaction was committed
	Absorbed(p Pull, entries int, to feed.Head)                          // an own feed took back what it had lost and signed above it
	Dropped(p Pull, entries int)                                         // received, and not applied
	Ended(p Pull, err error)                                             // after Chosen, once; nil: settled
}

// ServeNotes is told what is served.
type ServeNotes interface {
	Serving(session protocol.SessionID, to record.DeviceID, entries uint64) // entries, at most so many, were asked for
	Served(session protocol.SessionID, to record.DeviceID, id feed.ID, request string, entries int, bytes int)
}
