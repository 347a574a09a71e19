// Package node puts the parts together: one device's store, host, sessions with its peers, indexer and
// event log. It decides when to dial, whom to pull from and which state the node is in; what those
// decisions are made of lies in link.go and state.go, as functions of time and input.
package node

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
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
	"peerdex/statebatch"
	"peerdex/store"
)

// Config tunes a Node. Home is required.
type Config struct {
	Home    string                // the device's data folder
	Name    string                // of this device; empty: what it was called before, else the host name
	Listen  []multiaddr.Multiaddr // nil: every interface, TCP and QUIC
	Pubsub  bool                  // gossip heads on pubsub as hints; everything works without
	Rescan  time.Duration         // between two full scans of a location; 0 means an hour
	Version string                // of the program
	Log     *slog.Logger          // nil discards
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
	host    host.Host
	metrics *metrics.Metrics
	events  *eventlog.Log
	indexer *catalog.Indexer
	catalog *catalog.Catalog

	puller   *backfill.Puller
	server   *backfill.Server
	receiver *statebatch.Receiver
	serving  chan struct{} // one token for each pull being served

	look   chan struct{} // capacity 1: something changed that sync may have to act on
	reload chan struct{} // capacity 1: rewritten holds locations
	redial chan struct{} // capacity 1: a peer may be due for dialing
	window chan struct{} // capacity 1: the pairing window has moved
	stop   chan struct{} // closed when a person asks the node to end
	ending sync.Once
	asked  chan struct{} // closed once this device may write its own feeds: at once, unless the store was rolled back

	refreshing sync.Mutex // held while registers are read and what they say is put in place; taken before mu
	deciding   sync.Mutex // held from a decision on the state until it is told; taken before mu

	mu       sync.Mutex // guards what follows; never held during a transaction or on the network
	root     ed25519.PrivateKey
	lib      belonging
	set      member.Set
	follow   map[feed.ID]bool
	peers    map[record.DeviceID]*peer
	phase    phase
	paused   pause
	pulls    map[record.DeviceID]*pulling // by donor
	retries  map[retryKey]retry
	orphans  map[feed.ID]bool      // feeds that nobody alive can complete: they may settle below their floor
	forked   map[feed.ID]feed.Head // heads that contradict another at the same seq
	stuck    map[feed.ID]time.Time // since when a feed has been unsettled with nobody to complete it
	compared map[compareKey]uint64 // seq at which Merkle roots were last compared
	label    string                // what this device is called
	full     bool                  // the disk is almost full

	rewritten map[record.LocationID]bool        // own locations that something else than the indexer wrote
	invited   time.Time                         // until when an invite is open
	joining   map[record.DeviceID]chan struct{} // devices being joined; closed when that is through
}

// serveLimit is how many pulls one node serves at a time; more are told to come back.
const serveLimit = 8

// Open opens the home folder, its store and the host, and makes the library if there is none. Whoever
// opens a node closes it. Errors are *Problem where a person can do something about them.
func Open(cfg Config) (*Node, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{
		cfg: cfg, home: home(cfg.Home), started: time.Now(), log: cfg.Log,
		serving: make(chan struct{}, serveLimit), look: make(chan struct{}, 1), reload: make(chan struct{}, 1),
		redial: make(chan struct{}, 1), window: make(chan struct{}, 1), stop: make(chan struct{}), asked: make(chan struct{}),
		joining: map[record.DeviceID]chan struct{}{}, peers: map[record.DeviceID]*peer{}, pulls: map[record.DeviceID]*pulling{}, retries: map[retryKey]retry{},
		follow: map[feed.ID]bool{}, orphans: map[feed.ID]bool{}, forked: map[feed.ID]feed.Head{}, stuck: map[feed.ID]time.Time{},
		compared: map[compareKey]uint64{}, rewritten: map[record.LocationID]bool{},
	}
	if err := n.open(); err != nil {
		return nil, errors.Join(problemOf(err), n.Close())
	}
	return n, nil
}

// open does everything that can fail. What it opened is there to close, whether it
// succeeds or not.
func (n *Node) open() (err error) {
	if err := n.home.open(); err != nil {
		return err
	}
	_, belongs, err := n.home.loadLibrary()
	if err != nil {
		return err
	}
	if n.key, err = n.home.key("identity.key", !belongs); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is gone: without it this is not the device that the library knows", errDamaged, n.home.path("identity.key"))
	} else if err != nil {
		return err
	}
	n.self = record.DeviceID(n.key.Public().(ed25519.PublicKey))
	var boot [8]byte
	rand.Read(boot[:])
	n.boot = binary.BigEndian.Uint64(boot[:]) | 1 // zero means none
	if err := n.openLibrary(); err != nil {
		return err
	}
	n.metrics = metrics.New(metrics.Config{Device: n.self.Short(), Version: n.cfg.Version, Revision: revision()})
	if err := n.openStore(); err != nil {
		return err
	}
	n.events, err = eventlog.Open(n.store, eventlog.Config{
		Device: idText(n.self), Boot: fmt.Sprintf("%016x", n.boot), Clock: n.clock, Metrics: n.metrics,
	})
	if err != nil {
		return err
	}
	if err := n.openHost(); err != nil {
		return err
	}
	n.wire()
	if err := n.finishMove(); err != nil {
		return err
	}
	if err := n.readName(); err != nil {
		return err
	}
	if !n.store.RolledBack() { // else peers are asked first
		close(n.asked)
		if err := n.introduce(); err != nil {
			return err
		}
	}
	return n.refresh()
}

// openLibrary loads the library this home belongs to, or makes one.
func (n *Node) openLibrary() error {
	lib, ok, err := n.home.loadLibrary()
	if err != nil {
		return err
	}
	if n.root, err = n.home.key("root.key", !ok); err != nil && (!ok || !errors.Is(err, os.ErrNotExist)) {
		return err
	}
	if !ok {
		lib = n.found()
		if err := n.home.saveLibrary(lib); err != nil {
			return err
		}
	}
	n.lib = lib
	if n.root != nil && !n.root.Public().(ed25519.PublicKey).Equal(lib.root) {
		n.root = nil // of the library this device left: it was cut off while moving
		return n.home.remove("root.key")
	}
	return nil
}

// finishMove signs own feeds for the library this home belongs to, if the device was cut off while it
// moved there: everybody refuses a head of another library.
func (n *Node) finishMove() error {
	for _, st := range n.store.States() {
		if st.Feed.Device == n.self && st.Settled != nil && st.Settled.Library != n.lib.id && !n.store.Frozen() {
			return n.store.Rebase(n.lib.id)
		}
	}
	return nil
}

func (n *Node) openStore() (err error) {
	if n.marker, err = store.OpenMarker(n.home.path("marker")); err != nil {
		return err
	}
	n.store, err = store.Open(n.home.path("store"), store.Config{
		Device: n.self, Library: n.lib.id, Boot: n.boot, Marker: n.marker, Metrics: n.metrics, Log: n.log,
		Sign:  func(h feed.Head) feed.Head { return h.Sign(n.key) },
		Clock: func() (hlc.Stamp, error) { return n.clock.Now() },
		Observe: func(s hlc.Stamp) {
			if err := n.clock.Observe(s); err != nil && !errors.Is(err, hlc.ErrDrift) {
				n.log.Error("clock not moved on", "err", err)
			}
		},
	})
	if err != nil {
		return err
	}
	n.clock, err = n.home.clock()
	return err
}

// Ports that are tried where nobody says where to listen. What was taken once is taken again, so that
// other devices find this one after a restart.
const (
	firstPort = 4001
	lowPort   = 20000 // below what systems hand out for outgoing connections
	highPort  = 32000
	portTries = 20
)

func (n *Node) openHost() (err error) {
	n.gater = new(protocol.Gater)
	cfg := protocol.HostConfig{Key: n.key, Gater: n.gater, Listen: n.cfg.Listen, Version: n.cfg.Version}
	if cfg.Listen != nil {
		n.host, err = protocol.NewHost(cfg)
		return err
	}
	saved, err := n.home.port()
	if err != nil {
		return err
	}
	cfg.Port = cmp.Or(saved, firstPort)
	for try := 0; ; try++ {
		if n.host, err = protocol.NewHost(cfg); err == nil {
			break
		}
		if !errors.Is(err, syscall.EADDRINUSE) || try == portTries {
			return err
		}
		cfg.Port = lowPort + mathrand.N(highPort-lowPort)
	}
	if cfg.Port == saved {
		return nil
	}
	return n.home.write("port", fmt.Appendln(nil, cfg.Port))
}

// wire connects the parts that this package composes.
func (n *Node) wire() {
	n.puller = &backfill.Puller{
		Store: n.store, Shape: feed.DefaultShape, Boot: n.boot, Notes: pullNotes{n}, Now: time.Now,
		Rescan: n.reindex, Orphaned: n.orphaned,
	}
	n.server = &backfill.Server{Store: n.store, Notes: pullNotes{n}, Admit: n.admit}
	n.receiver = &statebatch.Receiver{Store: n.store, Notes: pushNotes{n}, Now: time.Now, Follows: n.accepts,
		Paused: func(d record.DeviceID) bool { return n.admit(d) != nil },
	}
	n.catalog = catalog.New(n.store)
	n.indexer = catalog.NewIndexer(n.store, catalog.Config{
		Device: n.self, Home: string(n.home), RescanEvery: n.cfg.Rescan, Metrics: n.metrics, Events: scanNotes{n}, Log: n.log,
	})
}

// readName finds out what this device is called.
func (n *Node) readName() error {
	name := n.cfg.Name
	if name == "" {
		if old, ok, err := n.store.Register(record.Device(n.self), record.FieldName); err != nil {
			return err
		} else if ok {
			name = string(old.Value)
		} else if name, err = os.Hostname(); err != nil {
			name = "device"
		}
	}
	n.mu.Lock()
	n.label = name
	n.mu.Unlock()
	return nil
}

// introduce writes this device's own registers: who it is, where it listens, why it is a member. A frozen
// device stays as it introduced itself before.
func (n *Node) introduce() error {
	n.mu.Lock()
	name, certs, root := n.label, n.lib.certs, n.root
	n.mu.Unlock()
	me := record.Device(n.self)
	regs := []record.Register{
		{Entity: me, Field: record.FieldName, Value: []byte(name)},
		{Entity: me, Field: record.FieldSystem, Value: []byte(runtime.GOOS)},
		{Entity: me, Field: record.FieldVersion, Value: []byte(n.cfg.Version)},
		{Entity: me, Field: record.FieldAddrs, Value: n.addrs()},
	}
	for _, c := range certs {
		if c.Subject == n.self && root != nil { // everybody else's is in the feed of whoever invited it
			regs = append(regs, c.Register())
		}
	}
	if err := n.store.SetRegisters(regs...); err != nil && !errors.Is(err, store.ErrFrozen) { // a frozen device still serves
		return fmt.Errorf("write own registers: %w", err)
	}
	return n.store.Sync()
}

// Run lives until ctx ends or a person asks the node to stop (nil), or something fails that the node
// cannot go on without. Everything it started has returned when it returns.
func (n *Node) Run(ctx context.Context) error {
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
	g.Go(func() error { return n.syncStore(ctx) })
	g.Go(func() error { return n.keepUp(ctx) })
	g.Go(func() error { return n.dialPeers(ctx) })
	g.Go(func() error { return n.pullFeeds(ctx) })
	g.Go(func() error { return n.housekeep(ctx) })
	g.Go(func() error { return n.index(ctx) })
	g.Go(func() error { return n.reloadRewritten(ctx) })
	if n.cfg.Pubsub {
		g.Go(func() error { return n.gossip(ctx) })
	}
	g.Go(func() error {
		select {
		case <-n.stop:
			cancel()
		case <-ctx.Done():
		}
		return nil
	})
	err := g.Wait()
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
	if n.store != nil {
		errs = append(errs, n.store.Close())
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
			return err // an fsync that failed cannot be trusted again
		}
		if !wait(ctx, syncInterval) {
			return nil
		}
	}
}

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
				n.log.Warn("location not scanned after a rollback", "location", id, "err", err)
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

// Look makes sync look again: something was committed elsewhere, or a push did not fit.
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
	}
	return cfg
}

const pushIdle = 30 * 24 * time.Hour

// admit lets a pull in, unless sync is paused with everybody or with that device.
func (n *Node) admit(d record.DeviceID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pausedFor(d) {
		return protocol.CodePaused
	}
	return nil
}

func (n *Node) serveBackfill(_ context.Context, c *protocol.Conn) error {
	select {
	case n.serving <- struct{}{}:
		defer func() { <-n.serving }()
	default:
		return protocol.CodeBusy
	}
	return n.server.Serve(c)
}
