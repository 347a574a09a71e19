package protocol

import (
	"encoding/binary"
	"math"

	"peerdex/protocol/wirepb"
)

// Limits on the messages of a snapshot.
const (
	MaxManifest = 1 << 20 // bytes of a SnapshotManifest
	MaxChunk    = 1 << 20 // bytes of a Chunk
	MaxRuns     = 1000    // of a GetChunks
)

// OpenSnapshot asks for a snapshot of all the feeds the donor is settled on; the answer is SnapshotManifest or
// Refused.
type OpenSnapshot struct{ Session SessionID }

// SnapshotManifest says what is in the snapshot; package snapshot reads it.
type SnapshotManifest struct{ Manifest []byte }

// Run is some chunks that follow one another.
type Run struct{ First, Count uint32 }

// GetChunks asks for chunks; the answers are Chunks, in the order asked for.
type GetChunks struct{ Runs []Run }

// Chunk is one of them.
type Chunk struct {
	Number uint32
	Bytes  []byte
}

func (*OpenSnapshot) number() uint8     { return numOpenSnapshot }
func (*SnapshotManifest) number() uint8 { return numSnapshotManifest }
func (*GetChunks) number() uint8        { return numGetChunks }
func (*Chunk) number() uint8            { return numChunk }

func (o *OpenSnapshot) check() error {
	if o.Session == (SessionID{}) {
		return malformed("no session")
	}
	return nil
}

func (m *SnapshotManifest) check() error {
	if len(m.Manifest) > MaxManifest {
		return tooLarge("manifest", len(m.Manifest), MaxManifest)
	}
	return nil
}

func (g *GetChunks) check() error {
	for _, r := range g.Runs {
		if r.Count == 0 || r.First+r.Count < r.First {
			return malformed("%d chunks from %d", r.Count, r.First)
		}
	}
	return checkNumbers("runs", len(g.Runs), MaxRuns)
}

func (c *Chunk) check() error {
	if len(c.Bytes) > MaxChunk {
		return tooLarge("chunk", len(c.Bytes), MaxChunk)
	}
	return nil
}

func (o *OpenSnapshot) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.OpenSnapshot{Session: o.Session[:]})
}

func (o *OpenSnapshot) parse(b []byte) error {
	var m wirepb.OpenSnapshot
	if err := parsePB(b, &m); err != nil {
		return err
	}
	return fill(o.Session[:], m.Session, "session id")
}

func (g *GetChunks) append(b []byte) ([]byte, error) {
	m := &wirepb.GetChunks{}
	for _, r := range g.Runs {
		m.First, m.Count = append(m.First, r.First), append(m.Count, r.Count)
	}
	return marshal.MarshalAppend(b, m)
}

func (g *GetChunks) parse(b []byte) error {
	var m wirepb.GetChunks
	if err := parsePB(b, &m); err != nil {
		return err
	}
	if len(m.First) != len(m.Count) {
		return malformed("%d first chunks, %d counts", len(m.First), len(m.Count))
	}
	for i := range m.First {
		g.Runs = append(g.Runs, Run{m.First[i], m.Count[i]})
	}
	return nil
}

func (m *SnapshotManifest) append(b []byte) ([]byte, error) {
	return append(binary.AppendUvarint(b, uint64(len(m.Manifest))), m.Manifest...), nil
}

func (m *SnapshotManifest) parse(b []byte) error {
	r := reader{b: b}
	m.Manifest = r.sized("manifest", MaxManifest)
	return r.end()
}

func (c *Chunk) append(b []byte) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(c.Number))
	return append(binary.AppendUvarint(b, uint64(len(c.Bytes))), c.Bytes...), nil
}

func (c *Chunk) parse(b []byte) error {
	r := reader{b: b}
	n := r.uvarint()
	if n > math.MaxUint32 {
		r.fail(malformed("chunk %d", n))
	}
	c.Number, c.Bytes = uint32(n), r.sized("chunk", MaxChunk)
	return r.end()
}
