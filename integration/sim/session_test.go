package sim

import (
	"errors"
	"math/rand/v2"

	"peerdex/backfill"
	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/store"
)

// hint is a Heads message under way: it may come late, twice, or behind a newer one.
type hint struct {
	from, to *node
	m        *protocol.Heads
}

// meet lets n hear a neighbour and pull from it: what it lacks, or anything.
func (w *world) meet(n *node, r *rand.Rand) {
	near := w.neighbours(n)
	if len(near) == 0 {
		return
	}
	from := near[r.IntN(len(near))]
	if chance(r, 0.3) {
		from = w.elect(n, near)
	}
	if !greet(n, from) {
		return
	}
	m := from.heads()
	if m == nil || n.broken {
		return
	}
	want := n.hear(from, m)
	if chance(r, 0.5) {
		want = append(want, n.wants(m)...)
	} else {
		for _, i := range r.Perm(len(w.feeds))[:1+r.IntN(len(w.feeds))] {
			if w.feeds[i].Device != n.dev && n.takes(w.feeds[i]) {
				want = append(want, w.feeds[i])
			}
		}
	}
	w.pull(n, from, want)
}

// elect chooses a donor as the product does.
func (w *world) elect(n *node, near []*node) *node {
	var list []backfill.Candidate
	by := map[int]*node{}
	for _, m := range near {
		settled := 0
		for _, st := range m.st.States() {
			if st.Settled != nil && !st.Settled.IsGenesis() {
				settled++
			}
		}
		c := backfill.Candidate{Device: m.dev, Online: true, Complete: float64(settled) / float64(len(w.feeds)), Failed: n.failures[m.i]}
		by[len(list)] = m
		list = append(list, c)
	}
	won := backfill.Elect(w.now, list)[0]
	for i, c := range list {
		if c == won {
			return by[i]
		}
	}
	w.fail("ELECT", n, "the winner is no candidate")
	return nil
}

// pull starts a session in which a pulls from b.
func (w *world) pull(a, b *node, want []feed.ID) {
	if len(want) == 0 || a.broken || b.broken {
		return
	}
	for _, id := range want {
		if a.lazy(id) {
			w.fail("LAZY", a, "%s is pulled, which is followed by head only", w.feedName(id))
		}
	}
	l := &link{w: w, a: a, b: b}
	sa, sb := l.ends()
	session := w.session()
	w.log("session", a, uint64(b.i), uint64(len(want)))
	w.spawn(a, l, func() {
		conn := protocol.NewConn(sa, protocol.ConnConfig{Device: b.dev, Session: session, Protocol: protocol.BackfillProtocol})
		refused, err := a.puller.Run(conn, session, want)
		a.judge(l, err)
		conn.End(err)
		delete(a.keep, session)
		if err != nil || b.refuses {
			a.failures[b.i] = w.now
		}
		for _, err := range refused {
			w.refused(a, err)
		}
	})
	w.spawn(b, l, func() {
		conn := protocol.NewConn(sb, protocol.ConnConfig{Device: a.dev, Session: session, Protocol: protocol.BackfillProtocol})
		err := b.server.Serve(conn)
		b.judge(l, err)
		conn.End(err)
	})
}

// greet exchanges the hybrid clocks and the certificates of two nodes, as their hellos do, and reports
// whether each then lets the other in.
func greet(a, b *node) bool {
	x, y := a.clock.Last(), b.clock.Last()
	a.see(y)
	b.see(x)
	if !a.w.belonging {
		return true
	}
	c, d := a.certs, b.certs
	a.learn(d)
	b.learn(c)
	return a.lets(b.dev) && b.lets(a.dev)
}

// refused counts why feeds were not pulled.
func (w *world) refused(n *node, err error) {
	var no *backfill.RefusedError
	switch {
	case errors.As(err, &no):
		w.reach("refused " + no.Code.Label())
	case errors.Is(err, store.ErrStale):
		w.reach("stale")
	default:
		w.reach("refused here")
	}
}

// judge fails for an error that an honest pair of nodes on a whole stream must not meet.
func (n *node) judge(l *link, err error) {
	if errors.Is(err, protocol.CodeNotMember) {
		n.w.reach("out in the middle")
		return
	}
	if err == nil || l.faulty || n.down || n.broken {
		return
	}
	var pe *protocol.Error
	if errors.As(err, &pe) && pe.Remote { // its own side is judged
		return
	}
	if n.w.rollbacks && errors.As(err, &pe) && pe.Code == protocol.CodeMismatch {
		n.w.reach("push from another history")
		return // an owner restored from a backup does not know that what the peer holds is no past of its own
	}
	n.ought(err)
}

// push lets n push a feed to a neighbour from where that is, or from anywhere in the feed's past.
func (w *world) push(n *node, r *rand.Rand) {
	near := w.neighbours(n)
	if len(near) == 0 {
		return
	}
	to := near[r.IntN(len(near))]
	id := w.feeds[r.IntN(len(w.feeds))]
	if chance(r, 0.6) {
		id = feed.ID{Device: n.dev}
		if chance(r, 0.5) {
			id = w.location(n.dev)
		}
	}
	held, ok := n.sender(to).Held(id)
	if past := w.history[id]; (!ok || chance(r, 0.3)) && len(past) > 0 {
		held, ok = past[max(0, len(past)-1-r.IntN(6))], true
	}
	if !ok {
		held = feed.Head{Feed: id}
	}
	w.reach("push")
	s := n.sender(to)
	l := &link{w: w, a: n, b: to}
	sa, sb := l.ends()
	session := w.session()
	if !greet(n, to) {
		return
	}
	w.spawn(n, l, func() {
		conn := protocol.NewConn(sa, protocol.ConnConfig{Device: to.dev, Session: session, Protocol: protocol.StateBatchProtocol})
		err := s.Push(conn, id, held)
		if errors.Is(err, store.ErrUnknownFeed) {
			err = nil
		}
		n.judge(l, err)
		conn.End(err)
	})
	w.spawn(to, l, func() {
		conn := protocol.NewConn(sb, protocol.ConnConfig{Device: n.dev, Session: session, Protocol: protocol.StateBatchProtocol})
		err := to.pushed.Serve(conn)
		to.judge(l, err)
		conn.End(err)
	})
}

// replay delivers a push once more, as stale and as late as may be.
func (w *world) replay(r *rand.Rand) {
	b := w.batches[r.IntN(len(w.batches))]
	if b.to.gone || b.to.broken || b.m.Next.Feed.Device == b.to.dev && chance(r, 0.9) {
		return
	}
	w.reach("push replayed")
	w.spawn(b.to, &link{w: w, a: b.to, b: w.nodeOf(b.from)}, func() {
		ack, err := b.to.pushed.Receive(b.from, b.m)
		if errors.Is(err, protocol.CodeNotMember) {
			w.reach("push of a removed device")
		} else if err != nil {
			b.to.ought(err)
		} else if ack.Head != (feed.Head{}) {
			b.to.published(ack.Head)
		}
	})
}

func (w *world) nodeOf(d [32]byte) *node {
	for _, n := range w.nodes {
		if n.dev == d {
			return n
		}
	}
	return nil
}

// gossip sends heads that arrive some time, and delivers others.
func (w *world) gossip(n *node, r *rand.Rand) {
	near := w.neighbours(n)
	if len(near) > 0 && len(w.hints) < 16 {
		if m := n.heads(); m != nil {
			w.hints = append(w.hints, hint{n, near[r.IntN(len(near))], m})
		}
	}
	if len(w.hints) == 0 {
		return
	}
	i := r.IntN(len(w.hints))
	h := w.hints[i]
	if chance(r, 0.7) {
		w.hints = append(w.hints[:i], w.hints[i+1:]...)
	}
	if h.to.gone || h.to.broken {
		return
	}
	w.reach("hint")
	if absorb := h.to.hear(h.from, h.m); len(absorb) > 0 && w.connected(h.to, h.from) {
		w.pull(h.to, h.from, absorb)
	}
}
