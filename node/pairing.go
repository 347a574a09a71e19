package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"peerdex/hlc"
	"peerdex/kv"
	"peerdex/member"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

const (
	inviteTTL   = 10 * time.Minute
	inviteTries = 3 // wrong secrets before an invite is worth nothing
	strangers   = 4 // connections of devices that are no members, while an invite is open
)

// invite is one secret that lets devices join, as kept in the store.
type invite struct {
	Secret  []byte    `json:"secret"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"`   // left
	Tries   int       `json:"tries"`  // left
	Joined  []string  `json:"joined"` // devices it made members, in hex: they may ask again
}

func inviteName(id protocol.InviteID) string { return "invite " + hex.EncodeToString(id[:]) }

// newInvite makes an invite and opens the pairing window for it.
func (n *Node) newInvite(ttl time.Duration, uses int, now time.Time) (protocol.Secret, invite, error) {
	n.mu.Lock()
	role, hasRoot := n.set.Role(n.self), n.root != nil
	n.mu.Unlock()
	if role != member.Admin && !hasRoot {
		return protocol.Secret{}, invite{}, &Problem{Code: CodeNotAllowed,
			Message: "cannot invite: this device is not an admin of the library",
			Cause:   "only the device that made the library and those it invited may invite others",
			Try:     "run `peer invite` on one of those"}
	}
	secret := protocol.NewSecret()
	inv := invite{Secret: secret[:], Expires: now.Add(ttl), Uses: uses, Tries: inviteTries}
	b, err := json.Marshal(inv)
	if err != nil {
		return secret, inv, err
	}
	if err := n.store.SetLocal(inviteName(secret.Invite()), b); err != nil {
		return secret, inv, fmt.Errorf("keep invite: %w", err)
	}
	if err := n.store.Sync(); err != nil {
		return secret, inv, err
	}
	n.openWindow(inv.Expires)
	n.noteInvited(inv)
	return secret, inv, nil
}

// openWindow lets strangers connect to pair until t; a later call can only make it longer.
func (n *Node) openWindow(t time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.After(n.invited) {
		n.invited = t
	}
	n.gater.Open(strangers)
	select {
	case n.window <- struct{}{}:
	default:
	}
}

// inviting reports whether the pairing window is open.
func (n *Node) inviting() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Now().Before(n.invited)
}

// reviewInvites closes the pairing window when no invite is left, forgets those that have expired, and
// returns when to look again.
func (n *Node) reviewInvites(now time.Time) (time.Duration, error) {
	var open time.Time
	var stale []string
	err := n.store.Locals("invite ", func(name string, b []byte) error {
		var inv invite
		if err := json.Unmarshal(b, &inv); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		switch {
		case now.After(inv.Expires.Add(inviteTTL)): // kept a while to say "expired" instead of "unknown"
			stale = append(stale, name)
		case inv.Expires.Add(inviteTTL).After(open):
			open = inv.Expires.Add(inviteTTL)
		}
		return nil
	})
	for _, name := range stale {
		err = errors.Join(err, n.store.SetLocal(name, nil))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.invited = open
	if !now.Before(open) {
		n.gater.Close()
		return inviteTTL, err
	}
	n.gater.Open(strangers)
	return open.Sub(now), err
}

// servePair answers a device that wants to join.
func (n *Node) servePair(_ context.Context, conn *protocol.Conn) error {
	joiner, err := protocol.ServePair(conn, n.self, n.redeem)
	if err != nil {
		n.noteJoinRefused(joiner, err)
		return err
	}
	n.noteJoined(joiner)
	return n.refresh()
}

// redeem checks and consumes an invite in one transaction, then makes the joiner a member.
func (n *Node) redeem(id protocol.InviteID, verify func(protocol.Secret) bool, j protocol.Joiner) (protocol.Welcome, error) {
	var refused error
	now := time.Now()
	err := n.store.Update(func(tx kv.Tx) error {
		refused = nil
		b, err := store.LocalTx(tx, inviteName(id))
		if err != nil {
			return err
		}
		if b == nil {
			refused = protocol.ErrInviteUnknown
			return nil
		}
		var inv invite
		if err := json.Unmarshal(b, &inv); err != nil {
			return fmt.Errorf("read invite: %w", err)
		}
		again := slices.Contains(inv.Joined, j.Device.String())
		switch {
		case inv.Tries <= 0:
			refused = protocol.ErrInviteUnknown
			return nil
		case !verify(protocol.Secret(inv.Secret)):
			inv.Tries--
			refused = protocol.ErrInviteSecret
		case again:
			return nil
		case !now.Before(inv.Expires):
			refused = protocol.ErrInviteExpired
			return nil
		case inv.Uses <= 0:
			refused = protocol.ErrInviteUsed
			return nil
		default:
			inv.Uses--
			inv.Joined = append(inv.Joined, j.Device.String())
		}
		if b, err = json.Marshal(inv); err != nil {
			return err
		}
		return store.SetLocalTx(tx, inviteName(id), b)
	})
	if err = errors.Join(err, refused); err != nil {
		return protocol.Welcome{}, err
	}
	return n.welcome(j)
}

// welcome makes a device a member and returns what it needs to know.
func (n *Node) welcome(j protocol.Joiner) (protocol.Welcome, error) {
	stamp, err := n.clock.Now()
	if err != nil {
		return protocol.Welcome{}, err
	}
	n.mu.Lock()
	lib, root, known := n.lib, n.root, n.set.Role(j.Device) != 0
	n.mu.Unlock()
	cert := member.Cert{Library: lib.id, Subject: j.Device, Kind: member.AddMember, Stamp: stamp}
	if root != nil { // whoever made the library makes admins, so that any of a person's devices can invite
		cert.Kind = member.AddAdmin
		cert = cert.Sign(root)
	} else {
		cert = cert.Sign(n.key)
	}
	if !known {
		if err := n.store.SetRegisters(cert.Register()); err != nil {
			return protocol.Welcome{}, fmt.Errorf("write certificate: %w", err)
		}
		if err := n.store.Sync(); err != nil {
			return protocol.Welcome{}, err
		}
		if err := n.refresh(); err != nil {
			return protocol.Welcome{}, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	w := protocol.Welcome{Library: n.lib.id, RootKey: [32]byte(n.lib.root), Name: n.nameOf(n.self), OS: n.osName(), AppVersion: n.cfg.Version}
	for _, c := range n.lib.certs {
		w.Certs = append(w.Certs, c.Append(nil))
	}
	return w, nil
}

// join pairs with the device that a join line names and moves this device into its library.
func (n *Node) join(ctx context.Context, addrs []multiaddr.Multiaddr, j protocol.Join) error {
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
	w, err := protocol.Pair(conn, me, j.Secret)
	conn.End(err)
	if err != nil {
		return joinProblem(j, err)
	}
	if err := n.move(w); err != nil {
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
			Cause: fmt.Sprintf("it has %d other members, and a device is in one library at a time", len(n.set.Members())-1),
			Try:   "invite the other device from here with `peer invite`, or start this one with another --home"}
	case n.store.Frozen():
		return &Problem{Code: CodeConflict, Message: "cannot join: this device's identity is in use twice",
			Cause: store.ErrFrozen.Error(), Try: "start with another --home, and stop the copy"}
	case n.store.Room() != nil:
		return &Problem{Code: CodeConflict, Message: "cannot join: the disk is almost full", Cause: n.store.Room().Error(), Try: "make room, then join again"}
	case j.Secret.IsZero():
		return &Problem{Code: CodeNotAllowed, Message: "cannot join: the join line has no secret",
			Cause: "an address alone does not admit a device", Try: "on the other device run `peer invite` and paste the whole line, in quotes"}
	}
	return nil
}

// move takes this device with its folders into another library.
func (n *Node) move(w protocol.Welcome) error {
	lib := belonging{id: w.Library, root: w.RootKey[:]}
	for _, raw := range w.Certs {
		c, err := member.Parse(raw)
		if err != nil {
			return fmt.Errorf("read certificates of the library joined: %w", err)
		}
		lib.certs = append(lib.certs, c)
	}
	if set := member.Evaluate(lib.root, lib.certs); set.Role(n.self) == 0 {
		return &Problem{Code: CodeNotAllowed, Message: "cannot join: the other device's welcome does not make this one a member",
			Cause: "no certificate for this device leads to the library's root key", Try: "ask for another invite"}
	}
	if err := n.enter(lib); err != nil {
		return err
	}
	if err := n.introduce(); err != nil {
		return err
	}
	n.noteMoved(lib.id)
	return n.refresh()
}

// enter exchanges the library for another. No refresh runs meanwhile: one that had begun with the old
// certificates would end by writing them over the new ones.
func (n *Node) enter(lib belonging) error {
	n.refreshing.Lock()
	defer n.refreshing.Unlock()
	if err := n.home.saveLibrary(lib); err != nil {
		return err
	}
	if err := n.store.Rebase(lib.id); err != nil {
		return err
	}
	n.mu.Lock()
	n.lib, n.root, n.set = lib, nil, member.Set{}
	n.mu.Unlock()
	if err := n.store.Raise(); err != nil {
		return err
	}
	return n.home.remove("root.key")
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

// rememberSeen keeps when a device was last talked to, for the next start.
func (n *Node) rememberSeen(d record.DeviceID, at time.Time) {
	if err := n.store.SetLocal("seen "+d.String(), hlc.At(at).Append(nil)); err != nil {
		n.log.Warn("last contact not remembered", "peer", d.Short(), "err", err)
	}
}

// lastSeen returns when a device was last talked to before this start; zero: never.
func (n *Node) lastSeen(d record.DeviceID) (time.Time, error) {
	b, err := n.store.Local("seen " + d.String())
	if err != nil || len(b) != hlc.Size {
		return time.Time{}, err
	}
	return hlc.FromBytes(b).Time(), nil
}
