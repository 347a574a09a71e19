package backfill

import (
	"errors"
	"fmt"
	"testing"

	"peerdex/feed"
	"peerdex/kv/memory"
	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
	"peerdex/store"
)

// A device that has nothing draws everything, page by page.
func TestDeltaFresh(t *testing.T) {
	a, b := newParty(t, 1, 1), newParty(t, 2, 2)
	id := a.location(1)
	a.commit(t, id, files(0, 2500, "f")...)
	n := newNotes(t)
	refused, err := b.pull(t, a, n, 0, id)
	must(t, refused, err)
	b.same(t, a, id)
	if n.received != 2500 || n.applied != 2500 || len(n.chosen) != 1 || n.chosen[0].Road != feed.RoadDelta || n.chosen[0].Reason != "empty" {
		t.Errorf("%d received, %d applied, %v", n.received, n.applied, n.chosen)
	}
	n = newNotes(t)
	refused, err = b.pull(t, a, n, 0, id) // nothing to get: nothing chosen, nothing asked but the head
	must(t, refused, err)
	if len(n.chosen) != 0 || n.asked["delta"] != 0 || n.received != 0 {
		t.Errorf("again: %v, %v", n.chosen, n.asked)
	}
}

// Cut after any page, and the process dying there, the next pull goes on after it: no page comes twice.
func TestDeltaResumesAfterEveryCut(t *testing.T) {
	a := newParty(t, 1, 1)
	id := a.location(1)
	a.commit(t, id, files(0, 4500, "f")...)
	for cut := 1; cut <= 5; cut++ {
		b := newParty(t, 2, 2)
		n := newNotes(t)
		if _, err := b.pull(t, a, n, cut, id); err == nil {
			t.Fatalf("cut at page %d goes unnoticed", cut)
		}
		st, _ := b.State(id)
		if want := uint64(1000 * (cut - 1)); st.Settled != nil || st.Count != want || cut > 1 && (st.Cursor == nil || st.Cursor.Seq != want) {
			t.Fatalf("cut at page %d: %+v", cut, st)
		}
		if len(n.ended) != 1 || n.ended[0] == nil {
			t.Fatalf("ended %v", n.ended)
		}
		b = b.reopen(t, 22)
		n2 := newNotes(t)
		refused, err := b.pull(t, a, n2, 0, id)
		must(t, refused, err)
		b.same(t, a, id)
		if n.applied+n2.received != 4500 {
			t.Errorf("cut at page %d: %d and %d entries came", cut, n.applied, n2.received)
		}
	}
}

// The owner collected tombstones that the device has never seen: a delta would leave ghosts, a diff does not.
func TestCollectedTombstonesNeedADiff(t *testing.T) {
	a, b := newParty(t, 1, 1), newParty(t, 2, 2)
	id := a.location(1)
	a.commit(t, id, files(0, 300, "f")...)
	refused, err := b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	a.commit(t, id, gone(7), gone(8), file(9, "nine"), file(500, "new"))
	if _, err := a.Collect(id, 302); err != nil {
		t.Fatal(err)
	}
	n := newNotes(t)
	refused, err = b.pull(t, a, n, 0, id)
	must(t, refused, err)
	b.same(t, a, id)
	if len(n.chosen) != 1 || n.chosen[0].Road != feed.RoadDiff || n.chosen[0].Reason != "gc" {
		t.Errorf("chosen %v", n.chosen)
	}
	if n.received != 2 || n.removed != 2 { // what replaced nine removed it
		t.Errorf("%d came, %d were taken out", n.received, n.removed)
	}
}

// A diff that is cut leaves the feed unsettled; the next one fetches only what still differs.
func TestDiffResumes(t *testing.T) {
	a, b := newParty(t, 1, 1), newParty(t, 2, 2)
	id := a.location(1)
	a.commit(t, id, files(0, 100, "f")...)
	refused, err := b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	a.commit(t, id, append(files(50, 3050, "g"), gone(1))...)
	if _, err := a.Collect(id, 1<<20); err != nil {
		t.Fatal(err)
	}
	n := newNotes(t)
	if _, err := b.pull(t, a, n, 2, id); err == nil {
		t.Fatal("a cut goes unnoticed")
	}
	st, _ := b.State(id)
	if st.Settled != nil || st.Cursor != nil || n.applied != 1000 || st.Floor.Seq != 100 {
		t.Fatalf("after the cut: %+v, %d applied", st, n.applied)
	}
	if _, err := b.Serve(id); !errors.Is(err, store.ErrUnsettled) {
		t.Errorf("an unsettled feed is served: %v", err)
	}
	b = b.reopen(t, 22)
	n = newNotes(t)
	refused, err = b.pull(t, a, n, 0, id)
	must(t, refused, err)
	b.same(t, a, id)
	if n.received != 2000 || n.chosen[0].Reason != "interrupted" {
		t.Errorf("%d came, %v", n.received, n.chosen)
	}
}

// Two histories of one feed: the owner was restored and wrote other things at the same seqs. Where a delta
// ends at another root its page is thrown away, and a diff follows in the same session (rule 11).
func TestForkAndMismatch(t *testing.T) {
	for _, more := range []int{0, 5} {
		t.Run(fmt.Sprint(more), func(t *testing.T) {
			a, b := newParty(t, 1, 1), newParty(t, 2, 2)
			id := a.location(1)
			a.commit(t, id, files(0, 20, "f")...)
			if err := a.Sync(); err != nil {
				t.Fatal(err)
			}
			backup := a.eng.Backup()
			a.commit(t, id, files(20, 30, "lost")...)
			refused, err := b.pull(t, a, newNotes(t), 0, id)
			must(t, refused, err)
			a = restored(t, a, backup, 11)
			h := a.commit(t, id, files(40, 50+more, "other")...)
			if st, _ := b.State(id); more == 0 && h.Compare(*st.Settled) < 0 {
				a.commit(t, id, file(41, "later")) // the lesser of two roots at one seq: only the next head counts
			}
			n := newNotes(t)
			refused, err = b.pull(t, a, n, 0, id)
			must(t, refused, err)
			b.same(t, a, id)
			last := n.chosen[len(n.chosen)-1]
			if last.Road != feed.RoadDiff || last.Reason != "fork" && last.Reason != "mismatch" {
				t.Errorf("chosen %v", n.chosen)
			}
			if more > 0 && (len(n.chosen) != 2 || n.dropped != more || !errors.Is(n.ended[0], store.ErrMismatch) || n.ended[1] != nil) {
				t.Errorf("chosen %v, dropped %d, ended %v", n.chosen, n.dropped, n.ended)
			}
		})
	}
}

// Who is not settled, holds nothing, is below this device's floor, or is busy with the feed, is no donor; the
// next feed is pulled all the same.
func TestRefusals(t *testing.T) {
	a, b, c := newParty(t, 1, 1), newParty(t, 2, 2), newParty(t, 3, 3)
	id, other := a.location(1), a.location(2)
	a.commit(t, id, files(0, 3, "f")...)
	a.commit(t, other, files(0, 3, "g")...)
	refused, err := c.pull(t, a, newNotes(t), 0, id, other)
	must(t, refused, err)
	want := func(what string, refused map[feed.ID]error, err error, reason error) {
		t.Helper()
		if err != nil || len(refused) != 1 || !errors.Is(refused[id], reason) {
			t.Fatalf("%s: %v, %v", what, refused, err)
		}
	}
	if _, err := c.Apply(store.Change{Feed: id}); err != nil { // unsettled
		t.Fatal(err)
	}
	refused, err = b.pull(t, c, newNotes(t), 0, id, other)
	want("unsettled", refused, err, protocol.CodeNotSettled)
	b.same(t, a, other)
	if err := c.Drop(id); err != nil {
		t.Fatal(err)
	}
	refused, err = b.pull(t, c, newNotes(t), 0, id, other)
	want("dropped", refused, err, protocol.CodeUnknownFeed)

	refused, err = c.pull(t, a, newNotes(t), 0, id) // c stays here
	must(t, refused, err)
	a.commit(t, id, files(3, 9, "f")...)
	refused, err = b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	if _, err := b.Apply(store.Change{Feed: id}); err != nil { // b is unsettled, its floor above c
		t.Fatal(err)
	}
	before := b.entries(t, id)
	n := newNotes(t)
	refused, err = b.pull(t, c, n, 0, id)
	want("below the floor", refused, err, errBlocked)
	if len(n.ended) != 1 || !errors.Is(n.ended[0], errBlocked) || len(b.entries(t, id)) != len(before) {
		t.Errorf("ended %v", n.ended)
	}
	release, ok := b.Claim(id)
	if !ok {
		t.Fatal("claimed")
	}
	refused, err = b.pull(t, a, newNotes(t), 0, id)
	want("claimed", refused, err, errBusy)
	release()
	refused, err = b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	b.same(t, a, id)

	// Rule 17: with nobody better left, below the floor will do.
	a.commit(t, id, file(77, "new"))
	refused, err = b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	if _, err := b.Apply(store.Change{Feed: id}); err != nil {
		t.Fatal(err)
	}
	pu := b.puller(newNotes(t))
	pu.Orphaned = func(f feed.ID) bool { return f == id }
	refused, err = b.pullWith(t, c, pu, serveCut(t, c, 0), id)
	must(t, refused, err)
	b.same(t, c, id)
}

// Changes beyond what one transaction holds are split, all put in before anything is taken out, and the
// tombstones that a head drops go ahead of it, however many they are.
func TestTooBigForOneTransaction(t *testing.T) {
	small := memory.Config{MaxEntries: 250}
	a, b := newParty(t, 1, 1), openParty(t, 2, 2, memory.New(small))
	id := a.location(1)
	a.commit(t, id, files(0, 900, "f")...)
	var dead []store.Put
	for i := range 600 {
		dead = append(dead, gone(i))
	}
	a.commit(t, id, dead...)
	refused, err := b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	b.same(t, a, id)
	if _, err := a.Collect(id, 1500); err != nil {
		t.Fatal(err)
	}
	n := newNotes(t)
	refused, err = b.pull(t, a, n, 0, id) // one head, no entries, 600 tombstones less
	must(t, refused, err)
	b.same(t, a, id)
	if n.chosen[0].Road != feed.RoadDelta {
		t.Errorf("chosen %v", n.chosen)
	}

	// By a diff as well, with entries to put in and to take out.
	dead = dead[:0]
	for i := range 150 {
		dead = append(dead, gone(600+i))
	}
	a.commit(t, id, dead...)
	refused, err = b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	a.commit(t, id, append(files(800, 1000, "g"), gone(790), gone(791))...)
	if _, err := a.Collect(id, 1<<20); err != nil {
		t.Fatal(err)
	}
	n = newNotes(t)
	refused, err = b.pull(t, a, n, 0, id)
	must(t, refused, err)
	b.same(t, a, id)
	if n.chosen[0].Road != feed.RoadDiff {
		t.Errorf("chosen %v", n.chosen)
	}
	if c := n.compared; len(c) != 1 || c[0] != [3]int{200, 252, 29} || n.received != 200 { // 250 of them are tombstones
		t.Errorf("compared %v; received %d", c, n.received)
	}
}

// A register moved from one seq to another by a diff that must be split is never away in between: nobody
// rescues what is not lost (rules 12 and 13).
func TestSplitDiffRescuesNothing(t *testing.T) {
	a, b := newParty(t, 1, 1), openParty(t, 2, 2, memory.New(memory.Config{MaxEntries: 60}))
	id := feed.ID{Device: a.id}
	for i := range 40 {
		if err := a.SetRegisters(named(a.id, fmt.Sprint("field ", i), "one")); err != nil {
			t.Fatal(err)
		}
	}
	refused, err := b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	for i := range 40 {
		if err := a.SetRegisters(named(a.id, fmt.Sprint("field ", 39-i), "two")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Apply(store.Change{Feed: id}); err != nil { // so that a diff it is
		t.Fatal(err)
	}
	n := newNotes(t)
	refused, err = b.pull(t, a, n, 0, id)
	must(t, refused, err)
	b.same(t, a, id)
	if n.chosen[0].Road != feed.RoadDiff {
		t.Errorf("chosen %v", n.chosen)
	}
	if st, ok := b.State(feed.ID{Device: b.id}); ok {
		t.Errorf("B wrote into its own feed: %+v", st)
	}
}

// Whatever a donor answers that is not what was asked for ends the pull with the donor accused, and changes
// nothing.
func TestGarbageAnswers(t *testing.T) {
	a := newParty(t, 1, 1)
	id := a.location(1)
	a.commit(t, id, files(0, 40, "f")...)
	head := func() feed.Head { st, _ := a.State(id); return *st.Settled }
	first := head()
	all := func(after uint64) (out []feed.Entry) {
		v, err := a.Serve(id)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if err := v.After(after, func(e feed.Entry) error { out = append(out, e); return nil }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	early := all(0)
	a.commit(t, id, append(files(35, 60, "g"), gone(1))...)
	if _, err := a.Collect(id, 1<<20); err != nil {
		t.Fatal(err)
	}
	late, open := head(), &protocol.Opened{Head: head()}
	entries := all(0)
	v, err := a.Serve(id)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	reply := func(level int, nodes ...uint64) *protocol.NodesReply {
		r := &protocol.NodesReply{}
		for _, i := range nodes {
			c, err := v.Node(level, i)
			if err != nil {
				t.Fatal(err)
			}
			r.Children = append(r.Children, c)
		}
		return r
	}
	top := shape.Top(late.Seq)
	otherFeed := late
	otherFeed.Feed = a.location(9)
	bad := reply(top, 0)
	bad.Children[0][0][0]++
	repeated := entries[3]
	repeated.Seq = late.Seq + 1
	page := func(last bool, e ...feed.Entry) *protocol.Page { return &protocol.Page{Entries: e, Last: last} }
	stranger := feed.Entry{Key: []byte("key"), Seq: 3, Record: []byte("record")}
	for name, c := range map[string]struct {
		settled bool // where the donor's history began, so that a diff is due; else nothing is held
		answers []protocol.Message
		code    protocol.Code
	}{
		"another feed":             {false, []protocol.Message{&protocol.Opened{Head: otherFeed}}, protocol.CodeMalformed},
		"a page for a head":        {false, []protocol.Message{page(true)}, protocol.CodeUnexpected},
		"a head for a page":        {false, []protocol.Message{open, open}, protocol.CodeUnexpected},
		"nodes for a page":         {false, []protocol.Message{open, bad}, protocol.CodeUnexpected},
		"an empty page":            {false, []protocol.Message{open, page(false)}, protocol.CodeMalformed},
		"an entry beyond the head": {false, []protocol.Message{open, page(true, repeated)}, protocol.CodeMalformed},
		"a page for nodes":         {true, []protocol.Message{open, page(true)}, protocol.CodeUnexpected},
		"too few nodes":            {true, []protocol.Message{open, &protocol.NodesReply{}}, protocol.CodeMalformed},
		"too many nodes":           {true, []protocol.Message{open, reply(top, 0, 0)}, protocol.CodeMalformed},
		"a wrong node":             {true, []protocol.Message{open, bad}, protocol.CodeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			b := newParty(t, 2, 2)
			if c.settled {
				if _, err := b.Apply(store.Change{Feed: id, Entries: early, Settle: &first}); err != nil {
					t.Fatal(err)
				}
			}
			before := b.entries(t, id)
			was, _ := b.State(id)
			n := newNotes(t)
			_, err := b.pullWith(t, a, b.puller(n), func(conn *protocol.Conn, _ *protocoltest.Stream) {
				for _, m := range c.answers {
					answer(conn, m)
				}
				conn.Recv()
			}, id)
			var fault *protocol.Error
			if !errors.As(err, &fault) || fault.Code != c.code || !fault.Fault() {
				t.Fatalf("%v, want %v", err, c.code)
			}
			now, _ := b.State(id)
			if len(b.entries(t, id)) != len(before) || (now.Settled == nil) != (was.Settled == nil) || now.Cursor != nil {
				t.Errorf("changed: %+v", now)
			}
		})
	}

	// Deeper in: the real donor, but for one answer.
	for name, c := range map[string]struct {
		spoil func(m protocol.Message) protocol.Message
		code  protocol.Code
	}{
		"a wrong leaf": {func(m protocol.Message) protocol.Message {
			if l, ok := m.(*protocol.LeavesReply); ok {
				l.Leaves[0][3]++
			}
			return m
		}, protocol.CodeMismatch},
		"a torn leaf": {func(m protocol.Message) protocol.Message {
			if l, ok := m.(*protocol.LeavesReply); ok {
				l.Leaves[0][0] = 0xFF
			}
			return m
		}, protocol.CodeMalformed},
		"leaves left out": {func(m protocol.Message) protocol.Message {
			if l, ok := m.(*protocol.LeavesReply); ok {
				l.Leaves = l.Leaves[1:]
			}
			return m
		}, protocol.CodeMalformed},
		"nodes for leaves": {func(m protocol.Message) protocol.Message {
			if _, ok := m.(*protocol.LeavesReply); ok {
				return &protocol.NodesReply{}
			}
			return m
		}, protocol.CodeUnexpected},
		"an entry nobody asked for": {func(m protocol.Message) protocol.Message {
			if _, ok := m.(*protocol.Page); ok {
				return page(true, stranger)
			}
			return m
		}, protocol.CodeMismatch},
		"entries left out": {func(m protocol.Message) protocol.Message {
			if p, ok := m.(*protocol.Page); ok {
				return page(true, p.Entries[1:]...)
			}
			return m
		}, protocol.CodeMismatch},
		"empty pages": {func(m protocol.Message) protocol.Message {
			if _, ok := m.(*protocol.Page); ok {
				return page(false)
			}
			return m
		}, protocol.CodeMalformed},
		"the end": {func(m protocol.Message) protocol.Message {
			if _, ok := m.(*protocol.Page); ok {
				return nil
			}
			return m
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newParty(t, 2, 2)
			if _, err := b.Apply(store.Change{Feed: id, Entries: early, Settle: &first}); err != nil {
				t.Fatal(err)
			}
			before := b.entries(t, id)
			n := newNotes(t)
			_, err := b.pullWith(t, a, b.puller(n), spoiled(t, a, c.spoil), id)
			var fault *protocol.Error
			if c.code != 0 && (!errors.As(err, &fault) || fault.Code != c.code || !fault.Fault()) || err == nil {
				t.Fatalf("%v, want %v", err, c.code)
			}
			if now, _ := b.State(id); now.Settled == nil || *now.Settled != first || len(b.entries(t, id)) != len(before) {
				t.Errorf("changed: %+v", now)
			}
		})
	}
}

// spoiled answers as a real server does, but for what spoil changes; nil ends the stream.
func spoiled(tb testing.TB, donor *party, spoil func(protocol.Message) protocol.Message) func(*protocol.Conn, *protocoltest.Stream) {
	return func(c *protocol.Conn, _ *protocoltest.Stream) {
		near, far := protocoltest.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn := protocol.NewConn(far, protocol.ConnConfig{})
			conn.End((&Server{Store: donor.Store, Notes: newNotes(tb)}).Serve(conn))
		}()
		real := protocol.NewConn(near, protocol.ConnConfig{})
		defer func() { real.Reset(protocol.CodeShutdown); <-done }()
		for {
			m, err := c.Recv()
			if err != nil || real.Send(m) != nil || real.Flush() != nil {
				return
			}
			for last := false; !last; {
				m, err := real.Recv()
				if err != nil {
					return
				}
				p, isPage := m.(*protocol.Page)
				last = !isPage || p.Last
				if m = spoil(m); m == nil {
					c.CloseWrite()
					return
				}
				if c.Send(m) != nil || c.Flush() != nil {
					return
				}
			}
		}
	}
}
