package protocol

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"time"

	"peerdex/record"
)

// Digits are six decimal digits that both sides of a pairing without a secret show. If they are the same,
// the device that asks is the one in front of the person who approves: whoever asks in its place has
// committed to its part of them before it knew the other's, so it hits them once in a million tries.
type Digits string

// Commitment binds a joiner to its nonce before it knows the inviter's.
type Commitment [sha256.Size]byte

const (
	commitDomain = "peerdex pair commitment 1\x00"
	digitsDomain = "peerdex pair digits 1\x00"
)

func commit(joiner, inviter record.DeviceID, nonce Nonce) Commitment {
	b := append([]byte(commitDomain), joiner[:]...)
	return sha256.Sum256(append(append(b, inviter[:]...), nonce[:]...))
}

func digits(joiner, inviter record.DeviceID, joinerNonce, inviteNonce Nonce) Digits {
	b := append([]byte(digitsDomain), joiner[:]...)
	b = append(append(append(b, inviter[:]...), joinerNonce[:]...), inviteNonce[:]...)
	sum := sha256.Sum256(b)
	return Digits(fmt.Sprintf("%06d", binary.BigEndian.Uint64(sum[:])%1_000_000))
}

// ApproveWithin is how long a device that asks without a secret waits for a person.
const ApproveWithin = 10 * time.Minute

// Approve shows a device that asks to join to a person, and blocks until that person has decided, the time
// is over (CodeInviteExpired) or ctx ends because the device has gone. It makes the joiner a member, or says
// why not: CodeNotApproved, CodeBusy where too many are waiting.
type Approve func(ctx context.Context, joiner Joiner, digits Digits) (Welcome, error)

// Ask joins a library without a secret: a person approves at the other side. show is called with the digits
// to compare; then Ask blocks for up to ApproveWithin and a little more. It returns an *Error with
// CodeNotApproved, CodeInviteExpired or CodeBusy where it was refused.
func Ask(c *Conn, ours Joiner, show func(Digits)) (Welcome, error) {
	w, err := askApproval(c, ours, show)
	if err != nil {
		return Welcome{}, fmt.Errorf("ask %s to join: %w", c.Device().Short(), err)
	}
	return w, nil
}

func askApproval(c *Conn, ours Joiner, show func(Digits)) (w Welcome, err error) {
	nonce := newNonce()
	request := &PairRequest{Commitment: commit(ours.Device, c.Device(), nonce), Name: ours.Name, OS: ours.OS, AppVersion: ours.AppVersion}
	if err := ask(c, request); err != nil {
		return w, err
	}
	challenge, err := expect[*PairChallenge](c)
	if err != nil {
		return w, err
	}
	if err := ask(c, &PairReveal{Nonce: nonce}); err != nil {
		return w, err
	}
	show(digits(ours.Device, c.Device(), nonce, challenge.Nonce))
	c.cfg.Idle = ApproveWithin + time.Minute // a person decides
	m, err := expect[*PairWelcome](c)
	if err != nil {
		return w, err
	}
	return m.welcome()
}

// serveRequest answers a device that has no secret.
func serveRequest(ctx context.Context, c *Conn, self record.DeviceID, m *PairRequest, approve Approve) (Joiner, error) {
	j := Joiner{Device: c.Device(), Name: m.Name, OS: m.OS, AppVersion: m.AppVersion}
	nonce := newNonce()
	if err := ask(c, &PairChallenge{Nonce: nonce}); err != nil {
		return j, err
	}
	reveal, err := expect[*PairReveal](c)
	if err != nil {
		return j, err
	}
	if want := commit(j.Device, self, reveal.Nonce); subtle.ConstantTimeCompare(want[:], m.Commitment[:]) != 1 {
		return j, faultf(CodeUnauthorized, "the nonce is not the one that was committed to")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan struct{}) // closed once the joiner says something, which it must not, or is gone
	c.cfg.Idle = ApproveWithin + time.Minute
	go func() {
		defer close(gone)
		_, _ = c.Recv() // whatever it is, it is the end
		cancel()
	}()
	w, err := approve(ctx, j, digits(j.Device, self, reveal.Nonce, nonce))
	var answer Message = w.message(MAC{})
	if err != nil {
		answer = &Refused{CodeOf(err)}
	}
	if c.Send(answer) == nil {
		_ = c.CloseWrite() // the joiner closes when it has read it
	}
	late := time.AfterFunc(defaultFrame, func() { c.Reset(CodeTimeout) })
	defer late.Stop()
	<-gone
	return j, err
}
