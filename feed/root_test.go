package feed

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Root gives, without a tree to keep, the root that an editor gives.
func TestRootIsTheEditors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := rapid.SampledFrom([]Shape{{1, 1}, {2, 1}, {3, 2}, DefaultShape}).Draw(t, "shape")
		seqs := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 5000), 0, 60, rapid.ID[uint64]).Draw(t, "seqs")
		slices.Sort(seqs)
		editor := NewEditor(shape, newMemoryNodes(shape))
		var refs []Ref
		for _, seq := range seqs {
			r := Ref{Seq: seq, Digest: Digest{byte(seq), byte(seq >> 8), 7}}
			refs = append(refs, r)
			if err := editor.Add(r); err != nil {
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
		if got := shape.Root(refs, top); got != want {
			t.Fatalf("root %x, the editor's %x", got, want)
		}
		if len(refs) > 0 && refs[len(refs)-1].Seq>>shape.LeafBits > 0 && shape.Root(refs, 0) == want {
			t.Fatal("a ref above the top goes unnoticed")
		}
	})
}
