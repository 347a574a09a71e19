package protocol

import (
	"encoding/binary"

	"peerdex/feed"
	"peerdex/record"
)

// The bulk messages are written by hand: five times as fast as a general codec, and their slices point
// into the received frame.

const (
	flagFull = 1 // of Heads
	flagLast = 1 // of Page
	flagPrev = 1 // of StateBatch: not from genesis
)

// How the heads of a feed follow in Heads.
const (
	headsBest    = 0 // best; settled nowhere
	headsBoth    = 1 // settled, best
	headsSettled = 2 // one head, settled and best
	declines     = 4 // added to these: the sender takes no entries of the feed at present
)

func (h *Heads) append(b []byte) ([]byte, error) {
	b = append(b, bit(h.Full, flagFull))
	b = binary.AppendUvarint(b, uint64(h.ActiveSyncs))
	b = binary.AppendUvarint(b, uint64(len(h.Heads)))
	for _, i := range h.Heads {
		also := bit(i.Declines, declines)
		switch {
		case i.Settled == nil:
			b = i.Best.Append(append(b, headsBest|also))
		case *i.Settled == i.Best:
			b = i.Best.Append(append(b, headsSettled|also))
		default:
			b = i.Best.Append(i.Settled.Append(append(b, headsBoth|also)))
		}
	}
	return b, nil
}

func (h *Heads) parse(b []byte) error {
	r := reader{b: b}
	h.Full = r.flags(flagFull)&flagFull != 0
	h.ActiveSyncs = uint32(min(r.uvarint(), 1<<32-1))
	n := r.count("heads", MaxHeads, 1+feed.HeadSize)
	if n > 0 {
		h.Heads = make([]HeadInfo, n)
	}
	for i := range h.Heads {
		info := &h.Heads[i]
		how := r.byte()
		info.Declines = how&declines != 0
		switch how &^ declines {
		case headsBest:
			info.Best = r.head()
		case headsSettled:
			info.Best = r.head()
			settled := info.Best
			info.Settled = &settled
		case headsBoth:
			settled := r.head()
			info.Settled, info.Best = &settled, r.head()
		default:
			r.fail(malformed("heads of kind %d", how))
		}
		if r.err != nil {
			break
		}
	}
	return r.end()
}

func (s *StateBatch) append(b []byte) ([]byte, error) {
	from := s.Prev != feed.Head{}
	b = append(b, bit(from, flagPrev))
	b = append(b, s.Session[:]...)
	if from {
		b = s.Prev.Append(b)
	}
	return appendEntries(s.Next.Append(b), s.Entries), nil
}

func (s *StateBatch) parse(b []byte) error {
	r := reader{b: b}
	from := r.flags(flagPrev)&flagPrev != 0
	copy(s.Session[:], r.bytes(len(s.Session)))
	if from {
		if s.Prev = r.head(); r.err == nil && s.Prev == (feed.Head{}) {
			r.fail(malformed("genesis sent as a head"))
		}
	}
	s.Next = r.head()
	s.Entries = r.entries()
	return r.end()
}

func (p *Page) append(b []byte) ([]byte, error) {
	return appendEntries(append(b, bit(p.Last, flagLast)), p.Entries), nil
}

func (p *Page) parse(b []byte) error {
	r := reader{b: b}
	p.Last = r.flags(flagLast)&flagLast != 0
	p.Entries = r.entries()
	return r.end()
}

// appendEntries writes a count, then of each entry the distance of its seq from the one before, key and
// record with their lengths.
func appendEntries(b []byte, entries []feed.Entry) []byte {
	b = binary.AppendUvarint(b, uint64(len(entries)))
	last := uint64(0)
	for _, e := range entries {
		b = binary.AppendUvarint(b, e.Seq-last)
		b = append(binary.AppendUvarint(b, uint64(len(e.Key))), e.Key...)
		b = append(binary.AppendUvarint(b, uint64(len(e.Record))), e.Record...)
		last = e.Seq
	}
	return b
}

func (r *reader) entries() []feed.Entry {
	n := r.count("entries", MaxEntries, 1+1+1+1+1)
	if n == 0 {
		return nil
	}
	out := make([]feed.Entry, n)
	last := uint64(0)
	for i := range out {
		last += r.uvarint() // one that wraps around is found by checkEntries, since it falls
		out[i] = feed.Entry{Seq: last, Key: r.sized("key", record.MaxKey), Record: r.sized("record", record.MaxRecord)}
		if r.err != nil {
			return nil
		}
	}
	return out
}

func (n *NodesReply) append(b []byte) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(len(n.Children)))
	for _, children := range n.Children {
		b = append(b, byte(len(children)))
		for _, h := range children {
			b = append(b, h[:]...)
		}
	}
	return b, nil
}

func (n *NodesReply) parse(b []byte) error {
	r := reader{b: b}
	if c := r.count("nodes", MaxNodes, 1); c > 0 {
		n.Children = make([][]feed.Hash, c)
	}
	for i := range n.Children {
		c := int(r.byte())
		if c > MaxChildren {
			r.fail(tooLarge("children", c, MaxChildren))
		}
		raw := r.bytes(c * len(feed.Hash{}))
		if r.err != nil {
			break
		}
		if c > 0 {
			n.Children[i] = make([]feed.Hash, c)
		}
		for j := range n.Children[i] {
			raw = raw[copy(n.Children[i][j][:], raw):]
		}
	}
	return r.end()
}

func (l *LeavesReply) append(b []byte) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(len(l.Leaves)))
	for _, leaf := range l.Leaves {
		b = append(binary.AppendUvarint(b, uint64(len(leaf))), leaf...)
	}
	return b, nil
}

func (l *LeavesReply) parse(b []byte) error {
	r := reader{b: b}
	if c := r.count("leaves", MaxLeaves, 1); c > 0 {
		l.Leaves = make([][]byte, c)
	}
	for i := range l.Leaves {
		if l.Leaves[i] = r.sized("leaf", MaxLeaf); r.err != nil {
			break
		}
	}
	return r.end()
}

func bit(on bool, is byte) byte {
	if on {
		return is
	}
	return 0
}

// reader reads fields until something is wrong; then everything is zero and end says what.
type reader struct {
	b   []byte
	err error // the first
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) bytes(n int) []byte {
	if len(r.b) < n {
		r.fail(malformed("%d bytes missing", n-len(r.b)))
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// flags reads a byte of which only the known bits may be set.
func (r *reader) flags(known byte) byte {
	f := r.byte()
	if f&^known != 0 {
		r.fail(malformed("flags %#x", f))
		return 0
	}
	return f
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(malformed("number cut short or too long"))
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads how many elements follow, at most limit and no more than can be there at least bytes each.
func (r *reader) count(what string, limit, least int) int {
	n := r.uvarint()
	switch {
	case n > uint64(limit):
		r.fail(faultf(CodeTooLarge, "%s of %d, limit %d", what, n, limit))
	case n*uint64(least) > uint64(len(r.b)):
		r.fail(malformed("%d %s in %d bytes", n, what, len(r.b)))
	default:
		return int(n)
	}
	return 0
}

// sized reads a length and that many bytes; nil for none.
func (r *reader) sized(what string, limit int) []byte {
	n := r.uvarint()
	if n > uint64(limit) {
		r.fail(faultf(CodeTooLarge, "%s of %d, limit %d", what, n, limit))
	}
	if r.err != nil || n == 0 {
		return nil
	}
	return r.bytes(int(n))
}

func (r *reader) head() (h feed.Head) {
	b := r.bytes(feed.HeadSize)
	if b == nil {
		return h
	}
	h, err := feed.ParseHead(b)
	if err != nil {
		r.fail(malformed("%v", err))
	}
	return h
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail(malformed("%d bytes too many", len(r.b)))
	}
	return r.err
}
