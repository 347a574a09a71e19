package sim

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"peerdex/feed"
	"peerdex/kv"
	product "peerdex/node"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/snapshot"
	"peerdex/store"
)

// Some worlds move much at once: their devices fetch snapshots, and need not keep the entries of every location.

// bulk is what a device has for that.
type bulk struct {
	fetcher  *snapshot.Fetcher
	giver    *snapshot.Server
	attempts map[int]*snapshot.Attempts // at the snapshots of each node
	policy   map[feed.ID]product.Fetch  // eager if there is none
	asked    map[feed.ID]uint64         // up to this seq a person wants a metered location
	showing  []feed.Head                // of the feeds that a snapshot under way is about to show
	died     string                     // at which crash point
	torn     map[string]bool            // chunks that a power cut may have damaged
	halved   bool                       // a snapshot was cut in the middle
	source   *node                      // whom a snapshot is taken from
	before   *node                      // whom the last chunk came from
	serving  int                        // snapshots it hands out at the moment
}

// moves makes this a world that moves much at once.
func (w *world) moves() {
	w.much = true
	w.from = uint64(w.more.IntN(3))
	w.chunk = 30 + w.more.IntN(80)
	if chance(w.more, 0.4) {
		w.liar = w.more.IntN(3)
	}
	var err error
	if w.home, err = os.MkdirTemp("", "sim"); err != nil {
		panic(err)
	}
}

const faster = 40 // a donor keeps a snapshot for 15 s of the world's time

// startBulk is the part of start that such worlds need.
func (n *node) startBulk() {
	w := n.w
	dir := filepath.Join(w.home, fmt.Sprint(n.i))
	n.attempts, n.policy, n.asked = map[int]*snapshot.Attempts{}, map[feed.ID]product.Fetch{}, map[feed.ID]uint64{}
	n.serving = 0
	if n.torn == nil {
		n.torn = map[string]bool{}
	}
	n.ought(n.st.Locals(fetchName, func(name string, value []byte) error {
		n.policy[feed.ParseID([]byte(name[len(fetchName):]))] = product.Fetch(value)
		return nil
	}))
	n.fetcher = &snapshot.Fetcher{Dir: filepath.Join(dir, "in"), Came: func(chunks int, kept bool) {
		switch {
		case !kept:
			n.before = n.source
			n.keepsWhole()
			n.dies("C11", 0.15)
		case chunks > 0 && n.before != n.source:
			w.reach("snapshot goes on with another donor")
		case chunks > 0:
			w.reach("snapshot goes on")
		}
	}}
	n.giver = &snapshot.Server{
		Store: n.st, Dir: filepath.Join(dir, "out"), Chunk: w.chunk, Admit: n.admit,
		Author: func() snapshot.Author {
			return snapshot.Author{Library: w.lib, Device: n.dev, Sign: func(b []byte) []byte { return ed25519.Sign(keyOfDevice[n.key], b) }}
		},
		Pick:   func(id feed.ID) bool { return id.Device == n.dev || n.follows(id) },
		Served: func(protocol.SessionID, record.DeviceID, int, int64) {},
		Now:    func() time.Time { return time.Unix(0, 0).Add(faster * time.Duration(w.now.UnixNano()%1e15)) },
	}
	n.ought(n.giver.Clear())
}

// stir is what such a world does besides, in a step.
func (w *world) stir(n *node) {
	r := w.more
	if i := slices.IndexFunc(w.alive(), func(m *node) bool { return m.halved }); i >= 0 && chance(r, 0.5) {
		n = w.alive()[i]
		n.halved = false
		if m := n.before; m != nil && chance(r, 0.5) { // n meets all the others instead
			for _, o := range w.alive() {
				if o != n && o != m {
					w.edges[edge(n.i, o.i)] = true
				}
			}
			w.edges[edge(n.i, m.i)] = false
		}
		w.fetch(n, r)
		return
	}
	switch x := r.Float64(); {
	case x < 0.25:
		w.fetch(n, r)
	case x < 0.33:
		n.decide(r)
	}
}

// fetch lets n take from a neighbour what it lacks.
func (w *world) fetch(n *node, r *rand.Rand) {
	near := w.neighbours(n)
	if len(near) == 0 || n.broken {
		return
	}
	from := near[r.IntN(len(near))]
	if chance(r, 0.3) {
		from = w.elect(n, near)
	}
	if !greet(n, from) {
		return
	}
	if m := from.heads(); m != nil && !n.broken {
		w.take(n, from, n.hear(from, m), m)
	}
}

// take brings to a what it lacks of what b has told, by a snapshot where that pays, and else by pages, as package
// node does: device feeds come first, and what has begun to come by pages goes on by pages.
func (w *world) take(a, b *node, absorb []feed.ID, m *protocol.Heads) {
	want := a.wants(m)
	if !w.much {
		w.pull(a, b, append(absorb, want...))
		return
	}
	var shared, fresh []feed.ID
	var held, lacks uint64
	for _, id := range want {
		if st, _ := a.st.State(id); id.IsDevice() {
			shared = append(shared, id)
		} else if st.Floor.IsGenesis() && st.Count == 0 {
			fresh = append(fresh, id)
		}
	}
	for _, st := range a.st.States() {
		if st.Feed.Device != a.dev && !st.Feed.IsDevice() {
			held += st.Count
		}
	}
	for _, info := range m.Heads {
		for _, id := range fresh {
			if info.Best.Feed == id && info.Settled != nil {
				lacks += info.Settled.Count
			}
		}
	}
	yes, why := snapshot.Decide(held, lacks, w.from, a.fetcher.Kept(), *a.attempt(b), w.now)
	switch {
	case !yes:
		if why[0] == 't' {
			w.reach("pages after a snapshot that failed")
		}
		w.pull(a, b, append(absorb, want...))
	case len(shared) > 0:
		w.pull(a, b, append(absorb, shared...))
	default:
		w.snapshot(a, b, fresh)
	}
}

func (n *node) attempt(donor *node) *snapshot.Attempts {
	a, ok := n.attempts[donor.i]
	if !ok {
		a = &snapshot.Attempts{}
		n.attempts[donor.i] = a
	}
	return a
}

// snapshot starts a session in which a takes a snapshot of b.
func (w *world) snapshot(a, b *node, want []feed.ID) {
	if a.broken || b.broken {
		return
	}
	l := &link{w: w, a: a, b: b}
	sa, sb := l.ends()
	session := w.session()
	w.log("snapshot", a, uint64(b.i), uint64(len(want)))
	w.reach("snapshot")
	wanted := map[feed.ID]bool{}
	for _, id := range want {
		wanted[id] = true
	}
	lies := lieNone
	if b.i == w.liar {
		lies = lie(1 + w.more.IntN(int(lies_)-1))
	}
	taker := &snapshot.Taker{
		Store: a.st, Library: w.lib, Shape: w.shape, Serial: true,
		Wants: func(id feed.ID) bool { return wanted[id] },
		Admit: func() (uint64, error) { return a.admitted(b.dev) },
		Within: func(_ kv.Tx, loaded []store.Loaded) error {
			a.receives(b.dev)
			a.showing = nil
			for _, f := range loaded {
				a.showing = append(a.showing, f.Head)
			}
			return nil
		},
		Progress: func(p snapshot.Progress) { a.progress(l, b, p) },
	}
	w.spawn(a, l, func() {
		conn := protocol.NewConn(sa, protocol.ConnConfig{Device: b.dev, Session: session, Protocol: protocol.SnapshotProtocol})
		out, err := a.fetcher.Run(context.Background(), conn, session, taker, func(m snapshot.Manifest) { l.offer, a.source = &m, b })
		conn.End(err)
		a.took(l, b, lies, out, err)
	})
	w.spawn(b, l, func() {
		cfg := protocol.ConnConfig{Device: a.dev, Session: session, Protocol: protocol.SnapshotProtocol}
		if lies != lieNone {
			w.reach("lie: " + lies.String())
			b.deceive(protocol.NewConn(&twisted{stream: sb, how: lies}, cfg), lies)
			return
		}
		conn := protocol.NewConn(sb, cfg)
		b.serving++
		err := b.giver.Serve(context.Background(), conn)
		b.serving--
		b.judge(l, err)
		conn.End(err)
	})
}

// progress is where a snapshot may break off, and its donor die.
func (n *node) progress(l *link, donor *node, p snapshot.Progress) {
	if p.Records > p.Total || p.Bytes > p.Of {
		n.w.fail("I15", n, "%d of %d entries, %d of %d bytes of a snapshot", p.Records, p.Total, p.Bytes, p.Of)
	}
	switch x := n.w.more.Float64(); {
	case p.Phase == snapshot.Installing:
		n.dies("C12", 0.1)
	case !n.w.chaos:
	case x < 0.12:
		n.w.reach("snapshot cut")
		n.halved = true
		l.cut()
	case x < 0.15 && !donor.gone:
		n.w.reach("donor dies")
		donor.broken, l.faulty = true, true
	}
	n.w.pause()
}

// took looks at what came of a snapshot.
func (n *node) took(l *link, from *node, lies lie, out snapshot.Taken, err error) {
	w := n.w
	if n.down || n.broken || w.over {
		return
	}
	n.showing = nil
	n.check()
	if errors.Is(err, store.ErrHeld) {
		err = nil
	}
	if err != nil {
		n.failures[from.i] = w.now
	}
	if n.attempt(from).Ended(err, w.now) {
		w.reach("donor gives no snapshot")
	}
	w.log("took", n, uint64(len(out.Loaded)), uint64(from.i))
	if len(out.Loaded) > 0 {
		w.reach("snapshot taken")
	}
	if lies.refused() && len(out.Loaded) > 0 {
		w.fail("I13", n, "a snapshot was taken whose donor lies: %v", lies)
	}
	if lies == lieNone && !errors.Is(err, store.ErrStale) && !errors.Is(err, store.ErrLoading) && !errors.As(err, new(*snapshot.RefusedError)) {
		n.judge(l, err)
	}
}

// dies cuts the power of n at a crash point, with a probability.
func (n *node) dies(point string, p float64) bool {
	w := n.w
	if !w.chaos || n.broken || n.down || w.cur == nil || w.cur.dead || !chance(w.more, p) {
		return false
	}
	w.reach("crash at " + point)
	w.log("dies", n, uint64(point[2]-'0'), 0)
	n.broken, n.died = true, point
	return true
}

// tear does to the chunks that n keeps what a power cut does to files that were never synced.
func (n *node) tear() {
	names, err := os.ReadDir(n.fetcher.Dir)
	if err != nil {
		return
	}
	r := n.w.more
	for _, e := range names {
		path := filepath.Join(n.fetcher.Dir, e.Name())
		info, ierr := e.Info()
		err = errors.Join(err, ierr)
		switch x := r.Float64(); {
		case x < 0.15:
			err = errors.Join(err, os.Truncate(path, r.Int64N(info.Size()+1)))
		case x < 0.3: // its size was known before its bytes
			err = errors.Join(err, os.Truncate(path, 0), os.Truncate(path, info.Size()))
		case x < 0.4:
			err = errors.Join(err, os.Remove(path))
		case x < 0.5:
			err = errors.Join(err, os.Rename(path, path+".part"))
		default:
			continue
		}
		n.w.reach("chunk torn")
		n.torn[e.Name()] = true
	}
	if err != nil {
		n.w.fail("ERR", n, "%v", err)
	}
}

// installed checks, after a crash, that a snapshot that was about to show is there whole or not at all (I13).
func (n *node) installed() {
	heads, died := n.showing, n.died
	n.showing, n.died = nil, ""
	if len(heads) == 0 {
		return
	}
	there := 0
	for _, h := range heads {
		if st, _ := n.st.State(h.Feed); st.Settled != nil && *st.Settled == h {
			there++
		}
	}
	switch {
	case there > 0 && there < len(heads):
		n.w.fail("I13", n, "%d of %d feeds of a snapshot are there after a crash at %s", there, len(heads), died)
	case there > 0 && died == "C13", there == 0 && died == "C15":
		n.w.fail("I13", n, "after a crash at %s %d feeds of a snapshot are there", died, there)
	case there > 0 && died == "C14":
		n.w.reach("C14: the new files")
	case died == "C14":
		n.w.reach("C14: the old files")
	}
}

// keepsWhole fails if something is kept as a chunk that it is not, in worlds where somebody lies.
func (n *node) keepsWhole() {
	if n.w.liar < 0 {
		return
	}
	names, err := os.ReadDir(n.fetcher.Dir)
	for _, e := range names {
		b, rerr := os.ReadFile(filepath.Join(n.fetcher.Dir, e.Name()))
		err = errors.Join(err, rerr)
		if sum := fmt.Sprintf("%x", sha(b)); sum != e.Name() && !n.torn[e.Name()] {
			n.w.fail("I13", n, "keeps as chunk %s what is none", e.Name())
		}
	}
	if err != nil {
		n.w.fail("ERR", n, "%v", err)
	}
}

// asks checks what a node asks of a donor: nothing that it keeps, and no more is kept than the donor offers (I15).
func (n *node) asks(m snapshot.Manifest, get *protocol.GetChunks) {
	var all []snapshot.Chunk
	offered := map[string]bool{}
	for _, f := range m.Feeds {
		for _, c := range f.Chunks {
			all = append(all, c)
			offered[fmt.Sprintf("%x", c.Sum)] = true
		}
	}
	names, err := os.ReadDir(n.fetcher.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.w.fail("ERR", n, "%v", err)
	}
	for _, e := range names {
		if !offered[e.Name()] {
			n.w.fail("I15", n, "keeps a chunk that is not of the snapshot it takes")
		}
	}
	for _, run := range get.Runs {
		for i := run.First; i < run.First+run.Count; i++ {
			b, err := os.ReadFile(filepath.Join(n.fetcher.Dir, fmt.Sprintf("%x", all[i].Sum)))
			if err == nil && snapshot.Sum(sha(b)) == all[i].Sum {
				n.w.fail("COST", n, "asks again for chunk %d, which it keeps", i)
			}
		}
	}
}

// offers checks what a donor offers: every head is durable (I7), and it has one file for all who ask, and one for each
// who still reads an older (I15).
func (n *node) offers(msg *protocol.SnapshotManifest) {
	m, err := snapshot.Parse(msg.Manifest)
	if n.w.over || n.i == n.w.liar {
		return
	}
	if err != nil {
		n.w.fail("WIRE", n, "a manifest that was sent does not parse: %v", err)
	}
	for _, f := range m.Feeds {
		n.published(f.Head)
	}
	names, err := os.ReadDir(n.giver.Dir)
	if err != nil {
		n.w.fail("ERR", n, "%v", err)
	}
	if len(names) > n.serving+1 {
		n.w.fail("I15", n, "%d files for %d streams", len(names), n.serving)
	}
}
