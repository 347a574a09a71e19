package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"peerdex/catalog"
	"peerdex/record"
	"peerdex/store"
)

// index runs the indexer, of a store that was rolled back only after peers were asked: what they hold of
// this device's feeds is taken back before the first write, or it would hide below what is written.
func (n *Node) index(ctx context.Context) error {
	if !n.mayWrite() {
		n.awaitPeers(ctx)
		if ctx.Err() != nil {
			return nil
		}
		close(n.asked)
		if err := errors.Join(n.readName(), n.introduce(), n.refresh()); err != nil { // the name may have come back
			return err
		}
	}
	for {
		err := n.indexer.Run(ctx)
		if !errors.Is(err, store.ErrNoSpace) && !errors.Is(err, store.ErrFrozen) {
			return err
		}
		if errors.Is(err, store.ErrFrozen) { // only a person can mend that
			<-ctx.Done()
		}
		for errors.Is(n.store.Room(), store.ErrNoSpace) && wait(ctx, measureEvery) {
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// reindex makes the indexer read a location again that something else wrote. It does not wait for that.
func (n *Node) reindex(id record.LocationID) {
	n.mu.Lock()
	n.rewritten[id] = true
	n.mu.Unlock()
	select {
	case n.reload <- struct{}{}:
	default:
	}
}

func (n *Node) reloadRewritten(ctx context.Context) error {
	for {
		select {
		case <-n.reload:
		case <-ctx.Done():
			return nil
		}
		n.mu.Lock()
		ids := slices.Collect(maps.Keys(n.rewritten))
		clear(n.rewritten)
		n.mu.Unlock()
		for _, id := range ids {
			if err := n.indexer.Reload(ctx, id); err != nil && ctx.Err() == nil && !errors.Is(err, catalog.ErrStopped) {
				n.log.Warn("location not scanned after a rollback", "location", n.folder(id).Name, "err", err)
			}
		}
	}
}

// peersGrace is how long a node whose store is older than its marker waits to hear from a peer before
// its first write (docs/replication.md, marker).
const peersGrace = 10 * time.Second

// awaitPeers waits for peersGrace until a peer has told its heads and nothing is left to take back from
// anybody; what is being taken back by then is waited for.
func (n *Node) awaitPeers(ctx context.Context) {
	until := time.Now().Add(peersGrace)
	for n.takingBack() || time.Now().Before(until) && n.awaitsAnyone() {
		if !wait(ctx, 100*time.Millisecond) {
			return
		}
	}
}

// mayWrite reports whether this device may write its own feeds of itself.
func (n *Node) mayWrite() bool {
	select {
	case <-n.asked:
		return true
	default:
		return false
	}
}
