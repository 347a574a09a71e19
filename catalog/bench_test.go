//go:build linux

package catalog

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"peerdex/record"
)

const benchFiles = 100_000

// manyFiles makes benchFiles empty files in 2,000 directories under dir.
func manyFiles(tb testing.TB, dir string) {
	tb.Helper()
	for d := range 2000 {
		path := filepath.Join(dir, fmt.Sprintf("year %d", d%20), fmt.Sprintf("album %d", d))
		must(tb, os.MkdirAll(path, 0o755))
		for f := range benchFiles / 2000 {
			file, err := os.Create(filepath.Join(path, fmt.Sprintf("IMG_%d_%d.jpg", d, f)))
			must(tb, err)
			must(tb, file.Close())
		}
	}
}

// findTime returns how long find takes to print what an index holds.
func findTime(b *testing.B, dir string) time.Duration {
	b.Helper()
	start := time.Now()
	cmd := exec.Command("find", dir, "-printf", `%p %s %T@ %i\n`)
	cmd.Stdout = io.Discard
	if err := cmd.Run(); err != nil {
		b.Skip("no find with -printf here")
	}
	return time.Since(start)
}

// BenchmarkIndex reports the time to a committed, durable and watched index of 100,000 files, and of a
// rescan with nothing changed, as multiples of find's over the same files just before.
func BenchmarkIndex(b *testing.B) {
	dir := b.TempDir()
	manyFiles(b, dir)
	findTime(b, dir)
	for _, what := range []string{"cold", "rescan"} {
		b.Run(fmt.Sprintf("%s/files=%d", what, benchFiles), func(b *testing.B) {
			var ours, theirs time.Duration
			for b.Loop() {
				t := newBench(b, Config{})
				t.ix = NewIndexer(t.feeds.Store, Config{Device: testDevice()}) // without the tests' bookkeeping
				t.run()
				find := findTime(b, dir)
				start := time.Now()
				t.add(dir, Options{})
				t.phase(Watching)
				if what == "rescan" {
					find = findTime(b, dir)
					start = time.Now()
					t.rescan()
				}
				ours += time.Since(start)
				theirs += find
				t.stop()
			}
			b.ReportMetric(float64(ours)/float64(theirs), "x-find")
			b.ReportMetric(float64(benchFiles)*float64(b.N)/ours.Seconds(), "files/s")
		})
	}
}

// BenchmarkChange reports how long after a file is written its record is committed and durable, while
// 100,000 other files are watched; 10 ms of it are waiting for more.
func BenchmarkChange(b *testing.B) {
	t := newBench(b, Config{})
	dir := b.TempDir()
	manyFiles(b, dir)
	t.ix = NewIndexer(t.feeds.Store, Config{Device: testDevice()})
	t.run()
	l := t.add(dir, Options{})
	t.phase(Watching)
	wake, cancel := t.feeds.Watch()
	defer cancel()
	var all []time.Duration
	for i := 0; b.Loop(); i++ {
		at, _ := t.feeds.State(l.Feed())
		start := time.Now()
		must(b, os.WriteFile(filepath.Join(dir, "year 3", fmt.Sprintf("note %d", i)), nil, 0o644))
		for now, _ := t.feeds.State(l.Feed()); now.Settled.Seq == at.Settled.Seq; now, _ = t.feeds.State(l.Feed()) {
			<-wake
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
}

// What is known of an entry costs less than 160 bytes.
func TestTreeIsCompact(t *testing.T) {
	const entries = 200_000
	before := heap()
	tr := newTree()
	dir := root
	for i := range entries {
		n := tr.alloc()
		*tr.at(n) = node{kind: record.Regular, parent: none, first: none, next: none, prev: none}
		if i%50 == 0 {
			tr.at(n).kind = record.Directory
			tr.link(n, root, fmt.Sprintf("album number %d", i))
			dir = n
		} else {
			tr.link(n, dir, fmt.Sprintf("IMG_2041_%d.jpg", i))
		}
		tr.identify(n, 0, uint64(i+1))
	}
	each := float64(heap()-before) / entries
	runtime.KeepAlive(tr)
	t.Logf("%.0f bytes an entry", each)
	if each > 160 {
		t.Errorf("%.0f bytes an entry, want less than 160", each)
	}
}
