package sim

import (
	"fmt"
	"slices"

	"peerdex/feed"
	"peerdex/record"
)

const (
	fallbackAt = 10 // rounds after which nobody waits any longer for an absent owner (rule 17)
	maxRounds  = 24
)

// heal ends all faults and brings everybody into step within a bounded number of rounds (I2), after
// which nothing moves any more (I18).
func (w *world) heal() {
	w.log("heal", nil, 0, 0)
	for _, t := range w.tasks {
		t.link.cut()
	}
	w.drain()
	w.hints, w.batches = nil, nil
	clear(w.cuts)
	for _, n := range w.alive() {
		n.syncFails, n.dial = false, w.right()
		if n.broken {
			w.crash(n)
		}
		n.scan()
		n.sync()
	}
	w.settleFetch()
	rounds := 0
	for {
		w.round()
		rounds++
		bad := w.unequal()
		if bad == "" {
			w.log("in step", nil, uint64(rounds), 0)
			break
		}
		if rounds == fallbackAt {
			w.fallback()
		}
		if rounds >= maxRounds {
			w.fail("I2", nil, "not in step after %d rounds: %s", rounds, bad)
		}
	}
	w.stats["rounds"] += rounds
	w.quiet()
	for _, n := range w.alive() {
		for _, id := range w.feeds {
			n.checkIndexes(id)
		}
		n.checkLazy()
		n.checkView()
		n.checkMerge()
		n.checkForgotten()
		owners := 0
		for _, m := range w.nodes {
			if m.dev == n.dev {
				owners++
			}
		}
		if owners == 1 && !n.st.Frozen() {
			n.sameAsFolder()
		}
	}
	for _, g := range w.groups(func(n *node) bool { return !n.st.Frozen() }) {
		w.checkModel(g)
	}
}

// quiet fails if something moves although all are in step.
func (w *world) quiet() {
	for range 3 {
		before := w.work()
		w.round()
		if w.work() == before {
			return
		}
	}
	w.fail("I18", nil, "data moves although everybody is in step")
}

func (w *world) work() int {
	sum := w.moved
	for _, n := range w.nodes {
		sum += n.disk.committed
	}
	return sum
}

// round lets every node meet every neighbour once.
func (w *world) round() {
	w.now = w.now.Add(30e9)
	for _, a := range w.alive() {
		a.refresh()
		a.tidy()
		a.shed()
		for _, b := range w.neighbours(a) {
			if !w.connected(a, b) || !greet(a, b) {
				continue
			}
			m := b.heads()
			w.take(a, b, a.hear(b, m), m)
			w.drain()
			if a.rescan {
				a.scan()
			}
			a.sync()
		}
	}
}

// groups returns the nodes that can reach each other by way of nodes that pass things on.
func (w *world) groups(pass func(*node) bool) (out [][]*node) {
	seen := map[*node]bool{}
	for _, n := range w.alive() {
		if seen[n] || !pass(n) {
			continue
		}
		g := []*node{n}
		seen[n] = true
		for i := 0; i < len(g); i++ {
			for _, m := range w.neighbours(g[i]) {
				if !seen[m] && pass(m) {
					seen[m] = true
					g = append(g, m)
				}
			}
		}
		out = append(out, g)
	}
	return out
}

// at returns where a node is settled, or false; an untouched feed counts as settled at genesis.
func (n *node) at(id feed.ID) (feed.Head, bool) {
	st, _ := n.st.State(id)
	switch {
	case st.Settled != nil:
		return *st.Settled, true
	case st.Count == 0 && st.Floor.IsGenesis() && st.Cursor == nil:
		return feed.Head{}, true
	}
	return feed.Head{}, false
}

func (n *node) owns(id feed.ID) bool { return n.dev == id.Device && !n.st.Frozen() }

// circles returns the nodes among which a feed travels: a frozen clone no longer follows its own feeds, so
// nothing of them comes through it.
func (w *world) circles(id feed.ID) [][]*node {
	return w.groups(func(n *node) bool { return (n.dev != id.Device || !n.st.Frozen()) && !n.lazy(id) })
}

// unequal says what is not yet in step, or nothing.
func (w *world) unequal() string {
	for _, id := range w.feeds {
		for _, g := range w.circles(id) {
			g = slices.DeleteFunc(g, func(n *node) bool { return !n.follows(id) })
			if why := w.feedUnequal(g, id); why != "" {
				return w.feedName(id) + " " + why
			}
		}
	}
	for _, g := range w.groups(func(n *node) bool { return !n.st.Frozen() }) {
		for _, n := range g {
			n.refresh()
			n.checkView() // the clock may have been set right
			for _, m := range w.nodes {
				if is, was := n.standing(m.dev), g[0].standing(m.dev); is != was {
					return fmt.Sprintf("node %d is %v at node %d and %v at node %d", m.i, was, g[0].i, is, n.i)
				}
			}
			if !sameView(g[0].view, n.view) {
				return fmt.Sprintf("nodes %d and %d show different registers", g[0].i, n.i)
			}
		}
	}
	return ""
}

func sameView(a, b map[string]record.Register) bool {
	if len(a) != len(b) {
		return false
	}
	for k, r := range a {
		if o, ok := b[k]; !ok || o.Compare(r) != 0 {
			return false
		}
	}
	return true
}

func (w *world) feedUnequal(g []*node, id feed.ID) string {
	var (
		first   *feed.Head
		donors  int
		waiting int
	)
	for _, n := range g {
		h, ok := n.at(id)
		if ok && !h.IsGenesis() {
			donors++
		}
		if !ok {
			waiting++
			continue
		}
		if first == nil {
			first = &h
		}
		if !first.Same(h) {
			return fmt.Sprintf("is settled at %d and at %d", first.Seq, h.Seq)
		}
		for _, m := range w.neighbours(n) { // a frozen clone still serves what it has
			if there, ok := m.at(id); ok && there.Compare(h) > 0 {
				return fmt.Sprintf("is settled at %d, and a frozen clone at %d", h.Seq, there.Seq)
			}
		}
	}
	if waiting > 0 && (donors > 0 || id.IsDevice()) {
		return fmt.Sprintf("is unsettled at %d nodes", waiting)
	}
	if waiting > 0 {
		w.reach("location nobody can complete")
		return ""
	}
	return ""
}

// fallback is rule 17: owner and holders stay away, so the rest settles at what the living have.
func (w *world) fallback() {
	for _, id := range w.feeds {
		for _, g := range w.circles(id) {
			w.fallbackFeed(slices.DeleteFunc(g, func(n *node) bool { return !n.follows(id) }), id)
		}
	}
	for _, n := range w.alive() {
		n.sync()
	}
}

func (w *world) fallbackFeed(g []*node, id feed.ID) {
	var donor *node
	var top feed.Head
	for _, n := range g {
		if n.owns(id) {
			return
		}
		if h, ok := n.at(id); ok && !h.IsGenesis() && (donor == nil || h.Compare(top) > 0) {
			donor, top = n, h
		}
	}
	for _, n := range g {
		if _, ok := n.at(id); ok {
			continue
		}
		n.orphaned[id] = true
		switch {
		case donor != nil:
			w.reach("fallback")
			w.logFeed("fallback", n, id, top.Seq, 0)
			w.pull(n, donor, []feed.ID{id})
			w.drain()
		case id.IsDevice():
			w.reach("orphan")
			w.logFeed("orphan", n, id, 0, 0)
			_, err := n.st.Orphan(id, nil)
			n.ought(err)
		}
		n.check()
		delete(n.orphaned, id)
	}
}
