//go:build mutant

package sim

import (
	"os"
	"testing"

	"peerdex/internal/mutant"
)

// mutants are the rules that can be broken, in the order of their packages.
var mutants = []string{
	"push_noprev", "delta_across_gc", "accept_lower", "owner_ignores_best", "clone_unnoticed", "order",
	"stale_node", "forget_floor", "gc_not_dropped", "skip_root", "push_noverify", "rescue_skipped",
	"rescue_other_txn", "drop_moved", "best_not_noted", "fork_rewrites", "fork_untold", "no_jump",
	"jump_keeps_seq", "onto_once", "absorb_overwrites", "absorb_same_seq", "device_gc", "frozen_writes",
	"serve_unsettled", "publish_volatile", "no_lock", "marker_ignored", "ack_volatile",
	"diff_low_tree", "no_tail_leaves", "phase_swap", "cursor_kept", "cursor_before",
	"clock_forgets", "poison_believed", "merge_arrival", "tie_unbroken", "future_wins", "future_displaces",
	"prev_ignored", "edit_below_seen", "edit_ahead", "rescue_own_words", "aside_dropped",
	"generation_ignored", "generation_stays", "generation_forgets", "asked_once", "serve_strangers",
	"load_skip_root", "switch_unverified", "switch_volatile", "retire_first", "left_behind",
	"resume_forgotten", "chunks_pile_up", "chunk_unchecked", "lazy_fetched", "declined_applied", "failure_forgotten",
	"removal_loses", "dismissed_counts", "lapsed_counts", "admin_removes_admin",
}

// mustCatch is how many of them the invariants have to notice.
const mustCatch = 63

const mutantSeeds = 150 // a mutant that so many seeds do not notice is not caught

// SIM_MUTANT breaks one rule for the other tests: Replay shows what it does to a seed.
func init() { mutant.Break(os.Getenv("SIM_MUTANT")) }

// TestMutants breaks one rule after another and wants an invariant to notice.
func TestMutants(t *testing.T) {
	seeds := regress(t)
	for i := range mutantSeeds {
		seeds = append(seeds, uint64(i+1))
	}
	caught := 0
	for _, name := range mutants {
		mutant.Break(name)
		_, bugs := playAll(seeds, 1)
		if len(bugs) == 0 {
			bugs = isolation(isolationSeeds)
		}
		mutant.Break("")
		if len(bugs) == 0 {
			t.Logf("%-20s not caught in %d seeds", name, len(seeds))
			continue
		}
		caught++
		t.Logf("%-20s caught by seed %d: %v", name, bugs[0].seed, bugs[0])
	}
	t.Logf("%d of %d caught", caught, len(mutants))
	if caught < mustCatch {
		t.Errorf("%d of %d broken rules were noticed, want %d", caught, len(mutants), mustCatch)
	}
}
