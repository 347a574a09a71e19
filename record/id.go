package record

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// DeviceID is a device's raw Ed25519 public key; its libp2p peer ID is made of the same bytes.
type DeviceID [32]byte

// LocationID names one indexed folder. The zero ID stands for "no location": a device feed.
type LocationID [16]byte

// EntryID names a file, directory or link for life, through renames and moves. The zero ID is the
// location's own directory.
type EntryID [16]byte

// TagID names a tag for life, whatever it is called.
type TagID [16]byte

// Hash is the BLAKE3-256 of a file's content. Zero means that it is not known.
type Hash [32]byte

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// Short returns eight characters such as "7KQ2-XMDL": the first 40 bits of SHA-256 over the key in
// Crockford's base 32. Enough to tell a person's devices apart, not to authenticate one.
func (d DeviceID) Short() string {
	sum := sha256.Sum256(d[:])
	var v uint64
	for _, b := range sum[:5] {
		v = v<<8 | uint64(b)
	}
	out := make([]byte, 0, 9)
	for i := 7; i >= 0; i-- {
		out = append(out, crockford[v>>(5*i)&31])
		if i == 4 {
			out = append(out, '-')
		}
	}
	return string(out)
}

func (d DeviceID) String() string   { return hex.EncodeToString(d[:]) }
func (l LocationID) String() string { return hex.EncodeToString(l[:]) }
func (e EntryID) String() string    { return hex.EncodeToString(e[:]) }
func (t TagID) String() string      { return hex.EncodeToString(t[:]) }
func (h Hash) String() string       { return hex.EncodeToString(h[:]) }

// IsZero reports whether the hash is not known.
func (h Hash) IsZero() bool { return h == Hash{} }

// IsZero reports whether l names no location.
func (l LocationID) IsZero() bool { return l == LocationID{} }

// ParseEntryID reads what String wrote.
func ParseEntryID(text string) (EntryID, error) {
	var id EntryID
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("entry id %q: want 32 hexadecimal digits", text)
	}
	copy(id[:], b)
	return id, nil
}
