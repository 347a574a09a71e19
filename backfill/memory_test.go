package backfill

import (
	"errors"
	"fmt"
	"testing"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
	"peerdex/record"
	"peerdex/store"
)

// purse is memory that a puller may take.
type purse struct {
	left, taken, most int
}

func (p *purse) reserve(bytes int) (func(), error) {
	if bytes > p.left {
		return nil, &protocol.Error{Code: protocol.CodeBusy, Detail: "no memory"}
	}
	p.left -= bytes
	p.taken += bytes
	p.most = max(p.most, p.taken)
	return func() {
		p.left += bytes
		p.taken -= bytes
	}, nil
}

// What a pull holds beyond the page at hand is reserved as it grows, and given back when it is over. Without memory
// the pull ends, accuses nobody and changes nothing; with it the next one gets there.
func TestPullReservesWhatItHolds(t *testing.T) {
	notes := func(a *party, n int) (out []store.Put) {
		for i := range n {
			r := record.Register{Entity: record.Content(record.Hash{byte(i), byte(i >> 8), 1}), Field: record.FieldNote, Author: a.id, Stamp: 1, Value: make([]byte, 500)}
			out = append(out, store.Put{Record: r})
		}
		return out
	}
	for name, c := range map[string]struct {
		make func() (donor, puller *party, id feed.ID)
		most int // reserved at a time: what is kept, in whole steps
	}{
		"a page of a location's delta": {func() (*party, *party, feed.ID) {
			a, b := newParty(t, 1, 1), newParty(t, 2, 2)
			a.commit(t, a.location(1), files(0, 5000, "f")...)
			return a, b, a.location(1)
		}, 0},
		"a device feed until its last page": {func() (*party, *party, feed.ID) {
			a, b := newParty(t, 1, 1), newParty(t, 2, 2)
			a.commit(t, feed.ID{Device: a.id}, notes(a, 4000)...)
			return a, b, feed.ID{Device: a.id}
		}, 2 << 20},
		"what a diff finds": {func() (*party, *party, feed.ID) {
			a, b := newParty(t, 1, 1), newParty(t, 2, 2)
			id := a.location(1)
			a.commit(t, id, files(0, 10, "f")...)
			first, _ := a.State(id)
			if refused, err := b.pull(t, a, newNotes(t), 0, id); err != nil || len(refused) > 0 {
				t.Fatal(refused, err)
			}
			for from := 0; from < 50_000; from += 2000 {
				a.commit(t, id, files(from, from+2000, "g")...)
			}
			a.commit(t, id, gone(3))
			if _, err := a.Collect(id, first.Settled.Seq+1<<20); err != nil {
				t.Fatal(err)
			}
			return a, b, id
		}, 2 << 20},
		"an own location that was lost": {func() (*party, *party, feed.ID) {
			a, b := newParty(t, 1, 1), newParty(t, 2, 2)
			id := a.location(1)
			for from := 0; from < 8000; from += 2000 {
				a.commit(t, id, files(from, from+2000, "f")...)
			}
			if refused, err := b.pull(t, a, newNotes(t), 0, id); err != nil || len(refused) > 0 {
				t.Fatal(refused, err)
			}
			return b, newParty(t, 1, 9), id
		}, 2 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			donor, b, id := c.make()
			before := b.entries(t, id)
			was, _ := b.State(id)
			p := &purse{left: c.most - 1}
			run := func() error {
				n := newNotes(t)
				u := b.puller(n)
				u.Reserve = p.reserve
				refused, err := b.pullWith(t, donor, u, serveCut(t, donor, 0), id)
				if len(refused) > 0 {
					t.Fatal(refused)
				}
				return err
			}
			if c.most > 0 {
				var fault *protocol.Error
				if err := run(); !errors.As(err, &fault) || fault.Code != protocol.CodeBusy || fault.Fault() {
					t.Errorf("without memory: %v", err)
				}
				if now, _ := b.State(id); id.Device != b.id && (fmt.Sprint(now.Settled) != fmt.Sprint(was.Settled) || len(b.entries(t, id)) != len(before)) {
					t.Errorf("without memory the feed went from %+v to %+v", was, now)
				}
			}
			if p.taken != 0 {
				t.Errorf("%d bytes are still reserved", p.taken)
			}
			p.left, p.most = c.most, 0
			if err := run(); err != nil {
				t.Fatal(err)
			}
			if st, _ := b.State(id); st.Settled == nil || p.taken != 0 || p.most != c.most {
				t.Errorf("settled at %+v; %d bytes reserved at a time, want %d; %d still", st.Settled, p.most, c.most, p.taken)
			}
		})
	}
}

// A donor that sends more of an own feed than this device signed for is accused before it has sent it all.
func TestAbsorbNoMoreThanWasSigned(t *testing.T) {
	a, b := newParty(t, 1, 1), newParty(t, 2, 2)
	id := feed.ID{Device: a.id}
	var puts []store.Put
	for i := range 3 {
		puts = append(puts, store.Put{Record: record.Register{Entity: record.Device(a.id), Field: []string{record.FieldName, record.FieldSystem, record.FieldVersion}[i], Author: a.id, Stamp: 1, Value: []byte("x")}})
	}
	head := a.commit(t, id, puts...)
	lost := newParty(t, 1, 9)
	entry := func(seq uint64) feed.Entry {
		return feed.Entry{Key: []byte{1, byte(seq)}, Seq: seq, Record: []byte("r")}
	}
	head.Seq = 9
	n := newNotes(t)
	_, err := lost.pullWith(t, b, lost.puller(n), func(c *protocol.Conn, _ *protocoltest.Stream) {
		answer(c, &protocol.Opened{Head: head.Sign(a.key)})
		answer(c, &protocol.Page{Entries: []feed.Entry{entry(1), entry(2)}})
		if err := errors.Join(c.Send(&protocol.Page{Entries: []feed.Entry{entry(3), entry(4)}}), c.Flush()); err != nil {
			t.Error(err)
		}
		for err := error(nil); err == nil; { // there is no more: the puller must not wait for it
			_, err = c.Recv()
		}
	}, id)
	var fault *protocol.Error
	if !errors.As(err, &fault) || fault.Code != protocol.CodeMismatch || !fault.Fault() {
		t.Errorf("ended with %v", err)
	}
}
