// Package catalog keeps the catalogue of this device's folders true to the disk, and answers what is
// known of everybody's: ls, find, where, the path of an entry, the locations.
//
// An Indexer owns the location feeds of this device. It walks each folder, then watches it, and writes
// what changed as records. Later, and only where another file has the same size, it reads contents to hash
// them. It never writes, locks or opens for writing anything below an indexed folder and never follows a
// symbolic link. A Catalog reads the feeds of all devices.
//
// The catalogue is right after every pass in this sense: it equals what one walk of the folder would
// have seen, no two live entries have one parent and name, not even between two commits, and whatever
// could not be read is as it was last known.
package catalog

import (
	"peerdex/feed"
	"peerdex/record"
	"peerdex/store"
)

// Feeds is what an Indexer needs of a *store.Store.
type Feeds interface {
	// Commit writes puts in order to a feed of this device, visible on return, durable after Sync.
	Commit(id feed.ID, puts []store.Put) (feed.Head, error)
	// Fill begins to bring very many puts into a new feed of this device, visible together.
	Fill(id feed.ID) (*store.Fill, error)
	// State tells of a feed, false for one nobody has written yet, and States of all.
	State(id feed.ID) (feed.State, bool)
	States() []feed.State
	// SetRegisters writes registers to the own device feed; author and stamp are filled in.
	SetRegisters(regs ...record.Register) error
	// Sync blocks until what was committed before is durable.
	Sync() error
	// Watch returns a channel of capacity 1 that receives after any feed changed and is durable.
	Watch() (wake <-chan struct{}, cancel func())
	// SetLocal and Local keep a fact that never leaves this device.
	SetLocal(name string, value []byte) error
	Local(name string) ([]byte, error)
	Reader
}

// Reader is what queries need of a *store.Store. A function given to a scan may return kv.Stop to end it
// early; slices are valid only during the call. A feed nobody has written yet is store.ErrUnknownFeed.
type Reader interface {
	// Device returns the device whose store it is.
	Device() record.DeviceID
	// Entries calls fn for the live set of a feed in order of seq, tombstones included.
	Entries(id feed.ID, fn func(store.Row) error) error
	// Entry returns one entry, tombstones included; false if there is none.
	Entry(id feed.ID, key []byte) (store.Row, bool, error)
	// Follow makes f hear of every change of files from now on, and returns what was there before.
	Follow(f store.Follower) (*store.Past, error)
	// Registers calls fn for the winners of one kind of entity, ordered by key.
	Registers(kind record.EntityKind, fn func(record.Register) error) error
	// Winners is Registers for several kinds in turn; Current tells whether what it saw still holds.
	Winners(fn func(record.Register) error, kinds ...record.EntityKind) (store.Edition, error)
	Current(store.Edition) bool
}
