package snapshot

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
)

// BenchmarkSnapshot makes a snapshot of one feed as a file, and takes it into an empty store.
func BenchmarkSnapshot(b *testing.B) {
	const records = 100_000
	d := newParty(b, 9)
	d.fill(b, d.location(1), 0, records)
	b.Run(fmt.Sprintf("export/records=%d", records), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			pin, err := d.Pin(all)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := Export(context.Background(), filepath.Join(b.TempDir(), "x"), pin, d.author(), 1); err != nil {
				b.Fatal(err)
			}
			pin.Close()
		}
		b.ReportMetric(records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
	f := d.export(b)
	b.Run(fmt.Sprintf("take/records=%d", records), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			a := newParty(b, 1)
			b.StartTimer()
			if _, err := a.taker().Take(context.Background(), f.Manifest, f); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
}
