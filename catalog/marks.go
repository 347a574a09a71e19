package catalog

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"peerdex/feed"
	"peerdex/query"
	"peerdex/record"
	"peerdex/store"
)

// Tag is a tag that can be put on entries and contents.
type Tag struct {
	ID      record.TagID
	Name    string // any bytes, as whoever named it chose; its ID in hexadecimal if nobody named it
	BuiltIn bool   // known by every device alike, without a register
}

// builtIn are the names of the tags that every device has from the start. A name once used stays.
var builtIn = []string{"favorite", "important", "later"}

// builtInTags returns the tags of builtIn.
func builtInTags() []Tag {
	out := make([]Tag, len(builtIn))
	for i, name := range builtIn {
		sum := sha256.Sum256([]byte("peerdex built-in tag 1\x00" + name))
		out[i] = Tag{ID: record.TagID(sum[:len(record.TagID{})]), Name: name, BuiltIn: true}
	}
	return out
}

// Marks is what people have put on entries and contents, as it stood at one moment: tags and notes. It
// never changes, so it needs no lock, and one is good for a whole query. It takes memory for what is
// marked only, about 200 bytes each.
//
// Whoever asks for many entries of a location takes the location's marks once, with In. Whoever looks for a
// tag by its name takes the tags of that name with Named, and asks Has for each of them.
type Marks struct {
	tags     []Tag                // shown, by folded name and ID
	index    map[record.TagID]int // into tags, of those shown and of those merged into them
	entries  map[feed.ID]map[record.EntryID]mark
	contents map[record.Hash]mark
}

// mark is what stands on one entry or content.
type mark struct {
	tags []int // into Marks.tags, ascending
	note string
}

// Marks returns the tags and notes that everybody sees. It is kept: it reads the store again only when
// registers about them have changed, or when one that lay in the future has come to be believed. That
// takes about 3 µs for each register of that kind.
func (c *Catalog) Marks() (*Marks, error) {
	c.marking.Lock()
	defer c.marking.Unlock()
	if c.marks != nil && c.feeds.Current(c.marked) {
		return c.marks, nil
	}
	m, edition, err := readMarks(c.feeds)
	if err != nil {
		return nil, err
	}
	c.marks, c.marked = m, edition
	return m, nil
}

// Tags returns every tag that is shown, built-in ones included, by folded name and ID. Tags of one name
// made apart from each other are several.
func (c *Catalog) Tags() ([]Tag, error) {
	m, err := c.Marks()
	if err != nil {
		return nil, err
	}
	return m.Tags(), nil
}

// tagState is what registers say of a tag.
type tagState struct {
	name   string
	exists bool
	into   record.TagID // it was merged into; zero: none
}

func readMarks(feeds Reader) (*Marks, store.Edition, error) {
	m := &Marks{index: map[record.TagID]int{}, entries: map[feed.ID]map[record.EntryID]mark{}, contents: map[record.Hash]mark{}}
	states := map[record.TagID]*tagState{}
	begun := false
	begin := func() { // once all tags are known: their registers come first
		if !begun {
			begun = true
			m.show(states)
		}
	}
	edition, err := feeds.Winners(func(r record.Register) error {
		if r.Entity.Kind == record.TagEntity {
			id := record.TagID([]byte(r.Entity.ID))
			if states[id] == nil {
				states[id] = &tagState{}
			}
			states[id].take(r)
			return nil
		}
		begin()
		m.put(r)
		return nil
	}, record.TagEntity, record.EntryEntity, record.ContentEntity)
	begin()
	return m, edition, err
}

func (s *tagState) take(r record.Register) {
	switch r.Field {
	case record.FieldName:
		s.name = string(r.Value)
	case record.FieldExists:
		s.exists = isTrue(r.Value)
	case record.FieldInto:
		if len(r.Value) == len(s.into) {
			s.into = record.TagID(r.Value)
		}
	}
}

func isTrue(value []byte) bool { return len(value) == 1 && value[0] == 1 }

// show decides which tags are shown, and as which of them the others are seen.
func (m *Marks) show(states map[record.TagID]*tagState) {
	m.tags = builtInTags()
	for _, t := range m.tags {
		delete(states, t.ID) // whatever somebody wrote about it
	}
	ends := followMerges(states)
	for id, s := range states {
		if ends[id] == id {
			m.tags = append(m.tags, Tag{ID: id, Name: cmp.Or(s.name, id.String())})
		}
	}
	slices.SortFunc(m.tags, func(a, b Tag) int {
		return cmp.Or(cmp.Compare(FoldName(a.Name), FoldName(b.Name)), slices.Compare(a.ID[:], b.ID[:]))
	})
	for i, t := range m.tags {
		m.index[t.ID] = i
	}
	for id, end := range ends {
		if i, shown := m.index[end]; shown {
			m.index[id] = i
		}
	}
}

// followMerges returns for each tag the one it is seen as: itself, or what it was merged into in the end. Tags
// that were deleted, or merged into one that was, are missing. Tags that devices apart merged into each
// other, in a ring, are seen as the one of them with the least ID.
func followMerges(states map[record.TagID]*tagState) map[record.TagID]record.TagID {
	ends := map[record.TagID]record.TagID{}
	for id := range states {
		var way []record.TagID
		step := map[record.TagID]int{}
		end := id
		for {
			s := states[end]
			if s != nil && !s.exists {
				end = record.TagID{}
				break
			}
			if s == nil || s.into == (record.TagID{}) { // nil: built in, or not heard of yet
				break
			}
			if known, ok := ends[end]; ok {
				end = known
				break
			}
			if i, ok := step[end]; ok {
				end = slices.MinFunc(way[i:], func(a, b record.TagID) int { return bytes.Compare(a[:], b[:]) })
				break
			}
			step[end] = len(way)
			way = append(way, end)
			end = s.into
		}
		for _, w := range append(way, id) {
			ends[w] = end
		}
	}
	maps.DeleteFunc(ends, func(_, end record.TagID) bool { return end == record.TagID{} })
	return ends
}

// put takes a register about an entry or a content.
func (m *Marks) put(r record.Register) {
	var (
		tag      = -1
		note     string
		t, isTag = tagOf(r.Field)
	)
	switch {
	case isTag && isTrue(r.Value):
		var ok bool
		if tag, ok = m.index[t]; !ok {
			return // of a tag that is gone, or not heard of yet
		}
	case r.Field == record.FieldNote && len(r.Value) > 0:
		note = string(r.Value)
	default:
		return
	}
	if r.Entity.Kind == record.ContentEntity {
		h := record.Hash([]byte(r.Entity.ID))
		m.contents[h] = m.contents[h].with(tag, note)
		return
	}
	id, entry := entryOf(r.Entity)
	at := m.entries[id]
	if at == nil {
		at = map[record.EntryID]mark{}
		m.entries[id] = at
	}
	at[entry] = at[entry].with(tag, note)
}

// with returns the mark with one more tag (not -1) or a note (not empty).
func (k mark) with(tag int, note string) mark {
	if note != "" {
		k.note = note
	}
	if i, has := slices.BinarySearch(k.tags, tag); tag >= 0 && !has {
		k.tags = slices.Insert(k.tags, i, tag)
	}
	return k
}

// entryOf returns the entry that an EntryEntity is, and its location's feed.
func entryOf(e record.Entity) (feed.ID, record.EntryID) {
	owner, l, entry := e.Entry()
	return feed.ID{Device: owner, Location: l}, entry
}

// tagOf returns the tag that a field of an entry or content is about.
func tagOf(field string) (id record.TagID, ok bool) {
	text, ok := strings.CutPrefix(field, record.FieldTag+"/")
	b, err := hex.DecodeString(text)
	if !ok || err != nil || len(b) != len(id) {
		return id, false
	}
	copy(id[:], b)
	return id, field == record.TagField(id)
}

// Tags returns every tag that is shown, by folded name and ID. The slice is not the caller's to change.
func (m *Marks) Tags() []Tag { return m.tags }

// Named returns the tags called so, as SameName has it: several if devices made them apart, none if there is
// none.
func (m *Marks) Named(name string) (out []Tag) {
	for _, t := range m.tags {
		if SameName(t.Name, name) {
			out = append(out, t)
		}
	}
	return out
}

// WithID returns the tags that are shown of those whose IDs in hexadecimal begin so. One that was merged away is
// the one it was merged into.
func (m *Marks) WithID(digits string) (out []Tag) {
	for id, i := range m.index {
		if strings.HasPrefix(id.String(), digits) && !slices.Contains(out, m.tags[i]) {
			out = append(out, m.tags[i])
		}
	}
	slices.SortFunc(out, func(a, b Tag) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return out
}

// Showing counts the entries of all devices that show a tag, on themselves or through their content.
func (c *Catalog) Showing(ctx context.Context, m *Marks, tag record.TagID) (uint64, error) {
	all, err := c.Locations()
	if err != nil {
		return 0, err
	}
	there := map[feed.ID]bool{}
	for _, l := range all {
		there[l.Feed()] = true
	}
	shown := map[feed.ID]map[record.EntryID]bool{}
	show := func(at feed.ID, e record.EntryID) {
		if shown[at] == nil {
			shown[at] = map[record.EntryID]bool{}
		}
		shown[at][e] = true
	}
	var failed error
	of := map[record.Hash]bool{}
	m.On(tag, func(at feed.ID, e record.EntryID) {
		if !there[at] || failed != nil || ctx.Err() != nil {
			return
		}
		_, ok, err := c.file(at, e)
		if errors.Is(err, store.ErrUnknownFeed) {
			return // the location is known by its registers alone, so far
		}
		if failed = err; ok {
			show(at, e)
		}
	}, func(h record.Hash) { of[h] = true })
	if failed == nil && len(of) > 0 {
		failed = c.contents(ctx, of, func(_ record.Hash, at feed.ID, e record.EntryID) error {
			if there[at] {
				show(at, e)
			}
			return nil
		})
	}
	n := 0
	for _, entries := range shown {
		n += len(entries)
	}
	return uint64(n), cmp.Or(failed, ctx.Err())
}

// FoldName returns what names of one tag have in common: composed characters (Unicode NFC), and no difference
// between large and small letters.
func FoldName(name string) string { return string(query.Fold(nil, norm.NFC.Bytes([]byte(name)))) }

// SameName reports whether two names are one.
func SameName(a, b string) bool { return FoldName(a) == FoldName(b) }

// Tag returns the tag as which id is seen: itself, or the one it was merged into. False if it is gone or
// unknown.
func (m *Marks) Tag(id record.TagID) (Tag, bool) {
	i, ok := m.index[id]
	if !ok {
		return Tag{}, false
	}
	return m.tags[i], true
}

// Same returns the IDs of a shown tag and of all that were merged into it.
func (m *Marks) Same(t Tag) (out []record.TagID) {
	want, ok := m.index[t.ID]
	for id, i := range m.index {
		if ok && i == want {
			out = append(out, id)
		}
	}
	return out
}

// On calls a function for every entry and every content that a tag was put on, in no order. Entries that have
// left their location, and contents that nobody has any more, are among them.
func (m *Marks) On(tag record.TagID, entry func(feed.ID, record.EntryID), content func(record.Hash)) {
	i, ok := m.index[tag]
	if !ok {
		return
	}
	for id, at := range m.entries {
		for e, k := range at {
			if _, has := slices.BinarySearch(k.tags, i); has {
				entry(id, e)
			}
		}
	}
	for h, k := range m.contents {
		if _, has := slices.BinarySearch(k.tags, i); has {
			content(h)
		}
	}
}

// Of returns what was put on one entry or content itself.
func (m *Marks) Of(e record.Entity) (tags []Tag, note string) {
	var k mark
	if e.Kind == record.ContentEntity {
		k = m.contents[record.Hash([]byte(e.ID))]
	} else {
		at, entry := entryOf(e)
		k = m.entries[at][entry]
	}
	for _, i := range k.tags {
		tags = append(tags, m.tags[i])
	}
	return tags, k.note
}

// In returns the marks of one location, by its feed.
func (m *Marks) In(location feed.ID) Marked { return Marked{marks: m, entries: m.entries[location]} }

// Marked is the Marks of one location. What was put on an entry is shown there, and what was put on a
// content wherever that content is; hash is that of the entry's content, zero if it is not known.
type Marked struct {
	marks   *Marks
	entries map[record.EntryID]mark
}

// Has reports whether an entry shows a tag.
func (l Marked) Has(tag record.TagID, entry record.EntryID, hash record.Hash) bool {
	i, ok := l.marks.index[tag]
	if !ok {
		return false
	}
	_, has := slices.BinarySearch(l.entries[entry].tags, i)
	if !has && !hash.IsZero() {
		_, has = slices.BinarySearch(l.marks.contents[hash].tags, i)
	}
	return has
}

// Tags returns the tags that an entry shows, by folded name and ID.
func (l Marked) Tags(entry record.EntryID, hash record.Hash) (out []Tag) {
	all := l.entries[entry].tags
	if !hash.IsZero() {
		all = slices.Concat(all, l.marks.contents[hash].tags)
		slices.Sort(all)
		all = slices.Compact(all)
	}
	for _, i := range all {
		out = append(out, l.marks.tags[i])
	}
	return out
}

// Notes returns what is noted of an entry itself, and of its content.
func (l Marked) Notes(entry record.EntryID, hash record.Hash) (own, content string) {
	if !hash.IsZero() {
		content = l.marks.contents[hash].note
	}
	return l.entries[entry].note, content
}
