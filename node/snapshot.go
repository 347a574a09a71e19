package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/kv"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/snapshot"
	"peerdex/store"
)

// planSnapshot decides whether p is to fetch a snapshot; n.mu is held. Device feeds come before, by pages: they say
// which locations there are, and who is a member. What has begun to come by pages goes on by pages.
func (n *Node) planSnapshot(p *pulling, now time.Time) {
	var shared, fresh []feed.ID
	for _, id := range p.feeds {
		switch st, _ := n.store.State(id); {
		case id.IsDevice():
			shared = append(shared, id)
		case id.Device != n.self && st.Floor.IsGenesis() && st.Count == 0:
			fresh = append(fresh, id)
		}
	}
	held := uint64(0)
	for id := range n.follow {
		if id.Device != n.self && !id.IsDevice() {
			st, _ := n.store.State(id)
			held += st.Count
		}
	}
	lacks := uint64(0)
	for _, l := range n.lacksOf(fresh, p.donor) {
		lacks += l
	}
	yes, why := snapshot.Decide(held, lacks, n.cfg.Thresholds.Snapshot, n.peers[p.donor].snapshots, now)
	switch {
	case !yes:
	case len(shared) > 0:
		p.feeds = shared
	default:
		p.feeds, p.snapshot = fresh, &snapshotPull{why: why}
	}
}

// snapshotPull is a snapshot on its way.
type snapshotPull struct{ why string }

// takeSnapshot carries out one session that fetches a snapshot. It blocks.
func (n *Node) takeSnapshot(ctx context.Context, p *pulling) error {
	n.noteSnapshotChosen(p)
	began := time.Now()
	out, err := n.fetchSnapshot(ctx, p)
	if errors.Is(err, store.ErrHeld) { // came by another way meanwhile
		err = nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	n.noteSnapshotEnded(p, out, err, time.Since(began))
	return err
}

func (n *Node) fetchSnapshot(ctx context.Context, p *pulling) (snapshot.Taken, error) {
	release, err := n.reserve(protocol.UseSnapshot, snapshot.TakeMemory)
	if err != nil {
		return snapshot.Taken{}, err
	}
	defer release()
	cfg := n.connConfig(p.donor, protocol.SnapshotProtocol)
	cfg.Session = p.id
	open, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := protocol.Dial(open, n.host, p.donor, protocol.SnapshotProtocol, cfg)
	if err != nil {
		return snapshot.Taken{}, err
	}
	defer conn.Bind(ctx)()
	n.watch(p, conn)
	wanted := map[feed.ID]bool{}
	for _, id := range p.feeds {
		wanted[id] = true
	}
	taker := n.taker()
	taker.Wants = func(id feed.ID) bool { return wanted[id] }
	taker.Admit = func() (uint64, error) { return n.membership(p.donor) }
	taker.Within = func(tx kv.Tx, loaded []store.Loaded) error { return n.noteLoaded(tx, p, loaded) }
	taker.Progress = func(now snapshot.Progress) { n.noteSnapshotProgress(p, now) }
	out, err := n.fetcher.Run(ctx, conn, p.id, taker, func(snapshot.Manifest) {})
	conn.End(err)
	return out, err
}

// taker is what brings a snapshot into this device's store, from wherever it comes.
func (n *Node) taker() *snapshot.Taker {
	return &snapshot.Taker{Store: n.store, Library: n.library(), Shape: feed.DefaultShape, Progress: func(snapshot.Progress) {}}
}

// author is who signs snapshots made here.
func (n *Node) author() snapshot.Author {
	return snapshot.Author{
		Library: n.library(), Device: n.self,
		Sign: func(b []byte) []byte { return ed25519.Sign(n.key, b) },
	}
}

func (n *Node) library() feed.LibraryID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lib.id
}

// serveSnapshot hands out a snapshot, one pull among those being served.
func (n *Node) serveSnapshot(ctx context.Context, c *protocol.Conn) error {
	select {
	case n.serving <- struct{}{}:
		defer func() { <-n.serving }()
	default:
		return protocol.CodeBusy
	}
	release, err := n.reserve(protocol.UseServe, snapshot.ServeMemory)
	if err != nil {
		return err
	}
	defer release()
	defer n.handed(handKey{c.Device(), StrategySnapshot})
	return n.snapshots.Serve(ctx, c)
}

// holds reports whether a feed belongs into a snapshot made here.
func (n *Node) holds(id feed.ID) bool { return id.Device == n.self || n.follows(id) }

func (n *Node) snapshotServed(session protocol.SessionID, to record.DeviceID, chunks int, bytes int64) {
	n.events.AddBatch(eventlog.Tally{
		Type: eventlog.BackfillResponseSent{}.Type(), Peer: idText(to), Session: eventlog.ID(session), Reason: "snapshot", Bytes: int(bytes),
	})
}
