package record

import (
	"bytes"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peerdex/hlc"
)

var mergeNow = time.UnixMilli(1_800_000_000_000)

// drawRegister draws from so few stamps, authors and values that ties are common.
func drawRegister(t *rapid.T) Register {
	limit := hlc.At(mergeNow.Add(hlc.MaxDrift))
	return Register{
		Entity: Entity{9, "e"}, Field: "f",
		Author: DeviceID{byte(rapid.IntRange(0, 2).Draw(t, "author"))},
		Stamp:  rapid.SampledFrom([]hlc.Stamp{0, 1, 2, limit - 1, limit, limit + 1, math.MaxUint64}).Draw(t, "stamp"),
		Value:  rapid.SampledFrom([][]byte{nil, {}, {1}, {2}}).Draw(t, "value"),
	}
}

func sameRegister(a, b Register) bool {
	return a.Author == b.Author && a.Stamp == b.Stamp && bytes.Equal(a.Value, b.Value)
}

// Any order, any repetition, any grouping: the same winner (invariant I10).
func TestMergeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		regs := rapid.SliceOfN(rapid.Custom(drawRegister), 0, 8).Draw(t, "regs")
		want, ok := Merge(mergeNow, regs...)

		shuffled := append(append([]Register{}, rapid.Permutation(regs).Draw(t, "order")...), regs[:min(len(regs), 3)]...)
		if got, found := Merge(mergeNow, shuffled...); found != ok || !sameRegister(got, want) {
			t.Fatalf("%v in another order and repeated gives %v, not %v", regs, got, want)
		}

		cut := rapid.IntRange(0, len(regs)).Draw(t, "cut")
		var halves []Register
		for _, half := range [][]Register{regs[:cut], regs[cut:]} {
			if w, found := Merge(mergeNow, half...); found {
				halves = append(halves, w)
			}
		}
		if got, found := Merge(mergeNow, halves...); found != ok || !sameRegister(got, want) {
			t.Fatalf("%v cut at %d gives %v, not %v", regs, cut, got, want)
		}

		plausible := 0
		for _, r := range regs {
			if r.Stamp > hlc.At(mergeNow.Add(hlc.MaxDrift)) {
				continue
			}
			if plausible++; r.Compare(want) > 0 {
				t.Fatalf("%v won over %v", want, r)
			}
		}
		if ok != (plausible > 0) {
			t.Fatalf("%d plausible registers, found %v", plausible, ok)
		}
	})
}

// Outranks is a total order at any one time, whose first is the winner of the merge if that is believed.
func TestOutranks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawRegister(t), drawRegister(t), drawRegister(t)
		if a.Outranks(b, mergeNow) && b.Outranks(a, mergeNow) || !sameRegister(a, b) && !a.Outranks(b, mergeNow) && !b.Outranks(a, mergeNow) {
			t.Fatalf("%v and %v: neither or both come first", a, b)
		}
		if a.Outranks(b, mergeNow) && b.Outranks(c, mergeNow) && !a.Outranks(c, mergeNow) {
			t.Fatalf("%v before %v before %v, but not the first before the last", a, b, c)
		}
		first := a
		for _, r := range []Register{b, c} {
			if r.Outranks(first, mergeNow) {
				first = r
			}
		}
		if won, ok := Merge(mergeNow, a, b, c); ok != first.Believed(mergeNow) || ok && !sameRegister(won, first) {
			t.Fatalf("%v comes first and %v wins", first, won)
		}
	})
}

// A clock that went back hid from a device its own locations, whose feeds it then dropped: what only its
// owner may write is believed whatever its stamp.
func TestOwnersAreBelieved(t *testing.T) {
	late := hlc.At(mergeNow.Add(time.Hour))
	d := DeviceID{1}
	for e, want := range map[Entity]bool{
		Device(d): true, Location(d, LocationID{2}): true, Member(d): false, Tag(TagID{3}): false, Content(Hash{4}): false,
	} {
		r := Register{Entity: e, Field: FieldName, Author: d, Stamp: late}
		if _, ok := Merge(mergeNow, r); ok != want {
			t.Errorf("a register of %v an hour ahead wins: %v", e.Kind, ok)
		}
	}
}

func TestCompareIsATotalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawRegister(t), drawRegister(t), drawRegister(t)
		if sign(a.Compare(b)) != -sign(b.Compare(a)) || a.Compare(a) != 0 {
			t.Fatalf("%v and %v: %d and %d", a, b, a.Compare(b), b.Compare(a))
		}
		if (a.Compare(b) == 0) != sameRegister(a, b) {
			t.Fatalf("%v and %v compare as equal", a, b)
		}
		if a.Compare(b) > 0 && b.Compare(c) > 0 && a.Compare(c) <= 0 {
			t.Fatalf("%v > %v > %v, but not the first over the last", a, b, c)
		}
	})
}

func sign(n int) int {
	switch {
	case n > 0:
		return 1
	case n < 0:
		return -1
	}
	return 0
}

// A clock ten minutes fast writes; until its time comes the older value is seen, and then the newer.
func TestFutureStampWaits(t *testing.T) {
	old := Register{Stamp: hlc.At(mergeNow), Value: []byte("old")}
	future := Register{Stamp: hlc.At(mergeNow.Add(10 * time.Minute)), Value: []byte("future")}
	for _, c := range []struct {
		later time.Duration
		want  string
	}{{0, "old"}, {5*time.Minute - time.Millisecond, "old"}, {5 * time.Minute, "future"}, {time.Hour, "future"}} {
		if got, ok := Merge(mergeNow.Add(c.later), old, future); !ok || string(got.Value) != c.want {
			t.Errorf("after %v one sees %q, want %q", c.later, got.Value, c.want)
		}
	}
	if got, ok := Merge(mergeNow, future); ok {
		t.Errorf("an implausible register alone wins: %v", got)
	}
}

// A conflict is what neither author had seen of the other.
func TestConcurrent(t *testing.T) {
	a, b := DeviceID{1}, DeviceID{2}
	for _, c := range []struct {
		name string
		r, o Register
		want bool
	}{
		{"both first", Register{Author: a, Stamp: 5}, Register{Author: b, Stamp: 6}, true},
		{"the later saw the earlier", Register{Author: a, Stamp: 5}, Register{Author: b, Stamp: 6, Prev: 5}, false},
		{"the later saw what came after the earlier", Register{Author: a, Stamp: 5}, Register{Author: b, Stamp: 9, Prev: 7}, false},
		{"both replace the same", Register{Author: a, Stamp: 5, Prev: 3}, Register{Author: b, Stamp: 6, Prev: 3}, true},
		{"at the same stamp", Register{Author: a, Stamp: 5}, Register{Author: b, Stamp: 5}, true},
		{"one author", Register{Author: a, Stamp: 5}, Register{Author: a, Stamp: 6}, false},
	} {
		if c.r.Concurrent(c.o) != c.want || c.o.Concurrent(c.r) != c.want {
			t.Errorf("%s: %v, %v", c.name, c.r.Concurrent(c.o), c.o.Concurrent(c.r))
		}
	}
}
