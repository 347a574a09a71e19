//go:build linux

package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"peerdex/feed"
	"peerdex/record"
)

func tagReg(n byte, field string, value ...byte) record.Register {
	return record.Register{Entity: record.Tag(record.TagID{n}), Field: field, Value: value}
}

// newTag returns the registers that make a tag.
func newTag(n byte, name string) []record.Register {
	return []record.Register{tagReg(n, record.FieldName, []byte(name)...), tagReg(n, record.FieldExists, 1)}
}

func put(e record.Entity, tag byte, on byte) record.Register {
	return record.Register{Entity: e, Field: record.TagField(record.TagID{tag}), Value: []byte{on}}
}

func noteOn(e record.Entity, text string) record.Register {
	return record.Register{Entity: e, Field: record.FieldNote, Value: []byte(text)}
}

// shown returns what an entry shows, in one line: its tags, then its note.
func shown(t *testing.T, c *Catalog, at feed.ID, e record.EntryID, h record.Hash) string {
	t.Helper()
	m, err := c.Marks()
	must(t, err)
	var names []string
	for _, tag := range m.In(at).Tags(e, h) {
		if !m.In(at).Has(tag.ID, e, h) {
			t.Errorf("%q is among the tags, and is not there", tag.Name)
		}
		names = append(names, "#"+tag.Name)
	}
	own, content := m.In(at).Notes(e, h)
	for _, note := range []string{own, content} {
		if note != "" {
			names = append(names, note)
		}
	}
	return strings.Join(names, " ")
}

func TestMarks(t *testing.T) {
	s := newLedger(t)
	c := New(s)
	owner, loc := testDevice(), record.LocationID{7}
	at := feed.ID{Device: owner, Location: loc}
	file, other, hash := record.EntryID{1}, record.EntryID{2}, record.Hash{3}
	entry, content := record.Entry(owner, loc, file), record.Content(hash)

	if got, want := fmt.Sprint(c.Tags()), fmt.Sprint(builtInTags(), nil); got != want {
		t.Errorf("a fresh store has the tags %s, want %s", got, want)
	}
	step := func(want string, regs ...record.Register) {
		t.Helper()
		must(t, s.SetRegisters(regs...))
		if got := shown(t, c, at, file, hash); got != want {
			t.Errorf("the file shows %q, want %q", got, want)
		}
	}
	step("", put(entry, 1, 1)) // of a tag not heard of yet
	step("#Family", newTag(1, "Family")...)
	step("#Family #later", put(content, 1, 1), record.Register{Entity: content, Field: record.TagField(builtInTags()[2].ID), Value: []byte{1}})
	step("#Family #later of the content", noteOn(content, "of the content"))
	step("#Family #later its own of the content", noteOn(entry, "its own"))
	step("#Family #later of the content", noteOn(entry, ""))
	if got := shown(t, c, at, other, hash); got != "#Family #later of the content" {
		t.Errorf("another file with that content shows %q", got)
	}
	if got := shown(t, c, at, other, record.Hash{}); got != "" {
		t.Errorf("a file without a hash shows %q", got)
	}
	if got := shown(t, c, feed.ID{Device: owner}, file, record.Hash{}); got != "" {
		t.Errorf("a file of that ID elsewhere shows %q", got)
	}
	step("#Family #later of the content", put(entry, 1, 0)) // it is still on the content
	step("#later of the content", put(content, 1, 0))
	step("#Family #later of the content", put(entry, 1, 1))
	step("#later of the content", tagReg(1, record.FieldExists, 0))
	step("#later of the content", tagReg(1, record.FieldName, []byte("renamed")...), put(entry, 1, 1)) // it does not come back by that

	m, err := c.Marks()
	must(t, err)
	if again, err := c.Marks(); err != nil || again != m {
		t.Errorf("read again although nothing has changed: %v", err)
	}
	must(t, s.SetRegisters(record.Register{Entity: record.Device(owner), Field: record.FieldAddrs, Value: []byte("x")}))
	if again, err := c.Marks(); err != nil || again != m {
		t.Errorf("read again although only a device changed: %v", err)
	}
}

// Registers can hold anything.
func TestMarksOfHostileRegisters(t *testing.T) {
	s := newLedger(t)
	c := New(s)
	entry := record.Entry(testDevice(), record.LocationID{7}, record.EntryID{1})
	hostile := "<b>\x1b[31m\u202e\n\xff"
	regs := append(newTag(1, hostile), tagReg(2, record.FieldExists, 1), put(entry, 1, 1), put(entry, 2, 1))
	for i, value := range [][]byte{nil, {2}, {1, 1}, []byte("true")} {
		regs = append(regs, record.Register{Entity: entry, Field: record.TagField(record.TagID{2, byte(i + 1)}), Value: value})
	}
	id := strings.Repeat("ab", 16)
	for _, field := range []string{"tag", "tag/", "tag/" + id[1:], "tag/" + strings.ToUpper(id), "tag/" + id + "00", "tag/" + strings.Repeat("x", 32), "note/1", "\xff"} {
		regs = append(regs, record.Register{Entity: entry, Field: field, Value: []byte{1}})
	}
	regs = append(regs, tagReg(3, record.FieldExists, 1), tagReg(3, record.FieldInto, []byte("short")...))
	b := builtInTags()[0].ID
	regs = append(regs, record.Register{Entity: record.Tag(b), Field: record.FieldExists, Value: []byte{0}},
		record.Register{Entity: record.Tag(b), Field: record.FieldName, Value: []byte("stolen")})
	must(t, s.SetRegisters(regs...))
	got := shown(t, c, feed.ID{Device: testDevice(), Location: record.LocationID{7}}, record.EntryID{1}, record.Hash{})
	if want := "#" + (record.TagID{2}).String() + " #" + hostile; got != want {
		t.Errorf("shows %q, want %q", got, want)
	}
	m, err := c.Marks()
	must(t, err)
	if len(m.Named("Favorite")) != 1 || len(m.Named(hostile)) != 1 || len(m.Named("stolen")) != 0 {
		t.Errorf("tags are %+v", m.Tags())
	}
}

// Merged tags are one, wherever they were put; tags of one name that were not are several.
func TestMarksOfMergedTags(t *testing.T) {
	s := newLedger(t)
	c := New(s)
	at := feed.ID{Device: testDevice(), Location: record.LocationID{7}}
	entry := record.Entry(at.Device, at.Location, record.EntryID{1})
	var regs []record.Register
	for n := byte(1); n <= 7; n++ {
		regs = append(append(regs, newTag(n, cmp.Or(map[byte]string{1: "beach", 2: "BEACH"}[n], fmt.Sprint("tag ", n)))...), put(entry, n, 1))
	}
	must(t, s.SetRegisters(regs...))
	if got, want := shown(t, c, at, record.EntryID{1}, record.Hash{}), "#beach #BEACH #tag 3 #tag 4 #tag 5 #tag 6 #tag 7"; got != want {
		t.Errorf("shows %q, want %q", got, want)
	}
	m, err := c.Marks()
	must(t, err)
	if got := m.Named("Beach"); len(got) != 2 || got[0].ID != (record.TagID{1}) || got[1].ID != (record.TagID{2}) {
		t.Errorf("tags named beach: %+v", got)
	}
	into := func(n, m byte) record.Register {
		id := record.TagID{m}
		return tagReg(n, record.FieldInto, id[:]...)
	}
	// 2 into 1, the ring 3 to 5, 6 into what was deleted, 7 into what nobody has heard of
	must(t, s.SetRegisters(into(2, 1), into(3, 4), into(4, 5), into(5, 3), into(6, 8), tagReg(8, record.FieldExists, 0), into(7, 99)))
	if got, want := shown(t, c, at, record.EntryID{1}, record.Hash{}), "#beach #tag 3"; got != want {
		t.Errorf("shows %q, want %q", got, want)
	}
	m, err = c.Marks()
	must(t, err)
	if got := m.WithID(record.TagID{2}.String()[:8]); len(got) != 1 || got[0].ID != (record.TagID{1}) {
		t.Errorf("by the id of one that was merged: %+v", got)
	}
	for n, want := range map[byte]byte{1: 1, 2: 1, 3: 3, 4: 3, 5: 3, 6: 0, 7: 0} {
		got, ok := m.Tag(record.TagID{n})
		if ok != (want != 0) || got.ID != (record.TagID{want}) {
			t.Errorf("tag %d is seen as %+v, want %d", n, got, want)
		}
	}
	same := m.Same(m.Named("beach")[0])
	slices.SortFunc(same, func(a, b record.TagID) int { return slices.Compare(a[:], b[:]) })
	if want := []record.TagID{{1}, {2}}; !slices.Equal(same, want) {
		t.Errorf("the same as beach: %v", same)
	}
	on := 0
	m.On(record.TagID{4}, func(id feed.ID, e record.EntryID) {
		if id != at || e != (record.EntryID{1}) {
			t.Errorf("on %v %v", id, e)
		}
		on++
	}, func(h record.Hash) { t.Errorf("on content %v", h) })
	if on != 1 {
		t.Errorf("on %d entries, want 1", on)
	}
}

// A name is one, however its characters are composed and large its letters.
func TestNamesComposedApart(t *testing.T) {
	s := newLedger(t)
	must(t, s.SetRegisters(newTag(1, "Caf\u00e9")...))
	m, err := New(s).Marks()
	must(t, err)
	for name, want := range map[string]int{"caf\u00e9": 1, "CAFE\u0301": 1, "cafe": 0, "caf\xe9": 0} {
		if got := m.Named(name); len(got) != want {
			t.Errorf("%q names %+v", name, got)
		}
	}
}

// A chain of merges as long as a hostile device makes it costs no more than its length.
func TestMarksOfALongChain(t *testing.T) {
	states := map[record.TagID]*tagState{}
	id := func(n int) (t record.TagID) {
		copy(t[:], fmt.Appendf(nil, "%016d", n))
		return t
	}
	const long = 100_000
	for n := range long {
		states[id(n)] = &tagState{exists: true, into: id(n + 1)}
	}
	ends := followMerges(states)
	for n := range long {
		if ends[id(n)] != id(long) {
			t.Fatalf("tag %d ends at %q", n, ends[id(n)])
		}
	}
}
