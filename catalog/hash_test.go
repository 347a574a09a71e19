package catalog

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peerdex/record"
)

// What is to be read is what counting every size by itself gives.
func TestChooseEqualsCounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint64Range(1, 12)
		sizes := rapid.SliceOf(size).Draw(t, "of others")
		var own, want []candidate
		policy := map[record.LocationID]Policy{}
		for i := range rapid.IntRange(0, 3).Draw(t, "locations") {
			l := record.LocationID{byte(i + 1)}
			policy[l] = rapid.SampledFrom(Policies).Draw(t, "policy")
			for range rapid.IntRange(0, 8).Draw(t, "files") {
				c := candidate{l, record.EntryID{byte(len(own) + 1)}, size.Draw(t, "size")}
				own, sizes = append(own, c), append(sizes, c.size)
			}
		}
		held := func(id record.EntryID) bool { return id[0]%5 == 0 }
		for _, c := range own {
			count := 0
			for _, s := range sizes {
				if s == c.size {
					count++
				}
			}
			if p := policy[c.location]; !held(c.entry) && (p == HashAll || p == HashAuto && count > 1) {
				want = append(want, c)
			}
		}
		if got := choose(own, twins(sizes), policy, held); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

func TestHold(t *testing.T) {
	now := time.Unix(1000, 0)
	h := hold{}
	if h.over(now) {
		t.Error("one until the next scan is over by itself")
	}
	for i, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		h = h.longer(now, time.Minute)
		if h.wait != want || h.over(now.Add(want-1)) || !h.over(now.Add(want)) {
			t.Errorf("time %d: %v", i, h)
		}
	}
	for range 100 {
		h = h.longer(now, time.Minute)
	}
	if h.wait != holdMost {
		t.Errorf("at last %v", h.wait)
	}
	if policyOf([]byte("all")) != HashAll || policyOf([]byte("some")) != HashNone || policyOf(nil) != HashNone {
		t.Error("policies are misread")
	}
}
