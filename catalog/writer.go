package catalog

import (
	"errors"
	"slices"
	"time"

	"peerdex/feed"
	"peerdex/store"
)

// Writer takes what a pass writes to the feed of its location by the quickest road. Most is committed as it comes. If a
// folder is new and very much is found in it at once, that goes into a Fill, several times as fast, and is seen when the
// Fill ends. One goroutine uses it. Close it.
type Writer struct {
	feeds Feeds
	feed  feed.ID
	most  int // puts that make a Fill worth its while

	road  road
	since time.Time // when the first put was held, or the Fill begun
	held  []store.Put
	fill  *store.Fill
}

// road is how a Writer brings puts into the feed.
type road int

const (
	holding    road = iota // nobody knows yet how many will come
	filling                // by a Fill
	committing             // by transactions
)

const (
	fillFrom  = 20_000           // puts: with fewer, opening fresh files takes longer than it saves
	fillShare = 8                // a Fill copies what the store holds, which must be at most so many times what is known to come
	waitMost  = time.Second      // while nothing shows; a disk that gives less than fillFrom names by then is no bottleneck of ours
	fillMost  = 10 * time.Second // and as long as that while a Fill goes on
)

// next decides how a Writer goes on that has held puts for some time, of which the last lot is fresh if it holds new
// entries alone.
func (r road) next(held, most int, fresh bool, passed time.Duration) road {
	switch {
	case !fresh, r == holding && passed >= waitMost, r == filling && passed >= fillMost:
		return committing
	case r == holding && held >= most:
		return filling
	}
	return r
}

// NewWriter returns a Writer to a location feed of this device.
func NewWriter(feeds Feeds, id feed.ID) *Writer {
	w := &Writer{feeds: feeds, feed: id, road: committing}
	if _, known := feeds.State(id); !known {
		w.road, w.most = holding, fillFrom
		var entries uint64
		for _, st := range feeds.States() {
			entries += st.Count
		}
		w.most = max(w.most, int(entries/fillShare))
	}
	return w
}

// Write takes in puts, and keeps the slice. Its errors are those of the feeds' Commit and Fill.
func (w *Writer) Write(puts []store.Put) error {
	fresh := !slices.ContainsFunc(puts, func(p store.Put) bool { return !p.New })
	if w.road == holding {
		if len(w.held) == 0 {
			w.since = time.Now()
		}
		w.held = append(w.held, puts...)
		puts = nil
	}
	if err := w.turn(w.road.next(len(w.held), w.most, fresh, time.Since(w.since))); err != nil || len(puts) == 0 {
		return err
	}
	if w.road == filling {
		return w.fill.Add(puts)
	}
	_, err := w.feeds.Commit(w.feed, puts)
	return err
}

// Due receives when Hurry is to be called, as it is if nothing is written for a while; nil if it never is.
func (w *Writer) Due() <-chan time.Time {
	switch {
	case w.road == holding && len(w.held) > 0:
		return time.After(waitMost - time.Since(w.since))
	case w.road == filling:
		return time.After(fillMost - time.Since(w.since))
	}
	return nil
}

// Hurry commits everything that was written.
func (w *Writer) Hurry() error { return w.turn(committing) }

// turn takes another road, on which everything goes that was written so far.
func (w *Writer) turn(to road) (err error) {
	from := w.road
	if w.road = to; from == to {
		return nil
	}
	if from == filling {
		_, err = w.fill.Commit()
		return errors.Join(err, w.Close())
	}
	held := w.held
	w.held = nil
	if to == filling {
		w.since = time.Now()
		if w.fill, err = w.feeds.Fill(w.feed); err == nil {
			return w.fill.Add(held)
		}
		w.road = committing // as if there had been fewer: while a snapshot comes, or where there is no room for a copy
	}
	_, err = w.feeds.Commit(w.feed, held)
	return err
}

// Close gives back what the Writer has taken. What was not committed by then is as if it had never been.
func (w *Writer) Close() (err error) {
	if w.fill != nil {
		err, w.fill = w.fill.Close(), nil
	}
	return err
}
