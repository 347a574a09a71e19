package store

import (
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/kv/memory"
	"peerdex/record"
)

// What was made of winners holds until one of their kind changes, a device feed goes, or a register that lay
// in the future comes to be believed.
func TestEdition(t *testing.T) {
	start := time.Now()
	now := start
	b := onMemory(t, 2, memory.New(memory.Config{}), nil)
	b.cfg.Now = func() time.Time { return now }
	a := newDevice(t, 1)
	names := func() (out string, e Edition) {
		e, err := b.Winners(func(r record.Register) error {
			out += string(r.Value)
			return nil
		}, record.TagEntity, record.EntryEntity)
		if err != nil {
			t.Fatal(err)
		}
		return out, e
	}
	tagged := func(value string, at hlc.Stamp) record.Register {
		return record.Register{Entity: record.Tag(record.TagID{value[0]}), Field: record.FieldName, Author: a.id, Stamp: at, Value: []byte(value)}
	}
	var last Edition
	if b.Current(last) {
		t.Error("the zero edition is current")
	}
	want := func(what, seen string, current bool) {
		t.Helper()
		if last.kinds != nil && b.Current(last) != current {
			t.Errorf("%s: current is %v", what, !current)
		}
		var got string
		if got, last = names(); got != seen {
			t.Errorf("%s: winners are %q, want %q", what, got, seen)
		}
	}
	id := deviceFeed(a)
	want("at first", "", true)
	bring(t, b, a, id, Put{Record: tagged("one", hlc.At(start))})
	want("a tag came", "one", false)
	want("nothing happened", "one", true)
	if err := b.SetRegisters(name(b.id, "desktop")); err != nil {
		t.Fatal(err)
	}
	want("another kind changed", "one", true)
	late := hlc.At(start.Add(time.Hour)) + 1
	bring(t, b, a, feed.ID{Device: a.id}, Put{Record: tagged("two", late)})
	want("a register of the future came", "one", false)
	now = late.Time().Add(-hlc.MaxDrift)
	want("a stamp too early", "one", true)
	now = now.Add(time.Millisecond)
	want("its time has come", "onetwo", false)
	now = start
	want("the clock stepped back", "one", false)
	if err := b.Drop(id); err != nil {
		t.Fatal(err)
	}
	want("the feed went", "", false)
}

// bring commits puts at from and applies them at to.
func bring(t *testing.T, to, from *device, id feed.ID, puts ...Put) Result {
	t.Helper()
	before, _ := from.State(id)
	from.commit(t, id, puts...)
	after, _ := from.State(id)
	seq := uint64(0)
	if before.Settled != nil {
		seq = before.Settled.Seq
	}
	res, err := to.Apply(Change{Feed: id, Entries: from.after(t, id, seq), Settle: after.Settled})
	if err != nil {
		t.Fatal(err)
	}
	return res
}
