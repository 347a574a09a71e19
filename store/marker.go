package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"

	"peerdex/feed"
	"peerdex/internal/mutant"
)

// MarkerState is what lies outside the store to tell a restored or wiped one from its present self.
type MarkerState struct {
	Instance string             `json:"instance"` // of the store it was written with
	Seqs     map[feed.ID]uint64 `json:"-"`        // highest durable seq of each own feed
}

// Marker keeps a MarkerState in a place that a backup of the store does not cover.
type Marker interface {
	Load() (MarkerState, error) // the zero state if there is none
	Save(MarkerState) error     // durable on return
}

// MarkerFile is a Marker in a file of two slots written in turn, so that a cut leaves the other whole.
type MarkerFile struct {
	f    *os.File
	turn uint64
}

const (
	markerSlot  = 64 << 10 // bytes; room for about 500 feeds
	markerMagic = 0x70644d31
)

// OpenMarker opens or makes the file. The caller closes it.
func OpenMarker(path string) (*MarkerFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open marker: %w", err)
	}
	return &MarkerFile{f: f}, nil
}

// Close closes the file.
func (m *MarkerFile) Close() error { return m.f.Close() }

// Load returns the newer whole slot.
func (m *MarkerFile) Load() (best MarkerState, err error) {
	for slot := range int64(2) {
		buf := make([]byte, markerSlot)
		n, err := m.f.ReadAt(buf, slot*markerSlot)
		if err != nil && !errors.Is(err, io.EOF) {
			return best, fmt.Errorf("read marker: %w", err)
		}
		turn, st, ok := decodeMarker(buf[:n])
		if ok && turn >= m.turn {
			m.turn, best = turn, st
		}
	}
	return best, nil
}

// Save writes the older slot and fsyncs.
func (m *MarkerFile) Save(st MarkerState) error {
	turn := m.turn + 1 // taken only once it is durable: until then the other slot is the good one
	b := encodeMarker(turn, st)
	if len(b) > markerSlot {
		return fmt.Errorf("marker of %d bytes, room for %d", len(b), markerSlot)
	}
	if _, err := m.f.WriteAt(b, int64(turn%2)*markerSlot); err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	if err := m.f.Sync(); err != nil {
		return fmt.Errorf("sync marker: %w", err)
	}
	m.turn = turn
	return nil
}

// A slot is: magic, turn, length, JSON of the instance, feed ids with seqs, CRC-32C of all before.
func encodeMarker(turn uint64, st MarkerState) []byte {
	b := binary.BigEndian.AppendUint32(nil, markerMagic)
	b = binary.BigEndian.AppendUint64(b, turn)
	head, _ := json.Marshal(st) // strings only: cannot fail
	b = binary.BigEndian.AppendUint32(b, uint32(len(head)))
	b = append(b, head...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(st.Seqs)))
	for id, seq := range st.Seqs {
		b = binary.BigEndian.AppendUint64(id.Append(b), seq)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func decodeMarker(b []byte) (turn uint64, st MarkerState, ok bool) {
	next := func(n int) []byte {
		if n < 0 || len(b) < n {
			b = nil
			return make([]byte, min(max(n, 0), markerSlot))
		}
		out := b[:n]
		b = b[n:]
		return out
	}
	whole := b
	if binary.BigEndian.Uint32(next(4)) != markerMagic {
		return 0, st, false
	}
	turn = binary.BigEndian.Uint64(next(8))
	head := next(int(binary.BigEndian.Uint32(next(4))))
	st.Seqs = map[feed.ID]uint64{}
	for n := binary.BigEndian.Uint32(next(4)); n > 0 && len(b) > 4; n-- {
		id := feed.ParseID(next(feed.IDSize))
		st.Seqs[id] = binary.BigEndian.Uint64(next(8))
	}
	if len(b) < 4 {
		return 0, st, false
	}
	body := whole[:len(whole)-len(b)]
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b) {
		return 0, st, false
	}
	return turn, st, json.Unmarshal(head, &st) == nil
}

// compareMarker finds out at start whether the store is older than the marker or another than it was.
func (s *Store) compareMarker() error {
	if s.cfg.Marker == nil {
		return nil
	}
	m, err := s.cfg.Marker.Load()
	if err != nil {
		return err
	}
	s.marked = m
	s.rolled = m.Instance != "" && m.Instance != s.instance
	for id, seq := range m.Seqs {
		if id.Device != s.cfg.Device {
			continue
		}
		r, ok := s.rows[id]
		if !ok {
			r = &row{state: feed.State{Feed: id}} // takes a number when it is first written
			s.rows[id] = r
		}
		if r.state.Floor.Seq < seq {
			if !mutant.Is("marker_ignored") {
				r.after = max(r.after, seq)
			}
			s.rolled = true
		}
	}
	return nil
}

// RolledBack reports whether, when the store was opened, the marker was ahead of it or of another
// instance: it was restored from a backup, or wiped. Ask peers before the first write (rule 15).
func (s *Store) RolledBack() bool { return s.rolled }

// mark writes the marker if an own head has moved, or an own feed was dropped for good. heads are those after
// covers transactions, all of them durable; a later call with fewer changes nothing.
func (s *Store) mark(covers uint64, heads map[feed.ID]uint64) error {
	if s.cfg.Marker == nil {
		return nil
	}
	s.save.Lock()
	defer s.save.Unlock()
	if covers < s.markedAt {
		return nil // somebody else has marked what came after
	}
	next := MarkerState{Instance: s.instance, Seqs: map[feed.ID]uint64{}}
	for id, seq := range heads {
		next.Seqs[id] = max(seq, s.marked.Seqs[id])
	}
	if s.marked.Instance == s.instance && maps.Equal(s.marked.Seqs, next.Seqs) {
		return nil
	}
	if err := s.cfg.Marker.Save(next); err != nil {
		return err
	}
	s.marked, s.markedAt = next, covers
	return nil
}
