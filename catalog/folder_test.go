package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"peerdex/feed"
	"peerdex/kv/memory"
	"peerdex/record"
	"peerdex/store"
)

// checkFolders compares what is listed, and where paths lead, with what the store holds.
func checkFolders(tb rapid.TB, c *Catalog, s *side) {
	tb.Helper()
	ctx := context.Background()
	all, err := c.Locations()
	ok(tb, err)
	for _, l := range all {
		files := s.files(tb, l.Feed())
		in := map[record.EntryID][]string{{}: nil} // names, sorted
		var orphans Orphans
		for _, f := range files {
			in[f.Parent] = append(in[f.Parent], f.Name)
			if _, known := files[f.Parent]; !known && f.Parent != (record.EntryID{}) {
				orphans.Entries++
			}
		}
		for id, names := range in {
			slices.Sort(names)
			if _, known := files[id]; !known && id != (record.EntryID{}) {
				orphans.Folders++
			}
		}
		if got := c.Orphans(l.Feed()); got != orphans {
			tb.Fatalf("%d entries wait for %d folders, want %d for %d", got.Entries, got.Folders, orphans.Entries, orphans.Folders)
		}
		for id, want := range in {
			dir := Item{Location: l, File: record.File{ID: id}, Path: "/x"}
			got, err := c.List(ctx, dir, "", 0)
			ok(tb, err)
			var names []string
			for _, it := range got {
				names = append(names, it.File.Name)
				if want := files[it.File.ID]; it.File != want || it.Path != "/x/"+want.Name {
					tb.Fatalf("listed as %+v at %q, is %+v", it.File, it.Path, want)
				}
			}
			if !slices.Equal(names, want) {
				tb.Fatalf("%v lists %q, want %q", id, names, want)
			}
			want = slices.Compact(slices.Clone(want)) // pages part twins, of which but one is left once all has come
			for after, n := "", 0; ; n++ {
				page, err := c.List(ctx, dir, after, 2)
				ok(tb, err)
				if len(page) == 0 {
					if n < (len(want)+1)/2 && len(want) == len(names) {
						tb.Fatalf("%v ends after %q, want %q", id, after, want)
					}
					break
				}
				if i := slices.Index(want, page[0].File.Name); i < 0 || after != "" && want[i-1] != after {
					tb.Fatalf("%v goes on with %q after %q, want %q", id, page[0].File.Name, after, want)
				}
				after = page[len(page)-1].File.Name
			}
		}
		checkPaths(tb, c, l, files, in)
	}
}

// checkPaths looks up the path of every entry that has one of its own, alone and all at once, and others that lead
// nowhere.
func checkPaths(tb rapid.TB, c *Catalog, l Location, files map[record.EntryID]record.File, in map[record.EntryID][]string) {
	tb.Helper()
	var (
		refs  []Ref
		leads = map[string]bool{"nope": false}
		paths = map[record.EntryID]string{}
	)
	for id, f := range files {
		var names []string
		for n := 0; ; n++ {
			names = append([]string{f.Name}, names...)
			twins := len(slices.DeleteFunc(slices.Clone(in[f.Parent]), func(name string) bool { return name != f.Name })) > 1
			up, known := files[f.Parent]
			if f.Parent == (record.EntryID{}) && !twins {
				break
			}
			if !known || twins || n == 20 { // one of two that have its name, or in a ring
				names = nil
				break
			}
			f = up
		}
		if names != nil {
			paths[id] = strings.Join(names, "/")
			leads[paths[id]], leads[paths[id]+"/nope"] = true, false
		}
	}
	for p := range leads {
		refs = append(refs, Ref{l.Owner, l.Name + "/" + p})
	}
	refs = append(refs, Ref{l.Owner, "elsewhere"}, Ref{l.Owner, l.Name})
	all, err := c.ResolveAll(context.Background(), refs)
	ok(tb, err)
	for i, ref := range refs {
		one, err := c.Resolve(context.Background(), ref)
		if fmt.Sprint(one, err) != fmt.Sprint(all[i].Item, all[i].Err) {
			tb.Fatalf("%q leads to %+v, %v; among others to %+v", ref.Path, one, err, all[i])
		}
		p, below := strings.CutPrefix(ref.Path, l.Name+"/")
		switch {
		case !below:
			if (err == nil) != (ref.Path == l.Name) || one.File.ID != (record.EntryID{}) {
				tb.Fatalf("%q leads to %+v, %v", ref.Path, one, err)
			}
		case !leads[p]:
			if !errors.Is(err, ErrNotFound) || one.Location.ID != l.ID {
				tb.Fatalf("%q leads to %+v, %v", ref.Path, one, err)
			}
		case err != nil || paths[one.File.ID] != p || one.File != files[one.File.ID]:
			tb.Fatalf("%q leads to %+v, %v", ref.Path, one, err)
		}
	}
}

// A child may come before its folder, or stay when the folder goes: it is counted until that is mended.
func TestOrphansAreCounted(t *testing.T) {
	a, b := newSide(t, 1, memory.New(memory.Config{})), newSide(t, 2, memory.New(memory.Config{}))
	id := feed.ID{Device: a.id, Location: record.LocationID{1}}
	c := New(b)
	load(t, c)
	entry := func(n, parent byte, seq uint64, kind record.Kind) feed.Entry {
		f := record.File{ID: record.EntryID{n}, Kind: kind, Name: fmt.Sprint(n)}
		f.Parent[0] = parent
		return feed.Entry{Key: f.Key(), Seq: seq, Record: f.Append(nil)}
	}
	child := func(n byte, seq uint64) feed.Entry { return entry(n, 1, seq, record.Regular) }
	dir := entry(1, 0, 9, record.Directory)
	apply := func(ch store.Change, want Orphans) {
		t.Helper()
		ch.Feed = id
		_, err := b.Apply(ch)
		ok(t, err)
		if got := c.Orphans(id); got != want {
			t.Errorf("%+v wait, want %+v", got, want)
		}
	}
	apply(store.Change{Entries: []feed.Entry{child(2, 1), child(3, 2)}}, Orphans{2, 1})
	apply(store.Change{Entries: []feed.Entry{child(3, 3)}}, Orphans{2, 1})
	apply(store.Change{Remove: []feed.Entry{child(3, 3)}}, Orphans{1, 1})
	apply(store.Change{Entries: []feed.Entry{dir}}, Orphans{})
	apply(store.Change{Remove: []feed.Entry{dir}}, Orphans{1, 1})
	apply(store.Change{Entries: []feed.Entry{entry(4, 9, 10, record.Regular)}}, Orphans{2, 2})
	ok(t, b.Drop(id))
	if got := c.Orphans(id); got != (Orphans{}) {
		t.Errorf("%+v wait in a feed that is gone", got)
	}
}

// A large folder is sorted once, however many pages it is read in, and again once it has changed.
func TestPagesOfOneFolder(t *testing.T) {
	s := newSide(t, 1, memory.New(memory.Config{}))
	id := s.locate(t, 1)
	c := New(s)
	load(t, c)
	put := func(n int) store.Put {
		return store.Put{Record: record.File{ID: record.EntryID{1, byte(n >> 8), byte(n)}, Kind: record.Regular, Name: fmt.Sprintf("%04d", n)}}
	}
	for n := range 5000 {
		_, err := s.Commit(id, []store.Put{put((n * 1777) % 5000)})
		ok(t, err)
	}
	all, err := c.Locations()
	ok(t, err)
	top := all[0].Root()
	seg := c.column.segment(id)
	page := func(after string) []Item {
		t.Helper()
		items, err := c.List(t.Context(), top, after, 1000)
		ok(t, err)
		return items
	}
	page("")
	kept := seg.leafing.Load()
	for n := range 4 {
		if n == 3 { // in the middle of it
			_, err := s.Commit(id, []store.Put{put(4500), {Record: record.Tombstone{ID: record.EntryID{1, 4501 >> 8, 4501 & 0xFF}}}})
			ok(t, err)
		}
		if got := page(fmt.Sprintf("%04d", 1000*n+999)); len(got) == 0 || got[0].File.Name != fmt.Sprintf("%04d", 1000*n+1000) {
			t.Fatalf("page %d: %d entries", n, len(got))
		}
		if now := seg.leafing.Load(); n < 3 && now != kept || n == 3 && now != nil {
			t.Errorf("page %d: sorted again, or kept though it is over", n)
		}
	}
	if got := page("3999"); len(got) != 999 {
		t.Errorf("the last page has %d entries, want 999", len(got))
	}
}

// A page is short only at the end of the folder, whatever goes away while it is made.
func TestPagesWhileEntriesGoAway(t *testing.T) {
	s := newSide(t, 1, memory.New(memory.Config{}))
	id := s.locate(t, 1)
	c := New(s)
	load(t, c)
	const files = 4000 // of which every other stays
	entry := func(n int) record.EntryID { return record.EntryID{1, byte(n >> 8), byte(n)} }
	all := make([]store.Put, files)
	for n := range all {
		all[n] = store.Put{Record: record.File{ID: entry(n), Kind: record.Regular, Name: fmt.Sprintf("%04d", n)}}
	}
	_, err := s.Commit(id, all)
	ok(t, err)
	locations, err := c.Locations()
	ok(t, err)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { // away and back, over and over
		for n := 1; ; n = (n + 2*37) % files {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			_, err := s.Commit(id, []store.Put{{Record: record.Tombstone{ID: entry(n)}}})
			if err == nil {
				_, err = s.Commit(id, all[n:n+1])
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	const limit = 100
	for range 20 {
		stay := 0
		for after := ""; ; {
			page, err := c.List(t.Context(), locations[0].Root(), after, limit)
			ok(t, err)
			for _, it := range page {
				if it.File.ID[2]%2 == 0 {
					stay++
				}
			}
			if len(page) < limit {
				break
			}
			after = page[limit-1].File.Name
		}
		if stay != files/2 {
			t.Fatalf("%d of %d that stay are listed", stay, files/2)
		}
	}
	close(stop)
	ok(t, <-done)
}
