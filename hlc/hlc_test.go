package hlc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// wallTimes draws any wall clock: usual ones, the same again, steps back, 1970, before it, absurd ones.
func wallTimes(t *rapid.T, now time.Time) time.Time {
	switch rapid.IntRange(0, 9).Draw(t, "wall") {
	case 0:
		return now.Add(-time.Duration(rapid.Int64Range(0, int64(20*365*24*time.Hour)).Draw(t, "back")))
	case 1:
		return time.UnixMilli(rapid.Int64().Draw(t, "any"))
	case 2:
		return time.Unix(rapid.Int64Range(-1, 1).Draw(t, "epoch"), 0)
	case 3, 4, 5:
		return now
	}
	return now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "forward")))
}

// disk is where a clock keeps its bound. A crash may come after any save, or in it: then the bound is
// durable or not, and the caller got an error.
type disk struct {
	bound Stamp
	fail  bool // the next save fails
	kept  bool // although the bound reached the disk
}

var errDisk = errors.New("disk error")

func (d *disk) save(s Stamp) error {
	if d.fail {
		d.fail = false
		if d.kept {
			d.bound = s
		}
		return errDisk
	}
	d.bound = s
	return nil
}

// Stamps strictly increase, and lie above whatever was observed, under any wall clock, across restarts at any point, and never lie above the
// durable bound, so that no restart can repeat one.
func TestStrictlyIncreasing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.UnixMilli(1_800_000_000_000)
		d := &disk{}
		clock := NewClock(func() time.Time { return now }, 0, d.save)
		var issued, seen Stamp
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0:
				clock = NewClock(func() time.Time { return now }, d.bound, d.save)
			case 1:
				now = wallTimes(t, now)
			case 2:
				d.fail, d.kept = true, rapid.Bool().Draw(t, "kept")
			case 3:
				s := Stamp(rapid.Uint64().Draw(t, "observed"))
				if rapid.Bool().Draw(t, "near") {
					s = At(now.Add(time.Duration(rapid.Int64Range(-int64(MaxDrift), int64(MaxDrift)).Draw(t, "offset")))) | Stamp(rapid.Uint16().Draw(t, "counter"))
				}
				before := clock.Last()
				if err := clock.Observe(s); err == nil {
					if clock.Last() < s || clock.Last() < before {
						t.Fatalf("observed %v after %v, clock at %v", s, before, clock.Last())
					}
					if s > At(now.Add(MaxDrift)) {
						t.Fatalf("believed %v at %v", s, now)
					}
					seen = max(seen, s)
				} else if !errors.Is(err, ErrDrift) && !errors.Is(err, errDisk) || clock.Last() != before {
					t.Fatalf("refused %v with %v, clock moved from %v to %v", s, err, before, clock.Last())
				}
			default:
				before := clock.Last()
				s, err := clock.Now()
				if errors.Is(err, errDisk) || errors.Is(err, errExhausted) && before == math.MaxUint64 {
					if s != 0 || clock.Last() != before {
						t.Fatalf("an error issued %v and moved the clock from %v to %v", s, before, clock.Last())
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if s <= max(issued, seen) || s <= before || s < At(now) {
					t.Fatalf("issued %v after %v and seen, clock at %v, wall at %v", s, issued, before, At(now))
				}
				if s > d.bound {
					t.Fatalf("issued %v above the durable bound %v", s, d.bound)
				}
				issued = s
			}
		}
	})
}

// A power cut at the very moment of any save, or between any two stamps, leaves a clock that goes on
// above everything issued.
func TestCrashAtEveryPoint(t *testing.T) {
	const stamps = 40
	start := time.UnixMilli(1_800_000_000_000)
	for crash := range stamps {
		for _, during := range []bool{false, true} {
			now := start
			var durable Stamp
			saves := 0
			save := func(s Stamp) error {
				if saves++; during && saves == crash {
					return errDisk // cut before it reached the disk
				}
				durable = s
				return nil
			}
			clock := NewClock(func() time.Time { return now }, 0, save)
			var last Stamp
			for i := range stamps {
				if s, err := clock.Now(); err == nil {
					if s <= last {
						t.Fatalf("crash %d: %v after %v", crash, s, last)
					}
					last = s
				}
				now = now.Add(3 * time.Second)
				if i == crash {
					now = start.Add(-time.Hour) // and the battery of the clock is flat
					clock = NewClock(func() time.Time { return now }, durable, save)
				}
			}
		}
	}
}

// The bound is saved once in ten seconds of stamps, not at every one.
func TestSavesAreRare(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	saves := 0
	clock := NewClock(func() time.Time { return now }, 0, func(Stamp) error { saves++; return nil })
	for range 60_000 { // one minute
		if _, err := clock.Now(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Millisecond)
	}
	if saves != 6 {
		t.Errorf("%d saves in a minute, want 6", saves)
	}
}

// A full counter carries into the milliseconds.
func TestCounterOverflow(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	clock := NewClock(func() time.Time { return now }, 0, func(Stamp) error { return nil })
	var last Stamp
	for i := range 1<<16 + 2 {
		s, err := clock.Now()
		if err != nil {
			t.Fatal(err)
		}
		if want := At(now) + Stamp(i); s != want {
			t.Fatalf("stamp %d is %v, want %v", i, s, want)
		}
		last = s
	}
	if last.Time() != now.Add(time.Millisecond) || last.Counter() != 1 {
		t.Errorf("after the overflow: %v with counter %d", last.Time(), last.Counter())
	}
	if d := clock.Drift(); d != time.Millisecond {
		t.Errorf("drift %v, want 1ms", d)
	}
}

func TestObserve(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	clock := NewClock(func() time.Time { return now }, 0, func(Stamp) error { return nil })
	limit := At(now.Add(MaxDrift))
	for _, s := range []Stamp{limit + 1, limit + 1<<16, math.MaxUint64} {
		if err := clock.Observe(s); !errors.Is(err, ErrDrift) || clock.Last() != 0 {
			t.Errorf("observing %v: %v, clock at %v", s, err, clock.Last())
		}
	}
	for _, s := range []Stamp{limit, 5, 0} {
		if err := clock.Observe(s); err != nil {
			t.Errorf("observing %v: %v", s, err)
		}
	}
	if s, err := clock.Now(); err != nil || s != limit+1 {
		t.Errorf("next stamp is %v, %v; want %v", s, err, limit+1)
	}
}

// A device sees an edit four minutes ahead of its own clock, is restarted, and edits: the new edit has to
// win, so the restarted clock must know what the old one saw. Nor does it run further ahead than that.
func TestObserveSurvivesRestart(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for _, ahead := range []time.Duration{4 * time.Minute, MaxDrift} {
		d := &disk{}
		seen := At(now.Add(ahead))
		if err := NewClock(func() time.Time { return now }, 0, d.save).Observe(seen); err != nil {
			t.Fatal(err)
		}
		s, err := NewClock(func() time.Time { return now }, d.bound, d.save).Now()
		if err != nil || s <= seen {
			t.Errorf("after a restart %v is issued, %v; seen before was %v", s, err, seen)
		}
		if s > At(now.Add(MaxDrift))+1 {
			t.Errorf("after a restart %v is issued, beyond the drift bound", s)
		}
	}
}

// The last stamps there are: an error, never a stamp that begins again.
// A peer's stamp at the drift bound, one of this device's own, and a restart: the next stamp came ten seconds
// beyond the bound, for the reserve was kept whatever the wall clock said. No device showed such an edit, the
// one that made it included.
func TestRestartKeepsTheBound(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	wall := func() time.Time { return now }
	for _, ahead := range []time.Duration{MaxDrift - time.Second, MaxDrift} {
		d := &disk{}
		clock := NewClock(wall, 0, d.save)
		if err := clock.Observe(At(now.Add(ahead))); err != nil {
			t.Fatal(err)
		}
		if _, err := clock.Now(); err != nil {
			t.Fatal(err)
		}
		limit := At(now.Add(MaxDrift))
		s, err := NewClock(wall, d.bound, d.save).Now()
		if err != nil || s > limit+2+1<<16 {
			t.Errorf("%v ahead: after a restart %v is issued, %v; the bound is %v", ahead, s, err, limit)
		}
	}
}

func TestEndOfTime(t *testing.T) {
	far := time.Date(20_000, 1, 1, 0, 0, 0, 0, time.UTC)
	var bound Stamp
	clock := NewClock(func() time.Time { return far }, 0, func(s Stamp) error { bound = s; return nil })
	var last Stamp
	for range 1 << 16 {
		s, err := clock.Now()
		if err != nil || last != 0 && s != last+1 {
			t.Fatalf("%v after %v: %v", s, last, err)
		}
		last = s
	}
	if last != math.MaxUint64 || bound != math.MaxUint64 {
		t.Fatalf("last stamp %v, bound %v", last, bound)
	}
	if s, err := clock.Now(); err == nil {
		t.Errorf("after the last stamp came %v", s)
	}
}

func TestAt(t *testing.T) {
	for _, c := range []struct {
		t    time.Time
		want Stamp
	}{
		{time.Unix(0, 0), 0},
		{time.Unix(0, -1), 0},
		{time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), 0},
		{time.UnixMilli(math.MinInt64), 0},
		{time.Unix(0, 1_999_999), 1 << 16},
		{time.UnixMilli(1_800_000_000_123), 1_800_000_000_123 << 16},
		{time.UnixMilli(maxMillis), maxMillis << 16},
		{time.UnixMilli(maxMillis + 1), maxMillis << 16},
		{time.UnixMilli(math.MaxInt64), maxMillis << 16},
		{time.UnixMilli(math.MaxInt64).Add(MaxDrift), maxMillis << 16},
	} {
		if got := At(c.t); got != c.want {
			t.Errorf("At(%v) = %v, want %v", c.t, got, c.want)
		}
	}
}

// Golden: 16 hexadecimal digits, the same as the 8 bytes of Append.
func TestGolden(t *testing.T) {
	want, err := os.ReadFile("testdata/stamps.golden")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, s := range []Stamp{0, 1, At(time.UnixMilli(1)), At(time.UnixMilli(1_800_000_000_123)) | 7, math.MaxUint64} {
		if b := s.Append(nil); hex.EncodeToString(b) != s.String() || len(b) != Size {
			t.Errorf("%v is encoded as %x", s, b)
		}
		got.WriteString(s.String() + " " + s.Time().UTC().Format(time.RFC3339Nano) + "\n")
	}
	if got.String() != string(want) {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

func TestEncodingSorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := Stamp(rapid.Uint64().Draw(t, "a")), Stamp(rapid.Uint64().Draw(t, "b"))
		less := a < b
		if (bytes.Compare(a.Append(nil), b.Append(nil)) < 0) != less || (a.String() < b.String()) != less {
			t.Fatalf("%v and %v sort differently as numbers and encoded", a, b)
		}
		if got := FromBytes(append(a.Append(nil), 1, 2, 3)); got != a {
			t.Fatalf("%v comes back as %v", a, got)
		}
		if got := At(a.Time()); got != a&^0xFFFF {
			t.Fatalf("the time of %v is that of %v", a, got)
		}
	})
}

func TestFromBytesTruncated(t *testing.T) {
	whole := Stamp(1 << 40).Append(nil)
	for n := range whole {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d bytes were read as a stamp", n)
				}
			}()
			FromBytes(whole[:n])
		}()
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "0", "0000000000000001", "ffffffffffffffff", "FFFFFFFFFFFFFFFF", "00000000000000g0", "000000000000000001", "+00000000000000f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err == nil && s.String() != text {
			t.Errorf("%q was read as %v", text, s)
		}
		if err != nil && s != 0 {
			t.Errorf("%q: stamp %v beside an error", text, s)
		}
	})
}

func TestParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Stamp(rapid.Uint64().Draw(t, "s"))
		if got, err := Parse(s.String()); err != nil || got != s {
			t.Fatalf("%v comes back as %v, %v", s, got, err)
		}
	})
	whole := Stamp(math.MaxUint64).String()
	for n := range whole {
		if s, err := Parse(whole[:n]); err == nil {
			t.Errorf("%q was read as %v", whole[:n], s)
		}
	}
}

// Many goroutines never get the same stamp.
func TestConcurrent(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	clock := NewClock(func() time.Time { return now }, 0, func(Stamp) error { return nil })
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[Stamp]bool{}
	)
	for range 4 {
		wg.Go(func() {
			for range 500 {
				s, err := clock.Now()
				mu.Lock()
				if err != nil || seen[s] {
					t.Errorf("stamp %v, %v, seen before: %v", s, err, seen[s])
				}
				seen[s] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// After an orderly end the next start goes on from the last stamp; the clock that rested still never
// issues one that the next start could issue again.
func TestRest(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	wall := func() time.Time { return now }
	var saved Stamp
	save := func(s Stamp) error { saved = s; return nil }
	c := NewClock(wall, 0, save)
	last, err := c.Now()
	if err != nil || saved <= last {
		t.Fatalf("%v issued with a bound of %v, %v", last, saved, err)
	}
	if err := c.Rest(); err != nil || saved != last {
		t.Errorf("the bound at rest is %v, want %v, %v", saved, last, err)
	}
	if next, err := NewClock(wall, saved, save).Now(); err != nil || next != last+1 {
		t.Errorf("after a rest %v, want %v, %v", next, last+1, err)
	}
	saved = last
	if next, err := c.Now(); err != nil || next != last+1 || saved < next {
		t.Errorf("%v issued with a bound of %v, %v", next, saved, err)
	}
	broken := errors.New("no disk")
	if err := NewClock(wall, 0, nil).Rest(); err != nil {
		t.Errorf("nothing to save: %v", err)
	}
	c = NewClock(wall, 0, func(Stamp) error { return broken })
	if _, err := c.Now(); !errors.Is(err, broken) {
		t.Error(err)
	}
	c.last = last
	if err := c.Rest(); !errors.Is(err, broken) {
		t.Error(err)
	}
}
