package backfill

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"peerdex/record"
)

func TestElect(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := func(id byte, online bool, complete float64, latency time.Duration, syncs int, failed time.Duration) Candidate {
		out := Candidate{Device: record.DeviceID{id}, Online: online, Complete: complete, Latency: latency, ActiveSyncs: syncs}
		if failed != 0 {
			out.Failed = now.Add(-failed)
		}
		return out
	}
	for name, group := range map[string]struct {
		in     []Candidate
		order  []byte
		scores []float64
	}{
		"nobody": {nil, nil, nil},
		"the formula": {
			[]Candidate{c(1, true, 1, 0, 0, 0), c(2, true, 0.5, 20*time.Millisecond, 0, 0), c(3, true, 1, 0, 3, 0), c(4, true, 1, time.Second, 0, 0)},
			[]byte{1, 2, 3, 4}, []float64{150, 123, 120, 50},
		},
		"microseconds count": {[]Candidate{c(1, true, 1, 200*time.Microsecond, 0, 0), c(2, true, 1, 100*time.Microsecond, 0, 0)}, []byte{2, 1}, []float64{149.99, 149.98}},
		"ties by device":     {[]Candidate{c(3, true, 1, 0, 1, 0), c(1, true, 1, 0, 1, 0), c(2, true, 1, 0, 1, 0)}, []byte{1, 2, 3}, []float64{140, 140, 140}},
		"a failure fades after ten minutes": {
			[]Candidate{c(1, true, 1, 0, 0, time.Second), c(2, true, 1, 0, 0, 10*time.Minute-1), c(3, true, 1, 0, 0, 10*time.Minute), c(4, true, 0.9, 0, 0, 0)},
			[]byte{3, 4, 1, 2}, []float64{150, 145, 110, 110},
		},
		"away or holding nothing comes last, however fast": {
			[]Candidate{c(1, false, 1, 0, 0, 0), c(2, true, 0, 0, 0, 0), c(3, true, 0.1, 30*time.Second, 9, time.Second)},
			[]byte{3, 2, 1}, []float64{-3000 + 105 - 90 - 40, 100, 50},
		},
	} {
		for range 10 { // in whatever order they come
			in := slices.Clone(group.in)
			rand.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
			before := slices.Clone(in)
			got := Elect(now, in)
			if !slices.Equal(in, before) {
				t.Fatalf("%s: the list given was changed", name)
			}
			for i, g := range got {
				if g.Device[0] != group.order[i] || g.Score(now)-group.scores[i] > 1e-9 || group.scores[i]-g.Score(now) > 1e-9 {
					t.Fatalf("%s: place %d has %d with %v, want %d with %v", name, i, g.Device[0], g.Score(now), group.order[i], group.scores[i])
				}
			}
		}
	}
}
