package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"peerdex/kv"
	"peerdex/member"
	"peerdex/protocol"
	"peerdex/store"
)

const (
	inviteTTL   = 10 * time.Minute
	inviteTries = 3 // wrong secrets before an invite is worth nothing
	strangers   = 4 // connections of devices that are no members, while an invite is open

	// inviteGrace is how long the pairing window stays open when the last invite is used up or expires:
	// whoever comes second hears why it is too late.
	inviteGrace = 10 * time.Second
)

// invite is one secret that lets devices join, as kept in the store.
type invite struct {
	Secret  []byte    `json:"secret"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"`           // left
	Tries   int       `json:"tries"`          // left
	Joined  []string  `json:"joined"`         // devices it made members, in hex: they may ask again
	Spent   time.Time `json:"spent,omitzero"` // when its last use or try went
}

// open returns until when an invite keeps the pairing window open.
func (i invite) open() time.Time {
	if i.Spent.IsZero() {
		return i.Expires.Add(inviteGrace)
	}
	return i.Spent.Add(inviteGrace)
}

func inviteName(id protocol.InviteID) string { return "invite " + hex.EncodeToString(id[:]) }

// newInvite makes an invite and opens the pairing window for it.
func (n *Node) newInvite(ttl time.Duration, uses int, now time.Time) (protocol.Secret, invite, error) {
	n.mu.Lock()
	role, hasRoot, joining := n.set.Role(n.self), n.root != nil, len(n.joining) > 0
	n.mu.Unlock()
	if joining {
		return protocol.Secret{}, invite{}, &Problem{Code: CodeConflict, Message: "cannot invite: this device is joining a library",
			Cause: "an invite into the one that it leaves would be worth nothing", Try: "peer invite, once it has joined"}
	}
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
	n.openWindow(inv.open())
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
	n.windowMoved()
}

// windowMoved makes housekeeping look at the pairing window.
func (n *Node) windowMoved() {
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
		case inv.open().After(open):
			open = inv.open()
		}
		return nil
	})
	for _, name := range stale {
		err = errors.Join(err, n.store.SetLocal(name, nil))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.invited = open; !now.Before(open) {
		n.invited = time.Time{}
		n.gater.Close()
		return inviteTTL, err
	}
	n.gater.Open(strangers)
	return open.Sub(now), err
}

// dropInvites makes every invite worth nothing: they were for another library.
func (n *Node) dropInvites() error {
	var all []string
	err := n.store.Locals("invite ", func(name string, _ []byte) error {
		all = append(all, name)
		return nil
	})
	for _, name := range all {
		err = errors.Join(err, n.store.SetLocal(name, nil))
	}
	n.windowMoved()
	return err
}

// servePair answers a device that wants to join.
func (n *Node) servePair(ctx context.Context, conn *protocol.Conn) error {
	defer n.gater.Admit(conn.Device())() // to the end, which may come after that of the window
	method := "secret"
	joiner, err := protocol.ServePair(ctx, conn, n.self, n.redeem, func(ctx context.Context, j protocol.Joiner, d protocol.Digits) (protocol.Welcome, error) {
		method = "approval"
		return n.awaitApproval(ctx, j, d)
	})
	if err != nil {
		n.noteJoinRefused(joiner, err)
		return err
	}
	n.noteJoined(joiner, n.nameLocked(joiner.Device), method)
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
			if inv.Tries == 0 {
				inv.Spent = now
			}
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
			if inv.Uses == 0 {
				inv.Spent = now
			}
			inv.Joined = append(inv.Joined, j.Device.String())
		}
		if b, err = json.Marshal(inv); err != nil {
			return err
		}
		return store.SetLocalTx(tx, inviteName(id), b)
	})
	n.windowMoved()
	if err = errors.Join(err, refused); err != nil {
		return protocol.Welcome{}, err
	}
	return n.welcome(j)
}

// welcome makes a device a member and returns what it needs to know. It returns CodeRevoked for one that was
// put out for good, and CodeBusy if the library has no room for another.
func (n *Node) welcome(j protocol.Joiner) (protocol.Welcome, error) {
	stamp, err := n.clock.Now()
	if err != nil {
		return protocol.Welcome{}, err
	}
	n.mu.Lock()
	lib, root, set := n.lib, n.root, n.set
	n.mu.Unlock()
	gone, out := set.Removed(j.Device)
	if out && gone.Kind.Removes() {
		return protocol.Welcome{}, protocol.CodeRevoked
	}
	if set.Role(j.Device) == 0 {
		cert := member.Cert{Library: lib.id, Subject: j.Device, Kind: member.AddMember, Stamp: max(stamp, gone.Stamp+1)} // above its Lapse
		if root != nil {                                                                                                 // whoever made the library makes admins, so that any of a person's devices can invite
			cert.Kind = member.AddAdmin
			cert = cert.Sign(root)
		} else {
			cert = cert.Sign(n.key)
		}
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
	if n.set.Role(j.Device) == 0 {
		return protocol.Welcome{}, protocol.CodeBusy
	}
	called := n.nameForJoiner(j)
	w := protocol.Welcome{Library: n.lib.id, RootKey: [32]byte(n.lib.root), Name: n.nameOf(n.self), OS: n.osName(), AppVersion: n.cfg.Version}
	if called != j.Name {
		w.JoinerName = called
	}
	for _, c := range n.lib.certs {
		w.Certs = append(w.Certs, c.Append(nil))
	}
	return w, nil
}

// nameForJoiner returns what a device that joins is to be called here: as it says, unless another member has
// that name. A name that no device can have is passed on as it is; n.mu is held.
func (n *Node) nameForJoiner(j protocol.Joiner) string {
	n.paired[j.Device] = j.Name
	if nameFault(j.Name) == "" {
		n.paired[j.Device] = n.freeNameFor(j.Name, j.Device)
	}
	return n.paired[j.Device]
}
