package feed

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peerdex/hlc"
	"peerdex/record"
)

func head(seq, gc uint64, root byte) Head { return Head{Seq: seq, GC: gc, Root: Hash{root}, Count: 1} }

func ptr[T any](v T) *T { return &v }

func settledAt(h Head) State { return State{Settled: &h, Floor: h, Best: h, Count: 5} }

// Rule 8.
func TestDecidePush(t *testing.T) {
	at := head(10, 2, 1)
	for _, c := range []struct {
		name       string
		s          State
		prev, next Head
		want       Push
	}{
		{"continues", settledAt(at), at, head(12, 2, 3), PushApply},
		{"continues and collects what was held", settledAt(at), at, head(12, 10, 3), PushApply},
		{"collects what was never sent", settledAt(at), at, head(12, 11, 3), PushGap},
		{"another seq before", settledAt(at), head(9, 2, 1), head(12, 2, 3), PushGap},
		{"another root before", settledAt(at), head(10, 2, 2), head(12, 2, 3), PushGap},
		{"another gc before", settledAt(at), head(10, 3, 1), head(12, 3, 3), PushGap},
		{"the same again", settledAt(at), head(8, 2, 1), at, PushKnown},
		{"an older one", settledAt(at), head(7, 2, 1), head(8, 2, 1), PushKnown},
		{"a fork that sorts lower", settledAt(at), at, head(10, 2, 0), PushKnown},
		{"a fork that sorts higher", settledAt(at), at, head(10, 2, 9), PushGap},
		{"unsettled", State{Floor: at, Best: at, Count: 5}, at, head(12, 2, 3), PushUnsettled},
		{"unsettled with a cursor", State{Cursor: &Cursor{Seq: 10}, Count: 5}, at, head(12, 2, 3), PushUnsettled},
		{"first of all", State{}, Head{}, head(3, 0, 1), PushApply},
		{"first of all, tombstones collected", State{}, Head{}, head(3, 2, 1), PushApply},
		{"first of all, but something is held", State{Count: 1}, Head{}, head(3, 0, 1), PushUnsettled},
		{"nothing held, but it was settled once", State{Floor: at, Best: at}, Head{}, head(12, 0, 1), PushUnsettled},
		{"nothing onto nothing", State{}, Head{}, Head{}, PushUnsettled},
		{"does not begin at the beginning", State{}, head(1, 0, 1), head(3, 0, 1), PushUnsettled},
		{"settled at genesis, tombstones collected", State{Settled: &Head{}}, Head{}, head(3, 2, 1), PushApply},
	} {
		if got := c.s.DecidePush(c.prev, c.next); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Rules 9, 10, 12, 17 and 18.
func TestDecideRoute(t *testing.T) {
	at := head(10, 2, 5)
	cursor := func(seq, gc uint64) State { return State{Cursor: &Cursor{Seq: seq, GC: gc, High: 20}, Count: 3} }
	for _, c := range []struct {
		name     string
		s        State
		donor    Head
		orphaned bool
		want     Route
	}{
		{"in step", settledAt(at), at, false, Route{RoadNone, 0, "in_step"}},
		{"donor behind", settledAt(at), head(9, 0, 9), false, Route{RoadNone, 0, "in_step"}},
		{"fork that sorts lower", settledAt(at), head(10, 2, 4), false, Route{RoadNone, 0, "in_step"}},
		{"fork that sorts higher", settledAt(at), head(10, 2, 6), false, Route{RoadDiff, 0, "fork"}},
		{"behind", settledAt(at), head(14, 2, 1), false, Route{RoadDelta, 10, "position"}},
		{"collected up to what is held", settledAt(at), head(14, 10, 1), false, Route{RoadDelta, 10, "position"}},
		{"collected beyond what is held", settledAt(at), head(14, 11, 1), false, Route{RoadDiff, 0, "gc"}},
		{"settled at an empty set, collected beyond", State{Settled: &at}, head(14, 11, 1), false, Route{RoadDelta, 0, "empty"}},
		{"nothing held", State{}, head(14, 11, 1), false, Route{RoadDelta, 0, "empty"}},
		{"from the cursor", cursor(7, 0), head(14, 7, 1), false, Route{RoadDelta, 7, "cursor"}},
		{"cursor drew from a donor that had collected", cursor(7, 9), head(14, 9, 1), false, Route{RoadDelta, 7, "cursor"}},
		{"collected beyond the cursor's donor", cursor(7, 9), head(14, 10, 1), false, Route{RoadDiff, 0, "gc"}},
		{"donor at the cursor", cursor(14, 0), head(14, 0, 1), false, Route{RoadDiff, 0, "fork"}},
		{"a diff was cut", State{Count: 3}, head(14, 0, 1), false, Route{RoadDiff, 0, "interrupted"}},
		{"below the floor", State{Floor: at, Count: 3}, head(9, 0, 9), false, Route{RoadBlocked, 0, "below_floor"}},
		{"at the floor", State{Floor: at, Count: 3}, at, false, Route{RoadDiff, 0, "interrupted"}},
		{"below the floor, orphaned", State{Floor: at, Count: 3}, head(9, 0, 9), true, Route{RoadDiff, 0, "interrupted"}},
		{"orphaned does not mean backwards", settledAt(at), head(9, 0, 9), true, Route{RoadNone, 0, "in_step"}},
	} {
		if got := c.s.DecideRoute(c.donor, c.orphaned); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Rules 15 and 16.
func TestDecideOwn(t *testing.T) {
	const boot = 77
	owned := func(seq uint64, root byte) Head { h := head(seq, 0, root); h.Boot = boot; return h }
	other := func(seq uint64, root byte, onto uint64) Head {
		h := head(seq, 0, root)
		h.Boot, h.Onto = 88, onto
		return h
	}
	at := owned(10, 5)
	for _, c := range []struct {
		name    string
		s       State
		settled *Head
		best    Head
		want    OwnVerdict
	}{
		{"a peer in step", settledAt(at), &at, at, OwnVerdict{}},
		{"a peer behind", settledAt(at), ptr(owned(8, 1)), owned(9, 1), OwnVerdict{}},
		{"a peer that knows nothing", settledAt(at), nil, Head{}, OwnVerdict{}},
		{"nothing written, nothing known", State{}, nil, Head{}, OwnVerdict{}},
		{"a peer settled above", settledAt(at), ptr(other(12, 1, 0)), other(12, 1, 0), OwnVerdict{OwnAbsorb, other(12, 1, 0)}},
		{"wiped, a peer holds everything", State{}, ptr(other(3, 1, 0)), other(3, 1, 0), OwnVerdict{OwnAbsorb, other(3, 1, 0)}},
		{"settled above, seen higher still", settledAt(at), ptr(other(12, 1, 0)), other(14, 1, 0), OwnVerdict{OwnAbsorb, other(12, 1, 0)}},
		{"only seen above", settledAt(at), &at, other(12, 1, 0), OwnVerdict{OwnJump, other(12, 1, 0)}},
		{"only seen above, peer unsettled", settledAt(at), nil, other(12, 1, 0), OwnVerdict{OwnJump, other(12, 1, 0)}},
		{"the same seq with another root", settledAt(at), ptr(other(10, 6, 0)), other(10, 6, 0), OwnVerdict{OwnAbsorb, other(10, 6, 0)}},
		{"the same seq with a lower root", settledAt(at), nil, other(10, 4, 0), OwnVerdict{OwnJump, other(10, 4, 0)}},
		{"a twin took over", settledAt(at), nil, other(11, 1, boot), OwnVerdict{OwnFreeze, other(11, 1, boot)}},
		{"a twin took over long ago", settledAt(at), ptr(other(2, 1, boot)), at, OwnVerdict{OwnFreeze, other(2, 1, boot)}},
		{"the twin counts before anything else", settledAt(at), ptr(other(12, 1, 0)), other(13, 1, boot), OwnVerdict{OwnFreeze, other(13, 1, boot)}},
		{"onto itself is no twin", settledAt(at), nil, Head{Seq: 9, Boot: boot, Onto: boot}, OwnVerdict{}},
	} {
		if got := c.s.DecideOwn(boot, c.settled, c.best); got != c.want {
			t.Errorf("%s: %v over seq %d, want %v over %d", c.name, got.Own, got.Over.Seq, c.want.Own, c.want.Over.Seq)
		}
	}
}

// Rule 13.
func TestRescue(t *testing.T) {
	reg := func(stamp hlc.Stamp, author byte) record.Register {
		return record.Register{Stamp: stamp, Author: record.DeviceID{author}}
	}
	now := time.UnixMilli(0)
	future := hlc.At(now.Add(hlc.MaxDrift)) + 1
	old := reg(5, 1)
	for _, c := range []struct {
		name   string
		next   *record.Register
		others []record.Register
		want   bool
	}{
		{"replaced by nothing", nil, nil, true},
		{"replaced by an older one", ptr(reg(4, 9)), nil, true},
		{"replaced by a lesser author", ptr(reg(5, 0)), nil, true},
		{"replaced by itself", &old, nil, false},
		{"replaced by a newer one", ptr(reg(6, 0)), nil, false},
		{"lost, but another feed holds it", nil, []record.Register{reg(1, 1), old}, false},
		{"lost, but another feed has a newer one", nil, []record.Register{reg(6, 0)}, false},
		{"lost, and the others are older", nil, []record.Register{reg(4, 9), reg(5, 0)}, true},
		{"replaced by one of the future", ptr(reg(future, 1)), nil, true},
		{"lost, but another feed has one of the future", nil, []record.Register{reg(future, 2)}, true},
	} {
		if got := Rescue(now, old, c.next, c.others); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if Rescue(now, reg(future, 1), ptr(old), nil) {
		t.Error("one of the future is rescued from one that is believed")
	}
}

// What follows says the decisions a second time, in the words of the model that found the rules: a feed
// there is entries, settled head, cursor, floor and best head.

// drawState draws a reachable state: settled implies floor and no cursor, a cursor implies entries, best
// is never below settled.
func drawState(t *rapid.T) State {
	var s State
	s.Count = rapid.Uint64Range(0, 2).Draw(t, "count")
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0: // never settled, or a diff was cut
		s.Floor = drawHead(t)
	case 1: // a delta was cut
		s.Floor = drawHead(t)
		s.Count = 2
		s.Cursor = &Cursor{Seq: rapid.Uint64Range(1, 6).Draw(t, "cursor"), GC: rapid.Uint64Range(0, 6).Draw(t, "cursor gc")}
		s.Cursor.High = rapid.Uint64Range(s.Cursor.Seq, 7).Draw(t, "high")
	default:
		h := drawHead(t)
		s.Settled, s.Floor, s.Best = &h, h, h
		if h.IsGenesis() {
			s.Count = 0
		}
	}
	if b := drawHead(t); b.Compare(s.Best) > 0 {
		s.Best = b
	}
	return s
}

func show(h Head) string {
	return fmt.Sprintf("{seq %d gc %d root %x boot %d onto %d}", h.Seq, h.GC, h.Root[:2], h.Boot, h.Onto)
}

func showState(s State) string {
	out := fmt.Sprintf("floor %s best %s, %d entries", show(s.Floor), show(s.Best), s.Count)
	if s.Settled != nil {
		out = "settled " + show(*s.Settled) + " " + out
	}
	if s.Cursor != nil {
		out += fmt.Sprintf(", cursor %+v", *s.Cursor)
	}
	return out
}

// greater is the model's order of heads.
func greater(a, b Head) bool {
	ra, rb := string(a.Root[:]), string(b.Root[:])
	return a.Seq > b.Seq || a.Seq == b.Seq && (ra > rb || ra == rb && a.GC > b.GC)
}

// modelRoute is the model's pull up to the choice of a road.
func modelRoute(s State, donor Head, fallback bool) (Road, uint64) {
	settled := s.Settled != nil
	if settled && !greater(donor, *s.Settled) {
		return RoadNone, 0
	}
	if !settled && greater(s.Floor, donor) && !fallback {
		return RoadBlocked, 0
	}
	position, known := uint64(0), false
	limit := uint64(0)
	if settled {
		position, limit, known = s.Settled.Seq, s.Settled.Seq, true
	} else if s.Cursor != nil {
		position, limit, known = s.Cursor.Seq, max(s.Cursor.Seq, s.Cursor.GC), true
	}
	if s.Count == 0 && !known || settled && s.Count == 0 && donor.GC > s.Settled.Seq {
		position, limit, known = 0, donor.GC, true
	}
	if known && donor.GC <= limit && position < donor.Seq {
		return RoadDelta, position
	}
	return RoadDiff, 0
}

func TestRouteIsTheModels(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		for range 30 { // so that every outcome is met for sure
			s, donor, orphaned := drawState(t), drawHead(t), rapid.Bool().Draw(t, "orphaned")
			road, from := modelRoute(s, donor, orphaned)
			got := s.DecideRoute(donor, orphaned)
			if got.Road != road || got.From != from {
				t.Fatalf("%s from %s: %+v, the model takes %v from %d", showState(s), show(donor), got, road, from)
			}
			seen[got.Road.String()+" "+got.Reason]++
		}
	})
	for _, want := range []string{"none in_step", "blocked below_floor", "delta position", "delta cursor", "delta empty", "diff fork", "diff gc", "diff interrupted"} {
		if seen[want] == 0 {
			t.Errorf("%s was never reached: %v", want, seen)
		}
	}
}

// modelPush is the model's deliver: true if the batch is tried. The model knows no node that was never
// settled: a fresh one is settled at genesis.
func modelPush(s State, prev, next Head) bool {
	at := s.Settled
	if at == nil && s.Count == 0 && s.Cursor == nil && s.Floor.IsGenesis() {
		at = &Head{}
	}
	if at == nil || greater(*at, prev) || greater(prev, *at) {
		return false
	}
	return greater(next, *at)
}

// modelContinues is the model's choice of the head a push may continue. Onto genesis every entry is
// sent, so there its gc says nothing.
func modelContinues(prev, own Head) bool {
	return prev.Seq < own.Seq && (own.GC <= prev.Seq || prev.Seq == 0)
}

func TestPushIsTheModels(t *testing.T) {
	seen := map[Push]int{}
	rapid.Check(t, func(t *rapid.T) {
		for range 30 { // so that every outcome is met for sure
			s, prev, next := drawState(t), drawHead(t), drawHead(t)
			if s.Settled != nil && rapid.Bool().Draw(t, "continues") {
				prev = *s.Settled
			}
			if got := Continues(prev, next); got != modelContinues(prev, next) {
				t.Fatalf("%s continues %s: %v", show(next), show(prev), got)
			}
			got := s.DecidePush(prev, next)
			if want := modelPush(s, prev, next) && modelContinues(prev, next); (got == PushApply) != want {
				t.Fatalf("%s, push %s to %s: %v, the model tries it: %v", showState(s), show(prev), show(next), got, want)
			}
			if got == PushUnsettled && s.Settled != nil || got == PushKnown && greater(next, *s.Settled) {
				t.Fatalf("%s, push %s to %s: %v", showState(s), show(prev), show(next), got)
			}
			seen[got]++
		}
	})
	for p := PushApply; p <= PushGap; p++ {
		if seen[p] == 0 {
			t.Errorf("%v was never reached: %v", p, seen)
		}
	}
}

// modelOwn is the model's learn for an owner: what it does, and about which head.
func modelOwn(at Head, boot uint64, settled *Head, best Head) (Own, Head) {
	var shown []Head
	if settled != nil {
		shown = append(shown, *settled)
	}
	shown = append(shown, best)
	for _, h := range shown {
		if h.Boot != boot && h.Onto == boot {
			return OwnFreeze, h
		}
	}
	same := func(a, b Head) bool { return !greater(a, b) && !greater(b, a) }
	var unrecognised []Head
	for _, h := range shown {
		if h.Seq >= at.Seq && !same(h, at) {
			unrecognised = append(unrecognised, h)
		}
	}
	if len(unrecognised) == 0 {
		return OwnIgnore, Head{}
	}
	for _, h := range unrecognised {
		if settled != nil && same(h, *settled) {
			return OwnAbsorb, *settled
		}
	}
	top := unrecognised[0]
	for _, h := range unrecognised {
		if h.Seq > top.Seq {
			top = h
		}
	}
	return OwnJump, top
}

func TestOwnIsTheModels(t *testing.T) {
	seen := map[Own]int{}
	rapid.Check(t, func(t *rapid.T) {
		for range 30 { // so that every outcome is met for sure
			s, best := settledAt(drawHead(t)), drawHead(t)
			if s.Settled.IsGenesis() {
				s = State{}
			}
			var settled *Head
			if rapid.Bool().Draw(t, "donor settled") {
				h := drawHead(t)
				settled = &h
				if h.Compare(best) > 0 {
					best = h // a node has seen what it is settled at
				}
			}
			boot := rapid.Uint64Range(1, 4).Draw(t, "own boot")
			own, over := modelOwn(s.Floor, boot, settled, best)
			got := s.DecideOwn(boot, settled, best)
			if got.Own != own || !got.Over.Same(over) && own != OwnFreeze || own == OwnFreeze && got.Over.Onto != boot {
				t.Fatalf("%s shown best %s and settled %v: %v over %s, the model says %v over %s", showState(s), show(best), settled != nil, got.Own, show(got.Over), own, show(over))
			}
			seen[got.Own]++
		}
	})
	for o := OwnIgnore; o <= OwnFreeze; o++ {
		if seen[o] == 0 {
			t.Errorf("%v was never reached: %v", o, seen)
		}
	}
}

// live is a live set: seq by key, negative for a tombstone.
type live map[int]int

// after returns the live set with the entries of o beyond position put onto it, up to the cut-th of
// them, and the last seq put.
func (l live) after(position uint64, o live, cut int) (live, uint64) {
	out, last := maps.Clone(l), position
	keys := slices.SortedFunc(maps.Keys(o), func(a, b int) int { return abs(o[a]) - abs(o[b]) })
	for _, k := range keys {
		if seq := uint64(abs(o[k])); seq > position && cut > 0 {
			out[k], last, cut = o[k], seq, cut-1
		}
	}
	return out, last
}

// drop returns the live set without the tombstones up to gc.
func (l live) drop(gc uint64) live {
	out := live{}
	for k, s := range l {
		if s > 0 || uint64(-s) > gc {
			out[k] = s
		}
	}
	return out
}

func abs(n int) int { return max(n, -n) }

const whole = 1 << 30 // a delta that is not cut

// drawHistory draws the heads an owner signed, the first being genesis, with their live sets. It never
// goes back.
func drawHistory(t *rapid.T) (heads []Head, sets []live) {
	heads, sets = []Head{{}}, []live{{}}
	for range rapid.IntRange(1, 16).Draw(t, "history") {
		last := heads[len(heads)-1]
		set, next := maps.Clone(sets[len(sets)-1]), head(last.Seq, last.GC, 0)
		switch rapid.IntRange(0, 5).Draw(t, "operation") {
		case 0, 1: // collect
			next.Seq++
			next.GC = rapid.Uint64Range(last.GC, last.Seq).Draw(t, "gc")
		case 2, 3:
			next.Seq++
			set[rapid.IntRange(0, 3).Draw(t, "gone")] = -int(next.Seq)
		default:
			for range rapid.IntRange(1, 2).Draw(t, "puts") {
				next.Seq++
				set[rapid.IntRange(0, 3).Draw(t, "key")] = int(next.Seq)
			}
		}
		set = set.drop(next.GC)
		next.Count, next.Root = uint64(len(set)), Hash{1, byte(next.Seq)}
		heads, sets = append(heads, next), append(sets, set)
	}
	return heads, sets
}

func holding(h *Head, c *Cursor, floor Head, set live) State {
	return State{Settled: h, Cursor: c, Floor: floor, Best: floor, Count: uint64(len(set))}
}

// Where the history never went back, every push and every delta that is allowed gives exactly the live
// set of the donor, from wherever one is settled (rules 8, 9 and 11).
func TestAllowedRoadsAreExact(t *testing.T) {
	reached := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		heads, sets := drawHistory(t)
		for i, at := range heads {
			s := holding(&at, nil, at, sets[i])
			for j, donor := range heads {
				if Continues(at, donor) {
					if got := s.DecidePush(at, donor); got != PushApply {
						t.Fatalf("%s continues %s, but the receiver says %v", show(donor), show(at), got)
					}
					if got, _ := sets[i].after(at.Seq, sets[j], whole); !maps.Equal(got.drop(donor.GC), sets[j]) {
						t.Fatalf("push from %s to %s gives %v, want %v", show(at), show(donor), got.drop(donor.GC), sets[j])
					}
					reached["push"]++
				}
				route := s.DecideRoute(donor, false)
				if j <= i != (route.Road == RoadNone) {
					t.Fatalf("from %s to %s: %+v", show(at), show(donor), route)
				}
				if route.Road == RoadDelta {
					if got, _ := sets[i].after(route.From, sets[j], whole); !maps.Equal(got.drop(donor.GC), sets[j]) {
						t.Fatalf("delta %+v from %s to %s gives %v, want %v", route, show(at), show(donor), got.drop(donor.GC), sets[j])
					}
				}
				reached[route.Road.String()+" "+route.Reason]++
			}
		}
	})
	for _, want := range []string{"push", "none in_step", "delta position", "delta empty", "diff gc"} {
		if reached[want] == 0 {
			t.Errorf("%s was never reached: %v", want, reached)
		}
	}
}

// A delta that is cut at any entry, any number of times, and goes on from any donor gives exactly the
// last donor's live set, unless that one is behind a donor drawn from before (rules 10 and 11).
func TestCutDeltasAreExact(t *testing.T) {
	reached := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		for range 40 { // so that every outcome is met for sure
			heads, sets := drawHistory(t)
			first := rapid.IntRange(0, len(heads)-1).Draw(t, "settled at first")
			held, s := sets[first], holding(&heads[first], nil, heads[first], sets[first])
			for range rapid.IntRange(1, 3).Draw(t, "cuts") {
				i := rapid.IntRange(0, len(heads)-1).Draw(t, "donor")
				route := s.DecideRoute(heads[i], false)
				if route.Road != RoadDelta {
					continue
				}
				got, last := held.after(route.From, sets[i], rapid.IntRange(1, 4).Draw(t, "page"))
				if last == route.From {
					continue // the donor had nothing new to put
				}
				c := &Cursor{Seq: last, GC: heads[i].GC, High: heads[i].Seq}
				if s.Cursor != nil {
					c.High = max(c.High, s.Cursor.High)
				}
				held, s = got, holding(nil, c, s.Floor, got)
				reached["cut"]++
			}
			if s.Cursor == nil {
				continue
			}
			for j, donor := range heads {
				route := s.DecideRoute(donor, false)
				if reached[route.Road.String()]++; route.Road != RoadDelta {
					continue
				}
				got, _ := held.after(route.From, sets[j], whole)
				if maps.Equal(got.drop(donor.GC), sets[j]) {
					continue
				}
				if donor.Seq >= s.Cursor.High {
					t.Fatalf("delta %+v to %s over %s gives %v, want %v", route, show(donor), showState(s), got.drop(donor.GC), sets[j])
				}
				reached["older donor"]++ // holds what that donor has not yet; the root check finds it
			}
		}
	})
	for _, want := range []string{"cut", "delta", "diff", "older donor"} {
		if reached[want] == 0 {
			t.Errorf("%s was never reached: %v", want, reached)
		}
	}
}

func TestLag(t *testing.T) {
	for _, c := range []struct {
		s      State
		lag    uint64
		inStep bool
	}{
		{State{}, 0, false},
		{State{Best: head(7, 0, 1)}, 7, false},
		{settledAt(head(7, 0, 1)), 0, true},
		{State{Settled: ptr(head(5, 0, 1)), Best: head(7, 0, 1)}, 2, false},
		{State{Settled: ptr(head(7, 0, 1)), Best: head(7, 0, 2)}, 0, false},
		{State{Settled: ptr(head(8, 0, 1)), Best: head(7, 0, 2)}, 0, true},
	} {
		if c.s.Lag() != c.lag || c.s.InStep() != c.inStep {
			t.Errorf("%+v: lag %d, in step %v", c.s, c.s.Lag(), c.s.InStep())
		}
	}
}

func TestNames(t *testing.T) {
	if got := fmt.Sprint(PushApply, PushKnown, PushUnsettled, PushGap, RoadNone, RoadDelta, RoadDiff, RoadBlocked, OwnIgnore, OwnAbsorb, OwnJump, OwnFreeze); got !=
		"apply known unsettled gap none delta diff blocked ignore absorb jump freeze" {
		t.Error(got)
	}
}
