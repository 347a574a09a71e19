package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"

	"peerdex/kv"
)

const (
	bulkTable  = 256 << 10      // bytes of a table of the first level
	lastTable  = 32 * bulkTable // of the last, which is written
	bulkBuffer = 1 << 20        // bytes of rows handed to Badger at a time
)

// bulk fills a fresh folder with rows that come sorted, family by family: twice as fast as transactions, and
// nothing of it counts until it is finished.
type bulk struct {
	db      *badger.DB
	room    func() error // asked before rows are handed to Badger, which dies of SIGBUS on a full disk
	sw      *badger.StreamWriter
	streams map[byte]*stream
}

func openBulk(dir string, room func() error, log *slog.Logger) (*bulk, error) {
	db, err := open(options(dir, log).WithBaseTableSize(bulkTable))
	if err != nil {
		return nil, fmt.Errorf("open fresh files: %w", err)
	}
	b := &bulk{db: db, room: room, sw: db.NewStreamWriter(), streams: map[byte]*stream{}}
	if err := b.sw.Prepare(); err != nil {
		return nil, fmt.Errorf("prepare fresh files: %w", errors.Join(err, b.abort()))
	}
	return b, nil
}

// stream returns the rows of one family. Families may be written by one goroutine each.
func (b *bulk) stream(family byte) *stream {
	s, ok := b.streams[family]
	if !ok {
		s = &stream{bulk: b, id: uint32(family), buf: z.NewBuffer(bulkBuffer+bulkBuffer/4, "load")}
		b.streams[family] = s
	}
	return s
}

// finish ends all families and closes the files. They are durable then.
func (b *bulk) finish() error {
	for _, s := range b.streams {
		if err := s.flush(); err != nil {
			return err
		}
	}
	if err := b.sw.Flush(); err != nil {
		return fmt.Errorf("finish fresh files: %w", err)
	}
	b.release()
	return b.db.Close()
}

// abort closes what was opened; what it wrote is worth nothing.
func (b *bulk) abort() error {
	b.sw.Cancel()
	b.release()
	return b.db.Close()
}

func (b *bulk) release() {
	for _, s := range b.streams {
		_ = s.buf.Release()
	}
	b.streams = nil
}

// stream is one family on its way into the files.
type stream struct {
	bulk *bulk
	id   uint32
	buf  *z.Buffer
	row  pb.KV
	last []byte
}

// Put writes the next row. It returns kv.ErrOrder unless the key is above the last: Badger would panic.
func (s *stream) Put(key, value []byte) error {
	if s.last != nil && bytes.Compare(key, s.last) <= 0 {
		return kv.ErrOrder
	}
	s.last = append(s.last[:0], key...)
	s.row.Key, s.row.Value, s.row.Version, s.row.StreamId = key, value, 1, s.id
	badger.KVToBuffer(&s.row, s.buf)
	if s.buf.LenNoPadding() < bulkBuffer {
		return nil
	}
	return s.flush()
}

func (s *stream) flush() error {
	err := s.bulk.room()
	if err == nil {
		err = s.bulk.sw.Write(s.buf)
	}
	if err != nil {
		return fmt.Errorf("write fresh files: %w", err)
	}
	s.buf.Reset()
	return nil
}

// End says that nothing more follows, which frees memory.
func (s *stream) End() error {
	if s.last == nil {
		return nil
	}
	badger.KVToBuffer(&pb.KV{StreamId: s.id, StreamDone: true}, s.buf)
	return s.flush()
}
