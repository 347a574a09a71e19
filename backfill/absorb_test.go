package backfill

import (
	"errors"
	"fmt"
	"testing"

	"peerdex/feed"
	"peerdex/kv/memory"
	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
	"peerdex/record"
	"peerdex/store"
)

func named(d record.DeviceID, field, value string) record.Register {
	return record.Register{Entity: record.Device(d), Field: field, Value: []byte(value)}
}

// restored returns the device as it was when b was taken: the same identity in another process.
func restored(tb testing.TB, p *party, b memory.Backup, boot uint64) *party {
	tb.Helper()
	return openParty(tb, p.key.Seed()[31], boot, memory.Restore(memory.Config{}, b))
}

// A is restored from a backup, or wiped. B has A's device feed as it was last, and gives it back: A holds
// both what only B knew and what A wrote since, signs above B's head, and B follows by a plain delta.
func TestAbsorbOwnDeviceFeed(t *testing.T) {
	for _, wiped := range []bool{false, true} {
		t.Run(fmt.Sprintf("wiped=%v", wiped), func(t *testing.T) {
			a, b := newParty(t, 1, 1), newParty(t, 2, 2)
			id := feed.ID{Device: a.id}
			set := func(p *party, field, value string) {
				t.Helper()
				if err := p.SetRegisters(named(a.id, field, value)); err != nil {
					t.Fatal(err)
				}
			}
			backup := a.eng.Backup()
			set(a, "old", "kept")
			if !wiped {
				if err := a.Sync(); err != nil {
					t.Fatal(err)
				}
				backup = a.eng.Backup()
			}
			set(a, "lost", "comes back")
			set(a, "both", "older")
			refused, err := b.pull(t, a, newNotes(t), 0, id)
			must(t, refused, err)
			seen, _ := b.State(id)

			a = restored(t, a, backup, 11)
			set(a, "both", "newer")
			n := newNotes(t)
			refused, err = a.pull(t, b, n, 0, id)
			must(t, refused, err)
			if n.absorbed != 3 || n.received != 3 {
				t.Fatalf("absorbed %d of %d", n.absorbed, n.received)
			}
			st, _ := a.State(id)
			if st.Settled.Seq <= seen.Settled.Seq || st.Settled.Onto != seen.Settled.Boot || st.Settled.Boot != 11 {
				t.Fatalf("signed %+v over %+v", st.Settled, seen.Settled)
			}
			for field, want := range map[string]string{"old": "kept", "lost": "comes back", "both": "newer"} {
				if r, ok, err := a.Register(record.Device(a.id), field); err != nil || !ok || string(r.Value) != want {
					t.Errorf("%s is %q, %v, %v", field, r.Value, ok, err)
				}
			}
			n = newNotes(t)
			refused, err = b.pull(t, a, n, 0, id)
			must(t, refused, err)
			if len(n.chosen) != 1 || n.chosen[0].Road != feed.RoadDelta {
				t.Errorf("B followed by %v", n.chosen)
			}
			b.same(t, a, id)
			refused, err = a.pull(t, b, newNotes(t), 0, id) // nothing is left to take back
			must(t, refused, err)
			if now, _ := a.State(id); *now.Settled != *st.Settled {
				t.Errorf("absorbed twice: %+v", now.Settled)
			}
		})
	}
}

// A location feed is taken back entry by entry, and then scanned: what stood under other keys at the same
// seqs moves above, so that no two entries share one.
func TestAbsorbOwnLocationFeed(t *testing.T) {
	a, b := newParty(t, 1, 1), newParty(t, 2, 2)
	id := a.location(1)
	a.commit(t, id, files(0, 1200, "old")...)
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	backup := a.eng.Backup()
	a.commit(t, id, append(files(1200, 2400, "lost"), gone(5), file(6, "renamed"))...)
	refused, err := b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	seen, _ := b.State(id)

	a = restored(t, a, backup, 11)
	a.commit(t, id, files(5000, 5100, "since")...) // at seqs that B has other files at
	n := newNotes(t)
	scanned := 0
	pu := a.puller(n)
	pu.Rescan = func(l record.LocationID) {
		if l == id.Location {
			scanned++
		}
	}
	refused, err = a.pullWith(t, b, pu, serveCut(t, b, 0), id)
	must(t, refused, err)
	if scanned != 1 || n.absorbed != int(seen.Settled.Count) {
		t.Errorf("scanned %d times, absorbed %d of %d", scanned, n.absorbed, seen.Settled.Count)
	}
	st, _ := a.State(id)
	if st.Settled.Seq <= seen.Settled.Seq || st.Settled.Onto != seen.Settled.Boot {
		t.Fatalf("signed %+v over %+v", st.Settled, seen.Settled)
	}
	if got := a.Counts(id); got.Files != 2400-1+100 || got.Tombstones != 1 {
		t.Errorf("counts %+v", got)
	}
	last := uint64(0)
	err = a.Entries(id, func(r store.Row) error {
		if r.Seq <= last {
			return fmt.Errorf("entry at %d after %d", r.Seq, last)
		}
		last = r.Seq
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	n = newNotes(t)
	refused, err = b.pull(t, a, n, 0, id)
	must(t, refused, err)
	if len(n.chosen) != 1 || n.chosen[0].Road != feed.RoadDelta {
		t.Errorf("B followed by %v", n.chosen)
	}
	b.same(t, a, id)
}

// B was asked for what A has lost, and slips in a register that A never wrote. A would sign it as its own:
// it takes nothing, and accuses B.
func TestAbsorbTakesOnlyWhatWasSigned(t *testing.T) {
	for _, location := range []bool{false, true} {
		t.Run(fmt.Sprintf("location=%v", location), func(t *testing.T) {
			a, b := newParty(t, 1, 1), newParty(t, 2, 2)
			id := feed.ID{Device: a.id}
			var forged feed.Entry
			if location {
				id = a.location(1)
				a.commit(t, id, files(0, 3, "true")...)
				p := file(7, "false")
				forged = feed.Entry{Key: p.Record.Key(), Seq: 2, Record: p.Record.Append(nil)}
			} else {
				for i := range 3 {
					if err := a.SetRegisters(named(a.id, fmt.Sprint("field ", i), "true")); err != nil {
						t.Fatal(err)
					}
				}
				r := named(a.id, "field 1", "false")
				r.Author, r.Stamp = a.id, 1<<62
				forged = feed.Entry{Key: r.Key(), Seq: 2, Record: r.Append(nil)}
			}
			refused, err := b.pull(t, a, newNotes(t), 0, id)
			must(t, refused, err)
			seen, _ := b.State(id)
			a = openParty(t, 1, 11, newEngine())
			n := newNotes(t)
			_, err = a.pullWith(t, b, a.puller(n), func(c *protocol.Conn, _ *protocoltest.Stream) {
				answer(c, &protocol.Opened{Head: *seen.Settled})
				var all []feed.Entry
				v, err := b.Serve(id)
				if err != nil {
					t.Error(err)
					return
				}
				defer v.Close()
				if err := v.After(0, func(e feed.Entry) error { all = append(all, e); return nil }); err != nil {
					t.Error(err)
				}
				all[1] = forged
				answer(c, &protocol.Page{Entries: all, Last: true})
				c.Close()
			}, id)
			var fault *protocol.Error
			if !errors.As(err, &fault) || fault.Code != protocol.CodeMismatch || !fault.Fault() {
				t.Fatalf("absorbing what was never signed gives %v", err)
			}
			if st, ok := a.State(id); ok && st.Settled != nil {
				t.Errorf("signed %+v", st.Settled)
			}
			if n.absorbed != 0 {
				t.Errorf("%d absorbed", n.absorbed)
			}
		})
	}
}

// Another session is taking the feed back already.
func TestAbsorbIsOneAtATime(t *testing.T) {
	a, b := newParty(t, 1, 1), newParty(t, 2, 2)
	id := a.location(1)
	a.commit(t, id, files(0, 3, "true")...)
	refused, err := b.pull(t, a, newNotes(t), 0, id)
	must(t, refused, err)
	a = openParty(t, 1, 11, newEngine())
	release, ok := a.Claim(id)
	if !ok {
		t.Fatal("feed is taken")
	}
	refused, err = a.pull(t, b, newNotes(t), 0, id)
	if err != nil || !errors.Is(refused[id], errBusy) {
		t.Fatalf("%v, %v", refused, err)
	}
	release()
	refused, err = a.pull(t, b, newNotes(t), 0, id)
	must(t, refused, err)
}

// answer receives a request and replies to it.
func answer(c *protocol.Conn, m protocol.Message) {
	if _, err := c.Recv(); err != nil {
		return
	}
	if c.Send(m) == nil {
		c.Flush()
	}
}
