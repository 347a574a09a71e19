package sim

import (
	"bufio"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// reached must all be above zero after a full run: a branch of the rules, or a fault.
var reached = []string{
	"crash", "crash lost a suffix", "sync fails", "restore", "restore with marker", "marker tells", "wipe",
	"clone", "freeze", "partition", "interrupt", "departure", "departure after a fork", "stranded", "returned", "second chaos", "corrupt", "truncate",
	"collect", "busy donor", "hint", "fork seen", "jump", "absorb", "rescue",
	"cursor", "delta mismatch", "fallback", "orphan", "location nobody can complete",
	"road delta position", "road delta cursor", "road delta empty",
	"road diff interrupted", "road diff fork", "road diff gc", "road blocked below_floor",
	"clock skewed", "clock an hour back", "clock ten years back", "clock an hour ahead", "clock in 2099",
	"clock stands", "clock drifts", "1970", "poison far ahead", "poison at the limit", "poison at the end of time",
	"stamp refused", "counter carried", "edit refused: clock", "edit refused: stamps ahead", "the future came",
	"rescue of a third device's word", "set aside", "orderly end", "restore after a rescue",
	"invite", "invite of a device that had left", "invite of a removed device", "leave", "revoke", "forget",
	"removal by a mere member", "removal by a stranger", "removal of an admin by another",
	"forged certificate", "rubbish over a certificate", "certificates in a hello", "turned away",
	"membership changed after the question", "out in the middle", "stream of a removed device broken",
	"push of a removed device", "feed dropped",
	"snapshot", "snapshot taken", "snapshot cut", "snapshot goes on", "snapshot goes on with another donor", "donor dies",
	"donor gives no snapshot", "pages after a snapshot that failed", "chunk torn",
	"crash at C11", "crash at C12", "crash at C13", "crash at C14", "crash at C15", "C14: the old files", "C14: the new files",
	"lie: chunk", "lie: number", "lie: entry", "lie: omit", "lie: twice", "lie: head", "lie: library", "lie: nobody",
	"lie: past", "lie: dies",
	"location eager", "location lazy", "location metered", "metered location waits", "lazy location is being written",
	"lazy at the end", "push declined",
	"push", "push replayed", "push applied", "push known", "push unsettled", "push gap", "push mismatch",
	"push rejected", "push busy", "refused not_settled", "refused busy", "refused unknown_feed", "refused here",
}

const (
	fullSeeds  = 2000
	shortSeeds = 200
)

// TestSeeds plays the seeds that once failed, then as many others as there is time for in CI. It fails
// if one breaks an invariant, and in full if a branch was never taken.
func TestSeeds(t *testing.T) {
	seeds := regress(t)
	count := fullSeeds
	if testing.Short() {
		count = shortSeeds
	}
	if v := os.Getenv("SIM_SEEDS"); v != "" {
		var err error
		if count, err = strconv.Atoi(v); err != nil {
			t.Fatalf("SIM_SEEDS: %v", err)
		}
	}
	first := uint64(1)
	if v := os.Getenv("SIM_FIRST"); v != "" {
		var err error
		if first, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("SIM_FIRST: %v", err)
		}
	}
	for i := range count {
		seeds = append(seeds, first+uint64(i))
	}
	stats, bugs := playAll(seeds, 5)
	for _, b := range bugs {
		t.Errorf("SIM_SEED=%d %v\n%s", b.seed, b, b.trace)
	}
	if len(bugs) > 0 || testing.Short() {
		return
	}
	for _, name := range reached {
		if stats[name] == 0 {
			t.Errorf("%q was never reached in %d seeds", name, len(seeds))
		}
	}
	if testing.Verbose() {
		for _, name := range slices.Sorted(maps.Keys(stats)) {
			t.Logf("%8d %s", stats[name], name)
		}
	}
}

// playAll plays seeds on all processors and returns what was reached and, of the first few failures,
// what was broken.
func playAll(seeds []uint64, limit int) (map[string]int, []*bug) {
	var (
		next  atomic.Int64
		mu    sync.Mutex
		stats = map[string]int{}
		bugs  []*bug
		wg    sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				mu.Lock()
				enough := len(bugs) >= limit
				mu.Unlock()
				if i >= len(seeds) || enough {
					return
				}
				w := newWorld(seeds[i], false)
				b := w.run()
				mu.Lock()
				for k, v := range w.stats {
					stats[k] += v
				}
				if b != nil {
					bugs = append(bugs, b)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return stats, bugs
}

// regress returns the seeds of testdata/regress.txt: one a line, a comment after it.
func regress(t *testing.T) (seeds []uint64) {
	t.Helper()
	f, err := os.Open("testdata/regress.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		seed, err := strconv.ParseUint(line, 10, 64)
		if err != nil {
			t.Fatalf("regress.txt: %v", err)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}

// TestReplay plays the seed in SIM_SEED and prints every event.
func TestReplay(t *testing.T) {
	text := os.Getenv("SIM_SEED")
	if text == "" {
		t.Skip("SIM_SEED is not set")
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(seed, true)
	b := w.run()
	for _, e := range w.trace {
		t.Logf("%8.3f %v", float64(e.at.UnixMilli()-1_800_000_000_000)/1e3, e)
	}
	if b != nil {
		t.Fatalf("SIM_SEED=%d %v", seed, b)
	}
}

// TestDeterminism plays seeds twice and wants one trace (I17).
func TestDeterminism(t *testing.T) {
	for seed := range uint64(20) {
		a, b := newWorld(seed, false), newWorld(seed, false)
		a.run()
		b.run()
		if a.hash != b.hash || a.events != b.events {
			t.Errorf("SIM_SEED=%d gives %d events with hash %x, then %d with %x", seed, a.events, a.hash, b.events, b.hash)
		}
	}
}
