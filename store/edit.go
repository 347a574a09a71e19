package store

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/internal/mutant"
	"peerdex/kv"
	"peerdex/record"
)

// ErrAhead is returned for an edit while this device's stamps lie further ahead of its clock than anybody
// believes: nobody would see it, and on this device it would take the place of what is seen.
var ErrAhead = errors.New("stamps of this device lie ahead of its clock")

// errBehind asks for stamps above the one observed.
var errBehind = errors.New("stamps are behind what is there")

// Edited says what Edit did.
type Edited struct {
	Written   []record.Register // with author, stamp and what was seen; fields left alone are missing
	Conflicts Conflicts         // with values whose time has not come yet
}

// SetRegisters is Edit for who does not ask what it did.
func (s *Store) SetRegisters(regs ...record.Register) error {
	_, err := s.Edit(regs)
	return err
}

// Edit writes fields into this device's own feed. Author, Stamp and Prev are filled in: each stamp is above
// that of every value that is there to be seen, Prev that of the newest such value of another device; the name, end
// and merge of a tag count as one. A field whose winner has the value already is left alone, and
// of several values for one field the last counts. Many fields become several transactions, each with a head
// of its own, which leaves the device only after a Sync. It returns record.ErrInvalid or record.ErrNotOwner
// before anything is written, and ErrFrozen or ErrAhead.
func (s *Store) Edit(regs []record.Register) (Edited, error) {
	id := feed.ID{Device: s.cfg.Device}
	var (
		out  Edited
		left []record.Register
		at   = map[string]int{}
	)
	for _, reg := range regs {
		reg.Author, reg.Stamp, reg.Prev = s.cfg.Device, math.MaxUint64, 0
		if err := reg.Validate(); err != nil {
			return out, fmt.Errorf("commit to feed %v: %w", id, err)
		}
		key := string(reg.Key())
		if i, again := at[key]; again {
			left[i] = reg
			continue
		}
		at[key] = len(left)
		left = append(left, reg)
	}
	limit, behind := commitEntries, false
	for len(left) > 0 {
		n, size := 0, 0
		for n < len(left) && n < limit && size < commitBytes {
			size += 200 + len(left[n].Value)
			n++
		}
		part, seen, err := s.edit(id, left[:n])
		switch {
		case errors.Is(err, kv.ErrTooBig) && n > 1:
			limit = n / 2
			continue
		case errors.Is(err, errBehind) && !behind && s.cfg.Observe != nil:
			behind = true
			s.cfg.Observe(seen)
			continue
		case err != nil:
			return out, fmt.Errorf("commit to feed %v: %w", id, err)
		}
		out.Written = append(out.Written, part.Written...)
		out.Conflicts.add(part.Conflicts)
		left, behind = left[n:], false
	}
	return out, nil
}

// edit is Edit for one transaction. With errBehind it returns a stamp to observe.
func (s *Store) edit(id feed.ID, regs []record.Register) (out Edited, seen hlc.Stamp, err error) {
	stamps := make([]hlc.Stamp, len(regs)+1)
	for i := range stamps { // may write, so not inside the transaction
		if stamps[i], err = s.cfg.Clock(); err != nil {
			return out, 0, err
		}
	}
	err = s.update(func(t *tx) error {
		if s.Frozen() && !mutant.Is("frozen_writes") {
			return ErrFrozen
		}
		r, err := t.row(id)
		if err != nil {
			return err
		}
		out, seen = Edited{}, 0
		var puts []Put
		for i, reg := range regs {
			reg.Stamp = stamps[i]
			put, newest, err := t.fill(r, &reg, &out)
			if err != nil {
				return err
			}
			seen = max(seen, newest)
			if put {
				puts = append(puts, Put{Record: reg})
				out.Written = append(out.Written, reg)
			}
		}
		if seen >= stamps[0] && !mutant.Is("edit_below_seen") {
			return errBehind
		}
		if len(puts) == 0 {
			t.rows = map[feed.ID]*row{} // nothing to write
			return nil
		}
		_, err = t.sign(r, puts, jump{}, stamps[len(regs)])
		return err
	})
	return out, seen, err
}

// fill gives a register the stamp of what its author sees of others in that field, and notes the conflicts it
// makes. It returns whether it says anything new, and the newest stamp there.
func (t *tx) fill(r *row, reg *record.Register, out *Edited) (put bool, newest hlc.Stamp, err error) {
	key := reg.Key()
	h, err := t.get(r, key)
	if err != nil {
		return false, 0, err
	}
	own := registerOf(r.state.Feed, h)
	others, err := t.others(r.state.Feed, key)
	if err != nil {
		return false, 0, err
	}
	beside, err := t.beside(r.state.Feed, *reg)
	if err != nil {
		return false, 0, err
	}
	all := others
	if own != nil {
		all = append(all[:len(all):len(all)], *own)
	}
	seen := slices.Concat(all, beside)
	for _, key := range besides(*reg) {
		h, err := t.get(r, key)
		if err != nil {
			return false, 0, err
		}
		if o := registerOf(r.state.Feed, h); o != nil {
			seen = append(seen, *o)
		}
	}
	now := t.s.cfg.Now()
	_, owned := reg.Entity.Owner()
	for _, o := range seen {
		switch {
		case !o.Believed(now):
			continue
		case owned: // its own word, perhaps from before its clock was set right
			reg.Stamp = max(reg.Stamp, o.Stamp+1)
		default:
			newest = max(newest, o.Stamp)
		}
		if mutant.Is("prev_ignored") {
			continue
		}
		if o.Author != reg.Author {
			reg.Prev = max(reg.Prev, o.Stamp)
		} else {
			reg.Prev = max(reg.Prev, o.Prev)
		}
	}
	if won, ok := record.Merge(now, all...); ok && bytes.Equal(won.Value, reg.Value) {
		return false, 0, nil
	}
	if !reg.Believed(now) && !mutant.Is("edit_ahead") {
		return false, 0, ErrAhead
	}
	out.Conflicts.look(*reg, own, others, beside)
	return true, newest, nil
}

func (c *Conflicts) add(o Conflicts) {
	for rule, n := range o.By {
		c.By[rule] += n
	}
	c.Few = append(c.Few, o.Few[:min(len(o.Few), maxConflicts-len(c.Few))]...)
}
