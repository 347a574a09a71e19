package node

import (
	"slices"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"peerdex/eventlog"
	"peerdex/protocol"
	"peerdex/record"
)

// A device is looked for, in this order, where it was reached before, where it announces itself on the
// local network, and where its own feed says that it listens.

const (
	maxAddrs  = 32 // of one device that are dialed: bounds what it may make others do
	maxNearby = 16 // of these, announced on the local network, which proves nothing

	// nearbyFor is how long an announcement counts: as long as two searches, so that it may be missed once.
	nearbyFor = 2 * protocol.MDNSRound
)

// nearbyAddr is an address announced on the local network.
type nearbyAddr struct {
	addr  multiaddr.Multiaddr
	until time.Time
}

// hearNearby returns what is known of a device's announcements after another one, the latest first, and
// which of its addresses are new. What has run out is dropped, and the oldest beyond maxNearby.
func hearNearby(known []nearbyAddr, addrs []multiaddr.Multiaddr, now time.Time) (next []nearbyAddr, fresh []multiaddr.Multiaddr) {
	old := current(known, now)
	for _, a := range addrs {
		if slices.ContainsFunc(next, func(k nearbyAddr) bool { return k.addr.Equal(a) }) {
			continue
		}
		next = append(next, nearbyAddr{a, now.Add(nearbyFor)})
		if !slices.ContainsFunc(old, a.Equal) {
			fresh = append(fresh, a)
		}
	}
	for _, k := range known {
		if now.Before(k.until) && !slices.ContainsFunc(addrs, k.addr.Equal) {
			next = append(next, k)
		}
	}
	return next[:min(len(next), maxNearby)], fresh
}

// current returns the announced addresses that have not run out.
func current(known []nearbyAddr, now time.Time) (addrs []multiaddr.Multiaddr) {
	for _, k := range known {
		if now.Before(k.until) {
			addrs = append(addrs, k.addr)
		}
	}
	return addrs
}

// remember returns where a device was reached, the latest first: one address of each kind. A laptop that
// reaches another at home must still know how to reach it from abroad.
func remember(known []multiaddr.Multiaddr, latest multiaddr.Multiaddr) []multiaddr.Multiaddr {
	out := []multiaddr.Multiaddr{latest}
	for _, a := range known {
		if !slices.ContainsFunc(out, func(o multiaddr.Multiaddr) bool { return addrKind(o) == addrKind(a) }) {
			out = append(out, a)
		}
	}
	return out
}

// addrKind tells addresses apart that are good in different places.
func addrKind(a multiaddr.Multiaddr) string {
	switch {
	case !manet.IsThinWaist(a):
		return "name"
	case manet.IsPublicAddr(a):
		return "public"
	}
	return "local"
}

// inStages returns what to dial, stage by stage: each address once, at most maxAddrs.
func inStages(stages ...[]multiaddr.Multiaddr) (out [][]multiaddr.Multiaddr) {
	var all []multiaddr.Multiaddr
	for _, addrs := range stages {
		from := len(all)
		for _, a := range addrs {
			if len(all) < maxAddrs && !slices.ContainsFunc(all, a.Equal) {
				all = append(all, a)
			}
		}
		out = append(out, all[from:len(all):len(all)])
	}
	return out
}

// standing returns the addresses of known that published does not contradict: a device that listens on
// another port of the same address has left the old one. Of an address it does not know of itself, such as
// that of the router before it, it can say nothing.
func standing(known, published []multiaddr.Multiaddr) (out []multiaddr.Multiaddr) {
	for _, a := range known {
		same := func(p multiaddr.Multiaddr) bool { return sameExceptPort(a, p) }
		if !slices.ContainsFunc(published, same) || slices.ContainsFunc(published, a.Equal) {
			out = append(out, a)
		}
	}
	return out
}

func sameExceptPort(a, b multiaddr.Multiaddr) bool {
	return len(a) == len(b) && len(a) > 1 && a[0].Equal(&b[0]) && a[1].Protocol().Code == b[1].Protocol().Code
}

// addresses returns where a peer may be found, stage by stage.
func (n *Node) addresses(p *peer, now time.Time) ([][]multiaddr.Multiaddr, error) {
	good, err := n.reachedAt(p.id)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return inStages(standing(good, p.published), current(p.nearby, now), p.published), nil
}

// reachedAt returns where a peer was reached before, also in an earlier life of this node.
func (n *Node) reachedAt(d record.DeviceID) ([]multiaddr.Multiaddr, error) {
	b, err := n.store.Local("addr " + d.String())
	return parseAddrs(string(b)), err
}

// rememberAddr keeps where a peer was reached, for the next time. An address that the peer dialed from is
// none: the port is not one it listens at.
func (n *Node) rememberAddr(d record.DeviceID, addr string) {
	latest, err := multiaddr.NewMultiaddr(addr)
	if err != nil { // the connection is gone already
		return
	}
	known, err := n.reachedAt(d)
	if err == nil {
		err = n.store.SetLocal("addr "+d.String(), formatAddrs(remember(known, latest)))
	}
	if err != nil {
		n.log.Warn("address not remembered", "peer", d.Short(), "err", err)
	}
}

// addrs is where this device listens, as its register says it.
func (n *Node) addrs() []byte {
	addrs := protocol.Addrs(n.host)
	return formatAddrs(addrs[:min(len(addrs), maxAddrs)])
}

func formatAddrs(addrs []multiaddr.Multiaddr) []byte {
	var lines []string
	for _, a := range addrs {
		lines = append(lines, a.String())
	}
	return []byte(strings.Join(lines, "\n"))
}

// parseAddrs reads one address a line, at most maxAddrs; what is none is left out.
func parseAddrs(text string) (addrs []multiaddr.Multiaddr) {
	for line := range strings.SplitSeq(text, "\n") {
		if a, err := multiaddr.NewMultiaddr(line); err == nil && len(addrs) < maxAddrs {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// publishes takes what a peer says of where it listens. n.mu is held.
func (n *Node) publishes(p *peer, addrs []multiaddr.Multiaddr) {
	fresh := slices.DeleteFunc(slices.Clone(addrs), func(a multiaddr.Multiaddr) bool { return slices.ContainsFunc(p.published, a.Equal) })
	if len(fresh) == 0 && len(addrs) == len(p.published) {
		return
	}
	p.published = addrs
	p.link.kick()
	n.dialSoon()
	n.noteDiscovered(p.id, "record", fresh)
}

// sighted takes an announcement on the local network. A member is dialed soon; nobody else is.
func (n *Node) sighted(s protocol.Sighting) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[s.Device]
	if p == nil || n.set.Role(s.Device) == 0 {
		n.metrics.StrangerSeen()
		return
	}
	var fresh []multiaddr.Multiaddr
	p.nearby, fresh = hearNearby(p.nearby, s.Addrs, now)
	n.noteDiscovered(s.Device, "mdns", fresh)
	if p.session == nil {
		p.link.sighted(now, n.yieldTo(s.Device))
		n.dialSoon()
	}
}

func (n *Node) noteDiscovered(d record.DeviceID, source string, fresh []multiaddr.Multiaddr) {
	if len(fresh) == 0 {
		return
	}
	var texts []string
	for _, a := range fresh {
		texts = append(texts, a.String())
	}
	n.metrics.AddressesLearned(d.Short(), source, len(fresh))
	n.events.Add(eventlog.PeerDiscovered{Source: source, Addresses: texts}, eventlog.Peer(idText(d)))
}
