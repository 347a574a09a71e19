package sim

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/kv/memory"
	"peerdex/member"
	"peerdex/protocol"
	"peerdex/record"
)

// keyOfDevice is the key of the i-th device of any world; that of the root comes after the last.
var keyOfDevice = func() (out [len(feedNames)/2 + 1]ed25519.PrivateKey) {
	for i := range out {
		out[i] = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize))
	}
	return out
}()

var root = keyOfDevice[len(keyOfDevice)-1]

func rootKey() ed25519.PublicKey { return root.Public().(ed25519.PublicKey) }

// membership is what package node keeps of who belongs.
type membership struct {
	certs    []member.Cert // in the home folder, beside the store
	set      member.Set
	setAt    uint64 // generation of the store at which set was read
	followed map[feed.ID]bool

	// What the checks remember.
	out        map[record.DeviceID]member.Kind // whom what this node has committed puts out, and how
	generation uint64                          // at the last look
	durable    uint64                          // when a sync last returned
	seen       map[string]bool                 // certificates in the store at the last look
}

// lets reports whether the gater of n lets a device in.
func (n *node) lets(d record.DeviceID) bool { return !n.w.belonging || n.set.Role(d) != 0 }

// follows reports whether n keeps a feed: its own, and those of who belongs or did, unless it is forgotten.
func (n *node) follows(id feed.ID) bool {
	return !n.w.belonging || id.Device == n.dev || n.followed[id]
}

// member returns the generation under which a device belongs.
func (n *node) member(d record.DeviceID) (uint64, error) {
	if !n.w.belonging {
		return 0, nil
	}
	n.refresh()
	if n.set.Role(d) == 0 {
		n.w.reach("turned away")
		return 0, protocol.CodeNotMember
	}
	return n.setAt, nil
}

// admitted is member, with time going by before the answer is used.
func (n *node) admitted(d record.DeviceID) (uint64, error) {
	g, err := n.member(d)
	n.w.pause()
	if err == nil && n.w.belonging && g != n.st.Generation() {
		n.w.reach("membership changed after the question")
	}
	return g, err
}

// refresh reads who belongs if that may have changed, forgets feeds, and breaks with who is out.
func (n *node) refresh() {
	w := n.w
	for w.belonging && !n.broken && n.setAt != n.st.Generation() {
		generation := n.st.Generation()
		certs := n.known()
		n.set, n.setAt = w.evaluate(certs), generation
		n.certs = n.set.Certs()
		n.followed = map[feed.ID]bool{}
		for _, id := range w.feeds {
			gone, was := n.set.Removed(id.Device)
			n.followed[id] = n.set.Role(id.Device) != 0 || was && gone.Kind != member.Forget
		}
		n.rightly(certs)
		n.tidy()
		for _, t := range w.tasks {
			if l := t.link; (l.a == n || l.b == n) && (!n.lets(l.a.dev) && l.a != n || !n.lets(l.b.dev) && l.b != n) {
				if chance(w.net, 0.5) { // else it goes on, to whoever asks at each step
					w.reach("stream of a removed device broken")
					l.cut()
				}
			}
		}
		n.check()
	}
}

// known returns the certificates that n has, in its home folder and in its store.
func (n *node) known() []member.Cert {
	certs := slices.Clone(n.certs)
	n.ought(n.st.Written(record.MemberEntity, func(r record.Register) error {
		if c, err := member.FromRegister(r); err == nil {
			certs = append(certs, c)
		}
		return nil
	}))
	return certs
}

// tidy drops the feeds that are not followed, as is done after each change and once a minute: a pull that was
// under way may have brought one back.
func (n *node) tidy() {
	if !n.w.belonging || n.broken {
		return
	}
	for _, st := range n.st.States() {
		if !n.follows(st.Feed) {
			n.drop(st.Feed)
		}
	}
}

// drop forgets a feed, with what its owner alone is known to have said.
func (n *node) drop(id feed.ID) {
	w := n.w
	if id.IsDevice() {
		for _, e := range n.entries(id) {
			w.forgotten[string(e.Key)+string(e.Record)] = true
		}
	}
	w.reach("feed dropped")
	w.logFeed("drop", n, id, 0, 0)
	n.ought(n.st.Drop(id))
	delete(n.last, id)
	for s, k := range n.keep {
		if k.feed == id {
			delete(n.keep, s)
		}
	}
	for more := chance(w.net, 0.5); more; {
		var err error
		if more, err = n.st.Reap(); err != nil {
			n.ought(err)
			return
		}
	}
	n.check()
}

// learn takes certificates that a peer shows in its hello.
func (n *node) learn(certs []member.Cert) {
	set := n.w.evaluate(append(slices.Clone(n.certs), certs...))
	if set.Equal(n.set) {
		return
	}
	n.w.reach("certificates in a hello")
	n.certs = set.Certs()
	if err := n.st.Raise(); err != nil {
		n.ought(err)
		return
	}
	n.refresh()
}

// evaluate is member.Evaluate, which verifies signatures, once for each set of certificates.
func (w *world) evaluate(certs []member.Cert) member.Set {
	var all [][]byte
	for _, c := range certs {
		all = append(all, c.Append(nil))
	}
	slices.SortFunc(all, bytes.Compare)
	key := string(bytes.Join(slices.CompactFunc(all, bytes.Equal), nil))
	set, ok := w.sets[key]
	if !ok {
		w.pick.Shuffle(len(certs), func(i, j int) { certs[i], certs[j] = certs[j], certs[i] })
		set = member.Evaluate(rootKey(), certs)
		w.sets[key] = set
	}
	return set
}

// certify writes certificates, and forgets nothing of them from then on.
func (n *node) certify(certs ...member.Cert) bool {
	var regs []record.Register
	for _, c := range certs {
		regs = append(regs, c.Register())
	}
	out, err := n.st.Edit(regs)
	if err != nil {
		return false
	}
	for _, r := range out.Written {
		n.w.made[string(r.Key())] = append(n.w.made[string(r.Key())], r)
	}
	for _, c := range certs {
		n.w.log(c.Kind.String(), n, uint64(n.w.nodeOf(c.Subject).i), uint64(c.Stamp))
		n.w.genuine[c] = true
	}
	n.check()
	n.sync()
	n.refresh()
	return !n.broken
}

// cert makes a certificate in the name of n, or of the root if n has its key.
func (n *node) cert(kind member.Kind, subject record.DeviceID) (member.Cert, bool) {
	stamp, err := n.clock.Now()
	if err != nil {
		return member.Cert{}, false
	}
	if kind == member.Lapse { // above what it undoes, whatever the clock says
		stamp = max(stamp, n.set.Added(subject)+1)
	} else if gone, ok := n.set.Removed(subject); ok && kind.Adds() {
		stamp = max(stamp, gone.Stamp+1)
	}
	c := member.Cert{Library: n.w.lib, Subject: subject, Kind: kind, Stamp: stamp}
	if n.i == 0 && kind != member.Lapse {
		return c.Sign(root), true
	}
	return c.Sign(keyOfDevice[n.key]), true
}

// govern lets n do something about who belongs.
func (n *node) govern(r *rand.Rand) {
	w := n.w
	if n.st.Frozen() || n.set.Role(n.dev) == 0 && chance(r, 0.4) {
		return
	}
	target := w.nodes[r.IntN(len(w.nodes))]
	switch x := r.Float64(); {
	case x < 0.4:
		w.invite(n, r)
	case x < 0.5:
		n.forge(r)
	case x < 0.6:
		if n.i != 0 && !n.gone {
			if c, ok := n.cert(member.Lapse, n.dev); ok && n.certify(c) {
				w.reach("leave")
				n.left = true
			}
		}
	default:
		if target.i == 0 || target.dev == n.dev {
			return
		}
		kind := member.Revoke
		if chance(r, 0.3) {
			kind = member.Forget
		}
		c, ok := n.cert(kind, target.dev)
		if !ok {
			return
		}
		certs := []member.Cert{c}
		if n.i == 0 && n.set.Role(target.dev) == member.Admin { // the root keeps whom it had let in
			for _, d := range n.set.Members() {
				if d == target.dev || d == n.dev {
					continue
				}
				if again, ok := n.cert(member.AddMember, d); ok && n.set.Role(d) == member.Member {
					certs = append(certs, again)
				}
			}
		}
		switch by := n.set.Role(n.dev); {
		case by == 0:
			w.reach("removal by a stranger")
		case by == member.Member:
			w.reach("removal by a mere member")
		case n.i != 0 && target.set.Role(target.dev) == member.Admin:
			w.reach("removal of an admin by another")
		default:
			w.reach(kind.String())
		}
		n.certify(certs...)
	}
}

// found takes the first nodes of a library in; some stay outside for now.
func (w *world) found() {
	if !w.belonging {
		return
	}
	stamp := hlc.At(w.now)
	var certs []member.Cert
	for i, n := range w.nodes {
		if i > 1 && chance(w.plan, 0.3) {
			n.outside, n.gone = true, true
			continue
		}
		c := member.Cert{Library: w.lib, Subject: n.dev, Kind: member.AddMember, Stamp: stamp}
		if i == 0 || chance(w.plan, 0.5) {
			c.Kind = member.AddAdmin
		}
		c = c.Sign(root)
		w.genuine[c] = true
		certs = append(certs, c)
	}
	for _, n := range w.nodes {
		if !n.outside {
			n.certs = certs
		}
	}
}

// forge writes what looks like a certificate: rubbish in the place of one, or one that its issuer never
// signed.
func (n *node) forge(r *rand.Rand) {
	known := n.set.Certs()
	if len(known) == 0 {
		return
	}
	c := known[r.IntN(len(known))]
	reg := c.Register()
	if chance(r, 0.5) {
		n.w.reach("rubbish over a certificate")
		n.w.uid++
		reg.Value = []byte(fmt.Sprint(n.w.uid))
	} else {
		n.w.reach("forged certificate")
		c.Subject, c.Kind, c.Stamp = n.w.nodes[r.IntN(len(n.w.nodes))].dev, []member.Kind{member.AddAdmin, member.Forget}[r.IntN(2)], c.Stamp+1
		reg = c.Register()
	}
	out, err := n.st.Edit([]record.Register{reg})
	if err != nil {
		return
	}
	for _, r := range out.Written {
		n.w.made[string(r.Key())] = append(n.w.made[string(r.Key())], r)
	}
	n.check()
}

// invite lets n take in a device that is outside or has left.
func (w *world) invite(n *node, r *rand.Rand) {
	var out []*node
	for _, m := range w.nodes {
		if m.outside || m.left && m.gone {
			out = append(out, m)
		}
	}
	if len(out) == 0 || n.set.Role(n.dev) != member.Admin {
		return
	}
	m := out[r.IntN(len(out))]
	kind := member.AddMember
	if n.i == 0 && chance(r, 0.5) {
		kind = member.AddAdmin
	}
	c, ok := n.cert(kind, m.dev)
	if !ok || !n.certify(c) {
		return
	}
	w.reach("invite")
	if _, gone := n.set.Removed(m.dev); gone {
		w.reach("invite of a removed device")
		return
	}
	if m.left {
		w.reach("invite of a device that had left")
	}
	w.rollbacks = w.rollbacks || m.left // it comes back with nothing
	m.outside, m.left, m.gone = false, false, false
	m.marker, m.bound, m.stamp, m.acked = &marker{}, 0, 0, nil
	m.membership = membership{certs: slices.Clone(n.certs)}
	m.start(memory.New(m.memory()))
	m.rescan = true
	w.log("join", m, uint64(n.i), 0)
}

// rightly fails unless n's set is what the rules say of the certificates it was made of.
func (n *node) rightly(certs []member.Cert) {
	want := n.w.roles(certs)
	for _, m := range n.w.nodes {
		is := n.set.Role(m.dev)
		gone, _ := n.set.Removed(m.dev)
		if want[m.dev].role != is || want[m.dev].out != gone.Kind && is == 0 {
			n.w.fail("MEMBER", n, "node %d is %v (%v), and by the rules %v (%v)", m.i, is, gone.Kind, want[m.dev].role, want[m.dev].out)
		}
	}
}

// place is where a device stands: in with a role, or out by a kind of word.
type place struct {
	role member.Role
	out  member.Kind
}

// roles says who belongs by the certificates given.
func (w *world) roles(certs []member.Cert) map[record.DeviceID]place {
	var (
		added     = map[record.DeviceID][]member.Cert{}
		out       = map[record.DeviceID]member.Kind{}
		lapsed    = map[record.DeviceID]hlc.Stamp{}
		admin     = map[record.DeviceID]bool{} // the root once made it one
		dismissed = map[record.DeviceID]bool{}
		take      = func(c member.Cert) {
			if c.Kind.Adds() {
				added[c.Subject] = append(added[c.Subject], c)
			} else { // Revoke or Forget, the harder of which is the greater
				out[c.Subject] = max(out[c.Subject], c.Kind)
			}
		}
		others []member.Cert
	)
	for _, c := range certs {
		switch {
		case !w.genuine[c]:
		case bytes.Equal(c.Issuer[:], rootKey()):
			take(c)
			admin[c.Subject] = admin[c.Subject] || c.Kind == member.AddAdmin
			dismissed[c.Subject] = dismissed[c.Subject] || c.Kind.Removes()
		case c.Kind == member.Lapse:
			lapsed[c.Subject] = max(lapsed[c.Subject], c.Stamp)
		default:
			others = append(others, c)
		}
	}
	since := func(d record.DeviceID, kind member.Kind) bool { // it left, if it did
		return slices.ContainsFunc(added[d], func(c member.Cert) bool { return c.Kind == kind && c.Stamp > lapsed[d] })
	}
	counts := map[record.DeviceID]func(member.Cert) bool{}
	for d := range admin {
		if admin[d] && !dismissed[d] {
			still := since(d, member.AddAdmin)
			counts[d] = func(c member.Cert) bool { return still || c.Stamp <= lapsed[d] }
		}
	}
	for _, c := range others {
		says := counts[record.DeviceID(c.Issuer)]
		if says != nil && says(c) && c.Kind != member.AddAdmin && (c.Kind.Adds() || !admin[c.Subject]) {
			take(c)
		}
	}
	places := map[record.DeviceID]place{}
	for _, n := range w.nodes {
		switch d := n.dev; {
		case out[d] != 0:
			places[d] = place{out: out[d]}
		case since(d, member.AddAdmin):
			places[d] = place{role: member.Admin}
		case since(d, member.AddMember):
			places[d] = place{role: member.Member}
		case len(added[d]) > 0:
			places[d] = place{out: member.Lapse}
		}
	}
	return places
}

// checkGeneration fails if the generation goes back, or stays where certificates changed (I11).
func (n *node) checkGeneration(registers bool) {
	g := n.st.Generation()
	if !n.w.belonging || g == n.generation && !registers {
		return
	}
	if g < n.generation {
		n.w.fail("I11", n, "the membership generation went back from %d to %d", n.generation, g)
	}
	seen := map[string]bool{}
	n.ought(n.st.Written(record.MemberEntity, func(r record.Register) error {
		seen[string(r.Value)] = true
		return nil
	}))
	if g == n.generation && n.seen != nil && !maps.Equal(seen, n.seen) {
		n.w.fail("I11", n, "certificates changed within generation %d", g)
	}
	n.generation, n.seen = g, seen
	n.out = map[record.DeviceID]member.Kind{}
	for d, p := range n.w.roles(n.known()) {
		if p.role == 0 {
			n.out[d] = p.out
		}
	}
}

// standing is where n holds a device to stand.
func (n *node) standing(d record.DeviceID) place {
	gone, _ := n.set.Removed(d)
	return place{n.set.Role(d), gone.Kind}
}

// checkForgotten fails if n keeps a feed that it does not follow.
func (n *node) checkForgotten() {
	for _, st := range n.st.States() {
		if !n.follows(st.Feed) {
			n.w.fail("FORGET", n, "%s is still there", n.w.feedName(st.Feed))
		}
	}
}

// receives fails if something of a peer commits that what was committed before has put out (I12).
func (n *node) receives(from record.DeviceID) {
	if kind, out := n.out[from]; out && n.w.belonging {
		n.w.fail("I12", n, "something of node %d commits after its %v", n.w.nodeOf(from).i, kind)
	}
}
