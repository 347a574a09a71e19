package feed

// Builder makes a whole tree from entries that come in order: each leaf and node is written once, and nothing
// is read. An Editor changes a tree that is there.
type Builder struct {
	shape Shape
	out   BuilderOutput
	at    uint64 // of the leaf that is being filled
	leaf  Leaf
	below []hashed // leaves done
	count uint64
}

// BuilderOutput is where a Builder puts the leaves, in order, and then the nodes level by level.
type BuilderOutput interface {
	SetLeaf(i uint64, l Leaf) error // l is used again after the call
	SetNode(level int, i uint64, children []Hash) error
}

// hashed is the hash of a leaf or node and where it stands.
type hashed struct {
	i uint64
	h Hash
}

// NewBuilder returns a Builder that writes to out; nil keeps nothing.
func NewBuilder(shape Shape, out BuilderOutput) *Builder { return &Builder{shape: shape, out: out} }

// Add puts in the next entry. Refs come in order of seq, and at one seq of digest.
func (b *Builder) Add(r Ref) error {
	if i := b.shape.Leaf(r.Seq); i != b.at {
		if err := b.flush(); err != nil {
			return err
		}
		b.at = i
	}
	b.leaf = append(b.leaf, r)
	b.count++
	return nil
}

func (b *Builder) flush() error {
	if len(b.leaf) == 0 {
		return nil
	}
	if b.out != nil {
		if err := b.out.SetLeaf(b.at, b.leaf); err != nil {
			return err
		}
	}
	b.below = append(b.below, hashed{b.at, b.leaf.Hash()})
	b.leaf = b.leaf[:0]
	return nil
}

// Count returns how many entries were added.
func (b *Builder) Count() uint64 { return b.count }

// Finish writes what stands above the leaves and returns the root of a feed whose head has seq top: what an
// Editor's Flush returns. An entry above top makes a root that no such feed has. height is the highest level
// written. The builder is spent.
func (b *Builder) Finish(top uint64) (root Hash, height int, err error) {
	if err := b.flush(); err != nil {
		return root, 0, err
	}
	height = b.shape.Top(top)
	for level := 1; level <= height; level++ {
		if err := b.raise(level); err != nil {
			return root, 0, err
		}
	}
	switch {
	case len(b.below) == 0:
		return root, height, nil
	case len(b.below) > 1 || b.below[0].i != 0:
		return Hash{0xFF}, height, nil
	}
	return b.below[0].h, height, nil
}

// raise puts the parents of what lies below in its place.
func (b *Builder) raise(level int) error {
	children := make([]Hash, b.shape.Fan())
	mask := uint64(b.shape.Fan() - 1)
	up := b.below[:0] // a parent takes the place of its first child, or of one before
	for k := 0; k < len(b.below); {
		i, n := b.below[k].i>>b.shape.FanBits, 0
		clear(children)
		for ; k < len(b.below) && b.below[k].i>>b.shape.FanBits == i; k++ {
			n = int(b.below[k].i & mask)
			children[n] = b.below[k].h
		}
		if b.out != nil {
			if err := b.out.SetNode(level, i, children[:n+1]); err != nil {
				return err
			}
		}
		up = append(up, hashed{i, b.shape.HashNode(children)})
	}
	b.below = up
	return nil
}

// Root returns the root of a feed whose head has seq top and whose live set refs is, in order of seq: what
// Builder.Finish returns, without a place to keep the tree.
func (s Shape) Root(refs []Ref, top uint64) Hash {
	b := NewBuilder(s, nil)
	for _, r := range refs {
		_ = b.Add(r) // keeps nothing, so nothing fails
	}
	root, _, _ := b.Finish(top)
	return root
}
