package feed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"peerdex/internal/mutant"
)

// Hash is a SHA-256 of a leaf or a node of the tree; zero where nothing is below.
type Hash [sha256.Size]byte

// Shape is the geometry of the tree. The product uses DefaultShape; the simulator smaller ones, so that
// a few entries make a deep tree.
type Shape struct {
	LeafBits uint // a leaf spans 1<<LeafBits sequence numbers, at most 8
	FanBits  uint // a node has 1<<FanBits children; at least 1
}

// DefaultShape has leaves of 256 sequence numbers under nodes of 16 children.
var DefaultShape = Shape{LeafBits: 8, FanBits: 4}

// Leaf returns the index of the leaf that holds seq.
func (s Shape) Leaf(seq uint64) uint64 { return seq >> s.LeafBits }

// Fan returns the number of children of a node.
func (s Shape) Fan() int { return 1 << s.FanBits }

// Top returns the level of the node over all leaves up to that of seq; level 0 are the leaves.
func (s Shape) Top(seq uint64) int {
	level := 0
	for last := s.Leaf(seq); last > 0; last >>= s.FanBits {
		level++
	}
	return level
}

// Leaf is the sorted list of what a leaf holds. While a feed is being repaired two entries may stand at
// one seq.
type Leaf []Ref

// Hash returns SHA-256 over a zero byte and the (seq, digest) pairs in order, or zero if there are none.
// The first byte keeps leaves and nodes apart (RFC 6962, 2.1).
func (l Leaf) Hash() (h Hash) {
	if len(l) == 0 {
		return h
	}
	buf := make([]byte, 1, 1+len(l)*(8+DigestSize))
	for _, r := range l {
		buf = binary.BigEndian.AppendUint64(buf, r.Seq)
		buf = append(buf, r.Digest[:]...)
	}
	return sha256.Sum256(buf)
}

func (l Leaf) find(r Ref) (int, bool) { return slices.BinarySearchFunc(l, r, compareRefs) }

func compareRefs(a, b Ref) int {
	if c := cmp(a.Seq, b.Seq); c != 0 {
		return c
	}
	return bytes.Compare(a.Digest[:], b.Digest[:])
}

// Missing returns the refs of l that o lacks.
func (l Leaf) Missing(o Leaf) (out []Ref) {
	for _, r := range l {
		if _, ok := o.find(r); !ok {
			out = append(out, r)
		}
	}
	return out
}

// Pack writes a leaf for disk or wire: one byte of offset within the leaf and 16 of digest per entry.
func (s Shape) Pack(l Leaf) []byte {
	out := make([]byte, 0, len(l)*(1+DigestSize))
	for _, r := range l {
		out = append(out, byte(r.Seq&(1<<s.LeafBits-1)))
		out = append(out, r.Digest[:]...)
	}
	return out
}

// errLeaf is returned for bytes that are no packed leaf.
var errLeaf = errors.New("leaf is not sorted or not whole")

// Unpack reads what Pack wrote for the leaf with index i.
func (s Shape) Unpack(i uint64, b []byte) (Leaf, error) {
	const each = 1 + DigestSize
	if len(b)%each != 0 {
		return nil, errLeaf
	}
	l := make(Leaf, 0, len(b)/each+1)
	for ; len(b) > 0; b = b[each:] {
		r := Ref{Seq: i<<s.LeafBits | uint64(b[0])}
		copy(r.Digest[:], b[1:each])
		if uint(b[0])>>s.LeafBits != 0 || len(l) > 0 && compareRefs(l[len(l)-1], r) >= 0 {
			return nil, errLeaf
		}
		l = append(l, r)
	}
	return l, nil
}

// HashNode returns SHA-256 over a byte of one and the hashes of all children, or zero if all are zero.
// children may be cut short after the last that is not zero.
func (s Shape) HashNode(children []Hash) (h Hash) {
	buf := make([]byte, 1, 1+s.Fan()*len(h))
	buf[0] = 1
	empty := true
	for _, c := range children {
		empty = empty && c == Hash{}
		buf = append(buf, c[:]...)
	}
	if empty {
		return h
	}
	return sha256.Sum256(buf[:1+s.Fan()*len(h)])
}

// Nodes is where a tree is kept. Absent leaves and nodes are empty, not errors, and setting an empty one
// may delete it.
type Nodes interface {
	Leaf(i uint64) (Leaf, error) // the caller may change what it gets
	SetLeaf(i uint64, l Leaf) error
	Node(level int, i uint64) ([]Hash, error) // the hashes of its children, level 1 and up
	SetNode(level int, i uint64, children []Hash) error
	Height() (int, error) // the highest level ever written; levels up to it are kept true
	SetHeight(level int) error
}

// Editor gathers changes of a tree and writes each touched leaf and node once.
type Editor struct {
	shape  Shape
	nodes  Nodes
	leaves map[uint64]Leaf // touched
	grown  int             // entries added less entries removed
}

// NewEditor edits the tree in nodes.
func NewEditor(shape Shape, nodes Nodes) *Editor {
	return &Editor{shape: shape, nodes: nodes, leaves: map[uint64]Leaf{}}
}

func (e *Editor) leaf(seq uint64) (Leaf, error) {
	i := e.shape.Leaf(seq)
	l, ok := e.leaves[i]
	if !ok {
		var err error
		if l, err = e.nodes.Leaf(i); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Add puts an entry in; adding it again changes nothing.
func (e *Editor) Add(r Ref) error {
	l, err := e.leaf(r.Seq)
	if err != nil {
		return err
	}
	if n := len(l); n == 0 || compareRefs(l[n-1], r) < 0 { // in order: the usual case
		e.leaves[e.shape.Leaf(r.Seq)] = append(l, r)
		e.grown++
	} else if at, found := l.find(r); !found {
		e.leaves[e.shape.Leaf(r.Seq)] = slices.Insert(l, at, r)
		e.grown++
	}
	return nil
}

// Remove takes an entry out; removing it again changes nothing.
func (e *Editor) Remove(r Ref) error {
	l, err := e.leaf(r.Seq)
	if err != nil {
		return err
	}
	if at, found := l.find(r); found {
		e.leaves[e.shape.Leaf(r.Seq)] = slices.Delete(l, at, at+1)
		e.grown--
	}
	return nil
}

// Grown returns the entries added less the entries removed so far.
func (e *Editor) Grown() int { return e.grown }

// Flush writes the touched leaves and the nodes above them, and returns the root of a feed whose head
// has seq top. Leaves beyond what the top node of seq top covers are kept but are not below that root:
// only the count of all entries tells that some are left over. The editor is then empty and may go on.
func (e *Editor) Flush(top uint64) (Hash, error) {
	height, err := e.nodes.Height()
	if err != nil {
		return Hash{}, err
	}
	want := e.shape.Top(top)
	for i := range e.leaves {
		want = max(want, e.shape.Top(i<<e.shape.LeafBits))
	}
	dirty := make(map[uint64]Hash, len(e.leaves))
	for i, l := range e.leaves {
		if err := e.nodes.SetLeaf(i, l); err != nil {
			return Hash{}, err
		}
		dirty[i] = l.Hash()
	}
	if want > height {
		if _, ok := dirty[0]; !ok && height == 0 { // new levels must learn of the first leaf
			l, err := e.nodes.Leaf(0)
			if err != nil {
				return Hash{}, err
			}
			dirty[0] = l.Hash()
		}
		if err := e.nodes.SetHeight(want); err != nil {
			return Hash{}, err
		}
	}
	for level := 1; level <= max(want, height); level++ {
		if dirty, err = e.raise(level, dirty); err != nil {
			return Hash{}, err
		}
		if level == height && want > height {
			if _, ok := dirty[0]; !ok { // likewise of the first node of the old top
				h, err := e.hash(level, 0)
				if err != nil {
					return Hash{}, err
				}
				dirty[0] = h
			}
		}
	}
	clear(e.leaves)
	e.grown = 0
	return e.hash(e.shape.Top(top), 0)
}

// raise writes the parents of the dirty nodes of the level below and returns their hashes.
func (e *Editor) raise(level int, dirty map[uint64]Hash) (map[uint64]Hash, error) {
	parents := make(map[uint64][]Hash, len(dirty)/4+1)
	for i, h := range dirty {
		p := i >> e.shape.FanBits
		children, ok := parents[p]
		if !ok {
			stored, err := e.nodes.Node(level, p)
			if err != nil {
				return nil, err
			}
			children = make([]Hash, e.shape.Fan())
			copy(children, stored)
			parents[p] = children
		}
		children[i&uint64(e.shape.Fan()-1)] = h
	}
	up := make(map[uint64]Hash, len(parents))
	for p, children := range parents {
		n := len(children)
		for n > 0 && children[n-1] == (Hash{}) {
			n--
		}
		if mutant.Is("stale_node") && level > 1 {
			continue
		}
		if err := e.nodes.SetNode(level, p, children[:n]); err != nil {
			return nil, err
		}
		up[p] = e.shape.HashNode(children)
	}
	return up, nil
}

func (e *Editor) hash(level int, i uint64) (Hash, error) { return e.shape.HashAt(e.nodes, level, i) }

// HashAt returns the hash of one leaf or node as stored.
func (s Shape) HashAt(nodes Nodes, level int, i uint64) (Hash, error) {
	if level == 0 {
		l, err := nodes.Leaf(i)
		if err != nil {
			return Hash{}, fmt.Errorf("leaf %d: %w", i, err)
		}
		return l.Hash(), nil
	}
	children, err := nodes.Node(level, i)
	if err != nil {
		return Hash{}, fmt.Errorf("node %d of level %d: %w", i, level, err)
	}
	return s.HashNode(children), nil
}
