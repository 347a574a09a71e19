package statebatch

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/kv"
	"peerdex/kv/memory"
	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
	"peerdex/record"
	"peerdex/store"
)

var library = feed.LibraryID{1}

type party struct {
	*store.Store
	id  record.DeviceID
	key ed25519.PrivateKey
	eng *memory.Engine
}

func newParty(tb testing.TB, n byte, cfg memory.Config) *party {
	tb.Helper()
	p := &party{key: ed25519.NewKeyFromSeed(append(make([]byte, 31), n)), eng: memory.New(cfg)}
	p.id = record.DeviceID(p.key.Public().(ed25519.PublicKey))
	tick := hlc.At(time.Unix(1e9, 0))
	var err error
	p.Store, err = store.New(p.eng, store.Config{
		Device: p.id, Library: library, Boot: uint64(n),
		Clock: func() (hlc.Stamp, error) { tick++; return tick, nil },
		Sign:  func(h feed.Head) feed.Head { return h.Sign(p.key) },
	})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func file(n int, name string) store.Put {
	f := record.File{Kind: record.Regular, Name: name}
	binary.BigEndian.PutUint64(f.ID[:], uint64(n)+1)
	return store.Put{Record: f}
}

func (p *party) location() feed.ID { return feed.ID{Device: p.id, Location: record.LocationID{1}} }

func (p *party) commit(tb testing.TB, puts ...store.Put) feed.Head {
	tb.Helper()
	h, err := p.Commit(p.location(), puts)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// batch is what p pushes to a peer settled at prev.
func (p *party) batch(tb testing.TB, prev feed.Head) *protocol.StateBatch {
	tb.Helper()
	s := NewSender(SenderConfig{Store: p.Store, Near: DefaultNear})
	if prev.IsGenesis() {
		prev.Feed = p.location()
	}
	b, ok, err := s.batch(p.location(), prev)
	if err != nil || !ok {
		tb.Fatalf("no batch: %v", err)
	}
	return b
}

// receiverNotes keeps account of what a receiver was told.
type receiverNotes struct {
	received, done int
	outcomes       []protocol.Outcome
	looks          []feed.ID
	committed      int
}

func (n *receiverNotes) PushReceived(_ record.DeviceID, _ feed.ID, entries int) {
	n.received += entries
}
func (n *receiverNotes) PushDone(_ record.DeviceID, b *protocol.StateBatch, o protocol.Outcome, res store.Result, _ time.Duration) {
	n.done += len(b.Entries)
	n.outcomes = append(n.outcomes, o)
	if o == protocol.Applied && res.Applied+res.Duplicate+res.Superseded+res.Rejected != len(b.Entries) {
		panic(fmt.Sprintf("%d entries, %+v", len(b.Entries), res))
	}
}
func (n *receiverNotes) PushCommitting(kv.Tx, record.DeviceID, *protocol.StateBatch, *store.Result) error {
	n.committed++
	return nil
}
func (n *receiverNotes) Look(id feed.ID) { n.looks = append(n.looks, id) }

func (p *party) receiver(n *receiverNotes) *Receiver {
	return &Receiver{Store: p.Store, Notes: n, Now: time.Now, Follows: func(feed.ID) bool { return true }}
}

// A push goes from the head the peer is settled at, to the last one, if that is a short way.
func TestPlan(t *testing.T) {
	genesis := feed.Head{}
	at := func(seq, gc uint64) feed.Head { return feed.Head{Seq: seq, GC: gc} }
	for _, c := range []struct {
		held, own feed.Head
		settled   bool
		want      bool
	}{
		{at(5, 0), at(6, 0), true, true},
		{at(5, 0), at(6, 0), false, false},
		{at(6, 0), at(6, 0), true, false},
		{at(7, 0), at(6, 0), true, false},
		{at(5, 0), at(5+Limit, 0), true, true},
		{at(5, 0), at(6+Limit, 0), true, false},
		{at(5, 0), at(9, 5), true, true},
		{at(5, 0), at(9, 6), true, false}, // a tombstone it never saw may be gone
		{genesis, at(9, 6), true, true},   // it holds nothing that could be left over
		{genesis, at(Limit, 0), true, true},
		{genesis, at(Limit+1, 0), true, false},
	} {
		st := feed.State{}
		if c.settled {
			st.Settled = &c.own
		}
		if got := plan(c.held, st); got != c.want {
			t.Errorf("from %+v to %+v (settled %v): %v", c.held, c.own, c.settled, got)
		}
	}
}

// Every outcome of a push, with what it changes and what the sender is told.
func TestReceiveOutcomes(t *testing.T) {
	a, m := newParty(t, 1, memory.Config{}), newParty(t, 9, memory.Config{})
	id := a.location()
	h1 := a.commit(t, file(1, "one"))
	first := a.batch(t, feed.Head{})
	h2 := a.commit(t, file(2, "two"), file(3, "three"))
	second := a.batch(t, h1)
	a.commit(t, file(4, "four"))
	third := a.batch(t, h2)

	wrong := *second
	wrong.Entries = slices.Clone(second.Entries)
	wrong.Entries[0].Record = file(2, "another").Record.Append(nil)
	forged := *second
	forged.Next = forged.Next.Sign(m.key)
	foreign := *second
	foreign.Next.Library = feed.LibraryID{9}
	foreign.Next = foreign.Next.Sign(a.key)

	seen := func(p *party) {
		if _, err := p.Observe([]feed.Head{third.Next}, 0); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func(*party, *Receiver) {}
	for name, c := range map[string]struct {
		before  func(*party, *Receiver) // after the first batch
		push    *protocol.StateBatch
		want    protocol.Outcome
		settled uint64
		look    bool
		fault   bool
	}{
		"applied":    {nothing, second, protocol.Applied, 3, false, false},
		"again":      {nothing, first, protocol.Known, 1, false, false},
		"gap":        {nothing, third, protocol.Gap, 1, true, false},
		"mismatch":   {nothing, &wrong, protocol.Mismatch, 1, true, false},
		"forged":     {nothing, &forged, protocol.Mismatch, 1, false, true},
		"foreign":    {nothing, &foreign, protocol.Mismatch, 1, false, true},
		"unsettled":  {func(p *party, _ *Receiver) { p.Apply(store.Change{Feed: id}) }, second, protocol.Unsettled, 0, true, false},
		"busy":       {func(p *party, _ *Receiver) { p.Claim(id) }, second, protocol.Busy, 1, true, false},
		"paused":     {func(_ *party, r *Receiver) { r.Paused = func(record.DeviceID) bool { return true } }, second, protocol.Busy, 1, true, false},
		"unfollowed": {func(_ *party, r *Receiver) { r.Follows = func(feed.ID) bool { return false } }, second, protocol.Rejected, 1, false, false},
		// Heads below the best one known are looked at as closely.
		"forged below the best":  {func(p *party, _ *Receiver) { seen(p) }, &forged, protocol.Mismatch, 1, false, true},
		"genuine below the best": {func(p *party, _ *Receiver) { seen(p) }, second, protocol.Applied, 3, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			b, n := newParty(t, 2, memory.Config{}), &receiverNotes{}
			r := b.receiver(n)
			ack, err := r.Receive(a.id, first)
			if err != nil || ack.Outcome != protocol.Applied || ack.Head != h1 {
				t.Fatalf("first: %+v, %v", ack, err)
			}
			if b.eng.Unsynced() != 0 {
				t.Fatal("acknowledged before it was durable")
			}
			c.before(b, r)
			ack, err = r.Receive(a.id, c.push)
			if n.received != n.done || n.outcomes[1] != c.want || (len(n.looks) > 0) != c.look {
				t.Errorf("received %d, done %d, %v, looks %v", n.received, n.done, n.outcomes, n.looks)
			}
			st, _ := b.State(id)
			at := uint64(0)
			if st.Settled != nil {
				at = st.Settled.Seq
			}
			if at != c.settled {
				t.Errorf("settled at %d", at)
			}
			if c.fault {
				var fault *protocol.Error
				if !errors.As(err, &fault) || !fault.Fault() || fault.Code != protocol.CodeMismatch {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || ack.Outcome != c.want || ack.Feed != id || ack.Head.Seq != c.settled || b.eng.Unsynced() != 0 {
				t.Errorf("%+v, %v, %d transactions not durable", ack, err, b.eng.Unsynced())
			}
		})
	}

	// Nobody pushes this device's own feeds to it.
	n := &receiverNotes{}
	if ack, err := a.receiver(n).Receive(m.id, first); err != nil || ack.Outcome != protocol.Rejected {
		t.Errorf("own feed: %+v, %v", ack, err)
	}
}

// A disk that fails is this side's fault: the stream ends, nobody is accused, and what came is accounted for.
func TestReceiveStoreFails(t *testing.T) {
	a := newParty(t, 1, memory.Config{})
	a.commit(t, file(1, "one"))
	boom := errors.New("boom")
	failing := false
	b := newParty(t, 2, memory.Config{OnCommit: func(int, int) error {
		if failing {
			return boom
		}
		return nil
	}})
	failing = true
	n := &receiverNotes{}
	_, err := b.receiver(n).Receive(a.id, a.batch(t, feed.Head{}))
	var fault *protocol.Error
	if !errors.Is(err, boom) || errors.As(err, &fault) || n.received != n.done || n.outcomes[0] == protocol.Rejected {
		t.Errorf("%v, received %d, done %d, %v", err, n.received, n.done, n.outcomes)
	}
}

// senderNotes hands on what a sender is told.
type senderNotes struct{ acked chan protocol.Outcome }

func (senderNotes) Pushed(record.DeviceID, protocol.SessionID, feed.ID, []feed.Entry) {}
func (n senderNotes) Acked(_ record.DeviceID, _ protocol.SessionID, _ feed.ID, _ int, o protocol.Outcome, _ time.Duration) {
	n.acked <- o
}
func (senderNotes) PushFailed(record.DeviceID, protocol.SessionID, feed.ID, int, error) {}

// Commits made while a sender runs arrive one push after another; after any answer but applied or known the
// sender does not know where the peer is, and waits to be told.
func TestSenderAgainstReceiver(t *testing.T) {
	a, b := newParty(t, 1, memory.Config{}), newParty(t, 2, memory.Config{})
	id := a.location()
	n := senderNotes{make(chan protocol.Outcome, 100)}
	var served sync.WaitGroup
	s := NewSender(SenderConfig{
		Store: a.Store, Peer: b.id, Session: protocol.NewSessionID(), Near: DefaultNear, Notes: n, Now: time.Now,
		Open: func(context.Context) (*protocol.Conn, error) {
			near, far := protocoltest.Pipe()
			served.Go(func() {
				c := protocol.NewConn(far, protocol.ConnConfig{Device: a.id})
				c.End(b.receiver(&receiverNotes{}).Serve(c))
			})
			return protocol.NewConn(near, protocol.ConnConfig{Device: b.id}), nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	publish := func(puts ...store.Put) feed.Head {
		t.Helper()
		h := a.commit(t, puts...)
		if err := a.Sync(); err != nil {
			t.Fatal(err)
		}
		return h
	}
	want := func(o protocol.Outcome) {
		t.Helper()
		select {
		case got := <-n.acked:
			if got != o {
				t.Fatalf("answered %v, want %v", got, o)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no answer, want %v", o)
		}
	}
	at := func(h feed.Head) {
		t.Helper()
		if st, _ := b.State(id); st.Settled == nil || *st.Settled != h {
			t.Fatalf("B is at %+v", st.Settled)
		}
		if held, ok := s.Held(id); !ok || held != h {
			// the sender notes it just after it tells
			for end := time.Now().Add(30 * time.Second); held != h && time.Now().Before(end); held, _ = s.Held(id) {
				runtime.Gosched()
			}
		}
	}
	publish(file(1, "one"))
	s.Holds(feed.Head{Feed: id})
	want(protocol.Applied)
	for i := range 20 {
		h := publish(file(i+2, fmt.Sprint("file ", i)))
		want(protocol.Applied)
		at(h)
	}
	release, _ := b.Claim(id) // as a pull does
	publish(file(50, "while busy"))
	want(protocol.Busy)
	release()
	last := publish(file(51, "while unknown"))
	select {
	case o := <-n.acked:
		t.Fatalf("pushed into the blue: %v", o)
	default:
	}
	st, _ := b.State(id)
	s.Holds(*st.Settled)
	want(protocol.Applied)
	at(last)
	s.Holds(*st.Settled) // an old word of its heads, that comes late
	want(protocol.Known)
	at(last)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("told to stop, it says %v", err)
	}
	served.Wait()
}
