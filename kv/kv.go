// Package kv states the contract of an ordered, transactional key-value store: what the rest of
// peerdex may rely on from Badger, and what the simulator's in-memory engine must imitate.
//
//   - A transaction is atomic and sees one snapshot plus its own writes.
//   - When Update returns nil the transaction is visible and survives the death of the process, not a
//     power cut. After Sync it survives both; a power cut removes a suffix of the unsynced transactions.
//   - There is one writer at a time: Update never runs two functions at once.
package kv

import "errors"

var (
	// ErrTooBig is returned by Set, Delete or Update when one transaction holds more than the engine
	// can commit at once; nothing of it is written, even if its function goes on and returns nil. Split
	// the work and try again.
	ErrTooBig = errors.New("transaction too big")
	// ErrClosed is returned by every call but Close after the engine was closed.
	ErrClosed = errors.New("store is closed")
	// Stop, returned by a Scan function, ends the scan early without error.
	Stop = errors.New("stop")
)

// Reader reads one snapshot.
type Reader interface {
	// Get returns the value of key, or nil when it is absent. The slice may be kept, not changed.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for each key that begins with prefix and is at or above from (nil: from the first),
	// in ascending order. key and value are valid only during the call. Scans do not nest inside Update.
	Scan(prefix, from []byte, fn func(key, value []byte) error) error
	// ScanKeys is Scan without values, several times as fast.
	ScanKeys(prefix, from []byte, fn func(key []byte) error) error
	// ScanDown is Scan in descending order, beginning at or below from (nil: at the last).
	ScanDown(prefix, from []byte, fn func(key, value []byte) error) error
}

// Tx is a transaction that may write. Set and Delete keep the slices they are given until the commit.
// Keys are not empty. A scan does not see what is written while it runs.
type Tx interface {
	Reader
	Set(key, value []byte) error
	Delete(key []byte) error
}

// Snapshot is a Reader that stays on one state of the store until it is closed. Hold it briefly: it
// keeps old versions alive on disk.
type Snapshot interface {
	Reader
	Close()
}

// Engine is the store below the layout.
type Engine interface {
	// View runs fn on a snapshot.
	View(fn func(Reader) error) error
	// Update runs fn and commits what it wrote, or nothing if fn or the commit fails. Blocks while
	// another Update runs.
	Update(fn func(Tx) error) error
	// Sync blocks until everything committed before the call is durable.
	Sync() error
	// Snapshot pins the present state.
	Snapshot() (Snapshot, error)
	// Close waits for calls that still run. Close snapshots first. Closing again does nothing.
	Close() error
}
