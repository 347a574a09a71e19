package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"peerdex/feed"
	"peerdex/internal/mutant"
	"peerdex/record"
)

// The coders are shared and safe for concurrent use. They are complete before main begins, since their
// channels must not be made inside a testing/synctest bubble.
var (
	encoder = newEncoder()
	decoder = newDecoder()
)

const window = 1 << 20

func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(readers()),
		zstd.WithWindowSize(window), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // constant options
	}
	e.EncodeAll([]byte{0}, nil)
	return e
}

func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(MaxChunk),
		zstd.WithDecoderMaxWindow(window), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // constant options
	}
	return d
}

const maxReaders = 4

// readers is how many goroutines read and compress at a time.
func readers() int { return min(runtime.GOMAXPROCS(0), maxReaders) }

// leastEntry is how few bytes an entry can have in a chunk: three numbers of a byte, a key and a record.
const leastEntry = 5

// appendEntry writes the distance of an entry's seq from the one before, key and record with their lengths.
func appendEntry(b []byte, last uint64, e feed.Entry) []byte {
	b = binary.AppendUvarint(b, e.Seq-last)
	b = append(binary.AppendUvarint(b, uint64(len(e.Key))), e.Key...)
	return append(binary.AppendUvarint(b, uint64(len(e.Record))), e.Record...)
}

// pack compresses entries that lie in raw. What does not shrink, or shrinks beyond belief, stays as it is.
func pack(raw []byte, entries int) ([]byte, Chunk) {
	b := encoder.EncodeAll(raw, nil)
	if len(b) >= len(raw) || len(raw) > len(b)*maxRatio {
		b = bytes.Clone(raw)
	}
	return b, Chunk{Entries: entries, Raw: len(raw), Size: len(b), Sum: sha256.Sum256(b)}
}

// unpack verifies a chunk and returns its entries, whose slices point into packed or buf. Both buf and entries are
// made if need be, and may be those of a chunk that is no longer needed.
func unpack(packed []byte, c Chunk, buf []byte, entries []feed.Entry) ([]byte, []feed.Entry, error) {
	if len(packed) != c.Size || sha256.Sum256(packed) != c.Sum && !mutant.Is("chunk_unchecked") {
		return buf, nil, corrupt("a chunk of %d bytes is not the one in the manifest", len(packed))
	}
	raw := packed
	if c.Size != c.Raw {
		if cap(buf) < c.Raw {
			buf = make([]byte, 0, MaxChunk)
		}
		var err error
		if raw, err = decoder.DecodeAll(packed, buf[:0:c.Raw]); err != nil || len(raw) != c.Raw {
			return buf, nil, corrupt("a chunk of %d bytes has %d once decompressed, declared %d: %v", c.Size, len(raw), c.Raw, err)
		}
	}
	r := reader{b: raw}
	last := uint64(0)
	entries = entries[:0]
	for range c.Entries {
		step := r.uvarint()
		e := feed.Entry{Seq: last + step, Key: r.sized("key", record.MaxKey), Record: r.sized("record", record.MaxRecord)}
		if r.err != nil {
			return buf, nil, r.err
		}
		if e.Seq <= last {
			return buf, nil, corrupt("entries are not in order")
		}
		last = e.Seq
		entries = append(entries, e)
	}
	if len(r.b) > 0 {
		return buf, nil, corrupt("%d bytes behind the entries of a chunk", len(r.b))
	}
	return buf, entries, nil
}

// sized reads a length of 1 or more and that many bytes.
func (r *reader) sized(what string, limit int) []byte {
	n := r.number("bytes of a "+what, limit)
	if r.err == nil && n == 0 {
		r.fail("empty %s", what)
	}
	return r.bytes(n)
}
