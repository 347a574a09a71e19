package store

import (
	"errors"
	"fmt"

	"peerdex/feed"
	"peerdex/internal/mutant"
	"peerdex/kv"
)

// Observed says what Observe made of one head.
type Observed struct {
	Head   feed.Head
	Better bool // it is now the best head seen of its feed
	Forks  bool // it has the seq of a head known here, and another root (invariant I8)
}

// Observe notes heads that a peer has shown, of feeds other devices own, and returns what was new in them.
// admitted is the generation of the membership under which the peer was let in, as of a Change. A head
// whose signature fails is returned as an error, and so is ErrGeneration; nothing is noted then.
func (s *Store) Observe(heads []feed.Head, admitted uint64) ([]Observed, error) {
	var fresh []feed.Head
	var out []Observed
	for _, h := range heads {
		if h.Feed.Device == s.cfg.Device || h.IsGenesis() {
			continue
		}
		st, _ := s.State(h.Feed)
		forks, better := h.Forks(st.Best) || h.Forks(st.Floor), h.Compare(st.Best) > 0
		if !forks && !better {
			continue
		}
		if h.Library != s.Library() {
			return nil, fmt.Errorf("head of feed %v is of another library: %w", h.Feed, feed.ErrSignature)
		}
		if err := s.cfg.Verify(h); err != nil {
			return nil, fmt.Errorf("head of feed %v: %w", h.Feed, err)
		}
		if forks && !mutant.Is("fork_untold") {
			out = append(out, Observed{Head: h, Forks: true})
		}
		if better || mutant.Is("fork_rewrites") {
			fresh = append(fresh, h)
		}
	}
	if len(fresh) == 0 {
		return out, nil
	}
	err := s.update(func(t *tx) error {
		if err := t.admitted(admitted); err != nil {
			return err
		}
		for _, h := range fresh {
			r, err := t.row(h.Feed)
			if err != nil {
				return err
			}
			if h.Compare(r.state.Best) > 0 && !mutant.Is("best_not_noted") {
				r.state.Best = h
				out = append(out, Observed{Head: h, Better: true})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("note heads: %w", err)
	}
	return out, nil
}

// Orphan settles a device feed that nobody alive is settled at at genesis: its registers are taken out and
// rescued, in as many transactions as that takes (rule 17). within is called in each of them; the last one
// settles.
func (s *Store) Orphan(id feed.ID, within func(tx kv.Tx, settling bool, res *Result) error) (Result, error) {
	var all []feed.Entry
	err := s.Entries(id, func(r Row) error {
		all = append(all, feed.Entry{Key: append([]byte(nil), r.Key...), Seq: r.Seq, Record: append([]byte(nil), r.Record...)})
		return nil
	})
	if err != nil && !errors.Is(err, ErrUnknownFeed) {
		return Result{}, err
	}
	for most := sweepMost; ; {
		n := min(most, len(all))
		c := Change{Feed: id, Remove: all[:n], Orphaned: true}
		if n == len(all) {
			c.Settle = &feed.Head{Feed: id}
		}
		if within != nil {
			c.Within = func(tx kv.Tx, res *Result) error { return within(tx, c.Settle != nil, res) }
		}
		res, err := s.Apply(c)
		switch {
		case errors.Is(err, kv.ErrTooBig) && most > 1:
			most /= 2
		case err != nil || n == len(all):
			return res, err
		default:
			all = all[n:]
		}
	}
}
