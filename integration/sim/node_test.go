package sim

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"peerdex/backfill"
	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/kv"
	"peerdex/kv/memory"
	"peerdex/member"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/statebatch"
	"peerdex/store"
)

// node is one device: the product's store, puller, server, receiver and senders, with the little that
// package node does around them.
type node struct {
	w   *world
	i   int
	dev record.DeviceID
	key int // of keyOfDevice
	membership
	outside bool // not taken in yet
	left    bool // by its own word
	disk    *disk
	marker  *marker
	backup  *backup
	fs      folder
	dial    dial      // its wall clock
	bound   hlc.Stamp // of its hybrid clock, kept beside the store
	liar    bool      // stamps what it likes
	refuses bool      // every session that is asked of it
	gone    bool
	down    bool // between a crash and the next start
	broken  bool // a sync failed: it must crash
	rescan  bool // the indexer has to look
	tended  int  // steps until what was rescued here is to be lost with the rest
	tender  bool // something was just rescued here: a good moment for a crash
	st      *store.Store
	clock   *hlc.Clock
	boot    uint64
	puller  *backfill.Puller
	server  *backfill.Server
	pushed  *statebatch.Receiver
	senders map[int]*statebatch.Sender

	bulk
	naming bool // a snapshot is being put in the place of what the disk holds

	orphaned  map[feed.ID]bool // may settle below their floor (rule 17)
	syncFails bool
	failures  map[int]time.Time // when a pull from a node failed last

	// What the checks remember.
	last    map[feed.ID]feed.State
	view    map[string]record.Register // the winners at the last look, by its wall clock
	told    told
	acked   told                        // as it was when a sync last returned
	birth   map[headKey]int             // the transaction that settled at a head
	keep    map[protocol.SessionID]kept // what no step of a pull under way may lose
	stamp   hlc.Stamp                   // the last one issued
	ceiling hlc.Stamp                   // what its wall clock has allowed so far

	pending map[protocol.SessionID]int // entries received, and neither applied nor dropped yet
}

// start opens the store on eng, as a new process with a new boot nonce.
func (n *node) start(eng *memory.Engine) {
	w := n.w
	w.boots++
	n.boot = w.boots
	n.down, n.broken, n.syncFails, n.tender = false, false, false, false
	n.disk = &disk{Engine: eng, touched: map[feed.ID]int{}, changed: map[feed.ID]int{}}
	n.last, n.birth, n.keep = map[feed.ID]feed.State{}, map[headKey]int{}, map[protocol.SessionID]kept{}
	n.view, n.told, n.orphaned = map[string]record.Register{}, told{}, map[feed.ID]bool{}
	n.pending = map[protocol.SessionID]int{}
	n.senders, n.failures = map[int]*statebatch.Sender{}, map[int]time.Time{}
	var err error
	n.st, err = store.New(engine{n.disk, n}, store.Config{
		Device: n.dev, Library: w.lib, Boot: n.boot, Clock: n.now, Sign: n.sign, Verify: verify,
		Shape: w.shape, Marker: n.marker, Now: n.wall, Observe: n.see,
	})
	if err != nil {
		w.fail("I6", n, "store does not open: %v", err)
	}
	n.startClock()
	n.set, n.setAt, n.seen, n.generation = member.Set{}, 0, nil, n.durable
	notes := &notes{n}
	n.puller = &backfill.Puller{
		Store: n.st, Shape: w.shape, Boot: n.boot, Notes: notes, Now: n.wall, Limit: w.knob.limit,
		Rescan:   func(record.LocationID) { n.rescan = true },
		Orphaned: func(id feed.ID) bool { return n.orphaned[id] }, Admit: n.admitted,
	}
	n.server = &backfill.Server{Store: n.st, Notes: notes, Limit: w.knob.limit, Admit: n.admit}
	n.pushed = &statebatch.Receiver{Store: n.st, Notes: notes, Now: n.wall, Follows: n.follows, Admit: n.admitted}
	if w.much {
		n.startBulk()
		n.pushed.Declines = func(next feed.Head) bool {
			st, _ := n.st.State(next.Feed)
			if next.Compare(st.Best) > 0 {
				st.Best = next
			}
			return n.declines(st)
		}
	}
	for _, id := range w.feeds {
		n.disk.touched[id] = 0
	}
	n.disk.registers = true
	n.check()
	n.refresh()
}

// engine is the disk with its failures.
type engine struct {
	*disk
	n *node
}

func (e engine) Sync() error {
	if e.n.syncFails {
		e.n.broken = true
		e.n.w.reach("sync fails")
		return errPower
	}
	return e.disk.Sync()
}

func (e engine) Update(fn func(kv.Tx) error) error {
	if e.n.broken {
		return errPower
	}
	return e.disk.Update(fn)
}

// sign stands for Ed25519, which would take most of the time.
func (n *node) sign(h feed.Head) feed.Head {
	if seq := n.marker.state.Seqs[h.Feed]; h.Seq <= seq {
		n.w.fail("MARKER", n, "signs %s at %d, the marker says %d was durable", n.w.feedName(h.Feed), h.Seq, seq)
	}
	sum := sha256.Sum256(append(h.Feed.Device[:], h.SignedBytes()...))
	copy(h.Sig[:], sum[:])
	return h
}

func verify(h feed.Head) error {
	sum := sha256.Sum256(append(h.Feed.Device[:], h.SignedBytes()...))
	if h.Seq == 0 || h.GC > h.Seq || h.Count > h.Seq || (h.Count == 0) != (h.Root == feed.Hash{}) || [32]byte(h.Sig[:32]) != sum {
		return feed.ErrSignature
	}
	return nil
}

func (n *node) admit(d record.DeviceID) error {
	if _, err := n.member(d); err != nil {
		return err
	}
	if n.refuses || n.w.chaos && chance(n.w.net, n.w.knob.busy) {
		n.w.reach("busy donor")
		return protocol.CodeBusy
	}
	return nil
}

// ought fails unless err is what a frozen or dying node may answer.
func (n *node) ought(err error) {
	if err == nil || n.down || n.broken || errors.Is(err, store.ErrFrozen) && n.st.Frozen() {
		return
	}
	n.w.fail("ERR", n, "%v", err)
}

func (n *node) sync() {
	if err := n.st.Sync(); err != nil {
		n.ought(err)
		return
	}
	n.acked = maps.Clone(n.told)
	n.durable = n.st.Generation()
}

// collect drops some tombstones of the own location; of a device feed it must be refused (rule 3).
func (n *node) collect(r *rand.Rand) {
	if _, err := n.st.Collect(feed.ID{Device: n.dev}, 1<<40); err == nil {
		n.w.fail("RULE3", n, "a device feed was collected")
	}
	if n.st.Frozen() {
		return
	}
	id := n.w.location(n.dev)
	var tombs []uint64
	err := n.st.Entries(id, func(row store.Row) error {
		if record.IsTombstone(row.Record) {
			tombs = append(tombs, row.Seq)
		}
		return nil
	})
	if err != nil || len(tombs) == 0 {
		return
	}
	if _, err := n.st.Collect(id, tombs[r.IntN(len(tombs))]); err != nil {
		n.ought(err)
		return
	}
	n.w.reach("collect")
	n.w.log("collect", n, 0, 0)
	n.check()
}

// heads is what a node tells its peers: where it stands, durably.
func (n *node) heads() *protocol.Heads {
	states := n.st.States()
	if err := n.st.Sync(); err != nil {
		n.ought(err)
		return nil
	}
	m := &protocol.Heads{Full: true, ActiveSyncs: uint32(len(n.w.tasks))}
	for _, st := range states {
		if st.Best.IsGenesis() {
			continue
		}
		info := protocol.HeadInfo{Best: st.Best}
		if st.Settled != nil && !st.Settled.IsGenesis() {
			info.Settled = st.Settled
			n.published(*st.Settled)
		}
		m.Heads = append(m.Heads, info)
	}
	b, err := protocol.Encode(m)
	if err != nil {
		n.w.fail("WIRE", n, "heads do not encode: %v", err)
	}
	got, err := protocol.Decode(protocol.Number(m), b)
	if err != nil {
		n.w.fail("WIRE", n, "heads do not decode: %v", err)
	}
	return got.(*protocol.Heads)
}

// hear takes a peer's heads and returns the own feeds to absorb from it.
func (n *node) hear(from *node, m *protocol.Heads) (absorb []feed.ID) {
	admitted, err := n.member(from.dev)
	if err != nil {
		return nil
	}
	var others []feed.Head
	before := map[feed.ID]feed.State{}
	for _, info := range m.Heads {
		id := info.Best.Feed
		if id.Device == n.dev {
			if n.hearOwn(from, info) {
				absorb = append(absorb, id)
			}
			continue
		}
		if !n.follows(id) {
			continue
		}
		if _, ok := before[id]; !ok {
			before[id], _ = n.st.State(id)
		}
		others = append(others, info.Best)
		if info.Settled != nil {
			others = append(others, *info.Settled)
		}
	}
	seen, err := n.st.Observe(others, admitted)
	if err != nil {
		n.ought(err)
		return nil
	}
	n.forksTold(others, before, seen)
	n.check()
	return absorb
}

// forksTold fails if a fork of a head known here was not reported (I8).
func (n *node) forksTold(heads []feed.Head, before map[feed.ID]feed.State, seen []store.Observed) {
	for _, h := range heads {
		st := before[h.Feed]
		if !h.Forks(st.Best) && !h.Forks(st.Floor) || h.IsGenesis() {
			continue
		}
		n.w.reach("fork seen")
		n.w.forked = n.w.nodeOf(h.Feed.Device)
		if !slices.ContainsFunc(seen, func(o store.Observed) bool { return o.Forks && o.Head == h }) {
			n.w.fail("I8", n, "a fork of %s at %d was not reported", n.w.feedName(h.Feed), h.Seq)
		}
	}
}

// hearOwn deals with what a peer shows of an own feed (rules 15 and 16); it returns true if the entries
// are to be absorbed from it.
func (n *node) hearOwn(from *node, info protocol.HeadInfo) bool {
	if n.st.Frozen() {
		return false
	}
	id := info.Best.Feed
	held := feed.Head{Feed: id}
	if info.Settled != nil {
		held = *info.Settled
	}
	n.sender(from).Holds(held)
	st, _ := n.st.State(id)
	v := st.DecideOwn(n.boot, info.Settled, info.Best)
	switch v.Own {
	case feed.OwnFreeze:
		n.w.reach("freeze")
		n.w.logFeed("freeze", n, id, v.Over.Seq, v.Over.Boot)
		n.ought(n.st.Freeze())
	case feed.OwnAbsorb:
		return true
	case feed.OwnJump:
		n.w.reach("jump")
		n.w.logFeed("jump", n, id, v.Over.Seq, v.Over.Boot)
		if _, err := n.st.Jump(id, v.Over); err != nil {
			n.ought(err)
		}
		n.rescan = n.rescan || !id.IsDevice()
		n.check()
	}
	return false
}

func (n *node) sender(to *node) *statebatch.Sender {
	s, ok := n.senders[to.i]
	if !ok {
		s = statebatch.NewSender(statebatch.SenderConfig{
			Store: n.st, Peer: to.dev, Session: n.w.session(), Near: statebatch.DefaultNear, Notes: &notes{n}, Now: n.wall,
			Open: func(context.Context) (*protocol.Conn, error) { return nil, errors.ErrUnsupported },
		})
		n.senders[to.i] = s
	}
	return s
}

func (w *world) session() (s protocol.SessionID) {
	w.sessions++
	binary.BigEndian.PutUint64(s[8:], w.sessions)
	return s
}

// wants returns the feeds that a peer has newer.
func (n *node) wants(m *protocol.Heads) (out []feed.ID) {
	for _, info := range m.Heads {
		if info.Settled == nil || info.Best.Feed.Device == n.dev || !n.takes(info.Best.Feed) {
			continue
		}
		st, _ := n.st.State(info.Best.Feed)
		if st.Settled == nil || info.Settled.Compare(*st.Settled) > 0 {
			out = append(out, info.Best.Feed)
		}
	}
	return out
}

// notes is told by the product what it does; here it looks and lets others run.
type notes struct{ *node }

func (o *notes) Chosen(p backfill.Pull) {
	n := o.node
	n.w.reach("road " + p.Route.Road.String() + " " + p.Route.Reason)
	n.w.logFeed("pull", n, p.Feed, p.Route.From, p.Head.Seq)
	if st, _ := n.st.State(p.Feed); p.Route.Reason == "mismatch" && st.Cursor != nil {
		n.w.fail("RULE11", n, "a delta of %s did not add up, and the next would go on from its cursor", n.w.feedName(p.Feed))
	}
	n.check()
	n.keepFrom(p)
	n.w.pause()
}

func (o *notes) Asked(backfill.Pull, string) {}

func (o *notes) Compared(backfill.Pull, int, int, int) {}

func (o *notes) Received(p backfill.Pull, entries, _ int, _ time.Duration) {
	o.pending[p.Session] += entries
	o.w.pause()
}

func (o *notes) Applied(p backfill.Pull, res store.Result, _ time.Duration) {
	n := o.node
	n.w.logFeed("applied", n, p.Feed, uint64(res.Applied), uint64(res.Removed))
	n.pending[p.Session] -= res.Applied + res.Duplicate + res.Superseded + res.Rejected
	if res.Rescued > 0 {
		n.w.reach("rescue")
		n.tender = true
		if n.w.knob.history > 0 && chance(n.w.net, 0.8) {
			n.tended = 3 + n.w.net.IntN(10)
		}
		n.rescued(p.Feed)
	}
	if res.Aside > 0 {
		n.w.reach("set aside")
	}
	if res.State.Cursor != nil {
		n.w.reach("cursor")
	}
	n.checkCursor(p)
	n.check()
	n.w.pause()
}

func (o *notes) Committing(_ kv.Tx, p backfill.Pull, settling bool, res *store.Result) error {
	o.receives(p.Donor)
	if settling != (res.State.Settled != nil) {
		o.w.fail("RULE5", o.node, "a change that settles %v leaves %s settled %v", settling, o.w.feedName(p.Feed), !settling)
	}
	return nil
}

func (o *notes) Dropped(p backfill.Pull, entries int) { o.pending[p.Session] -= entries }

func (o *notes) Ended(p backfill.Pull, err error) {
	n := o.node
	if left := n.pending[p.Session]; left != 0 {
		n.w.fail("I14", n, "%d entries of a pull were received and neither applied nor dropped", left)
	}
	delete(n.pending, p.Session)
	if errors.Is(err, store.ErrMismatch) && p.Route.Road == feed.RoadDelta {
		n.mismatch(p)
	}
}

// mismatch notes that a delta did not add up, which without a rollback must not happen (rule 11).
func (n *node) mismatch(p backfill.Pull) {
	n.w.reach("delta mismatch")
	n.w.logFeed("mismatch", n, p.Feed, p.Route.From, p.Head.Seq)
	if st, _ := n.st.State(p.Feed); !n.w.rollbacks && (st.Settled != nil || st.Cursor != nil && p.Head.Seq >= st.Cursor.High) {
		n.w.fail("COST", n, "a delta of %s did not add up, and no history ever went backwards", n.w.feedName(p.Feed))
	}
}

func (o *notes) Absorbed(p backfill.Pull, absorbed int, to feed.Head) {
	n := o.node
	n.receives(p.Donor)
	n.w.reach("absorb")
	n.w.logFeed("absorb", n, p.Feed, uint64(absorbed), to.Seq)
	delete(n.pending, p.Session)
	n.check()
	n.checkAbsorbed(p.Head, to)
	n.w.pause()
}

func (o *notes) Serving(protocol.SessionID, record.DeviceID, uint64) {}

func (o *notes) Served(_ protocol.SessionID, to record.DeviceID, id feed.ID, request string, _, _ int) {
	if kind, out := o.out[to]; out && request == "open" && o.w.belonging {
		o.w.fail("I12", o.node, "%s is opened for node %d after its %v", o.w.feedName(id), o.w.nodeOf(to).i, kind)
	}
}

func (o *notes) PushReceived(record.DeviceID, feed.ID, int) { o.w.pause() }

func (o *notes) PushDone(_ record.DeviceID, b *protocol.StateBatch, outcome protocol.Outcome, res store.Result, _ time.Duration) {
	n := o.node
	n.w.reach("push " + outcome.String())
	if outcome == protocol.Applied && n.lazy(b.Next.Feed) {
		n.w.fail("LAZY", n, "a push of %s was applied, which is followed by head only", n.w.feedName(b.Next.Feed))
	}
	n.w.logFeed("pushed", n, b.Next.Feed, uint64(outcome), b.Next.Seq)
	if res.Rescued > 0 {
		n.w.reach("rescue at push")
	}
	n.check()
}

func (o *notes) PushCommitting(_ kv.Tx, from record.DeviceID, _ *protocol.StateBatch, _ *store.Result) error {
	o.receives(from)
	return nil
}

func (o *notes) Look(feed.ID) {}

func (o *notes) Pushed(_ record.DeviceID, _ protocol.SessionID, id feed.ID, entries []feed.Entry) {
	o.w.logFeed("push", o.node, id, uint64(len(entries)), 0)
}

func (o *notes) Acked(record.DeviceID, protocol.SessionID, feed.ID, int, protocol.Outcome, time.Duration) {
}

func (o *notes) PushFailed(record.DeviceID, protocol.SessionID, feed.ID, int, error) {}
