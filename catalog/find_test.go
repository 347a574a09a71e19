package catalog

import (
	"context"
	"fmt"
	"testing"

	"peerdex/kv/memory"
	"peerdex/record"
	"peerdex/store"
)

// Contents that become known while a search goes on make no entry come twice.
func TestFindWhileContentsAreLearned(t *testing.T) {
	s := newSide(t, 1, memory.New(memory.Config{}))
	id := s.locate(t, 1)
	const files = 30
	put := func(n int, hash byte) store.Put {
		f := record.File{ID: record.EntryID{1, byte(n)}, Kind: record.Regular, Name: fmt.Sprint(n), Size: 7}
		f.Hash[0] = hash
		return store.Put{Record: f}
	}
	var puts []store.Put
	for n := range files {
		puts = append(puts, put(n, byte(n%2))) // every other is known
	}
	_, err := s.Commit(id, puts)
	ok(t, err)
	c := New(s)
	load(t, c)
	seen := map[record.EntryID]int{}
	err = c.Find(context.Background(), FindOptions{}, func(items []Item) error {
		if len(seen) == 1 { // the copies among those that are known were found just now, with the second
			for n := range puts {
				puts[n] = put(n, 1)
			}
			_, err := s.Commit(id, puts)
			ok(t, err)
		}
		for _, it := range items {
			seen[it.File.ID]++
		}
		return nil
	})
	ok(t, err)
	for n := range files {
		if times := seen[record.EntryID{1, byte(n)}]; times != 1 {
			t.Errorf("file %d is found %d times", n, times)
		}
	}
}

// A file that was shown before its content was known does not come again with its copies.
func TestFindBeforeContentsAreLearned(t *testing.T) {
	s := newSide(t, 1, memory.New(memory.Config{}))
	id := s.locate(t, 1)
	put := func(n int, hash byte) store.Put {
		f := record.File{ID: record.EntryID{1, byte(n)}, Kind: record.Regular, Name: fmt.Sprint(n), Size: 7}
		f.Hash[0] = hash
		return store.Put{Record: f}
	}
	_, err := s.Commit(id, []store.Put{put(0, 0), put(1, 0), put(2, 1), put(3, 1)})
	ok(t, err)
	c := New(s)
	load(t, c)
	seen := map[record.EntryID]int{}
	err = c.Find(context.Background(), FindOptions{}, func(items []Item) error {
		if len(seen) == 0 {
			_, err := s.Commit(id, []store.Put{put(0, 1), put(1, 1)})
			ok(t, err)
		}
		for _, it := range items {
			seen[it.File.ID]++
		}
		return nil
	})
	ok(t, err)
	for n := range 4 {
		if times := seen[record.EntryID{1, byte(n)}]; times != 1 {
			t.Errorf("file %d is found %d times", n, times)
		}
	}
}
