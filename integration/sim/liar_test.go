package sim

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/snapshot"
)

// lie is what a donor does wrong with a snapshot.
type lie int

const (
	lieNone    lie = iota
	lieChunk       // other bytes than those of the manifest, now and then
	lieNumber      // another chunk than the one asked for
	lieEntry       // an entry that its owner never wrote
	lieOmit        // one entry less than the manifest counts
	lieTwice       // one entry in two places
	lieHead        // a head that nobody signed
	lieLibrary     // another library
	lieNobody      // a manifest that nobody signed
	liePast        // an older head, whole: it may be taken
	lieDies        // dies in the middle: what has come may be kept
	lies_          // how many there are
)

func (l lie) String() string {
	return [...]string{"none", "chunk", "number", "entry", "omit", "twice", "head", "library", "nobody", "past", "dies"}[l]
}

// refused reports whether nothing may be taken of such a snapshot.
func (l lie) refused() bool { return lieNumber <= l && l < liePast }

func sha(b []byte) [32]byte { return sha256.Sum256(b) }

// pack makes a chunk, from the description of the format.
func pack(entries []feed.Entry) []byte {
	var b []byte
	last := uint64(0)
	for _, e := range entries {
		b = binary.AppendUvarint(b, e.Seq-last)
		b = append(binary.AppendUvarint(b, uint64(len(e.Key))), e.Key...)
		b = append(binary.AppendUvarint(b, uint64(len(e.Record))), e.Record...)
		last = e.Seq
	}
	return b
}

// deceive answers a stream on which a snapshot is asked for.
func (n *node) deceive(conn *protocol.Conn, how lie) {
	err := n.tell(conn, how)
	conn.End(err)
}

func (n *node) tell(conn *protocol.Conn, how lie) error {
	w := n.w
	if how == lieChunk || how == lieDies { // its chunks have the same names as those of others
		return n.giver.Serve(context.Background(), conn)
	}
	if _, err := conn.Recv(); err != nil {
		return err
	}
	m := snapshot.Manifest{Library: w.lib, Donor: n.dev, Stamp: n.clock.Last()}
	if how == lieLibrary {
		m.Library[5]++
	}
	var chunks [][]byte
	for _, st := range n.st.States() {
		if st.Settled == nil || st.Settled.IsGenesis() || st.Feed.IsDevice() || st.Feed.Device == conn.Device() {
			continue
		}
		h := *st.Settled
		if past := w.history[st.Feed]; how == liePast && len(past) > 0 {
			h = past[w.more.IntN(len(past))]
		}
		f, parts := w.feedOf(h, how)
		m.Feeds = append(m.Feeds, f)
		chunks = append(chunks, parts...)
	}
	b := m.Append(nil)
	b = b[:len(b)-ed25519.SignatureSize]
	sig := ed25519.Sign(keyOfDevice[n.key], append([]byte("peerdex snapshot 1\x00"), b...))
	if how == lieNobody {
		sig[7]++
	}
	if err := errors.Join(conn.Send(&protocol.SnapshotManifest{Manifest: append(b, sig...)}), conn.Flush()); err != nil {
		return err
	}
	for {
		msg, err := conn.Recv()
		if err != nil {
			return nil
		}
		get, ok := msg.(*protocol.GetChunks)
		if !ok {
			return protocol.Unexpected(msg)
		}
		for _, run := range get.Runs {
			for i := run.First; i < run.First+run.Count && int(i) < len(chunks); i++ {
				c := &protocol.Chunk{Number: i, Bytes: chunks[i]}
				if how == lieNumber {
					c.Number++
				}
				if err := errors.Join(conn.Send(c), conn.Flush()); err != nil {
					return err
				}
			}
		}
	}
}

// twisted is the stream of a donor that sends other chunks than it has read, or dies in the middle of them.
type twisted struct {
	*stream
	how  lie
	part []byte // of a frame
}

func (s *twisted) Write(p []byte) (int, error) {
	r := s.l.w.more
	s.part = append(s.part, p...)
	for len(s.part) > 2 {
		size, n := binary.Uvarint(s.part[2:])
		end := 2 + n + int(size)
		if n <= 0 || len(s.part) < end+4 {
			break
		}
		frame := s.part[:end+4]
		if s.part = s.part[end+4:]; frame[0] == numChunk {
			switch {
			case s.how == lieDies && chance(r, 0.3):
				return 0, io.ErrClosedPipe
			case s.how == lieChunk && chance(r, 0.5):
				frame[end-1] ^= 1 << r.IntN(8)
				sum := crc32.Checksum(append([]byte{frame[0], frame[1]}, frame[2+n:end]...), crc32.MakeTable(crc32.Castagnoli))
				binary.LittleEndian.PutUint32(frame[end:], sum)
			}
		}
		if _, err := s.stream.Write(frame); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// feedOf makes the chunks of a feed, with a lie in them.
func (w *world) feedOf(h feed.Head, how lie) (f snapshot.Feed, chunks [][]byte) {
	r := w.more
	entries := slices.Clone(w.signed[keyOf(h)])
	if len(entries) > 0 {
		i := r.IntN(len(entries))
		e := &entries[i]
		switch how {
		case lieEntry:
			e.Record = append(bytes.Clone(e.Record), 0)
		case lieTwice:
			e.Key = entries[0].Key
			if i == 0 {
				e.Seq++
			}
		case lieHead:
			h.Stamp++
		}
	}
	f.Head = h
	for part := range slices.Chunk(entries, 1+r.IntN(3)) {
		b := pack(part)
		f.Chunks = append(f.Chunks, snapshot.Chunk{Entries: len(part), Raw: len(b), Size: len(b), Sum: sha(b)})
		if how == lieOmit {
			b = pack(part[:len(part)-1])
			if len(b) > 0 {
				c := &f.Chunks[len(f.Chunks)-1]
				c.Raw, c.Size, c.Sum = len(b), len(b), sha(b)
			}
		}
		chunks = append(chunks, b)
	}
	return f, chunks
}
