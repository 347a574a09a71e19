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
const reapKeys = 2000

// Drop forgets a feed: it is gone for every reader when Drop returns, whatever its size; Reap takes its
// keys off the disk later. The number it had is never used again.
func (s *Store) Drop(id feed.ID) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	if s.loading {
		s.lost[id] = true // though it may be known to a Load alone
	}
	s.mu.Unlock()
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

// reaping is how far Reap is: what lies before was deleted, and would only be passed over again.
type reaping struct {
	dropped []byte // of the feed at hand
	family  int    // of reapFamilies
	from    []byte // key in that family; nil: the first
}

// reapFamilies are those that hold keys of a feed, registers before the entries they point at.
var reapFamilies = append([]byte{famRegister}, feedFamilies...)

// Reap deletes a bounded number of keys of dropped feeds and reports whether more may be left. Between two
// calls others write; one goroutine calls it.
func (s *Store) Reap() (more bool, err error) {
	var (
		at   = s.reaping
		keys [][]byte
	)
	err = s.eng.View(func(r kv.Reader) error {
		var dropped []byte
		err := r.ScanKeys([]byte{famDropped}, nil, func(k []byte) error {
			dropped = bytes.Clone(k)
			return kv.Stop
		})
		if !bytes.Equal(dropped, at.dropped) {
			at = reaping{dropped: dropped}
		}
		if err != nil || dropped == nil {
			return err
		}
		n := num(binary.BigEndian.Uint32(dropped[1:]))
		for ; at.family < len(reapFamilies); at.family, at.from = at.family+1, nil {
			full := false
			family := reapFamilies[at.family]
			prefix := n.key(family, 0)
			if family == famRegister { // whose keys end with the number
				prefix = prefix[:1]
			}
			err := r.ScanKeys(prefix, at.from, func(k []byte) error {
				if of, _ := numIn(k); of != n {
					return nil
				}
				if full = len(keys) == reapKeys; full {
					at.from = bytes.Clone(k)
					return kv.Stop
				}
				keys = append(keys, bytes.Clone(k))
				return nil
			})
			if err != nil || full {
				return err
			}
		}
		return nil
	})
	if err != nil || at.dropped == nil {
		return false, err
	}
	err = s.eng.Update(func(tx kv.Tx) error {
		for _, k := range keys {
			if err := tx.Delete(k); err != nil {
				return err
			}
		}
		if at.family == len(reapFamilies) {
			return tx.Delete(at.dropped)
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("delete a dropped feed: %w", err)
	}
	s.reaping = at
	return true, nil
}
