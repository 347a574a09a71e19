package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/kv"
	"peerdex/record"
)

func feedUint(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// Row is one entry with what this device alone knows of it.
type Row struct {
	Feed   feed.ID
	Seq    uint64
	Key    []byte
	Record []byte
	Local  []byte
}

func (s *Store) numOf(id feed.ID) (num, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.rows[id]
	if !ok || r.num == 0 {
		return 0, fmt.Errorf("feed %v: %w", id, ErrUnknownFeed)
	}
	return r.num, nil
}

// numbered returns the feeds held, by their numbers.
func (s *Store) numbered() map[num]feed.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	feeds := make(map[num]feed.ID, len(s.rows))
	for id, r := range s.rows {
		feeds[r.num] = id
	}
	return feeds
}

// Entries calls fn for each entry of a feed in order of seq, tombstones and opaque ones included. The
// row's slices are valid during the call.
func (s *Store) Entries(id feed.ID, fn func(Row) error) error {
	n, err := s.numOf(id)
	if err != nil {
		return err
	}
	return s.eng.View(func(r kv.Reader) error {
		return r.Scan(n.key(famEntry, 0), nil, func(k, v []byte) error {
			local, rec, err := splitValue(v)
			if err != nil {
				return fmt.Errorf("entry %x of feed %v: %w", k, id, err)
			}
			seq, key := splitEntry(k)
			return fn(Row{Feed: id, Seq: seq, Key: key, Record: rec, Local: local})
		})
	})
}

// Entry returns the entry of a key.
func (s *Store) Entry(id feed.ID, key []byte) (row Row, ok bool, err error) {
	n, err := s.numOf(id)
	if err != nil {
		return row, false, err
	}
	err = s.eng.View(func(r kv.Reader) error {
		h, err := getEntry(r, n, key)
		if err != nil || h == nil {
			return err
		}
		row, ok = Row{Feed: id, Seq: h.Seq, Key: h.Key, Record: h.Record, Local: h.local}, true
		return nil
	})
	return row, ok, err
}

// Register returns what everybody sees of one field: the winner over all device feeds.
func (s *Store) Register(e record.Entity, field string) (won record.Register, ok bool, err error) {
	key := record.Register{Entity: e, Field: field}.Key()
	err = s.winners(key, func(r record.Register) error {
		if r.Field == field {
			won, ok = r, true
		}
		return nil
	})
	return won, ok, err
}

// Registers calls fn with the winner of each field of each entity of a kind, in order of their keys.
func (s *Store) Registers(kind record.EntityKind, fn func(record.Register) error) error {
	return s.winners([]byte{byte(kind)}, fn)
}

// Written calls fn with every register of a kind as every device wrote it, in order of their keys.
func (s *Store) Written(kind record.EntityKind, fn func(record.Register) error) error {
	return s.registers([]byte{byte(kind)}, func(same []record.Register) error {
		for _, r := range same {
			if err := fn(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// winners calls fn with the winner of each register whose key begins with prefix.
func (s *Store) winners(prefix []byte, fn func(record.Register) error) error {
	now := s.cfg.Now()
	return s.registers(prefix, func(same []record.Register) error {
		won, ok := record.Merge(now, same...)
		if !ok {
			return nil
		}
		return fn(won)
	})
}

// counts reports whether a register found in a device feed is to be heard at now. An owner is believed
// whatever the stamp, but not a copy of its word that another device says it rescued: anybody could put the
// last stamp there is on one, and the owner could never contradict.
func counts(id feed.ID, r record.Register, now time.Time) bool {
	owner, owned := r.Entity.Owner()
	return !owned || owner == id.Device || r.Stamp <= hlc.At(now.Add(hlc.MaxDrift))
}

// registers calls fn with what all device feeds hold of each register whose key begins with prefix. The
// slice is valid during the call.
func (s *Store) registers(prefix []byte, fn func([]record.Register) error) error {
	now, feeds := s.cfg.Now(), s.numbered()
	return s.eng.View(func(r kv.Reader) error {
		var (
			key  []byte
			same []record.Register
		)
		err := r.Scan(append([]byte{famRegister}, prefix...), nil, func(k, v []byte) error {
			n := num(binary.BigEndian.Uint32(k[len(k)-4:]))
			id, known := feeds[n]
			if !known {
				return nil // dropped, or newer than this view
			}
			k = k[1 : len(k)-4]
			if !bytes.Equal(k, key) && len(same) > 0 {
				if err := fn(same); err != nil {
					return err
				}
				same = same[:0]
			}
			key = append(key[:0], k...)
			raw, err := r.Get(n.entry(feedUint(v), key))
			if err != nil {
				return err
			}
			_, rec, err := splitValue(raw)
			if err != nil {
				return fmt.Errorf("register %x: %w", key, err)
			}
			got, err := accept(id, key, rec)
			if err != nil {
				return fmt.Errorf("register %x: %w", key, err)
			}
			if reg := got.(record.Register); counts(id, reg, now) {
				same = append(same, reg)
			}
			return nil
		})
		if err != nil || len(same) == 0 {
			return err
		}
		if err := fn(same); !errors.Is(err, kv.Stop) {
			return err
		}
		return nil
	})
}
