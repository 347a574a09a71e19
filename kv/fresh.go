package kv

import "errors"

// ErrOrder is returned for a row that does not come after the one before.
var ErrOrder = errors.New("rows are not in order")

// Replaceable is an Engine whose whole content can be replaced, while it is in use, by content made beside it.
type Replaceable interface {
	Engine
	// Fresh begins such content, empty as yet. One at a time. Close it.
	Fresh() (Fresh, error)
}

// Fresh is content beside that of an engine. First come sorted rows, then Finish, then transactions and CatchUp,
// Sync, Switch and Retire. A cut anywhere leaves the engine with what it held before, or from Switch on with the
// Fresh, and nothing else. One goroutine uses it.
type Fresh interface {
	// Held is what the engine held when the Fresh was begun.
	Held() Reader
	// Dir is where files may lie until the Fresh is finished or closed; empty: nowhere.
	Dir() string
	// Rows takes the rows whose keys begin with a byte. Families may be written by one goroutine each.
	Rows(family byte) Rows
	// Finish ends the rows, and makes them durable.
	Finish() error
	// CatchUp takes over what the engine has committed since Held, or since the last CatchUp, but for the keys that
	// are to be left behind, and returns how many rows that was.
	CatchUp(left func(key []byte) bool) (rows int, err error)
	// Update is one transaction on the Fresh. It is durable after Sync.
	Update(fn func(Tx) error) error
	Sync() error
	// Switch calls last while nobody commits to the engine, and if that returns nil puts the Fresh, durably, in the
	// place of what the engine holds. Snapshots that were taken before stay as they are.
	Switch(last func() error) error
	// Retire gives up what the engine held before Switch, once nobody reads it.
	Retire()
	// Close gives back everything but what has been switched to.
	Close() error
}

// Rows takes rows in ascending order of their keys; keys and values are copied.
type Rows interface {
	Put(key, value []byte) error // ErrOrder
	End() error                  // no more will come: memory is given back
}
