package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"peerdex/feed"
	"peerdex/kv"
)

// reapKeys is how many keys one transaction of Reap deletes.
const reapKeys = 5000

// Drop forgets a feed: it is gone for every reader when Drop returns, whatever its size; Reap takes its
// keys off the disk later. The number it had is never used again.
func (s *Store) Drop(id feed.ID) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	n, err := s.numOf(id)
	if errors.Is(err, ErrUnknownFeed) { // or known from the marker alone
		s.mu.Lock()
		if _, marked := s.rows[id]; marked {
			delete(s.rows, id)
			s.commits++
			s.soil()
		}
		s.mu.Unlock()
		return err
	}
	err = s.eng.Update(func(tx kv.Tx) error {
		if err := tx.Set(n.key(famDropped, 0), nil); err != nil {
			return err
		}
		if id.IsDevice() { // certificates may go with it
			if err := setGeneration(tx, s.Generation()+1); err != nil {
				return err
			}
		}
		return tx.Delete(feedKey(id))
	})
	if err != nil {
		return fmt.Errorf("drop feed %v: %w", id, err)
	}
	if s.follower != nil {
		s.follower.Dropped(id)
	}
	s.mu.Lock()
	delete(s.rows, id)
	if id.IsDevice() {
		s.edited[anyKind]++
		s.generation++
	}
	s.commits++
	s.mu.Unlock()
	s.soil()
	return nil
}

// Reap deletes a bounded number of keys of dropped feeds and reports whether more are left. Between two
// calls others write.
func (s *Store) Reap() (more bool, err error) {
	var (
		dropped []byte
		keys    [][]byte
	)
	err = s.eng.View(func(r kv.Reader) error {
		err := r.ScanKeys([]byte{famDropped}, nil, func(k []byte) error {
			dropped = bytes.Clone(k)
			return kv.Stop
		})
		if err != nil || dropped == nil {
			return err
		}
		n := num(binary.BigEndian.Uint32(dropped[1:]))
		err = r.ScanKeys([]byte{famRegister}, nil, func(k []byte) error { // before the entries they point at
			if len(keys) == reapKeys {
				return kv.Stop
			}
			if binary.BigEndian.Uint32(k[len(k)-4:]) == uint32(n) {
				keys = append(keys, bytes.Clone(k))
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, family := range feedFamilies {
			err := r.ScanKeys(n.key(family, 0), nil, func(k []byte) error {
				if len(keys) >= reapKeys {
					return kv.Stop
				}
				keys = append(keys, bytes.Clone(k))
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || dropped == nil {
		return false, err
	}
	err = s.eng.Update(func(tx kv.Tx) error {
		for _, k := range keys {
			if err := tx.Delete(k); err != nil {
				return err
			}
		}
		if len(keys) == 0 {
			return tx.Delete(dropped)
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("delete a dropped feed: %w", err)
	}
	return true, nil
}
