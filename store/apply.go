package store

import (
	"errors"
	"fmt"
	"slices"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/internal/mutant"
	"peerdex/kv"
	"peerdex/record"
)

// Change is one step of bringing another device's feed up to a head: a pushed batch, a page of a delta,
// a step of a tree diff. Everything in it happens in one transaction, or nothing does.
type Change struct {
	Feed     feed.ID
	Prev     *feed.Head   // of a push: apply only if the feed is settled there (rule 8)
	Entries  []feed.Entry // put in, each in place of whatever its key stood for
	Remove   []feed.Entry // of a tree diff: taken out, where they still stand as given
	Cursor   *feed.Cursor // where the delta stands if this change does not settle
	Settle   *feed.Head   // settle here if the root then matches, else ErrMismatch
	Orphaned bool         // allow settling below the floor (rule 17)
	Admitted uint64       // generation of the membership under which whoever sent it was let in; 0: nobody sent it

	// Within, if set, is called last in the transaction: event rows and the like (rule 5).
	Within func(kv.Tx, *Result) error
}

// Op is what became of a record of a model: insert, update or delete.
type Op struct{ Model, Op string }

// Reject is an entry that is kept and relayed but shown to nobody, because this version does not accept it.
type Reject struct {
	Key    []byte
	Seq    uint64
	Reason string // decode, schema, unauthorized or other
}

// Result says what a Change did. Every entry of the change has exactly one of the four outcomes.
type Result struct {
	Push       feed.Push // of a Change with Prev; nothing was done unless PushApply
	Applied    int
	Duplicate  int // held already, at that seq
	Superseded int // registers that another device's newer one outshines
	Rejected   int
	Rejects    []Reject // the first few
	Removed    int      // entries taken out by a tree diff
	Ops        map[Op]int
	Conflicts  Conflicts
	Rescued    int // registers emitted again in this device's own feed (rule 13)
	Aside      int // registers set aside (rule 14)
	Counts     Counts
	State      feed.State
	newest     hlc.Stamp // of the registers that came in
}

// keys returns the keys of all entries.
func (c Change) keys() [][]byte {
	out := make([][]byte, 0, len(c.Entries)+len(c.Remove))
	for _, entries := range [][]feed.Entry{c.Entries, c.Remove} {
		for _, e := range entries {
			out = append(out, e.Key)
		}
	}
	return out
}

const maxRejects = 16

// Apply carries out c. It is the one door through which other devices' records come in, and it is
// idempotent. It returns ErrMismatch if the entries do not add up to the head, ErrStale if the feed has
// moved to or past it meanwhile, feed.ErrSignature for a head its owner did not sign, ErrNotOwner for an
// own feed, ErrGeneration if the membership has changed since the sender was let in, and kv.ErrTooBig if c
// must be split; nothing has changed then.
func (s *Store) Apply(c Change) (Result, error) {
	var (
		res  Result
		late []record.Register
	)
	if c.Feed.Device == s.cfg.Device {
		return res, fmt.Errorf("apply to feed %v: %w", c.Feed, ErrNotOwner)
	}
	if c.Settle != nil {
		if err := s.settleable(c, *c.Settle); err != nil {
			return res, err
		}
	}
	var stamp hlc.Stamp
	if c.Feed.IsDevice() && !s.Frozen() {
		var err error
		if stamp, err = s.cfg.Clock(); err != nil { // may write, so not inside the transaction
			return res, err
		}
	}
	ahead, err := s.foresee(c.Feed, c.keys())
	if err != nil {
		return res, fmt.Errorf("apply to feed %v: %w", c.Feed, err)
	}
	err = s.update(func(t *tx) error {
		res, t.foreseen = Result{Ops: map[Op]int{}}, ahead
		if err := t.admitted(c.Admitted); err != nil {
			return err
		}
		r, err := t.row(c.Feed)
		if err != nil {
			return err
		}
		if c.Prev != nil {
			if res.Push = r.state.DecidePush(*c.Prev, *c.Settle); res.Push != feed.PushApply {
				res.State = r.state
				t.rows = map[feed.ID]*row{} // nothing to write
				return nil
			}
		}
		if c.Settle != nil {
			if err := maySettle(r.state, *c.Settle, c.Orphaned); err != nil {
				return err
			}
		}
		var rescue []record.Register
		for _, e := range c.Entries {
			lost, err := t.take(r, e, &res)
			if err != nil {
				return err
			}
			rescue = append(rescue, lost...)
		}
		for _, e := range c.Remove {
			lost, err := t.drop(r, e, &res)
			if err != nil {
				return err
			}
			rescue = append(rescue, lost...)
		}
		if err := t.settle(r, c); err != nil {
			return err
		}
		if mutant.Is("rescue_other_txn") {
			late = rescue
		} else if err := t.emit(rescue, stamp, &res); err != nil {
			return err
		}
		res.Counts, res.State = r.counts, r.state
		if c.Within != nil {
			return c.Within(t.kv, &res)
		}
		return nil
	})
	if err != nil {
		return Result{}, fmt.Errorf("apply to feed %v: %w", c.Feed, err)
	}
	if len(late) > 0 {
		if err := s.update(func(t *tx) error { return t.emit(late, stamp, &res) }); err != nil {
			return res, err
		}
	}
	if s.cfg.Observe != nil && res.newest > 0 {
		s.cfg.Observe(res.newest)
	}
	return res, nil
}

// settleable returns feed.ErrSignature unless c's feed may settle at h as far as signatures go. Nobody
// signs genesis, at which only Orphan settles. It is asked in Apply, whatever was asked before: Observe
// looks at no head below the best one seen, and a head between that one and the settled one is as good a
// place for a lie as any.
func (s *Store) settleable(c Change, h feed.Head) error {
	if h.IsGenesis() && c.Orphaned && len(c.Entries) == 0 {
		return nil
	}
	if h.Feed != c.Feed {
		return fmt.Errorf("apply to feed %v: head of feed %v: %w", c.Feed, h.Feed, feed.ErrSignature)
	}
	return s.Check(h)
}

// Check returns feed.ErrSignature, wrapped with the reason, unless the owner of h's feed signed h for this
// library.
func (s *Store) Check(h feed.Head) error {
	if h.Library != s.Library() {
		return fmt.Errorf("head of feed %v is of another library: %w", h.Feed, feed.ErrSignature)
	}
	if err := s.cfg.Verify(h); err != nil {
		return fmt.Errorf("head of feed %v: %w", h.Feed, err)
	}
	return nil
}

// maySettle returns ErrStale unless a feed in state st may settle at h (rule 18, invariant I11).
func maySettle(st feed.State, h feed.Head, orphaned bool) error {
	if orphaned {
		return nil
	}
	if !mutant.Is("accept_lower") && (st.Settled != nil && h.Compare(*st.Settled) <= 0 || h.Compare(st.Floor) < 0) {
		return ErrStale
	}
	return nil
}

// take puts one entry in and returns the register that it drove out, if that must be rescued.
func (t *tx) take(r *row, e feed.Entry, res *Result) ([]record.Register, error) {
	rec, refused := accept(r.state.Feed, e.Key, e.Record)
	old, err := t.upsert(r, e, rec, nil)
	if err != nil {
		return nil, err
	}
	if old != nil && old.Seq == e.Seq && string(old.Record) == string(e.Record) {
		res.Duplicate++
		return nil, nil
	}
	if refused != nil {
		res.Rejected++
		if len(res.Rejects) < maxRejects {
			res.Rejects = append(res.Rejects, Reject{e.Key, e.Seq, rejectReason(refused)})
		}
		return t.lost(r, old, nil)
	}
	op := Op{Model: rec.Model(), Op: "insert"}
	switch {
	case record.IsTombstone(e.Record):
		op.Op = "delete"
	case old != nil && !record.IsTombstone(old.Record):
		op.Op = "update"
	}
	res.Ops[op]++
	reg, ok := rec.(record.Register)
	if !ok {
		res.Applied++
		return nil, nil
	}
	res.newest = max(res.newest, reg.Stamp)
	others, err := t.others(r.state.Feed, e.Key)
	if err != nil {
		return nil, err
	}
	beside, err := t.beside(r.state.Feed, reg)
	if err != nil {
		return nil, err
	}
	res.Conflicts.look(reg, registerOf(r.state.Feed, old), others, beside)
	outshone := slices.ContainsFunc(others, func(o record.Register) bool { return o.Compare(reg) > 0 })
	if outshone {
		res.Superseded++
	} else {
		res.Applied++
	}
	return t.lost(r, old, &reg)
}

// drop takes one entry out if it still stands as given.
func (t *tx) drop(r *row, e feed.Entry, res *Result) ([]record.Register, error) {
	h, err := t.get(r, e.Key)
	if err != nil || h == nil || (h.Seq != e.Seq || h.Digest() != e.Digest()) && !mutant.Is("drop_moved") {
		return nil, err
	}
	if err := t.erase(r, h, true); err != nil {
		return nil, err
	}
	res.Removed++
	if rec, err := accept(r.state.Feed, h.Key, h.Record); err == nil && !record.IsTombstone(h.Record) {
		res.Ops[Op{Model: rec.Model(), Op: "delete"}]++
	}
	return t.lost(r, h, nil)
}

// sweepMost is how many tombstones one transaction drops: each takes four keys.
const sweepMost = 1000

// Sweep drops some tombstones with a seq up to gc of another device's feed, where a Change that settles
// there would be too big with all of them, and returns how many. The feed is unsettled then, at cursor. admitted is
// as in a Change.
func (s *Store) Sweep(id feed.ID, gc uint64, cursor *feed.Cursor, admitted uint64) (dropped int, err error) {
	if id.Device == s.cfg.Device {
		return 0, fmt.Errorf("sweep feed %v: %w", id, ErrNotOwner)
	}
	for most := sweepMost; ; most /= 2 {
		err = s.update(func(t *tx) error {
			if err := t.admitted(admitted); err != nil {
				return err
			}
			r, err := t.row(id)
			if err != nil {
				return err
			}
			if _, dropped, err = t.dropTombstones(r, gc, most); err != nil || dropped == 0 {
				t.rows = map[feed.ID]*row{} // nothing to write
				return err
			}
			r.state.Settled, r.state.Cursor = nil, cursor
			_, err = t.root(r, r.state.Best.Seq)
			return err
		})
		if !errors.Is(err, kv.ErrTooBig) || most == 1 {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("sweep feed %v: %w", id, err)
	}
	return dropped, nil
}

// settle brings the row to where the change leaves it.
func (t *tx) settle(r *row, c Change) error {
	if c.Settle == nil {
		r.state.Settled, r.state.Cursor = nil, c.Cursor
		if mutant.Is("forget_floor") {
			r.state.Floor = feed.Head{}
		}
		_, err := t.root(r, r.state.Best.Seq)
		return err
	}
	if !mutant.Is("gc_not_dropped") {
		switch upTo, _, err := t.dropTombstones(r, c.Settle.GC, sweepMost); {
		case err != nil:
			return err
		case upTo < c.Settle.GC: // whoever settles sweeps first
			return kv.ErrTooBig
		}
	}
	root, err := t.root(r, c.Settle.Seq)
	if err != nil {
		return err
	}
	unproven := mutant.Is("skip_root") || mutant.Is("push_noverify") && c.Prev != nil
	if !unproven && (root != c.Settle.Root || r.state.Count != c.Settle.Count) {
		return ErrMismatch
	}
	r.settle(*c.Settle)
	return nil
}
