package sim

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"peerdex/hlc"
)

// dial is a wall clock as a device has it: set at some moment to some reading, from which it runs at a rate
// of its own and shows every so many.
type dial struct {
	set, reads time.Time
	rate       float64 // 1: as time does; 0: it stands
	grain      time.Duration
}

func (d dial) at(now time.Time) time.Time {
	t := d.reads.Add(time.Duration(float64(now.Sub(d.set)) * d.rate))
	return t.Truncate(max(d.grain, time.Millisecond))
}

// right is a clock that shows what time it is.
func (w *world) right() dial { return dial{set: w.now, reads: w.now, rate: 1} }

// wall is what the clock on the wall of n shows.
func (n *node) wall() time.Time { return n.dial.at(n.w.now) }

const grain = 5 * time.Second // of a coarse clock

const year = 365 * 24 * time.Hour

// turnClock does something to the clock of n: a skew that peers may have (fault C-1), or, in worlds with
// such faults, a jump (C-2, C-3) or a change of its rate.
func (n *node) turnClock(r *rand.Rand) {
	w := n.w
	n.checkView() // what was displaced by the time that it showed was displaced by right
	n.sync()
	if n.broken {
		return
	}
	d := w.right()
	if w.coarse {
		d.grain = grain
	}
	switch k := r.IntN(10); {
	case !w.knob.wild || k < 3:
		if w.knob.skew > 0 {
			d.reads = w.now.Add(time.Duration(r.Int64N(int64(2*w.knob.skew))) - w.knob.skew)
			w.reach("clock skewed")
		}
	case k < 4:
		d.reads = n.wall().Add(-time.Hour)
		w.reach("clock an hour back")
	case k < 5:
		d.reads = n.wall().Add(-10 * year)
		w.reach("clock ten years back")
	case k < 6:
		d.reads = n.wall().Add(time.Hour)
		w.reach("clock an hour ahead")
	case k < 7:
		d.reads = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
		w.reach("clock in 2099")
	case k < 8:
		d.rate = 0
		w.reach("clock stands")
	default:
		d.rate = 0.5 + r.Float64()
		w.reach("clock drifts")
	}
	n.dial = d
	w.log("clock", n, uint64(d.reads.UnixMilli()), uint64(d.rate*1000))
}

// startClock makes the hybrid clock of a new process from the bound that the last one kept.
func (n *node) startClock() {
	n.clock = hlc.NewClock(n.wall, n.bound, func(s hlc.Stamp) error {
		if n.broken {
			return errPower
		}
		n.bound = s
		return nil
	})
	n.ceiling += 1 + 1<<16 // the reserve of a clock at its limit
	n.pace(n.clock.Last())
}

// pace fails if the hybrid clock stands at s further ahead than the wall clock has ever allowed (I9).
func (n *node) pace(s hlc.Stamp) {
	n.ceiling = max(n.ceiling, hlc.At(n.wall().Add(hlc.MaxDrift)))
	if s > n.ceiling+1 { // what is stamped right after a stamp at the limit is one above it
		n.w.fail("I9", n, "the hybrid clock is %v beyond the limit", s.Time().Sub(n.ceiling.Time()))
	}
	n.ceiling = max(n.ceiling, s)
}

// now stamps; stamps of one author strictly increase, across restarts too (I9).
func (n *node) now() (hlc.Stamp, error) {
	if n.liar && chance(n.w.net, 0.3) {
		return n.lie(), nil
	}
	last := n.clock.Last()
	s, err := n.clock.Now()
	if err != nil {
		return s, err
	}
	if s <= n.stamp {
		n.w.fail("I9", n, "stamp %v after %v", s, n.stamp)
	}
	n.pace(s)
	if s == last+1 && s.Counter() == 0 {
		n.w.reach("counter carried")
	}
	n.stamp = s
	return s, nil
}

// lie is what a member stamps that wants others' clocks in the future (C-4): far beyond what they believe,
// or as far as they do.
func (n *node) lie() hlc.Stamp {
	r := n.w.net
	switch r.IntN(3) {
	case 0:
		n.w.reach("poison far ahead")
		return hlc.At(n.w.now.Add(100*year)) | hlc.Stamp(r.Uint64N(1<<16))
	case 1:
		n.w.reach("poison at the end of time")
		return 1<<64 - 1
	}
	n.w.reach("poison at the limit")
	return hlc.At(n.w.now.Add(hlc.MaxDrift-time.Duration(r.IntN(3))*time.Second)) | 0xffff
}

// see is told of stamps made elsewhere: one too far ahead is refused and no other is.
func (n *node) see(s hlc.Stamp) {
	far := s > hlc.At(n.wall().Add(hlc.MaxDrift))
	err := n.clock.Observe(s)
	if errors.Is(err, hlc.ErrDrift) != far {
		n.ought(err)
		n.w.fail("I9", n, "a stamp %v ahead is met with %v", s.Time().Sub(n.wall()), err)
	}
	if far {
		n.w.reach("stamp refused")
	}
	n.pace(n.clock.Last())
}

// distrusts reports whether n may not make shared edits: its clock is too far from the median of those it
// can compare it with.
func (n *node) distrusts() bool {
	var off []time.Duration
	for _, m := range n.w.neighbours(n) {
		off = append(off, m.wall().Sub(n.wall()))
	}
	if len(off) == 0 {
		return false
	}
	slices.Sort(off)
	median := off[len(off)/2]
	if other := off[(len(off)-1)/2]; other.Abs() < median.Abs() {
		median = other
	}
	if median.Abs() > hlc.MaxDrift {
		n.w.reach("edit refused: clock")
		return true
	}
	return false
}
