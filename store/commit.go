package store

import (
	"bytes"
	"errors"
	"fmt"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/internal/mutant"
	"peerdex/kv"
	"peerdex/record"
)

// MaxLocal is the most bytes of local facts one entry may carry.
const MaxLocal = 64

// One transaction of an own feed holds at most this; Badger allows 26,214 keys and 2.5 MB (15% of a
// memtable), and an entry takes three keys besides its leaf, another three if it replaces one.
const (
	commitEntries = 2000
	commitBytes   = 512 << 10
	recordRoom    = 96 // bytes that hold most records without growing
	lookedUp      = 4  // so many new ones a record counts whose key may stand for something: others wait as long for it
)

// Put is one record for an own feed.
type Put struct {
	Record record.Record
	Local  []byte // facts only this device needs, never replicated, at most MaxLocal bytes
	// New says that the key was just drawn at random and never used: what it stood for is not looked up,
	// an eighth of the work. A key that was used makes the feed wrong.
	New bool
}

// Commit writes records to one of this device's feeds and returns the head it signed. Many records
// become several transactions, each with a head of its own. The head is visible at once and leaves the
// device only after a Sync. Nothing is written if a record is invalid (record.ErrInvalid,
// record.ErrNotOwner), the feed is another's (ErrNotOwner) or frozen (ErrFrozen).
func (s *Store) Commit(id feed.ID, puts []Put) (feed.Head, error) {
	if err := check(id, puts); err != nil {
		return feed.Head{}, err
	}
	return s.commit(id, puts, jump{})
}

// check returns why puts cannot be written to a feed.
func check(id feed.ID, puts []Put) error {
	for _, p := range puts {
		if err := p.Record.Validate(); err != nil {
			return fmt.Errorf("commit to feed %v: %w", id, err)
		}
		if _, isReg := p.Record.(record.Register); isReg != id.IsDevice() {
			return fmt.Errorf("commit to feed %v: %w", id, errMisplaced)
		}
		if len(p.Local) > MaxLocal {
			return fmt.Errorf("commit to feed %v: %d bytes of local facts, limit %d", id, len(p.Local), MaxLocal)
		}
	}
	return nil
}

// jump makes a head leave its predecessors behind (rule 15).
type jump struct {
	above uint64 // seq to exceed
	onto  uint64 // boot of the head jumped over
	gc    uint64 // collect tombstones up to here
	most  int    // but no more than so many at once; 0: all
	force bool   // sign even if there is nothing to put

	admitted uint64 // as of a Change: some of it came from a peer. Asked of the first transaction alone, whose
	// own certificates may begin another generation
}

func (s *Store) commit(id feed.ID, puts []Put, j jump) (head feed.Head, err error) {
	if id.Device != s.cfg.Device {
		return head, fmt.Errorf("commit to feed %v: %w", id, ErrNotOwner)
	}
	if len(puts) == 0 && !j.force {
		st, _ := s.State(id)
		if st.Settled != nil {
			head = *st.Settled
		}
		return head, nil
	}
	if st, ok := s.State(id); ok && st.Settled == nil && st.Count > 0 {
		if err := s.untangle(id); err != nil {
			return head, err
		}
	}
	limit := commitEntries
	for first := true; first || len(puts) > 0; first = false {
		n := part(puts, limit)
		stamp, err := s.cfg.Clock()
		if err != nil {
			return head, err
		}
		ahead, err := s.foresee(id, oldKeys(puts[:n]))
		if err != nil {
			return head, fmt.Errorf("commit to feed %v: %w", id, err)
		}
		err = s.update(func(t *tx) error {
			t.foreseen = ahead
			if s.Frozen() && !mutant.Is("frozen_writes") {
				return ErrFrozen
			}
			if err := t.admitted(j.admitted); err != nil {
				return err
			}
			r, err := t.row(id)
			if err != nil {
				return err
			}
			head, err = t.sign(r, puts[:n], j, stamp)
			return err
		})
		switch {
		case errors.Is(err, kv.ErrTooBig) && n > 1:
			limit, first = n/2, true
			continue
		case err != nil:
			return head, fmt.Errorf("commit to feed %v: %w", id, err)
		}
		puts, j = puts[n:], jump{}
	}
	return head, nil
}

// part returns how many of puts, one at least, one transaction takes.
func part(puts []Put, limit int) (n int) {
	for weight, size := 0, 0; n < len(puts) && weight < limit && size < commitBytes; n++ {
		size += 200 + len(puts[n].Local)
		if weight++; !puts[n].New {
			weight += lookedUp - 1
		}
	}
	return n
}

// oldKeys returns the keys of puts that may stand for something.
func oldKeys(puts []Put) (keys [][]byte) {
	for _, p := range puts {
		if !p.New {
			keys = append(keys, p.Record.Key())
		}
	}
	return keys
}

// sign writes puts at the next sequence numbers and settles the feed at a head signed for the result
// (rules 1, 2 and 15).
func (t *tx) sign(r *row, puts []Put, j jump, stamp hlc.Stamp) (feed.Head, error) {
	at := max(r.state.Floor.Seq, r.state.Best.Seq, r.after, j.above)
	if mutant.Is("no_jump") {
		at = r.state.Floor.Seq
	}
	if mutant.Is("jump_keeps_seq") && j.above > 0 {
		at = j.above - 1
	}
	onto := j.onto
	if last := r.state.Floor; onto == 0 && last.Boot == t.s.cfg.Boot && !mutant.Is("onto_once") {
		onto = last.Onto // on every head of this process: nobody may have seen the one that absorbed (rule 16)
	}
	gc := max(r.state.Floor.GC, min(j.gc, at))
	var (
		err   error
		wrote bool
	)
	for _, p := range puts {
		if yields, err := t.yields(r, p); err != nil {
			return feed.Head{}, err
		} else if yields {
			continue
		}
		wrote = true
		at++
		e := feed.Entry{Key: p.Record.Key(), Seq: at, Record: p.Record.Append(make([]byte, 0, recordRoom))}
		if p.New {
			err = t.insert(r, e, p.Record, p.Local)
		} else {
			_, err = t.upsert(r, e, accepted(r.state.Feed, e), p.Local)
		}
		if err != nil {
			return feed.Head{}, err
		}
	}
	if !wrote {
		at++ // every operation that changes the head takes a seq
	}
	gc, _, err = t.dropTombstones(r, gc, j.most)
	if err != nil {
		return feed.Head{}, err
	}
	root, err := t.root(r, at)
	if err != nil {
		return feed.Head{}, err
	}
	h := t.s.cfg.Sign(feed.Head{
		Library: t.s.Library(), Feed: r.state.Feed, Seq: at, GC: gc, Count: r.state.Count, Root: root,
		Boot: t.s.cfg.Boot, Onto: onto, Stamp: stamp,
	})
	r.settle(h)
	return h, nil
}

// yields reports whether a register that is to be put gives way to the one its feed holds: two writers may
// reach the store in another order than they took their stamps. A greater one that is not yet believed gives
// way itself, and is set aside.
func (t *tx) yields(r *row, p Put) (bool, error) {
	reg, ok := p.Record.(record.Register)
	if !ok || p.New {
		return false, nil
	}
	h, err := t.get(r, reg.Key())
	if err != nil {
		return false, err
	}
	switch old := registerOf(r.state.Feed, h); {
	case old == nil: // or not shown, so nothing is lost
		return false, nil
	case old.Outranks(reg, t.s.cfg.Now()):
		return true, nil
	case old.Compare(reg) > 0:
		return false, t.setAside(*old)
	}
	return false, nil
}

func (r *row) settle(h feed.Head) {
	r.state.Settled, r.state.Cursor, r.state.Floor = &h, nil, h
	if h.Compare(r.state.Best) > 0 {
		r.state.Best = h
	}
}

// dropTombstones takes out the tombstones with a seq up to gc, at most the first so many if most is positive. It
// returns up to which seq none is left, and how many it took out.
func (t *tx) dropTombstones(r *row, gc uint64, most int) (upTo uint64, dropped int, err error) {
	if gc == 0 || r.counts.Tombstones == 0 || r.state.Feed.IsDevice() {
		return gc, 0, nil
	}
	var drop []*held
	upTo = gc
	var from []byte
	if r.swept > 0 { // not over all those that were dropped before
		from = r.num.tomb(r.swept+1, nil)
	}
	err = t.kv.ScanKeys(r.num.key(famTomb, 0), from, func(k []byte) error {
		seq, key := splitEntry(k)
		switch {
		case seq > gc:
			return kv.Stop
		case most > 0 && len(drop) == most:
			upTo = seq - 1
			return kv.Stop
		}
		var id record.EntryID
		copy(id[:], key)
		tomb := record.Tombstone{ID: id}
		drop = append(drop, &held{Entry: feed.Entry{Key: tomb.Key(), Seq: seq, Record: tomb.Append(nil)}})
		return nil
	})
	for _, h := range drop {
		if err == nil {
			err = t.erase(r, h, true)
		}
	}
	r.swept = max(r.swept, upTo)
	return upTo, len(drop), err
}

// Collect drops tombstones of an own location feed up to seq (rule 3), the first sweepMost of them, so that others
// write soon. If the head that it returns has a GC below seq, there are more. Device feeds are never collected.
func (s *Store) Collect(id feed.ID, seq uint64) (feed.Head, error) {
	if id.IsDevice() && !mutant.Is("device_gc") {
		return feed.Head{}, fmt.Errorf("collect feed %v: device feeds keep their deletes", id)
	}
	return s.commit(id, nil, jump{gc: seq, most: sweepMost, force: true})
}

// Jump signs a head above one that peers hold and this store does not recognise (rule 15).
func (s *Store) Jump(id feed.ID, over feed.Head) (feed.Head, error) {
	return s.commit(id, nil, jump{above: over.Seq, onto: over.Boot, gc: over.GC, force: true})
}

// AbsorbRegisters merges the registers a peer holds of this device's own feed into it, and signs above
// the head they belong to (rule 15). Every register of the result takes a new seq, so that peers settled
// at that head come along by a plain delta. admitted is as of a Change.
func (s *Store) AbsorbRegisters(over feed.Head, entries []feed.Entry, admitted uint64) (feed.Head, error) {
	id := feed.ID{Device: s.cfg.Device}
	now := s.cfg.Now()
	merged := map[string]record.Register{}
	var order []string
	take := func(key, rec []byte) error {
		got, err := accept(id, key, rec)
		if err != nil {
			return nil // what this version does not know its owner cannot have written
		}
		reg := got.(record.Register)
		old, ok := merged[string(key)]
		if !ok {
			order = append(order, string(key))
		}
		if !ok || reg.Outranks(old, now) && !mutant.Is("absorb_overwrites") {
			merged[string(key)] = reg
		}
		return nil
	}
	for _, e := range entries {
		if err := take(e.Key, e.Record); err != nil {
			return feed.Head{}, err
		}
	}
	if err := s.Entries(id, func(r Row) error { return take(r.Key, r.Record) }); err != nil && !errors.Is(err, ErrUnknownFeed) {
		return feed.Head{}, err
	}
	puts := make([]Put, len(order))
	for i, k := range order {
		puts[i] = Put{Record: merged[k]}
	}
	return s.commit(id, puts, jump{above: over.Seq, onto: over.Boot, force: true, admitted: admitted})
}

// AbsorbEntries puts entries that a peer settled at over holds of an own location feed into it; the feed
// is unsettled until Jump signs above over, and the location must then be rescanned (rule 15). admitted is as
// of a Change.
func (s *Store) AbsorbEntries(over feed.Head, entries []feed.Entry, admitted uint64) error {
	id := over.Feed
	if id.Device != s.cfg.Device || id.IsDevice() {
		return fmt.Errorf("absorb into feed %v: %w", id, ErrNotOwner)
	}
	err := s.update(func(t *tx) error {
		if s.Frozen() {
			return ErrFrozen
		}
		if err := t.admitted(admitted); err != nil {
			return err
		}
		r, err := t.row(id)
		if err != nil {
			return err
		}
		r.after = max(r.after, r.state.Floor.Seq, over.Seq) // whatever is signed next, even after a crash here
		for _, e := range entries {
			old, err := t.get(r, e.Key)
			if err != nil {
				return err
			}
			var local []byte
			if old != nil {
				local = old.local
			}
			if _, err := t.upsert(r, e, accepted(id, e), local); err != nil {
				return err
			}
		}
		r.state.Settled = nil
		_, err = t.root(r, over.Seq)
		return err
	})
	if err != nil {
		return fmt.Errorf("absorb into feed %v: %w", id, err)
	}
	return nil
}

// FinishAbsorb ends what AbsorbEntries began: entries that the peer settled at over does not hold move
// above its head, so that whoever is settled there comes along by a plain delta, and the feed is signed.
func (s *Store) FinishAbsorb(over feed.Head, held func(key []byte) bool) (feed.Head, error) {
	err := s.reseat(over.Feed, func(e Row, _ []byte) []byte {
		if e.Seq > over.Seq || held(e.Key) {
			return nil
		}
		return e.Key
	})
	if err != nil {
		return feed.Head{}, err
	}
	return s.Jump(over.Feed, over)
}

// untangle gives each seq of an own feed to one entry, after an absorption that a crash cut short: a feed
// whose history went backwards has given some out twice. Of two entries the one moves that this device
// wrote itself.
func (s *Store) untangle(id feed.ID) error {
	if mutant.Is("absorb_same_seq") {
		return nil
	}
	return s.reseat(id, func(e Row, twin []byte) []byte {
		switch {
		case twin == nil:
			return nil
		case len(e.Local) == 0:
			return twin
		}
		return e.Key
	})
}

// reseat moves entries of an own feed that is unsettled to seqs that no head has taken. pick is shown each
// entry, with the key of the one before it if that stands at the same seq, and returns the key to move.
func (s *Store) reseat(id feed.ID, pick func(e Row, twin []byte) []byte) error {
	for {
		var (
			move [][]byte
			last Row
		)
		err := s.Entries(id, func(e Row) error {
			var twin []byte
			if e.Seq == last.Seq {
				twin = last.Key
			}
			if key := pick(e, twin); key != nil {
				move = append(move, bytes.Clone(key))
			}
			last = Row{Seq: e.Seq, Key: append(last.Key[:0:0], e.Key...)}
			if len(move) == commitEntries/2 {
				return kv.Stop
			}
			return nil
		})
		if err != nil || len(move) == 0 {
			return err
		}
		err = s.update(func(t *tx) error {
			r, err := t.row(id)
			if err != nil {
				return err
			}
			r.after = max(r.after, r.state.Floor.Seq, r.state.Best.Seq)
			for _, key := range move {
				h, err := t.get(r, key)
				if err != nil {
					return err
				}
				r.after++
				e := feed.Entry{Key: h.Key, Seq: r.after, Record: h.Record}
				if _, err := t.upsert(r, e, accepted(id, e), h.local); err != nil {
					return err
				}
			}
			r.state.Settled = nil
			_, err = t.root(r, r.after)
			return err
		})
		if err != nil {
			return fmt.Errorf("absorb into feed %v: %w", id, err)
		}
	}
}

// Rebase moves this device, with its own feeds, into another library: each gets a head signed for it.
// Feeds of other devices must have been dropped before.
func (s *Store) Rebase(library feed.LibraryID) error {
	old := s.Library()
	s.setLibrary(library)
	for _, st := range s.States() {
		if st.Feed.Device != s.cfg.Device {
			continue
		}
		if _, err := s.commit(st.Feed, nil, jump{force: true}); err != nil {
			s.setLibrary(old)
			return fmt.Errorf("move to another library: %w", err)
		}
	}
	return s.Sync()
}

func (s *Store) setLibrary(library feed.LibraryID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Library = library
}

// Library returns the library whose heads are signed and accepted.
func (s *Store) Library() feed.LibraryID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Library
}
