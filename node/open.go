package node

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"runtime"
	"syscall"
	"time"

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

// Open opens the home folder, its store and the host, and makes the library if there is none. Whoever
// opens a node closes it. Errors are *Problem where a person can do something about them.
func Open(cfg Config) (*Node, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.openStore == nil {
		cfg.openStore = store.Open
	}
	if err := cfg.Thresholds.Check(); err != nil {
		return nil, err
	}
	cfg.Thresholds = cfg.Thresholds.withDefaults()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Name != "" {
		if err := CheckDeviceName(cfg.Name); err != nil {
			return nil, err
		}
	}
	n := &Node{
		cfg: cfg, home: home(cfg.Home), started: time.Now(), log: cfg.Log,
		serving: make(chan struct{}, serveLimit), answers: make(chan struct{}, answerAtOnce), look: make(chan struct{}, 1), reload: make(chan struct{}, 1),
		redial: make(chan struct{}, 1), window: make(chan struct{}, 1), stop: make(chan struct{}), asked: make(chan struct{}),
		joining: map[record.DeviceID]chan struct{}{}, peers: map[record.DeviceID]*peer{}, pulls: map[record.DeviceID]*pulling{}, handing: map[handKey]*handing{}, files: map[string]int{}, retries: map[retryKey]retry{},
		follow: map[feed.ID]bool{}, orphans: map[feed.ID]bool{}, forked: map[feed.ID]feed.Head{}, stuck: map[feed.ID]time.Duration{},
		fetch: map[feed.ID]Fetch{}, meters: map[feed.ID]meter{}, passes: map[record.LocationID]uint64{},
		requests: map[record.DeviceID]*request{}, paired: map[record.DeviceID]string{}, lacks: map[feed.ID]lack{}, compared: map[compareKey]uint64{}, rewritten: map[record.LocationID]bool{},
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
	n.compose()
	if err := n.snapshots.Clear(); err != nil {
		return err
	}
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
	if !ok {
		root, err := n.home.key("root.key", true)
		if err != nil {
			return err
		}
		lib = found(n.self, root)
		if err := n.home.saveLibrary(lib); err != nil {
			return err
		}
	}
	n.lib, n.set = lib, member.Evaluate(lib.root, lib.certs)
	n.root, err = n.home.rootKey(lib)
	return err
}

// finishMove ends what the device was cut off in: leaving a library, or moving to one. Everybody refuses a
// head of another library than their own.
func (n *Node) finishMove() error {
	set, err := n.readSet()
	if err != nil {
		return err
	}
	if gone, out := set.Removed(n.self); out && gone.Kind == member.Lapse {
		return n.startAfresh()
	}
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
	n.store, err = n.cfg.openStore(n.home.path("store"), store.Config{
		Device: n.self, Library: n.lib.id, Boot: n.boot, Marker: n.marker, Metrics: n.metrics, Log: n.log, Now: n.cfg.Now,
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
	if n.clock, err = n.home.clock(n.cfg.Now); err != nil {
		return err
	}
	return errors.Join(n.loadStuck(), n.loadFetch())
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
	cfg := protocol.HostConfig{Key: n.key, Gater: n.gater, Listen: n.cfg.Listen, Version: n.cfg.Version, DialOrder: &n.order}
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

// compose connects the parts that this package composes.
func (n *Node) compose() {
	n.puller = &backfill.Puller{
		Store: n.store, Shape: feed.DefaultShape, Boot: n.boot, Notes: pullNotes{n}, Now: time.Now,
		Rescan: n.reindex, Orphaned: n.orphaned, Admit: n.membership,
		Reserve: n.reserver(protocol.UseApply),
	}
	n.server = &backfill.Server{Store: n.store, Notes: pullNotes{n}, Admit: n.admit}
	n.receiver = &statebatch.Receiver{Store: n.store, Notes: pushNotes{n}, Now: time.Now, Follows: n.accepts, Declines: n.declinesPush,
		Paused: n.isPaused, Admit: n.membership,
	}
	n.fetcher = &snapshot.Fetcher{Dir: n.home.path("snapshot/in"), Came: n.noteChunks}
	n.snapshots = &snapshot.Server{
		Store: n.store, Dir: n.home.path("snapshot/out"), Author: n.author, Pick: n.holds, Admit: n.admit,
		Served: n.snapshotServed, Progress: n.handsChunks, Now: time.Now, Reserve: n.reserver(protocol.UseSnapshot),
	}
	n.catalog = catalog.New(n.store)
	n.indexer = catalog.NewIndexer(n.store, catalog.Config{
		Device: n.self, Home: string(n.home), RescanEvery: n.cfg.Rescan, Metrics: n.metrics, Events: scanNotes{n}, Log: n.log,
	})
}

// readName finds out what this device is called: as was said at the start, if no other member is called so,
// else as before, else like its host.
func (n *Node) readName() error {
	known, err := n.readFacts()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.facts = known
	switch before := known[n.self].name; {
	case n.cfg.Name != "" && n.cfg.Name != before && !numbered(before, n.cfg.Name):
		n.label = n.freeNameFor(n.cfg.Name, n.self)
	case before != "":
		n.label = before
	default:
		host, err := os.Hostname()
		if err != nil {
			host = ""
		}
		n.label = n.freeNameFor(cleanName(host), n.self)
	}
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
