package sim

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/record"
	"peerdex/store"
)

// shared are the kinds of what every device may write about.
var shared = []record.EntityKind{record.MemberEntity, record.TagEntity, record.EntryEntity, record.ContentEntity}

// field returns the k-th field of the small set that all devices write.
func (w *world) field(k int) record.Register {
	tag := record.TagID{0: 0xEE, 15: byte(k / 6)}
	file := record.Entry(w.nodes[k%len(w.nodes)].dev, w.location(w.nodes[0].dev).Location, fileID(k/6))
	switch k % 6 {
	case 0:
		return record.Register{Entity: record.Tag(tag), Field: record.FieldName}
	case 1:
		return record.Register{Entity: file, Field: record.TagField(tag)}
	case 2:
		return record.Register{Entity: record.Tag(tag), Field: record.FieldExists}
	case 3:
		return record.Register{Entity: record.Content(record.Hash{1: byte(k)}), Field: record.TagField(tag)}
	case 4:
		return record.Register{Entity: file, Field: record.FieldNote}
	default:
		return record.Register{Entity: record.Content(record.Hash{1: byte(k)}), Field: record.FieldNote}
	}
}

// edit writes or clears one shared field.
func (n *node) edit(r *rand.Rand) {
	w := n.w
	w.uid++
	k := r.IntN(w.words)
	reg := w.field(k)
	reg.Value = []byte(fmt.Sprint(w.uid))
	if chance(r, 0.3) {
		reg.Value = nil
	}
	if n.st.Frozen() {
		reg.Value = []byte("frozen")
		if err := n.st.SetRegisters(reg); !errors.Is(err, store.ErrFrozen) && !n.broken {
			w.fail("FROZEN", n, "a frozen clone writes: %v", err)
		}
		return
	}
	if n.distrusts() && !n.liar {
		return
	}
	all := n.all()
	held := all[string(reg.Key())]
	out, err := n.st.Edit([]record.Register{reg})
	switch {
	case n.liar && err != nil:
		return // its own store does not take every lie
	case errors.Is(err, store.ErrAhead) && n.clock.Drift() >= hlc.MaxDrift:
		w.reach("edit refused: stamps ahead")
		return
	case err != nil:
		n.ought(err)
		return
	}
	w.log("edit", n, uint64(k), uint64(w.uid))
	for _, made := range out.Written {
		w.made[string(reg.Key())] = append(w.made[string(reg.Key())], made)
	}
	n.check()
	if n.liar {
		return
	}
	saw, seen := winner(held, n.wall())
	if seen && bytes.Equal(saw.Value, reg.Value) {
		if len(out.Written) > 0 {
			w.fail("QUIET", n, "a field is written that has the value already")
		}
		return
	}
	made, ok := n.written(reg)
	prev := hlc.Stamp(0)
	for _, o := range about(all, reg) {
		switch {
		case !plausible(o, n.wall()):
		case o.Author != n.dev:
			prev = max(prev, o.Stamp)
		default:
			prev = max(prev, o.Prev)
		}
	}
	switch {
	case !ok || made.Author != n.dev || !bytes.Equal(made.Value, reg.Value):
		w.fail("I3", n, "an edit that was answered with success is not there")
	case made.Prev != prev:
		w.fail("I9", n, "an edit says that it saw %v, and there was %v", made.Prev, prev)
	case seen && made.Stamp <= saw.Stamp:
		w.fail("I9", n, "an edit is stamped %v after one stamped %v was seen", made.Stamp, saw.Stamp)
	}
	won, ok, err := n.st.Register(reg.Entity, reg.Field)
	n.ought(err)
	if err == nil && (!ok || won.Compare(made) != 0) {
		w.fail("I9", n, "an edit does not win over what was there before it")
	}
}

// about returns the registers of reg's field; of a tag, those of a tag's name, end and merge together.
func about(all map[string][]record.Register, reg record.Register) (out []record.Register) {
	if reg.Entity.Kind != record.TagEntity {
		return all[string(reg.Key())]
	}
	for _, reg.Field = range []string{record.FieldName, record.FieldExists, record.FieldInto} {
		out = append(out, all[string(reg.Key())]...)
	}
	return out
}

// written returns what n's own feed holds of a field.
func (n *node) written(reg record.Register) (record.Register, bool) {
	row, ok, err := n.st.Entry(feed.ID{Device: n.dev}, reg.Key())
	if err != nil || !ok {
		return record.Register{}, false
	}
	rec, err := record.Decode(row.Key, row.Record)
	if err != nil {
		n.w.fail("I20", n, "a register does not decode: %v", err)
	}
	return rec.(record.Register), true
}

// rescued looks at what n has just rescued from a feed.
func (n *node) rescued(from feed.ID) {
	for _, e := range n.entries(feed.ID{Device: n.dev}) {
		rec, err := record.Decode(e.Key, e.Record)
		if err != nil {
			n.w.fail("I20", n, "a register does not decode: %v", err)
		}
		if reg := rec.(record.Register); reg.Author != n.dev && reg.Author != from.Device {
			n.w.reach("rescue of a third device's word")
		}
	}
}

// above is the order of registers, written again from its description.
func above(a, b record.Register) bool {
	if a.Stamp != b.Stamp {
		return a.Stamp > b.Stamp
	}
	if a.Author != b.Author {
		return bytes.Compare(a.Author[:], b.Author[:]) > 0
	}
	x, y := sha256.Sum256(a.Value), sha256.Sum256(b.Value)
	return bytes.Compare(x[:], y[:]) > 0
}

// plausible reports whether a register may win at now.
func plausible(r record.Register, now time.Time) bool {
	return int64(r.Stamp>>16) <= now.Add(hlc.MaxDrift).UnixMilli()
}

// winner is record.Merge, written again.
func winner(regs []record.Register, now time.Time) (won record.Register, ok bool) {
	for _, r := range regs {
		if plausible(r, now) && (!ok || above(r, won)) {
			won, ok = r, true
		}
	}
	return won, ok
}

// standsFor reports whether was is not lost where r, of the same field, is held: what is not yet believed
// stands for nothing that is, and gives way to it.
func standsFor(r, was record.Register, now time.Time) bool {
	if is := plausible(r, now); is != plausible(was, now) {
		return is
	}
	return !above(was, r)
}

// told is what a node has shown to people of each field and must not lose: the winner, and what won before
// it and was displaced only by a step of the clock.
type told map[string][]record.Register

// with returns t after won was shown.
func (t told) with(key string, won record.Register, now time.Time) {
	keep := []record.Register{won}
	for _, r := range t[key] {
		if !standsFor(won, r, now) {
			keep = append(keep, r)
		}
	}
	t[key] = keep
}

// all returns every register of a shared field that n holds, by field.
func (n *node) all() map[string][]record.Register {
	held := map[string][]record.Register{}
	for _, kind := range shared {
		err := n.st.Written(kind, func(r record.Register) error {
			k := string(r.Key())
			held[k] = append(held[k], r)
			return nil
		})
		if err != nil {
			n.ought(err)
			return nil
		}
	}
	return held
}

// checkView fails if a shared edit has vanished from what this node holds.
func (n *node) checkView() {
	held := n.all()
	if held == nil {
		return
	}
	now := n.wall()
	if !n.liar { // who lies about time loses what it writes over
		n.keeps("LOST", n.told, held, now)
	}
	n.view = map[string]record.Register{}
	for k, regs := range held {
		won, ok := winner(regs, now)
		if ok {
			n.view[k] = won
			n.told.with(k, won, now)
		}
	}
}

// hex writes registers for people.
func hex(regs ...record.Register) (out string) {
	for _, r := range regs {
		out += fmt.Sprintf(" %q by %.2x at %v", r.Value, r.Author[:2], r.Stamp)
	}
	return out
}

// keeps fails unless every register of old is among held, or something newer, or it was set aside.
func (n *node) keeps(id string, old told, held map[string][]record.Register, now time.Time) {
	for k, regs := range old {
		for i, was := range regs {
			same := func(r record.Register) bool { return r.Compare(was) == 0 }
			if slices.ContainsFunc(held[k], same) || n.w.forgotten[k+string(was.Append(nil))] {
				continue
			}
			newer := slices.IndexFunc(held[k], func(r record.Register) bool { return standsFor(r, was, now) })
			if newer >= 0 {
				old[k] = slices.Clone(regs)
				old[k][i] = held[k][newer]
				continue
			}
			aside, err := n.st.SetAside()
			n.ought(err)
			if !slices.ContainsFunc(aside, same) {
				n.w.fail(id, n, "shared edit %q of %v by %s is gone, which leaves %s", was.Value, was.Entity.Kind, hex(was), hex(held[k]...))
			}
		}
	}
}
