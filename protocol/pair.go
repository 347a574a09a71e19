package protocol

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"

	"peerdex/feed"
	"peerdex/record"
)

// Nonce makes the proofs of one pairing worthless for every other.
type Nonce [16]byte

// MAC proves that one side of a pairing has the invite's secret.
type MAC [sha256.Size]byte

const pairDomain = "peerdex pair 1\x00" // keeps the MACs from meaning anything else

// Roles in the MACs, so that neither side can send the other's back.
const (
	roleJoiner  = 'J'
	roleInviter = 'I'
)

// Joiner is a device that proved to have an invite's secret.
type Joiner struct {
	Device               record.DeviceID
	Name, OS, AppVersion string // for people, as it calls itself
}

// Welcome is what a new member is given.
type Welcome struct {
	Library              feed.LibraryID
	RootKey              [32]byte // of the library; its SHA-256 is Library
	Certs                [][]byte // of the members, the new one among them
	Name, OS, AppVersion string   // of the inviter
	JoinerName           string   // what the new member is to be called, if the name it gave is taken; else empty
}

// Redeem decides on an invite inside one write transaction: find it by its id (ErrInviteUnknown), check
// its secret with verify (ErrInviteSecret where that says false), then its use and time (ErrInviteUsed,
// ErrInviteExpired), then consume it and make the joiner a member. A joiner that asks again, because the
// welcome was lost on the way, should get it again. verify may be called any number of times.
type Redeem func(invite InviteID, verify func(Secret) bool, joiner Joiner) (Welcome, error)

// handshake is what both MACs cover.
type handshake struct {
	invite                   InviteID
	joiner, inviter          record.DeviceID
	joinerNonce, inviteNonce Nonce
}

func (h handshake) mac(secret Secret, role byte) (m MAC) {
	w := hmac.New(sha256.New, secret[:])
	w.Write([]byte(pairDomain))
	w.Write([]byte{role})
	w.Write(h.invite[:])
	w.Write(h.joiner[:])
	w.Write(h.inviter[:])
	w.Write(h.joinerNonce[:])
	w.Write(h.inviteNonce[:])
	w.Sum(m[:0])
	return m
}

func equal(a, b MAC) bool { return hmac.Equal(a[:], b[:]) } // in constant time

// Pair joins a library by the secret of an invite; ours describes this device. It returns an *Error with
// CodeInviteInvalid, CodeInviteUsed or CodeInviteExpired where the invite is no good, and
// CodeUnauthorized if the other side cannot prove to have the secret itself.
func Pair(c *Conn, ours Joiner, secret Secret) (Welcome, error) {
	w, err := pair(c, ours, secret)
	if err != nil {
		return Welcome{}, fmt.Errorf("pair with %s: %w", c.Device().Short(), err)
	}
	return w, nil
}

func pair(c *Conn, ours Joiner, secret Secret) (w Welcome, err error) {
	h := handshake{invite: secret.Invite(), joiner: ours.Device, inviter: c.Device(), joinerNonce: newNonce()}
	if err := ask(c, &PairHello{Invite: h.invite, Nonce: h.joinerNonce}); err != nil {
		return w, err
	}
	challenge, err := expect[*PairChallenge](c)
	if err != nil {
		return w, err
	}
	h.inviteNonce = challenge.Nonce
	proof := &PairProof{MAC: h.mac(secret, roleJoiner), Name: ours.Name, OS: ours.OS, AppVersion: ours.AppVersion}
	if err := ask(c, proof); err != nil {
		return w, err
	}
	m, err := expect[*PairWelcome](c)
	if err != nil {
		return w, err
	}
	if !equal(m.MAC, h.mac(secret, roleInviter)) {
		return w, faultf(CodeUnauthorized, "the inviter does not know the secret")
	}
	return m.welcome()
}

func (m *PairWelcome) welcome() (Welcome, error) {
	if sha256.Sum256(m.RootKey[:]) != m.Library {
		return Welcome{}, malformed("library id is not the hash of its root key")
	}
	return Welcome{m.Library, m.RootKey, m.Certs, m.Name, m.OS, m.AppVersion, m.JoinerName}, nil
}

func (w Welcome) message(mac MAC) *PairWelcome {
	return &PairWelcome{MAC: mac, Library: w.Library, RootKey: w.RootKey, Certs: w.Certs, Name: w.Name, OS: w.OS, AppVersion: w.AppVersion, JoinerName: w.JoinerName}
}

// ServePair answers one pairing as the device self, by the secret of an invite or by a person's approval. It
// returns the joiner once redeem or approve made it a member, also if the welcome could not be delivered any
// more; else an error, with the joiner as far as known. The other side learns only the code, and of an
// invite not before it has sent its proof. It blocks, where a person is to decide for up to ApproveWithin.
func ServePair(ctx context.Context, c *Conn, self record.DeviceID, redeem Redeem, approve Approve) (Joiner, error) {
	j, err := servePair(ctx, c, self, redeem, approve)
	if err != nil {
		return j, fmt.Errorf("answer pairing of %s: %w", c.Device().Short(), err)
	}
	return j, nil
}

func servePair(ctx context.Context, c *Conn, self record.DeviceID, redeem Redeem, approve Approve) (Joiner, error) {
	m, err := c.Recv()
	switch m := m.(type) {
	case *PairHello:
		return serveInvited(c, self, m, redeem)
	case *PairRequest:
		return serveRequest(ctx, c, self, m, approve)
	}
	j := Joiner{Device: c.Device()}
	switch {
	case err == io.EOF:
		return j, faultf(CodeLost, "closed before it asked")
	case err != nil:
		return j, err
	}
	return j, Unexpected(m)
}

// serveInvited answers a device that says it has an invite's secret.
func serveInvited(c *Conn, self record.DeviceID, hello *PairHello, redeem Redeem) (Joiner, error) {
	j := Joiner{Device: c.Device()}
	h := handshake{hello.Invite, j.Device, self, hello.Nonce, newNonce()}
	if err := ask(c, &PairChallenge{Nonce: h.inviteNonce}); err != nil {
		return j, err
	}
	proof, err := expect[*PairProof](c)
	if err != nil {
		return j, err
	}
	j.Name, j.OS, j.AppVersion = proof.Name, proof.OS, proof.AppVersion
	var proven *Secret
	w, err := redeem(h.invite, func(s Secret) bool {
		if !equal(proof.MAC, h.mac(s, roleJoiner)) {
			return false
		}
		proven = &s
		return true
	}, j)
	if err == nil && proven == nil {
		err = faultf(CodeInternal, "invite redeemed without its secret")
	}
	if err != nil {
		c.refuse(&Refused{CodeOf(err)})
		return j, err
	}
	return j, ask(c, w.message(h.mac(*proven, roleInviter)))
}

func newNonce() (n Nonce) {
	rand.Read(n[:]) // never fails (crypto/rand since Go 1.24)
	return n
}
