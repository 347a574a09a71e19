package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/record"
)

// newLibrary is a store of two devices' feeds, two locations each, and their heads.
func newLibrary(tb testing.TB, r *rand.Rand, entries int) (donor *device, heads []feed.Head) {
	tb.Helper()
	donor = newDevice(tb, 9)
	other := newDevice(tb, 8)
	for i := range byte(4) {
		d := []*device{other, donor}[i%2]
		fill(tb, d, feed.ID{Device: d.id, Location: location(i + 1)}, r, entries)
	}
	for _, st := range other.States() { // the donor holds the other's feeds too
		if _, err := donor.Apply(Change{Feed: st.Feed, Entries: other.after(tb, st.Feed, 0), Settle: st.Settled}); err != nil {
			tb.Fatal(err)
		}
	}
	for _, st := range donor.States() {
		heads = append(heads, *st.Settled)
	}
	if err := donor.SetRegisters(name(donor.id, "donor")); err != nil {
		tb.Fatal(err)
	}
	return donor, heads
}

// fill writes folders, files, moves and deletions.
func fill(tb testing.TB, d *device, id feed.ID, r *rand.Rand, entries int) {
	tb.Helper()
	random := func() (id record.EntryID) {
		for i := range id {
			id[i] = byte(r.Uint32())
		}
		return id
	}
	dirs := []record.EntryID{{}}
	var all []record.EntryID
	var puts []Put
	for i := range entries {
		f := record.File{ID: random(), Parent: dirs[r.IntN(len(dirs))], Kind: record.Regular, Mode: 0o644, Size: r.Uint64N(1 << 30), Name: fmt.Sprint("name ", i)}
		switch {
		case i%15 == 0:
			f.Kind, f.Size = record.Directory, 0
			dirs = append(dirs, f.ID)
		case i%16 == 0:
			f.Parent = random() // which nobody has
		case i%3 == 0:
			f.Hash = record.Hash{byte(i), byte(i >> 8), 1}
		}
		all = append(all, f.ID)
		puts = append(puts, Put{Record: f, Local: []byte("inode")})
	}
	for range entries / 10 {
		i := r.IntN(len(all))
		if slices.Contains(dirs, all[i]) {
			puts = append(puts, Put{Record: record.File{ID: all[i], Kind: record.Directory, Name: fmt.Sprint("moved ", i)}}) // above what is in it
		} else {
			puts = append(puts, Put{Record: record.Tombstone{ID: all[i]}})
		}
	}
	d.commit(tb, id, puts...)
}

// rows returns everything a store holds, but for the numbers of its feeds, which say who is meant.
func rows(tb testing.TB, s *Store) map[string]string {
	tb.Helper()
	out := map[string]string{}
	feeds := s.numbered()
	err := s.View(func(r kv.Reader) error {
		return r.Scan(nil, nil, func(k, v []byte) error {
			key := bytes.Clone(k)
			if n, ok := numIn(k); ok {
				at := bytes.LastIndex(key, []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
				if k[0] != famRegister {
					at = bytes.Index(key[1:], []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + 1
				}
				copy(key[at:], "####")
				out[fmt.Sprintf("%s of %v", key, feeds[n])] = string(v)
				return nil
			}
			if k[0] == famFeed {
				row, err := decodeRow(feed.ParseID(k[1:]), v)
				if err != nil {
					return err
				}
				row.num = 0
				v = row.encode()
			}
			if string(k) == "afeeds" {
				v = nil
			}
			out[string(key)] = string(v)
			return nil
		})
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// noRowsOfNobody fails if rows of a feed are left that is no more.
func noRowsOfNobody(tb testing.TB, s *Store) {
	tb.Helper()
	for k := range rows(tb, s) {
		if strings.HasSuffix(k, " of "+feed.ID{}.String()) {
			tb.Fatalf("%q belongs to no feed", k)
		}
	}
}

// load brings what the donor holds into d's store.
func load(d *device, donor *device, heads []feed.Head, limit int) ([]Loaded, error) {
	l, err := d.Load(heads, 0)
	if err != nil {
		return nil, err
	}
	l.limit = limit
	err = send(l, donor, heads)
	var out []Loaded
	if err == nil {
		out, err = l.Install(nil, nil)
	}
	return out, errors.Join(err, l.Close())
}

func send(l *Load, donor *device, heads []feed.Head) error {
	for _, h := range heads {
		if !l.Takes(h.Feed) {
			continue
		}
		v, err := donor.Serve(h.Feed)
		if err != nil {
			return err
		}
		var page []feed.Entry
		err = v.After(0, func(e feed.Entry) error {
			if page = append(page, e); len(page) < 100 {
				return nil
			}
			err := l.Add(h.Feed, page)
			page = page[:0]
			return err
		})
		v.Close()
		if err := errors.Join(err, l.Add(h.Feed, page)); err != nil {
			return err
		}
	}
	return nil
}

// A loaded store holds, row for row, what one holds that took the same entries one after another, and its own
// as before; and it does after it was opened again.
func TestLoadDoesAsApply(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	donor, heads := newLibrary(t, r, 700)
	id, key := newKey(1)
	dir := t.TempDir()
	open := func() *device {
		s, err := Open(dir, config(1, key))
		if err != nil {
			t.Fatal(err)
		}
		return &device{s, id, key}
	}
	a, b := open(), newDevice(t, 1)
	b.instance = a.instance
	own := feed.ID{Device: id, Location: location(7)}
	fill(t, a, own, r, 500)
	if err := a.SetRegisters(name(id, "mine")); err != nil {
		t.Fatal(err)
	}
	if err := a.SetLocal("fact", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := a.Update(func(tx kv.Tx) error { return tx.Set([]byte("v event"), []byte("happened")) }); err != nil {
		t.Fatal(err)
	}
	want := rows(t, a.Store)

	out, err := load(a, donor, heads, 20<<10)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range heads {
		if _, err := b.Apply(Change{Feed: h.Feed, Entries: donor.after(t, h.Feed, 0), Settle: &h}); err != nil {
			t.Fatal(err)
		}
	}
	for k, v := range rows(t, b.Store) {
		if k[0] != famLocal {
			want[k] = v
		}
	}
	check := func(when string) {
		t.Helper()
		got := rows(t, a.Store)
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if got[k] != want[k] {
				t.Fatalf("%s: %q is %x, want %x", when, k, got[k], want[k])
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d rows, want %d", when, len(got), len(want))
		}
		for _, st := range a.States() {
			recount(t, a.Store, st.Feed)
		}
	}
	check("loaded")
	if len(out) != 4 {
		t.Fatalf("loaded %d feeds", len(out))
	}
	for i, l := range out {
		if st, _ := a.State(heads[i].Feed); l.Head != heads[i] || st.Settled == nil || *st.Settled != heads[i] || l.Counts != a.Counts(heads[i].Feed) {
			t.Errorf("feed %v: loaded %+v, state %+v", heads[i].Feed, l, st)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open()
	check("opened again")
	if _, err := a.Load(heads, 0); !errors.Is(err, ErrHeld) {
		t.Errorf("loading the same gives %v", err)
	}

	// The next change of a loaded feed is an ordinary push, and a feed that comes new has a number of its own.
	loc := heads[slices.IndexFunc(heads, func(h feed.Head) bool { return h.Feed.Device == donor.id })]
	next := donor.commit(t, loc.Feed, file(1, "one more"))
	if res, err := a.Apply(Change{Feed: loc.Feed, Prev: &loc, Entries: donor.after(t, loc.Feed, loc.Seq), Settle: &next}); err != nil || res.Push != feed.PushApply {
		t.Fatalf("push: %+v, %v", res, err)
	}
	fresh := feed.ID{Device: id, Location: location(99)}
	a.commit(t, fresh, file(1, "new"))
	recount(t, a.Store, fresh)
	recount(t, a.Store, loc.Feed)

	// A feed that fell behind is replaced whole.
	fill(t, donor, loc.Feed, r, 200)
	st, _ := donor.State(loc.Feed)
	heads = []feed.Head{*st.Settled, heads[0], heads[1], heads[2], heads[3]}
	if out, err = load(a, donor, heads[:1], sortBytes); err != nil || len(out) != 1 || out[0].Head != *st.Settled {
		t.Fatalf("replaced %+v, %v", out, err)
	}
	noRowsOfNobody(t, a.Store)
	for _, st := range a.States() {
		recount(t, a.Store, st.Feed)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 2 {
		t.Errorf("the store's folder holds %v, %v", names, err)
	}
	a = open()
	for _, st := range a.States() {
		recount(t, a.Store, st.Feed)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// While a Load goes on, and while it is installed, others write, delete, note heads, drop feeds and read.
// Nothing of it is lost, whoever pinned the old state reads on, and what was dropped stays dropped.
func TestStoreGoesOnWhileItIsLoaded(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	donor, heads := newLibrary(t, r, 1000)
	third := newDevice(t, 5)
	a := newDevice(t, 1)
	own := feed.ID{Device: a.id, Location: location(7)}
	a.commit(t, own, file(1, "before"), file(2, "going"))
	if err := a.SetLocal("going", []byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Observe(heads[:2], 0); err != nil {
		t.Fatal(err)
	}
	pinned, err := a.Serve(own)
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.Load(heads, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Load(heads, 0); !errors.Is(err, ErrLoading) {
		t.Errorf("a second load gives %v", err)
	}
	if _, ok := a.Claim(heads[0].Feed); ok {
		t.Error("a feed being loaded can be claimed")
	}
	a.commit(t, own, Put{Record: record.Tombstone{ID: entryID(2)}})
	if err := a.SetLocal("going", nil); err != nil {
		t.Fatal(err)
	}
	head := third.commit(t, feed.ID{Device: third.id, Location: location(3)}, file(4, "elsewhere"))
	if _, err := a.Observe([]feed.Head{head}, 0); err != nil {
		t.Fatal(err)
	}
	if err := a.Drop(heads[0].Feed); err != nil {
		t.Fatal(err)
	}
	if err := send(l, donor, heads); err != nil {
		t.Fatal(err)
	}
	generation := a.Generation()
	asked := 0
	admit := func() (uint64, error) { // the first answer is out of date by the time it counts
		if asked++; asked > 1 {
			return a.Generation(), nil
		}
		return generation, a.Raise()
	}
	stop, wrote := make(chan struct{}), 0
	var all sync.WaitGroup
	all.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := a.Commit(own, []Put{file(100+i, fmt.Sprint("during ", i))}); err != nil {
				t.Error(err)
				return
			}
			if err := a.Sync(); err != nil {
				t.Error(err)
				return
			}
			wrote++
		}
	})
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			n := 0
			if err := a.Entries(own, func(Row) error { n++; return nil }); err != nil || n < 1 {
				t.Errorf("%d entries, %v", n, err)
				return
			}
		}
	})
	out, err := l.Install(admit, func(tx kv.Tx, out []Loaded) error {
		return tx.Set([]byte("v installed"), []byte{byte(len(out))})
	})
	close(stop)
	all.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if len(out) != 3 || asked != 2 {
		t.Errorf("loaded %d feeds, asked %d times", len(out), asked)
	}
	if c := a.Counts(own); c.Files != uint64(1+wrote) || c.Tombstones != 1 {
		t.Errorf("own feed has %+v after %d more", c, wrote)
	}
	if v, err := a.Local("going"); err != nil || v != nil {
		t.Errorf("a fact that was removed is %x, %v", v, err)
	}
	if st, _ := a.State(head.Feed); st.Best != head {
		t.Errorf("best head is %+v", st.Best)
	}
	if _, ok := a.State(heads[0].Feed); ok {
		t.Error("a feed dropped meanwhile is back")
	}
	n := 0
	if err := pinned.After(0, func(feed.Entry) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("whoever pinned the old state reads %d, %v", n, err)
	}
	old := a.eng.(*engine).root
	if _, err := os.Stat(filepath.Join(old, "MANIFEST")); err != nil {
		t.Errorf("files that are still read: %v", err)
	}
	pinned.Close()
	for more := true; more; {
		if more, err = a.Reap(); err != nil {
			t.Fatal(err)
		}
	}
	noRowsOfNobody(t, a.Store)
	for _, st := range a.States() {
		recount(t, a.Store, st.Feed)
	}
	a.eng.(*engine).retiring.Wait()
	if _, err := os.Stat(filepath.Join(old, "MANIFEST")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("files that nobody reads: %v", err)
	}
}

// digest is what lies in a folder.
func digest(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		out[path] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Whatever does not add up is refused, and the store's files are as they were, byte for byte.
func TestLoadRefuses(t *testing.T) {
	donor, heads := newLibrary(t, rand.New(rand.NewPCG(5, 6)), 600)
	const at = 1
	id := heads[at].Feed
	good := donor.after(t, id, 0)
	a := newDevice(t, 1)
	a.commit(t, feed.ID{Device: a.id, Location: location(7)}, file(1, "mine"))
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	root := a.eng.(*engine).root
	before := digest(t, root)
	edit := func(change func([]feed.Entry) []feed.Entry) []feed.Entry { return change(slices.Clone(good)) }
	for what, entries := range map[string][]feed.Entry{
		"one missing":   edit(func(e []feed.Entry) []feed.Entry { return slices.Delete(e, 300, 301) }),
		"none":          nil,
		"the last half": good[len(good)/2:],
		"altered":       edit(func(e []feed.Entry) []feed.Entry { e[5].Record = append(bytes.Clone(e[5].Record), 0); return e }),
		"another key":   edit(func(e []feed.Entry) []feed.Entry { e[5].Key = e[6].Key; return e }),
		"out of order":  edit(func(e []feed.Entry) []feed.Entry { e[5], e[6] = e[6], e[5]; return e }),
		"twice":         edit(func(e []feed.Entry) []feed.Entry { return slices.Insert(e, 5, e[5]) }),
		"beyond":        append(slices.Clone(good), feed.Entry{Key: good[0].Key, Seq: heads[at].Seq + 1, Record: good[0].Record}),
		"no key":        edit(func(e []feed.Entry) []feed.Entry { e[5].Key = nil; return e }),
		"no record":     edit(func(e []feed.Entry) []feed.Entry { e[5].Record = nil; return e }),
		"long key":      edit(func(e []feed.Entry) []feed.Entry { e[5].Key = make([]byte, record.MaxKey+1); return e }),
		"long record":   edit(func(e []feed.Entry) []feed.Entry { e[5].Record = make([]byte, record.MaxRecord+1); return e }),
	} {
		l, err := a.Load(heads[at:at+1], 0)
		if err != nil {
			t.Fatal(err)
		}
		if err = l.Add(id, entries); err == nil {
			_, err = l.Install(nil, nil)
		}
		if !errors.Is(err, ErrMismatch) {
			t.Errorf("%s gives %v", what, err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	// A head that is signed all the same, over two entries of one key.
	twice := edit(func(e []feed.Entry) []feed.Entry {
		e[9].Key, e[9].Record = e[8].Key, e[8].Record
		return e
	})
	var refs []feed.Ref
	for _, e := range twice {
		refs = append(refs, feed.Ref{Seq: e.Seq, Digest: e.Digest()})
	}
	h := heads[at]
	h.Root = feed.DefaultShape.Root(refs, h.Seq)
	_, key := newKey(map[bool]byte{true: 9, false: 8}[h.Feed.Device == donor.id])
	h = h.Sign(key)
	l, err := a.Load([]feed.Head{h}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Add(id, twice); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Install(nil, nil); !errors.Is(err, ErrMismatch) {
		t.Errorf("two entries of one key give %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	// One good feed and one bad: none is taken. What fails within, and another library, refuse too.
	stop := errors.New("no")
	for what, c := range map[string]struct {
		want error
		do   func(*Load) error
	}{
		"one good, one bad": {ErrMismatch, func(l *Load) error {
			return errors.Join(send(l, donor, heads[:3]), l.Add(heads[3].Feed, nil))
		}},
		"within": {stop, func(l *Load) error { return send(l, donor, heads) }},
		"moved":  {ErrStale, func(l *Load) error { a.setLibrary(feed.LibraryID{9}); return send(l, donor, heads) }},
		"full": {ErrNoSpace, func(l *Load) error { // meanwhile: what Badger would die of
			a.eng.(*engine).free = func(string) (uint64, error) { return MinFree/2 - 1, nil }
			return send(l, donor, heads)
		}},
		"unasked": {ErrMismatch, func(l *Load) error {
			return l.Add(feed.ID{Device: a.id}, good[:1])
		}},
	} {
		l, err := a.Load(heads, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err = c.do(l); err == nil {
			_, err = l.Install(nil, func(kv.Tx, []Loaded) error { return stop })
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s gives %v", what, err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		a.setLibrary(library)
		a.eng.(*engine).free = freeSpace
	}
	bad := heads[at]
	bad.Sig[3]++
	if _, err := a.Load([]feed.Head{bad}, 0); !errors.Is(err, feed.ErrSignature) {
		t.Errorf("a head that nobody signed gives %v", err)
	}
	bad = heads[at]
	bad.Library[0]++
	if _, err := a.Load([]feed.Head{bad}, 0); !errors.Is(err, feed.ErrSignature) {
		t.Errorf("a head of another library gives %v", err)
	}
	if _, err := donor.Load(heads, 0); !errors.Is(err, ErrHeld) {
		t.Errorf("one's own feeds give %v", err)
	}
	if st, _ := donor.State(deviceFeed(donor)); st.Settled == nil {
		t.Error("the donor has no device feed")
	} else if _, err := a.Load([]feed.Head{*st.Settled}, 0); !errors.Is(err, ErrHeld) {
		t.Errorf("a device feed gives %v", err)
	}
	e := a.eng.(*engine)
	e.free = func(string) (uint64, error) { return MinFree + 99, nil }
	if _, err := a.Load(heads, 100); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a full disk gives %v", err)
	}
	e.free = freeSpace
	if after := digest(t, root); !maps.Equal(after, before) {
		t.Error("the store's files have changed")
	}
	if _, err := load(a, donor, heads, sortBytes); err != nil {
		t.Errorf("after all that the true feeds give %v", err)
	}
}

// copyDir copies files that end in a lot of nothing, as Badger's do.
func copyDir(tb testing.TB, to, from string) {
	tb.Helper()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.Join(to, path[len(from):])
		if e.IsDir() {
			return os.Mkdir(name, 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		err = os.WriteFile(name, bytes.TrimRight(b, "\x00"), 0o600)
		return errors.Join(err, os.Truncate(name, int64(len(b))))
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// watched looks after each step of an installation up to the switch.
type watched struct {
	kv.Fresh
	after func(step string)
}

func (w *watched) Finish() error {
	err := w.Fresh.Finish()
	w.after("finished")
	return err
}

func (w *watched) Update(fn func(kv.Tx) error) error {
	err := w.Fresh.Update(fn)
	w.after("committed beside")
	return err
}

func (w *watched) Sync() error {
	err := w.Fresh.Sync()
	w.after("synced")
	return err
}

// cutter returns what looks at the store in dir, of device 1, as a cut at this point would leave it: it opens, holds the
// rows wanted, and nothing else is left in its folder.
func cutter(t *testing.T, dir string) func(point string, want map[string]string) {
	_, key := newKey(1)
	return func(point string, want map[string]string) {
		t.Helper()
		lost := filepath.Join(t.TempDir(), "store")
		copyDir(t, lost, dir)
		s, err := Open(lost, config(1, key))
		if err != nil {
			t.Fatalf("%s: %v", point, err)
		}
		if got := rows(t, s); !maps.Equal(got, want) {
			t.Errorf("%s: %d rows, want %d", point, len(got), len(want))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		name, err := current(lost)
		if err != nil {
			t.Fatal(err)
		}
		names, err := os.ReadDir(lost)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range names {
			if n := e.Name(); name == "" && !badgers.MatchString(n) || name != "" && n != name && n != currentFile {
				t.Errorf("%s leaves %s", point, n)
			}
		}
	}
}

// A cut at any point of a Load leaves the store as it was before or as it is after, and nothing else.
func TestLoadIsCut(t *testing.T) {
	donor, heads := newLibrary(t, rand.New(rand.NewPCG(7, 8)), 400)
	id, key := newKey(1)
	dir := t.TempDir()
	s, err := Open(dir, config(1, key))
	if err != nil {
		t.Fatal(err)
	}
	a := &device{s, id, key}
	a.commit(t, feed.ID{Device: a.id, Location: location(7)}, file(1, "mine"))
	before := rows(t, a.Store)
	cut := cutter(t, dir)
	l, err := a.Load(heads, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.limit = 10 << 10
	if err := send(l, donor, heads[:2]); err != nil {
		t.Fatal(err)
	}
	cut("in the middle of the entries", before)
	if err := send(l, donor, heads[2:]); err != nil {
		t.Fatal(err)
	}
	cut("after the last entry", before)
	held, err := a.Serve(feed.ID{Device: a.id, Location: location(7)})
	if err != nil {
		t.Fatal(err)
	}
	fresh := l.fresh.(*fresh)
	l.fresh = &watched{Fresh: fresh, after: func(step string) {
		cut(step, before)
		if step == "synced" {
			if err := os.WriteFile(filepath.Join(dir, currentFile+".123"), []byte(fresh.name), 0o600); err != nil {
				t.Fatal(err)
			}
			cut("before the rename", before)
		}
	}}
	if _, err := l.Install(nil, nil); err != nil {
		t.Fatal(err)
	}
	after := rows(t, a.Store)
	if len(after) < len(before)+1000 {
		t.Fatalf("%d rows after %d", len(after), len(before))
	}
	cut("switched, the old files still there", after)
	held.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a.eng.(*engine).retiring.Wait()
	cut("the old files gone", after)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	// A CURRENT that makes no sense is damage, and no store is made in the place of the lost one.
	for _, text := range []string{"", "../elsewhere\n", "000007\n", "x"} {
		if err := os.WriteFile(filepath.Join(dir, currentFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, config(1, key)); !errors.Is(err, ErrDamaged) {
			t.Errorf("CURRENT of %q gives %v", text, err)
		}
	}
}

// The sorter gives back what it was given, in order, whatever part of it went through files, and twice.
func TestSorter(t *testing.T) {
	for _, limit := range []int{100, 5000, 1 << 20} {
		r := rand.New(rand.NewPCG(9, 9))
		s := &sorter{dir: t.TempDir(), family: 'k', limit: limit}
		want := map[string]string{}
		for range 3000 {
			key := append([]byte{'k', 0, 0, 0, byte(r.IntN(2))}, make([]byte, r.IntN(12))...)
			for i := 5; i < len(key); i++ {
				key[i] = byte(r.IntN(4))
			}
			if _, ok := want[string(key)]; ok {
				continue
			}
			value := make([]byte, r.IntN(9))
			want[string(key)] = string(value)
			if err := s.add(key, value); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			rows, err := s.rows()
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range slices.Sorted(maps.Keys(want)) {
				k, v, ok := rows.row()
				if !ok || string(k) != key || string(v) != want[key] {
					t.Fatalf("limit %d: %x %x, want %x", limit, k, v, key)
				}
				if err := rows.drop(); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, ok := rows.row(); ok {
				t.Errorf("limit %d: more than was given", limit)
			}
			if err := rows.close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.free(); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
			t.Errorf("limit %d leaves %v, %v", limit, left, err)
		}
		if err := s.add(make([]byte, maxKey+1), nil); err == nil {
			t.Error("a row beyond the limit is taken")
		}
	}
}
