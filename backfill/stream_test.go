package backfill

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
)

// While a page is applied the next is on its way already, without being asked for; and a puller that takes its
// time stops the donor where the window of the stream ends, so that neither side holds more than that.
func TestPagesComeAhead(t *testing.T) {
	const (
		pages = 40
		limit = 100
		ahead = (256<<10+2*64<<10)/(limit*200) + 2 // window, buffers of both ends, one page being written and one in hand
	)
	donor, p := newParty(t, 1, 1), newParty(t, 2, 1)
	id := donor.location(1)
	donor.commit(t, id, files(0, pages*limit, strings.Repeat("long ", 40))...)

	var served atomic.Int64
	told := make(chan struct{}, 2*pages)
	given := newNotes(t)
	serve := func(c *protocol.Conn, _ *protocoltest.Stream) {
		n := given
		n.onServed = func(request string) {
			if request == "delta" {
				served.Add(1)
				told <- struct{}{}
			}
		}
		c.End((&Server{Store: donor.Store, Notes: n, Limit: limit}).Serve(c))
	}
	n, came, heard, most := newNotes(t), 0, 0, int64(0)
	n.onPage = func() {
		came++
		for heard < min(came+1, pages) {
			select {
			case <-told:
				heard++
			case <-time.After(10 * time.Second):
				t.Fatalf("page %d has come, and no other is on its way", came)
			}
		}
		most = max(most, served.Load()-int64(came))
	}
	refused, err := p.pullWith(t, donor, p.puller(n), serve, id)
	must(t, refused, err)
	p.same(t, donor, id)
	if !slices.Equal(given.serving, []uint64{uint64(pages * limit)}) {
		t.Errorf("the donor was told of %v entries", given.serving)
	}
	if came != pages || most > ahead {
		t.Errorf("%d pages came, at most %d ahead; want %d, and no more than %d", came, most, pages, ahead)
	}
}
