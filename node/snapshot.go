package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

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
	yes, why := snapshot.Decide(held, lacks, n.cfg.Thresholds.Snapshot, n.fetcher.Kept(), n.peers[p.donor].snapshots, now)
	for d, other := range n.pulls {
		if yes && d != p.donor && other.snapshot != nil {
			yes, why = false, "another is being taken"
		}
	}
	if yes {
		yes, why = n.mayLoad(lacks, why, now)
	}
	switch {
	case !yes && lacks > n.cfg.Thresholds.Snapshot:
		p.instead = "; no snapshot: " + why
	case !yes:
	case len(shared) > 0:
		p.feeds = shared
	default:
		p.feeds, p.snapshot = fresh, &snapshotPull{why: why}
	}
}

// snapshotPull is a snapshot on its way. Its session tells of the feeds that the donor offers, from then on; of one
// that came to no offer, of all that were wanted.
type snapshotPull struct {
	why     string
	offered map[feed.ID]snapshot.Feed // of those wanted; nil: nothing yet
	chunks  int64                     // put in
}

// failedLoad is a snapshot that this device could not take, whoever gave it.
type failedLoad struct {
	at  time.Time
	err error // nil: there was none
}

// mayLoad says whether this device can take a snapshot of so many entries, for the reason given or why not; n.mu is
// held.
func (n *Node) mayLoad(entries uint64, reason string, now time.Time) (yes bool, why string) {
	room := snapshot.RoomToTake(n.store, entries)
	last, wanted := errors.AsType[*store.SpaceError](n.unloaded.err)
	switch none, full := errors.AsType[*store.SpaceError](room); {
	case full:
		return false, fmt.Sprintf("the disk has %s free, and it takes %s beside the store", humanize.Bytes(none.Free), humanize.Bytes(none.Need))
	case n.unloaded.err == nil, !now.Before(n.unloaded.at.Add(snapshot.Again)), wanted && n.store.Free() >= last.Need:
		return true, reason
	}
	return false, "this device could not take one not long ago: " + n.unloaded.err.Error()
}

// errNotOffered is what came of a snapshot that was made before its donor knew of all that is wanted.
var errNotOffered = errors.New("the donor's snapshot does not hold it")

// snapshotEnded notes what came of a snapshot from a peer, which may be gone, and reports whether pages are to come
// instead; n.mu is held.
func (n *Node) snapshotEnded(p *pulling, from *peer, err error, now time.Time) (pages bool) {
	_, lacked := errors.AsType[*store.SpaceError](err)
	switch {
	case err == context.Canceled, errors.Is(err, store.ErrStale), errors.Is(err, store.ErrLoading):
		return false
	case diskFull(err) && !lacked: // it ran full meanwhile: what came is kept, and once there is room it goes on
		return false
	case notTheirs(err):
		n.unloaded = failedLoad{now, err}
		return true
	case err == nil:
		n.unloaded = failedLoad{}
		if len(p.snapshot.offered) < len(p.feeds) {
			err = errNotOffered
		}
	}
	return from != nil && from.snapshots.Ended(err, now)
}

// takeSnapshot carries out one session that fetches a snapshot. It blocks.
func (n *Node) takeSnapshot(ctx context.Context, p *pulling) error {
	n.noteSnapshotChosen(p)
	began := time.Now()
	out, err := n.fetchSnapshot(ctx, p)
	if errors.Is(err, store.ErrHeld) { // came by another way meanwhile
		err = nil
	}
	if err != nil && ctx.Err() != nil {
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
		return snapshot.Taken{}, unopened(err)
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
	out, err := n.fetcher.Run(ctx, conn, p.id, taker, func(m snapshot.Manifest) { n.noteSnapshotOffered(p, m) })
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
