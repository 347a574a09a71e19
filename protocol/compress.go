package protocol

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Compression names how a sender may compress bulk payloads. A receiver understands all of them, told
// by the frame's flags.
type Compression uint8

// Compressions are part of the hello. Append only.
const (
	Uncompressed Compression = 0
	Zstd         Compression = 1 // smallest; for slow links
	S2           Compression = 2 // fastest; for local networks
)

func (c Compression) String() string {
	switch c {
	case Uncompressed:
		return "none"
	case Zstd:
		return "zstd"
	case S2:
		return "s2"
	}
	return fmt.Sprintf("compression %d", uint8(c))
}

const (
	compressAbove = 512 // bytes of payload below which compression gains nothing worth its time
	maxRatio      = 100 // raw bytes per compressed byte that a receiver believes
)

// The coders are shared by all connections and safe for concurrent use. Two of each work at a time: more
// would only take memory. They are complete before main begins, since their channels must not be made
// inside a testing/synctest bubble.
var (
	zstdEncoder = newZstdEncoder()
	zstdDecoder = newZstdDecoder()
)

func newZstdEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // constant options
	}
	e.EncodeAll([]byte{0}, nil)
	return e
}

func newZstdDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(2<<20),
		zstd.WithDecoderMaxWindow(1<<20), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // constant options
	}
	return d
}

// compress appends the raw length and the compressed payload to dst. It returns false where that is not
// clearly shorter, or so much shorter that a receiver would refuse it.
func compress(dst, raw []byte, how Compression) ([]byte, bool) {
	if len(raw) < compressAbove {
		return dst, false
	}
	start := len(dst)
	dst = binary.AppendUvarint(dst, uint64(len(raw)))
	switch how {
	case Zstd:
		dst = zstdEncoder.EncodeAll(raw, dst)
	case S2:
		dst = slices.Grow(dst, s2.MaxEncodedLen(len(raw)))
		out := s2.EncodeBetter(dst[len(dst):cap(dst)], raw) // of entries 3% smaller than Encode, at half its speed
		dst = dst[:len(dst)+len(out)]
	default:
		return dst, false
	}
	n := len(dst) - start
	return dst, n < len(raw)-len(raw)/16 && len(raw) <= n*maxRatio
}

// decompress undoes compress. Nothing is allocated before the declared length is within limit and the
// ratio believable, and never more than declared.
func decompress(b []byte, how Compression, limit int) ([]byte, error) {
	n, used := binary.Uvarint(b)
	switch {
	case used <= 0:
		return nil, malformed("compressed payload without a length")
	case n > uint64(limit):
		return nil, faultf(CodeTooLarge, "payload of %d bytes once decompressed, limit %d", n, limit)
	case n > uint64(len(b))*maxRatio:
		return nil, faultf(CodeTooLarge, "payload of %d bytes compressed to %d, ratio limit %d", n, len(b), maxRatio)
	}
	src := b[used:]
	if how == S2 {
		if m, err := s2.DecodedLen(src); err != nil || uint64(m) != n {
			return nil, malformed("s2 block of %d bytes, declared %d", m, n)
		}
	}
	raw := make([]byte, n)
	var (
		out []byte
		err error
	)
	switch how {
	case Zstd:
		out, err = zstdDecoder.DecodeAll(src, raw[:0])
	case S2:
		out, err = s2.Decode(raw, src)
	}
	if err != nil {
		return nil, malformed("%v payload of %d bytes: %v", how, len(src), err)
	}
	if uint64(len(out)) != n {
		return nil, malformed("payload of %d bytes once decompressed, declared %d", len(out), n)
	}
	return out, nil
}
