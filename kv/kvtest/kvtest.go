// Package kvtest checks an engine against the contract of package kv, sentence by sentence. Every
// engine runs it, so that what is proven over one holds over the other.
package kvtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"peerdex/kv"
)

// Run runs the suite. open returns a new, empty engine for each test; the suite closes it.
func Run(t *testing.T, open func(t testing.TB) kv.Engine) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, kv.Engine)
	}{
		{"Get", get},
		{"OwnWrites", ownWrites},
		{"Atomic", atomic},
		{"Isolation", isolation},
		{"ScanOrder", scanOrder},
		{"ScanBounds", scanBounds},
		{"ScanPrefixOfFF", scanPrefixOfFF},
		{"ScanStops", scanStops},
		{"ScanInUpdate", scanInUpdate},
		{"SlicesKept", slicesKept},
		{"TooBig", tooBig},
		{"Closed", closed},
		{"OneWriter", oneWriter},
		{"SyncDuringUpdates", syncDuringUpdates},
		{"Model", model},
		{"Fresh", fresh},
		{"FreshRefused", freshRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := open(t)
			defer func() {
				if err := e.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			c.run(t, e)
		})
	}
}

func get(t *testing.T, e kv.Engine) {
	if v := read(t, e, "a"); v != nil {
		t.Errorf("absent key reads %q, want nil", v)
	}
	update(t, e, func(tx kv.Tx) error {
		return errors.Join(tx.Set([]byte("empty"), []byte{}), tx.Set([]byte("nil"), nil), tx.Set([]byte("a"), []byte("1")))
	})
	for _, k := range []string{"empty", "nil"} {
		if v := read(t, e, k); v == nil || len(v) != 0 {
			t.Errorf("%s reads %#v, want a value of no bytes", k, v)
		}
	}
	if v := read(t, e, "a"); string(v) != "1" {
		t.Errorf("a reads %q, want 1", v)
	}
	update(t, e, func(tx kv.Tx) error {
		return errors.Join(tx.Delete([]byte("a")), tx.Delete([]byte("empty")), tx.Delete([]byte("never there")))
	})
	want(t, e, map[string]string{"nil": ""})
}

func ownWrites(t *testing.T, e kv.Engine) {
	fill(t, e, "a", "b", "c")
	update(t, e, func(tx kv.Tx) error {
		if err := errors.Join(tx.Set([]byte("a"), []byte("new")), tx.Delete([]byte("b")), tx.Set([]byte("d"), nil)); err != nil {
			return err
		}
		if v, err := tx.Get([]byte("a")); err != nil || string(v) != "new" {
			t.Errorf("own write reads %q, %v", v, err)
		}
		if v, err := tx.Get([]byte("b")); err != nil || v != nil {
			t.Errorf("own delete reads %q, %v", v, err)
		}
		if v, err := tx.Get([]byte("d")); err != nil || v == nil {
			t.Errorf("own write of no bytes reads %#v, %v", v, err)
		}
		wantScan(t, tx, "", nil, "a=new", "c=c", "d=")
		wantDown(t, tx, "", nil, "d=", "c=c", "a=new")
		if err := errors.Join(tx.Delete([]byte("a")), tx.Set([]byte("b"), []byte("again"))); err != nil {
			return err
		}
		wantScan(t, tx, "", nil, "b=again", "c=c", "d=")
		return nil
	})
	want(t, e, map[string]string{"b": "again", "c": "c", "d": ""})
}

func atomic(t *testing.T, e kv.Engine) {
	fill(t, e, "a", "b")
	cause := errors.New("the caller's own")
	err := e.Update(func(tx kv.Tx) error {
		if err := errors.Join(tx.Set([]byte("a"), []byte("lost")), tx.Delete([]byte("b")), tx.Set([]byte("c"), nil)); err != nil {
			return err
		}
		return cause
	})
	if !errors.Is(err, cause) {
		t.Errorf("update returned %v, want what its function returned", err)
	}
	want(t, e, map[string]string{"a": "a", "b": "b"})
	if err := e.View(func(kv.Reader) error { return cause }); !errors.Is(err, cause) {
		t.Errorf("view returned %v, want what its function returned", err)
	}
	func() { // a panic commits nothing and leaves the engine usable
		defer func() { recover() }()
		e.Update(func(tx kv.Tx) error {
			tx.Set([]byte("a"), []byte("lost"))
			panic("in the middle")
		})
	}()
	want(t, e, map[string]string{"a": "a", "b": "b"})
	fill(t, e, "c")
	want(t, e, map[string]string{"a": "a", "b": "b", "c": "c"})
	update(t, e, func(kv.Tx) error { return nil })
}

func isolation(t *testing.T, e kv.Engine) {
	fill(t, e, "a", "b")
	s, err := e.Snapshot()
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	defer s.Close()
	if err := e.View(func(r kv.Reader) error {
		update(t, e, func(tx kv.Tx) error {
			if err := errors.Join(tx.Set([]byte("a"), []byte("2")), tx.Delete([]byte("b")), tx.Set([]byte("c"), []byte("3"))); err != nil {
				return err
			}
			wantScan(t, r, "", nil, "a=a", "b=b") // not visible before the commit
			wantScan(t, s, "", nil, "a=a", "b=b")
			return nil
		})
		wantScan(t, r, "", nil, "a=a", "b=b") // nor after it
		return nil
	}); err != nil {
		t.Fatalf("view: %v", err)
	}
	if err := e.Sync(); err != nil {
		t.Fatalf("sync: %v", err)
	}
	wantScan(t, s, "", nil, "a=a", "b=b")
	wantDown(t, s, "", nil, "b=b", "a=a")
	for key, value := range map[string]string{"a": "a", "b": "b"} {
		if v, err := s.Get([]byte(key)); err != nil || string(v) != value {
			t.Errorf("snapshot reads %s as %q, %v", key, v, err)
		}
	}
	if v, err := s.Get([]byte("c")); err != nil || v != nil {
		t.Errorf("snapshot reads a later key as %q, %v", v, err)
	}
	want(t, e, map[string]string{"a": "2", "c": "3"})
}

// awkward keys: prefixes of one another, zero and 0xFF bytes, neighbours of prefixes.
var awkward = []string{"\x00", "\x00\x00", "a", "a\x00", "a\x00\xff", "aa", "ab", "a\xfe", "a\xff", "a\xff\x00", "a\xff\xff", "b", "b\x00", "\xfe\xff", "\xff", "\xff\x00", "\xff\xff", "\xff\xff\xff"}

func scanOrder(t *testing.T, e kv.Engine) {
	shuffled := slices.Clone(awkward)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	fill(t, e, shuffled...)
	if !slices.IsSorted(awkward) {
		t.Fatal("the test's own keys are not in order")
	}
	checkScans(t, e, awkward, "", nil)
}

func scanBounds(t *testing.T, e kv.Engine) {
	fill(t, e, awkward...)
	prefixes := []string{"", "a", "a\x00", "aa", "a\xff", "b", "c", "\x00", "\xfe"}
	froms := append([]string{"a\x01", "a\xff\x01", "b\x00\x00", "z", "\xff\xff\xff\xff"}, awkward...)
	for _, prefix := range prefixes {
		checkScans(t, e, awkward, prefix, nil)
		for _, from := range froms { // inside, below and above the prefix
			checkScans(t, e, awkward, prefix, []byte(from))
		}
	}
}

func scanPrefixOfFF(t *testing.T, e kv.Engine) {
	fill(t, e, awkward...)
	for _, prefix := range []string{"\xff", "\xff\xff", "\xff\xff\xff", "\xff\xff\xff\xff", "a\xff\xff", "\xfe\xff"} {
		checkScans(t, e, awkward, prefix, nil)
		checkScans(t, e, awkward, prefix, []byte(prefix))
		checkScans(t, e, awkward, prefix, []byte(prefix+"\xff\xff\xff\xff"))
		checkScans(t, e, awkward, prefix, []byte("m"))
	}
	long := "\xff" + strings.Repeat("\xff", 180) // a key of the longest the store uses, above any padding
	fill(t, e, long)
	checkScans(t, e, append(slices.Clone(awkward), long), "\xff", nil)
}

func scanStops(t *testing.T, e kv.Engine) {
	fill(t, e, "a", "b", "c", "d")
	cause := errors.New("the caller's own")
	for _, c := range []struct{ give, want error }{{kv.Stop, nil}, {fmt.Errorf("wrapped: %w", kv.Stop), nil}, {cause, cause}} {
		view(t, e, func(r kv.Reader) error {
			var up, keys, down []string
			errs := []error{
				r.Scan(nil, nil, func(k, _ []byte) error { up = append(up, string(k)); return at(len(up), 2, c.give) }),
				r.ScanKeys(nil, []byte("b"), func(k []byte) error { keys = append(keys, string(k)); return at(len(keys), 2, c.give) }),
				r.ScanDown(nil, nil, func(k, _ []byte) error { down = append(down, string(k)); return at(len(down), 2, c.give) }),
			}
			for _, err := range errs {
				if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
					t.Errorf("scan ended by %v returned %v, want %v", c.give, err, c.want)
				}
			}
			if got := fmt.Sprint(up, keys, down); got != "[a b] [b c] [d c]" {
				t.Errorf("scans ended by %v saw %s", c.give, got)
			}
			return nil
		})
	}
}

func at(n, stop int, err error) error {
	if n == stop {
		return err
	}
	return nil
}

// scanInUpdate: a scan does not see what is written while it runs, and misses nothing for it.
func scanInUpdate(t *testing.T, e kv.Engine) {
	fill(t, e, "a", "b", "c", "d")
	update(t, e, func(tx kv.Tx) error {
		if err := tx.Set([]byte("bb"), []byte("mine")); err != nil {
			return err
		}
		var seen []string
		if err := tx.Scan(nil, nil, func(k, v []byte) error {
			seen = append(seen, string(k)+"="+string(v))
			if v, err := tx.Get(slices.Clone(k)); err != nil || v == nil {
				t.Errorf("key %q under the scan reads %q, %v", k, v, err)
			}
			return errors.Join(tx.Delete(slices.Clone(k)), tx.Set([]byte("n"+string(k)), nil), tx.Set([]byte("c"), []byte("changed")))
		}); err != nil {
			return err
		}
		if got := strings.Join(seen, " "); got != "a=a b=b bb=mine c=c d=d" {
			t.Errorf("scan saw %s", got)
		}
		return nil
	})
	want(t, e, map[string]string{"na": "", "nb": "", "nbb": "", "nc": "", "nd": "", "c": "changed"})
}

// slicesKept: what Get returned stays as it was, and after the commit the caller may use its own
// slices again.
func slicesKept(t *testing.T, e kv.Engine) {
	key, value := []byte("key"), []byte("value")
	update(t, e, func(tx kv.Tx) error { return tx.Set(key, value) })
	copy(key, "xxx")
	copy(value, "yyyyy")
	want(t, e, map[string]string{"key": "value"})
	kept := read(t, e, "key")
	update(t, e, func(tx kv.Tx) error { return tx.Set([]byte("key"), []byte("VALUE")) })
	if string(kept) != "value" {
		t.Errorf("a value that was kept became %q", kept)
	}
}

func tooBig(t *testing.T, e kv.Engine) {
	fill(t, e, "a", "b")
	before := map[string]string{"a": "a", "b": "b"}
	chunk := make([]byte, 32<<10)
	key := func(i int) []byte { return fmt.Appendf(nil, "big/%08d", i) }
	overflow := func(tx kv.Tx, write func(i int) error) error {
		if err := errors.Join(tx.Set([]byte("a"), []byte("lost")), tx.Delete([]byte("b"))); err != nil {
			return err
		}
		for i := range 1 << 20 {
			if err := write(i); err != nil {
				return err
			}
		}
		return nil // then the commit has to refuse it
	}
	for name, write := range map[string]func(kv.Tx, int) error{
		"bytes":   func(tx kv.Tx, i int) error { return tx.Set(key(i), chunk) },
		"sets":    func(tx kv.Tx, i int) error { return tx.Set(key(i), nil) },
		"deletes": func(tx kv.Tx, i int) error { return tx.Delete(key(i)) },
	} {
		if err := e.Update(func(tx kv.Tx) error {
			return overflow(tx, func(i int) error { return write(tx, i) })
		}); !errors.Is(err, kv.ErrTooBig) {
			t.Errorf("%s: update returned %v, want ErrTooBig", name, err)
		}
		want(t, e, before)
		if err := e.Update(func(tx kv.Tx) error {
			overflow(tx, func(i int) error { return write(tx, i) }) // swallowed
			return nil
		}); !errors.Is(err, kv.ErrTooBig) {
			t.Errorf("%s: update whose function goes on returned %v, want ErrTooBig", name, err)
		}
		want(t, e, before)
		if t.Failed() {
			return // the rest would only say it again
		}
	}
	update(t, e, func(tx kv.Tx) error { // a frame's worth fits: 1,000 records in 1 MiB
		for i := range 1000 {
			if err := tx.Set(key(i), chunk[:1<<20/1000]); err != nil {
				return err
			}
		}
		return nil
	})
}

func closed(t *testing.T, e kv.Engine) {
	fill(t, e, "a")
	if err := e.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	_, snapshot := e.Snapshot()
	for name, err := range map[string]error{
		"View":     e.View(func(kv.Reader) error { t.Error("a view ran"); return nil }),
		"Update":   e.Update(func(kv.Tx) error { t.Error("an update ran"); return nil }),
		"Sync":     e.Sync(),
		"Snapshot": snapshot,
	} {
		if !errors.Is(err, kv.ErrClosed) {
			t.Errorf("%s after close returned %v, want ErrClosed", name, err)
		}
	}
	if err := e.Close(); err != nil {
		t.Errorf("closing again returned %v", err)
	}
}

// oneWriter also serves the race detector: running and total are guarded by nothing but the engine.
func oneWriter(t *testing.T, e kv.Engine) {
	const writers, each = 4, 50
	var (
		wg      sync.WaitGroup
		running bool
		total   int
	)
	for w := range writers {
		wg.Go(func() {
			for range each {
				if err := e.Update(func(tx kv.Tx) error {
					if running {
						t.Error("two updates run at once")
					}
					running = true
					defer func() { running = false }()
					total++
					v, err := tx.Get([]byte("sum"))
					if err != nil {
						return err
					}
					return errors.Join(tx.Set([]byte("sum"), append(v[:len(v):len(v)], 'x')), tx.Set([]byte{'w', byte(w)}, nil))
				}); err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
		wg.Go(func() {
			last := 0
			for range each {
				v, err := get1(e, "sum")
				if err != nil || len(v) < last {
					t.Errorf("read %d after %d, %v", len(v), last, err)
				}
				last = len(v)
			}
		})
	}
	wg.Wait()
	if n := len(read(t, e, "sum")); n != writers*each || total != n {
		t.Errorf("%d increments left %d, want %d", total, n, writers*each)
	}
}

func syncDuringUpdates(t *testing.T, e kv.Engine) {
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 20 {
				k := fmt.Sprintf("%d/%02d", w, i)
				if err := e.Update(func(tx kv.Tx) error { return tx.Set([]byte(k), []byte(k)) }); err != nil {
					t.Errorf("update: %v", err)
				}
				if err := e.Sync(); err != nil {
					t.Errorf("sync: %v", err)
				}
				if v, err := get1(e, k); err != nil || string(v) != k {
					t.Errorf("%s reads %q, %v", k, v, err)
				}
			}
		})
	}
	wg.Wait()
}

// model compares the engine with a map through random transactions, each of which commits or fails.
func model(t *testing.T, e kv.Engine) {
	rnd := rand.New(rand.NewPCG(3, 4))
	state := map[string]string{}
	give := errors.New("given up")
	key := func() string {
		k := make([]byte, 1+rnd.IntN(3))
		for i := range k {
			k[i] = []byte{0, 'a', 'b', 0xFE, 0xFF}[rnd.IntN(5)]
		}
		return string(k)
	}
	for round := range 150 {
		next := make(map[string]string, len(state))
		for k, v := range state {
			next[k] = v
		}
		fail := rnd.IntN(4) == 0
		err := e.Update(func(tx kv.Tx) error {
			for range rnd.IntN(12) {
				k := key()
				if rnd.IntN(3) == 0 {
					delete(next, k)
					if err := tx.Delete([]byte(k)); err != nil {
						return err
					}
					continue
				}
				v := fmt.Sprint(round, rnd.IntN(100))
				next[k] = v
				if err := tx.Set([]byte(k), []byte(v)); err != nil {
					return err
				}
			}
			wantScan(t, tx, "", nil, pairs(next)...)
			if fail {
				return give
			}
			return nil
		})
		if fail != errors.Is(err, give) || err != nil && !fail {
			t.Fatalf("round %d: %v", round, err)
		}
		if !fail {
			state = next
		}
		want(t, e, state)
		sorted := sortedKeys(state)
		from := []byte(key())
		if rnd.IntN(3) == 0 {
			from = nil
		}
		checkScansOf(t, e, sorted, state, key()[:rnd.IntN(2)], from)
		if t.Failed() {
			t.Fatalf("stopped after round %d", round)
		}
	}
}

// checkScans compares the three scans of an engine that holds keys, each its own value, with what the
// contract says they see.
func checkScans(t *testing.T, e kv.Engine, keys []string, prefix string, from []byte) {
	t.Helper()
	state := map[string]string{}
	for _, k := range keys {
		state[k] = k
	}
	checkScansOf(t, e, keys, state, prefix, from)
}

func checkScansOf(t *testing.T, e kv.Engine, sorted []string, state map[string]string, prefix string, from []byte) {
	t.Helper()
	var up, down []string
	for _, k := range sorted {
		if !strings.HasPrefix(k, prefix) {
			continue
		}
		if from == nil || k >= string(from) {
			up = append(up, k+"="+state[k])
		}
		if from == nil || k <= string(from) {
			down = append(down, k+"="+state[k])
		}
	}
	slices.Reverse(down)
	check := func(r kv.Reader) error {
		wantScan(t, r, prefix, from, up...)
		wantDown(t, r, prefix, from, down...)
		return nil
	}
	view(t, e, check)
	update(t, e, func(tx kv.Tx) error { return check(tx) })
}

func wantScan(t *testing.T, r kv.Reader, prefix string, from []byte, want ...string) {
	t.Helper()
	var got, keys, wantKeys []string
	if err := r.Scan([]byte(prefix), from, func(k, v []byte) error {
		got = append(got, string(k)+"="+string(v))
		return nil
	}); err != nil {
		t.Errorf("scan: %v", err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("scan of prefix %q from %q saw %s, want %s", prefix, from, brief(got), brief(want))
	}
	if err := r.ScanKeys([]byte(prefix), from, func(k []byte) error {
		keys = append(keys, string(k))
		return nil
	}); err != nil {
		t.Errorf("scan of keys: %v", err)
	}
	for _, w := range want {
		k, _, _ := strings.Cut(w, "=")
		wantKeys = append(wantKeys, k)
	}
	if !slices.Equal(keys, wantKeys) {
		t.Errorf("scan of keys with prefix %q from %q saw %s, want %s", prefix, from, brief(keys), brief(wantKeys))
	}
}

func wantDown(t *testing.T, r kv.Reader, prefix string, from []byte, want ...string) {
	t.Helper()
	var got []string
	if err := r.ScanDown([]byte(prefix), from, func(k, v []byte) error {
		got = append(got, string(k)+"="+string(v))
		return nil
	}); err != nil {
		t.Errorf("scan down: %v", err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("scan down of prefix %q from %q saw %s, want %s", prefix, from, brief(got), brief(want))
	}
}

// want checks the whole content, by scan and by Get.
func want(t *testing.T, e kv.Engine, state map[string]string) {
	t.Helper()
	view(t, e, func(r kv.Reader) error {
		wantScan(t, r, "", nil, pairs(state)...)
		for k, v := range state {
			if got, err := r.Get([]byte(k)); err != nil || got == nil || !bytes.Equal(got, []byte(v)) {
				t.Errorf("key %q reads %.40q, %v; want %.40q", k, got, err, v)
			}
		}
		return nil
	})
}

// brief shows a list in one line that can be read.
func brief(list []string) string {
	if n := len(list); n > 20 {
		return fmt.Sprintf("%.40q and %d more", list[:20], n-20)
	}
	return fmt.Sprintf("%.40q", list)
}

func sortedKeys(state map[string]string) []string {
	keys := make([]string, 0, len(state))
	for k := range state {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func pairs(state map[string]string) []string {
	out := sortedKeys(state)
	for i, k := range out {
		out[i] = k + "=" + state[k]
	}
	return out
}

func fill(t *testing.T, e kv.Engine, keys ...string) {
	t.Helper()
	update(t, e, func(tx kv.Tx) error {
		for _, k := range keys {
			if err := tx.Set([]byte(k), []byte(k)); err != nil {
				return err
			}
		}
		return nil
	})
}

func update(t *testing.T, e kv.Engine, fn func(kv.Tx) error) {
	t.Helper()
	if err := e.Update(fn); err != nil {
		t.Fatalf("update: %v", err)
	}
}

func view(t *testing.T, e kv.Engine, fn func(kv.Reader) error) {
	t.Helper()
	if err := e.View(fn); err != nil {
		t.Fatalf("view: %v", err)
	}
}

func read(t *testing.T, e kv.Engine, key string) []byte {
	t.Helper()
	v, err := get1(e, key)
	if err != nil {
		t.Fatalf("read %q: %v", key, err)
	}
	return v
}

func get1(e kv.Engine, key string) (v []byte, err error) {
	err = e.View(func(r kv.Reader) error { v, err = r.Get([]byte(key)); return err })
	return v, err
}
