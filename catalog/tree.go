package catalog

import (
	"hash/maphash"

	"peerdex/record"
)

// root is the number of the node of the location's own directory; none of no node.
const (
	root = uint32(0)
	none = ^uint32(0)
)

// node is one known entry. With its name and its places in the tables it costs about 110 bytes.
type node struct {
	id    record.EntryID
	ino   uint64 // 0: unknown
	size  uint64 // of a Symlink: a hash of its target
	mtime int64

	parent     uint32
	first      uint32 // of its children
	next, prev uint32 // among its siblings

	name    uint32 // place in the arena
	pass    uint32 // the pass that saw it last
	dev     uint16 // index into tree.devs
	mode    uint16
	nameLen uint16
	kind    record.Kind
	flags   uint8
}

const (
	flagFree     = 1 << iota // the node is not in use
	flagLimbo                // displaced: it stands at no name, and its tombstone is written
	flagUnread               // a directory that could not be listed the last time
	flagUnlisted             // too many links of one inode: not in the inode table
)

// identity is a thing on disk as the system tells it from others while it is mounted.
type identity struct {
	dev, ino uint64
}

const (
	nodeBits  = 12
	nameBits  = 20 // a chunk of names is 1 MiB; no name straddles two
	maxLinks  = 16 // nodes of one inode in the table: past that, links of a file are known by name alone
	nodeChunk = 1 << nodeBits
	nameChunk = 1 << nameBits
)

// tree is what is known of one location, in memory. It belongs to one goroutine.
type tree struct {
	nodes [][]node // chunks, so that a node never moves
	count uint32   // nodes ever handed out
	free  uint32   // head of the list of free nodes, linked by next; none if empty

	names   [][]byte // chunks of the arena
	nameEnd int      // end of the last chunk
	garbage int      // bytes of names no longer used

	byName table // children by parent and name
	byIno  table // nodes by device and inode

	devs []uint64 // device numbers; [0] is that of the folder itself
	seed maphash.Seed

	files, dirs int // live ones; the folder itself does not count
	bytes       uint64
	hashName    func(uint32) uint64
	hashIno     func(uint32) uint64
}

func newTree() *tree {
	t := &tree{free: none, devs: []uint64{0}, seed: maphash.MakeSeed()}
	t.hashName = func(n uint32) uint64 { nd := t.at(n); return t.nameHash(nd.parent, t.nameOf(nd)) }
	t.hashIno = func(n uint32) uint64 { nd := t.at(n); return inoHash(nd.dev, nd.ino) }
	n := t.alloc()
	nd := t.at(n)
	*nd = node{kind: record.Directory, parent: none, first: none, next: none, prev: none}
	return t
}

func (t *tree) at(n uint32) *node { return &t.nodes[n>>nodeBits][n&(nodeChunk-1)] }

func (t *tree) alloc() uint32 {
	if n := t.free; n != none {
		t.free = t.at(n).next
		return n
	}
	if int(t.count>>nodeBits) == len(t.nodes) {
		t.nodes = append(t.nodes, make([]node, nodeChunk))
	}
	t.count++
	return t.count - 1
}

func (t *tree) nameOf(nd *node) []byte {
	at := nd.name & (nameChunk - 1)
	return t.names[nd.name>>nameBits][at : at+uint32(nd.nameLen)]
}

func (t *tree) setName(nd *node, name string) {
	if len(t.names) == 0 || t.nameEnd+len(name) > nameChunk {
		t.names = append(t.names, make([]byte, nameChunk))
		t.nameEnd = 0
	}
	last := len(t.names) - 1
	copy(t.names[last][t.nameEnd:], name)
	nd.name, nd.nameLen = uint32(last<<nameBits|t.nameEnd), uint16(len(name))
	t.nameEnd += len(name)
}

// tidy moves the names in use together once most of the arena is garbage.
func (t *tree) tidy() {
	if t.garbage < nameChunk || t.garbage*2 < len(t.names)*nameChunk {
		return
	}
	old := t.names
	t.names, t.nameEnd, t.garbage = nil, 0, 0
	for n := uint32(0); n < t.count; n++ {
		if nd := t.at(n); nd.flags&flagFree == 0 && nd.nameLen > 0 {
			at := nd.name & (nameChunk - 1)
			t.setName(nd, string(old[nd.name>>nameBits][at:at+uint32(nd.nameLen)]))
		}
	}
}

func (t *tree) nameHash(parent uint32, name []byte) uint64 {
	return maphash.Bytes(t.seed, name) + uint64(parent)*0x9e3779b97f4a7c15
}

func inoHash(dev uint16, ino uint64) uint64 {
	h := (ino ^ uint64(dev)<<48) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// targetHash stands for the target of a link.
func (t *tree) targetHash(target string) uint64 { return maphash.String(t.seed, target) }

// child returns the entry of a directory with that name, or none.
func (t *tree) child(parent uint32, name string) uint32 {
	found := none
	h := maphash.String(t.seed, name) + uint64(parent)*0x9e3779b97f4a7c15
	t.byName.find(h, func(n uint32) bool {
		nd := t.at(n)
		if nd.parent == parent && string(t.nameOf(nd)) == name {
			found = n
			return true
		}
		return false
	})
	return found
}

// devIndex returns the small number of a device number.
func (t *tree) devIndex(dev uint64) uint16 {
	for i, d := range t.devs {
		if d == dev {
			return uint16(i)
		}
	}
	if len(t.devs) > 1<<15 { // nobody has that many: forget who was where
		return 1<<16 - 1
	}
	t.devs = append(t.devs, dev)
	return uint16(len(t.devs) - 1)
}

// identify sets what the node is on disk and enters it among the inodes.
func (t *tree) identify(n uint32, dev uint16, ino uint64) {
	t.forget(n)
	nd := t.at(n)
	nd.dev, nd.ino = dev, ino
	if ino == 0 {
		return
	}
	links := 0
	h := inoHash(dev, ino)
	t.byIno.find(h, func(m uint32) bool {
		if md := t.at(m); md.dev == dev && md.ino == ino {
			links++
		}
		return links >= maxLinks
	})
	if links >= maxLinks {
		nd.flags |= flagUnlisted
		return
	}
	t.byIno.add(h, n, t.hashIno)
}

func (t *tree) forget(n uint32) {
	nd := t.at(n)
	if nd.ino != 0 && nd.flags&flagUnlisted == 0 {
		t.byIno.remove(inoHash(nd.dev, nd.ino), n)
	}
	nd.ino = 0
	nd.flags &^= flagUnlisted
}

// link puts the node at a name that must be free.
func (t *tree) link(n, parent uint32, name string) {
	nd := t.at(n)
	t.setName(nd, name)
	p := t.at(parent)
	nd.parent, nd.prev, nd.next = parent, none, p.first
	if p.first != none {
		t.at(p.first).prev = n
	}
	p.first = n
	t.byName.add(t.hashName(n), n, t.hashName)
}

// unlink takes the node away from its name; its children stay with it.
func (t *tree) unlink(n uint32) {
	nd := t.at(n)
	t.byName.remove(t.hashName(n), n)
	if nd.prev != none {
		t.at(nd.prev).next = nd.next
	} else {
		t.at(nd.parent).first = nd.next
	}
	if nd.next != none {
		t.at(nd.next).prev = nd.prev
	}
	t.garbage += int(nd.nameLen)
	nd.parent, nd.next, nd.prev, nd.nameLen = none, none, none, 0
}

// tally counts a live entry in (sign 1) or out (sign -1).
func (t *tree) tally(nd *node, sign int) {
	switch nd.kind {
	case record.Directory:
		t.dirs += sign
	case record.Regular:
		t.files += sign
		t.bytes += uint64(sign) * nd.size
	default:
		t.files += sign
	}
}

// release frees an unlinked node without children.
func (t *tree) release(n uint32) {
	t.forget(n)
	nd := t.at(n)
	*nd = node{flags: flagFree, next: t.free, parent: none, first: none, prev: none}
	t.free = n
}

// below reports whether n is anc or lies under it.
func (t *tree) below(n, anc uint32) bool {
	for ; n != none; n = t.at(n).parent {
		if n == anc {
			return true
		}
	}
	return false
}

// rel returns the path of the node below the location, with slashes, "" for the location itself; false if the node
// hangs from nothing.
func (t *tree) rel(n uint32) (string, bool) {
	size, depth := 0, 0
	at := n
	for ; at != root; at = t.at(at).parent {
		if at == none || t.at(at).flags&(flagLimbo|flagFree) != 0 {
			return "", false
		}
		size += int(t.at(at).nameLen) + 1
		depth++
	}
	if depth == 0 {
		return "", true
	}
	out := make([]byte, size-1)
	end := len(out)
	for at = n; at != root; at = t.at(at).parent {
		nd := t.at(at)
		end -= int(nd.nameLen)
		copy(out[end:], t.nameOf(nd))
		if end > 0 {
			end--
			out[end] = '/'
		}
	}
	return string(out), true
}

// walk calls fn for n and everything below it, children after their parents.
func (t *tree) walk(n uint32, fn func(n uint32)) {
	stack := []uint32{n}
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		fn(n)
		for c := t.at(n).first; c != none; c = t.at(c).next {
			stack = append(stack, c)
		}
	}
}
