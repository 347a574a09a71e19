package catalog

import (
	"slices"
	"time"

	"peerdex/record"
)

// candidate is an own file that is not empty, and whose content is not known.
type candidate struct {
	location record.LocationID
	entry    record.EntryID
	size     uint64
}

// twins sorts sizes and returns, in their place, those that occur more than once.
func twins(sizes []uint64) []uint64 {
	slices.Sort(sizes)
	out := sizes[:0]
	for i := 1; i < len(sizes); i++ {
		if s := sizes[i]; s == sizes[i-1] && (len(out) == 0 || out[len(out)-1] != s) {
			out = append(out, s)
		}
	}
	return out
}

// choose returns, in the place of own, which of them are to be read. twins are the sizes that occur more
// than once, sorted.
func choose(own []candidate, twins []uint64, policy map[record.LocationID]Policy, held func(record.EntryID) bool) []candidate {
	return slices.DeleteFunc(own, func(c candidate) bool {
		_, twin := slices.BinarySearch(twins, c.size)
		p := policy[c.location]
		return held(c.entry) || p != HashAll && (p != HashAuto || !twin)
	})
}

// holdMost is the longest that a file is left alone because it changed while it was read.
const holdMost = time.Hour

// hold is why a file is not read for now.
type hold struct {
	location record.LocationID
	until    time.Time     // zero: until the location was looked through
	wait     time.Duration // that led to until, if the file changed while it was read
}

// over reports whether the file may be read again.
func (h hold) over(now time.Time) bool { return !h.until.IsZero() && !now.Before(h.until) }

// longer is the hold of a file that changed while it was read: first at first, twice as long each time.
func (h hold) longer(now time.Time, first time.Duration) hold {
	h.wait = min(max(2*h.wait, first), holdMost)
	h.until = now.Add(h.wait)
	return h
}
