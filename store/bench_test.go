package store

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"peerdex/feed"
	"peerdex/record"
)

// files makes puts as an indexer does: random ids, few parents, names of 8 to 40 bytes.
func files(r *rand.Rand, n int) []Put {
	id := func() (id record.EntryID) {
		for i := range id {
			id[i] = byte(r.Uint32())
		}
		return id
	}
	puts := make([]Put, n)
	var parent record.EntryID
	for i := range puts {
		if i%20 == 0 {
			parent = id()
		}
		puts[i] = Put{New: true, Local: make([]byte, 10), Record: record.File{
			ID: id(), Parent: parent, Kind: record.Regular, Mode: 0o644, Size: r.Uint64N(1 << 30), ModTime: int64(r.Uint64() >> 2),
			Name: fmt.Sprintf("%0*d", 8+r.IntN(33), i),
		}}
	}
	return puts
}

// BenchmarkCommit writes new entries to an own feed that grows on and on.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 2000} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			d, r := newDevice(b, 1), rand.New(rand.NewPCG(1, 1))
			id := feed.ID{Device: d.id, Location: location(1)}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				puts := files(r, n)
				b.StartTimer()
				d.commit(b, id, puts...)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkApply takes pages of another device's feed.
func BenchmarkApply(b *testing.B) {
	const n = 1000
	b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
		from, to, r := newDevice(b, 1), newDevice(b, 2), rand.New(rand.NewPCG(1, 1))
		id := feed.ID{Device: from.id, Location: location(1)}
		seq := uint64(0)
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			head := from.commit(b, id, files(r, n)...)
			page := from.after(b, id, seq)
			seq = head.Seq
			b.StartTimer()
			if _, err := to.Apply(Change{Feed: id, Entries: page, Settle: &head}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
}
