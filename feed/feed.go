// Package feed is the replication design as pure code: single-writer feeds of entries, the Merkle tree
// over them, the heads their owners sign, and every decision of the rules (docs/replication.md, where
// the numbers in comments such as "rule 9" are found). No clock, no goroutine, no disk.
package feed

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"peerdex/record"
)

// ID names a feed: the device that owns it and, for a location feed, the location.
type ID struct {
	Device   record.DeviceID
	Location record.LocationID // zero: the device feed
}

// IDSize is the length of an encoded ID in bytes.
const IDSize = len(record.DeviceID{}) + len(record.LocationID{})

// IsDevice reports whether id is a device feed, where nothing is collected and registers live.
func (id ID) IsDevice() bool { return id.Location.IsZero() }

// Append adds the 48 bytes of id to b.
func (id ID) Append(b []byte) []byte {
	return append(append(b, id.Device[:]...), id.Location[:]...)
}

// ParseID reads what Append wrote. It panics if b is shorter than IDSize.
func ParseID(b []byte) (id ID) {
	copy(id.Location[:], b[copy(id.Device[:], b):])
	return id
}

// String is for logs and events: the device's short id and the location.
func (id ID) String() string {
	if id.IsDevice() {
		return id.Device.Short()
	}
	return id.Device.Short() + "/" + hex.EncodeToString(id.Location[:4])
}

// Compare orders IDs by their bytes.
func (id ID) Compare(o ID) int {
	a, b := id.Append(nil), o.Append(nil)
	for i := range a {
		if a[i] != b[i] {
			return int(a[i]) - int(b[i])
		}
	}
	return 0
}

// Entry is one element of a feed's live set.
type Entry struct {
	Key    []byte // at most record.MaxKey bytes
	Seq    uint64 // from 1
	Record []byte // canonical bytes, at most record.MaxRecord
}

// DigestSize is the length of a Digest in bytes.
const DigestSize = 16

// Digest stands for one entry in its leaf.
type Digest [DigestSize]byte

// Digest returns the first 16 bytes of SHA-256 over the entry's canonical bytes: length of the key as
// one byte, key, seq as 8 bytes, record.
func (e Entry) Digest() (d Digest) {
	var buf [512]byte
	b := append(buf[:0], byte(len(e.Key)))
	b = append(b, e.Key...)
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	b = append(b, e.Record...)
	sum := sha256.Sum256(b)
	copy(d[:], sum[:])
	return d
}

// Ref points at one entry.
type Ref struct {
	Seq    uint64
	Digest Digest
}
