package backfill

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
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

// party is one device with a store of its own. Its tree is narrow, so that few entries make it deep.
type party struct {
	*store.Store
	id   record.DeviceID
	key  ed25519.PrivateKey
	boot uint64
	cfg  store.Config
	eng  *memory.Engine
}

var shape = feed.Shape{LeafBits: 3, FanBits: 2}

func keyOf(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), n))
}

func newParty(tb testing.TB, n byte, boot uint64) *party {
	tb.Helper()
	return openParty(tb, n, boot, memory.New(memory.Config{}))
}

// tick makes stamps of all parties rise, whoever draws them.
var tick atomic.Uint64

func openParty(tb testing.TB, n byte, boot uint64, eng *memory.Engine) *party {
	tb.Helper()
	p := &party{key: keyOf(n), boot: boot, eng: eng}
	p.id = record.DeviceID(p.key.Public().(ed25519.PublicKey))
	p.cfg = store.Config{
		Device: p.id, Library: library, Boot: boot, Shape: shape,
		Clock: func() (hlc.Stamp, error) { return hlc.At(time.Unix(1e9, 0)) + hlc.Stamp(tick.Add(1)), nil },
		Sign:  func(h feed.Head) feed.Head { return h.Sign(p.key) },
	}
	var err error
	if p.Store, err = store.New(eng, p.cfg); err != nil {
		tb.Fatal(err)
	}
	return p
}

// reopen is the death of the process and its next start.
func (p *party) reopen(tb testing.TB, boot uint64) *party {
	tb.Helper()
	return openParty(tb, p.key.Seed()[ed25519.SeedSize-1], boot, p.eng.Crash(p.eng.Unsynced()))
}

func entryID(n int) (id record.EntryID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)+1)
	return id
}

func file(n int, name string) store.Put {
	return store.Put{Record: record.File{ID: entryID(n), Kind: record.Regular, Size: uint64(n), Name: name}, Local: []byte("here")}
}

func gone(n int) store.Put { return store.Put{Record: record.Tombstone{ID: entryID(n)}} }

func files(from, to int, name string) (out []store.Put) {
	for i := from; i < to; i++ {
		out = append(out, file(i, fmt.Sprintf("%s %d", name, i)))
	}
	return out
}

func (p *party) location(n byte) feed.ID {
	return feed.ID{Device: p.id, Location: record.LocationID{n}}
}

func (p *party) commit(tb testing.TB, id feed.ID, puts ...store.Put) feed.Head {
	tb.Helper()
	h, err := p.Commit(id, puts)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// entries returns a feed's live set as text: key, seq and record.
func (p *party) entries(tb testing.TB, id feed.ID) []string {
	tb.Helper()
	var out []string
	if _, ok := p.State(id); !ok {
		return nil
	}
	err := p.Entries(id, func(r store.Row) error {
		out = append(out, fmt.Sprintf("%x@%d=%x", r.Key, r.Seq, r.Record))
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// same fails unless p is settled on a feed where o is, with the same entries.
func (p *party) same(tb testing.TB, o *party, id feed.ID) {
	tb.Helper()
	a, _ := p.State(id)
	b, _ := o.State(id)
	if a.Settled == nil || b.Settled == nil || *a.Settled != *b.Settled {
		tb.Fatalf("settled at %+v and at %+v", a.Settled, b.Settled)
	}
	if x, y := p.entries(tb, id), o.entries(tb, id); !slices.Equal(x, y) {
		tb.Fatalf("%d and %d entries differ", len(x), len(y))
	}
}

// notes keeps account of a pull.
type notes struct {
	tb       testing.TB
	chosen   []feed.Route
	asked    map[string]int
	open     bool
	received int
	applied  int
	dropped  int
	removed  int
	absorbed int
	result   store.Result
	ended    []error
	compared [][3]int // entries lacking, spare ones, leaves that differed
	serving  []uint64 // entries that were asked for, at most
	served   map[string]int
	onServed func(request string)
	onPage   func() // a page has come and is not applied yet
}

func newNotes(tb testing.TB) *notes {
	return &notes{tb: tb, asked: map[string]int{}, served: map[string]int{}}
}

func (n *notes) Asked(_ Pull, request string) { n.asked[request]++ }
func (n *notes) Chosen(p Pull) {
	if n.open {
		n.tb.Error("chosen twice without an end")
	}
	n.open = true
	n.chosen = append(n.chosen, p.Route)
}
func (n *notes) Compared(_ Pull, lack, spare, leaves int) {
	n.compared = append(n.compared, [3]int{lack, spare, leaves})
}
func (n *notes) Received(_ Pull, entries, _ int, _ time.Duration) {
	n.received += entries
	if n.onPage != nil {
		n.onPage()
	}
}
func (n *notes) Committing(kv.Tx, Pull, bool, *store.Result) error {
	return nil
}
func (n *notes) Applied(_ Pull, res store.Result, _ time.Duration) {
	n.applied += res.Applied + res.Duplicate + res.Superseded + res.Rejected
	n.removed += res.Removed
	n.result = res
}
func (n *notes) Absorbed(_ Pull, entries int, _ feed.Head) { n.absorbed += entries }
func (n *notes) Dropped(_ Pull, entries int)               { n.dropped += entries }
func (n *notes) Ended(_ Pull, err error) {
	if !n.open {
		n.tb.Error("ended without a beginning")
	}
	n.open = false
	n.ended = append(n.ended, err)
	n.balanced()
}

// balanced fails unless every entry received was applied, absorbed or dropped.
func (n *notes) balanced() {
	n.tb.Helper()
	if n.received != n.applied+n.dropped+n.absorbed {
		n.tb.Errorf("received %d, applied %d, absorbed %d, dropped %d", n.received, n.applied, n.absorbed, n.dropped)
	}
}

func (n *notes) Serving(_ protocol.SessionID, _ record.DeviceID, entries uint64) {
	n.serving = append(n.serving, entries)
}

func (n *notes) Served(_ protocol.SessionID, _ record.DeviceID, _ feed.ID, request string, _, _ int) {
	n.served[request]++
	if n.onServed != nil {
		n.onServed(request)
	}
}

// link joins two parties by a stream in memory; the donor's end is answered by serve.
func (p *party) link(donor *party, serve func(*protocol.Conn, *protocoltest.Stream)) (conn *protocol.Conn, done func()) {
	a, b := protocoltest.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serve(protocol.NewConn(b, protocol.ConnConfig{Device: p.id}), b)
	}()
	return protocol.NewConn(a, protocol.ConnConfig{Device: donor.id}), func() {
		a.Reset(protocol.CodeShutdown)
		<-ended
	}
}

func (p *party) puller(n *notes) *Puller {
	return &Puller{Store: p.Store, Shape: shape, Boot: p.boot, Notes: n, Now: time.Now, Rescan: func(record.LocationID) {}}
}

// pullWith runs one pull session against whatever answers.
func (p *party) pullWith(tb testing.TB, donor *party, pu *Puller, serve func(*protocol.Conn, *protocoltest.Stream), want ...feed.ID) (map[feed.ID]error, error) {
	tb.Helper()
	conn, done := p.link(donor, serve)
	defer done()
	refused, err := pu.Run(conn, protocol.NewSessionID(), want)
	n := pu.Notes.(*notes)
	n.balanced()
	if n.open {
		tb.Error("a pull that was chosen has not ended")
	}
	return refused, err
}

// pull runs one pull session against a real server; cut, if positive, breaks the stream at that page.
func (p *party) pull(tb testing.TB, donor *party, n *notes, cut int, want ...feed.ID) (map[feed.ID]error, error) {
	tb.Helper()
	return p.pullWith(tb, donor, p.puller(n), serveCut(tb, donor, cut), want...)
}

func serveCut(tb testing.TB, donor *party, cut int) func(*protocol.Conn, *protocoltest.Stream) {
	return func(c *protocol.Conn, s *protocoltest.Stream) {
		n := newNotes(tb)
		pages := 0
		n.onServed = func(request string) {
			if request != "delta" && request != "fetch" {
				return
			}
			if pages++; pages == cut {
				c.Flush()
				s.CloseWrite()
				for _, err := c.Recv(); err == nil; { // a reset would take back what was sent
					_, err = c.Recv()
				}
			}
		}
		srv := &Server{Store: donor.Store, Notes: n}
		c.End(srv.Serve(c))
	}
}

// must fails unless a pull of one feed settled it.
func must(tb testing.TB, refused map[feed.ID]error, err error) {
	tb.Helper()
	if err != nil || len(refused) > 0 {
		tb.Fatalf("pull: %v, refused %v", err, slices.Collect(maps.Values(refused)))
	}
}

func newEngine() *memory.Engine { return memory.New(memory.Config{}) }
