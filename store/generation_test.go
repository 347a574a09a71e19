package store

import (
	"errors"
	"testing"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/kv/memory"
	"peerdex/record"
)

func certificate(n byte) record.Register {
	return record.Register{Entity: record.Member(record.DeviceID{n}), Field: record.FieldCert + "/x", Value: []byte{n}}
}

// The generation rises with every certificate that comes or goes, whoever wrote it, and with nothing else;
// it survives a restart.
func TestGeneration(t *testing.T) {
	a := newDevice(t, 1)
	eng := memory.New(memory.Config{})
	b := onMemory(t, 2, eng, nil)
	want := uint64(1)
	check := func(what string, rises bool, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if rises {
			want++
		}
		if got := b.Generation(); got != want {
			t.Fatalf("%s: generation %d, want %d", what, got, want)
		}
	}
	check("new store", false, nil)
	check("own name", false, b.SetRegisters(record.Register{Entity: record.Device(b.id), Field: record.FieldName, Value: []byte("b")}))
	check("own certificate", true, b.SetRegisters(certificate(1)))
	check("the same again", false, b.SetRegisters(certificate(1)))

	if err := a.SetRegisters(record.Register{Entity: record.Device(a.id), Field: record.FieldName, Value: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	pull := func() error {
		st, _ := a.State(feed.ID{Device: a.id})
		_, err := b.Apply(Change{Feed: st.Feed, Entries: a.after(t, st.Feed, 0), Settle: st.Settled, Admitted: b.Generation()})
		return err
	}
	check("another's name", false, pull())
	if err := a.SetRegisters(certificate(2)); err != nil {
		t.Fatal(err)
	}
	check("another's certificate", true, pull())
	check("raised", true, b.Raise())

	again, err := New(eng, config(2, b.key))
	if err != nil || again.Generation() != want {
		t.Errorf("after a restart: generation %d, %v, want %d", again.Generation(), err, want)
	}
	check("another's feed dropped", true, b.Drop(feed.ID{Device: a.id}))
}

// Nothing that was let in under another generation commits (I12), whatever road it came by.
func TestNothingCommitsUnderAnotherGeneration(t *testing.T) {
	a, b := newDevice(t, 1), newDevice(t, 2)
	loc := feed.ID{Device: a.id, Location: location(1)}
	h := a.commit(t, loc, file(1, "one"), file(2, "two"))
	entries := a.after(t, loc, 0)
	mine := b.commit(t, feed.ID{Device: b.id, Location: location(2)}, file(1, "mine"))
	before := b.Generation()
	if err := b.SetRegisters(certificate(9)); err != nil {
		t.Fatal(err)
	}
	under := func(g uint64) map[string]error {
		_, page := b.Apply(Change{Feed: loc, Entries: entries[:1], Cursor: &feed.Cursor{Seq: 1, High: 2}, Admitted: g,
			Within: func(kv.Tx, *Result) error { t.Errorf("generation %d got in", g); return nil }})
		_, push := b.Apply(Change{Feed: loc, Prev: &feed.Head{Feed: loc}, Entries: entries, Settle: &h, Admitted: g})
		_, head := b.Observe([]feed.Head{h}, g)
		_, registers := b.AbsorbRegisters(feed.Head{Feed: feed.ID{Device: b.id}}, nil, g)
		_, sweep := b.Sweep(loc, 1, nil, g)
		return map[string]error{"page": page, "sweep": sweep, "push": push, "head": head, "absorbed registers": registers, "absorbed entries": b.AbsorbEntries(mine, nil, g)}
	}
	for _, g := range []uint64{before, b.Generation() + 1} {
		for what, err := range under(g) {
			if !errors.Is(err, ErrGeneration) {
				t.Errorf("%s under generation %d of %d: %v", what, g, b.Generation(), err)
			}
		}
	}
	if st, known := b.State(loc); known || st.Best != (feed.Head{}) {
		t.Errorf("something came in: %+v", st)
	}
	if st, _ := b.State(mine.Feed); st.Settled == nil || *st.Settled != mine {
		t.Error("the own feed has changed")
	}
	if _, err := b.Apply(Change{Feed: loc, Entries: entries, Settle: &h, Admitted: b.Generation()}); err != nil {
		t.Errorf("under the present generation: %v", err)
	}
}
