package store

import (
	"errors"
	"testing"

	"peerdex/feed"
	"peerdex/kv/memory"
)

// A head is noted if its owner signed it for this library and it is better than the best one known; a fork is
// told each time and written down never; a batch with a lie in it is refused as a whole.
func TestObserve(t *testing.T) {
	a, m := newDevice(t, 1), newDevice(t, 9)
	eng := memory.New(memory.Config{})
	b := onMemory(t, 2, eng, nil)
	id := feed.ID{Device: a.id, Location: location(1)}
	h1 := a.commit(t, id, file(1, "one"))
	h2 := a.commit(t, id, file(2, "two"))
	fork := h2
	fork.Root[0] = 0 // below h2's
	fork.Root[1]++
	fork = fork.Sign(a.key)
	above := h2
	above.Root[0] = 0xFF
	above = above.Sign(a.key)
	forged, foreign := h2, h2
	forged.Seq++
	forged = forged.Sign(m.key)
	foreign.Library[0]++
	foreign.Seq++
	foreign = foreign.Sign(a.key)
	own := b.commit(t, feed.ID{Device: b.id, Location: location(1)}, file(1, "mine"))
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	see := func(what string, better, forks int, best feed.Head, heads ...feed.Head) {
		t.Helper()
		out, err := b.Observe(heads, 0)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, o := range out {
			if o.Better {
				better--
			}
			if o.Forks {
				forks--
			}
		}
		if st, _ := b.State(id); better != 0 || forks != 0 || st.Best != best {
			t.Errorf("%s: %+v, best at %d", what, out, st.Best.Seq)
		}
	}
	see("the first", 1, 0, h1, h1)
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	see("again", 0, 0, h1, h1)
	if eng.Unsynced() != 0 {
		t.Error("nothing new was written down")
	}
	see("two at once", 1, 0, h2, h1, h2)
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	see("an old one", 0, 0, h2, h1)
	see("own and genesis", 0, 0, h2, own, feed.Head{Feed: id})
	for range 3 {
		see("a lesser fork", 0, 1, h2, fork)
	}
	if eng.Unsynced() != 0 {
		t.Error("a fork was written down")
	}
	for what, bad := range map[string]feed.Head{"forged": forged, "foreign": foreign} {
		if out, err := b.Observe([]feed.Head{above, bad}, 0); !errors.Is(err, feed.ErrSignature) || out != nil {
			t.Errorf("%s: %v, %v", what, out, err)
		}
	}
	see("nothing of those", 0, 0, h2, h2)
	see("a greater fork", 1, 1, above, above)
}

// A frozen clone writes nothing of its own any more, and puts aside what it would have rescued; it reads on.
func TestFreezePutsAside(t *testing.T) {
	a := newDevice(t, 1)
	eng := memory.New(memory.Config{})
	b := onMemory(t, 2, eng, nil)
	id, own := feed.ID{Device: a.id}, feed.ID{Device: b.id, Location: location(1)}
	for _, v := range []string{"first", "second"} {
		r := name(a.id, v)
		r.Field = v
		if err := a.SetRegisters(r); err != nil {
			t.Fatal(err)
		}
	}
	st, _ := a.State(id)
	entries := a.after(t, id, 0)
	if _, err := b.Apply(Change{Feed: id, Entries: entries, Settle: st.Settled}); err != nil {
		t.Fatal(err)
	}
	mine := b.commit(t, own, file(1, "mine"))
	if err := b.Freeze(); err != nil {
		t.Fatal(err)
	}
	if eng.Unsynced() != 0 {
		t.Error("frozen, and a power cut would thaw it")
	}
	b = onMemory(t, 2, eng.Crash(0), nil)
	if !b.Frozen() {
		t.Fatal("thawed by a restart")
	}
	for what, err := range map[string]error{
		"commit":    second(b.Commit(own, []Put{file(2, "more")})),
		"collect":   second(b.Collect(own, 1)),
		"jump":      second(b.Jump(own, mine)),
		"registers": b.SetRegisters(name(b.id, "x")),
		"absorb":    b.AbsorbEntries(mine, nil, 0),
	} {
		if !errors.Is(err, ErrFrozen) {
			t.Errorf("%s gives %v", what, err)
		}
	}
	next, err := a.Jump(id, *st.Settled)
	if err != nil {
		t.Fatal(err)
	}
	gone := next
	gone.Seq, gone.Count, gone.Root = next.Seq+1, 0, feed.Hash{}
	gone = gone.Sign(a.key)
	res, err := b.Apply(Change{Feed: id, Remove: entries, Settle: &gone})
	if err != nil || res.Aside != 2 || res.Rescued != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	aside, err := b.SetAside()
	if err != nil || len(aside) != 2 || string(aside[0].Value)+string(aside[1].Value) != "firstsecond" && string(aside[0].Value)+string(aside[1].Value) != "secondfirst" {
		t.Errorf("set aside %+v, %v", aside, err)
	}
	if at, _ := b.State(own); *at.Settled != mine {
		t.Errorf("the own feed moved to %+v", at.Settled)
	}
}

func second[T any](_ T, err error) error { return err }

// A device that moves to another library signs each of its feeds for it; what it wrote stays.
func TestRebase(t *testing.T) {
	m := &slate{}
	a := onMemory(t, 1, memory.New(memory.Config{}), m)
	dev, loc := feed.ID{Device: a.id}, feed.ID{Device: a.id, Location: location(1)}
	if err := a.SetRegisters(name(a.id, "laptop")); err != nil {
		t.Fatal(err)
	}
	a.commit(t, loc, file(1, "one"), file(2, "two"))
	other := feed.LibraryID{7}
	if err := a.Rebase(other); err != nil {
		t.Fatal(err)
	}
	for _, id := range []feed.ID{dev, loc} {
		st, _ := a.State(id)
		if st.Settled.Library != other || st.Settled.Verify() != nil || st.Best != *st.Settled || m.st.Seqs[id] != st.Settled.Seq {
			t.Errorf("%v is at %+v, marked %d", id, st.Settled, m.st.Seqs[id])
		}
	}
	if got := a.Counts(loc); got.Files != 2 || a.Library() != other {
		t.Errorf("%+v in %x", got, a.Library())
	}
	x := newDevice(t, 2)
	if _, err := a.Observe([]feed.Head{x.commit(t, feed.ID{Device: x.id, Location: location(1)}, file(1, "x"))}, 0); !errors.Is(err, feed.ErrSignature) {
		t.Errorf("a head of the library that was left gives %v", err)
	}
}
