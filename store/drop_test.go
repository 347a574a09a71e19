package store

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/kv/memory"
)

// A dropped feed is gone for every reader at once, and from the disk after Reap, registers and all; between
// two calls others write; its number is not used again.
func TestDropAndReap(t *testing.T) {
	a, b := newDevice(t, 1), onMemory(t, 2, memory.New(memory.Config{}), nil)
	dev, loc := feed.ID{Device: a.id}, feed.ID{Device: a.id, Location: location(1)}
	if err := a.SetRegisters(name(a.id, "laptop")); err != nil {
		t.Fatal(err)
	}
	var puts []Put
	for i := range 4100 {
		puts = append(puts, hashed(i, byte(i)))
	}
	a.commit(t, loc, append(puts, Put{Record: tombstone(7)})...)
	before := keysOf(t, b.Store)
	take := func(id feed.ID) {
		t.Helper()
		st, _ := a.State(id)
		if _, err := b.Apply(Change{Feed: id, Entries: a.after(t, id, 0), Settle: st.Settled}); err != nil {
			t.Fatal(err)
		}
	}
	take(dev)
	take(loc)
	numBefore, _ := b.numOf(loc)
	for _, id := range []feed.ID{dev, loc} {
		if err := b.Drop(id); err != nil {
			t.Fatal(err)
		}
		if _, ok := b.State(id); ok || b.Counts(id) != (Counts{}) {
			t.Errorf("feed %v is still known", id)
		}
		if _, err := b.Serve(id); !errors.Is(err, ErrUnknownFeed) {
			t.Errorf("serving it gives %v", err)
		}
		if err := b.Drop(id); !errors.Is(err, ErrUnknownFeed) {
			t.Errorf("dropping it again gives %v", err)
		}
	}
	if _, ok, err := b.Register(name(a.id, "").Entity, "name"); err != nil || ok {
		t.Errorf("its register is still seen: %v, %v", ok, err)
	}
	own := feed.ID{Device: b.id, Location: location(9)}
	calls := 0
	for more := true; more; calls++ {
		b.commit(t, own, file(calls, "between"))
		var err error
		if more, err = b.Reap(); err != nil {
			t.Fatal(err)
		}
	}
	if calls < 4 {
		t.Errorf("all at once: %d calls", calls)
	}
	if err := b.Drop(own); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		var err error
		if more, err = b.Reap(); err != nil {
			t.Fatal(err)
		}
	}
	after := keysOf(t, b.Store)
	delete(after, famLocal) // the counter of numbers stays
	delete(before, famLocal)
	if !maps.Equal(before, after) {
		t.Errorf("keys left: %v, before %v", after, before)
	}
	take(loc)
	if n, err := b.numOf(loc); err != nil || n <= numBefore {
		t.Errorf("number %d after %d, %v", n, numBefore, err)
	}
	if got := b.Counts(loc); got.Files != 4099 || got.Tombstones != 1 {
		t.Errorf("counts %+v", got)
	}
}

// A device that left many registers behind is reaped in parts that fit a transaction.
func TestReapManyRegisters(t *testing.T) {
	a, b := newDevice(t, 1), onMemory(t, 2, memory.New(memory.Config{MaxEntries: 6000 * 4}), nil)
	id := feed.ID{Device: a.id}
	var puts []Put
	for i := range 2 * reapKeys {
		r := name(a.id, "x")
		r.Field, r.Author, r.Stamp = fmt.Sprint("field ", i), a.id, 1
		puts = append(puts, Put{Record: r})
	}
	head := a.commit(t, id, puts...)
	all := a.after(t, id, 0)
	for len(all) > 1000 {
		if _, err := b.Apply(Change{Feed: id, Entries: all[:1000]}); err != nil {
			t.Fatal(err)
		}
		all = all[1000:]
	}
	if _, err := b.Apply(Change{Feed: id, Entries: all, Settle: &head}); err != nil {
		t.Fatal(err)
	}
	if err := b.Drop(id); err != nil {
		t.Fatal(err)
	}
	b.eng = limited{b.eng, t, func() {}}
	for more := true; more; {
		var err error
		if more, err = b.Reap(); err != nil {
			t.Fatal(err)
		}
		if err := b.Registers(1, nothing); err != nil {
			t.Fatal(err)
		}
	}
	if left := keysOf(t, b.Store)[famRegister]; left != 0 {
		t.Errorf("%d registers left", left)
	}
}

// While 50,000 entries are deleted, a commit that was asked for in the midst of one transaction is through before the
// next, with most of the entries still there.
func TestReapLetsOthersWrite(t *testing.T) {
	const entries = 50_000
	a := newDevice(t, 1)
	id, other := feed.ID{Device: a.id, Location: location(1)}, feed.ID{Device: a.id, Location: location(2)}
	var puts []Put
	for i := range entries {
		puts = append(puts, file(i, fmt.Sprint("file ", i)))
	}
	a.commit(t, id, puts...)
	n, err := a.numOf(id)
	if err != nil {
		t.Fatal(err)
	}
	left := func() (keys int) {
		err := a.View(func(r kv.Reader) error {
			return r.ScanKeys(n.key(famEntry, 0), nil, func([]byte) error { keys++; return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	if err := a.Drop(id); err != nil {
		t.Fatal(err)
	}
	if got := left(); got != entries {
		t.Fatalf("dropping the feed alone leaves %d entries", got)
	}
	wrote := make(chan error, 1)
	engine := a.eng
	a.eng = limited{engine, t, func() {
		go func() {
			_, err := a.Commit(other, []Put{file(1, "meanwhile")})
			wrote <- err
		}()
	}}
	more, err := a.Reap()
	if err != nil || !more {
		t.Fatal(more, err)
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if got := left(); got < entries-reapKeys {
		t.Errorf("%d entries left when somebody else may write", got)
	}
	a.eng = limited{engine, t, func() {}}
	for more {
		if more, err = a.Reap(); err != nil {
			t.Fatal(err)
		}
	}
	if got := left(); got != 0 {
		t.Errorf("%d entries left in the end", got)
	}
}

// A process that dies between any two transactions of a deletion, with or without what it did not make durable, leaves
// a store that knows nothing of the feed and all of the others, and the next one ends what it began.
func TestReapGoesOnAfterADeath(t *testing.T) {
	for _, lost := range []bool{false, true} {
		eng := memory.New(memory.Config{})
		a := onMemory(t, 1, eng, nil)
		id, other := feed.ID{Device: a.id, Location: location(1)}, feed.ID{Device: a.id, Location: location(2)}
		kept := a.commit(t, other, file(1, "kept"))
		before := keysOf(t, a.Store)
		var puts []Put
		for i := range 10_000 {
			puts = append(puts, file(i, fmt.Sprint("file ", i)))
		}
		a.commit(t, id, puts...)
		if err := errors.Join(a.Drop(id), a.Sync()); err != nil {
			t.Fatal(err)
		}
		deaths := 0
		for more := true; more; deaths++ {
			var err error
			if more, err = a.Reap(); err != nil {
				t.Fatal(err)
			}
			if !lost {
				if err := a.Sync(); err != nil {
					t.Fatal(err)
				}
			} else if deaths%2 == 1 { // what is lost is done again
				if err := eng.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			eng = eng.Crash(eng.Unsynced())
			a = onMemory(t, 1, eng, nil)
			if st, known := a.State(id); known {
				t.Fatalf("after %d deaths the feed is back: %+v", deaths+1, st)
			}
			if st, _ := a.State(other); st.Settled == nil || *st.Settled != kept || len(a.after(t, other, 0)) != 1 {
				t.Fatalf("after %d deaths the other feed is %+v", deaths+1, st)
			}
		}
		if deaths < 5 {
			t.Errorf("all at once: %d deaths", deaths)
		}
		after := keysOf(t, a.Store)
		delete(after, famLocal) // the counter of numbers stays
		delete(before, famLocal)
		if !maps.Equal(before, after) {
			t.Errorf("keys left: %v, before %v", after, before)
		}
	}
}

// limited fails the test if one transaction deletes more than Reap promises. Within one that deletes that much it calls
// amid.
type limited struct {
	kv.Engine
	tb   testing.TB
	amid func()
}

func (l limited) Update(fn func(kv.Tx) error) error {
	return l.Engine.Update(func(tx kv.Tx) error {
		c := &counted{Tx: tx}
		err := fn(c)
		if c.deletes > reapKeys+1 { // with the mark of the feed
			l.tb.Errorf("%d keys deleted at once", c.deletes)
		}
		if c.deletes == reapKeys {
			l.amid()
		}
		return err
	})
}

type counted struct {
	kv.Tx
	deletes int
}

func (c *counted) Delete(k []byte) error { c.deletes++; return c.Tx.Delete(k) }
