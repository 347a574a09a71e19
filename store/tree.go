package store

import (
	"fmt"

	"peerdex/feed"
	"peerdex/kv"
)

// nodes keeps a feed's tree in family t. w is nil for reading only.
type nodes struct {
	r     kv.Reader
	w     kv.Tx
	shape feed.Shape
	row   *row
	ahead *foreseen
	read  map[uint64]storedLeaf // leaves as they lie there, of which the caller may make others; nil: nothing is written
}

// storedLeaf is a leaf as it lies on disk: entries that were put in together, and which of them are gone since, a
// bit each. A full leaf takes 4 KiB, and of most that change one entry is gone, because it has a newer seq: 32
// bytes instead of all others again.
type storedLeaf struct {
	all  feed.Leaf
	gone []byte // nil: none
}

func (l storedLeaf) live() feed.Leaf {
	out := make(feed.Leaf, 0, len(l.all)+1)
	for i, r := range l.all {
		if l.gone == nil || l.gone[i/8]&(1<<(i%8)) == 0 {
			out = append(out, r)
		}
	}
	return out
}

// without returns which entries of l are gone if only left are there now; false if something is there that was
// not, or so little is left that it is better written anew.
func (l storedLeaf) without(left feed.Leaf) (gone []byte, ok bool) {
	if 2*len(left) < len(l.all) {
		return nil, false
	}
	gone = make([]byte, (len(l.all)+7)/8)
	for i, r := range l.all {
		if len(left) > 0 && left[0] == r {
			left = left[1:]
		} else {
			gone[i/8] |= 1 << (i % 8)
		}
	}
	return gone, len(left) == 0
}

func (n *nodes) Leaf(i uint64) (feed.Leaf, error) {
	l, ok := n.ahead.leaf(n.row, i)
	if !ok {
		var err error
		if l, err = n.stored(i); err != nil {
			return nil, err
		}
	}
	if n.read != nil {
		n.read[i] = l
	}
	return l.live(), nil
}

// stored reads a leaf.
func (n *nodes) stored(i uint64) (l storedLeaf, err error) {
	b, err := n.r.Get(n.row.num.tree(0, i))
	if err != nil || b == nil {
		return l, err
	}
	if l.all, err = n.shape.Unpack(i, b); err != nil {
		return l, err
	}
	if l.gone, err = n.r.Get(n.row.num.gone(i)); err == nil && l.gone != nil && len(l.gone) != (len(l.all)+7)/8 {
		err = fmt.Errorf("leaf %d: %w", i, errRow)
	}
	return l, err
}

func (n *nodes) SetLeaf(i uint64, left feed.Leaf) error {
	was, base, gone := n.read[i], n.row.num.tree(0, i), n.row.num.gone(i)
	delete(n.read, i)
	if len(left) > 0 {
		if bits, ok := was.without(left); ok {
			return n.w.Set(gone, bits)
		}
	}
	if was.gone != nil {
		if err := n.w.Delete(gone); err != nil {
			return err
		}
	}
	if len(left) == 0 {
		return n.w.Delete(base)
	}
	return n.w.Set(base, n.shape.Pack(left))
}

func (n *nodes) Node(level int, i uint64) ([]feed.Hash, error) {
	b, err := n.r.Get(n.row.num.tree(level, i))
	if err != nil {
		return nil, err
	}
	out := make([]feed.Hash, len(b)/len(feed.Hash{}))
	for k := range out {
		copy(out[k][:], b[k*len(feed.Hash{}):])
	}
	return out, nil
}

func (n *nodes) SetNode(level int, i uint64, children []feed.Hash) error {
	if len(children) == 0 {
		return n.w.Delete(n.row.num.tree(level, i))
	}
	b := make([]byte, 0, len(children)*len(feed.Hash{}))
	for _, c := range children {
		b = append(b, c[:]...)
	}
	return n.w.Set(n.row.num.tree(level, i), b)
}

func (n *nodes) Height() (int, error) { return n.row.height, nil }

func (n *nodes) SetHeight(level int) error {
	n.row.height = level
	return nil
}
