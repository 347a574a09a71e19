package protocol

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"peerdex/record"
)

// memberTag keeps connections to members out of the connection manager's reach.
const memberTag = "member"

// Gater decides who may be connected: an allow-list of members, asked before dialling and after every
// handshake. Only devices with an Ed25519 key pass at all. The zero Gater lets nobody in. Its methods may
// be called by any goroutine.
//
// While a pairing window is open strangers may connect as well. They get no further than the pairing
// protocol: the Gate of every other Serve turns them away.
type Gater struct {
	mu      sync.RWMutex // guards everything below
	members map[peer.ID]struct{}
	guests  map[peer.ID]int // dialled by name, to pair with
	window  int             // strangers that may be connected at once; 0: closed
	host    host.Host       // nil before Attach
}

var _ connmgr.ConnectionGater = (*Gater)(nil)

// Attach tells the gater the host it guards. NewHost does so; who builds a host by other means must, or
// nobody is ever disconnected.
func (g *Gater) Attach(h host.Host) {
	g.mu.Lock()
	g.host = h
	g.mu.Unlock()
	g.enforce(nil)
}

// Set replaces the members. Connections to devices that are allowed no longer are closed before it
// returns; connections to members are protected from the connection manager.
func (g *Gater) Set(members []record.DeviceID) {
	now := make(map[peer.ID]struct{}, len(members))
	for _, d := range members {
		now[PeerID(d)] = struct{}{}
	}
	g.mu.Lock()
	before := g.members
	g.members = now
	g.mu.Unlock()
	var gone []peer.ID
	for p := range before {
		if _, still := now[p]; !still {
			gone = append(gone, p)
		}
	}
	g.enforce(gone)
}

// Open opens the pairing window: up to strangers unknown devices may be connected at a time.
func (g *Gater) Open(strangers int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.window = strangers
}

// Close closes the pairing window and the connections of strangers.
func (g *Gater) Close() {
	g.mu.Lock()
	g.window = 0
	g.mu.Unlock()
	g.enforce(nil)
}

// Admit lets one device be dialled that is no member yet, to pair with it. When done is called it is
// disconnected unless it has become a member.
func (g *Gater) Admit(d record.DeviceID) (done func()) {
	p := PeerID(d)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.guests == nil {
		g.guests = map[peer.ID]int{}
	}
	g.guests[p]++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		if g.guests[p]--; g.guests[p] == 0 {
			delete(g.guests, p)
		}
		g.mu.Unlock()
		g.enforce(nil)
	})
}

// Member reports whether p is a member.
func (g *Gater) Member(p peer.ID) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	_, ok := g.members[p]
	return ok
}

// Allowed reports whether p may be dialled: a member, or a device admitted by name.
func (g *Gater) Allowed(p peer.ID) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.allowed(p)
}

func (g *Gater) allowed(p peer.ID) bool {
	_, member := g.members[p]
	return member || g.guests[p] > 0
}

// enforce brings the host in line with the lists; gone were members before.
func (g *Gater) enforce(gone []peer.ID) {
	g.mu.RLock()
	h, open := g.host, g.window > 0
	members := make([]peer.ID, 0, len(g.members))
	for p := range g.members {
		members = append(members, p)
	}
	g.mu.RUnlock()
	if h == nil {
		return
	}
	for _, p := range members {
		h.ConnManager().Protect(p, memberTag)
	}
	for _, p := range gone {
		h.ConnManager().Unprotect(p, memberTag)
		if !g.Allowed(p) {
			_ = h.Network().ClosePeer(p) // gone either way
		}
	}
	if open {
		return
	}
	for _, p := range h.Network().Peers() {
		if !g.Allowed(p) {
			_ = h.Network().ClosePeer(p)
		}
	}
}

// InterceptPeerDial implements connmgr.ConnectionGater.
func (g *Gater) InterceptPeerDial(p peer.ID) bool { return g.Allowed(p) }

// InterceptAddrDial implements connmgr.ConnectionGater.
func (g *Gater) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool { return true }

// InterceptAccept implements connmgr.ConnectionGater: who it is, is not known yet.
func (g *Gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured implements connmgr.ConnectionGater.
func (g *Gater) InterceptSecured(dir network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	if _, err := DeviceOf(p); err != nil {
		return false
	}
	g.mu.RLock()
	ok, window, h := g.allowed(p), g.window, g.host
	g.mu.RUnlock()
	if ok || dir != network.DirInbound || window == 0 || h == nil {
		return ok
	}
	strangers := 0
	for _, other := range h.Network().Peers() {
		if other != p && !g.Allowed(other) {
			strangers++
		}
	}
	return strangers < window
}

// InterceptUpgraded implements connmgr.ConnectionGater. It looks again, since the lists may have changed
// during the handshake.
func (g *Gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	return g.InterceptSecured(c.Stat().Direction, c.RemotePeer(), c), 0
}
