package backfill

import (
	"fmt"
	"testing"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
	"peerdex/store"
)

// disk puts a party on Badger, with the tree of the product.
func (p *party) disk(b *testing.B) *party {
	b.Helper()
	cfg := p.cfg
	cfg.Shape = feed.DefaultShape
	s, err := store.Open(b.TempDir(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	return &party{Store: s, id: p.id, key: p.key, boot: p.boot, cfg: cfg}
}

// BenchmarkPull takes a whole feed from a donor over a stream in memory: pages read, encoded, decoded,
// applied and made durable, both ends in this process.
func BenchmarkPull(b *testing.B) {
	const n = 20_000
	b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
		donor := newParty(b, 1, 1).disk(b)
		defer donor.Close()
		id := donor.location(1)
		donor.commit(b, id, files(0, n, "a file of some name")...)
		if err := donor.Sync(); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			p := newParty(b, 2, 1).disk(b)
			b.StartTimer()
			pu := p.puller(newNotes(b))
			pu.Shape = feed.DefaultShape
			serve := func(c *protocol.Conn, _ *protocoltest.Stream) {
				c.End((&Server{Store: donor.Store, Notes: newNotes(b)}).Serve(c))
			}
			refused, err := p.pullWith(b, donor, pu, serve, id)
			must(b, refused, err)
			b.StopTimer()
			p.same(b, donor, id)
			if err := p.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
}
