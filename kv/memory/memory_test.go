package memory

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"peerdex/kv"
	"peerdex/kv/kvtest"
)

func TestContract(t *testing.T) {
	kvtest.Run(t, func(testing.TB) kv.Engine { return New(Config{}) })
}

// dump returns what an engine holds.
func dump(t *testing.T, e *Engine) (out []string) {
	t.Helper()
	if err := e.View(func(r kv.Reader) error {
		return r.Scan(nil, nil, func(k, v []byte) error { out = append(out, string(k)+"="+string(v)); return nil })
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func wantDump(t *testing.T, e *Engine, want ...string) {
	t.Helper()
	if got := dump(t, e); !slices.Equal(got, want) {
		t.Errorf("engine holds %q, want %q", got, want)
	}
}

func set(t *testing.T, e *Engine, key, value string) {
	t.Helper()
	if err := e.Update(func(tx kv.Tx) error { return tx.Set([]byte(key), []byte(value)) }); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, e *Engine, key string) {
	t.Helper()
	if err := e.Update(func(tx kv.Tx) error { return tx.Delete([]byte(key)) }); err != nil {
		t.Fatal(err)
	}
}

// A power cut leaves the durable state and any prefix of what was committed since.
func TestCrash(t *testing.T) {
	for keep := range 4 {
		e := New(Config{})
		set(t, e, "a", "1")
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
		set(t, e, "b", "2")
		remove(t, e, "a")
		set(t, e, "c", "3")
		if n := e.Unsynced(); n != 3 {
			t.Fatalf("%d unsynced, want 3", n)
		}
		s, err := e.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		after := e.Crash(keep)
		want := [][]string{{"a=1"}, {"a=1", "b=2"}, {"b=2"}, {"b=2", "c=3"}}[keep]
		wantDump(t, after, want...)
		if n := after.Unsynced(); n != 0 {
			t.Errorf("%d unsynced after a crash", n)
		}
		set(t, after, "d", "4")
		wantDump(t, after.Crash(0), want...)

		_, snapshot := e.Snapshot()
		_, get := s.Get([]byte("a"))
		for name, err := range map[string]error{
			"View":     e.View(func(kv.Reader) error { return nil }),
			"Update":   e.Update(func(kv.Tx) error { return nil }),
			"Sync":     e.Sync(),
			"Snapshot": snapshot,
			"Get":      get,
			"Scan":     s.Scan(nil, nil, func(_, _ []byte) error { return nil }),
		} {
			if !errors.Is(err, kv.ErrClosed) {
				t.Errorf("%s of the crashed engine returned %v, want ErrClosed", name, err)
			}
		}
	}
}

func TestCrashInsideUpdate(t *testing.T) {
	var e, after *Engine
	e = New(Config{OnCommit: func(int, int) error {
		if e != nil && after == nil && e.Unsynced() == 1 {
			after = e.Crash(1)
		}
		return nil
	}})
	set(t, e, "a", "1")
	if err := e.Update(func(tx kv.Tx) error { return tx.Set([]byte("b"), nil) }); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("the commit that met the crash returned %v", err)
	}
	wantDump(t, after, "a=1")
}

func TestBackup(t *testing.T) {
	e := New(Config{})
	set(t, e, "a", "1")
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	set(t, e, "b", "2")
	b := e.Backup()
	set(t, e, "a", "3")
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	first := Restore(Config{}, b)
	wantDump(t, first, "a=1")
	set(t, first, "c", "4")
	wantDump(t, first, "a=1", "c=4")
	wantDump(t, Restore(Config{}, b), "a=1")
	wantDump(t, e, "a=3", "b=2")
}

func TestCloseIsDurable(t *testing.T) {
	e := New(Config{})
	set(t, e, "a", "1")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	wantDump(t, Restore(Config{}, e.Backup()), "a=1")
}

func TestHooks(t *testing.T) {
	full, broken := errors.New("no space left"), errors.New("input/output error")
	var commitErr, syncErr error
	var calls []string
	e := New(Config{
		OnCommit: func(writes, bytes int) error {
			calls = append(calls, fmt.Sprintf("commit %d %d", writes, bytes))
			return commitErr
		},
		OnSync: func(n int) error { calls = append(calls, fmt.Sprint("sync ", n)); return syncErr },
	})
	set(t, e, "a", "1")
	commitErr = full
	if err := e.Update(func(tx kv.Tx) error { return tx.Set([]byte("b"), nil) }); !errors.Is(err, full) {
		t.Errorf("update on a full disk returned %v", err)
	}
	commitErr, syncErr = nil, broken
	wantDump(t, e, "a=1")
	if err := e.Sync(); !errors.Is(err, broken) || e.Unsynced() != 1 {
		t.Errorf("broken sync returned %v and left %d unsynced", err, e.Unsynced())
	}
	syncErr = nil
	if err := e.Sync(); err != nil || e.Unsynced() != 0 {
		t.Errorf("sync returned %v and left %d unsynced", err, e.Unsynced())
	}
	if err := e.Update(func(kv.Tx) error { return nil }); err != nil || e.Unsynced() != 0 {
		t.Errorf("an update without writes returned %v and left %d unsynced", err, e.Unsynced())
	}
	if want := []string{"commit 1 14", "commit 1 13", "sync 1", "sync 1"}; !slices.Equal(calls, want) {
		t.Errorf("hooks saw %q, want %q", calls, want)
	}
}

func TestLimits(t *testing.T) {
	fits := func(cfg Config, n, size int) bool {
		err := New(cfg).Update(func(tx kv.Tx) error {
			for i := range n {
				if err := tx.Set([]byte{byte(i)}, make([]byte, size)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, kv.ErrTooBig) {
			t.Fatal(err)
		}
		return err == nil
	}
	if !fits(Config{MaxEntries: 3}, 3, 0) || fits(Config{MaxEntries: 3}, 4, 0) {
		t.Error("limit of 3 entries is not kept")
	}
	if !fits(Config{MaxBytes: 2 * (1 + 7 + perEntry)}, 2, 7) || fits(Config{MaxBytes: 2 * (1 + 7 + perEntry)}, 2, 8) {
		t.Error("limit of bytes is not kept")
	}
}

func TestFaults(t *testing.T) {
	e := New(Config{KeepDeleted: true})
	set(t, e, "a", "old")
	set(t, e, "a", "last")
	set(t, e, "b", "\x00\x00")
	remove(t, e, "a")
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	set(t, e, "c", "1")
	s, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Deleted(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("deleted keys %q", got)
	}
	if e.Undelete([]byte("b")) || !e.Undelete([]byte("a")) || e.Undelete([]byte("a")) {
		t.Error("undelete works on what is remembered, once")
	}
	if e.Flip([]byte("a key never set"), 3) || !e.Flip([]byte("b"), 9) {
		t.Error("flip works on keys that have a value")
	}
	wantDump(t, e, "a=last", "b=\x00\x02", "c=1")
	if v, err := s.Get([]byte("a")); err != nil || v != nil {
		t.Errorf("the snapshot reads %q, %v", v, err)
	}
	wantDump(t, e.Crash(0), "a=last", "b=\x00\x02")
}

// A caller who keeps a slice of a scan reads rubbish.
func TestScanSlicesAreOverwritten(t *testing.T) {
	e := New(Config{})
	set(t, e, "a", "1")
	var key, value []byte
	if err := e.View(func(r kv.Reader) error {
		return r.Scan(nil, nil, func(k, v []byte) error { key, value = k, v; return nil })
	}); err != nil {
		t.Fatal(err)
	}
	if string(key) == "a" || string(value) == "1" {
		t.Error("the slices of a scan outlive it")
	}
}

func TestNestedScanPanics(t *testing.T) {
	e := New(Config{})
	set(t, e, "a", "1")
	defer func() {
		if recover() == nil {
			t.Error("a scan inside a scan of one transaction went through")
		}
		set(t, e, "b", "2") // and the engine goes on
	}()
	e.Update(func(tx kv.Tx) error {
		return tx.Scan(nil, nil, func(_, _ []byte) error {
			return tx.ScanKeys(nil, nil, func([]byte) error { return nil })
		})
	})
}

func BenchmarkUpdate(b *testing.B) {
	for _, size := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("keys=%d", size), func(b *testing.B) {
			e, i := New(Config{}), 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				if err := e.Update(func(tx kv.Tx) error {
					return tx.Set(fmt.Appendf(nil, "key/%09d", i*7919%size), []byte("a small value"))
				}); err != nil {
					b.Fatal(err)
				}
				if i%16 == 0 {
					if err := e.Sync(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
