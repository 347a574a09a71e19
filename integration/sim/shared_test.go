package sim

import (
	"time"

	"peerdex/record"
)

// checkMerge shuffles and repeats all registers held, merges them again in every way there is, and compares
// the results with what the store shows (I10).
func (n *node) checkMerge() {
	now := n.wall()
	by := map[string][]record.Register{}
	var keys []string
	for _, id := range n.w.feeds {
		if !id.IsDevice() {
			continue
		}
		for _, e := range n.entries(id) {
			rec, err := record.Decode(e.Key, e.Record)
			if err != nil {
				n.w.fail("I20", n, "a register does not decode: %v", err)
			}
			if by[string(e.Key)] == nil {
				keys = append(keys, string(e.Key))
			}
			by[string(e.Key)] = append(by[string(e.Key)], rec.(record.Register))
		}
	}
	shown := map[string]record.Register{}
	for _, kind := range shared {
		n.ought(n.st.Registers(kind, func(r record.Register) error {
			shown[string(r.Key())] = r
			return nil
		}))
	}
	for _, k := range keys {
		regs := append(by[k], by[k][0])
		n.w.pick.Shuffle(len(regs), func(i, j int) { regs[i], regs[j] = regs[j], regs[i] })
		won, ok := record.Merge(now, regs...)
		again, want := winner(regs, now)
		is, has := shown[k]
		if ok != want || has != want || ok && (won.Compare(again) != 0 || is.Compare(again) != 0) {
			n.w.fail("I10", n, "%x shows %q, the merge in another order says %q, the rule says %q", k, is.Value, won.Value, again.Value)
		}
		delete(shown, k)
	}
	if len(shown) > 0 {
		n.w.fail("I10", n, "%d registers shown that nobody holds", len(shown))
	}
}

// checkModel compares what a group of nodes shows, all in step, with what was once written: it is the winner
// of all edits that some node in it has acknowledged and not lost, and an edit that was made (I3, I10). What
// lies in the future is held by all, and wins when its time comes.
func (w *world) checkModel(g []*node) {
	for _, at := range []time.Time{w.now, w.now.Add(150 * year)} {
		for _, n := range g { // what a frozen clone alone holds stays with it until a person decides
			for _, m := range g {
				if n.liar {
					continue
				}
				m.keeps("I3", n.acked, m.all(), at)
			}
		}
		first := g[0].all()
		for _, n := range g {
			held := n.all()
			for k, made := range w.made {
				a, ok := winner(first[k], at)
				b, also := winner(held[k], at)
				if ok != also || a.Compare(b) != 0 {
					w.fail("I10", n, "%x shows %q, at node %d %q", k, b.Value, g[0].i, a.Value)
				}
				if !ok {
					continue
				}
				if at != w.now {
					w.reach("the future came")
				}
				real := false
				for _, m := range made {
					real = real || m.Compare(b) == 0 && m.Prev == b.Prev
				}
				if !real {
					w.fail("I10", n, "%x shows %q, which nobody wrote", k, b.Value)
				}
			}
		}
	}
}
