// Package hlc keeps hybrid logical time: wall-clock milliseconds that never run backwards, with a
// counter for what happens within one (Kulkarni et al., "Logical Physical Clocks", OPODIS 2014).
package hlc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"peerdex/internal/mutant"
)

// MaxDrift is how far ahead of the local wall clock a stamp from elsewhere may lie and still be believed.
const MaxDrift = 5 * time.Minute

// Size is the length of an encoded stamp in bytes.
const Size = 8

// reserve is how far the persisted bound runs ahead of the clock, so that it is written once in this
// long and not at every stamp.
const reserve = 10 * time.Second

const reserveStamps = Stamp(reserve/time.Millisecond) << 16

// Stamp is a moment of hybrid time: 48 bits of Unix milliseconds above 16 bits of counter. Stamps
// compare as integers; the zero stamp is before every other.
type Stamp uint64

// maxMillis is the last millisecond that fits into a stamp, in the year 10889.
const maxMillis = 1<<48 - 1

// At returns the first stamp of t's millisecond. Times before 1970 become the zero stamp, times that no
// stamp reaches the last millisecond.
func At(t time.Time) Stamp {
	switch sec := t.Unix(); {
	case sec < 0:
		return 0
	case sec > maxMillis/1000: // before UnixMilli could overflow
		return maxMillis << 16
	}
	return Stamp(min(uint64(t.UnixMilli()), maxMillis) << 16)
}

// Time returns the physical part, to the millisecond.
func (s Stamp) Time() time.Time { return time.UnixMilli(int64(s >> 16)) }

// Counter returns the logical part.
func (s Stamp) Counter() uint16 { return uint16(s) }

// Append adds the stamp to b as 8 bytes that sort as stamps do.
func (s Stamp) Append(b []byte) []byte { return binary.BigEndian.AppendUint64(b, uint64(s)) }

// FromBytes reads what Append wrote. It panics if b is shorter than Size.
func FromBytes(b []byte) Stamp { return Stamp(binary.BigEndian.Uint64(b)) }

// String writes the stamp as 16 hexadecimal digits, which sort as stamps do.
func (s Stamp) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// Parse reads what String wrote.
func Parse(text string) (Stamp, error) {
	var v uint64
	if len(text) != 16 {
		return 0, fmt.Errorf("HLC stamp %q: want 16 hexadecimal digits", text)
	}
	for _, c := range []byte(text) {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, fmt.Errorf("HLC stamp %q: want 16 hexadecimal digits", text)
		}
	}
	return Stamp(v), nil
}

var (
	// ErrDrift is returned by Observe for a stamp too far in the future; the clock has not moved.
	ErrDrift = errors.New("stamp is too far in the future")
	// errExhausted: a wall clock in the year 10889 has used up the last stamp.
	errExhausted = errors.New("no stamp is left after the last one")
)

// Clock issues strictly increasing stamps, across restarts too.
type Clock struct {
	wall func() time.Time
	save func(Stamp) error

	mu    sync.Mutex // guards last and bound
	last  Stamp
	bound Stamp // every stamp up to here may be issued without another save
}

// NewClock returns a clock that reads wall and never issues a stamp at or below floor, the bound
// last given to save (zero at the first start). save must make its argument durable before it returns;
// Now and Observe call it, so neither belongs inside a transaction of the store that save writes to.
func NewClock(wall func() time.Time, floor Stamp, save func(Stamp) error) *Clock {
	if mutant.Is("clock_forgets") {
		floor = 0
	}
	return &Clock{wall: wall, save: save, last: floor, bound: floor}
}

// Now issues the next stamp. It blocks for one save about every ten seconds; on its error no stamp is
// issued.
func (c *Clock) Now() (Stamp, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == math.MaxUint64 {
		return 0, errExhausted
	}
	wall := c.wall()
	next := max(At(wall), c.last+1) // a full counter carries into the milliseconds
	// A restart begins at the bound, which therefore keeps the limit too. Where stamps are beyond that
	// already, one millisecond of them keeps saves rare.
	if err := c.cover(next, max(At(wall.Add(MaxDrift)), next+min(1<<16, math.MaxUint64-next))); err != nil {
		return 0, err
	}
	c.last = next
	return next, nil
}

// cover makes the durable bound reach s, and reserve beyond it as far as limit allows. c.mu is held.
func (c *Clock) cover(s, limit Stamp) error {
	if s <= c.bound {
		return nil
	}
	bound := max(s, min(limit, s+min(reserveStamps, math.MaxUint64-s)))
	if err := c.save(bound); err != nil {
		return fmt.Errorf("persist clock bound: %w", err)
	}
	c.bound = bound
	return nil
}

// Observe moves the clock past a stamp made elsewhere, so that whatever is stamped next comes after it,
// also after a restart. Like Now it blocks for a save about every ten seconds, and more often for stamps
// within ten seconds of the drift bound. It returns ErrDrift for a stamp more than MaxDrift ahead of the
// wall clock, or the error of the save, and changes nothing then.
func (c *Clock) Observe(s Stamp) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := At(c.wall().Add(MaxDrift))
	if s > limit && !mutant.Is("poison_believed") {
		return ErrDrift
	}
	if err := c.cover(s, limit); err != nil {
		return err
	}
	c.last = max(c.last, s)
	return nil
}

// Rest saves the newest stamp in place of the bound ahead of it, at an orderly end: a restart then begins
// there, and not up to ten seconds ahead of everybody else. The clock may go on after it.
func (c *Clock) Rest() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bound == c.last {
		return nil
	}
	if err := c.save(c.last); err != nil {
		return fmt.Errorf("persist clock bound: %w", err)
	}
	c.bound = c.last
	return nil
}

// Last returns the newest stamp issued or observed.
func (c *Clock) Last() Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Drift returns how far the next stamp would run ahead of the wall clock: zero unless others' clocks, or a
// step back of this one, have pushed it.
func (c *Clock) Drift() time.Duration { return max(0, c.Last().Time().Sub(c.wall())) }
