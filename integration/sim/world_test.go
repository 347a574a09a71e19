package sim

import (
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"peerdex/feed"
	"peerdex/kv/memory"
	"peerdex/member"
	"peerdex/record"
)

// knobs are drawn once a phase: each seed has some of the faults, at rates of its own.
type knobs struct {
	interrupt, crash, history, leave, partition float64 // chance per step
	push, gossip                                float64
	govern                                      float64       // chance per step that a node does something about who belongs
	corrupt, truncate                           float64       // chance per write to a stream
	syncFails                                   float64       // chance per step that a node's next sync fails
	busy                                        float64       // chance that a donor turns an Open away
	limit                                       int           // entries of a page and of a transaction
	fragment                                    bool          // reads return less than there is
	skew                                        time.Duration // of a clock that somebody sets
	wild                                        bool          // clocks jump by hours and years, stand and drift
}

// world is one seed's library.
type world struct {
	seed  uint64
	steps int
	shape feed.Shape
	lib   feed.LibraryID
	keys  int // files of a folder
	words int // shared fields that all devices write
	clone bool
	knob  knobs

	plan, net, pick *rand.Rand // what happens; what streams do; who runs next
	more            *rand.Rand // what happens in worlds that move much at once
	much            bool       // this is one of them
	home            string     // the folder of their devices' homes
	from            uint64     // entries above which it is much at once
	chunk           int        // bytes of a snapshot's chunks
	liar            int        // the node whose snapshots are no true ones; -1: none
	nodes           []*node
	feeds           []feed.ID
	edges, cuts     map[[2]int]bool
	tasks           []*task
	cur             *task
	hints           []hint
	batches         []batch
	chaos           bool
	over            bool // being torn down: nothing is checked any more

	now       time.Time
	boots     uint64
	sessions  uint64
	coarse    bool  // clocks count in steps of seconds
	strands   bool  // this world looks for the moment to strand a node
	forked    *node // whose feed was just seen to fork
	uid       int
	rollbacks bool // some history went backwards, or an identity was cloned
	moved     int  // entries that went over any stream

	signed    map[headKey][]feed.Entry // the live set under each head an owner signed (Hist)
	ever      map[feed.ID]map[string]bool
	belonging bool                         // who belongs changes
	sets      map[string]member.Set        // by the certificates they are made of
	genuine   map[member.Cert]bool         // those that were signed by who they say
	forgotten map[string]bool              // registers, with their keys, that went with a feed
	made      map[string][]record.Register // every edit of each shared field
	history   map[feed.ID][]feed.Head
	stats     map[string]int
	trace     []event
	hash      uint64
	events    int
	full      bool // keep the whole trace
}

type headKey struct {
	feed    feed.ID
	seq, gc uint64
	root    feed.Hash
}

func keyOf(h feed.Head) headKey { return headKey{h.Feed, h.Seq, h.GC, h.Root} }

// bug is a broken invariant.
type bug struct {
	id, what string
	seed     uint64
	trace    string
}

func (b *bug) Error() string { return fmt.Sprintf("%s: %s", b.id, b.what) }

const (
	streams = 0x9E3779B97F4A7C15

	// Of so many seeds this one moves much at once: none of those that stand in regress.txt for another story.
	muchEvery, muchAt = 10, 7
)

func newWorld(seed uint64, full bool) *world {
	rng := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n*streams)) }
	w := &world{
		seed: seed, full: full, plan: rng(1), net: rng(2), pick: rng(3), more: rng(4), liar: -1,
		edges: map[[2]int]bool{}, cuts: map[[2]int]bool{},
		now:    time.Unix(1_800_000_000, 0),
		signed: map[headKey][]feed.Entry{}, ever: map[feed.ID]map[string]bool{}, history: map[feed.ID][]feed.Head{},
		sets: map[string]member.Set{}, genuine: map[member.Cert]bool{}, forgotten: map[string]bool{},
		made:  map[string][]record.Register{},
		stats: map[string]int{}, hash: 14695981039346656037,
	}
	r := w.plan
	w.lib[0] = byte(seed)
	n := 3 + r.IntN(3)
	if w.strands = chance(r, 0.5); w.strands {
		n = 4 + r.IntN(2)
	}
	w.keys = 2 + r.IntN(7)
	w.words = w.keys
	if chance(r, 0.4) { // so that a device's word is often the last one
		w.words = 4 * w.keys
	}
	w.steps = 100 + r.IntN(100)
	w.shape = feed.DefaultShape
	if chance(r, 0.85) {
		w.shape = feed.Shape{LeafBits: 1 + uint(r.IntN(2)), FanBits: 1 + uint(r.IntN(2))}
	}
	w.clone = chance(r, 0.15)
	w.coarse = chance(r, 0.2)
	if chance(r, 0.05) {
		w.now = time.Unix(5, 0) // no device has a clock that survives being off (fault C-6)
		w.reach("1970")
	}
	w.turn()
	if seed%muchEvery == muchAt {
		w.moves()
	}
	w.belonging = chance(r, 0.35)
	if w.belonging {
		w.lib = member.LibraryOf(rootKey())
	}
	for i := range n {
		dev := deviceID(i)
		w.feeds = append(w.feeds, feed.ID{Device: dev}, w.location(dev))
	}
	for i := range n {
		w.add(deviceID(i))
	}
	w.found()
	for _, n := range w.nodes {
		n.start(memory.New(n.memory()))
	}
	if chance(r, 0.15) {
		liar := w.nodes[r.IntN(n)]
		liar.liar = true
		w.log("liar", liar, 0, 0)
	}
	tree := w.strands || chance(r, 0.6) // most pairs meet only through others
	for i := range n {
		for j := range i {
			if !tree || j == r.IntN(i) {
				w.edges[edge(i, j)] = true
			}
		}
		if i > 0 && len(w.edges) < i {
			w.edges[edge(i, r.IntN(i))] = true
		}
	}
	return w
}

func deviceID(i int) record.DeviceID {
	return record.DeviceID(keyOfDevice[i].Public().(ed25519.PublicKey))
}

func (w *world) location(d record.DeviceID) feed.ID {
	id := feed.ID{Device: d}
	id.Location[0], id.Location[15] = 1, d[0]
	return id
}

func (n *node) memory() memory.Config {
	return memory.Config{OnSync: func(int) error {
		if n.naming && n.dies("C14", 0.25) {
			return errPower
		}
		return nil
	}}
}

func edge(i, j int) [2]int { return [2]int{min(i, j), max(i, j)} }

// turn draws the knobs of a phase.
func (w *world) turn() {
	r := w.plan
	of := func(v ...float64) float64 { return v[r.IntN(len(v))] }
	w.knob = knobs{
		interrupt: of(0.02, 0.1, 0.3), crash: of(0, 0.02, 0.05), history: of(0, 0.02, 0.05),
		leave: of(0, 0.002, 0.008), partition: of(0, 0.02), push: of(0, 0.1, 0.25), gossip: of(0, 0.1),
		corrupt: of(0, 0, 0.01), truncate: of(0, 0, 0.01), syncFails: of(0, 0, 0.01), busy: of(0, 0, 0.1),
		limit: []int{1, 1, 2, 5, 0}[r.IntN(5)], fragment: chance(r, 0.3),
		govern: of(0.02, 0.05),
		skew:   time.Duration(of(0, 1, 90, 300) * float64(time.Second)), wild: chance(r, 0.3),
	}
	if w.strands {
		w.knob.interrupt, w.knob.limit = max(w.knob.interrupt, 0.1), 1
	}
	if w.knob.history > 0 || w.clone {
		w.rollbacks = true
	}
}

func (w *world) add(dev record.DeviceID) *node {
	n := &node{w: w, i: len(w.nodes), dev: dev, fs: folder{}, marker: &marker{}, dial: w.right()}
	for deviceID(n.key) != dev {
		n.key++
	}
	w.nodes = append(w.nodes, n)
	return n
}

func (w *world) alive() (out []*node) {
	for _, n := range w.nodes {
		if !n.gone {
			out = append(out, n)
		}
	}
	return out
}

// connected reports whether a and b can open streams to each other.
func (w *world) connected(a, b *node) bool {
	return w.wired(a, b) && a.lets(b.dev) && b.lets(a.dev)
}

// wired reports whether the network carries what a and b have opened.
func (w *world) wired(a, b *node) bool {
	e := edge(a.i, b.i)
	return a != b && w.edges[e] && !w.cuts[e] && !a.gone && !b.gone
}

func (w *world) neighbours(n *node) (out []*node) {
	for _, m := range w.nodes {
		if w.connected(n, m) {
			out = append(out, m)
		}
	}
	return out
}

// reach counts that a branch or fault was met.
func (w *world) reach(name string) { w.stats[name]++ }

type event struct {
	kind string
	node int
	feed string
	x, y uint64
	at   time.Time
}

func (e event) String() string {
	return fmt.Sprintf("%s n%d %s %d %d", e.kind, e.node, e.feed, e.x, e.y)
}

// log adds one event to the trace.
func (w *world) log(kind string, n *node, x, y uint64) { w.logFeed(kind, n, feed.ID{}, x, y) }

func (w *world) logFeed(kind string, n *node, id feed.ID, x, y uint64) {
	i := -1
	if n != nil {
		i = n.i
	}
	mix := func(v uint64) { w.hash = (w.hash ^ v) * 1099511628211 }
	for _, c := range []byte(kind) {
		mix(uint64(c))
	}
	mix(uint64(i))
	mix(uint64(w.feedIndex(id)))
	mix(x)
	mix(y)
	if w.events++; w.events > 200_000 {
		w.fail("STUCK", n, "no end after %d events", w.events)
	}
	const last = 120
	if !w.full && len(w.trace) >= 2*last {
		w.trace = append(w.trace[:0], w.trace[last:]...)
	}
	e := event{kind: kind, node: i, x: x, y: y, at: w.now}
	if k := w.feedIndex(id); k >= 0 {
		e.feed = w.feedName(id)
	}
	w.trace = append(w.trace, e)
}

func (w *world) feedIndex(id feed.ID) int {
	for i, f := range w.feeds {
		if f == id {
			return i
		}
	}
	return -1
}

func (w *world) feedName(id feed.ID) string {
	i := w.feedIndex(id)
	if i < 0 {
		return ""
	}
	return feedNames[i]
}

var feedNames = [...]string{"d0", "l0", "d1", "l1", "d2", "l2", "d3", "l3", "d4", "l4", "d5", "l5"}

// fail ends the run with a broken invariant.
func (w *world) fail(id string, n *node, format string, args ...any) {
	if w.over {
		return
	}
	where := ""
	if n != nil {
		where = fmt.Sprintf("node %d: ", n.i)
	}
	var b strings.Builder
	for _, e := range w.trace {
		fmt.Fprintf(&b, "  %8.3f %v\n", float64(e.at.UnixMilli()-1_800_000_000_000)/1e3, e)
	}
	panic(&bug{id: id, what: where + fmt.Sprintf(format, args...), seed: w.seed, trace: b.String()})
}

// run plays the whole seed and returns what it broke.
func (w *world) run() *bug {
	return w.guard(func() {
		if w.belonging {
			w.nodes[0].certify(w.nodes[0].certs...)
		}
		w.storm(w.steps)
		w.heal()
		if chance(w.plan, 0.4) {
			for _, n := range w.nodes {
				if n.gone && !n.outside && !n.left && chance(w.plan, 0.8) {
					n.gone = false
					w.reach("returned")
					w.log("return", n, 0, 0)
				}
			}
			w.clone = false
			was := w.rollbacks
			w.turn()
			w.rollbacks = w.rollbacks || was
			w.storm(w.steps / 2)
			w.heal()
			w.reach("second chaos")
		}
	})
}

// guard plays, takes the world down, and returns what was broken.
func (w *world) guard(play func()) (broken *bug) {
	defer func() {
		if p := recover(); p != nil {
			var ok bool
			if broken, ok = p.(*bug); !ok {
				broken = &bug{id: "PANIC", what: fmt.Sprint(p), seed: w.seed, trace: string(debug.Stack())}
			}
		}
		w.over = true
		for _, t := range w.tasks {
			if !t.done {
				t.dead = true
				t.link.cut()
				t.stop()
			}
		}
		if w.much {
			if err := os.RemoveAll(w.home); err != nil {
				panic(err)
			}
		}
	}()
	play()
	return nil
}

// storm is the chaos phase.
func (w *world) storm(steps int) {
	w.chaos = true
	r := w.plan
	old := w.knob.history > 0 && chance(r, 0.8)
	for _, n := range w.nodes {
		if w.coarse {
			n.dial.grain = grain
		}
		if old && n.backup == nil {
			n.backUp()
		}
	}
	for step := range steps {
		w.now = w.now.Add(time.Duration(20+r.IntN(400)) * time.Millisecond)
		al := w.alive()
		n := al[r.IntN(len(al))]
		switch x := r.Float64(); {
		case x < 0.20:
			for range 1 + r.IntN(3) {
				n.edit(r)
			}
			if chance(r, 0.7) {
				n.sync()
			}
		case x < 0.38:
			for range 1 + r.IntN(4) {
				w.uid++
				n.fs.change(r, 2*w.keys, w.uid)
			}
			n.scan()
			if chance(r, 0.7) {
				n.sync()
			}
		case x < 0.43:
			n.collect(r)
		case x < 0.48:
			n.sync()
		case x < 0.64:
			w.meet(n, r)
		case x < 0.64+w.knob.push:
			if len(w.batches) > 0 && chance(r, 0.4) {
				w.replay(r)
			} else {
				w.push(n, r)
			}
		case x < 0.64+w.knob.push+w.knob.gossip:
			w.gossip(n, r)
		}
		if w.belonging && chance(r, w.knob.govern) {
			n.govern(r)
		}
		if w.much {
			w.stir(n)
		}
		if n.left && chance(r, 0.2) && len(w.alive()) > 2 {
			w.leave(n)
		}
		w.accident(n, step, steps)
		if w.strands {
			w.strand(true)
		}
		if o := w.forked; o != nil { // the hardest moment for an owner to leave
			w.forked = nil
			if chance(r, 0.3) && !o.gone && len(w.alive()) > 2 {
				w.reach("departure after a fork")
				w.leave(o)
			}
		}
		w.schedule()
		for _, n := range w.alive() {
			if n.rescan && chance(r, 0.5) {
				n.scan()
			}
			if chance(w.pick, 0.3) {
				n.refresh()
				n.tidy()
				n.shed()
			}
			if n.broken {
				w.crash(n)
			}
		}
	}
	if chance(r, 0.6) {
		w.strand(false)
	}
	w.chaos = false
}

// strand takes away everybody who could still complete a feed for an unsettled node, if there is one;
// behind: only where somebody is left who is settled further back.
func (w *world) strand(behind bool) {
	var feeds []feed.ID // of devices before those of locations: they are seldom unsettled
	for k := range w.feeds {
		feeds = append(feeds, w.feeds[2*k%len(w.feeds)+2*k/len(w.feeds)])
	}
	for _, id := range feeds {
		for _, n := range w.alive() {
			st, _ := n.st.State(id)
			if _, ok := n.at(id); ok || id.Device == n.dev || !n.follows(id) {
				continue
			}
			var able []*node
			var below *node
			for _, m := range w.alive() {
				h, ok := m.at(id)
				if ok && m.dev != id.Device && !h.IsGenesis() && h.Compare(st.Floor) < 0 {
					below = m
				}
				if m != n && (m.dev == id.Device || ok && h.Compare(st.Floor) >= 0 && !h.IsGenesis()) {
					able = append(able, m)
				}
			}
			if len(w.alive())-len(able) < 2 || behind && below == nil {
				continue
			}
			w.reach("stranded")
			w.strands = false
			if below != nil {
				w.edges[edge(n.i, below.i)] = true
			}
			for _, m := range able {
				w.leave(m)
			}
			return
		}
	}
}

// accident is what may befall node n in a step.
func (w *world) accident(n *node, step, steps int) {
	r := w.plan
	k := w.knob
	switch y := r.Float64(); {
	case y < k.crash:
		w.crash(n)
	case y < k.crash+k.history:
		w.rewrite(n)
	case y < k.crash+k.history+k.leave && len(w.alive()) > 2:
		w.leave(n)
	case y < k.crash+k.history+k.leave+k.syncFails:
		n.syncFails = true
	case y > 1-k.partition:
		clear(w.cuts)
		if chance(r, 0.5) {
			for i := range w.nodes {
				for j := range i {
					if e := edge(i, j); w.edges[e] && chance(r, 0.5) {
						w.cuts[e] = true
					}
				}
			}
			w.reach("partition")
		}
	}
	if (k.skew > 0 || k.wild) && chance(r, 0.03) {
		n.turnClock(r)
	}
	for _, m := range w.alive() { // what it has rescued goes with the rest
		if m.tended--; m.tended == 0 && m.backup != nil && !m.st.Frozen() {
			w.reach("restore after a rescue")
			w.restore(m, true)
			m.edit(r)
		}
	}
	if w.clone && step > steps/2 {
		w.clone = false
		w.duplicate(n)
	}
}

// schedule lets the tasks run for a while, and cuts some of their links.
func (w *world) schedule() {
	for range 1 + w.pick.IntN(2) {
		for i := 0; i < len(w.tasks); i++ {
			t := w.tasks[i]
			if t.done {
				continue
			}
			if !w.wired(t.link.a, t.link.b) || chance(w.pick, w.knob.interrupt/3) {
				if !t.link.faulty {
					w.reach("interrupt")
				}
				t.link.cut()
			}
			if t.ready() && chance(w.pick, 0.7) {
				w.resume(t)
			}
			if t.on.broken || t.on.tender && w.knob.crash > 0 && chance(w.pick, 0.5) {
				w.crash(t.on)
			}
			t.on.tender = false
		}
		w.sweep()
	}
}

// kill ends every task of n and breaks its links.
func (w *world) kill(n *node) {
	for _, t := range w.tasks {
		if t.done || t.link.a != n && t.link.b != n {
			continue
		}
		t.link.cut()
		if t.on == n {
			w.finish(t)
		}
	}
	w.sweep()
}

// crash cuts the power of n and starts it again on what survived; sometimes n ends in good order.
func (w *world) crash(n *node) {
	if w.chaos && !n.broken && !n.syncFails && chance(w.plan, 0.15) {
		w.reach("orderly end")
		n.sync()
		n.ought(n.clock.Rest())
	}
	lose := n.disk.Unsynced()
	keep := lose
	if chance(w.plan, 0.7) {
		keep = w.plan.IntN(lose + 1)
	}
	w.reach("crash")
	if keep < lose {
		w.reach("crash lost a suffix")
	}
	w.log("crash", n, uint64(keep), uint64(lose))
	after := n.disk.Crash(keep)
	n.down = true
	w.kill(n)
	if w.much && (keep < lose || chance(w.more, 0.5)) {
		n.tear()
	}
	n.start(after)
	n.recovered()
	n.installed()
}

// rewrite makes the history of n go backwards: backup, restore or wipe.
func (w *world) rewrite(n *node) {
	r := w.plan
	switch z := r.Float64(); {
	case z < 0.35 || z < 0.85 && n.backup == nil:
		n.backUp()
	case z < 0.85:
		w.restore(n, chance(r, 0.5))
	default:
		w.reach("wipe")
		w.log("wipe", n, 0, 0)
		n.disk.Crash(0)
		n.down = true
		w.kill(n)
		n.marker, n.backup, n.bound, n.stamp, n.acked, n.durable = &marker{}, nil, 0, 0, nil, 0
		n.start(memory.New(n.memory()))
		n.rescan = true
	}
}

func (n *node) backUp() {
	n.w.log("backup", n, 0, 0)
	n.backup = &backup{n.disk.Backup(), n.bound, n.certs}
}

// restore puts an older copy of its home, or of its store alone, in the place of what n has.
func (w *world) restore(n *node, keepMarker bool) {
	w.reach("restore")
	w.log("restore", n, 0, 0)
	n.disk.Crash(0)
	n.down = true
	w.kill(n)
	if keepMarker {
		w.reach("restore with marker")
	} else {
		n.marker, n.bound, n.stamp, n.certs = &marker{}, n.backup.bound, 0, n.backup.certs
	}
	n.acked, n.durable = nil, 0
	n.start(memory.Restore(n.memory(), n.backup.disk))
	if keepMarker && n.st.RolledBack() {
		w.reach("marker tells")
	}
	n.rescan = true
}

func (w *world) leave(n *node) {
	w.reach("departure")
	w.log("leave", n, 0, 0)
	n.gone = true
	w.kill(n)
}

// duplicate clones n, identity and all; both live.
func (w *world) duplicate(n *node) {
	w.reach("clone")
	w.log("clone", n, uint64(len(w.nodes)), 0)
	c := w.add(n.dev)
	c.dial, c.bound, c.ceiling, c.certs = n.dial, n.bound, n.ceiling, n.certs
	for id, rec := range n.fs {
		c.fs[id] = rec
	}
	c.start(memory.Restore(c.memory(), n.disk.Backup()))
	for _, m := range w.nodes[:c.i] {
		if m != n && chance(w.plan, 0.6) {
			w.edges[edge(m.i, c.i)] = true
		}
	}
	for {
		if m := w.nodes[w.plan.IntN(c.i)]; m != n {
			w.edges[edge(m.i, c.i)] = true
			return
		}
	}
}
