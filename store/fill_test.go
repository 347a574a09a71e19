package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/kv/memory"
	"peerdex/record"
)

// newPuts are folders and files of a folder that is indexed for the first time.
func newPuts(n int) (puts []Put) {
	dirs := []record.EntryID{{}}
	r := rand.New(rand.NewPCG(9, uint64(n)))
	for i := range n {
		f := record.File{Parent: dirs[r.IntN(len(dirs))], Kind: record.Regular, Size: uint64(i), Name: fmt.Sprint("name ", i)}
		for k := range f.ID {
			f.ID[k] = byte(r.Uint32())
		}
		if i%10 == 0 {
			f.Kind, f.Size = record.Directory, 0
			dirs = append(dirs, f.ID)
		}
		puts = append(puts, Put{Record: f, Local: []byte{byte(i)}, New: true})
	}
	return puts
}

// listener keeps what a follower is told.
type listener struct {
	mu    sync.Mutex
	files map[feed.ID]map[record.EntryID]record.File
}

type listed map[record.EntryID]record.File

func (l listed) Put(f record.File) { l[f.ID] = f }

func (l *listener) Begin([]feed.ID) {}
func (l *listener) Fresh() Fresh    { return listed{} }
func (l *listener) Changed(all []FileChange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range all {
		if l.files[c.Feed] == nil {
			l.files[c.Feed] = listed{}
		}
		l.files[c.Feed][c.File.ID] = c.File
	}
}
func (l *listener) Dropped(id feed.ID) { l.Replaced(id, listed(nil)) }
func (l *listener) Replaced(id feed.ID, fresh Fresh) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files[id] = fresh.(listed)
}

// ops counts what a store does.
type ops struct {
	mu sync.Mutex
	by map[string]int
}

func (o *ops) StoreOp(op string, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.by[op]++
}

// A feed that was filled is, row for row, what a commit of the same makes; what others wrote meanwhile is there
// too, a peer takes it over, and it goes on as any other.
func TestFillDoesAsCommit(t *testing.T) {
	id, key := newKey(1)
	dir := t.TempDir()
	counted := &ops{by: map[string]int{}}
	open := func() *device {
		cfg := config(1, key)
		cfg.Metrics = counted
		s, err := Open(dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return &device{s, id, key}
	}
	a, b := open(), newDevice(t, 1)
	b.instance = a.instance
	told := &listener{files: map[feed.ID]map[record.EntryID]record.File{}}
	past, err := a.Follow(told)
	if err != nil {
		t.Fatal(err)
	}
	past.Close()
	held, filled, beside := feed.ID{Device: id, Location: location(1)}, feed.ID{Device: id, Location: location(2)}, feed.ID{Device: id, Location: location(3)}
	before, puts, meanwhile := newPuts(100), newPuts(2500), newPuts(50)
	a.commit(t, held, before...)

	f, err := a.Fill(filled)
	if err != nil {
		t.Fatal(err)
	}
	for lot := range slices.Chunk(puts, 700) {
		if err := f.Add(lot); err != nil {
			t.Fatal(err)
		}
	}
	a.commit(t, beside, meanwhile...)
	a.commit(t, held, Put{Record: record.Tombstone{ID: before[1].Record.(record.File).ID}})
	if _, known := a.State(filled); known {
		t.Error("something of it shows")
	}
	head, err := f.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	b.commit(t, held, before...)
	b.commit(t, filled, puts...)
	b.commit(t, beside, meanwhile...)
	b.commit(t, held, Put{Record: record.Tombstone{ID: before[1].Record.(record.File).ID}})
	want := rows(t, b.Store)
	check := func(when string) {
		t.Helper()
		got := rows(t, a.Store)
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if k[0] != famFeed && k[0] != famLocal && got[k] != want[k] { // heads have times of their own
				t.Fatalf("%s: %q is %x, want %x", when, k, got[k], want[k])
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d rows, want %d", when, len(got), len(want))
		}
		for _, st := range a.States() {
			recount(t, a.Store, st.Feed)
			other, _ := b.State(st.Feed)
			if st.Settled.Root != other.Settled.Root || st.Settled.Seq != other.Settled.Seq || a.Counts(st.Feed) != b.Counts(st.Feed) {
				t.Errorf("%s: %+v with %+v, want %+v with %+v", when, st.Settled, a.Counts(st.Feed), other.Settled, b.Counts(st.Feed))
			}
		}
	}
	check("filled")
	if st, _ := a.State(filled); *st.Settled != head || head.Count != 2500 {
		t.Errorf("head %+v, state %+v", head, st)
	}
	if len(told.files[filled]) != 2500 || len(told.files[beside]) != 50 || told.files[filled][puts[7].Record.(record.File).ID] != puts[7].Record.(record.File) {
		t.Errorf("the follower knows %d and %d files", len(told.files[filled]), len(told.files[beside]))
	}
	if counted.by["fill"] != 1 {
		t.Errorf("counted %v", counted.by)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open()
	defer a.Close()
	check("opened again")

	c := newDevice(t, 2)
	if _, err := c.Apply(Change{Feed: filled, Entries: a.after(t, filled, 0), Settle: &head}); err != nil {
		t.Fatalf("a peer: %v", err)
	}
	next := a.commit(t, filled, Put{Record: record.Tombstone{ID: puts[3].Record.(record.File).ID}})
	if res, err := c.Apply(Change{Feed: filled, Prev: &head, Entries: a.after(t, filled, head.Seq), Settle: &next}); err != nil || res.Push != feed.PushApply {
		t.Errorf("pushed to the peer: %+v, %v", res, err)
	}
	recount(t, a.Store, filled)
}

// What cannot be filled is refused, and whatever ends a Fill but Commit leaves nothing of it.
func TestFillRefuses(t *testing.T) {
	for _, engine := range []string{"badger", "memory"} {
		t.Run(engine, func(t *testing.T) {
			a := newDevice(t, 1)
			if engine == "memory" {
				a = onMemory(t, 1, memory.New(memory.Config{}), nil)
			}
			id, other := feed.ID{Device: a.id, Location: location(1)}, feed.ID{Device: a.id, Location: location(2)}
			a.commit(t, other, newPuts(10)...)
			for refused, want := range map[feed.ID]error{
				{Device: a.id}: ErrNotOwner, {Device: record.DeviceID{7}, Location: location(1)}: ErrNotOwner, other: ErrWritten,
			} {
				if _, err := a.Fill(refused); !errors.Is(err, want) {
					t.Errorf("%v: %v, want %v", refused, err, want)
				}
			}
			release, _ := a.Claim(id)
			if _, err := a.Fill(id); !errors.Is(err, ErrWritten) {
				t.Errorf("of a feed that is being taken back: %v", err)
			}
			release()
			before := rows(t, a.Store)
			begin := func() *Fill {
				t.Helper()
				f, err := a.Fill(id)
				if err == nil {
					err = f.Add(newPuts(1000))
				}
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
			end := func(f *Fill) {
				t.Helper()
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				if got := rows(t, a.Store); !maps.Equal(got, before) {
					t.Errorf("%d rows, want %d", len(got), len(before))
				}
			}
			f := begin()
			if _, err := a.Fill(feed.ID{Device: a.id, Location: location(3)}); !errors.Is(err, ErrLoading) {
				t.Errorf("another beside it: %v", err)
			}
			if err := f.Add([]Put{{Record: record.File{ID: entryID(1), Kind: record.Regular}, New: true}}); !errors.Is(err, record.ErrInvalid) {
				t.Errorf("a file without a name: %v", err)
			}
			end(f)
			f = begin()
			if err := f.Add(newPuts(1000)[5:6]); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Commit(); !errors.Is(err, ErrMismatch) {
				t.Errorf("one key for two entries: %v", err)
			}
			end(f)

			f = begin()
			head := a.commit(t, id, file(1, "somebody else's"))
			if _, err := f.Commit(); !errors.Is(err, ErrStale) {
				t.Errorf("of a feed that was written meanwhile: %v", err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if st, _ := a.State(id); st.Settled == nil || *st.Settled != head || st.Count != 1 {
				t.Errorf("%+v, want %+v", st, head)
			}
			gone := func() {
				t.Helper()
				for more := true; more; {
					var err error
					if more, err = a.Reap(); err != nil {
						t.Fatal(err)
					}
				}
				noRowsOfNobody(t, a.Store)
				if _, known := a.State(id); known {
					t.Error("a feed that was dropped is known")
				}
			}
			if err := a.Drop(id); err != nil {
				t.Fatal(err)
			}
			f = begin()
			if err := a.Drop(id); !errors.Is(err, ErrUnknownFeed) {
				t.Fatal(err)
			}
			if _, err := f.Commit(); !errors.Is(err, ErrUnknownFeed) {
				t.Errorf("of a feed that was dropped meanwhile: %v", err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			gone()

			f = begin()
			if err := a.Freeze(); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Commit(); !errors.Is(err, ErrFrozen) {
				t.Errorf("frozen meanwhile: %v", err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			gone()
			if _, err := a.Fill(id); !errors.Is(err, ErrFrozen) {
				t.Errorf("frozen: %v", err)
			}
		})
	}
}

// A cut at any point of a Fill leaves the store as it was before or as it is after.
func TestFillIsCut(t *testing.T) {
	id, key := newKey(1)
	dir := t.TempDir()
	s, err := Open(dir, config(1, key))
	if err != nil {
		t.Fatal(err)
	}
	a := &device{s, id, key}
	a.commit(t, feed.ID{Device: id, Location: location(7)}, newPuts(100)...)
	before, steps, at := rows(t, s), 0, cutter(t, dir)
	cut := func(point string, want map[string]string) {
		t.Helper()
		steps++
		at(point, want)
	}
	f, err := s.Fill(feed.ID{Device: id, Location: location(1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Add(newPuts(1000)); err != nil {
		t.Fatal(err)
	}
	cut("in the middle", before)
	f.l.fresh = &watched{Fresh: f.l.fresh, after: func(step string) { cut(step, before) }}
	if _, err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	cut("committed", rows(t, s))
	if err := errors.Join(f.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if steps != 5 {
		t.Errorf("%d cuts", steps)
	}
}

// A feed that nobody knew when a Load began, and that was dropped before its end, is not there afterwards.
func TestLoadOfAFeedDroppedMeanwhile(t *testing.T) {
	donor, heads := newLibrary(t, rand.New(rand.NewPCG(5, 6)), 300)
	a := newDevice(t, 1)
	for seen := range 2 {
		h := heads[seen]
		l, err := a.Load([]feed.Head{h}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := send(l, donor, []feed.Head{h}); err != nil {
			t.Fatal(err)
		}
		if seen == 1 {
			if _, err := a.Observe([]feed.Head{h}, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Drop(h.Feed); (err == nil) != (seen == 1) {
			t.Fatal(err)
		}
		if out, err := l.Install(nil, nil); err != nil || len(out) != 0 {
			t.Errorf("installed %v, %v", out, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, known := a.State(h.Feed); known {
			t.Error("a feed that was dropped is known")
		}
		for more := true; more; {
			if more, err = a.Reap(); err != nil {
				t.Fatal(err)
			}
		}
		noRowsOfNobody(t, a.Store)
	}
}
