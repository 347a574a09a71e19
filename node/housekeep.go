package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/record"
	"peerdex/store"
)

const (
	measureEvery = 5 * time.Second
	refreshEvery = time.Minute // without a change: registers of a fast clock win when their time comes
	tidyEvery    = time.Hour
	collectEvery = time.Hour
	collectLeast = 1000 // tombstones of a location before collecting them pays
)

// keepUp reacts to every durable change of heads and registers.
func (n *Node) keepUp(ctx context.Context) error {
	wake, cancel := n.store.Watch()
	defer cancel()
	again := time.NewTicker(refreshEvery)
	defer again.Stop()
	var seen map[feed.ID]place
	for {
		now := n.deviceFeeds()
		if !maps.Equal(seen, now) || n.strayed() {
			seen = now
			if err := n.refresh(); err != nil {
				return err
			}
		}
		n.wake()
		select {
		case <-wake:
		case <-again.C:
			seen = nil
		case <-ctx.Done():
			return nil
		}
	}
}

// strayed reports whether the store holds a feed that is not followed, or entries of one that is followed by
// head only: a pull under way when its location
// went may have brought it back, or a push was faster than the news of it.
func (n *Node) strayed() bool {
	states := n.store.States()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, st := range states {
		if !n.follow[st.Feed] && st.Feed.Device != n.self || n.fetchOf(st.Feed) == FetchLazy && holdsAny(st) {
			return true
		}
	}
	return false
}

// deviceFeeds returns how far each device feed is: registers change only with one of them.
func (n *Node) deviceFeeds() map[feed.ID]place {
	out := map[feed.ID]place{}
	for _, st := range n.store.States() {
		if !st.Feed.IsDevice() {
			continue
		}
		at := place{settled: st.Settled != nil, seq: st.Floor.Seq, count: st.Count}
		if st.Cursor != nil {
			at.cursor = st.Cursor.Seq
		}
		out[st.Feed] = at
	}
	return out
}

// place is how far a feed is, as far as its registers depend on it.
type place struct {
	settled            bool
	seq, count, cursor uint64
}

// housekeep measures, publishes changed addresses and closes the pairing window.
func (n *Node) housekeep(ctx context.Context) error {
	addrs, err := n.host.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated))
	if err != nil {
		return fmt.Errorf("watch own addresses: %w", err)
	}
	defer addrs.Close()
	listens := n.addrs()
	measure, invites, tidy := time.NewTicker(measureEvery), time.NewTimer(0), time.NewTicker(tidyEvery)
	defer measure.Stop()
	defer invites.Stop()
	defer tidy.Stop()
	for {
		var err error
		select {
		case <-addrs.Out():
			at := n.addrs()
			if bytes.Equal(at, listens) {
				continue
			}
			listens = at
			n.kickAll()       // another network: what could not be reached before may be there
			if n.mayWrite() { // else introduce says it later
				err = n.store.SetRegisters(record.Register{Entity: record.Device(n.self), Field: record.FieldAddrs, Value: at})
			}
		case now := <-measure.C:
			n.measure(now)
			n.watchDisk(now)
			err = n.reviewOrphans(now)
		case <-n.window:
			invites.Reset(0)
		case now := <-invites.C:
			var next time.Duration
			next, err = n.reviewInvites(now)
			invites.Reset(next)
		case <-tidy.C:
			n.snapshots.Tidy()
			err = n.fetcher.Tidy(time.Now())
		case <-ctx.Done():
			return nil
		}
		switch {
		case errors.Is(err, store.ErrFrozen), errors.Is(err, store.ErrNoSpace): // said elsewhere; it may pass
		case err != nil && ctx.Err() == nil:
			return err
		}
	}
}

// clear takes off the disk what nobody reads any more: dropped feeds, of which a process before this one may have left
// some, and tombstones.
func (n *Node) clear(ctx context.Context) error {
	wake, cancel := n.store.Watch()
	defer cancel()
	collect := time.NewTicker(collectEvery)
	defer collect.Stop()
	for {
		err := n.inSteps(ctx, n.store.Reap)
		if err != nil {
			return err
		}
		select {
		case <-wake:
		case <-collect.C:
			err = n.collect(ctx)
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// inSteps calls step until nothing more is left to do. Nobody waits for that: each step is made durable, so that the
// disk has little at a time to write, and afterwards there is rest for as long as it took.
func (n *Node) inSteps(ctx context.Context, step func() (more bool, err error)) error {
	for more := true; more && ctx.Err() == nil; {
		start := time.Now()
		var err error
		if more, err = step(); err == nil {
			err = n.store.Sync()
		}
		switch {
		case errors.Is(err, store.ErrNoSpace), errors.Is(err, store.ErrFrozen): // said elsewhere; the next call goes on
			return nil
		case err != nil:
			return err
		}
		wait(ctx, time.Since(start))
	}
	return nil
}

// collect drops the tombstones of own locations where they have become many (rule 3).
func (n *Node) collect(ctx context.Context) error {
	for _, st := range n.store.States() {
		counts := n.store.Counts(st.Feed)
		if st.Feed.Device != n.self || st.Feed.IsDevice() || st.Settled == nil ||
			counts.Tombstones < collectLeast || counts.Tombstones < st.Count/4 {
			continue
		}
		err := n.inSteps(ctx, func() (more bool, err error) {
			h, err := n.store.Collect(st.Feed, st.Settled.Seq)
			return h.GC < st.Settled.Seq, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// watchDisk pauses sync and indexing while the disk is almost full, and says so once.
func (n *Node) watchDisk(now time.Time) {
	err := n.store.Room()
	if err != nil && !errors.Is(err, store.ErrNoSpace) {
		n.log.Warn("free space not known", "err", err)
		return
	}
	n.mu.Lock()
	was := n.full
	n.full = err != nil
	switch {
	case was == n.full:
	case n.full:
		n.endPaused(err)
	default: // what failed for want of room need not wait
		n.unloaded = failedLoad{}
		maps.DeleteFunc(n.retries, func(k retryKey, _ retry) bool { return k.donor == anyDonor })
	}
	n.mu.Unlock()
	if was == (err != nil) {
		return
	}
	n.wake()
	if err != nil {
		n.metrics.Error("database", "", err.Error(), now)
		n.events.Add(eventlog.DiskLow{FreeBytes: int64(n.store.Free()), NeedBytes: store.MinFree})
		n.log.Error("the disk is almost full: nothing is recorded", "err", err)
	}
}

// measure brings the gauges up to date that nothing else moves when it happens.
func (n *Node) measure(now time.Time) {
	n.metrics.HLC(n.clock.Drift(), n.clock.Last().Counter())
	if lsm, log, err := n.store.Size(); err != nil {
		n.log.Warn("size of the store not known", "err", err)
	} else {
		n.metrics.StoreSize(lsm, log)
	}
	states := map[feed.ID]feed.State{}
	var (
		entries, registers, tombstones uint64
		orphans, folders, stuck        int // stuck: orphans of settled feeds, for which nothing more is to come
		files                          = map[record.DeviceID]store.Counts{}
	)
	for _, st := range n.store.States() {
		states[st.Feed] = st
		c := n.store.Counts(st.Feed)
		entries += c.Files + c.Dirs
		registers += c.Registers
		tombstones += c.Tombstones
		o := n.catalog.Orphans(st.Feed)
		orphans, folders = orphans+o.Entries, folders+o.Folders
		if st.Settled != nil {
			stuck += o.Entries
		}
		sum := files[st.Feed.Device]
		sum.Files, sum.Bytes = sum.Files+c.Files, sum.Bytes+c.Bytes
		files[st.Feed.Device] = sum
	}
	n.metrics.CatalogRecords("entry", int(entries))
	n.metrics.CatalogRecords("register", int(registers))
	n.metrics.CatalogTombstones(int(tombstones))
	n.metrics.StuckChanges(orphans, folders)
	if stuck > 0 && stuck != n.waited {
		n.events.Add(eventlog.StuckDependencies{TotalWaitingUpdates: int64(stuck), Phase: n.stateNow()})
	}
	n.waited = stuck
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range slices.Concat(n.set.Members()) {
		n.metrics.CatalogFiles(d.Short(), int(files[d].Files), int64(files[d].Bytes))
		if st := states[feed.ID{Device: d}]; st.Settled != nil && !st.Settled.IsGenesis() {
			n.metrics.Watermark(d.Short(), "shared", st.Settled.Stamp.Time())
		}
		var newest time.Time
		for id, st := range states {
			if id.Device == d && !id.IsDevice() && st.Settled != nil && !st.Settled.IsGenesis() && st.Settled.Stamp.Time().After(newest) {
				newest = st.Settled.Stamp.Time()
			}
		}
		if !newest.IsZero() {
			n.metrics.Watermark(d.Short(), "state", newest)
		}
		if p := n.peers[d]; p != nil && p.told {
			in, out := n.lags(p, states)
			n.metrics.Lag(d.Short(), in, out)
			for id, info := range p.heads {
				st := states[id]
				if st.Settled == nil || info.Settled == nil || st.Settled.Seq != info.Settled.Seq {
					continue
				}
				if st.Settled.Same(*info.Settled) && n.compared[compareKey{d, id}] != st.Settled.Seq {
					n.compared[compareKey{d, id}] = st.Settled.Seq
					n.metrics.DigestCheck(d.Short(), "match")
				}
			}
		}
	}
}

// compareKey names a comparison of Merkle roots with a peer.
type compareKey struct {
	device record.DeviceID
	feed   feed.ID
}
