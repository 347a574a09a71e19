package feed

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// BenchmarkEditor adds entries at the end of a tree and hashes what they touch.
func BenchmarkEditor(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			nodes := newMemoryNodes(DefaultShape)
			seq := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				e := NewEditor(DefaultShape, nodes)
				for range n {
					seq++
					r := Ref{Seq: seq}
					binary.BigEndian.PutUint64(r.Digest[:], seq)
					if err := e.Add(r); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := e.Flush(seq); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
