package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	crdt "github.com/ipfs/go-ds-crdt"
	"github.com/ipfs/go-ds-crdt/pb"
	"google.golang.org/protobuf/proto"
)

// told is a crdt.Broadcaster that says one thing once, as soon as ready is closed: the best that gossip could do.
type told struct {
	payload []byte
	ready   chan struct{}
	done    bool
}

func (t *told) Broadcast(context.Context, []byte) error { return nil }

// Next is called by one goroutine.
func (t *told) Next(ctx context.Context) ([]byte, error) {
	select {
	case <-ctx.Done():
		return nil, crdt.ErrNoMoreBroadcast
	case <-t.ready:
	}
	if t.done {
		<-ctx.Done()
		return nil, crdt.ErrNoMoreBroadcast
	}
	t.done = true
	return t.payload, nil
}

// announcement is what a replica broadcasts about its heads.
func announcement(heads []string) ([]byte, error) {
	var m pb.CRDTBroadcast
	for _, s := range heads {
		c, err := cid.Decode(s)
		if err != nil {
			return nil, fmt.Errorf("head %q: %w", s, err)
		}
		m.Heads = append(m.Heads, &pb.Head{Cid: c.Bytes()})
	}
	return proto.Marshal(&m)
}

// maxRecord is more than any entry has.
const maxRecord = 64 << 10

// readEntry reads 16 bytes of key, the length of a record, and the record. io.EOF: there is none.
func readEntry(r *bufio.Reader) (datastore.Key, []byte, error) {
	var key [16]byte
	if _, err := io.ReadFull(r, key[:]); err != nil {
		return datastore.Key{}, nil, err
	}
	n, err := binary.ReadUvarint(r)
	if err != nil || n > maxRecord {
		return datastore.Key{}, nil, fmt.Errorf("record of %d bytes: %w", n, io.ErrUnexpectedEOF)
	}
	record := make([]byte, n)
	if _, err := io.ReadFull(r, record); err != nil {
		return datastore.Key{}, nil, fmt.Errorf("record: %w", io.ErrUnexpectedEOF)
	}
	return datastore.RawKey("/" + base64.RawURLEncoding.EncodeToString(key[:])), record, nil
}
