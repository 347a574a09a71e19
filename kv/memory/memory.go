// Package memory is a kv.Engine that keeps Badger's contract in memory: for tests, and for the
// simulator, which also needs its faults. It starts no goroutine, reads no clock and draws no random
// number, so the same calls always have the same effect.
//
// Every committed version is an immutable copy that shares what did not change with the version before
// it. The versions committed since the last Sync are kept, so that Crash can take a suffix of them away.
package memory

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"peerdex/kv"
)

// Limits of one transaction when Config names none: those of Badger with a memtable of 32 MiB, 15% of
// which one transaction may take, at 96 bytes per skip list node.
const (
	DefaultMaxEntries = 52_428
	DefaultMaxBytes   = 5_033_164
)

// perEntry is what a write counts in bytes besides its key and value, as Badger counts.
const perEntry = 12

// Config tunes an Engine. The zero value is a good one without faults.
type Config struct {
	MaxEntries int // writes in one transaction, the same key twice counts twice; 0 means DefaultMaxEntries
	MaxBytes   int // bytes in one transaction, 12 more per write than key and value; 0 means DefaultMaxBytes

	// OnCommit is called before a transaction with at least one write commits, with the number of writes
	// and their bytes. If it returns an error nothing is written and Update returns that error, wrapped. It
	// may call Crash; then the transaction is lost.
	OnCommit func(writes, bytes int) error
	// OnSync is called by Sync with the number of transactions not yet durable. If it returns an error
	// nothing becomes durable and Sync returns that error, wrapped. It may call Crash.
	OnSync func(unsynced int) error
	// KeepDeleted remembers the last value of deleted keys, for Undelete.
	KeepDeleted bool
}

// value is one key's value. Set stores the caller's slice, as Badger does; commit replaces it by a copy.
type value struct{ b []byte }

type tree = btree.Map[string, *value]

// version is one committed state. Its tree is never changed, only copied.
type version struct {
	mu   sync.Mutex // guards the mark that copying leaves in the tree; readers do not look at it
	tree *tree
}

func (v *version) fork() *tree {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tree.Copy()
}

// Engine is an ordered map with transactions. Make one with New or Restore.
type Engine struct {
	cfg    Config
	writer sync.Mutex // held while an Update runs
	closed atomic.Bool

	mu       sync.Mutex // guards what follows
	durable  *version
	unsynced []*version // committed since the last Sync, oldest first
	deleted  map[string][]byte
	gone     bool // the content was given up before another took its place
}

// New returns an empty engine.
func New(cfg Config) *Engine { return open(cfg, &version{tree: new(tree)}) }

func open(cfg Config, v *version) *Engine {
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = DefaultMaxEntries
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	return &Engine{cfg: cfg, durable: v, deleted: map[string][]byte{}}
}

// Backup is a copy of an engine's durable state, as a person's backup program would take it.
type Backup struct{ at *version }

// Backup copies the durable state; what is not yet synced is not in it. It works on a closed engine too.
func (e *Engine) Backup() Backup {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Backup{e.durable}
}

// Restore returns a new engine that holds what b holds. One backup may be restored many times.
func Restore(cfg Config, b Backup) *Engine { return open(cfg, b.at) }

// Unsynced returns the number of transactions that a power cut could take away.
func (e *Engine) Unsynced() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.unsynced)
}

// Crash cuts the power: e answers kv.ErrClosed from now on, a running Update included, and the engine
// returned holds the durable state and the first keep unsynced transactions. keep is 0 to Unsynced; with
// Unsynced it is the death of the process alone. Crash panics beyond that, and on a closed engine.
func (e *Engine) Crash(keep int) *Engine {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed.Swap(true) {
		panic("memory: crash of a closed engine")
	}
	at := e.durable
	if keep > 0 {
		at = e.unsynced[keep-1]
	}
	if e.gone {
		at = &version{tree: new(tree)}
	}
	after := open(e.cfg, at)
	after.deleted = e.deleted // nobody else uses it now
	return after
}

// Close ends the engine. It loses nothing that was committed, but nothing can be read any more: use
// Backup or Crash to go on with the state. Closing again does nothing.
func (e *Engine) Close() error {
	e.writer.Lock() // waits for a running Update, as Badger does
	defer e.writer.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed.Swap(true) {
		return nil
	}
	if n := len(e.unsynced); n > 0 {
		e.durable, e.unsynced = e.unsynced[n-1], nil // Badger syncs when it closes
	}
	return nil
}

// present returns the newest committed version. e.mu is held.
func (e *Engine) present() *version {
	if n := len(e.unsynced); n > 0 {
		return e.unsynced[n-1]
	}
	return e.durable
}

// pin returns the newest committed version for use outside the lock.
func (e *Engine) pin() (*version, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed.Load() {
		return nil, kv.ErrClosed
	}
	return e.present(), nil
}

// View runs fn on a snapshot.
func (e *Engine) View(fn func(kv.Reader) error) error {
	s, err := e.Snapshot()
	if err != nil {
		return err
	}
	return fn(s)
}

// Snapshot pins the present state.
func (e *Engine) Snapshot() (kv.Snapshot, error) {
	v, err := e.pin()
	if err != nil {
		return nil, err
	}
	return &reader{engine: e, tree: v.tree}, nil
}

// Update runs fn and commits what it wrote, or nothing. It blocks while another Update runs: one inside
// another never returns.
func (e *Engine) Update(fn func(kv.Tx) error) error {
	e.writer.Lock()
	defer e.writer.Unlock()
	v, err := e.pin()
	if err != nil {
		return err
	}
	t := &tx{reader: &reader{engine: e, tree: v.fork(), writes: true}}
	defer func() { t.done = true }()
	if err := fn(t); err != nil {
		return err
	}
	return e.commit(t)
}

func (e *Engine) commit(t *tx) error {
	t.done = true
	if t.tooBig {
		return kv.ErrTooBig
	}
	if t.count > 0 && e.cfg.OnCommit != nil {
		if err := e.cfg.OnCommit(t.count, t.bytes); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed.Load() {
		return kv.ErrClosed
	}
	if t.count == 0 {
		return nil
	}
	t.own()
	if e.cfg.KeepDeleted {
		for k, b := range t.removed {
			e.deleted[k] = b
		}
	}
	e.unsynced = append(e.unsynced, &version{tree: t.tree})
	return nil
}

// Sync makes everything committed before durable.
func (e *Engine) Sync() error {
	if e.closed.Load() {
		return kv.ErrClosed
	}
	if e.cfg.OnSync != nil {
		if err := e.cfg.OnSync(e.Unsynced()); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed.Load() {
		return kv.ErrClosed
	}
	e.durable, e.unsynced = e.present(), nil
	return nil
}

var (
	errEmptyKey = errors.New("key is empty")
	errDone     = errors.New("transaction has ended")
)

// tx is a transaction: a private copy of the present version.
type tx struct {
	*reader
	count, bytes int
	set          []*value          // everything Set stored, also what was overwritten since
	removed      map[string][]byte // what Delete took away; only with KeepDeleted
	tooBig, done bool
}

func (t *tx) Set(key, b []byte) error {
	if err := t.grow(key, len(b)); err != nil {
		return err
	}
	if b == nil {
		b = []byte{} // nil would read as absent
	}
	v := &value{b}
	t.set = append(t.set, v)
	t.tree.Set(string(key), v)
	return nil
}

func (t *tx) Delete(key []byte) error {
	if err := t.grow(key, 0); err != nil {
		return err
	}
	old, found := t.tree.Delete(string(key))
	if found && t.engine.cfg.KeepDeleted {
		if t.removed == nil {
			t.removed = map[string][]byte{}
		}
		t.removed[string(key)] = append([]byte{}, old.b...)
	}
	return nil
}

// own copies what Set stored: the caller may use its slices again.
func (t *tx) own() {
	for _, v := range t.set {
		v.b = append([]byte{}, v.b...)
	}
}

// grow counts one write and prepares the tree for it.
func (t *tx) grow(key []byte, size int) error {
	switch {
	case t.engine.closed.Load():
		return kv.ErrClosed
	case t.done:
		return errDone
	case len(key) == 0:
		return errEmptyKey
	}
	size += len(key) + perEntry
	if t.tooBig || t.count+1 > t.engine.cfg.MaxEntries || t.bytes+size > t.engine.cfg.MaxBytes {
		t.tooBig = true
		return kv.ErrTooBig
	}
	t.count++
	t.bytes += size
	if t.scanning {
		t.tree, t.scanning = t.tree.Copy(), false // the scan stays on the tree it began with
	}
	return nil
}
