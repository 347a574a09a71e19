package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"peerdex/internal/mutant"
	"peerdex/kv"
)

// ErrGeneration is returned for what a peer sent when the membership has changed since the peer was let
// in; nothing changed. Whoever let it in asks again whether it belongs, and goes on under the new
// generation or ends.
var ErrGeneration = errors.New("the membership has changed since the sender was let in")

// Generation returns the number of the membership: it rises in each transaction that puts a certificate in
// or takes one out, and never goes back. It is 1 or more. A peer that was found to be a member after
// Generation returned g may send under g.
func (s *Store) Generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation
}

// Raise begins a generation, where the membership changed by other means than a certificate in a feed.
// What was admitted before it returns can no longer commit.
func (s *Store) Raise() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	next := s.Generation() + 1
	if err := s.eng.Update(func(tx kv.Tx) error { return setGeneration(tx, next) }); err != nil {
		return fmt.Errorf("begin a membership generation: %w", err)
	}
	s.mu.Lock()
	s.generation = next
	s.mu.Unlock()
	return nil
}

// admitted returns ErrGeneration unless generation g is the present one; 0 is that of what no peer sent.
// s.writing is held, so nothing changes until the transaction is over.
func (t *tx) admitted(g uint64) error {
	if g != 0 && g != t.s.Generation() && !mutant.Is("generation_ignored") {
		return ErrGeneration
	}
	return nil
}

func setGeneration(tx kv.Tx, g uint64) error {
	return tx.Set(localKey("generation"), binary.BigEndian.AppendUint64(nil, g))
}

func (s *Store) loadGeneration(r kv.Reader) error {
	b, err := r.Get(localKey("generation"))
	if err != nil {
		return err
	}
	s.generation = 1
	if len(b) == 8 && !mutant.Is("generation_forgets") {
		s.generation = binary.BigEndian.Uint64(b)
	}
	return nil
}
