package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/kv/memory"
	"peerdex/record"
)

// recount reckons a feed's counts, state and root from its entries alone.
func recount(tb rapid.TB, s *Store, id feed.ID) {
	tb.Helper()
	st, ok := s.State(id)
	if !ok {
		return
	}
	var (
		c     Counts
		total uint64
		refs  []feed.Ref
	)
	err := s.Entries(id, func(r Row) error {
		total++
		refs = append(refs, feed.Ref{Seq: r.Seq, Digest: feed.Entry{Key: r.Key, Seq: r.Seq, Record: r.Record}.Digest()})
		rec, err := accept(id, r.Key, r.Record)
		if err != nil {
			c.Opaque++
			return nil
		}
		switch rec := rec.(type) {
		case record.File:
			if rec.Kind == record.Directory {
				c.Dirs++
			} else {
				c.Files++
				c.Bytes += rec.Size
			}
		case record.Tombstone:
			c.Tombstones++
		case record.Register:
			c.Registers++
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrUnknownFeed) {
		tb.Fatal(err)
	}
	if got := s.Counts(id); got != c {
		tb.Fatalf("feed %v counts %+v, recounted %+v", id, got, c)
	}
	if st.Count != total {
		tb.Fatalf("feed %v has %d entries, says %d", id, total, st.Count)
	}
	if st.Settled != nil && (st.Settled.Count != total || s.cfg.Shape.Root(refs, st.Settled.Seq) != st.Settled.Root) {
		tb.Fatalf("feed %v is settled at a head its entries do not give", id)
	}
}

// A writer and a follower: writes, moves, deletes, collections, pulls in pieces, in any order, drops, and
// deaths of the process. Whatever is kept in step with the entries is what the entries give.
func TestCountsEqualARecount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		open := func(n byte, eng *memory.Engine) *device {
			id, key := newKey(n)
			cfg := config(n, key)
			cfg.Shape = feed.Shape{LeafBits: 2, FanBits: 1}
			s, err := New(eng, cfg)
			if err != nil {
				t.Fatal(err)
			}
			return &device{s, id, key}
		}
		engA, engB := memory.New(memory.Config{}), memory.New(memory.Config{})
		a, b := open(1, engA), open(2, engB)
		id := feed.ID{Device: a.id, Location: location(1)}
		key := rapid.IntRange(0, 12)
		put := func() Put {
			i := key.Draw(t, "entry")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				return Put{Record: tombstone(i)}
			case 1:
				return Put{Record: record.File{ID: entryID(i), Parent: parentOf(t, i), Kind: record.Directory, Name: "d"}}
			}
			f := record.File{ID: entryID(i), Parent: parentOf(t, i), Kind: record.Regular, Size: uint64(i), Name: fmt.Sprint("f", rapid.IntRange(0, 3).Draw(t, "name"))}
			f.Hash[0] = rapid.ByteRange(0, 2).Draw(t, "hash")
			return Put{Record: f}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0, 1, 2:
				var puts []Put
				for range rapid.IntRange(1, 4).Draw(t, "puts") {
					puts = append(puts, put())
				}
				if _, err := a.Commit(id, puts); err != nil {
					t.Fatal(err)
				}
			case 3:
				if st, ok := a.State(id); ok {
					if _, err := a.Collect(id, rapid.Uint64Range(0, st.Settled.Seq).Draw(t, "gc")); err != nil {
						t.Fatal(err)
					}
				}
			case 4: // everything of it is drawn in pieces, in any order, and left unsettled; or it settles
				st, ok := a.State(id)
				if !ok {
					continue
				}
				var all, held []feed.Entry
				grab := func(s *Store, out *[]feed.Entry) {
					err := s.Entries(id, func(r Row) error {
						*out = append(*out, feed.Entry{Key: slices.Clone(r.Key), Seq: r.Seq, Record: slices.Clone(r.Record)})
						return nil
					})
					if err != nil && !errors.Is(err, ErrUnknownFeed) {
						t.Fatal(err)
					}
				}
				grab(a.Store, &all)
				for _, i := range rapid.Permutation(all).Draw(t, "order") {
					if _, err := b.Apply(Change{Feed: id, Entries: []feed.Entry{i}}); err != nil {
						t.Fatal(err)
					}
					recount(t, b.Store, id)
				}
				if rapid.Bool().Draw(t, "settle") {
					grab(b.Store, &held)
					held = slices.DeleteFunc(held, func(e feed.Entry) bool {
						return slices.ContainsFunc(all, func(o feed.Entry) bool { return o.Digest() == e.Digest() })
					})
					if at, _ := b.State(id); at.Floor.Compare(*st.Settled) <= 0 {
						if _, err := b.Apply(Change{Feed: id, Remove: held, Settle: st.Settled}); err != nil {
							t.Fatal(err)
						}
					}
				}
			case 5:
				if err := b.Drop(id); err != nil && !errors.Is(err, ErrUnknownFeed) {
					t.Fatal(err)
				}
				more, err := b.Reap()
				for all := rapid.Bool().Draw(t, "reap all"); all && more && err == nil; {
					more, err = b.Reap()
				}
				if err != nil {
					t.Fatal(err)
				}
				for family, rows := range keysOf(t, b.Store) {
					if !more && rows != 0 && slices.Contains(feedFamilies, family) {
						t.Fatalf("%d rows %c are left of a dropped feed", rows, family)
					}
				}
			case 6:
				engB = engB.Crash(rapid.IntRange(0, engB.Unsynced()).Draw(t, "keep"))
				b = open(2, engB)
			case 7:
				if err := b.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			recount(t, a.Store, id)
			recount(t, b.Store, id)
		}
	})
}

// parentOf draws the folder an entry lies in: any but itself, there or not.
func parentOf(t *rapid.T, i int) record.EntryID {
	p := rapid.IntRange(-1, 12).Draw(t, "parent")
	if p < 0 || p == i {
		return record.EntryID{}
	}
	return entryID(p)
}

// Records of a newer version's model, records that belong in no such feed, and records beyond a limit are
// kept and handed on byte for byte, counted, named, and shown to nobody.
func TestOpaqueRecordsAreRelayed(t *testing.T) {
	a, b, c := newDevice(t, 1), onMemory(t, 2, memory.New(memory.Config{}), nil), newDevice(t, 3)
	id := feed.ID{Device: a.id, Location: location(1)}
	reg := name(a.id, "misplaced")
	reg.Author = a.id
	entries := []feed.Entry{
		{Key: []byte("key of a newer model"), Seq: 1, Record: []byte{200, 1, 2, 3}},
		{Key: reg.Key(), Seq: 2, Record: reg.Append(nil)},
		{Key: slice(entryID(1)), Seq: 3, Record: []byte{1, 99}},
		{Key: []byte("short"), Seq: 4, Record: []byte{2}},
		{Key: slice(entryID(2)), Seq: 5, Record: file(2, "plain").Record.Append(nil)},
	}
	var refs []feed.Ref
	for _, e := range entries {
		refs = append(refs, feed.Ref{Seq: e.Seq, Digest: e.Digest()})
	}
	head := feed.Head{Library: library, Feed: id, Seq: 5, Count: 5, Root: feed.DefaultShape.Root(refs, 5)}.Sign(a.key)
	res, err := b.Apply(Change{Feed: id, Entries: entries, Settle: &head})
	if err != nil || res.Applied != 1 || res.Rejected != 4 || len(res.Rejects) != 4 {
		t.Fatalf("%+v, %v", res, err)
	}
	for i, want := range []string{"schema", "schema", "decode", "decode"} {
		if res.Rejects[i].Reason != want || res.Rejects[i].Seq != uint64(i+1) {
			t.Errorf("%+v, want %s", res.Rejects[i], want)
		}
	}
	if got := b.Counts(id); got != (Counts{Files: 1, Bytes: 2, Opaque: 4}) {
		t.Errorf("counts %+v", got)
	}
	relayed := b.after(t, id, 0)
	if len(relayed) != len(entries) {
		t.Fatalf("%d relayed", len(relayed))
	}
	for i, e := range relayed {
		if e.Seq != entries[i].Seq || string(e.Key) != string(entries[i].Key) || string(e.Record) != string(entries[i].Record) {
			t.Errorf("entry %d became %+v", i, e)
		}
	}
	if _, err := c.Apply(Change{Feed: id, Entries: relayed, Settle: &head}); err != nil {
		t.Errorf("the next hop: %v", err)
	}
	next := feed.Head{Library: library, Feed: id, Seq: 6, Count: 1, Root: feed.DefaultShape.Root(refs[4:], 6)}.Sign(a.key)
	if res, err = b.Apply(Change{Feed: id, Remove: entries[:4], Settle: &next}); err != nil || res.Removed != 4 || b.Counts(id).Opaque != 0 {
		t.Errorf("taken out: %+v, %v, %+v", res, err, b.Counts(id))
	}
}

// The power is cut before each commit and each sync of a history, and after it whatever was not synced is
// lost, or a part of that. What comes up is one of the states that the store went through, and one that
// every head shown to anybody lies in.
func TestCrashAtEveryHook(t *testing.T) {
	history := func(d *device, shown *feed.Head) error {
		id := feed.ID{Device: d.id, Location: location(1)}
		for i := range 6 {
			var puts []Put
			for j := range i + 1 {
				puts = append(puts, file(i*3+j, fmt.Sprint(i, j)))
			}
			h, err := d.Commit(id, puts)
			if err != nil {
				return err
			}
			if i%2 == 1 {
				if _, err := d.Collect(id, h.Seq); err != nil {
					return err
				}
			}
			if i%3 == 2 {
				v, err := d.Serve(id)
				if err != nil {
					return err
				}
				*shown = *v.State.Settled
				v.Close()
			}
		}
		return nil
	}
	id1, _ := newKey(1)
	id := feed.ID{Device: id1, Location: location(1)}
	hooks := 0
	for crash, keep := 0, 0; ; {
		var (
			eng   *memory.Engine
			after *memory.Engine
			at    = 0
			most  = 0
			shown feed.Head
		)
		hook := func() error {
			if at++; at-1 == crash && eng != nil {
				most = eng.Unsynced()
				after = eng.Crash(min(keep, most))
			}
			return nil
		}
		eng = memory.New(memory.Config{OnCommit: func(int, int) error { return hook() }, OnSync: func(int) error { return hook() }})
		_, key := newKey(1)
		cfg := config(1, key)
		s, err := New(eng, cfg)
		if err == nil {
			err = history(&device{s, id1, key}, &shown)
		}
		if after == nil {
			hooks = at
			break
		}
		if !errors.Is(err, kv.ErrClosed) {
			t.Fatalf("crash %d: %v", crash, err)
		}
		s, err = New(after, config(1, key))
		if err != nil {
			t.Fatalf("crash %d, %d kept: %v", crash, keep, err)
		}
		recount(t, s, id)
		st, known := s.State(id)
		if shown.Seq > 0 && (!known || st.Settled == nil || st.Settled.Seq < shown.Seq) {
			t.Fatalf("crash %d, %d kept: at %+v, but %d was shown", crash, keep, st.Settled, shown.Seq)
		}
		if known && st.Settled == nil {
			t.Fatalf("crash %d: unsettled", crash)
		}
		if keep < most {
			keep++
		} else {
			crash, keep = crash+1, 0
		}
	}
	if hooks < 12 {
		t.Errorf("only %d hooks", hooks)
	}
}

// A feed's row is whole or refused, at whatever byte it ends.
func TestRowTruncated(t *testing.T) {
	id := feed.ID{Location: location(3)}
	h := feed.Head{Feed: id, Seq: 300, GC: 7, Count: 200, Boot: 9}
	for _, r := range []*row{
		{num: 5, state: feed.State{Feed: id}},
		{num: 5, height: 3, after: 1 << 40, counts: Counts{1, 2, 1 << 50, 4, 5, 6},
			state: feed.State{Feed: id, Settled: &h, Floor: h, Best: h, Count: 200}},
		{num: 5, state: feed.State{Feed: id, Cursor: &feed.Cursor{Seq: 1, GC: 2, High: 3}, Floor: h, Best: h}},
	} {
		b := r.encode()
		back, err := decodeRow(id, b)
		if err != nil || string(back.encode()) != string(b) || back.counts != r.counts || back.after != r.after {
			t.Errorf("%+v came back as %+v, %v", r, back, err)
		}
		for n := range b {
			if _, err := decodeRow(id, b[:n]); !errors.Is(err, errRow) {
				t.Fatalf("%d of %d bytes give %v", n, len(b), err)
			}
		}
	}
}

func FuzzRow(f *testing.F) {
	h := feed.Head{Seq: 300}
	f.Add((&row{num: 5, state: feed.State{Settled: &h, Cursor: &feed.Cursor{Seq: 1}}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRow(feed.ID{}, b)
		if err != nil {
			return
		}
		again, err := decodeRow(feed.ID{}, r.encode())
		if err != nil || string(again.encode()) != string(r.encode()) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}
