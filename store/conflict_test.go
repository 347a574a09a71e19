package store

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"peerdex/hlc"
	"peerdex/kv/memory"
	"peerdex/record"

	"pgregory.net/rapid"
)

var shared = record.Register{Entity: record.Tag(record.TagID{9}), Field: record.FieldName}

// write makes d write a value into the shared field with a stamp, having seen prev.
func write(t *testing.T, d *device, stamp, prev hlc.Stamp, value string) record.Register {
	t.Helper()
	reg := shared
	reg.Author, reg.Stamp, reg.Prev, reg.Value = d.id, stamp, prev, []byte(value)
	d.commit(t, deviceFeed(d), Put{Record: reg})
	return reg
}

// take brings all of from's device feed to to.
func take(t *testing.T, to, from *device) Result {
	t.Helper()
	id := deviceFeed(from)
	at, _ := to.State(id)
	st, _ := from.State(id)
	seq := uint64(0)
	if at.Settled != nil {
		seq = at.Settled.Seq
	}
	res, err := to.Apply(Change{Feed: id, Entries: from.after(t, id, seq), Settle: st.Settled})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// Two devices write one field apart. Whoever comes to hold both counts one conflict, whichever came first and
// whether its own value wins or loses, and says who won.
func TestConflictIsCounted(t *testing.T) {
	for name, stamps := range map[string][2]hlc.Stamp{"by stamp": {1, 2}, "by tie": {5, 5}} {
		a, b, c, d := newDevice(t, 1), newDevice(t, 2), newDevice(t, 3), newDevice(t, 4)
		first, second := write(t, a, stamps[0], 0, "one"), write(t, b, stamps[1], 0, "two")
		won, lost := second, first
		if first.Compare(second) > 0 {
			won, lost = first, second
		}
		for _, to := range []*device{c, d} {
			order := []*device{a, b}
			if to == d {
				order = []*device{b, a}
			}
			if res := take(t, to, order[0]); res.Conflicts.Total() != 0 {
				t.Errorf("%s: a conflict with nothing: %+v", name, res.Conflicts)
			}
			wantConflict(t, name, take(t, to, order[1]).Conflicts, won, lost)
		}
		wantConflict(t, name, take(t, a, b).Conflicts, won, lost)
		wantConflict(t, name, take(t, b, a).Conflicts, won, lost)
		for _, to := range []*device{a, b, c, d} {
			if got, ok, err := to.Register(shared.Entity, shared.Field); err != nil || !ok || got.Compare(won) != 0 {
				t.Errorf("%s: winner %+v, %v, %v", name, got, ok, err)
			}
		}
	}
}

func wantConflict(t *testing.T, name string, c Conflicts, won, lost record.Register) {
	t.Helper()
	want := Conflicts{By: [rules]int{ByStamp: 1}, Few: []Conflict{{won, lost}}}
	if won.Stamp == lost.Stamp {
		want.By = [rules]int{ByTie: 1}
	}
	if fmt.Sprint(c) != fmt.Sprint(want) {
		t.Errorf("%s: conflicts %+v, want %+v", name, c, want)
	}
}

// What is no conflict: equal values, a value that its author had seen, the same value at another seq, and
// copies of it that other devices rescued.
func TestNoConflict(t *testing.T) {
	a, b, c, d := newDevice(t, 1), newDevice(t, 2), newDevice(t, 3), newDevice(t, 4)
	none := func(what string, res Result) {
		t.Helper()
		if n := res.Conflicts.Total() + len(res.Conflicts.Few); n != 0 {
			t.Errorf("%s is a conflict: %+v", what, res.Conflicts)
		}
	}
	write(t, a, 10, 0, "one")
	write(t, b, 20, 10, "two")
	write(t, d, 15, 0, "two")
	none("the first", take(t, c, b))
	none("what was seen by who replaced it", take(t, c, a))
	wantConflict(t, "of three", take(t, c, d).Conflicts, record.Register{Entity: shared.Entity, Field: shared.Field, Author: d.id, Stamp: 15, Value: []byte("two")},
		record.Register{Entity: shared.Entity, Field: shared.Field, Author: a.id, Stamp: 10, Value: []byte("one")})
	// d's feed is written anew, register for register, as after an absorption
	st, _ := d.State(deviceFeed(d))
	if _, err := d.AbsorbRegisters(*st.Settled, nil, 0); err != nil {
		t.Fatal(err)
	}
	none("the same at another seq", take(t, c, d))
	// and b takes a copy of a's into its own feed
	seen, _, err := a.Register(shared.Entity, shared.Field)
	if err != nil {
		t.Fatal(err)
	}
	e, f := newDevice(t, 5), newDevice(t, 6)
	e.commit(t, deviceFeed(e), Put{Record: seen})
	none("a copy of what is held", take(t, c, e))
	none("a copy", take(t, f, e))
	none("what was held as a copy", take(t, f, a))
	if got := take(t, f, d).Conflicts; got.By[ByStamp] != 1 {
		t.Errorf("a value and two copies of another are %+v", got)
	}
}

// While two devices write apart, it is one conflict, however often they write and whoever hears when.
func TestConflictOfManyEdits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		devices := make([]*device, 3)
		for i := range devices {
			id, key := newKey(byte(i + 1))
			s, err := New(memory.New(memory.Config{}), config(byte(i+1), key))
			if err != nil {
				rt.Fatal(err)
			}
			devices[i] = &device{s, id, key}
		}
		c := devices[2]
		found := 0
		hear := func(d *device) {
			res := take(t, c, d)
			found += res.Conflicts.Total()
		}
		for i := range rapid.IntRange(2, 12).Draw(rt, "steps") {
			d := devices[rapid.IntRange(0, 1).Draw(rt, "who")]
			reg := shared
			reg.Value = fmt.Append(nil, i)
			out, err := d.Edit([]record.Register{reg})
			if err != nil || len(out.Written) != 1 || out.Written[0].Prev != 0 {
				rt.Fatalf("%+v, %v", out, err)
			}
			if rapid.Bool().Draw(rt, "heard") {
				hear(d)
			}
		}
		for _, d := range devices[:2] {
			if st, _ := d.State(deviceFeed(d)); st.Settled == nil {
				return // wrote nothing
			}
		}
		for _, d := range devices[:2] {
			st, _ := d.State(deviceFeed(d))
			if at, _ := c.State(deviceFeed(d)); at.Settled == nil || *at.Settled != *st.Settled {
				hear(d)
			}
		}
		if found != 1 {
			rt.Fatalf("%d conflicts, want 1", found)
		}
	})
}

// An edit is above whatever its author sees, however far ahead that is, and says what it saw; what is there
// already is left alone; nothing is written if one of the edits is invalid.
func TestEdit(t *testing.T) {
	a := newDevice(t, 1)
	var clock *hlc.Clock
	b := onMemory(t, 2, memory.New(memory.Config{}), nil)
	clock = hlc.NewClock(time.Now, 0, func(hlc.Stamp) error { return nil })
	b.cfg.Clock, b.cfg.Observe = clock.Now, func(s hlc.Stamp) {
		if err := clock.Observe(s); err != nil {
			t.Error(err)
		}
	}
	ahead := hlc.At(time.Now().Add(time.Minute))
	write(t, a, ahead, 0, "one")
	observe := b.cfg.Observe
	b.cfg.Observe = nil // not yet told when the edit begins
	take(t, b, a)
	b.cfg.Observe = observe
	edit := func(values ...string) Edited {
		t.Helper()
		var regs []record.Register
		for i, v := range values {
			reg := shared
			reg.Entity, reg.Value = record.Tag(record.TagID{9 + byte(i)}), []byte(v)
			regs = append(regs, reg)
		}
		out, err := b.Edit(regs)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := edit("one"); len(out.Written) != 0 {
		t.Errorf("written again: %+v", out)
	}
	st, _ := b.State(deviceFeed(b))
	if st.Settled != nil {
		t.Errorf("signed for nothing at %d", st.Settled.Seq)
	}
	out := edit("two", "other")
	if len(out.Written) != 2 || out.Written[0].Stamp <= ahead || out.Written[0].Prev != ahead || out.Written[1].Prev != 0 ||
		out.Written[1].Stamp <= out.Written[0].Stamp || out.Written[0].Author != b.id {
		t.Errorf("written %+v over %v", out.Written, ahead)
	}
	if won, _, err := b.Register(shared.Entity, shared.Field); err != nil || string(won.Value) != "two" {
		t.Errorf("winner %+v, %v", won, err)
	}
	if again := edit("three"); len(again.Written) != 1 || again.Written[0].Prev != ahead {
		t.Errorf("what was seen of others is kept: %+v", again.Written)
	}
	both := []record.Register{shared, shared}
	both[0].Value, both[1].Value = []byte("x"), []byte("y")
	if out, err := b.Edit(both); err != nil || len(out.Written) != 1 || string(out.Written[0].Value) != "y" {
		t.Errorf("two values for one field: %+v, %v", out, err)
	}
	before, _ := b.State(deviceFeed(b))
	bad := record.Register{Entity: record.Entity{Kind: record.TagEntity, ID: "short"}, Field: "x"}
	if _, err := b.Edit([]record.Register{shared, bad}); err == nil {
		t.Error("an invalid edit is accepted")
	}
	if _, err := b.Edit([]record.Register{shared, {Entity: record.Device(a.id), Field: "x"}}); err == nil {
		t.Error("a field of another device is written")
	}
	if after, _ := b.State(deviceFeed(b)); *after.Settled != *before.Settled {
		t.Error("a refused edit wrote something")
	}
}

// A value from the future is no value to be seen: it is neither replaced nor seen, and an edit beside it
// conflicts with it. Where this device kept it for another, it is found among what was set aside.
func TestEditBesideTheFuture(t *testing.T) {
	a, b := newDevice(t, 1), newDevice(t, 2)
	future := write(t, a, hlc.At(time.Now().Add(time.Hour)), 0, "future")
	take(t, b, a)
	reg := shared
	reg.Value = []byte("now")
	out, err := b.Edit([]record.Register{reg})
	if err != nil || len(out.Written) != 1 || out.Written[0].Prev != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	wantConflict(t, "with the future", out.Conflicts, future, out.Written[0])
	if won, _, err := b.Register(shared.Entity, shared.Field); err != nil || string(won.Value) != "now" {
		t.Errorf("winner %+v, %v", won, err)
	}
	wantConflict(t, "at the other", take(t, a, b).Conflicts, future, out.Written[0])

	c := newDevice(t, 3)
	c.commit(t, deviceFeed(c), Put{Record: future})
	if out, err := c.Edit([]record.Register{reg}); err != nil || len(out.Written) != 1 {
		t.Errorf("beside a rescued value: %+v, %v", out, err)
	}
	if won, _, err := c.Register(shared.Entity, shared.Field); err != nil || string(won.Value) != "now" {
		t.Errorf("winner %+v, %v", won, err)
	}
	if aside, err := c.SetAside(); err != nil || len(aside) != 1 || aside[0].Compare(future) != 0 {
		t.Errorf("set aside %+v, %v", aside, err)
	}
}

// A device whose stamps have run away from its clock is told so: it would write what nobody sees, in the
// place of what it has written before.
func TestEditAhead(t *testing.T) {
	a := newDevice(t, 1)
	reg := shared
	reg.Value = []byte("seen")
	if err := a.SetRegisters(reg); err != nil {
		t.Fatal(err)
	}
	hour := time.Now().Add(-time.Hour)
	a.cfg.Now = func() time.Time { return hour }
	reg.Value = []byte("unseen")
	if err := a.SetRegisters(reg); !errors.Is(err, ErrAhead) {
		t.Errorf("an edit an hour ahead of the clock gives %v", err)
	}
	if err := a.SetRegisters(name(a.id, "laptop")); err != nil {
		t.Errorf("its own name: %v", err)
	}
	if won, _, err := a.Register(record.Device(a.id), record.FieldName); err != nil || string(won.Value) != "laptop" {
		t.Errorf("its name is %q, %v", won.Value, err)
	}
}

// A device speaks for itself, whatever its clock said before; a copy of its word with the last stamp of all
// in another's feed does not silence it.
func TestOwnersWord(t *testing.T) {
	a, b := newDevice(t, 1), newDevice(t, 2)
	id := deviceFeed(b)
	late := name(b.id, "2099")
	late.Author, late.Stamp = b.id, hlc.At(time.Now().AddDate(70, 0, 0))
	b.commit(t, id, Put{Record: late})
	if err := b.SetRegisters(name(b.id, "desktop")); err != nil {
		t.Fatal(err)
	}
	take(t, a, b)
	forged := name(b.id, "forged")
	forged.Author, forged.Stamp = b.id, math.MaxUint64
	a.commit(t, deviceFeed(a), Put{Record: forged})
	take(t, b, a)
	for who, d := range map[string]*device{"A": a, "B": b} {
		if won, _, err := d.Register(record.Device(b.id), record.FieldName); err != nil || string(won.Value) != "desktop" {
			t.Errorf("%s calls B %q, %v", who, won.Value, err)
		}
	}
}

func BenchmarkEdit(b *testing.B) {
	a := newDevice(b, 1)
	const n = 10_000
	regs := make([]record.Register, n)
	for i := range regs {
		id := record.EntryID{byte(i), byte(i >> 8)}
		regs[i] = record.Register{Entity: record.Entry(a.id, location(1), id), Field: record.TagField(record.TagID{1})}
	}
	v := byte(0)
	for b.Loop() {
		v ^= 1
		for i := range regs {
			regs[i].Value = []byte{v}
		}
		if out, err := a.Edit(regs); err != nil || len(out.Written) != n {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "edits/s")
}

// One device makes an end of a tag that another renames, or merges, or merges one that another renames, neither
// having heard: whoever comes to hold both counts it once, whichever came first. Who has heard makes no conflict.
func TestConflictAboutATag(t *testing.T) {
	tag := record.Tag(record.TagID{9})
	field := func(name string, value ...byte) record.Register {
		return record.Register{Entity: tag, Field: name, Value: value}
	}
	name, end, into := field(record.FieldName, 'n', 'e', 'w'), field(record.FieldExists, 0), field(record.FieldInto, make([]byte, 16)...)
	for what, c := range map[string]struct {
		won, lost record.Register
		rule      Rule
	}{
		"deleted, renamed": {end, name, ByDelete}, "deleted, merged": {end, into, ByDelete}, "merged, renamed": {into, name, ByMerge},
	} {
		for _, lostFirst := range []bool{true, false} {
			a, b, c1, d1, e := newDevice(t, 1), newDevice(t, 2), newDevice(t, 3), newDevice(t, 4), newDevice(t, 5)
			edit := func(d *device, regs ...record.Register) Edited {
				t.Helper()
				out, err := d.Edit(regs)
				if err != nil || len(out.Written) != len(regs) || out.Conflicts.Total() != 0 {
					t.Fatalf("%s: %+v, %v", what, out, err)
				}
				return out
			}
			made := edit(a, field(record.FieldName, 'o', 'l', 'd'), field(record.FieldExists, 1))
			take(t, b, a)
			take(t, c1, a)
			pair := []record.Register{c.won, c.lost}
			if lostFirst {
				slices.Reverse(pair)
			}
			first, second := edit(b, pair[0]).Written[0], edit(c1, pair[1]).Written[0]
			won, lost := first, second
			if lostFirst {
				won, lost = second, first
			}
			if first.Prev != made.Written[1].Stamp {
				t.Errorf("%s: what was seen of the tag is %v, not %v", what, first.Prev, made.Written[1].Stamp)
			}
			want := Conflicts{Few: []Conflict{{won, lost}}}
			want.By[c.rule] = 1
			for _, to := range []*device{d1, e} {
				order := []*device{a, b, c1}
				if to == e {
					slices.Reverse(order)
				}
				var got Conflicts
				for _, from := range order {
					got.add(take(t, to, from).Conflicts)
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s: %+v, want %+v", what, got, want)
				}
			}
			if got := take(t, c1, b).Conflicts; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: at an author %+v, want %+v", what, got, want)
			}
			if got := take(t, b, c1).Conflicts; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: at the other %+v, want %+v", what, got, want)
			}
			// again, by who has heard of all, and again by who goes on
			edit(b, field(record.FieldName, 'x'))
			for _, to := range []*device{c1, d1, e} {
				if got := take(t, to, b).Conflicts; got.Total() != 0 {
					t.Errorf("%s: who had heard makes a conflict: %+v", what, got)
				}
			}
		}
	}
}

// D10: what one device updates and another, having seen that, deletes is gone wherever both come, in whatever
// order; that is no conflict.
func TestUpdateThenDeleteInAnyOrder(t *testing.T) {
	for _, reg := range []record.Register{
		{Entity: record.Content(record.Hash{1}), Field: record.FieldNote},
		{Entity: record.Content(record.Hash{1}), Field: record.TagField(record.TagID{9})},
		{Entity: record.Tag(record.TagID{9}), Field: record.FieldExists},
	} {
		a, b := newDevice(t, 1), newDevice(t, 2)
		edit := func(d *device, value ...byte) {
			t.Helper()
			reg.Value = value
			if out, err := d.Edit([]record.Register{reg}); err != nil || len(out.Written) != 1 {
				t.Fatalf("%+v, %v", out, err)
			}
		}
		gone := []byte{0}
		if reg.Field == record.FieldNote {
			gone = nil
		}
		edit(a, 2)
		edit(a, 1)
		take(t, b, a)
		edit(b, gone...)
		inOrder, outOfOrder := newDevice(t, 3), newDevice(t, 4)
		for to, order := range map[*device][]*device{inOrder: {a, b}, outOfOrder: {b, a}, a: {b}} {
			for _, from := range order {
				if n := take(t, to, from).Conflicts.Total(); n != 0 {
					t.Errorf("%s: %d conflicts", reg.Field, n)
				}
			}
		}
		for _, d := range []*device{a, b, inOrder, outOfOrder} {
			if won, ok, err := d.Register(reg.Entity, reg.Field); err != nil || !ok || won.Author != b.id || string(won.Value) != string(gone) {
				t.Errorf("%s is %+v, %v, %v", reg.Field, won, ok, err)
			}
		}
	}
}
