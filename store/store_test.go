package store

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/kv"
	"peerdex/record"
)

// device is one identity with a store of its own.
type device struct {
	*Store
	id  record.DeviceID
	key ed25519.PrivateKey
}

var library = feed.LibraryID{1}

func newKey(n byte) (record.DeviceID, ed25519.PrivateKey) {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	key := ed25519.NewKeyFromSeed(seed)
	return record.DeviceID(key.Public().(ed25519.PublicKey)), key
}

func config(n byte, key ed25519.PrivateKey) Config {
	clock := hlc.NewClock(time.Now, hlc.At(time.Now()), func(hlc.Stamp) error { return nil })
	return Config{
		Device: record.DeviceID(key.Public().(ed25519.PublicKey)), Library: library, Boot: uint64(n),
		Clock: clock.Now, Observe: func(s hlc.Stamp) { _ = clock.Observe(s) }, // far ahead: not believed either
		Sign: func(h feed.Head) feed.Head { return h.Sign(key) },
	}
}

func newDevice(tb testing.TB, n byte) *device {
	tb.Helper()
	id, key := newKey(n)
	s, err := Open(tb.TempDir(), config(n, key))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return &device{s, id, key}
}

func location(n byte) (l record.LocationID) { l[0] = n; return l }

func entryID(n int) (id record.EntryID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)+1)
	return id
}

func file(n int, name string) Put {
	return Put{Record: record.File{ID: entryID(n), Kind: record.Regular, Mode: 0o644, Size: uint64(n), Name: name}, Local: []byte("here")}
}

// hashed is a file whose content's hash begins with 7 and first.
func hashed(n int, first byte) Put {
	f := file(n, fmt.Sprint(n)).Record.(record.File)
	f.Hash[0], f.Hash[1] = 7, first
	return Put{Record: f}
}

func (d *device) commit(tb testing.TB, id feed.ID, puts ...Put) feed.Head {
	tb.Helper()
	h, err := d.Commit(id, puts)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// after returns a feed's entries above seq as a peer would be served them.
func (d *device) after(tb testing.TB, id feed.ID, seq uint64) (out []feed.Entry) {
	tb.Helper()
	v, err := d.Serve(id)
	if err != nil {
		tb.Fatal(err)
	}
	defer v.Close()
	if err := v.After(seq, func(e feed.Entry) error { out = append(out, e); return nil }); err != nil {
		tb.Fatal(err)
	}
	return out
}

// A feed committed on one device is rebuilt on another from its entries alone, and settles there.
func TestApplySettlesAtTheOwnersHead(t *testing.T) {
	a, b := newDevice(t, 1), newDevice(t, 2)
	id := feed.ID{Device: a.id, Location: location(1)}
	var puts []Put
	for i := range 5000 {
		puts = append(puts, file(i, fmt.Sprintf("file %d", i)))
	}
	head := a.commit(t, id, puts...)
	if head.Seq != 5000 || head.Count != 5000 {
		t.Fatalf("head is at %d with %d entries", head.Seq, head.Count)
	}
	all := a.after(t, id, 0)
	cut := feed.Cursor{Seq: all[2999].Seq, GC: head.GC, High: head.Seq}
	if _, err := b.Apply(Change{Feed: id, Entries: all[:3000], Cursor: &cut}); err != nil {
		t.Fatal(err)
	}
	if st, _ := b.State(id); st.Settled != nil || st.Cursor == nil || *st.Cursor != cut || st.Count != 3000 {
		t.Fatalf("after the first page: %+v", st)
	}
	bad := head
	bad.Root[0]++
	bad = bad.Sign(a.key)
	if _, err := b.Apply(Change{Feed: id, Entries: all[3000:], Settle: &bad}); !errors.Is(err, ErrMismatch) {
		t.Fatalf("a wrong root gives %v", err)
	}
	if st, _ := b.State(id); st.Count != 3000 {
		t.Fatalf("a refused page left %d entries", st.Count)
	}
	res, err := b.Apply(Change{Feed: id, Entries: all[3000:], Settle: &head})
	if err != nil {
		t.Fatal(err)
	}
	if res.Applied != 2000 || res.Ops[Op{"entry", "insert"}] != 2000 || res.Counts.Files != 5000 {
		t.Fatalf("result %+v", res)
	}

	// A few changes: replaced, deleted, added. They arrive as one push.
	next := a.commit(t, id, file(7, "seven"), Put{Record: record.Tombstone{ID: entryID(8)}}, file(6000, "new"))
	res, err = b.Apply(Change{Feed: id, Prev: &head, Entries: a.after(t, id, head.Seq), Settle: &next})
	if err != nil || res.Push != feed.PushApply || res.Applied != 3 {
		t.Fatalf("push: %+v, %v", res, err)
	}
	if res, err = b.Apply(Change{Feed: id, Prev: &head, Entries: a.after(t, id, head.Seq), Settle: &next}); err != nil || res.Push != feed.PushKnown {
		t.Fatalf("push again: %+v, %v", res, err)
	}
	names := map[string]bool{}
	err = b.Entries(id, func(r Row) error {
		if rec, err := accept(id, r.Key, r.Record); err == nil && !record.IsTombstone(r.Record) {
			names[rec.(record.File).Name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 5000 || !names["seven"] || names["file 7"] || names["file 8"] || !names["new"] {
		t.Fatalf("%d names", len(names))
	}

	// Collecting the tombstone takes a seq and drops it on both sides.
	gone, err := a.Collect(id, next.Seq)
	if err != nil {
		t.Fatal(err)
	}
	if gone.Count != 5000 || gone.GC != next.Seq {
		t.Fatalf("after collection: %+v", gone)
	}
	if _, err := b.Apply(Change{Feed: id, Prev: &next, Settle: &gone}); err != nil {
		t.Fatal(err)
	}
	if got := b.Counts(id); got.Tombstones != 0 || got.Files != 5000 {
		t.Fatalf("counts %+v", got)
	}
}

func name(d record.DeviceID, value string) record.Register {
	return record.Register{Entity: record.Device(d), Field: record.FieldName, Value: []byte(value)}
}

// B knows a register of A's that A, restored from a backup, has lost. When A's new head drives it out,
// B emits it again in its own feed, and both still see it.
func TestRescue(t *testing.T) {
	a, b := newDevice(t, 1), newDevice(t, 2)
	id := feed.ID{Device: a.id}
	if err := a.SetRegisters(name(a.id, "laptop")); err != nil {
		t.Fatal(err)
	}
	st, _ := a.State(id)
	if _, err := b.Apply(Change{Feed: id, Entries: a.after(t, id, 0), Settle: st.Settled}); err != nil {
		t.Fatal(err)
	}
	restored := newDevice(t, 1) // the same identity, an empty store
	head, err := restored.Jump(id, *st.Settled)
	if err != nil {
		t.Fatal(err)
	}
	if head.Onto != st.Settled.Boot || head.Seq <= st.Settled.Seq {
		t.Fatalf("jumped to %+v", head)
	}
	v, err := b.Peek(id)
	if err != nil {
		t.Fatal(err)
	}
	var held []feed.Entry
	if err := v.After(0, func(e feed.Entry) error { held = append(held, e); return nil }); err != nil {
		t.Fatal(err)
	}
	v.Close()
	res, err := b.Apply(Change{Feed: id, Remove: held, Settle: &head})
	if err != nil || res.Rescued != 1 || res.Removed != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	won, ok, err := b.Register(record.Device(a.id), record.FieldName)
	if err != nil || !ok || string(won.Value) != "laptop" || won.Author != a.id {
		t.Fatalf("B sees %+v, %v, %v", won, ok, err)
	}
}

// A, whose clock has jumped to 2099, writes over its own note. B, which believes nothing of the sort, showed
// no note at all then; now it keeps the one that was there, until 2099.
func TestTheFutureDisplacesNothing(t *testing.T) {
	a, b := newDevice(t, 1), newDevice(t, 2)
	now := time.Now()
	b.cfg.Now = func() time.Time { return now }
	id := feed.ID{Device: a.id}
	note := func(stamp time.Time, text string) Put {
		e := record.Content(record.Hash{1})
		return Put{Record: record.Register{Entity: e, Field: record.FieldNote, Author: a.id, Stamp: hlc.At(stamp), Value: []byte(text)}}
	}
	bring(t, b, a, id, note(now, "today"))
	jump := now.AddDate(70, 0, 0)
	a.cfg.Now = func() time.Time { return jump }
	if res := bring(t, b, a, id, note(jump, "some day")); res.Rescued != 1 {
		t.Errorf("%d registers rescued, want 1", res.Rescued)
	}
	for _, want := range []string{"today", "some day"} {
		won, ok, err := b.Register(record.Content(record.Hash{1}), record.FieldNote)
		if err != nil || !ok || string(won.Value) != want {
			t.Errorf("B sees %q, %v, %v, want %q", won.Value, ok, err, want)
		}
		now = jump
	}
}

// What is committed is there after a reopen; a newer schema is refused and a second opener turned away.
func TestReopen(t *testing.T) {
	id1, key := newKey(1)
	dir := t.TempDir()
	s, err := Open(dir, config(1, key))
	if err != nil {
		t.Fatal(err)
	}
	id := feed.ID{Device: id1, Location: location(1)}
	head, err := s.Commit(id, []Put{file(1, "one")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, config(1, key)); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second open gives %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, config(1, key)); err != nil {
		t.Fatal(err)
	}
	if st, ok := s.State(id); !ok || st.Settled == nil || *st.Settled != head {
		t.Fatalf("after reopen: %+v", st)
	}
	row, ok, err := s.Entry(id, slice(entryID(1)))
	if err != nil || !ok || string(row.Local) != "here" {
		t.Fatalf("entry: %+v %v %v", row, ok, err)
	}
	if err := s.Update(func(tx kv.Tx) error { return tx.Set(localKey("schema"), []byte{0, 0, 0, 99}) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var newer *SchemaError
	if _, err := Open(dir, config(1, key)); !errors.As(err, &newer) || newer.Have != 99 || !newer.Newer() {
		t.Fatalf("a newer schema gives %v", err)
	}
}

func slice(id record.EntryID) []byte { return id[:] }

// What is put in as new is found, replaced and deleted like any other entry.
func TestNewEntriesAreLikeOthers(t *testing.T) {
	a, b := newDevice(t, 1), newDevice(t, 2)
	id := feed.ID{Device: a.id, Location: location(1)}
	fresh := func(n int, name string) Put { p := file(n, name); p.New = true; return p }
	a.commit(t, id, fresh(1, "one"), fresh(2, "two"), fresh(3, "three"), file(2, "two again"))
	head := a.commit(t, id, file(1, "one again"), Put{Record: record.Tombstone{ID: entryID(3)}})
	if want := (Counts{Files: 2, Bytes: 3, Tombstones: 1}); head.Count != 3 || a.Counts(id) != want {
		t.Fatalf("head counts %d entries, the feed %+v; want 3 and %+v", head.Count, a.Counts(id), want)
	}
	var names []string
	err := a.Entries(id, func(r Row) error {
		if rec, err := accept(id, r.Key, r.Record); err == nil && !record.IsTombstone(r.Record) {
			names = append(names, rec.(record.File).Name)
		}
		return nil
	})
	if err != nil || !slices.Equal(names, []string{"two again", "one again"}) {
		t.Fatalf("names are %q, %v", names, err)
	}
	if _, err := b.Apply(Change{Feed: id, Entries: a.after(t, id, 0), Settle: &head}); err != nil {
		t.Fatalf("a peer does not settle there: %v", err)
	}
}

func tombstone(n int) record.Tombstone { return record.Tombstone{ID: entryID(n)} }

func nothing(record.Register) error { return nil }

func deviceFeed(d *device) feed.ID { return feed.ID{Device: d.id} }
