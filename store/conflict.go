package store

import (
	"bytes"
	"slices"

	"peerdex/feed"
	"peerdex/record"
)

// Conflicts are pairs of values that two devices wrote, neither having seen the other's, of which one is seen
// no more: two values of one field, or the end of a tag and what another device made of it. A pair is counted by
// whoever comes to hold both, once: not for copies of a register in other feeds, and not again while the same
// two devices go on writing there apart.
type Conflicts struct {
	By  [rules]int // by Rule
	Few []Conflict // the first of them
}

// Total is how many there are.
func (c Conflicts) Total() (n int) {
	for _, by := range c.By {
		n += by
	}
	return n
}

// Conflict is one of them.
type Conflict struct{ Won, Lost record.Register }

// Rule is how a conflict was settled.
type Rule uint8

// The rules there are.
const (
	ByStamp  Rule = iota // the later stamp wins
	ByTie                // the stamps are equal: author, then value
	ByDelete             // a deleted tag shows no name and is merged into nothing
	ByMerge              // a tag merged into another shows no name
	rules
)

// Rule returns how c was settled.
func (c Conflict) Rule() Rule {
	switch {
	case c.Won.Field != c.Lost.Field && c.Won.Field == record.FieldExists:
		return ByDelete
	case c.Won.Field != c.Lost.Field:
		return ByMerge
	case c.Won.Stamp == c.Lost.Stamp:
		return ByTie
	}
	return ByStamp
}

// maxConflicts is how many conflicts of one transaction are kept one by one.
const maxConflicts = 16

// look compares a register that comes into a feed, in place of old (nil: of nothing), with those that
// the other device feeds hold of the same field, and of the fields beside it.
func (c *Conflicts) look(reg record.Register, old *record.Register, others, beside []record.Register) {
	if old != nil && old.Compare(reg) == 0 {
		return // moved to another seq
	}
	for _, o := range others {
		if o.Compare(reg) == 0 {
			return // a copy, rescued by another device, or what was rescued itself
		}
	}
	all := slices.Concat(others, beside)
	for i, o := range all {
		copied := slices.ContainsFunc(all[:i], func(before record.Register) bool {
			return before.Field == o.Field && before.Compare(o) == 0
		})
		known := old != nil && old.Author == reg.Author && clash(*old, o)
		if known || !clash(reg, o) || copied {
			continue
		}
		one := Conflict{Won: reg, Lost: o}
		if above(o, reg) {
			one = Conflict{Won: o, Lost: reg}
		}
		c.By[one.Rule()]++
		if len(c.Few) < maxConflicts {
			c.Few = append(c.Few, one)
		}
	}
}

// clash reports whether two registers of one field, or of fields beside each other, are a conflict.
func clash(a, b record.Register) bool {
	if !a.Concurrent(b) {
		return false
	}
	if a.Field == b.Field {
		return !bytes.Equal(a.Value, b.Value)
	}
	x, y := weight(a), weight(b)
	return x != y && x > 0 && y > 0
}

// above reports whether a is what is seen of two that clash.
func above(a, b record.Register) bool {
	if a.Field == b.Field {
		return a.Compare(b) > 0
	}
	return weight(a) > weight(b)
}

// weight orders what registers make of a tag: of two, the one with less is seen no more. Nothing is 0.
func weight(r record.Register) int {
	switch r.Field {
	case record.FieldExists:
		if len(r.Value) == 1 && r.Value[0] == 0 {
			return 3
		}
	case record.FieldInto:
		if len(r.Value) == len(record.TagID{}) {
			return 2
		}
	case record.FieldName:
		return 1
	}
	return 0
}

// tagFields tell together what has become of a tag.
var tagFields = []string{record.FieldName, record.FieldExists, record.FieldInto}

// besides returns the keys of the fields that are one thing with reg's for whoever edits it: those of a tag.
func besides(reg record.Register) (keys [][]byte) {
	if reg.Entity.Kind != record.TagEntity || !slices.Contains(tagFields, reg.Field) {
		return nil
	}
	for _, f := range tagFields {
		if f != reg.Field {
			keys = append(keys, record.Register{Entity: reg.Entity, Field: f}.Key())
		}
	}
	return keys
}

// beside returns the registers of besides in all device feeds but one.
func (t *tx) beside(but feed.ID, reg record.Register) (out []record.Register, err error) {
	for _, key := range besides(reg) {
		more, err := t.others(but, key)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}
