// Package store keeps feeds on disk: entries, trees, heads and the indexes derived from them, each
// invariant in one transaction, nothing published before it is durable. It is the only package that
// knows Badger; layout.go says which keys there are.
package store

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/internal/mutant"
	"peerdex/kv"
	"peerdex/record"
)

// Schema is the version of the layout this code writes.
const Schema = 2

var (
	// ErrNotOwner is returned for a write to a feed of another device.
	ErrNotOwner = errors.New("feed belongs to another device")
	// ErrFrozen is returned for writes to own feeds once the same identity was seen alive twice (rule 16).
	ErrFrozen = errors.New("this device's identity is in use twice: own feeds are frozen")
	// ErrUnsettled is returned when a feed that is not settled is asked to be served (rule 6).
	ErrUnsettled = errors.New("feed is not settled")
	// ErrMismatch is returned by Apply when the entries do not add up to the signed head; nothing changed.
	ErrMismatch = errors.New("entries do not add up to the signed head")
	// ErrStale is returned by Apply when the feed is no longer where the change begins; nothing changed.
	ErrStale = errors.New("feed has moved on")
	// ErrUnknownFeed is returned for a feed this store has never heard of.
	ErrUnknownFeed = errors.New("unknown feed")
)

// SchemaError is returned by Open for a store that another version has written. Nothing was changed.
type SchemaError struct{ Have, Want uint32 }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("store has schema %d, this version reads and writes schema %d", e.Have, e.Want)
}

// Newer reports whether a newer version has written the store; else it was one before the first release.
func (e *SchemaError) Newer() bool { return e.Have > e.Want }

// Recorder counts what the store does; *metrics.Metrics is one.
type Recorder interface {
	StoreOp(op string, d time.Duration) // op: commit, sync
}

// Config tunes a Store. Device, Library, Boot, Clock and Sign are required for writing own feeds.
type Config struct {
	Device  record.DeviceID
	Library feed.LibraryID
	Boot    uint64                    // nonce of this process (rule 16)
	Clock   func() (hlc.Stamp, error) // stamps registers and heads
	Observe func(hlc.Stamp)           // told the newest stamp of registers that came in, so that edits after it are above it; may be nil
	Sign    func(feed.Head) feed.Head
	Verify  func(feed.Head) error            // nil: feed.Head.Verify
	Shape   feed.Shape                       // zero: feed.DefaultShape
	Marker  Marker                           // nil: none, so a rollback is seen only through peers
	Metrics Recorder                         // nil counts nothing
	Log     *slog.Logger                     // nil discards
	Now     func() time.Time                 // nil: time.Now; decides which registers are plausible
	Free    func(dir string) (uint64, error) // bytes free where dir is; nil: the system is asked
}

func (c Config) withDefaults() Config {
	if c.Verify == nil {
		c.Verify = feed.Head.Verify
	}
	if c.Shape == (feed.Shape{}) {
		c.Shape = feed.DefaultShape
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Free == nil {
		c.Free = freeSpace
	}
	return c
}

// Store is one device's store. Its methods may be called from any goroutine.
type Store struct {
	cfg      Config
	eng      kv.Engine
	instance string  // random id of this store's files, hexadecimal
	rolled   bool    // the marker is ahead of the store, or of another instance
	reaping  reaping // Reap's alone

	writing  turn     // held from the start of a transaction until rows shows it
	topNum   num      // the highest number a Load has given out; guarded by writing
	follower Follower // nil: none; guarded by writing
	unseen   *unseen  // of the feed that came last; nil: none; guarded by writing

	mu         sync.Mutex // guards the fields below; never held during a transaction
	rows       map[feed.ID]*row
	frozen     bool
	generation uint64 // of the membership
	claims     map[feed.ID]bool
	loading    bool                         // a Load goes on
	lost       map[feed.ID]bool             // dropped since it began
	commits    uint64                       // transactions that changed heads or registers
	edited     map[record.EntityKind]uint64 // transactions that changed registers of a kind
	durable    uint64                       // how many of those a Sync has covered
	wakes      map[chan struct{}]bool
	dirty      chan struct{} // capacity 1: something waits for a Sync

	save     sync.Mutex // guards what follows, and orders writes of the marker
	marked   MarkerState
	markedAt uint64 // transactions it speaks of
}

// Open opens the Badger store in dir, making it if there is none. It returns ErrLocked if another
// process has it open and *SchemaError if a newer version wrote it.
func Open(dir string, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	eng, err := openBadger(dir, cfg.Free, cfg.Log)
	if err != nil {
		return nil, err
	}
	s, err := New(eng, cfg)
	if err != nil {
		return nil, errors.Join(err, eng.Close())
	}
	return s, nil
}

// New puts the layout on any engine: the simulator's and the tests' way in.
func New(eng kv.Engine, cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg.withDefaults(), eng: eng,
		rows: map[feed.ID]*row{}, claims: map[feed.ID]bool{}, edited: map[record.EntityKind]uint64{},
		wakes: map[chan struct{}]bool{}, dirty: make(chan struct{}, 1), writing: newTurn(),
	}
	if err := s.checkSchema(); err != nil {
		return nil, err
	}
	err := eng.View(func(r kv.Reader) error {
		frozen, err := r.Get(localKey("frozen"))
		if err != nil {
			return err
		}
		s.frozen = frozen != nil
		if err := s.loadGeneration(r); err != nil {
			return err
		}
		return r.Scan([]byte{famFeed}, nil, func(k, v []byte) error {
			id := feed.ParseID(k[1:])
			row, err := decodeRow(id, v)
			s.rows[id] = row
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read feed states: %w", err)
	}
	if err := s.compareMarker(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) checkSchema() error {
	return s.eng.Update(func(tx kv.Tx) error {
		have, err := tx.Get(localKey("schema"))
		if err != nil {
			return fmt.Errorf("read schema: %w", err)
		}
		if have == nil {
			id := make([]byte, 16)
			rand.Read(id)
			s.instance = hex.EncodeToString(id)
			return errors.Join(
				tx.Set(localKey("schema"), binary.BigEndian.AppendUint32(nil, Schema)),
				tx.Set(localKey("instance"), []byte(s.instance)))
		}
		if len(have) != 4 || binary.BigEndian.Uint32(have) != Schema {
			v := uint32(0)
			if len(have) == 4 {
				v = binary.BigEndian.Uint32(have)
			}
			return &SchemaError{Have: v, Want: Schema}
		}
		inst, err := tx.Get(localKey("instance"))
		s.instance = string(inst)
		return err
	})
}

// Device returns the device whose store this is.
func (s *Store) Device() record.DeviceID { return s.cfg.Device }

// Close closes the engine once running calls have returned.
func (s *Store) Close() error { return s.eng.Close() }

// Update runs a raw transaction, for families of other packages (see layout.go).
func (s *Store) Update(fn func(kv.Tx) error) error { return s.eng.Update(fn) }

// View runs fn on a snapshot.
func (s *Store) View(fn func(kv.Reader) error) error { return s.eng.View(fn) }

// Sync blocks until everything committed before the call survives a power cut; then it writes the
// marker and wakes those who Watch. Concurrent calls share one fsync.
func (s *Store) Sync() error {
	s.mu.Lock()
	covers, heads := s.commits, s.ownHeads()
	pending := s.durable < covers
	s.mu.Unlock()
	start := s.cfg.Now()
	if err := s.eng.Sync(); err != nil {
		s.soil() // whoever runs the node must hear of it too
		return err
	}
	if !pending {
		return nil
	}
	if s.cfg.Metrics != nil {
		s.cfg.Metrics.StoreOp("sync", s.cfg.Now().Sub(start))
	}
	if err := s.mark(covers, heads); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.durable < covers {
		s.durable = covers
		for wake := range s.wakes {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

// Dirty receives when something was committed that no Sync has covered yet. Whoever runs the node reads
// it and calls Sync.
func (s *Store) Dirty() <-chan struct{} { return s.dirty }

// Watch returns a channel of capacity 1 that receives after heads or registers changed and are durable:
// look again. cancel must be called.
func (s *Store) Watch() (wake <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	s.wakes[c] = true
	s.mu.Unlock()
	return c, func() {
		s.mu.Lock()
		delete(s.wakes, c)
		s.mu.Unlock()
	}
}

// ownHeads returns the seq of every own feed; s.mu is held.
func (s *Store) ownHeads() map[feed.ID]uint64 {
	out := map[feed.ID]uint64{}
	for id, r := range s.rows {
		if id.Device == s.cfg.Device {
			out[id] = max(r.state.Floor.Seq, r.after)
		}
	}
	return out
}

// Claim takes the writer lock of a feed, from the comparison of heads to settlement (rule 7): of another
// device's feed to pull it, of an own one to take back what was lost (rule 15). It does not block: ok is
// false if somebody else holds it.
func (s *Store) Claim(id feed.ID) (release func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claims[id] && !mutant.Is("no_lock") {
		return nil, false
	}
	s.claims[id] = true
	return func() {
		s.mu.Lock()
		delete(s.claims, id)
		s.mu.Unlock()
	}, true
}

// State returns what is known of a feed.
func (s *Store) State(id feed.ID) (feed.State, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.rows[id]
	if !ok {
		return feed.State{Feed: id}, false
	}
	return r.state, true
}

// States returns all feeds, in order of their IDs.
func (s *Store) States() []feed.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]feed.State, 0, len(s.rows))
	for _, r := range s.rows {
		out = append(out, r.state)
	}
	slices.SortFunc(out, func(a, b feed.State) int { return a.Feed.Compare(b.Feed) })
	return out
}

// Counts returns what a feed holds.
func (s *Store) Counts(id feed.ID) Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.rows[id]; ok {
		return r.counts
	}
	return Counts{}
}

// Size returns the bytes that the store takes on disk now: its tables with their own logs, and the value
// log, which stays all but empty. Zero on other engines.
func (s *Store) Size() (lsm, log int64, err error) {
	if e, ok := s.eng.(*engine); ok {
		d, err := e.enter()
		if err != nil {
			return 0, 0, err
		}
		defer d.active.Done()
		return sizeOf(d.dir)
	}
	return 0, 0, nil
}

// Room returns ErrNoSpace while the disk has less than MinFree left: feeds cannot be written then.
func (s *Store) Room() error {
	if e, ok := s.eng.(*engine); ok {
		return e.room(MinFree)
	}
	return nil
}

// RoomToLoad returns ErrNoSpace unless a Load finds room for that many bytes besides all that the store holds, which
// is written anew beside itself.
func (s *Store) RoomToLoad(bytes uint64) error {
	e, ok := s.eng.(*engine)
	if !ok {
		return nil
	}
	size, _, err := s.Size()
	if err != nil {
		return err
	}
	return e.room(MinFree + bytes + uint64(size))
}

// RoomIn returns ErrNoSpace unless so many bytes are free where the folder dir is, and MinFree besides if the store is
// on that disk.
func (s *Store) RoomIn(dir string, bytes uint64) error {
	e, ok := s.eng.(*engine)
	if !ok {
		return nil
	}
	same, err := sameDisk(dir, e.root)
	if err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	if same {
		bytes += MinFree
	}
	return e.roomIn(dir, bytes)
}

// Free returns the bytes free where the store is; zero if that is not known.
func (s *Store) Free() uint64 {
	if e, ok := s.eng.(*engine); ok {
		if free, err := e.free(e.root); err == nil {
			return free
		}
	}
	return 0
}

// Frozen reports whether own feeds may no longer be written (rule 16).
func (s *Store) Frozen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.frozen
}

// Freeze stops all writing of own feeds, for good, because this identity is alive twice (rule 16).
func (s *Store) Freeze() error {
	s.writing.Lock() // a transaction that began before must not write after
	err := s.eng.Update(func(tx kv.Tx) error { return tx.Set(localKey("frozen"), []byte{1}) })
	if err == nil {
		s.mu.Lock()
		s.frozen = true
		s.mu.Unlock()
	}
	s.writing.Unlock()
	if err != nil {
		return fmt.Errorf("freeze own feeds: %w", err)
	}
	return s.Sync()
}
