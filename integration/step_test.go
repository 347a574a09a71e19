package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"peerdex/node"
)

// R1: two devices in step; one indexes a tree, the other shows it. R2 is the mirror image, with a real
// source tree.
func TestR1R2IndexedTreeArrives(t *testing.T) {
	t.Parallel()
	dirA, dirB := tempDir(t), source(t)
	odd(t, dirA)
	a, b := two(t, nil, nil)
	inStep(t, a, b)

	before := onDisk(t, dirA)
	a.add(dirA)
	inStep(t, a, b).wantOnDisk(t, dirA)

	b.add(dirB, "--name", "source") // R2
	c := inStep(t, a, b)
	c.wantOnDisk(t, dirA)
	c.wantOnDisk(t, dirB)
	c.wantListed(t, "alpha", dirA, a, b)
	c.wantListed(t, "beta", dirB, a, b)
	if after := onDisk(t, dirA); !slices.Equal(before, after) {
		t.Errorf("something was written below an indexed folder: %s", firstDifference(after, before))
	}
	wantEqualOnDisk(t, a, b)
}

// wantListed fails unless each of the peers lists each folder of a location by its full path, with exactly
// what the catalogue has there.
func (c catalogue) wantListed(t *testing.T, device, dir string, peers ...*peer) {
	t.Helper()
	children := map[string][]string{dir: nil}
	for _, r := range c.rows {
		if r.Kind == "dir" && strings.HasPrefix(r.Path, dir+"/") {
			children[r.Path] = append(children[r.Path], nil...) // there, if empty
		}
		if strings.HasPrefix(r.Path, dir+"/") {
			parent := filepath.Dir(r.Path)
			children[parent] = append(children[parent], r.Name)
		}
	}
	for _, p := range peers {
		for folder, want := range children {
			l, err := p.client.List(t.Context(), node.ListQuery{Device: device, Path: folder, Limit: 5000})
			if err != nil {
				t.Errorf("%s: list %q: %v", p.name, folder, err)
				continue
			}
			var got []string
			for _, e := range l.Entries {
				got = append(got, e.Name)
			}
			slices.Sort(want)
			if !slices.Equal(got, want) || l.Path != folder || l.More {
				t.Errorf("%s lists %q in %q, want %q in %q", p.name, got, l.Path, want, folder)
			}
		}
	}
}

// R3: both index different trees at the same time, and go on changing them; both hold both.
func TestR3BothIndexAtOnce(t *testing.T) {
	t.Parallel()
	dirA, dirB := tempDir(t), tempDir(t)
	fill(t, dirA, 3000)
	fill(t, dirB, 2000)
	a, b := two(t, nil, nil)
	done := make(chan answer, 2)
	go func() { done <- a.run("add", dirA, "--json") }()
	go func() { done <- b.run("add", dirB, "--json") }()
	for range 2 {
		if r := <-done; r.code != 0 {
			t.Fatalf("add: exit %d: %s", r.code, r.stderr)
		}
	}
	for i, dir := range []string{dirA, dirB} {
		write(t, filepath.Join(dir, "after", "one"), strings.Repeat("x", i+1))
		if err := os.Remove(filepath.Join(dir, "d000", "f00007")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "changes of both arrive", func() string {
		if n := len(a.dumpCatalogue().rows); n != 3000+30+2000+20-2+4 {
			return fmt.Sprintf("%d rows", n)
		}
		return ""
	})
	c := inStep(t, a, b)
	c.wantOnDisk(t, dirA)
	c.wantOnDisk(t, dirB)
	wantEqualOnDisk(t, a, b)
}

// B1: a device that is fully indexed and alone; another joins: equal without anyone asking.
func TestB1NewcomerGetsAll(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	fill(t, dir, 2500)
	odd(t, dir)
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	line := a.start("", dir).Invite.Line
	before := a.dumpCatalogue()
	before.wantOnDisk(t, dir)
	b.join(line)
	after := inStep(t, a, b)
	if d := before.diff(after); d != "" {
		t.Errorf("the newcomer changed what was there: %s", d)
	}
	after.wantListed(t, "alpha", dir, b)
	wantEqualOnDisk(t, a, b)
}

// B2: each has a location of its own before they meet; both hold both.
func TestB2BothHadLocations(t *testing.T) {
	t.Parallel()
	dirA, dirB := tempDir(t), tempDir(t)
	fill(t, dirA, 1200)
	odd(t, dirB)
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	b.start("", dirB) // a library of its own
	alone := b.dumpCatalogue()
	line := a.start("", dirA).Invite.Line
	var last node.JoinProgress
	b.ask(&last, "join", line)
	if last.Stage != "in_step" || last.Device != "alpha" {
		t.Errorf("join ended at %+v", last)
	}
	c := inStep(t, a, b)
	c.wantOnDisk(t, dirA)
	c.wantOnDisk(t, dirB)
	kept := catalogue{}
	for _, r := range c.rows {
		if strings.HasPrefix(r.Path, dirB+"/") {
			kept.rows = append(kept.rows, r)
		}
	}
	if alone.places = nil; alone.diff(kept) != "" {
		t.Errorf("joining changed what the device had: %s", alone.diff(kept))
	}
	wantEqualOnDisk(t, a, b)
}

// X1: one device backfills the first location while its owner indexes the second. X2: the same with both
// finished first.
func TestX1X2LocationsDuringBackfill(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X1", "X2"} {
		t.Run(name, func(t *testing.T) {
			first, second := tempDir(t), tempDir(t)
			fill(t, first, 4000)
			fill(t, second, 3000)
			a, b := newPeer(t, "alpha"), newPeer(t, "beta")
			line := a.start("", first).Invite.Line
			added := make(chan answer, 1)
			add := func() { added <- a.run("add", second, "--json") }
			if name == "X2" {
				add()
				b.join(line)
			} else {
				b.join(line)
				add()
			}
			if r := <-added; r.code != 0 {
				t.Fatalf("add: exit %d: %s", r.code, r.stderr)
			}
			c := inStep(t, a, b)
			c.wantOnDisk(t, first)
			c.wantOnDisk(t, second)
			wantEqualOnDisk(t, a, b)
		})
	}
}
