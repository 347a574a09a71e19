package store

import (
	"fmt"
	"testing"

	"peerdex/feed"
)

// A change that is large enough meets what was read ahead, also where it names a key twice; and what was read
// before somebody else wrote the feed counts for nothing.
func TestForesee(t *testing.T) {
	a, b := newDevice(t, 1), newDevice(t, 2)
	id := feed.ID{Device: a.id, Location: location(1)}
	puts := func(n int, name string) (out []Put) {
		for i := range n {
			out = append(out, file(i, fmt.Sprint(name, i)))
		}
		return out
	}
	bring := func(entries []feed.Entry, head feed.Head) Change {
		t.Helper()
		if _, err := b.Observe([]feed.Head{head}, 0); err != nil {
			t.Fatal(err)
		}
		return Change{Feed: id, Entries: entries, Settle: &head}
	}
	first := a.commit(t, id, puts(1000, "first")...)
	c := bring(a.after(t, id, 0), first)
	if f, err := b.foresee(id, c.keys()); f != nil || err != nil {
		t.Errorf("a feed that comes for the first time meets %v, %v", f, err)
	}
	if _, err := b.Apply(c); err != nil {
		t.Fatal(err)
	}

	second := a.commit(t, id, puts(300, "second")...)
	changed := a.after(t, id, first.Seq)
	ahead, err := b.foresee(id, bring(changed, second).keys())
	if err != nil || len(ahead.old) != 300 || len(ahead.leaves) != 2 || ahead.old[string(changed[7].Key)].Seq != 8 {
		t.Fatalf("foreseen: %v, %v", ahead, err)
	}
	stale := changed[:200:200]
	for i := range stale { // as they were before, so that each key comes twice, at two seqs
		stale = append(stale, feed.Entry{Key: changed[i].Key, Seq: changed[i].Seq, Record: changed[i].Record})
	}
	res, err := b.Apply(Change{Feed: id, Entries: stale, Cursor: &feed.Cursor{Seq: changed[199].Seq, High: second.Seq}})
	if err != nil || res.Applied != 200 || res.Duplicate != 200 {
		t.Fatalf("%d applied, %d held already, %v", res.Applied, res.Duplicate, err)
	}
	recount(t, b.Store, id)
	err = b.update(func(tx *tx) error {
		tx.foreseen = ahead
		_, err := tx.row(id)
		if tx.foreseen != nil {
			t.Error("what was read before the feed moved is still believed")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Apply(bring(changed[200:], second)); err != nil {
		t.Fatal(err)
	}
	recount(t, b.Store, id)
	third := a.commit(t, id, puts(900, "third")...) // little is left of the leaves written first
	if _, err := b.Apply(bring(a.after(t, id, second.Seq), third)); err != nil {
		t.Fatal(err)
	}
	recount(t, b.Store, id)
}
