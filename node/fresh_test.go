package node

import (
	"slices"
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
)

func TestFreshOf(t *testing.T) {
	signed, heard := time.UnixMilli(1_700_000_000_000), time.UnixMilli(1_700_000_060_000)
	older, newer := feed.Head{Seq: 4, Stamp: hlc.At(signed)}, feed.Head{Seq: 5, Stamp: hlc.At(signed.Add(time.Second))}
	inStep, behind := feed.State{Settled: &older, Best: older}, feed.State{Settled: &older, Best: newer}
	for what, c := range map[string]struct {
		st      feed.State
		contact contact
		asOf    time.Time
		current bool
	}{
		"in step, connected":                    {inStep, contact{online: true, told: true, seen: heard, head: older}, heard, true},
		"in step, away":                         {inStep, contact{seen: heard, head: older}, heard, false},
		"in step, has told nothing yet":         {inStep, contact{online: true, seen: heard}, signed, false},
		"in step, never met":                    {inStep, contact{}, signed, false},
		"behind, connected":                     {behind, contact{online: true, told: true, seen: heard, head: newer}, signed, false},
		"behind by what was told just now":      {inStep, contact{online: true, told: true, seen: heard, head: newer}, signed, false},
		"behind by what was told, away":         {inStep, contact{seen: heard, head: newer}, signed, false},
		"behind by what a third device told":    {behind, contact{online: true, told: true, seen: heard, head: older}, signed, false},
		"nothing settled, connected":            {feed.State{Best: newer}, contact{online: true, told: true, seen: heard, head: newer}, time.Time{}, false},
		"nothing held of what was told":         {feed.State{}, contact{online: true, told: true, seen: heard, head: newer}, time.Time{}, false},
		"empty, connected":                      {feed.State{}, contact{online: true, told: true, seen: heard}, heard, true},
		"empty, away, seen since it was made":   {feed.State{}, contact{seen: heard, made: signed}, heard, false},
		"never told of, owner seen before that": {feed.State{}, contact{seen: signed, made: heard}, time.Time{}, false},
		"never told of, owner never seen":       {feed.State{}, contact{made: signed}, time.Time{}, false},
		"never told of, nothing of its owner":   {feed.State{}, contact{seen: heard}, time.Time{}, false},
	} {
		if asOf, current := freshOf(c.st, c.contact); !asOf.Equal(c.asOf) || current != c.current {
			t.Errorf("%s: as of %v, current %v; want %v, %v", what, asOf, current, c.asOf, c.current)
		}
	}
}

// What others answered for a device's lazy locations makes it less fresh, never fresher.
func TestDeviceAnswered(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	old := now.Add(-time.Minute)
	for what, c := range map[string]struct {
		asked   Asked
		asOf    time.Time
		current bool
	}{
		"by itself":          {Asked{Device: "a", Via: "a", AsOf: now}, now, true},
		"by another":         {Asked{Device: "a", Via: "b", AsOf: old}, old, false},
		"by nobody":          {Asked{Device: "a"}, time.Time{}, false},
		"of another's":       {Asked{Device: "b", Via: "c", AsOf: old}, now, true},
		"fresher than it is": {Asked{Device: "a", Via: "b", AsOf: now.Add(time.Minute)}, now, false},
	} {
		v := DeviceView{ID: "a", AsOf: now, Current: true}
		if v.answered([]Asked{c.asked}); !v.AsOf.Equal(c.asOf) || v.Current != c.current {
			t.Errorf("%s: as of %v, current %v", what, v.AsOf, v.Current)
		}
	}
}

// A device that knows that it lacks something says of that location, of its entries and of the device when it was
// whole, and of nothing that it is whole now, though the owner is connected; of a location that is whole it does.
func TestKnownToLackIsNotCurrent(t *testing.T) {
	a, b, _, folder, loc := pair(t)
	id, empty := locationFeed(a.self, loc), t.TempDir()
	other := a.index(empty)
	shown := func() (at, rest LocationView) {
		all, err := b.Locations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			switch v.ID {
			case loc.String():
				at = v
			case other.String():
				rest = v
			}
		}
		return at, rest
	}
	await(t, "all of A is current at B, the empty folder as well", func() bool {
		at, rest := shown()
		return at.Current && rest.Current && b.of(a).Current
	})
	if self := b.of(b); !self.Current || self.AsOf.IsZero() {
		t.Errorf("B of itself: %+v", self)
	}
	if _, err := b.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	touch(t, folder, "two")
	await(t, "B hears that there is more", func() bool { at, _ := shown(); return !at.Current })
	st, _ := b.store.State(id)
	want := st.Settled.Stamp.Time()
	at, rest := shown()
	if !at.Online || !at.AsOf.Equal(want) || !rest.Current {
		t.Errorf("the location behind: %+v; the other: %+v", at, rest)
	}
	if d := b.of(a); !d.Online || d.Current || d.AsOf.After(want) || d.AsOf.IsZero() {
		t.Errorf("the device: %+v", d)
	}
	l, err := b.List(t.Context(), ListQuery{Device: idText(a.self), Path: folder})
	if err != nil || l.Current || !l.Online || !l.AsOf.Equal(want) || len(l.Entries) != 1 || l.Entries[0].Current {
		t.Errorf("ls: %+v, %v", l, err)
	}
	names, res, err := b.foundBy(FindQuery{Text: "two"})
	i := slices.IndexFunc(res.Devices, func(d DeviceView) bool { return !d.Self })
	if err != nil || len(names) != 0 || i < 0 || res.Devices[i].Current {
		t.Errorf("find: %q, %+v, %v", names, res.Devices, err)
	}
	b.resume(nil)
	await(t, "all is current again", func() bool { return b.of(a).Current && len(b.names(a.self, loc)) == 2 })
	a.stop()
	await(t, "A is away", func() bool { return !b.of(a).Online })
	_, rest = shown()
	if d := b.of(a); d.Current || !d.AsOf.Equal(d.Seen) || !rest.AsOf.Equal(d.Seen) || rest.Current {
		t.Errorf("away: %+v, the empty folder %+v", d, rest)
	}
}
