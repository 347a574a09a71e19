package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"peerdex/feed"
)

// Counts is what a feed holds, kept in step with every transaction.
type Counts struct {
	Files      uint64 // files, links and special files
	Dirs       uint64
	Bytes      uint64 // sum of the files' sizes
	Tombstones uint64
	Registers  uint64
	Opaque     uint64 // entries that are no record this version accepts: kept and relayed, not shown
}

// row is what the store knows of one feed: its state, its tree's height and its counts.
type row struct {
	num    num
	state  feed.State
	height int
	counts Counts
	after  uint64 // of an own feed: sign above this seq (marker, rule 15)
	swept  uint64 // no tombstone has a seq up to this; 0: not known. Of this process alone
}

const rowVersion = 2

func (r *row) encode() []byte {
	b := []byte{rowVersion}
	b = binary.BigEndian.AppendUint32(b, uint32(r.num))
	flags := byte(0)
	if r.state.Settled != nil {
		flags |= 1
	}
	if r.state.Cursor != nil {
		flags |= 2
	}
	b = append(b, flags, byte(r.height))
	if h := r.state.Settled; h != nil {
		b = h.Append(b)
	}
	if c := r.state.Cursor; c != nil {
		for _, v := range []uint64{c.Seq, c.GC, c.High} {
			b = binary.AppendUvarint(b, v)
		}
	}
	b = r.state.Floor.Append(b)
	b = r.state.Best.Append(b)
	for _, v := range r.numbers() {
		b = binary.AppendUvarint(b, *v)
	}
	return b
}

func (r *row) numbers() []*uint64 {
	c := &r.counts
	return []*uint64{&r.state.Count, &c.Files, &c.Dirs, &c.Bytes, &c.Tombstones, &c.Registers, &c.Opaque, &r.after}
}

var errRow = errors.New("feed state on disk is damaged")

func decodeRow(id feed.ID, b []byte) (*row, error) {
	bad := func() (*row, error) { return nil, fmt.Errorf("feed %v: %w", id, errRow) }
	if len(b) < 7 || b[0] != rowVersion {
		return bad()
	}
	r := &row{num: num(binary.BigEndian.Uint32(b[1:])), height: int(b[6]), state: feed.State{Feed: id}}
	flags := b[5]
	b = b[7:]
	head := func(h *feed.Head) bool {
		if len(b) < feed.HeadSize {
			return false
		}
		var err error
		*h, err = feed.ParseHead(b[:feed.HeadSize])
		b = b[feed.HeadSize:]
		return err == nil
	}
	number := func(v *uint64) bool {
		n := 0
		*v, n = binary.Uvarint(b)
		b = b[max(n, 0):]
		return n > 0
	}
	if flags&1 != 0 {
		r.state.Settled = new(feed.Head)
		if !head(r.state.Settled) {
			return bad()
		}
	}
	if flags&2 != 0 {
		c := new(feed.Cursor)
		if !number(&c.Seq) || !number(&c.GC) || !number(&c.High) {
			return bad()
		}
		r.state.Cursor = c
	}
	if !head(&r.state.Floor) || !head(&r.state.Best) {
		return bad()
	}
	for _, v := range r.numbers() {
		if !number(v) {
			return bad()
		}
	}
	return r, nil
}

// clone returns a copy that shares nothing that is ever changed in place.
func (r *row) clone() *row {
	c := *r
	return &c
}
