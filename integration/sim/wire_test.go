package sim

import (
	"encoding/binary"

	"peerdex/feed"
	"peerdex/protocol"
)

var (
	numOpened = protocol.Number((*protocol.Opened)(nil))
	numPage   = protocol.Number((*protocol.Page)(nil))
	numBatch  = protocol.Number((*protocol.StateBatch)(nil))
	numAck    = protocol.Number((*protocol.Ack)(nil))
	numOffer  = protocol.Number((*protocol.SnapshotManifest)(nil))
	numChunk  = protocol.Number((*protocol.Chunk)(nil))
	numGet    = protocol.Number((*protocol.GetChunks)(nil))
)

// watch reads the frames that leave a node, as a wire tap would: every head among them must be durable
// there at this moment (invariant I7).
func (s *stream) watch(p []byte) {
	w := s.l.w
	s.seen = append(s.seen, p...)
	for len(s.seen) > 2 {
		size, n := binary.Uvarint(s.seen[2:])
		if n <= 0 || uint64(len(s.seen)) < 2+uint64(n)+size+4 {
			return
		}
		number, payload := s.seen[0], s.seen[2+n:2+n+int(size)]
		s.seen = s.seen[2+n+int(size)+4:]
		switch number {
		case numPage:
			entries, _ := binary.Uvarint(payload[1:])
			w.moved += int(entries)
		case numOpened, numAck, numBatch, numOffer, numGet:
			m, err := protocol.Decode(number, append([]byte(nil), payload...))
			if err != nil {
				w.fail("WIRE", s.on, "a message that was sent does not decode: %v", err)
			}
			switch m := m.(type) {
			case *protocol.Opened:
				s.on.published(m.Head)
			case *protocol.SnapshotManifest:
				s.on.offers(m)
			case *protocol.GetChunks:
				s.on.asks(*s.l.offer, m)
			case *protocol.Ack:
				if m.Head != (feed.Head{}) {
					s.on.published(m.Head)
				}
			case *protocol.StateBatch:
				s.on.published(m.Next)
				w.moved += len(m.Entries)
				to := s.l.a
				if s.on == to {
					to = s.l.b
				}
				if w.chaos && len(w.batches) < 64 {
					w.batches = append(w.batches, batch{to: to, from: s.on.dev, m: m})
				}
			}
		}
	}
}

// batch is a push that may come again, late or out of order.
type batch struct {
	to   *node
	from [32]byte
	m    *protocol.StateBatch
}
