package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"peerdex/member"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// join pairs with the device that a join line names and moves this device into its library. Without a secret
// it asks, shows the digits that a person is to compare, and waits.
func (n *Node) join(ctx context.Context, addrs []multiaddr.Multiaddr, j protocol.Join, show func(protocol.Digits)) error {
	if err := n.mayJoin(j); err != nil {
		return err
	}
	done := n.gater.Admit(j.Device)
	defer done()
	defer n.beginJoin(j.Device)()
	pid := protocol.PeerID(j.Device)
	if s, ok := n.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(pid)
	}
	n.host.Peerstore().AddAddrs(pid, addrs, peerstore.TempAddrTTL)
	open, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := protocol.Dial(open, n.host, j.Device, protocol.PairProtocol, protocol.ConnConfig{Device: j.Device, Traffic: n.metrics})
	if err != nil {
		return joinProblem(j, err)
	}
	stop := conn.Bind(ctx)
	defer stop()
	me := protocol.Joiner{Device: n.self, Name: n.name(), OS: n.osName(), AppVersion: n.cfg.Version}
	var w protocol.Welcome
	method := "secret"
	if j.Secret.IsZero() {
		method = "approval"
		w, err = protocol.Ask(conn, me, show)
	} else {
		w, err = protocol.Pair(conn, me, j.Secret)
	}
	conn.End(err)
	if err != nil {
		return joinProblem(j, err)
	}
	if err := n.move(j.Device, w, method); err != nil {
		return err
	}
	for _, a := range addrs {
		if addrKind(a) == "name" { // which outlives the address it stands for now
			n.rememberAddr(j.Device, a.String())
		}
	}
	n.rememberAddr(j.Device, n.remoteAddr(j.Device))
	n.mu.Lock()
	if p := n.peers[j.Device]; p != nil {
		p.published = append(p.published, addrs...)
		p.link.kick()
		n.dialSoon()
	}
	n.mu.Unlock()
	return nil
}

// beginJoin holds streams of a device back until the join of its library is through.
func (n *Node) beginJoin(d record.DeviceID) (end func()) {
	through := make(chan struct{})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.joining[d] = through
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.joining[d] == through {
			delete(n.joining, d)
		}
		close(through)
	}
}

func (n *Node) mayJoin(j protocol.Join) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case j.Device == n.self:
		return &Problem{Code: CodeUsage, Message: "cannot join: the join line names this device itself",
			Cause: "a device is a member of its own library already", Try: "run the line on another device"}
	case n.set.Role(j.Device) != 0:
		return &Problem{Code: CodeConflict, Message: "cannot join: " + n.nameOf(j.Device) + " is in this library already",
			Cause: "both devices belong to one library", Try: "peer devices"}
	case len(n.set.Members()) > 1:
		return &Problem{Code: CodeConflict, Message: "cannot join: this device belongs to a library with other devices",
			Cause: "a device is in one library at a time",
			Try:   "invite the other device from here with `peer invite`, or `peer leave` first"}
	case n.store.Frozen():
		return &Problem{Code: CodeConflict, Message: "cannot join: this device's identity is in use twice",
			Cause: store.ErrFrozen.Error(), Try: "start with another --home, and stop the copy"}
	case n.store.Room() != nil:
		return &Problem{Code: CodeConflict, Message: "cannot join: the disk is almost full", Cause: n.store.Room().Error(), Try: "make room, then join again"}
	}
	return nil
}

// move takes this device with its folders into another library. If its name is taken there it takes the one
// that it was given, before it introduces itself.
func (n *Node) move(inviter record.DeviceID, w protocol.Welcome, method string) error {
	lib := belonging{id: w.Library, root: w.RootKey[:]}
	for _, raw := range w.Certs {
		c, err := member.Parse(raw)
		if err != nil {
			return fmt.Errorf("read certificates of the library joined: %w", err)
		}
		lib.certs = append(lib.certs, c)
	}
	set := member.Evaluate(lib.root, lib.certs)
	if set.Role(n.self) == 0 {
		n.noteFalseWelcome(inviter, set)
		return &Problem{Code: CodeNotAllowed, Message: "cannot join: the other device's welcome does not make this one a member",
			Cause: "no certificate for this device leads to the library's root key", Try: "ask for another invite"}
	}
	if err := n.raiseItself(&lib, set); err != nil {
		return err
	}
	n.refreshing.Lock()
	err := n.enter(lib)
	n.refreshing.Unlock()
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.paired[inviter] = w.Name
	if numbered(w.JoinerName, n.label) {
		n.label = w.JoinerName
	}
	n.mu.Unlock()
	if err := n.introduce(); err != nil {
		return err
	}
	n.noteMoved(lib.id, method)
	return n.refresh()
}

// raiseItself makes this device an admin of the library that it is about to enter if it has that library's
// root key: it made the library and left.
func (n *Node) raiseItself(lib *belonging, set member.Set) error {
	root, err := n.home.asideKey(*lib)
	if err != nil || root == nil || set.Role(n.self) == member.Admin {
		return err
	}
	stamp, err := n.clock.Now()
	if err != nil {
		return err
	}
	cert := member.Cert{Library: lib.id, Subject: n.self, Kind: member.AddAdmin, Stamp: max(stamp, set.Added(n.self)+1)} // above its Lapse
	lib.certs = append(lib.certs, cert.Sign(root))
	return nil
}

// enter exchanges the library for another, and takes its root key if this device has it. n.refreshing is
// held, so that no refresh runs meanwhile: one that had begun with the old certificates would end by writing
// them over the new ones. What is known of the new library already is no news.
func (n *Node) enter(lib belonging) error {
	if err := n.home.saveLibrary(lib); err != nil {
		return err
	}
	root, err := n.home.rootKey(lib)
	if err != nil {
		return err
	}
	n.cancelRequests()
	for _, st := range n.store.States() {
		if st.Feed.Device != n.self {
			if err := n.store.Drop(st.Feed); err != nil && !errors.Is(err, store.ErrUnknownFeed) {
				return err
			}
		}
	}
	if err := n.store.Rebase(lib.id); err != nil {
		return err
	}
	n.mu.Lock()
	n.lib, n.root, n.set = lib, root, member.Evaluate(lib.root, lib.certs)
	n.mu.Unlock()
	if err := n.store.Raise(); err != nil {
		return err
	}
	return n.dropInvites()
}
