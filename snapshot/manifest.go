// Package snapshot moves the feeds a device holds into a store that lacks them, all at once: over the
// network or as one file. A snapshot is a manifest and chunks. The manifest says at which heads the feeds
// stand and which chunks hold their entries; a chunk is known by its SHA-256. What is derived from
// entries is not in it, nor is anything that belongs to one device: no key, secret, marker or local fact.
//
// Take brings a snapshot in, wherever its chunks come from: nothing shows before every feed in it has been
// verified against its owner's signed head.
package snapshot

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/record"
)

// Schema is the version of the format. A snapshot with a greater one is refused with ErrNewer.
const Schema = 1

// Limits of a snapshot. One beyond them is neither made nor taken.
const (
	MaxChunk    = 1 << 20 // bytes of the entries in one chunk, compressed or not
	maxRatio    = 100     // bytes of entries per byte of a compressed chunk
	MaxChunks   = 1 << 14
	MaxFeeds    = 2000
	MaxManifest = 1 << 20 // bytes
)

var (
	// ErrCorrupt is returned, wrapped with the reason, for bytes that are no snapshot, or not all of one.
	ErrCorrupt = errors.New("snapshot is damaged")
	// ErrLibrary is returned for a snapshot of another library.
	ErrLibrary = errors.New("snapshot is of another library")
	// ErrNewer is returned for a snapshot in a format that this version does not know.
	ErrNewer = errors.New("snapshot was made by a newer version")
)

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// Manifest says what a snapshot holds. Its donor signs it.
type Manifest struct {
	Library feed.LibraryID
	Donor   record.DeviceID
	Stamp   hlc.Stamp // when it was made, for people
	Feeds   []Feed    // in order of their IDs
	Sig     [ed25519.SignatureSize]byte
}

// Feed is one feed at the head its donor was settled at.
type Feed struct {
	Head   feed.Head
	Chunks []Chunk // in the order of the entries
}

// Chunk is a run of one feed's entries, compressed.
type Chunk struct {
	Entries int // 1 or more
	Raw     int // bytes of them, at most MaxChunk
	Size    int // bytes of the chunk: fewer, or as many if it is not compressed
	Sum     Sum
}

// Sum is the SHA-256 of a chunk.
type Sum [sha256.Size]byte

// Totals returns how many entries and chunks there are, and their bytes before and after compression.
func (m Manifest) Totals() (entries uint64, chunks int, raw, size int64) {
	for _, f := range m.Feeds {
		entries += f.Head.Count
		chunks += len(f.Chunks)
		for _, c := range f.Chunks {
			raw += int64(c.Raw)
			size += int64(c.Size)
		}
	}
	return entries, chunks, raw, size
}

const domain = "peerdex snapshot 1\x00" // keeps a manifest's signature from meaning anything else

// unsigned writes all but the signature: schema (1 byte), library, donor, stamp (8), number of feeds; of each
// its head, the number of its chunks; of each of those the number of entries, bytes before and after compression,
// sum. Numbers are uvarints.
func (m Manifest) unsigned(b []byte) []byte {
	b = append(b, Schema)
	b = append(b, m.Library[:]...)
	b = append(b, m.Donor[:]...)
	b = m.Stamp.Append(b)
	b = binary.AppendUvarint(b, uint64(len(m.Feeds)))
	for _, f := range m.Feeds {
		b = f.Head.Append(b)
		b = binary.AppendUvarint(b, uint64(len(f.Chunks)))
		for _, c := range f.Chunks {
			for _, n := range []int{c.Entries, c.Raw, c.Size} {
				b = binary.AppendUvarint(b, uint64(n))
			}
			b = append(b, c.Sum[:]...)
		}
	}
	return b
}

// Append adds the manifest's bytes to b.
func (m Manifest) Append(b []byte) []byte { return append(m.unsigned(b), m.Sig[:]...) }

// sign returns m with the signature of its donor.
func (m Manifest) sign(sign func([]byte) []byte) Manifest {
	copy(m.Sig[:], sign(m.unsigned([]byte(domain))))
	return m
}

// Parse reads what Append wrote and checks everything that can be checked without chunks: limits, sums of
// the counts, the donor's signature. It returns ErrCorrupt or ErrNewer. The heads' signatures are for
// store.Load to check.
func Parse(b []byte) (m Manifest, err error) {
	if len(b) > MaxManifest {
		return m, corrupt("manifest of %d bytes, limit %d", len(b), MaxManifest)
	}
	r := reader{b: b}
	if schema := r.bytes(1); r.err == nil && schema[0] > Schema {
		return m, fmt.Errorf("%w: schema %d, this version knows up to %d", ErrNewer, schema[0], Schema)
	} else if r.err == nil && schema[0] == 0 {
		return m, corrupt("schema 0")
	}
	copy(m.Library[:], r.bytes(len(m.Library)))
	copy(m.Donor[:], r.bytes(len(m.Donor)))
	if b := r.bytes(hlc.Size); r.err == nil {
		m.Stamp = hlc.FromBytes(b)
	}
	m.Feeds = make([]Feed, r.count("feeds", MaxFeeds, feed.HeadSize+1))
	total := 0
	for i := range m.Feeds {
		f := &m.Feeds[i]
		if err := r.feed(f); err != nil {
			return Manifest{}, err
		}
		if i > 0 && m.Feeds[i-1].Head.Feed.Compare(f.Head.Feed) >= 0 {
			return Manifest{}, corrupt("feeds are not in order")
		}
		if total += len(f.Chunks); total > MaxChunks {
			return Manifest{}, corrupt("%d chunks, limit %d", total, MaxChunks)
		}
	}
	signed := append([]byte(domain), b[:len(b)-len(r.b)]...)
	copy(m.Sig[:], r.bytes(len(m.Sig)))
	switch {
	case r.err != nil:
		return Manifest{}, r.err
	case len(r.b) > 0:
		return Manifest{}, corrupt("%d bytes behind the manifest", len(r.b))
	case !ed25519.Verify(m.Donor[:], signed, m.Sig[:]):
		return Manifest{}, corrupt("manifest is not signed by %v", m.Donor.Short())
	}
	return m, nil
}

// feed reads one feed and its chunks.
func (r *reader) feed(f *Feed) error {
	b := r.bytes(feed.HeadSize)
	if r.err != nil {
		return r.err
	}
	var err error
	if f.Head, err = feed.ParseHead(b); err != nil {
		return corrupt("%v", err)
	}
	f.Chunks = make([]Chunk, r.count("chunks", MaxChunks, 3+len(Sum{})))
	entries := uint64(0)
	for i := range f.Chunks {
		c := &f.Chunks[i]
		c.Entries = r.number("entries of a chunk", MaxChunk/leastEntry)
		c.Raw = r.number("bytes of a chunk", MaxChunk)
		c.Size = r.number("bytes of a chunk, compressed", MaxChunk)
		copy(c.Sum[:], r.bytes(len(c.Sum)))
		if r.err != nil {
			return r.err
		}
		if c.Entries == 0 || c.Raw < c.Entries*leastEntry || c.Size > c.Raw || c.Raw > c.Size*maxRatio {
			return corrupt("a chunk of %d entries, %d bytes, %d compressed", c.Entries, c.Raw, c.Size)
		}
		entries += uint64(c.Entries)
	}
	if entries != f.Head.Count {
		return corrupt("feed %v has %d entries, its head says %d", f.Head.Feed, entries, f.Head.Count)
	}
	return nil
}

// reader reads fields until something is wrong; then everything is empty.
type reader struct {
	b   []byte
	err error // the first
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = corrupt(format, args...)
	}
	r.b = nil
}

func (r *reader) bytes(n int) []byte {
	if len(r.b) < n {
		r.fail("%d bytes missing", n-len(r.b))
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 { // there is one way to write a number
		r.fail("number cut short or too long")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) number(what string, limit int) int {
	v := r.uvarint()
	if v > uint64(limit) {
		r.fail("%s of %d, limit %d", what, v, limit)
		return 0
	}
	return int(v)
}

// count reads how many elements follow, no more than can be there at least bytes each.
func (r *reader) count(what string, limit, least int) int {
	n := r.number(what, limit)
	if n*least > len(r.b) {
		r.fail("%d %s in %d bytes", n, what, len(r.b))
		return 0
	}
	return n
}
