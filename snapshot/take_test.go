package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/record"
	"peerdex/store"
)

// donor holds two devices' feeds: of its own a large location, a small one and a device feed.
func newDonor(tb testing.TB) *party {
	tb.Helper()
	d, other := newParty(tb, 9), newParty(tb, 8)
	d.fill(tb, d.location(1), 0, 45000)
	d.fill(tb, d.location(2), 50000, 30)
	d.edit(tb, record.Device(d.id), record.FieldName, "donor")
	other.fill(tb, other.location(1), 0, 500)
	other.edit(tb, record.Device(other.id), record.FieldName, "other")
	f := other.export(tb)
	if _, err := d.taker().Take(context.Background(), f.Manifest, f); err != nil {
		tb.Fatal(err)
	}
	d.same(tb, other)
	return d
}

// What a snapshot holds comes in whole, device feeds through the ordinary door, and is told; what comes new
// after that comes with the next, as far as it is wanted.
func TestTake(t *testing.T) {
	d := newDonor(t)
	f := d.export(t)
	entries, chunks, raw, size := f.Manifest.Totals()
	if entries != 45000+30+1+500+1 || chunks < 7 || size >= raw || len(f.Manifest.Feeds) != 5 {
		t.Fatalf("%d entries in %d chunks of %d bytes, %d compressed, %d feeds", entries, chunks, raw, size, len(f.Manifest.Feeds))
	}
	a := newParty(t, 1)
	a.fill(t, a.location(1), 0, 40)
	a.edit(t, record.Device(a.id), record.FieldName, "me")
	var (
		told   []Progress
		shown  int
		shared int
	)
	take := a.taker()
	take.Progress = func(p Progress) { told = append(told, p) }
	take.Within = func(tx kv.Tx, l []store.Loaded) error {
		shown += len(l)
		return tx.Set([]byte("v shown"), []byte{1})
	}
	take.Applied = func(tx kv.Tx, settling bool, res *store.Result) error {
		shared += res.Applied
		return nil
	}
	asked := 0
	take.Admit = func() (uint64, error) { asked++; return a.Generation(), nil }
	out, err := take.Take(context.Background(), f.Manifest, f)
	if err != nil {
		t.Fatal(err)
	}
	a.same(t, d)
	if len(out.Loaded) != 3 || len(out.Applied) != 2 || shown != 3 || shared != 2 || asked != 3 {
		t.Errorf("loaded %d feeds, applied %d, told of %d and %d, admitted %d times", len(out.Loaded), len(out.Applied), shown, shared, asked)
	}
	phases := []Phase{}
	for i, p := range told {
		if i > 0 && (p.Records < told[i-1].Records || p.Bytes < told[i-1].Bytes) {
			t.Errorf("progress went from %+v to %+v", told[i-1], p)
		}
		phases = append(phases, p.Phase)
	}
	if last := told[len(told)-1]; last.Records != entries || last.Total != entries || last.Bytes != size || last.Of != size {
		t.Errorf("progress ends with %+v", last)
	}
	if phases = slices.Compact(phases); !slices.Equal(phases, []Phase{Loading, Installing, Applying}) {
		t.Errorf("phases %v", phases)
	}
	if st, _ := a.State(a.location(1)); st.Settled == nil || st.Count != 40 {
		t.Errorf("the own feed is %+v", st)
	}
	if row, ok, err := a.Register(record.Device(d.id), record.FieldName); err != nil || !ok || string(row.Value) != "donor" {
		t.Errorf("the donor is called %q, %v", row.Value, err)
	}

	if _, err := take.Take(context.Background(), f.Manifest, f); !errors.Is(err, store.ErrHeld) {
		t.Errorf("the same again gives %v", err)
	}
	d.fill(t, d.location(1), 90000, 10)
	d.edit(t, record.Device(d.id), record.FieldName, "renamed")
	g := d.export(t)
	fresh, stale := 0, map[Sum]bool{}
	for _, feed := range f.Manifest.Feeds {
		for _, c := range feed.Chunks {
			stale[c.Sum] = true
		}
	}
	for _, feed := range g.Manifest.Feeds {
		for _, c := range feed.Chunks {
			if !stale[c.Sum] {
				fresh++
			}
		}
	}
	if fresh != 2 {
		t.Errorf("%d chunks are new after a few changes at the ends of two feeds", fresh)
	}
	take.Wants = func(id feed.ID) bool { return id.IsDevice() }
	if out, err = take.Take(context.Background(), g.Manifest, g); err != nil || len(out.Applied) != 1 || len(out.Loaded) != 0 {
		t.Errorf("device feeds alone: %+v, %v", out, err)
	}
	take.Wants = all
	if out, err = take.Take(context.Background(), g.Manifest, g); err != nil || len(out.Applied) != 0 || len(out.Loaded) != 1 {
		t.Errorf("the rest: %+v, %v", out, err)
	}
	a.same(t, d)
}

// A device feed of more than one transaction takes comes in parts.
func TestTakeALargeDeviceFeed(t *testing.T) {
	d, a := newParty(t, 9), newParty(t, 1)
	var puts []store.Put
	for i := range 2*applyEntries + 10 {
		id := [16]byte{byte(i), byte(i >> 8), 1}
		stamp, err := d.now()
		if err != nil {
			t.Fatal(err)
		}
		puts = append(puts, store.Put{Record: record.Register{
			Entity: record.Entity{Kind: record.TagEntity, ID: string(id[:])}, Field: "name", Author: d.id, Stamp: stamp, Value: []byte("tag"),
		}})
	}
	if _, err := d.Commit(feed.ID{Device: d.id}, puts); err != nil {
		t.Fatal(err)
	}
	f := d.export(t)
	parts := 0
	take := a.taker()
	take.Applied = func(kv.Tx, bool, *store.Result) error { parts++; return nil }
	if _, err := take.Take(context.Background(), f.Manifest, f); err != nil {
		t.Fatal(err)
	}
	a.same(t, d)
	if parts != 3 {
		t.Errorf("%d transactions", parts)
	}
}

// Whatever is wrong with a snapshot, nothing of it is taken, and the store is what it was.
func TestTakeRefuses(t *testing.T) {
	d := newDonor(t)
	f := d.export(t)
	a := newParty(t, 1)
	a.fill(t, a.location(1), 0, 40)
	before := a.States()
	stop, leave := errors.New("stream broke"), errors.New("no member")
	// edited is the manifest with a change, signed again by the donor, who may lie.
	edited := func(change func(*Manifest)) Manifest {
		m, err := Parse(f.Manifest.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		change(&m)
		return m.sign(d.author().Sign)
	}
	good := f.Chunk
	last := 0
	for _, feed := range f.Manifest.Feeds {
		last += len(feed.Chunks)
	}
	for what, c := range map[string]struct {
		want  error
		m     Manifest
		chunk func(int) ([]byte, error)
		taker func(*Taker)
	}{
		"another library": {want: ErrLibrary, m: edited(func(m *Manifest) { m.Library[0]++ })},
		"a head of another library": {want: feed.ErrSignature, m: edited(func(m *Manifest) {
			for i := range m.Feeds {
				m.Feeds[i].Head.Library[0]++
			}
		})},
		"a head that its owner did not sign": {want: feed.ErrSignature, m: edited(func(m *Manifest) { m.Feeds[1].Head.Root[0]++ })},
		"a device's head that it did not sign": {want: feed.ErrSignature, m: edited(func(m *Manifest) {
			m.Feeds[slices.IndexFunc(m.Feeds, func(f Feed) bool { return f.Head.Feed.IsDevice() })].Head.Root[0]++
		})},
		"a chunk of another place": {want: ErrCorrupt, chunk: func(i int) ([]byte, error) { return good((i + 1) % last) }},
		"a chunk with a wrong byte": {want: ErrCorrupt, chunk: func(i int) ([]byte, error) {
			b, err := good(i)
			b[len(b)/2] ^= 1
			return b, err
		}},
		"a chunk cut short": {want: ErrCorrupt, chunk: func(i int) ([]byte, error) {
			b, err := good(i)
			return b[:len(b)-1], err
		}},
		"the last chunk missing": {want: stop, chunk: func(i int) ([]byte, error) {
			if i == last-1 {
				return nil, stop
			}
			return good(i)
		}},
		"two feeds swapped": {want: store.ErrMismatch, m: edited(func(m *Manifest) { m.Feeds[1].Chunks, m.Feeds[3].Chunks = m.Feeds[3].Chunks, m.Feeds[1].Chunks }),
			chunk: func(i int) ([]byte, error) { return nil, nil }},
		"the donor is no member": {want: leave, taker: func(t *Taker) { t.Admit = func() (uint64, error) { return 0, leave } }},
		"an event fails":         {want: stop, taker: func(t *Taker) { t.Within = func(kv.Tx, []store.Loaded) error { return stop } }},
		"nothing is wanted":      {want: store.ErrHeld, taker: func(t *Taker) { t.Wants = func(feed.ID) bool { return false } }},
	} {
		if c.m.Feeds == nil {
			c.m = f.Manifest
		}
		if c.chunk == nil {
			c.chunk = good
		}
		if what == "two feeds swapped" { // chunks as the swapped manifest numbers them
			bySum := map[Sum][]byte{}
			n := 0
			for _, feed := range f.Manifest.Feeds {
				for _, ch := range feed.Chunks {
					b, err := f.Chunk(n)
					if err != nil {
						t.Fatal(err)
					}
					bySum[ch.Sum] = b
					n++
				}
			}
			var order []Sum
			for _, feed := range c.m.Feeds {
				for _, ch := range feed.Chunks {
					order = append(order, ch.Sum)
				}
			}
			c.chunk = func(i int) ([]byte, error) { return bySum[order[i]], nil }
		}
		take := a.taker()
		if c.taker != nil {
			c.taker(take)
		}
		if _, err := take.Take(context.Background(), c.m, tampered{f, c.chunk}); !errors.Is(err, c.want) {
			t.Errorf("%s gives %v", what, err)
		}
		if c.taker == nil { // it is the snapshot's fault
			if err := take.Verify(context.Background(), c.m, tampered{f, c.chunk}); !errors.Is(err, c.want) {
				t.Errorf("%s: verified with %v", what, err)
			}
		}
		if after := a.States(); len(after) != len(before) || *after[0].Settled != *before[0].Settled {
			t.Errorf("%s: the store has changed: %+v", what, after)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := a.taker().Take(ctx, f.Manifest, tampered{f, func(i int) ([]byte, error) { return nil, ctx.Err() }}); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended gives %v", err)
	}
	if err := a.taker().Verify(context.Background(), f.Manifest, f); err != nil || len(a.States()) != len(before) {
		t.Fatalf("the true snapshot is verified with %v; %d feeds", err, len(a.States()))
	}
	if _, err := a.taker().Take(context.Background(), f.Manifest, f); err != nil {
		t.Fatalf("after all that the true snapshot gives %v", err)
	}
	a.same(t, d)
}

// A file that is not all of a snapshot, or not one, is told from one; Export replaces nothing, and what it
// writes others cannot read and holds no local fact.
func TestFile(t *testing.T) {
	d := newParty(t, 9)
	d.fill(t, d.location(1), 0, 100)
	f := d.export(t)
	path := f.f.Name()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	pin, err := d.Pin(all)
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Close()
	if _, err := Export(context.Background(), path, pin, d.author(), 1); !errors.Is(err, os.ErrExist) {
		t.Errorf("onto a file that exists: %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(whole) {
		t.Errorf("the file that existed has changed, %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Export(ctx, path+"2", pin, d.author(), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
	if _, err := os.Stat(path + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left by what was cut off: %v", err)
	}
	if err := os.WriteFile(path+"2"+partSuffix, whole[:40], 0o600); err != nil { // by an export that was killed
		t.Fatal(err)
	}
	by := d.author()
	sign := by.Sign
	during := func(what func()) {
		by.Sign = func(b []byte) []byte { // once all chunks are written
			what()
			return sign(b)
		}
	}
	during(func() {
		if _, err := os.Stat(path + "2"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it has its name before it is whole: %v", err)
		}
	})
	if _, err := Export(context.Background(), path+"2", pin, by, 1); err != nil {
		t.Errorf("after an export that was killed: %v", err)
	}
	if _, err := os.Stat(path + "2"); err != nil {
		t.Error(err)
	}
	during(func() {
		if err := os.WriteFile(path+"3", []byte("another's"), 0o600); err != nil {
			t.Error(err)
		}
	})
	if _, err := Export(context.Background(), path+"3", pin, by, 1); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file came meanwhile: %v", err)
	}
	if b, err := os.ReadFile(path + "3"); err != nil || string(b) != "another's" {
		t.Errorf("the file that came meanwhile is %q, %v", b, err)
	}
	during(func() {
		by.Sign = sign
		if _, err := Export(context.Background(), path+"4", pin, by, 2); err != nil {
			t.Errorf("a second export: %v", err)
		}
	})
	if _, err := Export(context.Background(), path+"4", pin, by, 1); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second export came before: %v", err)
	}
	if g, err := OpenFile(path + "4"); err != nil || g.Manifest.Stamp != 2 || g.Close() != nil {
		t.Errorf("what the second export wrote: %v, %v", g, err)
	}
	if left, err := filepath.Glob(path + "*" + partSuffix); err != nil || len(left) > 0 {
		t.Errorf("left beside: %v, %v", left, err)
	}
	raw, _, err := unpackAll(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"mine alone", string(d.key.Seed())} {
		if strings.Contains(string(whole)+raw, secret) {
			t.Errorf("%q is in the snapshot", secret)
		}
	}

	bad := t.TempDir() + "/bad"
	for n := range len(whole) {
		if n > 50 && n < len(whole)-1000 && n%197 != 0 {
			continue
		}
		if err := os.WriteFile(bad, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if g, err := OpenFile(bad); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut after %d bytes: %v, %v", n, g, err)
		}
	}
	if _, err := OpenFile(t.TempDir()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a folder gives %v", err)
	}
	if _, err := OpenFile(bad + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file gives %v", err)
	}
}

func unpackAll(f *File) (raw string, entries int, err error) {
	n := 0
	for _, feed := range f.Manifest.Feeds {
		for _, c := range feed.Chunks {
			b, err := f.Chunk(n)
			if err != nil {
				return "", 0, err
			}
			buf, got, err := unpack(b, c, nil, nil)
			if err != nil {
				return "", 0, err
			}
			raw += string(buf[:c.Raw])
			entries += len(got)
			n++
		}
	}
	return raw, entries, nil
}
