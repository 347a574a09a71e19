// Package node puts the parts together: one device's store, host, sessions with its peers, indexer and
// event log. It decides when to dial, whom to pull from and which state the node is in; what those
// decisions are made of lies in link.go and state.go, as functions of time and input.
package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	"peerdex/backfill"
	"peerdex/catalog"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/member"
	"peerdex/metrics"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/snapshot"
	"peerdex/statebatch"
	"peerdex/store"
)

// Config tunes a Node. Home is required.
type Config struct {
	Home       string                // the device's data folder
	Name       string                // of this device; empty: what it was called before, else the host name
	Listen     []multiaddr.Multiaddr // nil: every interface, TCP and QUIC
	Pubsub     bool                  // gossip heads on pubsub as hints; everything works without
	MDNS       bool                  // announce this device on the local network and look for members there
	Rescan     time.Duration         // between two full scans of a location; 0 means an hour
	Thresholds Thresholds            // by how much that is lacking a strategy is chosen
	Version    string                // of the program
	Log        *slog.Logger          // nil discards
	Now        func() time.Time      // nil: time.Now; the wall clock that other devices see: of stamps and of measurements

	openStore func(dir string, cfg store.Config) (*store.Store, error) // nil: store.Open
}

// Node is one device of a library. Open makes it, Run lives it, Close ends it.
type Node struct {
	cfg     Config
	home    home
	key     ed25519.PrivateKey
	self    record.DeviceID
	boot    uint64
	started time.Time
	log     *slog.Logger

	marker  *store.MarkerFile
	store   *store.Store
	clock   *hlc.Clock
	gater   *protocol.Gater
	order   protocol.DialOrder
	host    host.Host
	metrics *metrics.Metrics
	events  *eventlog.Log
	indexer *catalog.Indexer
	catalog *catalog.Catalog

	puller    *backfill.Puller
	server    *backfill.Server
	receiver  *statebatch.Receiver
	fetcher   *snapshot.Fetcher
	snapshots *snapshot.Server
	serving   chan struct{} // one token for each pull being served
	answers   chan struct{} // one token for each question being answered

	look   chan struct{} // capacity 1: something changed that sync may have to act on
	reload chan struct{} // capacity 1: rewritten holds locations
	redial chan struct{} // capacity 1: a peer may be due for dialing
	window chan struct{} // capacity 1: the pairing window has moved
	stop   chan struct{} // closed when a person asks the node to end
	ending sync.Once
	asked  chan struct{} // closed once this device may write its own feeds: at once, unless the store was rolled back

	editing    sync.Mutex // held from the look at tags and notes until they are changed; taken before mu
	refreshing sync.Mutex // held while registers are read and what they say is put in place; taken before mu
	deciding   sync.Mutex // held from a decision on the state until it is told; taken before mu

	mu       sync.Mutex // guards what follows; never held during a transaction or on the network
	root     ed25519.PrivateKey
	lib      belonging
	set      member.Set
	facts    map[record.DeviceID]facts     // what devices say of themselves
	past     map[record.DeviceID]time.Time // last contact with devices that are out
	setAt    uint64                        // generation of the membership (store.Generation) that set was read at
	follow   map[feed.ID]bool
	peers    map[record.DeviceID]*peer
	phase    phase
	paused   pause
	pulls    map[record.DeviceID]*pulling // by donor
	handing  map[handKey]*handing         // what others pull from here
	files    map[string]int               // what is being done with snapshots in files, in words, and how often
	retries  map[retryKey]retry
	unloaded failedLoad                 // a snapshot that this device could not take
	lacks    map[feed.ID]lack           // feeds that are behind
	orphans  map[feed.ID]bool           // feeds that nobody alive can complete: they may settle below their floor
	forked   map[feed.ID]feed.Head      // heads that contradict another at the same seq
	stuck    map[feed.ID]time.Duration  // how long a feed has been unsettled while this node ran, with nobody to complete it
	reviewed time.Time                  // when stuck was last brought up to date
	waited   int                        // entries of settled feeds whose folder was not known when it was last looked; measure's own
	compared map[compareKey]uint64      // seq at which Merkle roots were last compared
	label    string                     // what this device is called
	paired   map[record.DeviceID]string // what devices were called when they paired with this one, until they say so themselves
	full     bool                       // the disk is almost full
	refused  bool                       // something is not fetched for want of room

	fetch     map[feed.ID]Fetch                 // what a person set for locations of other devices
	meters    map[feed.ID]meter                 // of metered locations
	passes    map[record.LocationID]uint64      // seq at which the last pass over an own location began
	rewritten map[record.LocationID]bool        // own locations that something else than the indexer wrote
	invited   time.Time                         // until when an invite is open
	requests  map[record.DeviceID]*request      // devices that wait for a person's approval
	joining   map[record.DeviceID]chan struct{} // devices being joined; closed when that is through
}

// serveLimit is how many pulls one node serves at a time; more are told to come back.
const serveLimit = 8

// Run lives until ctx ends or a person asks the node to stop (nil), or something fails that the node
// cannot go on without. Everything it started has returned when it returns.
func (n *Node) Run(ctx context.Context) error {
	loadNames, err := n.catalog.Follow()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, endEvents := context.WithCancel(context.WithoutCancel(ctx)) // outlives the rest, to hear of its end
	logged := make(chan error, 1)
	go func() { logged <- n.events.Run(events) }()
	n.begin()
	g, ctx := errgroup.WithContext(ctx)
	serve := func(id protocol.ID, handle func(context.Context, *protocol.Conn) error) {
		conn := func(d record.DeviceID) protocol.ConnConfig { return n.connConfig(d, id) }
		cfg := protocol.ServeConfig{Gate: n.gate(id), Conn: conn, Failed: n.streamFailed}
		g.Go(func() error { return protocol.Serve(ctx, n.host, id, cfg, handle) })
	}
	serve(protocol.SessionProtocol, n.answer)
	serve(protocol.PairProtocol, n.servePair)
	serve(protocol.StateBatchProtocol, func(_ context.Context, c *protocol.Conn) error { return n.receiver.Serve(c) })
	serve(protocol.BackfillProtocol, n.serveBackfill)
	serve(protocol.SnapshotProtocol, n.serveSnapshot)
	serve(protocol.LookupProtocol, n.serveLookup)
	g.Go(func() error { return n.syncStore(ctx) })
	g.Go(func() error { return n.keepUp(ctx) })
	g.Go(func() error { return n.dialPeers(ctx) })
	g.Go(func() error { return n.pullFeeds(ctx) })
	g.Go(func() error { return n.housekeep(ctx) })
	g.Go(func() error { return n.clear(ctx) })
	g.Go(func() error { return n.index(ctx) })
	g.Go(func() error { return loadNames(ctx) })
	g.Go(func() error { return n.reloadRewritten(ctx) })
	if n.cfg.Pubsub {
		g.Go(func() error { return n.gossip(ctx) })
	}
	if n.cfg.MDNS {
		g.Go(func() error { return protocol.FindNearby(ctx, n.host, n.log, n.sighted) })
	}
	g.Go(func() error {
		select {
		case <-n.stop:
			cancel()
		case <-ctx.Done():
		}
		return nil
	})
	err = g.Wait()
	n.end(err)
	endEvents()
	return errors.Join(err, <-logged, n.store.Sync())
}

// Close closes the host and the store. The node must not be running.
func (n *Node) Close() error {
	var errs []error
	if n.host != nil {
		errs = append(errs, n.host.Close())
	}
	if n.snapshots != nil {
		errs = append(errs, n.snapshots.Clear())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.clock != nil { // nothing is stamped any more
		errs = append(errs, n.clock.Rest())
	}
	if n.marker != nil {
		errs = append(errs, n.marker.Close())
	}
	return errors.Join(errs...)
}

// syncInterval is the least time between two fsyncs under load (rule 2).
const syncInterval = 10 * time.Millisecond

// syncStore makes what was committed durable, and so publishes it.
func (n *Node) syncStore(ctx context.Context) error {
	for {
		select {
		case <-n.store.Dirty():
		case <-ctx.Done():
			return nil
		}
		if err := n.store.Sync(); err != nil {
			n.noteStoreError("sync", err)
			return err // an fsync that failed cannot be trusted again
		}
		if !wait(ctx, syncInterval) {
			return nil
		}
	}
}

// wake makes sync look again: something was committed elsewhere, or a push did not fit.
func (n *Node) wake() {
	select {
	case n.look <- struct{}{}:
	default:
	}
}

// wait returns false if ctx ended within d.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connConfig is how a stream with d is set up. Heartbeats keep a session alive, and a push stream lives as
// long as the session beside it, however rarely something is pushed.
func (n *Node) connConfig(d record.DeviceID, id protocol.ID) protocol.ConnConfig {
	cfg := protocol.ConnConfig{Device: d, Traffic: n.metrics, Compression: n.compression(d)}
	switch id {
	case protocol.SessionProtocol:
		cfg.Idle = deadAfter
	case protocol.StateBatchProtocol:
		cfg.FirstByte, cfg.Idle = pushIdle, pushIdle
	case protocol.SnapshotProtocol:
		cfg.FirstByte, cfg.Compression = snapshotWait, protocol.Uncompressed // chunks are compressed already
	}
	return cfg
}

// snapshotWait is how long a donor may take to read all it has.
const snapshotWait = 10 * time.Minute

const pushIdle = 30 * 24 * time.Hour

// admit lets a member's pull in, unless sync is paused with everybody or with that device.
func (n *Node) admit(d record.DeviceID) error {
	if _, err := n.membership(d); err != nil {
		return err
	}
	if n.isPaused(d) {
		return protocol.CodePaused
	}
	return nil
}

func (n *Node) isPaused(d record.DeviceID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pausedFor(d)
}

func (n *Node) serveBackfill(_ context.Context, c *protocol.Conn) error {
	select {
	case n.serving <- struct{}{}:
		defer func() { <-n.serving }()
	default:
		return protocol.CodeBusy
	}
	release, err := n.reserve(protocol.UseServe, backfill.ServeMemory)
	if err != nil {
		return err
	}
	defer release()
	defer n.handed(handKey{c.Device(), StrategyPages})
	return n.server.Serve(c)
}
