package node

import (
	"os"
	"path/filepath"
	"testing"
)

// Most of a folder is deleted at once: more tombstones than one transaction drops, all of them newer than the files
// were. All are collected, a bounded number at a time, each with a head of its own, and whoever is connected follows.
func TestManyTombstonesAreCollected(t *testing.T) {
	t.Parallel()
	const files = 7000
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	b := start(t, filepath.Join(t.TempDir(), "b"), "b")
	b.joins(a)
	folder := many(t, files)
	loc := a.index(folder)
	id := locationFeed(a.self, loc)
	await(t, "the files", inStep(a, b))
	names, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names[1:] {
		if err := os.RemoveAll(filepath.Join(folder, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the tombstones", func() bool { return a.store.Counts(id).Tombstones == files-1 })
	before, _ := a.store.State(id)
	if err := a.collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, _ := a.store.State(id)
	if got := a.store.Counts(id); got.Tombstones != 0 || got.Files != 1 || after.Settled.GC != before.Settled.Seq {
		t.Errorf("left: %+v, up to %d of %d", got, after.Settled.GC, before.Settled.Seq)
	}
	if heads := after.Settled.Seq - before.Settled.Seq; heads < files/2000 {
		t.Errorf("all at once: %d heads", heads)
	}
	await(t, "the same at b", func() bool {
		got, st := b.store.Counts(id), a.store.Counts(id)
		there, _ := b.store.State(id)
		return got == st && there.Settled != nil && *there.Settled == *after.Settled
	})
}
