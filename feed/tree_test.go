package feed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var testShapes = []Shape{{8, 4}, {2, 1}, {0, 1}, {3, 2}, {1, 3}}

type place struct {
	level int
	i     uint64
}

// memoryNodes keeps a tree as a disk does: packed, so that nobody shares a slice with it.
type memoryNodes struct {
	shape  Shape
	leaves map[uint64][]byte
	nodes  map[place][]Hash
	height int
	fail   error // what everything returns
}

func newMemoryNodes(s Shape) *memoryNodes {
	return &memoryNodes{shape: s, leaves: map[uint64][]byte{}, nodes: map[place][]Hash{}}
}

func (m *memoryNodes) Leaf(i uint64) (Leaf, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	return m.shape.Unpack(i, m.leaves[i])
}

func (m *memoryNodes) SetLeaf(i uint64, l Leaf) error {
	if m.leaves[i] = m.shape.Pack(l); len(l) == 0 {
		delete(m.leaves, i)
	}
	return m.fail
}

func (m *memoryNodes) Node(level int, i uint64) ([]Hash, error) {
	return slices.Clone(m.nodes[place{level, i}]), m.fail
}

func (m *memoryNodes) SetNode(level int, i uint64, children []Hash) error {
	if m.nodes[place{level, i}] = slices.Clone(children); len(children) == 0 {
		delete(m.nodes, place{level, i})
	}
	return m.fail
}

func (m *memoryNodes) Height() (int, error)      { return m.height, m.fail }
func (m *memoryNodes) SetHeight(level int) error { m.height = level; return m.fail }

// naive computes every hash of a tree of the given height from nothing but its entries, with code of
// its own.
func naive(s Shape, refs []Ref, height int) map[place]Hash {
	sorted := slices.Clone(refs)
	slices.SortFunc(sorted, func(a, b Ref) int {
		if a.Seq != b.Seq {
			return map[bool]int{true: -1, false: 1}[a.Seq < b.Seq]
		}
		return bytes.Compare(a.Digest[:], b.Digest[:])
	})
	bodies := map[uint64][]byte{}
	for _, r := range sorted {
		i := r.Seq / (1 << s.LeafBits)
		if bodies[i] == nil {
			bodies[i] = []byte{0}
		}
		bodies[i] = append(binary.BigEndian.AppendUint64(bodies[i], r.Seq), r.Digest[:]...)
	}
	out := map[place]Hash{}
	for i, b := range bodies {
		out[place{0, i}] = sha256.Sum256(b)
	}
	fan := uint64(1) << s.FanBits
	for level := 1; level <= height; level++ {
		for p := range maps.Clone(out) {
			if p.level != level-1 {
				continue
			}
			body := []byte{1}
			for j := range fan {
				h := out[place{level - 1, p.i/fan*fan + j}]
				body = append(body, h[:]...)
			}
			out[place{level, p.i / fan}] = sha256.Sum256(body)
		}
	}
	return out
}

func naiveTop(s Shape, seq uint64) (level int) {
	for n := seq / (1 << s.LeafBits); n != 0; n /= 1 << s.FanBits {
		level++
	}
	return level
}

func testRef(seq uint64, version byte) Ref {
	return Ref{seq, Digest{version, byte(seq), byte(seq >> 8)}}
}

// Whatever is added, removed and flushed in whatever order, with heads that grow and shrink: the root,
// and every node on the way, is that of a tree built at once from what is left.
func TestEditorAgainstRebuild(t *testing.T) {
	for _, shape := range testShapes {
		t.Run(fmt.Sprintf("leaf=%d,fan=%d", shape.LeafBits, shape.FanBits), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				nodes := newMemoryNodes(shape)
				editor := NewEditor(shape, nodes)
				held := map[Ref]bool{}
				grown := 0
				limit := uint64(1) << rapid.IntRange(1, 24).Draw(t, "bits")
				drawSeq := func(name string) uint64 {
					switch rapid.IntRange(0, 3).Draw(t, name+" kind") {
					case 0: // near a border of leaves or nodes
						at := uint64(1) << rapid.UintRange(0, 24).Draw(t, name+" border")
						return max(1, at+uint64(rapid.IntRange(-1, 1).Draw(t, name+" side")))
					case 1:
						return rapid.Uint64Range(1, 40).Draw(t, name)
					}
					return rapid.Uint64Range(1, limit).Draw(t, name)
				}
				for range rapid.IntRange(1, 30).Draw(t, "steps") {
					switch rapid.IntRange(0, 9).Draw(t, "step") {
					case 0, 1, 2: // a run of entries
						first := drawSeq("first")
						for i := range rapid.Uint64Range(1, 20).Draw(t, "run") {
							r := testRef(first+i, byte(rapid.IntRange(0, 1).Draw(t, "version")))
							if !held[r] {
								held[r], grown = true, grown+1
							}
							if err := editor.Add(r); err != nil {
								t.Fatal(err)
							}
						}
					case 3, 4, 5: // take some out, the newest too, so that the tree shrinks
						refs := slices.SortedFunc(maps.Keys(held), compareRefs)
						for range rapid.IntRange(1, 20).Draw(t, "removals") {
							r := testRef(drawSeq("absent"), 0)
							if len(refs) > 0 && rapid.IntRange(0, 5).Draw(t, "present") > 0 {
								r = refs[len(refs)-1]
								if rapid.Bool().Draw(t, "anywhere") {
									r = refs[rapid.IntRange(0, len(refs)-1).Draw(t, "which")]
								}
							}
							if held[r] {
								delete(held, r)
								grown--
								refs = slices.SortedFunc(maps.Keys(held), compareRefs)
							}
							if err := editor.Remove(r); err != nil {
								t.Fatal(err)
							}
						}
					case 6: // what was read from disk is the same as what was kept
						if len(editor.leaves) == 0 {
							editor = NewEditor(shape, nodes)
						}
					default:
						if editor.Grown() != grown {
							t.Fatalf("grown by %d, want %d", editor.Grown(), grown)
						}
						top := drawSeq("top")
						for r := range held {
							if rapid.IntRange(0, 3).Draw(t, "short head") > 0 {
								top = max(top, r.Seq)
							}
							break
						}
						checkFlush(t, shape, nodes, editor, held, top)
						grown = 0
					}
				}
				top := uint64(0)
				for r := range held {
					top = max(top, r.Seq)
				}
				root := checkFlush(t, shape, nodes, editor, held, top)

				fresh := NewEditor(shape, newMemoryNodes(shape))
				for r := range held {
					if err := fresh.Add(r); err != nil {
						t.Fatal(err)
					}
				}
				if fresh.Grown() != len(held) {
					t.Fatalf("rebuilt with %d entries, want %d", fresh.Grown(), len(held))
				}
				if rebuilt, err := fresh.Flush(top); err != nil || rebuilt != root {
					t.Fatalf("rebuilt root %x, %v; edited %x", rebuilt, err, root)
				}
			})
		})
	}
}

func checkFlush(t *rapid.T, shape Shape, nodes *memoryNodes, editor *Editor, held map[Ref]bool, top uint64) Hash {
	t.Helper()
	root, err := editor.Flush(top)
	if err != nil {
		t.Fatal(err)
	}
	if editor.Grown() != 0 {
		t.Fatalf("grown by %d after a flush", editor.Grown())
	}
	want := naive(shape, slices.Collect(maps.Keys(held)), max(nodes.height, naiveTop(shape, top)))
	if w := want[place{naiveTop(shape, top), 0}]; root != w {
		t.Fatalf("root at %d is %x, want %x", top, root, w)
	}
	for p, h := range want {
		if p.level > nodes.height {
			t.Fatalf("level %d of height %d is needed", p.level, nodes.height)
		}
		if got, err := shape.HashAt(nodes, p.level, p.i); err != nil || got != h {
			t.Fatalf("node %d of level %d is %x, %v; want %x", p.i, p.level, got, err, h)
		}
	}
	for p, children := range nodes.nodes {
		if _, ok := want[p]; !ok {
			t.Fatalf("node %d of level %d is left over: %x", p.i, p.level, children)
		}
	}
	return root
}

func TestRootsGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/roots.golden")
	if err != nil {
		t.Fatal(err)
	}
	sets := map[string][3]uint64{ // first, end, step
		"empty": {}, "one": {1, 2, 1}, "leaf": {1, 256, 1}, "two-leaves": {1, 257, 1}, "thousand": {1, 1001, 1}, "sparse": {3, 70000, 577},
	}
	lines := 0
	for line := range strings.Lines(string(text)) {
		var (
			shape     Shape
			name, sum string
			top       uint64
		)
		if _, err := fmt.Sscan(line, &shape.LeafBits, &shape.FanBits, &name, &top, &sum); err != nil {
			t.Fatal(err)
		}
		editor := NewEditor(shape, newMemoryNodes(shape))
		if set := sets[name]; set[2] > 0 {
			for i := set[0]; i < set[1]; i += set[2] {
				e := goldenEntry(i)
				if err := editor.Add(Ref{e.Seq, e.Digest()}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if root, err := editor.Flush(top); err != nil || hex.EncodeToString(root[:]) != sum {
			t.Errorf("%s of shape %+v has root %x, %v; want %s", name, shape, root, err, sum)
		}
		lines++
	}
	if lines != 24 {
		t.Errorf("%d golden roots, want 24", lines)
	}
}

func TestShape(t *testing.T) {
	for _, c := range []struct {
		seq, leaf uint64
		top       int
	}{{0, 0, 0}, {1, 0, 0}, {255, 0, 0}, {256, 1, 1}, {4095, 15, 1}, {4096, 16, 2}, {65535, 255, 2}, {65536, 256, 3}, {1<<64 - 1, 1<<56 - 1, 14}} {
		if leaf, top := DefaultShape.Leaf(c.seq), DefaultShape.Top(c.seq); leaf != c.leaf || top != c.top {
			t.Errorf("seq %d is in leaf %d below level %d, want %d and %d", c.seq, leaf, top, c.leaf, c.top)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s, seq := rapid.SampledFrom(testShapes).Draw(t, "shape"), rapid.Uint64().Draw(t, "seq")
		if s.Top(seq) != naiveTop(s, seq) || s.Leaf(seq) != seq/(1<<s.LeafBits) || s.Fan() != 1<<s.FanBits {
			t.Fatalf("shape %+v: seq %d is in leaf %d below level %d", s, seq, s.Leaf(seq), s.Top(seq))
		}
	})
}

// Seqs up to the last there is.
func TestLargestSeq(t *testing.T) {
	for _, s := range testShapes {
		editor := NewEditor(s, newMemoryNodes(s))
		refs := []Ref{testRef(1, 0), testRef(1<<64-1, 0), testRef(1<<63, 1)}
		for _, r := range refs {
			if err := editor.Add(r); err != nil {
				t.Fatal(err)
			}
		}
		want := naive(s, refs, naiveTop(s, 1<<64-1))[place{naiveTop(s, 1<<64-1), 0}]
		if root, err := editor.Flush(1<<64 - 1); err != nil || root != want || want == (Hash{}) {
			t.Errorf("shape %+v: root %x, %v; want %x", s, root, err, want)
		}
	}
}

func TestHashNode(t *testing.T) {
	s := Shape{LeafBits: 8, FanBits: 2}
	a, b := Hash{1}, Hash{2}
	if s.HashNode(nil) != (Hash{}) || s.HashNode(make([]Hash, 4)) != (Hash{}) || (Leaf{}).Hash() != (Hash{}) {
		t.Error("what is empty has a hash")
	}
	if s.HashNode([]Hash{a, {}, b}) != s.HashNode([]Hash{a, {}, b, {}}) {
		t.Error("trailing empty children count")
	}
	seen := map[Hash]bool{}
	for _, children := range [][]Hash{{a}, {b}, {a, b}, {b, a}, {{}, a}, {{}, {}, a}, {{}, {}, {}, a}, {a, a}, {a, a, a, a}} {
		h := s.HashNode(children)
		if seen[h] {
			t.Errorf("%x repeats a hash", children)
		}
		seen[h] = true
	}
}

func TestMissing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (l Leaf) {
			for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(0, 19), 0, 12, rapid.ID).Draw(t, name) {
				l = append(l, testRef(uint64(n/2), byte(n%2)))
			}
			slices.SortFunc(l, compareRefs)
			return l
		}
		a, b := draw("a"), draw("b")
		got := a.Missing(b)
		i := 0
		for _, r := range a {
			if slices.Contains(b, r) {
				continue
			}
			if i >= len(got) || got[i] != r {
				t.Fatalf("%v lacks of %v: %v", b, a, got)
			}
			i++
		}
		if i != len(got) {
			t.Fatalf("%v lacks of %v: %v", b, a, got)
		}
	})
}

func TestPack(t *testing.T) {
	for _, s := range testShapes {
		var l Leaf
		i := uint64(12345)
		for off := range uint64(1) << s.LeafBits {
			l = append(l, testRef(i<<s.LeafBits|off, 0))
			if off%5 == 0 {
				l = append(l, testRef(i<<s.LeafBits|off, 1))
			}
		}
		packed := s.Pack(l)
		if got, err := s.Unpack(i, packed); err != nil || !slices.Equal(got, l) {
			t.Errorf("shape %+v: leaf came back as %v, %v", s, got, err)
		}
		for n := range packed {
			got, err := s.Unpack(i, packed[:n])
			if whole := n%(1+DigestSize) == 0; whole != (err == nil) || whole && !slices.Equal(got, l[:n/(1+DigestSize)]) {
				t.Errorf("shape %+v cut to %d bytes: %v, %v", s, n, got, err)
			}
		}
	}
	s := DefaultShape
	a, b := s.Pack(Leaf{testRef(1, 0)}), s.Pack(Leaf{testRef(2, 0)})
	for name, packed := range map[string][]byte{
		"descending": slices.Concat(b, a), "twice": slices.Concat(a, a),
		"digests descending": slices.Concat(s.Pack(Leaf{testRef(1, 1)}), s.Pack(Leaf{testRef(1, 0)})),
	} {
		if l, err := s.Unpack(0, packed); !errors.Is(err, errLeaf) {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	if l, err := (Shape{LeafBits: 2, FanBits: 1}).Unpack(0, s.Pack(Leaf{testRef(4, 0)})); !errors.Is(err, errLeaf) {
		t.Errorf("an offset beyond the leaf: %v, %v", l, err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(uint64(0), uint8(8), []byte{})
	f.Add(uint64(3), uint8(8), DefaultShape.Pack(Leaf{testRef(768, 0), testRef(768, 1), testRef(1023, 0)}))
	f.Add(uint64(1<<56-1), uint8(8), bytes.Repeat([]byte{0xFF}, 1+DigestSize))
	f.Add(uint64(9), uint8(2), bytes.Repeat([]byte{3}, 1+DigestSize))
	f.Fuzz(func(t *testing.T, i uint64, bits uint8, b []byte) {
		s := Shape{LeafBits: uint(bits % 9), FanBits: 4}
		i &= 1<<(64-s.LeafBits) - 1
		l, err := s.Unpack(i, b)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Pack(l), b) {
			t.Errorf("%x came back as %x", b, s.Pack(l))
		}
		for n, r := range l {
			if s.Leaf(r.Seq) != i || n > 0 && compareRefs(l[n-1], r) >= 0 {
				t.Errorf("leaf %d: %v", i, l)
			}
		}
	})
}

// What the nodes cannot do is reported by whoever asked for it.
func TestEditorReportsErrors(t *testing.T) {
	broken := errors.New("disk error")
	nodes := newMemoryNodes(DefaultShape)
	editor := NewEditor(DefaultShape, nodes)
	if err := editor.Add(testRef(1, 0)); err != nil {
		t.Fatal(err)
	}
	nodes.fail = broken
	_, flush := editor.Flush(1)
	_, hash := DefaultShape.HashAt(nodes, 0, 0)
	_, node := DefaultShape.HashAt(nodes, 1, 0)
	for name, err := range map[string]error{
		"add": editor.Add(testRef(1000, 0)), "remove": editor.Remove(testRef(1000, 0)), "flush": flush, "leaf": hash, "node": node,
	} {
		if !errors.Is(err, broken) {
			t.Errorf("%s returned %v", name, err)
		}
	}
}
