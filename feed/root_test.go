package feed

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A builder writes the tree and returns the root that an editor does.
func TestBuilderDoesAsTheEditor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := rapid.SampledFrom([]Shape{{1, 1}, {2, 1}, {3, 2}, DefaultShape}).Draw(t, "shape")
		seqs := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 5000), 0, 60, rapid.ID[uint64]).Draw(t, "seqs")
		slices.Sort(seqs)
		kept, built := newMemoryNodes(shape), newMemoryNodes(shape)
		editor, builder := NewEditor(shape, kept), NewBuilder(shape, built)
		var refs []Ref
		for _, seq := range seqs {
			r := Ref{Seq: seq, Digest: Digest{byte(seq), byte(seq >> 8), 7}}
			refs = append(refs, r)
			if err := errors.Join(editor.Add(r), builder.Add(r)); err != nil {
				t.Fatal(err)
			}
		}
		top := rapid.Uint64Range(1, 6000).Draw(t, "top")
		if len(seqs) > 0 {
			top = max(top, seqs[len(seqs)-1])
		}
		want, err := editor.Flush(top)
		if err != nil {
			t.Fatal(err)
		}
		got, height, err := builder.Finish(top)
		if err != nil {
			t.Fatal(err)
		}
		if got != want || builder.Count() != uint64(len(refs)) || shape.Root(refs, top) != want {
			t.Fatalf("root %x of %d, the editor's %x of %d", got, builder.Count(), want, len(refs))
		}
		if built.height = height; !reflect.DeepEqual(built, kept) {
			t.Fatalf("tree %+v, the editor's %+v", built, kept)
		}
		if len(refs) > 0 && refs[len(refs)-1].Seq>>shape.LeafBits > 0 && shape.Root(refs, 0) == want {
			t.Fatal("a ref above the top goes unnoticed")
		}
	})
}
