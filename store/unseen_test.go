package store

import (
	"encoding/binary"
	"reflect"
	"testing"

	"peerdex/feed"
)

func TestUnseen(t *testing.T) {
	const n = 100_000
	r := &row{num: 7}
	r.state.Best.Seq = n
	u := newUnseen(r)
	key := func(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }
	mistaken := 0
	for i := range uint64(n) {
		if !u.add(key(i)) {
			mistaken++
		}
	}
	if mistaken > n/100 {
		t.Errorf("%d of %d new keys pass for old ones", mistaken, n)
	}
	for i := range uint64(n) {
		if u.add(key(i)) {
			t.Fatalf("key %d was put in, and passes for new", i)
		}
	}
	r.state.Best.Seq = 1 << 62 // what anybody can sign
	if room := len(newUnseen(r).bits) * 8; room != 8<<20 {
		t.Errorf("%d bytes for a feed that claims to be without end", room)
	}
}

// A feed comes whole, page by page. One of its files changed while it came, so that the key comes twice, and
// a page comes again: each key stands for what came last, though nothing was looked up for the others. A feed
// that came before it has changed since.
func TestComesWhole(t *testing.T) {
	from, to := newDevice(t, 1), newDevice(t, 2)
	first, second := feed.ID{Device: from.id, Location: location(1)}, feed.ID{Device: from.id, Location: location(2)}
	apply := func(id feed.ID, page []feed.Entry, settle *feed.Head) Result {
		t.Helper()
		c := Change{Feed: id, Entries: page, Settle: settle}
		if settle == nil {
			c.Cursor = &feed.Cursor{Seq: page[len(page)-1].Seq, High: page[len(page)-1].Seq}
		}
		res, err := to.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	from.commit(t, first, file(1, "a"), file(2, "b"))
	page := from.after(t, first, 0)
	apply(first, page, nil)
	if res := apply(first, page, nil); res.Duplicate != 2 {
		t.Errorf("the same page again: %+v", res)
	}
	head := from.commit(t, first, file(1, "renamed"), file(3, "c"))
	apply(first, from.after(t, first, 2), &head)

	whole := from.commit(t, second, file(1, "a"))
	apply(second, from.after(t, second, 0), &whole)
	next := from.commit(t, first, file(3, "renamed too"))
	apply(first, from.after(t, first, head.Seq), &next)
	for _, id := range []feed.ID{first, second} {
		if got, want := to.after(t, id, 0), from.after(t, id, 0); !reflect.DeepEqual(got, want) {
			t.Errorf("feed %v holds %v, its owner %v", id, got, want)
		}
	}
}
