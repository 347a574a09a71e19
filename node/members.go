package node

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/member"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// found makes a library of which a device is the first member and admin.
func found(self record.DeviceID, key ed25519.PrivateKey) belonging {
	root := key.Public().(ed25519.PublicKey)
	lib := belonging{id: member.LibraryOf(root), root: root}
	cert := member.Cert{Library: lib.id, Subject: self, Kind: member.AddAdmin, Stamp: hlc.At(time.Now())}
	lib.certs = []member.Cert{cert.Sign(key)} // fills in the issuer
	return lib
}

// refresh reads who belongs, what is followed and where members listen, from the registers. It is called
// whenever registers may have changed.
//
// The feeds held are listed first: whatever has a feed by then has its register, so that a location that is
// added meanwhile is not taken for one that is gone.
func (n *Node) refresh() error {
	n.refreshing.Lock()
	defer n.refreshing.Unlock()
	return n.reread()
}

// reread is refresh; n.refreshing is held.
func (n *Node) reread() error {
	held, generation := n.store.States(), n.store.Generation() // before the first register is read
	// May write, but not before Run, so nothing is written while peers are asked; no room can be made here.
	if err := n.indexer.Adopt(); err != nil && !errors.Is(err, store.ErrNoSpace) && !errors.Is(err, store.ErrFrozen) {
		return fmt.Errorf("adopt locations: %w", err)
	}
	set, err := n.readSet()
	if err != nil {
		return err
	}
	follow, err := n.readFollow(set)
	if err != nil {
		return err
	}
	seen := map[record.DeviceID]time.Time{}
	for _, d := range set.Members() {
		if seen[d], err = n.lastSeen(d); err != nil {
			return fmt.Errorf("read last contacts: %w", err)
		}
	}
	n.mu.Lock()
	before, lib := n.set, n.lib
	n.set, n.setAt, n.follow = set, generation, follow
	out := n.dismiss(set)
	now := time.Now()
	for _, d := range set.Members() {
		if d != n.self && n.peers[d] == nil {
			n.peers[d] = &peer{id: d, link: n.freshLink(d, now), heads: map[feed.ID]protocol.HeadInfo{}, seen: seen[d]}
			n.dialSoon()
		}
	}
	n.forgetUnfollowed()
	lib.certs = set.Certs()
	changed := !slices.Equal(n.lib.certs, lib.certs)
	n.lib = lib
	n.mu.Unlock()
	n.gater.Set(set.Members())
	n.noteDismissed(out)
	if err := n.readPast(set); err != nil {
		return err
	}
	if changed {
		if err := n.home.saveLibrary(lib); err != nil {
			return err
		}
	}
	if err := n.readDevices(set); err != nil {
		return err
	}
	n.noteDepartures(before, set)
	return n.dropUnfollowed(held, follow)
}

// forgetUnfollowed drops what was remembered of feeds that are not followed any more; n.mu is held.
func (n *Node) forgetUnfollowed() {
	maps.DeleteFunc(n.retries, func(k retryKey, _ retry) bool {
		return !n.follow[k.feed] || k.donor != anyDonor && n.peers[k.donor] == nil
	})
	maps.DeleteFunc(n.compared, func(k compareKey, _ uint64) bool { return !n.follow[k.feed] || n.peers[k.device] == nil })
	maps.DeleteFunc(n.forked, func(id feed.ID, _ feed.Head) bool { return !n.follow[id] })
	n.metrics.RetryQueued(len(n.retries))
}

// readPast finds out when devices that are out were last talked to, once for each.
func (n *Node) readPast(set member.Set) error {
	n.mu.Lock()
	known := n.past
	n.mu.Unlock()
	past := map[record.DeviceID]time.Time{}
	for _, gone := range set.Gone() {
		at, ok := known[gone.Device]
		if !ok {
			var err error
			if at, err = n.lastSeen(gone.Device); err != nil {
				return fmt.Errorf("read last contacts: %w", err)
			}
		}
		past[gone.Device] = at
	}
	n.mu.Lock()
	n.past = past
	n.mu.Unlock()
	return nil
}

// readSet evaluates the certificates of all device feeds, and those kept beside the store.
func (n *Node) readSet() (member.Set, error) {
	n.mu.Lock()
	certs, root := slices.Clone(n.lib.certs), n.lib.root
	n.mu.Unlock()
	err := n.store.Written(record.MemberEntity, func(r record.Register) error { // not only winners: rubbish may win
		if c, err := member.FromRegister(r); err == nil {
			certs = append(certs, c)
		}
		return nil
	})
	if err != nil {
		return member.Set{}, fmt.Errorf("read certificates: %w", err)
	}
	return member.Evaluate(root, certs), nil
}

// readFollow returns the feeds that this node keeps: those of the members, and of devices that were
// revoked or have left, so that what they wrote before is the same everywhere. Its own it keeps always.
func (n *Node) readFollow(set member.Set) (map[feed.ID]bool, error) {
	follow := map[feed.ID]bool{{Device: n.self}: true}
	for _, d := range set.Members() {
		follow[feed.ID{Device: d}] = true
	}
	for _, gone := range set.Gone() {
		if gone.Kind != member.Forget {
			follow[feed.ID{Device: gone.Device}] = true
		}
	}
	err := n.store.Registers(record.LocationEntity, func(r record.Register) error {
		owner, _ := r.Entity.Owner()
		loc, ok := r.Entity.LocationID()
		if ok && r.Field == record.FieldExists && len(r.Value) == 1 && r.Value[0] == 1 && follow[feed.ID{Device: owner}] {
			follow[feed.ID{Device: owner, Location: loc}] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read locations: %w", err)
	}
	return follow, nil
}

// dismissed is a device that belongs no more, and the session with it, if there was one.
type dismissed struct {
	device  record.DeviceID
	session *session
}

// dismiss forgets the peers that are no members of set, and ends what is under way with them; n.mu is held.
// Their connections are closed by the gater.
func (n *Node) dismiss(set member.Set) (out []dismissed) {
	for d, p := range n.peers {
		if set.Role(d) != 0 {
			continue
		}
		out = append(out, dismissed{d, p.session})
		if p.session != nil {
			p.session.conn.Reset(protocol.CodeNotMember)
		}
		if pull := n.pulls[d]; pull != nil && pull.cancel != nil {
			pull.cancel(nil)
		}
		for k := range n.retries {
			if k.donor == d {
				delete(n.retries, k)
			}
		}
		delete(n.peers, d)
	}
	return out
}

// facts is what a device says of itself.
type facts struct{ name, os, version, addrs string }

// readFacts reads what the devices say of themselves from their registers.
func (n *Node) readFacts() (map[record.DeviceID]facts, error) {
	read := map[record.DeviceID]facts{}
	err := n.store.Registers(record.DeviceEntity, func(r record.Register) error {
		d, ok := r.Entity.Owner()
		if !ok {
			return nil
		}
		f := read[d]
		switch r.Field {
		case record.FieldName:
			f.name = string(r.Value)
		case record.FieldSystem:
			f.os = string(r.Value)
		case record.FieldVersion:
			f.version = string(r.Value)
		case record.FieldAddrs:
			f.addrs = string(r.Value)
		}
		read[d] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	return read, nil
}

// readDevices takes names and addresses of the members, and of devices that are out, from their registers.
func (n *Node) readDevices(set member.Set) error {
	read, err := n.readFacts()
	if err != nil {
		return err
	}
	n.mu.Lock()
	before := n.facts
	n.facts = read
	for _, d := range set.Members() {
		f := read[d]
		n.metrics.DeviceKnown(d.Short(), f.name, f.os, f.version)
		if p := n.peers[d]; p != nil {
			n.publishes(p, parseAddrs(f.addrs))
		}
	}
	n.mu.Unlock()
	for _, d := range set.Members() {
		if was, is := before[d].name, read[d].name; was != "" && is != "" && was != is {
			n.noteRenamed(d, was, is)
		}
	}
	return nil
}

// learnCerts takes certificates that a peer showed in its hello, so that members this device has not
// heard of yet are let in before their feeds arrive.
func (n *Node) learnCerts(raw [][]byte) error {
	n.refreshing.Lock() // nobody else reads and writes the certificates meanwhile
	defer n.refreshing.Unlock()
	n.mu.Lock()
	certs := slices.Clone(n.lib.certs)
	before := n.set
	root := n.lib.root
	n.mu.Unlock()
	for _, b := range raw {
		if c, err := member.Parse(b); err == nil {
			certs = append(certs, c)
		}
	}
	set := member.Evaluate(root, certs)
	if set.Equal(before) {
		return nil
	}
	n.mu.Lock()
	n.lib.certs = set.Certs()
	n.mu.Unlock()
	if err := n.store.Raise(); err != nil { // nothing commits any more that was let in without these
		return err
	}
	return n.reread()
}

// dropUnfollowed forgets the feeds of locations that are gone and of devices that are no members.
func (n *Node) dropUnfollowed(held []feed.State, follow map[feed.ID]bool) error {
	for _, st := range held {
		own := st.Feed.Device == n.self
		if follow[st.Feed] && n.overfull(st) {
			if _, err := n.giveUp(st.Feed); err != nil {
				return err
			}
		}
		if follow[st.Feed] || own && (st.Feed.IsDevice() || !n.mayWrite()) {
			continue
		}
		if err := n.store.Drop(st.Feed); err != nil && !errors.Is(err, store.ErrUnknownFeed) {
			return err
		}
	}
	return nil
}

// follows reports whether this node keeps a feed.
func (n *Node) follows(id feed.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.follow[id]
}

// accepts reports whether pushes of a feed are let in. A location may be pushed at once after the register
// that tells of it, before refresh has seen that.
func (n *Node) accepts(id feed.ID) bool {
	if n.follows(id) {
		return true
	}
	if id.IsDevice() || !n.follows(feed.ID{Device: id.Device}) {
		return false
	}
	r, ok, err := n.store.Register(record.Location(id.Device, id.Location), record.FieldExists)
	return err == nil && ok && len(r.Value) == 1 && r.Value[0] == 1
}

// membership returns the generation of the membership (store.Store.Generation) under which a device is a
// member, or CodeNotMember.
func (n *Node) membership(d record.DeviceID) (generation uint64, err error) {
	for {
		generation = n.store.Generation()
		n.mu.Lock()
		current, role := n.setAt == generation, n.set.Role(d)
		n.mu.Unlock()
		switch {
		case !current:
			if err := n.refresh(); err != nil {
				return 0, err
			}
		case role == 0:
			return 0, protocol.CodeNotMember
		default:
			return generation, nil
		}
	}
}

// mayPair lets strangers ask to join while the pairing window is open, but for those that were put out.
func (n *Node) mayPair(d record.DeviceID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if gone, out := n.set.Removed(d); out && gone.Kind.Removes() {
		return protocol.CodeRevoked
	}
	if !time.Now().Before(n.invited) {
		return protocol.CodeNotMember
	}
	return nil
}

// gate is the check at the opening of every stream: members may, and to pair whoever is let in for that.
func (n *Node) gate(id protocol.ID) func(record.DeviceID) error {
	may := n.mayOpen
	if id == protocol.PairProtocol {
		may = n.mayPair
	}
	return func(d record.DeviceID) error {
		err := may(d)
		if err != nil {
			n.metrics.StreamRefused(protocol.CodeOf(err).Label())
		}
		return err
	}
}

// mayOpen lets members open streams.
func (n *Node) mayOpen(d record.DeviceID) error {
	n.mu.Lock()
	joining := n.joining[d]
	n.mu.Unlock()
	if joining != nil { // to the other this device is a member already, and soon the other to this
		<-joining
	}
	if _, err := n.membership(d); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.peers[d]; p != nil && time.Now().Before(p.shunned) {
		return protocol.CodeBusy
	}
	return nil
}
