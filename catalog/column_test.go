package catalog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/kv/memory"
	"peerdex/query"
	"peerdex/record"
	"peerdex/store"
)

// side is one device with a store in memory.
type side struct {
	*store.Store
	id  record.DeviceID
	eng *memory.Engine
}

var sideTick atomic.Uint64

func newSide(tb rapid.TB, n byte, eng *memory.Engine) *side {
	tb.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
	id := record.DeviceID(key.Public().(ed25519.PublicKey))
	s, err := store.New(eng, store.Config{
		Device: id, Library: feed.LibraryID{1}, Boot: uint64(n), Shape: feed.Shape{LeafBits: 3, FanBits: 2},
		Clock:  func() (hlc.Stamp, error) { return hlc.At(time.Now()) + hlc.Stamp(sideTick.Add(1)), nil },
		Sign:   func(h feed.Head) feed.Head { return h },
		Verify: func(feed.Head) error { return nil },
	})
	ok(tb, err)
	return &side{s, id, eng}
}

func ok(tb rapid.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// load makes everything searchable.
func load(tb rapid.TB, c *Catalog) {
	tb.Helper()
	read, err := c.Follow()
	ok(tb, err)
	ok(tb, read(context.Background()))
}

// locate makes a location of the side's own.
func (s *side) locate(tb rapid.TB, n byte) feed.ID {
	tb.Helper()
	id := record.LocationID{n}
	e := record.Location(s.id, id)
	ok(tb, s.SetRegisters(record.Register{Entity: e, Field: record.FieldPath, Value: []byte("/srv/Ä " + string('a'+n))},
		record.Register{Entity: e, Field: record.FieldName, Value: []byte{'a' + n}}, record.Register{Entity: e, Field: record.FieldExists, Value: []byte{1}}))
	return feed.ID{Device: s.id, Location: id}
}

func (s *side) all(tb rapid.TB, id feed.ID, after uint64) (out []feed.Entry) {
	tb.Helper()
	err := s.Entries(id, func(r store.Row) error {
		if r.Seq > after {
			out = append(out, feed.Entry{Key: slices.Clone(r.Key), Seq: r.Seq, Record: slices.Clone(r.Record)})
		}
		return nil
	})
	if !errors.Is(err, store.ErrUnknownFeed) {
		ok(tb, err)
	}
	return out
}

// files returns what a feed holds, by ID.
func (s *side) files(tb rapid.TB, id feed.ID) map[record.EntryID]record.File {
	tb.Helper()
	out := map[record.EntryID]record.File{}
	for _, e := range s.all(tb, id, 0) {
		if rec, err := record.Decode(e.Key, e.Record); err == nil {
			if f, ok := rec.(record.File); ok {
				out[f.ID] = f
			}
		}
	}
	return out
}

// plain is a file as an oracle sees it.
type plain struct {
	Item
	in []bool
}

func (p plain) Name() []byte            { return query.Fold(nil, []byte(p.File.Name)) }
func (p plain) InPath(part []byte) bool { return bytes.Contains(query.Fold(nil, []byte(p.Path)), part) }
func (p plain) Folder() bool            { return p.File.Kind == record.Directory }
func (p plain) Size() (uint64, bool)    { return p.File.Size, p.File.Kind == record.Regular }
func (p plain) Modified() (int64, bool) { return p.File.ModTime, p.File.ModTime != 0 }
func (p plain) In(term int) bool        { return p.in[term] }

// oracle returns what a query must find, by looking at everything the store holds.
func oracle(tb rapid.TB, c *Catalog, s *side, o FindOptions) (out []string) {
	tb.Helper()
	all, err := c.Locations()
	ok(tb, err)
	for _, l := range all {
		files := s.files(tb, l.Feed())
		for _, f := range files {
			at, lost := f.Name, false
			for up, n := f.Parent, 0; up != (record.EntryID{}); n++ {
				dir, known := files[up]
				if lost = !known || n == maxDepth; lost {
					if n == maxDepth {
						at = f.Name
					}
					at = LostMark + "/" + at
					break
				}
				at, up = dir.Name+"/"+at, dir.Parent
			}
			p := plain{Item: Item{Location: l, File: f, Path: path.Clean(l.Path) + "/" + at, Lost: lost}}
			for _, set := range o.Sets {
				p.in = append(p.in, slices.Contains(set.Devices, l.Owner) || set.Entries[l.Feed()][f.ID])
			}
			if o.Query.Match(p) {
				out = append(out, sight(p.Item))
			}
		}
	}
	slices.Sort(out)
	return out
}

// sight is all that is shown of an item.
func sight(i Item) string {
	return fmt.Sprintf("%q %v %v %+v", i.Path, i.Lost, i.Location.Feed(), i.File)
}

// check compares the column with the store, and what queries find with the oracle.
func check(tb rapid.TB, c *Catalog, s *side, queries ...query.Query) {
	tb.Helper()
	checkFolders(tb, c, s)
	for _, q := range append(queries, query.Query{}) {
		o := FindOptions{Query: q}
		for _, term := range q.Terms() {
			var set Set
			switch term.Key {
			case "on":
				set.Devices = []record.DeviceID{s.id}
			case "hash":
				var err error
				set, err = c.Hashed(context.Background(), term.Values)
				ok(tb, err)
				for _, st := range s.States() { // the index is right, too
					for id, f := range s.files(tb, st.Feed) {
						if strings.HasPrefix(f.Hash.String(), term.Values[0]) != set.Entries[st.Feed][id] {
							tb.Fatalf("hash %s: %v is wrongly in or out", term.Values[0], f)
						}
					}
				}
			}
			o.Sets = append(o.Sets, set)
		}
		var got []string
		ok(tb, c.Find(context.Background(), o, func(items []Item) error {
			for _, i := range items {
				got = append(got, sight(i))
				if i.File.Hash != items[0].File.Hash || len(items) > 1 && i.File.Hash.IsZero() {
					tb.Fatalf("handed over together: %v", items)
				}
			}
			return nil
		}))
		slices.Sort(got)
		if want := oracle(tb, c, s, o); !slices.Equal(got, want) {
			tb.Fatalf("find %+v gives\n%s\nwant\n%s", q, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

var someNames = []string{"a", "A", "b.jpg", "B.JPG", "Straße", "STRASSE.txt", "ÄRGER", "\xffx", "Mixed Case.Txt", "日本", "k\u212A", "with\nnewline"}

// What a search finds is what the store holds, whatever was done to the store and however it came there:
// writes, moves, deletes and collections here; pages in any order, tree diffs, pushes and drops from
// elsewhere; deaths of the process.
func TestColumnFollowsTheStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := newSide(t, 1, memory.New(memory.Config{})), newSide(t, 2, memory.New(memory.Config{}))
		theirs, own := []feed.ID{a.locate(t, 1), a.locate(t, 2)}, b.locate(t, 3)
		registers := a.all(t, feed.ID{Device: a.id}, 0)
		head, _ := a.State(feed.ID{Device: a.id})
		_, err := b.Apply(store.Change{Feed: feed.ID{Device: a.id}, Entries: registers, Settle: head.Settled})
		ok(t, err)
		c := New(b)
		load(t, c)
		entry := rapid.IntRange(1, 12)
		put := func() store.Put {
			id := record.EntryID{byte(entry.Draw(t, "entry"))}
			if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
				return store.Put{Record: record.Tombstone{ID: id}}
			}
			f := record.File{ID: id, Kind: record.Kind(rapid.IntRange(1, 4).Draw(t, "kind")), Name: rapid.SampledFrom(someNames).Draw(t, "name"), Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode")}
			if up := (record.EntryID{byte(rapid.IntRange(0, 13).Draw(t, "parent"))}); up != id {
				f.Parent = up
			}
			switch f.Kind {
			case record.Regular:
				f.Size, f.ModTime = rapid.Uint64Range(0, 3).Draw(t, "size"), rapid.Int64Range(-1, 2).Draw(t, "days")*int64(24*time.Hour)
				f.Hash[0] = rapid.ByteRange(0, 2).Draw(t, "hash")
			case record.Symlink:
				f.Target = rapid.SampledFrom(someNames).Draw(t, "target")
			}
			return store.Put{Record: f}
		}
		queries := []query.Query{}
		for _, text := range []string{"a | ext:jpg", "!a", "path:ä", "path:\"c/b\"", "size:1..2 !k", "date:1970", "on:x s", "hash:0100", `"strasse." | "straße"`, "path:unknown)/"} {
			q, err := query.Parse(text, time.Unix(0, 0).UTC())
			ok(t, err)
			queries = append(queries, q)
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			id := rapid.SampledFrom(theirs).Draw(t, "of")
			switch rapid.IntRange(0, 8).Draw(t, "step") {
			case 0, 1:
				_, err := b.Commit(own, []store.Put{put(), put()})
				ok(t, err)
			case 2, 3:
				_, err := a.Commit(id, []store.Put{put(), put(), put()})
				ok(t, err)
			case 4: // pages of it, in any order; then it settles, or not
				st, known := a.State(id)
				if !known {
					continue
				}
				all := a.all(t, id, 0)
				for _, e := range rapid.Permutation(all).Draw(t, "order") {
					_, err := b.Apply(store.Change{Feed: id, Entries: []feed.Entry{e}})
					ok(t, err)
				}
				check(t, c, b)
				if rapid.Bool().Draw(t, "settle") {
					held := slices.DeleteFunc(b.all(t, id, 0), func(e feed.Entry) bool {
						return slices.ContainsFunc(all, func(o feed.Entry) bool { return o.Digest() == e.Digest() })
					})
					if at, _ := b.State(id); at.Floor.Compare(*st.Settled) < 0 {
						_, err := b.Apply(store.Change{Feed: id, Remove: held, Settle: st.Settled})
						ok(t, err)
					}
				}
			case 5: // a push
				at, _ := b.State(id)
				st, known := a.State(id)
				if !known || at.Settled == nil || at.Settled.Seq >= st.Settled.Seq {
					continue
				}
				_, err := b.Apply(store.Change{Feed: id, Prev: at.Settled, Entries: a.all(t, id, at.Settled.Seq), Settle: st.Settled})
				if !errors.Is(err, store.ErrMismatch) {
					ok(t, err)
				}
			case 6:
				if st, known := a.State(id); known {
					_, err := a.Collect(id, rapid.Uint64Range(0, st.Settled.Seq).Draw(t, "gc"))
					ok(t, err)
				}
			case 7:
				if err := b.Drop(id); !errors.Is(err, store.ErrUnknownFeed) {
					ok(t, err)
				}
				_, err := b.Reap()
				ok(t, err)
			case 8: // the process dies
				b = newSide(t, 2, b.eng.Crash(rapid.IntRange(0, b.eng.Unsynced()).Draw(t, "keep")))
				c = New(b)
				load(t, c)
			}
			check(t, c, b, rapid.SampledFrom(queries).Draw(t, "query"))
		}
		check(t, c, b, queries...)
	})
}

// What is written, taken over and dropped while the names are being read is not lost, and not found twice.
func TestLoadWhileTheStoreChanges(t *testing.T) {
	s := newSide(t, 1, memory.New(memory.Config{}))
	kept, dropped := s.locate(t, 1), s.locate(t, 2)
	file := func(r *rand.Rand) store.Put {
		id := record.EntryID{1, byte(r.IntN(200)), byte(r.IntN(10))}
		if r.IntN(4) == 0 {
			return store.Put{Record: record.Tombstone{ID: id}}
		}
		return store.Put{Record: record.File{ID: id, Kind: record.Directory, Name: fmt.Sprint(r.IntN(1000)), Parent: record.EntryID{1, byte(r.IntN(200)), byte(r.IntN(10)) | 16}}}
	}
	write := func(r *rand.Rand, id feed.ID, n int) {
		for range n {
			var puts []store.Put
			for range 20 {
				puts = append(puts, file(r))
			}
			_, err := s.Commit(id, puts)
			ok(t, err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		write(r, kept, 20)
		write(r, dropped, 20)
		c := New(s)
		done := make(chan error, 1)
		read, err := c.Follow()
		ok(t, err)
		go func() { done <- read(context.Background()) }()
		write(r, kept, 30)
		ok(t, s.Drop(dropped))
		write(r, dropped, 3)
		ok(t, <-done)
		check(t, c, s)
	}
}

// A feed that is loaded whole, into fresh files, shows when it is installed and not before; what was held of it
// is gone then, and what is written after that comes on top.
func TestColumnFollowsALoad(t *testing.T) {
	a := newSide(t, 1, memory.New(memory.Config{}))
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	s, err := store.Open(t.TempDir(), store.Config{
		Device: record.DeviceID(key.Public().(ed25519.PublicKey)), Library: feed.LibraryID{1}, Boot: 9, Shape: feed.Shape{LeafBits: 3, FanBits: 2},
		Clock:  func() (hlc.Stamp, error) { return hlc.At(time.Now()) + hlc.Stamp(sideTick.Add(1)), nil },
		Sign:   func(h feed.Head) feed.Head { return h },
		Verify: func(feed.Head) error { return nil },
	})
	ok(t, err)
	defer func() { ok(t, s.Close()) }()
	b := &side{Store: s, id: s.Device()}
	id, other := a.locate(t, 1), b.locate(t, 2)
	file := func(n byte, name string) store.Put {
		return store.Put{Record: record.File{ID: record.EntryID{n}, Kind: record.Regular, Name: name}}
	}
	st := func() *feed.Head { st, _ := a.State(feed.ID{Device: a.id}); return st.Settled }()
	_, err = b.Apply(store.Change{Feed: feed.ID{Device: a.id}, Entries: a.all(t, feed.ID{Device: a.id}, 0), Settle: st})
	ok(t, err)
	first, err := a.Commit(id, []store.Put{file(1, "stays"), file(2, "goes")})
	ok(t, err)
	_, err = b.Apply(store.Change{Feed: id, Entries: a.all(t, id, 0), Settle: &first})
	ok(t, err)
	c := New(b)
	load(t, c)
	second, err := a.Commit(id, []store.Put{{Record: record.Tombstone{ID: record.EntryID{2}}}, file(3, "comes")})
	ok(t, err)
	for _, install := range []bool{false, true} {
		l, err := b.Load([]feed.Head{second}, 0)
		ok(t, err)
		if _, err := b.Follow(newColumn()); !errors.Is(err, store.ErrLoading) {
			t.Errorf("a follower that comes meanwhile: %v", err)
		}
		ok(t, l.Add(id, a.all(t, id, 0)))
		_, err = b.Commit(other, []store.Put{file(7, "meanwhile")})
		ok(t, err)
		check(t, c, b)
		if install {
			_, err = l.Install(nil, nil)
			ok(t, err)
		}
		ok(t, l.Close())
		check(t, c, b)
	}
	third, err := a.Commit(id, []store.Put{file(1, "renamed")})
	ok(t, err)
	_, err = b.Apply(store.Change{Feed: id, Prev: &second, Entries: a.all(t, id, second.Seq), Settle: &third})
	ok(t, err)
	check(t, c, b)
	if got := findAll(t, c, "/srv/Ä b"); !slices.Equal(got, []string{"/srv/Ä c/meanwhile", "comes", "renamed"}) {
		t.Errorf("found %q", got)
	}
}

// A search waits until everything can be found, or nobody wants its answer any more.
func TestFindWaitsForLoad(t *testing.T) {
	c := New(newSide(t, 1, memory.New(memory.Config{})))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Find(ctx, FindOptions{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("before anything is loaded: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Find(context.Background(), FindOptions{}, nil) }()
	load(t, c)
	ok(t, <-done)
}

// Slots that nobody needs are used again, and so is the room of names: what stays is what lives.
func TestSegmentForgets(t *testing.T) {
	s := newSegment()
	id := func(n int) record.EntryID { return record.EntryID{byte(n), byte(n >> 8), byte(n >> 16), 1} }
	const many = 20_000
	for round := range 20 {
		for n := range many {
			s.Put(record.File{ID: id(round*many + n), Parent: id(round*many + n ^ 1), Kind: record.Directory, Name: fmt.Sprintf("a name of %d bytes or so %d", 30, n)})
		}
		for n := range many {
			s.remove(id(round*many + n))
		}
	}
	if s.live != 0 || s.count > 3*many || len(s.names) > 4*many*40/chunkSize {
		t.Errorf("%d live, %d slots, %d chunks of names", s.live, s.count, len(s.names))
	}
	for n := range 100 {
		s.Put(record.File{ID: id(n), Kind: record.Regular, Name: fmt.Sprint("Name ", n)})
	}
	for n := range 100 {
		slot, found := s.find(id(n))
		if !found || s.name(slot) != fmt.Sprint("Name ", n) {
			t.Fatalf("entry %d: %v", n, found)
		}
	}
}

// A name comes back byte for byte, whatever folding makes of it.
func TestNamesComeBack(t *testing.T) {
	s := newSegment()
	names := append(slices.Clone(someNames), strings.Repeat("x", record.MaxName), strings.Repeat("xY", record.MaxName/2), strings.Repeat("ſ", record.MaxName/2))
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.SampledFrom(names), rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "name")
		if record.ValidName(name) != nil {
			return
		}
		f := record.File{ID: record.EntryID{1}, Kind: record.Special, Mode: 0o4755, Name: name}
		s.Put(f)
		n, _ := s.find(f.ID)
		got, more := s.file(n)
		b, i := s.at(n)
		if want := query.Fold(nil, []byte(name)); got != f || more || !bytes.Equal(b.folded(s.names, i), want) {
			t.Fatalf("%q became %+v, found as %q", name, got, b.folded(s.names, i))
		}
	})
}

func TestFindInOrder(t *testing.T) {
	s := newSide(t, 1, memory.New(memory.Config{}))
	id := s.locate(t, 1)
	file := func(n byte, name string, size uint64, day int64, hash byte) store.Put {
		return store.Put{Record: record.File{ID: record.EntryID{n}, Kind: record.Regular, Name: name, Size: size, ModTime: day, Hash: record.Hash{hash}}}
	}
	_, err := s.Commit(id, []store.Put{
		file(1, "b", 10, 3, 0), file(2, "A", 20, 1, 7), file(3, "C", 20, 5, 7), file(4, "a", 20, 2, 8), file(5, "d", 20, 9, 7), file(6, "e", 5, 4, 0),
	})
	ok(t, err)
	c := New(s)
	load(t, c)
	for _, q := range []struct {
		o    FindOptions
		want string
	}{
		{FindOptions{}, "b ACd a e"},
		{FindOptions{Reverse: true}, "e dCA a b"},
		{FindOptions{Sort: ByName}, "ACd a b e"},
		{FindOptions{Sort: ByName, Reverse: true}, "e dCA b a"},
		{FindOptions{Sort: ByPath}, "ACd a b e"},
		{FindOptions{Sort: BySize}, "ACd a b e"},
		{FindOptions{Sort: ByModified}, "dCA e b a"},
	} {
		var got []string
		ok(t, c.Find(context.Background(), q.o, func(items []Item) error {
			var together strings.Builder
			for _, i := range items {
				together.WriteString(i.File.Name)
			}
			got = append(got, together.String())
			return nil
		}))
		if strings.Join(got, " ") != q.want {
			t.Errorf("%+v: %q, want %q", q.o, got, q.want)
		}
	}
}

// million fills segments with names as people have them: photos, documents, sources.
func million(entries int) []*segment {
	r := rand.New(rand.NewPCG(1, 1))
	words := []string{"holiday", "draft", "Invoice", "IMG", "report", "Final", "scan", "Screenshot", "notes", "backup"}
	ends := []string{".jpg", ".JPG", ".pdf", ".txt", ".go", ".tar.gz", ".mp4"}
	out := make([]*segment, 4)
	for k := range out {
		out[k] = newSegment()
		dir := record.EntryID{}
		for i := range entries / len(out) {
			f := record.File{Parent: dir, Kind: record.Regular, Mode: 0o644, Size: r.Uint64N(1 << 30), ModTime: r.Int64()}
			for b := range f.ID {
				f.ID[b] = byte(r.Uint32())
			}
			f.Name = fmt.Sprintf("%s_%s_%06x%s", words[r.IntN(len(words))], words[r.IntN(len(words))], i, ends[r.IntN(len(ends))])
			if i%20 == 0 {
				f.Kind, f.Size, f.ModTime, f.Parent = record.Directory, 0, 0, record.EntryID{}
				dir = f.ID
			}
			out[k].Put(f)
		}
	}
	return out
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What is searched costs less than 80 bytes an entry, the names included.
func TestColumnIsCompact(t *testing.T) {
	const entries = 200_000
	before := heap()
	all := million(entries)
	each := float64(heap()-before) / entries
	names := 0
	for _, s := range all {
		for n := range s.count {
			names += len(s.name(n))
		}
	}
	t.Logf("%.1f bytes an entry, %.1f of them the name", each, float64(names)/entries)
	if each >= 80 {
		t.Errorf("%.1f bytes an entry, want less than 80", each)
	}
	runtime.KeepAlive(all)
}

// BenchmarkScan looks at a million entries.
func BenchmarkScan(b *testing.B) {
	const entries = 1_000_000
	before := heap()
	all := million(entries)
	each := float64(heap()-before) / entries
	for _, text := range []string{"holiday_report", "holiday !pdf | size:>1GB", "path:holiday/scan", "a", "zzz"} {
		b.Run(strings.ReplaceAll(text, " ", "_"), func(b *testing.B) {
			q, err := query.Parse(text, time.Now())
			ok(b, err)
			found := 0
			for b.Loop() {
				found = 0
				for _, s := range all {
					p := &scope{segment: s, base: []byte("/SRV/")}
					found += len(p.scan(q, 0))
				}
			}
			b.ReportMetric(float64(found), "found")
			b.ReportMetric(each, "B/entry")
		})
	}
}

// BenchmarkPut takes in a million entries.
func BenchmarkPut(b *testing.B) {
	for b.Loop() {
		million(1_000_000)
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/million")
}
