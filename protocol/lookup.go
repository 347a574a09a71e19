package protocol

import (
	"encoding/binary"
	"strings"

	"peerdex/feed"
	"peerdex/protocol/wirepb"
	"peerdex/query"
	"peerdex/record"
)

// Limits on questions about a location and their answers.
const (
	MaxPath = 32 << 10 // bytes of a path below a location
	MaxHits = 10_000   // in all the answers to one Search
)

// Lookup asks what lies at a path of a location, or in it if that is a folder. The answer is one Found, or
// Refused.
type Lookup struct {
	Session SessionID
	Feed    feed.ID
	Path    string // names with slashes between them; empty: the location itself
	Itself  bool   // of a folder: it, rather than what lies in it
	After   string // of a folder: the name after which to go on
	Limit   int    // 1 to MaxEntries
}

// Order is how what a Search finds is sorted. Numbers are part of the encoding. Append only.
type Order uint8

const (
	OrderNone     Order = iota // as it comes
	OrderName                  // from a to z, large and small letters being equal
	OrderSize                  // the greatest first
	OrderModified              // the latest first
	OrderPath
	orders
)

// Search asks which entries of a location match a query. The answers are Founds, the last marked Last, or
// Refused.
type Search struct {
	Session SessionID
	Feed    feed.ID
	Query   []byte // as query.Query.Append writes it
	Order   Order
	Reverse bool
	Limit   int // most files, copies of one content counting once: 1 to MaxHits
}

// Found is an answer to a Lookup, or part of one to a Search.
type Found struct {
	Head   feed.Head // where the answering device was settled on the feed when it began to look
	Absent bool      // nothing lies at the path
	Itself bool      // the one hit is what lies at the path
	More   bool      // the limit cut it
	Last   bool      // no further part follows
	Hits   []Hit
}

// Hit is one entry.
type Hit struct {
	Folder string // path of the folder it lies in, as in Lookup
	Lost   bool   // the folders above it are not all known
	Key    []byte
	Record []byte
}

// HitSize returns an upper bound of the bytes h takes in a Found. Their sum may be at most MaxPage.
func HitSize(h Hit) int { return len(h.Folder) + len(h.Key) + len(h.Record) + 1 + 3 + 2 + 3 }

func (*Lookup) number() uint8 { return numLookup }
func (*Search) number() uint8 { return numSearch }
func (*Found) number() uint8  { return numFound }

func (l *Lookup) check() error {
	switch {
	case l.Session == SessionID{}:
		return malformed("session id is zero")
	case l.Feed.IsDevice():
		return malformed("a device feed has no paths")
	case len(l.Path) > MaxPath:
		return tooLarge("path", len(l.Path), MaxPath)
	case len(l.After) > record.MaxName:
		return tooLarge("name", len(l.After), record.MaxName)
	}
	return checkNumbers("entries", l.Limit, MaxEntries)
}

func (s *Search) check() error {
	switch {
	case s.Session == SessionID{}:
		return malformed("session id is zero")
	case s.Feed.IsDevice():
		return malformed("a device feed has no files")
	case len(s.Query) > query.MaxEncoded:
		return tooLarge("query", len(s.Query), query.MaxEncoded)
	case s.Order >= orders:
		return malformed("order %d", s.Order)
	}
	if _, err := query.Decode(s.Query); err != nil {
		return malformed("%v", err)
	}
	return checkNumbers("hits", s.Limit, MaxHits)
}

func (f *Found) check() error {
	if err := checkHead(f.Head); err != nil {
		return err
	}
	if len(f.Hits) > MaxEntries {
		return tooLarge("hits", len(f.Hits), MaxEntries)
	}
	if f.Absent && len(f.Hits) > 0 || f.Itself && len(f.Hits) != 1 {
		return malformed("%d hits", len(f.Hits))
	}
	size := 0
	for _, h := range f.Hits {
		switch {
		case len(h.Folder) > MaxPath:
			return tooLarge("path", len(h.Folder), MaxPath)
		case strings.IndexByte(h.Folder, 0) >= 0:
			return malformed("zero byte in a path")
		case len(h.Key) == 0 || len(h.Key) > record.MaxKey:
			return tooLarge("key", len(h.Key), record.MaxKey)
		case len(h.Record) == 0 || len(h.Record) > record.MaxRecord:
			return tooLarge("record", len(h.Record), record.MaxRecord)
		}
		size += HitSize(h)
	}
	if size > MaxPage {
		return tooLarge("page", size, MaxPage)
	}
	return nil
}

func (l *Lookup) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Lookup{
		Session: l.Session[:], Feed: l.Feed.Append(nil), Path: []byte(l.Path), Itself: l.Itself, After: []byte(l.After), Limit: uint32(l.Limit),
	})
}

func (l *Lookup) parse(b []byte) (err error) {
	var m wirepb.Lookup
	if err = parsePB(b, &m); err != nil {
		return err
	}
	l.Path, l.Itself, l.After, l.Limit = string(m.Path), m.Itself, string(m.After), int(min(m.Limit, MaxEntries+1))
	if err = fill(l.Session[:], m.Session, "session id"); err != nil {
		return err
	}
	l.Feed, err = feedID(m.Feed)
	return err
}

func (s *Search) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Search{
		Session: s.Session[:], Feed: s.Feed.Append(nil), Query: s.Query, Order: uint32(s.Order), Reverse: s.Reverse, Limit: uint32(s.Limit),
	})
}

func (s *Search) parse(b []byte) (err error) {
	var m wirepb.Search
	if err = parsePB(b, &m); err != nil {
		return err
	}
	s.Query, s.Order, s.Reverse, s.Limit = m.Query, Order(min(m.Order, 255)), m.Reverse, int(min(m.Limit, MaxHits+1))
	if err = fill(s.Session[:], m.Session, "session id"); err != nil {
		return err
	}
	s.Feed, err = feedID(m.Feed)
	return err
}

const (
	flagAbsent = 2 // of Found, beside flagLast
	flagItself = 4
	flagMore   = 8
	flagLost   = 1 // of a Hit
)

func (f *Found) append(b []byte) ([]byte, error) {
	b = append(b, bit(f.Last, flagLast)|bit(f.Absent, flagAbsent)|bit(f.Itself, flagItself)|bit(f.More, flagMore))
	b = binary.AppendUvarint(f.Head.Append(b), uint64(len(f.Hits)))
	for _, h := range f.Hits {
		b = append(b, bit(h.Lost, flagLost))
		b = append(binary.AppendUvarint(b, uint64(len(h.Folder))), h.Folder...)
		b = append(binary.AppendUvarint(b, uint64(len(h.Key))), h.Key...)
		b = append(binary.AppendUvarint(b, uint64(len(h.Record))), h.Record...)
	}
	return b, nil
}

func (f *Found) parse(b []byte) error {
	r := reader{b: b}
	flags := r.flags(flagLast | flagAbsent | flagItself | flagMore)
	f.Last, f.Absent, f.Itself, f.More = flags&flagLast != 0, flags&flagAbsent != 0, flags&flagItself != 0, flags&flagMore != 0
	f.Head = r.head()
	if n := r.count("hits", MaxEntries, 1+1+1+1+1+1); n > 0 {
		f.Hits = make([]Hit, n)
	}
	for i := range f.Hits {
		h := &f.Hits[i]
		h.Lost = r.flags(flagLost)&flagLost != 0
		h.Folder = string(r.sized("path", MaxPath))
		h.Key, h.Record = r.sized("key", record.MaxKey), r.sized("record", record.MaxRecord)
		if r.err != nil {
			break
		}
	}
	return r.end()
}
