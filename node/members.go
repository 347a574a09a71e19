package node

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/member"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// found makes a library of which this device is the first member and admin.
func (n *Node) found() belonging {
	root := n.root.Public().(ed25519.PublicKey)
	lib := belonging{id: member.LibraryOf(root), root: root}
	cert := member.Cert{Library: lib.id, Subject: n.self, Kind: member.AddAdmin, Stamp: hlc.At(time.Now())}
	lib.certs = []member.Cert{cert.Sign(n.root)} // fills in the issuer
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
	n.mu.Lock()
	certs := slices.Clone(n.lib.certs)
	root := n.lib.root
	n.mu.Unlock()
	err := n.store.Written(record.MemberEntity, func(r record.Register) error { // not only winners: rubbish may win
		if c, err := member.FromRegister(r); err == nil {
			certs = append(certs, c)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read certificates: %w", err)
	}
	set := member.Evaluate(root, certs)
	follow := map[feed.ID]bool{}
	for _, d := range set.Members() {
		follow[feed.ID{Device: d}] = true
	}
	err = n.store.Registers(record.LocationEntity, func(r record.Register) error {
		owner, _ := r.Entity.Owner()
		loc, ok := r.Entity.LocationID()
		if ok && r.Field == record.FieldExists && len(r.Value) == 1 && r.Value[0] == 1 && set.Role(owner) != 0 {
			follow[feed.ID{Device: owner, Location: loc}] = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read locations: %w", err)
	}
	seen := map[record.DeviceID]time.Time{}
	for _, d := range set.Members() {
		if seen[d], err = n.lastSeen(d); err != nil {
			return fmt.Errorf("read last contacts: %w", err)
		}
	}
	n.mu.Lock()
	grown := !slices.EqualFunc(n.set.Certs(), set.Certs(), func(a, b member.Cert) bool { return a == b })
	for _, d := range n.set.Members() {
		if set.Role(d) == 0 {
			n.metrics.DeviceForgotten(d.Short())
		}
	}
	n.set, n.setAt, n.follow = set, generation, follow
	now := time.Now()
	for _, d := range set.Members() {
		if d != n.self && n.peers[d] == nil {
			n.peers[d] = &peer{id: d, link: n.freshLink(d, now), heads: map[feed.ID]protocol.HeadInfo{}, seen: seen[d]}
			n.dialSoon()
		}
	}
	lib := n.lib
	lib.certs = set.Certs()
	if grown {
		n.lib = lib
	}
	n.mu.Unlock()
	if grown {
		if err := n.home.saveLibrary(lib); err != nil {
			return err
		}
	}
	n.gater.Set(set.Members())
	if err := n.readDevices(); err != nil {
		return err
	}
	return n.dropUnfollowed(held, follow)
}

// readDevices takes names and addresses of the members from their registers.
func (n *Node) readDevices() error {
	type facts struct{ name, os, version, addrs string }
	read := map[record.DeviceID]*facts{}
	err := n.store.Registers(record.DeviceEntity, func(r record.Register) error {
		d, ok := r.Entity.Owner()
		if !ok {
			return nil
		}
		if read[d] == nil {
			read[d] = &facts{}
		}
		switch f := read[d]; r.Field {
		case record.FieldName:
			f.name = string(r.Value)
		case record.FieldSystem:
			f.os = string(r.Value)
		case record.FieldVersion:
			f.version = string(r.Value)
		case record.FieldAddrs:
			f.addrs = string(r.Value)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.set.Members() {
		f := read[d]
		if f == nil {
			f = &facts{}
		}
		n.metrics.DeviceKnown(d.Short(), f.name, f.os, f.version)
		p := n.peers[d]
		if p == nil {
			continue
		}
		p.name, p.os, p.version = f.name, f.os, f.version
		n.publishes(p, parseAddrs(f.addrs))
	}
	return nil
}

// dropUnfollowed forgets the feeds of locations that are gone and of devices that are no members.
func (n *Node) dropUnfollowed(held []feed.State, follow map[feed.ID]bool) error {
	for _, st := range held {
		own := st.Feed.Device == n.self
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

// gate is the membership check at the opening of every stream; pairing is for strangers.
func (n *Node) gate(id protocol.ID) func(record.DeviceID) error {
	if id == protocol.PairProtocol {
		return func(record.DeviceID) error {
			if !n.inviting() {
				return protocol.CodeNotMember
			}
			return nil
		}
	}
	return func(d record.DeviceID) error {
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
}
