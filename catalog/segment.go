package catalog

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"

	"peerdex/query"
	"peerdex/record"
)

// segment is the names of one location in memory, with what a search asks of each: about 50 bytes an entry
// and the name itself. An entry has a slot, which is its own for as long as it lives.
//
// A parent that is not known, or not any more, has a slot without a name, so that entries can come in any
// order. Nobody counts who needs it: such slots are looked through when they have become many.
type segment struct {
	sync.RWMutex // guards what follows

	blocks  []*block
	hashes  []*[blockSize]uint16 // of each block: the first bits of the contents' hashes; nil as long as none is known
	count   uint32               // slots ever handed out
	free    []uint32             // slots handed back
	live    int                  // slots with a name
	kept    int                  // slots without one that the last sweep left
	byID    slots
	seed    maphash.Seed
	version uint64 // counts changes

	leafing atomic.Pointer[leafing] // the folder that somebody reads page by page; nil: none
	orphans atomic.Pointer[orphans] // as last counted; nil: never

	names   [][]byte // chunks, so that growing copies nothing; no name straddles two
	nameEnd int      // end of the last chunk
	garbage int      // bytes of names no longer used
}

const (
	blockSize  = 2048 // entries: 44 bytes each make whole pages
	chunkBits  = 16   // a chunk of names is 64 KiB, and 4 GiB of them are the most of a location
	chunkSize  = 1 << chunkBits
	noName     = ^uint32(0)
	parentMask = 1<<31 - 1
	noParent   = parentMask
)

// block holds what is known of blockSize entries, field by field: nothing is lost to alignment, and a scan
// reads only what it compares.
type block struct {
	ids     [blockSize]record.EntryID // zero: the slot is free
	sizes   [blockSize]uint64
	times   [blockSize]int64
	names   [blockSize]uint32 // place among the names; noName: a parent that is not known, or a free slot
	parents [blockSize]uint32 // slot, or noParent; the highest bit: the record says more
	lens    [blockSize]uint16 // of the folded name
	looks   [blockSize]uint16 // mode, kind and form
}

// A look is 12 bits of mode, two of the kind and two of the form: how a name follows from its folded form.
const (
	asFolded = iota // it is the same
	inLower         // it is ASCII in small letters
	mixed           // it is ASCII: after the folded name there is a bit for each byte, set for a small letter
	beside          // it stands after the folded name, its length before it
)

const moreBit = 1 << 31

func newSegment() *segment { return &segment{seed: maphash.MakeSeed()} }

func (s *segment) at(n uint32) (*block, uint32) { return s.blocks[n/blockSize], n % blockSize }

func (s *segment) hash(id record.EntryID) uint64 { return maphash.Comparable(s.seed, id) }

// find returns the slot of an entry, or of a parent that is not known.
func (s *segment) find(id record.EntryID) (uint32, bool) {
	return s.byID.find(s.hash(id), func(n uint32) bool {
		b, i := s.at(n)
		return b.ids[i] == id
	})
}

// slot is find that makes one without a name where there is none.
func (s *segment) slot(id record.EntryID) uint32 {
	if n, ok := s.find(id); ok {
		return n
	}
	var n uint32
	if last := len(s.free) - 1; last >= 0 {
		n, s.free = s.free[last], s.free[:last]
	} else {
		if n = s.count; n%blockSize == 0 {
			s.blocks, s.hashes = append(s.blocks, new(block)), append(s.hashes, nil)
		}
		s.count++
	}
	b, i := s.at(n)
	b.ids[i], b.names[i], b.parents[i] = id, noName, noParent
	if !s.byID.add(s.hash(id), n) {
		s.index(s.byID.used + s.byID.used/4 + 1)
	}
	return n
}

// index makes the table of IDs anew, with room for so many.
func (s *segment) index(room int) {
	s.byID = newSlots(room, s.count)
	for n := range s.count {
		if b, i := s.at(n); b.ids[i] != (record.EntryID{}) {
			s.byID.add(s.hash(b.ids[i]), n)
		}
	}
}

// Put takes in an entry, in place of what its ID stood for.
func (s *segment) Put(f record.File) {
	s.version++
	n, parent := s.slot(f.ID), uint32(noParent)
	if f.Parent != (record.EntryID{}) {
		parent = s.slot(f.Parent)
	}
	b, i := s.at(n)
	if b.names[i] == noName {
		s.live++
	} else {
		s.garbage += s.nameSize(n)
	}
	if f.Target != "" || !f.Hash.IsZero() {
		parent |= moreBit
	}
	b.sizes[i], b.times[i], b.parents[i] = f.Size, f.ModTime, parent
	s.setHash(n, begins(f.Hash))
	b.looks[i] = uint16(f.Mode)<<4 | uint16(f.Kind-1)<<2
	s.setName(n, f.Name)
	s.tidy()
}

func (s *segment) setHash(n uint32, begins uint16) {
	at := &s.hashes[n/blockSize]
	if *at == nil && begins != 0 {
		*at = new([blockSize]uint16)
	}
	if *at != nil {
		(*at)[n%blockSize] = begins
	}
}

// remove takes an entry out. It may be absent.
func (s *segment) remove(id record.EntryID) {
	n, ok := s.find(id)
	if !ok {
		return
	}
	b, i := s.at(n)
	if b.names[i] == noName {
		return
	}
	s.version++
	s.live--
	s.garbage += s.nameSize(n)
	b.names[i], b.parents[i] = noName, noParent
	s.tidy()
	if nameless := s.byID.used - s.live; nameless > max(blockSize, s.live/4, 2*s.kept) {
		s.sweep()
	}
}

// sweep hands back the slots without a name that are nobody's parent.
func (s *segment) sweep() {
	needed := make([]uint64, s.count/64+1)
	for n := range s.count {
		if b, i := s.at(n); b.names[i] != noName {
			if p := b.parents[i] & parentMask; p != noParent {
				needed[p/64] |= 1 << (p % 64)
			}
		}
	}
	s.kept = 0
	for n := range s.count {
		b, i := s.at(n)
		switch {
		case b.names[i] != noName:
		case needed[n/64]&(1<<(n%64)) != 0:
			s.kept++
		case b.ids[i] != (record.EntryID{}):
			b.ids[i] = record.EntryID{}
			s.free = append(s.free, n)
		}
	}
	s.index(s.live + s.kept + s.live/4)
}

// tidy moves the names in use together once most of their room is garbage.
func (s *segment) tidy() {
	if s.garbage < 2*chunkSize || s.garbage*2 < len(s.names)*chunkSize {
		return
	}
	old := s.names
	s.names, s.nameEnd, s.garbage = nil, 0, 0
	for n := range s.count {
		b, i := s.at(n)
		if b.names[i] == noName {
			continue
		}
		from := b.names[i]
		bytes := old[from>>chunkBits][from&(chunkSize-1):]
		b.names[i] = s.store(bytes[:sizeOfName(bytes, int(b.lens[i]), b.looks[i]&3)])
	}
}

// store adds bytes to the names and returns their place.
func (s *segment) store(b []byte) uint32 {
	if len(s.names) == 0 || s.nameEnd+len(b) > chunkSize {
		s.names = append(s.names, make([]byte, chunkSize))
		s.nameEnd = 0
	}
	last := len(s.names) - 1
	at := s.nameEnd
	s.nameEnd += copy(s.names[last][at:], b)
	return uint32(last)<<chunkBits | uint32(at)
}

// bytesOf returns the names from the place of n's on.
func (b *block) bytesOf(names [][]byte, i uint32) []byte {
	at := b.names[i]
	return names[at>>chunkBits][at&(chunkSize-1):]
}

// sizeOfName returns how many bytes of b a name takes that is n bytes long when folded.
func sizeOfName(b []byte, n int, form uint16) int {
	switch form {
	case mixed:
		return n + (n+7)/8
	case beside:
		own, head := binary.Uvarint(b[n:])
		return n + head + int(own)
	}
	return n
}

func (s *segment) nameSize(n uint32) int {
	b, i := s.at(n)
	return sizeOfName(b.bytesOf(s.names, i), int(b.lens[i]), b.looks[i]&3)
}

func (s *segment) setName(n uint32, name string) {
	var buf [3 * record.MaxName]byte
	out := query.Fold(buf[:0], []byte(name))
	folded := len(out)
	form := formOf(name, out)
	switch form {
	case mixed:
		out = append(out, make([]byte, (folded+7)/8)...)
		for i := range folded {
			if name[i] != out[i] {
				out[folded+i/8] |= 1 << (i % 8)
			}
		}
	case beside:
		out = append(binary.AppendUvarint(out, uint64(len(name))), name...)
	}
	b, i := s.at(n)
	b.lens[i] = uint16(folded)
	b.looks[i] = b.looks[i]&^3 | form
	b.names[i] = s.store(out)
}

func formOf(name string, folded []byte) uint16 {
	if name == string(folded) {
		return asFolded
	}
	upper := false
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 0x80:
			return beside
		case c >= 'A' && c <= 'Z':
			upper = true
		}
	}
	if upper {
		return mixed
	}
	return inLower
}

func (b *block) kind(i uint32) record.Kind { return record.Kind(b.looks[i]>>2&3) + 1 }

// folded returns the name of slot i of a block as it is searched.
func (b *block) folded(names [][]byte, i uint32) []byte { return b.bytesOf(names, i)[:b.lens[i]] }

// name returns the name of a slot as its file system has it.
func (s *segment) name(n uint32) string {
	b, i := s.at(n)
	all, size := b.bytesOf(s.names, i), int(b.lens[i])
	folded := all[:size]
	lower := func(c byte) byte {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		return c
	}
	switch b.looks[i] & 3 {
	case inLower:
		out := make([]byte, size)
		for k, c := range folded {
			out[k] = lower(c)
		}
		return string(out)
	case mixed:
		out := make([]byte, size)
		for k, c := range folded {
			if all[size+k/8]>>(k%8)&1 == 1 {
				c = lower(c)
			}
			out[k] = c
		}
		return string(out)
	case beside:
		own, head := binary.Uvarint(all[size:])
		return string(all[size+head:][:own])
	}
	return string(folded)
}

// file returns the record of a slot as far as it is known here, and whether the record itself says more.
func (s *segment) file(n uint32) (f record.File, more bool) {
	b, i := s.at(n)
	f = record.File{
		ID: b.ids[i], Kind: b.kind(i), Mode: uint32(b.looks[i] >> 4),
		Size: b.sizes[i], ModTime: b.times[i], Name: s.name(n),
	}
	if p := b.parents[i] & parentMask; p != noParent {
		pb, pi := s.at(p)
		f.Parent = pb.ids[pi]
	}
	return f, b.parents[i]&moreBit != 0
}

// slots finds entries by their IDs: a hash table with linear probing, of four bytes a cell. What a slot's
// number leaves of a cell holds bits of its hash, so that few IDs are looked at that are others.
type slots struct {
	cells []uint32 // slot number + 1 below, bits of the hash above; 0: empty
	mask  uint32   // of the number
	used  int
}

// newSlots returns a table for room entries, with numbers up to count or a little more.
func newSlots(room int, count uint32) slots {
	room = max(room, 64)
	return slots{cells: make([]uint32, room+room/4+2), mask: 1<<bits.Len32(max(count, uint32(room))+1) - 1}
}

// place returns where the search for a hash begins, and what a cell of it has above the number.
func (t *slots) place(h uint64) (int, uint32) {
	at, _ := bits.Mul64(h, uint64(len(t.cells)))
	return int(at), uint32(h) &^ t.mask
}

// find returns the entry with that hash which is fits.
func (t *slots) find(h uint64, is func(n uint32) bool) (uint32, bool) {
	if len(t.cells) == 0 {
		return 0, false
	}
	at, mark := t.place(h)
	for ; t.cells[at] != 0; at = t.after(at) {
		if c := t.cells[at]; c&^t.mask == mark && is(c&t.mask-1) {
			return c&t.mask - 1, true
		}
	}
	return 0, false
}

// add puts in an entry that is not there; false: the table is too small for it.
func (t *slots) add(h uint64, n uint32) bool {
	if (t.used+1)*5 > len(t.cells)*4 || n+1 > t.mask {
		return false
	}
	at, mark := t.place(h)
	for t.cells[at] != 0 {
		at = t.after(at)
	}
	t.cells[at] = mark | (n + 1)
	t.used++
	return true
}

func (t *slots) after(at int) int {
	if at++; at == len(t.cells) {
		return 0
	}
	return at
}
