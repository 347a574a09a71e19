package snapshot

import (
	"context"
	"errors"
	"time"

	"peerdex/internal/english"
	"peerdex/protocol"
)

const (
	// Again is how long a device that gave no snapshot, or any if this one could not take it, is pulled from page by page.
	Again = 10 * time.Minute
	// tries is how often a snapshot that broke off goes on before pages are tried.
	tries = 3
)

// Attempts is what came of asking one donor for snapshots.
type Attempts struct {
	broken int       // that broke off one after another
	failed time.Time // when it last gave none
}

// Decide says whether to begin a session with a snapshot: this device holds so many entries of other devices'
// locations, and lacks so many that the donor has. Up to from, and where as much is held already, which would be
// written once more, the pages of a delta are as fast, unless chunks of one that broke off are kept: they would come
// again as pages. why is told with the choice.
func Decide(held, lacks, from uint64, kept bool, donor Attempts, now time.Time) (yes bool, why string) {
	switch {
	case lacks <= from:
		return false, "only " + english.Plural(lacks, "entry is", "entries are") + " lacking"
	case held >= from && !kept:
		return false, english.Plural(held, "entry is", "entries are") + " held already"
	case now.Before(donor.failed.Add(Again)):
		return false, "the donor gave no snapshot not long ago"
	}
	return true, english.Plural(held, "entry is", "entries are") + " held, " + english.Plural(lacks, "is", "are") + " lacking"
}

// Ended notes what came of a snapshot. If there was none, the donor's feeds come page by page, at once; but one that
// broke off is tried again first, a few times, since most of it may be here.
func (a *Attempts) Ended(err error, now time.Time) (pages bool) {
	if err == nil {
		a.broken = 0
		return false
	}
	if a.broken++; Broke(err) && a.broken < tries {
		return false
	}
	*a = Attempts{failed: now}
	return true
}

// Broke reports whether a snapshot that ended with err may go on where it was: nobody refused it, and nobody
// is at fault.
func Broke(err error) bool {
	for _, code := range []protocol.Code{protocol.CodeLost, protocol.CodeTimeout, protocol.CodeShutdown} {
		if errors.Is(err, code) {
			return true
		}
	}
	return errors.Is(err, context.Canceled)
}
