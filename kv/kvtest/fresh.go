package kvtest

import (
	"errors"
	"testing"

	"peerdex/kv"
)

// begin begins fresh content; an engine that cannot be replaced has nothing to show.
func begin(t *testing.T, e kv.Engine) kv.Fresh {
	t.Helper()
	r, ok := e.(kv.Replaceable)
	if !ok {
		t.Skip("cannot be replaced")
	}
	f, err := r.Fresh()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func put(t *testing.T, f kv.Fresh, family byte, keys ...string) {
	t.Helper()
	rows := f.Rows(family)
	for _, k := range keys {
		if err := rows.Put([]byte(k), []byte("fresh "+k)); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Put([]byte(keys[len(keys)-1]), nil); !errors.Is(err, kv.ErrOrder) {
		t.Errorf("a row twice gives %v", err)
	}
	if err := rows.End(); err != nil {
		t.Fatal(err)
	}
}

// keep takes everything over but what begins with the old family.
func keep(t *testing.T, f kv.Fresh, want int) {
	t.Helper()
	if n, err := f.CatchUp(func(k []byte) bool { return k[0] == 'o' }); err != nil || n != want {
		t.Errorf("caught up with %d rows, want %d: %v", n, want, err)
	}
}

func ended(t *testing.T, f kv.Fresh) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func fresh(t *testing.T, e kv.Engine) {
	fill(t, e, "a1", "a2", "o1")
	f := begin(t, e)
	defer ended(t, f)
	wantScan(t, f.Held(), "", nil, "a1=a1", "a2=a2", "o1=o1")
	put(t, f, 'b', "b1", "b3")
	put(t, f, 'a', "a1", "a2")
	if err := f.Finish(); err != nil {
		t.Fatal(err)
	}
	update(t, e, func(tx kv.Tx) error {
		return errors.Join(tx.Delete([]byte("a2")), tx.Set([]byte("c1"), []byte("late")), tx.Set([]byte("o2"), nil))
	})
	wantScan(t, f.Held(), "", nil, "a1=a1", "a2=a2", "o1=o1")
	keep(t, f, 2)
	keep(t, f, 0)
	fill(t, e, "c2")
	before, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	err = f.Switch(func() error {
		keep(t, f, 1)
		return errors.Join(f.Update(func(tx kv.Tx) error {
			return errors.Join(tx.Set([]byte("b2"), []byte("last")), tx.Delete([]byte("b3")))
		}), f.Sync())
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Retire()
	view(t, e, func(r kv.Reader) error {
		wantScan(t, r, "", nil, "a1=fresh a1", "b1=fresh b1", "b2=last", "c1=late", "c2=c2")
		return nil
	})
	wantScan(t, before, "", nil, "a1=a1", "c1=late", "c2=c2", "o1=o1", "o2=")
	fill(t, e, "a0")
	if err := e.Sync(); err != nil {
		t.Error(err)
	}
	view(t, e, func(r kv.Reader) error {
		wantScan(t, r, "a", nil, "a0=a0", "a1=fresh a1")
		return nil
	})
}

func freshRefused(t *testing.T, e kv.Engine) {
	fill(t, e, "a1")
	f := begin(t, e)
	put(t, f, 'b', "b1")
	if err := f.Finish(); err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if err := f.Update(func(tx kv.Tx) error { return errors.Join(tx.Set([]byte("c"), nil), no) }); !errors.Is(err, no) {
		t.Errorf("a transaction that fails gives %v", err)
	}
	if err := f.Switch(func() error { return no }); !errors.Is(err, no) {
		t.Errorf("a last call that fails gives %v", err)
	}
	ended(t, f)
	view(t, e, func(r kv.Reader) error {
		wantScan(t, r, "", nil, "a1=a1")
		return nil
	})
	f = begin(t, e) // given up in the middle of its rows, then another
	put(t, f, 'b', "b1")
	ended(t, f)
	f = begin(t, e)
	defer ended(t, f)
	put(t, f, 'b', "b2")
	if err := errors.Join(f.Finish(), f.Switch(f.Sync)); err != nil {
		t.Fatal(err)
	}
	f.Retire()
	view(t, e, func(r kv.Reader) error {
		wantScan(t, r, "", nil, "b2=fresh b2")
		return nil
	})
}
