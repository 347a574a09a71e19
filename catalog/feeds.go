// Package catalog keeps the catalogue of this device's folders true to the disk, and answers what is
// known of everybody's: ls, find, the path of an entry, the locations.
//
// An Indexer owns the location feeds of this device. It walks each folder, then watches it, and writes
// what changed as records; it never writes, locks or opens for writing anything below an indexed folder
// and never follows a symbolic link. A Catalog reads the feeds of all devices.
//
// The catalogue is right after every pass in this sense: it equals what one walk of the folder would
// have seen, no two live entries have one parent and name, not even between two commits, and whatever
// could not be read is as it was last known.
package catalog

import (
	"peerdex/feed"
	"peerdex/record"
)

// Put is one record to be written to a feed of this device.
type Put struct {
	Record record.Record
	Local  []byte // facts that only this device needs, at most 64 bytes, never replicated
}

// Row is one entry of a feed as it is stored.
type Row struct {
	Feed   feed.ID
	Seq    uint64
	Key    []byte
	Record []byte
	Local  []byte
}

// Feeds is what the catalogue needs of the store. A function given to a scan may return kv.Stop to end
// it early; slices are valid only during the call.
type Feeds interface {
	// Commit writes puts in order to a feed of this device, visible on return, durable after Sync.
	Commit(id feed.ID, puts []Put) (feed.Head, error)
	// SetRegisters writes registers to the own device feed; author and stamp are filled in.
	SetRegisters(regs ...record.Register) error
	// Sync blocks until what was committed before is durable.
	Sync() error
	Reader
}

// Reader is the part of Feeds that queries need.
type Reader interface {
	// Entries calls fn for the live set of a feed in order of seq, tombstones included.
	Entries(id feed.ID, fn func(Row) error) error
	// Entry returns one entry, tombstones included; false if there is none.
	Entry(id feed.ID, key []byte) (Row, bool, error)
	// Children calls fn for the live entries of a directory, sorted by the bytes of their names, from on.
	Children(id feed.ID, parent record.EntryID, from string, fn func(name string, child record.EntryID) error) error
	// Names calls fn for every live entry of a feed, reading keys only.
	Names(id feed.ID, fn func(parent record.EntryID, name []byte, child record.EntryID) error) error
	// Registers calls fn for the winners of one kind of entity, ordered by key.
	Registers(kind record.EntityKind, fn func(record.Register) error) error
	// Register returns one winner.
	Register(e record.Entity, field string) (record.Register, bool, error)
}
