package memory

import (
	"errors"
	"testing"

	"peerdex/kv"
)

// A crash finds what the engine held until the name of the fresh content is durable, and that from then on; in
// between it finds either.
func TestCrashDuringSwitch(t *testing.T) {
	power := errors.New("power is gone")
	all := func([]byte) bool { return false }
	for what, c := range map[string]struct {
		until int // steps of the switch that happen; 4 all
		cut   bool
		want  string
	}{
		"finished":                  {1, true, "a=a"},
		"synced":                    {2, true, "a=a"},
		"named, power lost":         {3, true, "a=a"},
		"named, process dead":       {3, false, "b=b"},
		"switched":                  {4, true, "b=b"},
		"switched, and not synced":  {5, true, ""},
		"given up too early":        {6, true, ""},
		"given up, and switched to": {7, true, "b=b"},
	} {
		var syncs error
		e := New(Config{OnSync: func(int) error { return syncs }})
		set(t, e, "a", "a")
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
		f, err := e.Fresh()
		if err != nil {
			t.Fatal(err)
		}
		if c.until != 5 {
			if err := errors.Join(f.Rows('b').Put([]byte("b"), []byte("b")), f.Finish()); err != nil {
				t.Fatal(err)
			}
		} else if err := f.Update(func(tx kv.Tx) error { return tx.Set([]byte("b"), []byte("b")) }); err != nil {
			t.Fatal(err)
		}
		if c.until == 2 {
			if _, err := f.CatchUp(all); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		if c.until >= 6 {
			f.Retire()
		}
		if c.until == 3 {
			syncs = power
		}
		if c.until >= 3 && c.until != 6 {
			if err := f.Switch(func() error { return nil }); !errors.Is(err, syncs) {
				t.Errorf("%s: switching gives %v", what, err)
			}
		}
		keep := 0
		if !c.cut {
			keep = e.Unsynced()
		}
		after := e.Crash(keep)
		if c.want == "" {
			wantDump(t, after)
		} else {
			wantDump(t, after, c.want)
		}
	}
}
