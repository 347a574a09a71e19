package store

import (
	"slices"
	"testing"
	"testing/synctest"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/kv/memory"
	"peerdex/record"
)

// Whoever gives a turn back and asks for it again has it after all who waited, and these in their order.
func TestTurnsAreTakenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := newTurn()
		var had []int
		turn.Lock()
		for i := range 5 {
			go func() {
				turn.Lock()
				defer turn.Unlock()
				had = append(had, i)
			}()
			synctest.Wait() // until it waits
		}
		turn.Unlock()
		turn.Lock()
		defer turn.Unlock()
		if !slices.Equal(had, []int{0, 1, 2, 3, 4}) {
			t.Errorf("it was had by %v", had)
		}
	})
}

// While a feed is deleted entry by entry or its tombstones are collected, a commit that somebody asks for in the
// midst of one transaction is the next, and each of them takes bounded work.
func TestOthersWriteBetween(t *testing.T) {
	const entries = 3000
	for name, c := range map[string]struct {
		most int // keys deleted in one transaction, but for those of the tree
		do   func(t *testing.T, d *device, id feed.ID)
	}{
		"deletion": {2*commitEntries/lookedUp + 100, func(t *testing.T, d *device, id feed.ID) {
			d.commit(t, id, tombstones(entries)...)
		}},
		"collection": {3*sweepMost + 100, func(t *testing.T, d *device, id feed.ID) {
			st, _ := d.State(id)
			for h := *st.Settled; h.GC < st.Settled.Seq; {
				var err error
				if h, err = d.Collect(id, st.Settled.Seq); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := onMemory(t, 1, memory.New(memory.Config{}), nil)
				id, other := feed.ID{Device: d.id, Location: location(1)}, feed.ID{Device: d.id, Location: location(2)}
				var puts []Put
				for i := range entries {
					p := file(i, "file")
					p.New = true
					puts = append(puts, p)
				}
				d.commit(t, id, puts...)
				if name == "collection" {
					d.commit(t, id, tombstones(entries)...)
				}
				wrote := make(chan error, 1)
				var sizes []int
				d.eng = told{d.eng, func(tx *counted) {
					sizes = append(sizes, tx.deletes)
					if len(sizes) > 1 {
						return
					}
					go func() {
						_, err := d.Commit(other, []Put{file(1, "meanwhile")})
						wrote <- err
					}()
					synctest.Wait() // until it waits
				}}
				c.do(t, d, id)
				if err := <-wrote; err != nil {
					t.Fatal(err)
				}
				if len(sizes) < 4 || sizes[1] != 0 || slices.Max(sizes) > c.most {
					t.Errorf("transactions that delete %d keys: the second is not what was asked for, or they are more than %d at once", sizes, c.most)
				}
				if got := d.Counts(id); got.Files != 0 || got.Tombstones != 0 && name == "collection" {
					t.Errorf("left: %+v", got)
				}
				recount(t, d.Store, id)
			})
		})
	}
}

func tombstones(n int) (out []Put) {
	for i := range n {
		out = append(out, Put{Record: tombstone(i)})
	}
	return out
}

// told calls wrote at the end of each transaction, before it is committed.
type told struct {
	kv.Engine
	wrote func(*counted)
}

func (w told) Update(fn func(kv.Tx) error) error {
	return w.Engine.Update(func(tx kv.Tx) error {
		c := &counted{Tx: tx}
		err := fn(c)
		w.wrote(c)
		return err
	})
}

// A tombstone that comes later than others with a higher seq were swept is swept all the same.
func TestSweepLooksAgain(t *testing.T) {
	a, b := newDevice(t, 1), newDevice(t, 2)
	id := feed.ID{Device: a.id, Location: location(1)}
	a.commit(t, id, append([]Put{file(100, "stays")}, tombstones(8)...)...)
	all := a.after(t, id, 0)
	for _, part := range [][]feed.Entry{all[4:], all[:4]} {
		if _, err := b.Apply(Change{Feed: id, Entries: part}); err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, e := range part {
			if record.IsTombstone(e.Record) {
				want++
			}
		}
		if n, err := b.Sweep(id, 9, nil, 0); err != nil || n != want {
			t.Errorf("of %d tombstones %d were swept, %v", want, n, err)
		}
		if n, err := b.Sweep(id, 9, nil, 0); err != nil || n != 0 {
			t.Errorf("swept again: %d, %v", n, err)
		}
		recount(t, b.Store, id)
	}
}
