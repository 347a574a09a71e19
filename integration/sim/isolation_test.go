package sim

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"
)

// fault is what is wrong with one donor among others.
type fault string

var faults = []fault{"dead", "slow", "refuses", "lies"}

const (
	absent         = fault("absent")
	isolationSeeds = 20
	pageLimit      = 3 // entries, so that pages and chunks take about as many ticks
)

// noticed is after how many ticks of waiting, a second each, a pull is ended here, as package node does: with a session in
// which no frame has come (deadAfter), and where a minute's pace was missed and there is another donor (paceWindow).
var noticed = map[fault]int{"dead": 15, "slow": 60}

// TestIsolation wants one donor that is dead, slow or hostile to at most double the time in which a newcomer gets
// everything, once it is noticed that it is (I19). The donor is the one that is asked first.
func TestIsolation(t *testing.T) {
	for _, b := range isolation(isolationSeeds) {
		t.Errorf("SIM_SEED=%d %v\n%s", b.seed, b, b.trace)
	}
}

// isolation plays so many worlds, each with every fault, and returns the first few bugs.
func isolation(worlds int) (bugs []*bug) {
	for seed := uint64(muchAt); worlds > 0 && len(bugs) < 5; seed += muchEvery {
		alone, b := joins(seed, absent)
		if b != nil {
			return append(bugs, b)
		}
		if alone == 0 {
			continue
		}
		worlds--
		for _, f := range faults {
			ticks, b := joins(seed, f)
			if b == nil && ticks > 2*alone+noticed[f] {
				b = &bug{id: "I19", seed: seed, what: fmt.Sprintf("%s: a newcomer takes %d ticks, without %d", f, ticks, alone)}
			}
			if b != nil {
				bugs = append(bugs, b)
			}
		}
	}
	return bugs
}

// joins lets a newcomer join a library all of whose devices hold everything, and returns after how many ticks it does
// too; zero if this world has too few devices for that.
func joins(seed uint64, f fault) (ticks int, broken *bug) {
	w := newWorld(seed, false)
	w.liar = -1
	broken = w.guard(func() {
		if w.belonging || len(w.nodes) < 4 {
			return
		}
		late := w.prepare()
		bad := slices.MinFunc(w.alive(), func(a, b *node) int { return bytes.Compare(a.dev[:], b.dev[:]) })
		bad.gone, bad.refuses = f == absent, f == "refuses"
		if f == "lies" {
			w.liar = bad.i
		}
		late.gone = false
		began := map[*link]int{}
		for ; !w.has(late); ticks++ {
			if ticks > 2_000 {
				w.fail("I19", late, "%s: never in step", f)
			}
			w.now = w.now.Add(time.Second)
			if len(w.tasks) == 0 {
				from := w.elect(late, w.neighbours(late))
				m := from.heads()
				w.take(late, from, late.hear(from, m), m)
			}
			for _, t := range w.tasks {
				if began[t.link] == 0 {
					began[t.link] = ticks + 1
				}
				if t.link.b == bad && (f == "dead" || f == "slow" && ticks%8 > 0) {
					if ticks-began[t.link] >= noticed[f] {
						t.link.cut()
					} else {
						continue
					}
				}
				if t.ready() {
					w.resume(t)
				}
			}
			w.sweep()
		}
	})
	return ticks, broken
}

// prepare brings all but the last node in step, each with much of its own, and returns the last.
func (w *world) prepare() *node {
	late := w.nodes[len(w.nodes)-1]
	late.gone = true
	w.keys = 40
	for i, n := range w.nodes {
		n.liar = false
		n.puller.Limit, n.server.Limit = pageLimit, pageLimit
		for j := range i {
			w.edges[edge(i, j)] = true
		}
		for range 80 {
			w.uid++
			n.fs.change(w.plan, 2*w.keys, w.uid)
		}
		if n != late {
			n.scan()
			n.sync()
		}
	}
	for range 4 {
		w.round()
	}
	if why := w.unequal(); why != "" {
		w.fail("I2", nil, "not in step: %s", why)
	}
	clear(late.fs)
	return late
}

// has reports whether n holds of every feed what others do.
func (w *world) has(n *node) bool {
	for _, id := range w.feeds {
		if id.Device == n.dev {
			continue
		}
		mine, ok := n.at(id)
		for _, m := range w.neighbours(n) {
			if theirs, held := m.at(id); !ok || held && theirs.Compare(mine) > 0 {
				return false
			}
		}
	}
	return true
}
