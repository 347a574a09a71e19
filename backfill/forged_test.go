package backfill

import (
	"errors"
	"testing"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
	"peerdex/store"
)

// B is settled at A's third change and has heard of its last. M, a member like any other, offers B a
// history of its own that ends before that: a head that A never signed, below the best one B knows, with
// entries that do add up to it. B accuses M and keeps what it has. A push of the same is no better.
func TestHeadBelowTheBestMustBeSignedToo(t *testing.T) {
	a, b, m := newParty(t, 1, 1), newParty(t, 2, 2), newParty(t, 3, 3)
	id := a.location(1)
	a.commit(t, id, files(0, 3, "true")...)
	refused, err := b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	at, _ := b.State(id)
	if _, err := b.Observe([]feed.Head{a.commit(t, id, files(3, 3000, "true")...)}, 0); err != nil {
		t.Fatal(err)
	}

	// M's version of A's feed, signed by M.
	liar := openLiar(t, a, m)
	if _, err := liar.Commit(id, files(0, 3, "true")); err != nil {
		t.Fatal(err)
	}
	lie, err := liar.Commit(id, files(3, 2500, "false"))
	if err != nil {
		t.Fatal(err)
	}
	before := b.entries(t, id)
	n := newNotes(t)
	_, err = b.pullWith(t, m, b.puller(n), func(c *protocol.Conn, _ *protocoltest.Stream) {
		c.End((&Server{Store: liar, Notes: newNotes(t)}).Serve(c))
	}, id)
	var fault *protocol.Error
	if !errors.As(err, &fault) || fault.Code != protocol.CodeMismatch || !fault.Fault() {
		t.Fatalf("pulling a forged head gives %v", err)
	}
	var entries []feed.Entry
	v, err := liar.Serve(id)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.After(3, func(e feed.Entry) error { entries = append(entries, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Apply(store.Change{Feed: id, Prev: at.Settled, Entries: entries, Settle: &lie}); !errors.Is(err, feed.ErrSignature) {
		t.Fatalf("a push of a forged head gives %v", err)
	}
	if now, _ := b.State(id); now.Settled == nil || *now.Settled != *at.Settled || now.Cursor != nil {
		t.Fatalf("B is at %+v", now)
	}
	if after := b.entries(t, id); len(after) != len(before) {
		t.Fatalf("%d entries, %d before", len(after), len(before))
	}
	refused, err = b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	b.same(t, a, id)
}

// openLiar returns a store that believes to be a's and signs with m's key.
func openLiar(tb testing.TB, a, m *party) *store.Store {
	tb.Helper()
	cfg := a.cfg
	cfg.Sign = func(h feed.Head) feed.Head { return h.Sign(m.key) }
	s, err := store.New(newEngine(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}
