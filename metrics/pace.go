package metrics

import (
	"slices"
	"time"
)

// Pace is how fast something goes: its rate over the last paceSpan, so that it follows what happens; while nothing
// comes it falls. It takes the time as an argument, and is not safe for concurrent use. The zero value has not begun.
type Pace struct {
	marks []mark // oldest first
}

type mark struct {
	at   time.Time
	done uint64
}

const (
	paceSpan = 10 * time.Second
	paceStep = 500 * time.Millisecond // at least between two marks that are kept
)

// Mark notes that so much is done at a time, no less than before. The first mark begins it: what was done until
// then does not count.
func (p *Pace) Mark(now time.Time, done uint64) {
	if n := len(p.marks); n > 1 && p.marks[n-1].at.Sub(p.marks[n-2].at) < paceStep {
		p.marks[n-1] = mark{now, done}
	} else {
		p.marks = append(p.marks, mark{now, done})
	}
	p.marks = slices.Delete(p.marks, 0, p.base(now))
}

// base is the mark that the rate is counted from: the last but one, or an earlier one that is as old as paceSpan.
func (p *Pace) base(now time.Time) (i int) {
	for i+2 < len(p.marks) && now.Sub(p.marks[i+1].at) >= paceSpan {
		i++
	}
	return i
}

// Rate returns how much is done in a second; zero if that is not known.
func (p *Pace) Rate(now time.Time) float64 {
	if len(p.marks) < 2 {
		return 0
	}
	i := p.base(now)
	base, next, last := p.marks[i], p.marks[i+1], p.marks[len(p.marks)-1]
	at, done := base.at, float64(base.done)
	if from := now.Add(-paceSpan); from.After(at) && i+2 < len(p.marks) { // it begins between two marks
		done += float64(next.done-base.done) * from.Sub(at).Seconds() / next.at.Sub(at).Seconds()
		at = from
	}
	took := now.Sub(at).Seconds()
	if took <= 0 {
		return 0
	}
	return max(0, float64(last.done)-done) / took
}

// Left returns how long left takes at a rate; zero if that is not known or nothing is left.
func Left(left uint64, rate float64) time.Duration {
	if rate <= 0 {
		return 0
	}
	return time.Duration(min(float64(left)/rate, maxLeft.Seconds()) * float64(time.Second))
}

// maxLeft is beyond what anybody waits for, and far from overflow.
const maxLeft = 365 * 24 * time.Hour
