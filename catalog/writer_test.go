//go:build linux

package catalog

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/record"
	"peerdex/store"
)

func TestRoad(t *testing.T) {
	for _, c := range []struct {
		from   road
		held   int
		fresh  bool
		passed time.Duration
		want   road
	}{
		{holding, 0, true, 0, holding},
		{holding, 99, true, waitMost - 1, holding},
		{holding, 99, true, waitMost, committing},
		{holding, 99, false, 0, committing},
		{holding, 100, true, 0, filling},
		{holding, 100, false, 0, committing},
		{holding, 100, true, waitMost, committing},
		{filling, 0, true, fillMost - 1, filling},
		{filling, 0, true, fillMost, committing},
		{filling, 0, false, 0, committing},
		{committing, 1000, true, 0, committing},
	} {
		if got := c.from.next(c.held, 100, c.fresh, c.passed); got != c.want {
			t.Errorf("%+v gives %v", c, got)
		}
	}
}

// crowded is a store that lets nobody fill.
type crowded struct{ *store.Store }

func (crowded) Fill(feed.ID) (*store.Fill, error) { return nil, store.ErrLoading }

// Whatever road is taken, what was written is there in the end, in its order, and the last word counts.
func TestWriter(t *testing.T) {
	id := feed.ID{Device: testDevice(), Location: record.LocationID{1}}
	entry := func(n int) record.EntryID { return record.EntryID{1, byte(n >> 8), byte(n)} }
	puts := func(from, to int) (out []store.Put) {
		for n := from; n < to; n++ {
			out = append(out, store.Put{Record: record.File{ID: entry(n), Kind: record.Regular, Name: fmt.Sprint(n)}, New: true})
		}
		return out
	}
	again := []store.Put{{Record: record.File{ID: entry(0), Kind: record.Regular, Name: "again"}}, {Record: record.Tombstone{ID: entry(1)}}}
	for _, c := range []struct {
		what    string
		lots    [][]store.Put
		crowded bool
		roads   []road // after each lot
		shown   []int  // entries that show then
		files   uint64
	}{
		{"a few", [][]store.Put{puts(0, 50), puts(50, 99)}, false, []road{holding, holding}, []int{0, 0}, 99},
		{"none", nil, false, nil, nil, 0},
		{"many", [][]store.Put{puts(0, 60), puts(60, 120), puts(120, 300)}, false, []road{holding, filling, filling}, []int{0, 0, 0}, 300},
		{"many at once", [][]store.Put{puts(0, 300)}, false, []road{filling}, []int{0}, 300},
		{"something else in the end", [][]store.Put{puts(0, 300), again, puts(300, 310)}, false, []road{filling, committing, committing}, []int{0, 300, 310}, 309},
		{"something else soon", [][]store.Put{puts(0, 50), again, puts(50, 300)}, false, []road{holding, committing, committing}, []int{0, 50, 300}, 299},
		{"no room", [][]store.Put{puts(0, 300), puts(300, 400), again}, true, []road{committing, committing, committing}, []int{300, 400, 400}, 399},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := newLedger(t).Store
			var feeds Feeds = s
			if c.crowded {
				feeds = crowded{s}
			}
			w := NewWriter(feeds, id)
			w.most = 100
			for i, lot := range c.lots {
				must(t, w.Write(lot))
				st, _ := s.State(id)
				if w.road != c.roads[i] || int(st.Count) != c.shown[i] {
					t.Errorf("after lot %d: road %v, %d entries show", i, w.road, st.Count)
				}
				if due := w.Due() != nil; due != (w.road != committing) {
					t.Errorf("after lot %d: to be hurried %v", i, due)
				}
			}
			must(t, w.Hurry())
			must(t, w.Close())
			if got := s.Counts(id); got.Files != c.files {
				t.Errorf("%d files, want %d", got.Files, c.files)
			}
			if len(c.lots) > 1 && c.files%10 == 9 && c.what != "a few" {
				first := entry(0)
				row, ok, err := s.Entry(id, slices.Clone(first[:]))
				if f, isFile := fileOf(row); err != nil || !ok || !isFile || f.Name != "again" {
					t.Errorf("the last word on an entry is %+v, %v", f, err)
				}
			}
			if again := NewWriter(s, id); c.files > 0 && again.road != committing || again.Due() != nil {
				t.Errorf("the next pass begins with %v", again.road)
			}
		})
	}
}

// A Writer that is given up, as when the node ends, leaves nothing of what it did not commit.
func TestWriterGivenUp(t *testing.T) {
	id := feed.ID{Device: testDevice(), Location: record.LocationID{1}}
	s := newLedger(t).Store
	for _, most := range []int{1, 100} {
		w := NewWriter(s, id)
		w.most = most
		must(t, w.Write([]store.Put{{Record: record.File{ID: record.EntryID{1}, Kind: record.Regular, Name: "x"}, New: true}}))
		must(t, w.Close())
		if _, known := s.State(id); known {
			t.Errorf("something is left of what was %v", w.road)
		}
	}
	w := NewWriter(s, id)
	w.most = 1
	if err := w.Write([]store.Put{{Record: record.File{Kind: record.Regular, Name: "x"}, New: true}}); !errors.Is(err, record.ErrInvalid) {
		t.Errorf("a file of no ID: %v", err)
	}
	must(t, w.Close())
}
