package sim

import (
	"errors"
	"math/rand/v2"

	"peerdex/feed"
	product "peerdex/node"
	"peerdex/store"
)

// fetchName and the bytes of a feed.ID name the local fact what is fetched of it, as package node keeps it.
const fetchName = "fetch "

func (n *node) lazy(id feed.ID) bool { return n.policy[id] == product.FetchLazy }

// takes reports whether n keeps a feed and wants its entries.
func (n *node) takes(id feed.ID) bool {
	st, _ := n.st.State(id)
	return n.follows(id) && !n.declines(st) && !(n.lazy(id) && st.InStep())
}

// declines reports whether the entries that lead to the best head of a feed are not taken.
func (n *node) declines(st feed.State) bool {
	id := st.Feed
	if !n.w.much || id.IsDevice() || id.Device == n.dev {
		return false
	}
	c := product.FetchCase{Policy: n.policy[id], Settled: st.InStep(), Bulk: n.w.from}
	at := uint64(0)
	switch {
	case st.Settled != nil:
		at = st.Settled.Seq
	case st.Cursor != nil:
		at = st.Cursor.Seq
	}
	if st.Best.Seq > at {
		c.Lacks = min(st.Best.Seq-at, st.Best.Count)
	}
	c.Asked = max(n.asked[id], at) - at
	decision, _ := product.DecideEntries(c)
	if decision == product.DecideWait {
		n.w.reach("metered location waits")
	}
	return decision != product.DecideFetch && decision != product.DecideInStep
}

// decide lets a person say of which locations n keeps the entries: of all, of none, or of one more or less.
func (n *node) decide(r *rand.Rand) {
	if n.broken {
		return
	}
	var others []feed.ID
	for _, id := range n.w.feeds {
		if !id.IsDevice() && id.Device != n.dev {
			others = append(others, id)
		}
	}
	policy := product.Fetches[r.IntN(len(product.Fetches))]
	switch x := r.Float64(); {
	case x < 0.5:
		if policy == product.FetchMetered {
			policy = product.FetchLazy
		}
		for _, id := range others {
			n.setFetch(id, policy)
		}
	case x < 0.9:
		n.setFetch(others[r.IntN(len(others))], policy)
	default:
		n.ask()
	}
}

func (n *node) setFetch(id feed.ID, policy product.Fetch) {
	if n.broken || n.policy[id] == policy {
		return
	}
	n.w.reach("location " + string(policy))
	n.w.logFeed("fetch "+string(policy), n, id, 0, 0)
	if err := n.st.SetLocal(fetchName+string(id.Append(nil)), []byte(policy)); err != nil {
		n.ought(err)
		return
	}
	n.policy[id] = policy
	n.shed()
}

// ask lets a person ask for what metered locations lack.
func (n *node) ask() {
	for id, p := range n.policy {
		if st, _ := n.st.State(id); p == product.FetchMetered {
			n.asked[id] = st.Best.Seq
		}
	}
}

// shed gives up the entries of locations that are lazy, but for those that somebody is writing, and remembers
// the heads.
func (n *node) shed() {
	if !n.w.much {
		return
	}
	for _, id := range n.w.feeds {
		st, known := n.st.State(id)
		if n.broken || !known || !n.lazy(id) || !holdsAny(st) {
			continue
		}
		release, ok := n.st.Claim(id)
		if !ok {
			n.w.reach("lazy location is being written")
			continue
		}
		n.drop(id)
		if !n.broken {
			_, err := n.st.Observe([]feed.Head{st.Best}, n.st.Generation())
			if !errors.Is(err, store.ErrUnknownFeed) {
				n.ought(err)
			}
		}
		release()
		n.check()
	}
}

// holdsAny reports whether anything but a head is held of a feed.
func holdsAny(st feed.State) bool {
	return st.Count > 0 || st.Settled != nil || st.Cursor != nil || !st.Floor.IsGenesis()
}

// settleFetch ends the whims of persons: what is not lazy is fetched, and of what is lazy the best head is known and
// nothing else.
func (w *world) settleFetch() {
	if !w.much {
		return
	}
	for _, n := range w.alive() {
		for _, id := range w.feeds {
			if p := n.policy[id]; p == product.FetchMetered || p == product.FetchLazy && chance(w.more, 0.5) {
				n.setFetch(id, product.FetchEager)
			}
		}
	}
}

// checkLazy fails unless of each lazy location the best head that a neighbour holds is known, and no entry (at
// quiescence).
func (n *node) checkLazy() {
	for _, id := range n.w.feeds {
		if !n.lazy(id) || !n.follows(id) {
			continue
		}
		st, _ := n.st.State(id)
		if holdsAny(st) || len(n.entries(id)) > 0 {
			n.w.fail("LAZY", n, "%d entries of %s are held, which is followed by head only", st.Count, n.w.feedName(id))
		}
		for _, m := range n.w.neighbours(n) {
			if h, ok := m.at(id); ok && m.follows(id) && !h.IsGenesis() && h.Compare(st.Best) > 0 {
				n.w.fail("LAZY", n, "the best head of %s is %d, a neighbour has %d", n.w.feedName(id), st.Best.Seq, h.Seq)
			}
		}
	}
	n.w.reach("lazy at the end")
}
