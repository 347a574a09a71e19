package store

import (
	"bytes"

	"peerdex/record"
)

// Conflicts are pairs of values that two devices wrote into one field, neither having seen the other's. A pair
// is counted by whoever comes to hold both, once: not for copies of a register in other feeds, and not
// again while the same two devices go on writing there apart.
type Conflicts struct {
	ByStamp int        // the later stamp wins
	ByTie   int        // the stamps are equal: author, then value
	Few     []Conflict // the first of them
}

// Conflict is one of them.
type Conflict struct{ Won, Lost record.Register }

// Tie reports whether the stamps are equal, so that the authors decided.
func (c Conflict) Tie() bool { return c.Won.Stamp == c.Lost.Stamp }

// maxConflicts is how many conflicts of one transaction are kept one by one.
const maxConflicts = 16

// look compares a register that comes into a feed, in place of old (nil: of nothing), with those that
// the other device feeds hold of the same field.
func (c *Conflicts) look(reg record.Register, old *record.Register, others []record.Register) {
	if old != nil && old.Compare(reg) == 0 {
		return // moved to another seq
	}
	for _, o := range others {
		if o.Compare(reg) == 0 {
			return // a copy, rescued by another device, or what was rescued itself
		}
	}
	for i, o := range others {
		copied := func() bool {
			for _, before := range others[:i] {
				if before.Compare(o) == 0 {
					return true
				}
			}
			return false
		}
		known := old != nil && old.Author == reg.Author && clash(*old, o)
		if known || !clash(reg, o) || copied() {
			continue
		}
		one := Conflict{Won: reg, Lost: o}
		if o.Compare(reg) > 0 {
			one = Conflict{Won: o, Lost: reg}
		}
		if one.Tie() {
			c.ByTie++
		} else {
			c.ByStamp++
		}
		if len(c.Few) < maxConflicts {
			c.Few = append(c.Few, one)
		}
	}
}

func clash(a, b record.Register) bool { return a.Concurrent(b) && !bytes.Equal(a.Value, b.Value) }
