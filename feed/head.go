package feed

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"

	"peerdex/hlc"
	"peerdex/internal/mutant"
	"peerdex/record"
)

// LibraryID names a library: SHA-256 of its root public key.
type LibraryID [32]byte

// Head is what an owner signs: it commits to the exact live set of a feed. The zero Head is genesis,
// the empty feed nobody had to sign.
type Head struct {
	Library LibraryID
	Feed    ID
	Seq     uint64 // the highest sequence number taken so far
	GC      uint64 // every tombstone with a seq up to here has been dropped
	Count   uint64 // entries in the live set, tombstones included
	Root    Hash
	Boot    uint64    // nonce of the owner's process (rule 16)
	Onto    uint64    // boot of the head that this one absorbs or jumps over, else 0
	Stamp   hlc.Stamp // when it was signed, for people: freshness
	Sig     [ed25519.SignatureSize]byte
}

// HeadSize is the length of an encoded head in bytes.
const HeadSize = len(LibraryID{}) + IDSize + 3*8 + len(Hash{}) + 2*8 + hlc.Size + ed25519.SignatureSize

const headDomain = "peerdex head 1\x00" // keeps a head's signature from meaning anything else

// ErrSignature is returned for a head that its feed's device did not sign.
var ErrSignature = errors.New("head is not signed by the feed's device")

func (h Head) unsigned(b []byte) []byte {
	b = append(b, h.Library[:]...)
	b = h.Feed.Append(b)
	b = binary.BigEndian.AppendUint64(b, h.Seq)
	b = binary.BigEndian.AppendUint64(b, h.GC)
	b = binary.BigEndian.AppendUint64(b, h.Count)
	b = append(b, h.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Boot)
	b = binary.BigEndian.AppendUint64(b, h.Onto)
	return h.Stamp.Append(b)
}

// Append adds the head's HeadSize bytes to b.
func (h Head) Append(b []byte) []byte { return append(h.unsigned(b), h.Sig[:]...) }

// ParseHead reads what Append wrote; it does not verify. It fails on any other length.
func ParseHead(b []byte) (h Head, err error) {
	if len(b) != HeadSize {
		return h, fmt.Errorf("head of %d bytes, want %d", len(b), HeadSize)
	}
	next := func(n int) []byte { out := b[:n]; b = b[n:]; return out }
	copy(h.Library[:], next(len(h.Library)))
	h.Feed = ParseID(next(IDSize))
	h.Seq = binary.BigEndian.Uint64(next(8))
	h.GC = binary.BigEndian.Uint64(next(8))
	h.Count = binary.BigEndian.Uint64(next(8))
	copy(h.Root[:], next(len(h.Root)))
	h.Boot = binary.BigEndian.Uint64(next(8))
	h.Onto = binary.BigEndian.Uint64(next(8))
	h.Stamp = hlc.FromBytes(next(hlc.Size))
	copy(h.Sig[:], next(len(h.Sig)))
	return h, nil
}

// SignedBytes returns what the signature covers.
func (h Head) SignedBytes() []byte { return h.unsigned([]byte(headDomain)) }

// Sign returns h with its signature by key.
func (h Head) Sign(key ed25519.PrivateKey) Head {
	copy(h.Sig[:], ed25519.Sign(key, h.SignedBytes()))
	return h
}

// Verify returns ErrSignature unless the feed's device signed h and h can be true of some live set. No
// signature makes a genesis head: that one is known, and any other head at seq 0 is a lie.
func (h Head) Verify() error {
	if h.Seq == 0 || h.GC > h.Seq || h.Count > h.Seq || (h.Count == 0) != (h.Root == Hash{}) ||
		!ed25519.Verify(h.Feed.Device[:], h.SignedBytes(), h.Sig[:]) {
		return ErrSignature
	}
	return nil
}

// IsGenesis reports whether h is the head of a feed to which nothing was ever written.
func (h Head) IsGenesis() bool { return h.Seq == 0 }

// Compare orders the heads of one feed by (seq, root, gc) (rule 4).
func (h Head) Compare(o Head) int {
	switch {
	case h.Seq != o.Seq:
		return cmp(h.Seq, o.Seq)
	case h.Root != o.Root && !mutant.Is("order"):
		return bytes.Compare(h.Root[:], o.Root[:])
	}
	return cmp(h.GC, o.GC)
}

func cmp(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// Same reports whether two heads of one feed commit to the same live set (rule 4).
func (h Head) Same(o Head) bool { return h.Compare(o) == 0 }

// Forks reports whether h and o, of one feed, have one seq and different live sets: the owner's history
// went backwards, or the owner lies (invariant I8).
func (h Head) Forks(o Head) bool { return h.Seq == o.Seq && h.Root != o.Root }

// Owner returns the device that signed h.
func (h Head) Owner() record.DeviceID { return h.Feed.Device }
