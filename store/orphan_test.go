package store

import (
	"fmt"
	"testing"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/kv/memory"
)

// Nobody alive can complete A's device feed. B lets it go, in as many transactions as it takes, and says the
// registers itself: nothing that was seen is lost (rules 13 and 17).
func TestOrphanRescuesEverything(t *testing.T) {
	a, b := newDevice(t, 1), onMemory(t, 2, memory.New(memory.Config{MaxEntries: 200}), nil)
	id := feed.ID{Device: a.id}
	const many = 150
	for i := range many {
		r := name(a.id, fmt.Sprint("value ", i))
		r.Field = fmt.Sprint("field ", i)
		if err := a.SetRegisters(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range a.after(t, id, 0) { // entry by entry, and never settled
		if _, err := b.Apply(Change{Feed: id, Entries: []feed.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	last, rescued := 0, 0
	_, err := b.Orphan(id, func(_ kv.Tx, settling bool, res *Result) error {
		if settling {
			last++
		}
		rescued += res.Rescued
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	st, _ := b.State(id)
	if st.Settled == nil || !st.Settled.IsGenesis() || st.Count != 0 || last != 1 || rescued != many {
		t.Errorf("%+v, %d rescued, told %d times", st, rescued, last)
	}
	for i := range many {
		r, ok, err := b.Register(name(a.id, "").Entity, fmt.Sprint("field ", i))
		if err != nil || !ok || string(r.Value) != fmt.Sprint("value ", i) || r.Author != a.id {
			t.Fatalf("field %d: %+v, %v, %v", i, r, ok, err)
		}
	}
	own, _ := b.State(feed.ID{Device: b.id})
	if own.Count != many {
		t.Errorf("%d registers of its own", own.Count)
	}
}
