package node

import (
	"cmp"
	"slices"
	"time"

	"peerdex/eventlog"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/snapshot"
)

// handing is a transfer to another device. Node.mu guards it.
type handing struct {
	handKey
	session  protocol.SessionID
	progress progress
}

// handKey tells transfers to other devices apart: each device pulls once at a time.
type handKey struct {
	to       record.DeviceID
	strategy string // pages or snapshot
}

// hands notes what happens in a transfer to another device, and tells of it where that is due.
func (n *Node) hands(k handKey, session protocol.SessionID, note func(p *progress, now time.Time)) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.handing[k]
	if h == nil || h.session != session {
		h = &handing{handKey: k, session: session, progress: newProgress(PhaseLoading, 0, now)}
		n.handing[k] = h
	}
	note(&h.progress, now)
	if h.progress.due(n.cfg.Thresholds.Bulk, now) {
		n.events.Add(h.progress.view(now).event("out", k.strategy), h.about()...)
	}
}

// handed ends a transfer, whether all that was asked for has gone or not.
func (n *Node) handed(k handKey) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.handing[k]
	delete(n.handing, k)
	if h != nil && h.progress.left == 0 && !h.progress.told.IsZero() {
		n.events.Add(h.progress.over(now).event("out", k.strategy), h.about()...)
	}
}

func (h *handing) about() []eventlog.Option {
	return []eventlog.Option{eventlog.Session(h.session), eventlog.Peer(idText(h.to))}
}

// handsChunks takes how far a snapshot is that another device fetches.
func (n *Node) handsChunks(session protocol.SessionID, to record.DeviceID, now snapshot.Progress) {
	n.hands(handKey{to, StrategySnapshot}, session, func(p *progress, at time.Time) { p.snapshot(now, at) })
}

// handingViews are the transfers to other devices; n.mu is held.
func (n *Node) handingViews(now time.Time) []SessionView {
	out := []SessionView{}
	for k, h := range n.handing {
		out = append(out, SessionView{
			ID: eventlog.ID(h.session).String(), Kind: "serving", Device: idText(k.to), Name: n.nameOf(k.to),
			Started: h.progress.began, Strategy: k.strategy, Progress: h.progress.view(now),
		})
	}
	slices.SortFunc(out, func(a, b SessionView) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
