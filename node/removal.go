package node

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/member"
	"peerdex/record"
)

// tellWithin is how long a person waits for connected members to hear of a change of the membership. Who
// has not heard by then hears soon after.
const tellWithin = 3 * time.Second

// Remove revokes a device, or forgets it, and returns when that is durable and the members connected have
// heard of it. From the moment it is durable here nothing comes in from that device.
func (n *Node) Remove(ctx context.Context, req RemoveRequest) (RemoveView, error) {
	d, err := deviceOf(req.Device)
	if err != nil {
		return RemoveView{}, err
	}
	if err := n.awaitAsked(ctx); err != nil {
		return RemoveView{}, err
	}
	v := RemoveView{Forget: req.Forget, DryRun: req.DryRun}
	if v.Device, err = n.deviceView(ctx, req.Device); err != nil {
		return v, err
	}
	n.mu.Lock()
	set, lib, root := n.set, n.lib, n.root
	v.Later = n.otherNames(d)
	n.mu.Unlock()
	if p := n.mayRemove(set, root, d, v.Device.Name, req.Forget); p != nil {
		return v, p
	}
	stamp, err := n.clock.Now()
	if err != nil {
		return v, err
	}
	issuer := n.key
	if root != nil {
		issuer = root
	}
	regs, kept := removal(set, lib, d, req.Forget, stamp, issuer)
	for _, k := range kept {
		v.Kept = append(v.Kept, n.nameLocked(k))
	}
	if req.DryRun {
		return v, nil
	}
	if err := n.store.SetRegisters(regs...); err != nil {
		return v, spaceProblem(fmt.Errorf("write removal: %w", err))
	}
	if err := n.store.Sync(); err != nil {
		return v, err
	}
	if err := n.refresh(); err != nil {
		return v, err
	}
	v.Told, v.Later = n.spread(ctx, tellWithin, false)
	return v, nil
}

// removal returns the registers that put a device out, and whom it had let in. Of an admin, which the root
// alone removes, whatever it certified counts no more from then on: in the same write the root says again
// what is to stay, members with the stamps that they had, and removals.
func removal(set member.Set, lib belonging, d record.DeviceID, forget bool, stamp hlc.Stamp, issuer ed25519.PrivateKey) (regs []record.Register, kept []record.DeviceID) {
	out := member.Cert{Library: lib.id, Subject: d, Kind: member.Revoke, Stamp: stamp}
	if forget {
		out.Kind = member.Forget
	}
	regs = append(regs, out.Sign(issuer).Register())
	if [32]byte(issuer.Public().(ed25519.PublicKey)) != [32]byte(lib.root) {
		return regs, nil
	}
	for _, c := range set.Certs() {
		if c.Issuer != d || c.Subject == d {
			continue
		}
		if set.Role(c.Subject) != 0 && !slices.Contains(kept, c.Subject) {
			kept = append(kept, c.Subject)
		}
		regs = append(regs, c.Sign(issuer).Register())
	}
	return regs, kept
}

// mayRemove says why a device cannot be put out by this one.
func (n *Node) mayRemove(set member.Set, root ed25519.PrivateKey, d record.DeviceID, name string, forget bool) *Problem {
	verb := "revoke"
	if forget {
		verb = "forget"
	}
	gone, out := set.Removed(d)
	switch {
	case d == n.self:
		return &Problem{Code: CodeConflict, Message: fmt.Sprintf("cannot %s %s: it is this device", verb, name),
			Cause: "a device does not put itself out; it leaves", Try: "peer leave"}
	case out && (gone.Kind == member.Forget || gone.Kind == member.Revoke && !forget):
		return &Problem{Code: CodeConflict, Message: fmt.Sprintf("%s is out of the library already", name),
			Cause: fmt.Sprintf("it was revoked on %s, for good", gone.Stamp.Time().Format(time.DateOnly)), Try: "peer devices"}
	case root != nil:
		return nil
	case set.Role(n.self) != member.Admin:
		return &Problem{Code: CodeNotAllowed, Message: fmt.Sprintf("cannot %s %s: this device is not an admin of the library", verb, name),
			Cause: "admins alone put devices out", Try: fmt.Sprintf("run `peer devices %s %s` on the device that made the library", verb, name)}
	case set.RootOnly(d):
		return &Problem{Code: CodeNotAllowed, Message: fmt.Sprintf("cannot %s %s: it is an admin, or was one", verb, name),
			Cause: "only the library's root key puts such a device out, and this one does not have it",
			Try:   fmt.Sprintf("run `peer devices %s %s` on the device that made the library", verb, name)}
	}
	return nil
}

// otherNames returns what the members are called, but for this device and one more; n.mu is held.
func (n *Node) otherNames(but record.DeviceID) []string {
	out := []string{}
	for _, d := range n.set.Members() {
		if d != n.self && d != but {
			out = append(out, n.nameOf(d))
		}
	}
	slices.Sort(out)
	return out
}

// deviceView returns the view of one device.
func (n *Node) deviceView(ctx context.Context, id string) (DeviceView, error) {
	all, err := n.Devices(ctx)
	if err != nil {
		return DeviceView{}, err
	}
	for _, v := range all {
		if v.ID == id {
			return v, nil
		}
	}
	return DeviceView{}, &Problem{Code: CodeUnknownDevice, Message: fmt.Sprintf("%q is no device of this library", id),
		Cause: "it was never let in, or was forgotten", Try: "peer devices"}
}

// spread waits until every member that is connected holds this device's feed as it is now, or the time is
// over, and returns the names of those that do and of those that do not. Where this device is leaving, who
// hears of it ends the session at once, and its answer may be lost: a session that ends counts then.
func (n *Node) spread(ctx context.Context, within time.Duration, leaving bool) (told, later []string) {
	own := feed.ID{Device: n.self}
	st, _ := n.store.State(own)
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	sessions := map[record.DeviceID]*session{}
	n.mu.Lock()
	for d, p := range n.peers {
		if p.session != nil {
			sessions[d] = p.session
		}
	}
	n.mu.Unlock()
	for {
		told, later = []string{}, []string{}
		waiting := false
		n.mu.Lock()
		for d, p := range n.peers {
			s := sessions[d]
			heard := false
			if s != nil {
				held, _ := s.sender.Held(own)
				ended := p.session != s
				heard = held.Seq >= st.Floor.Seq || leaving && ended
				waiting = waiting || !heard && !ended
			}
			if heard {
				told = append(told, n.nameOf(d))
			} else {
				later = append(later, n.nameOf(d))
			}
		}
		n.mu.Unlock()
		slices.Sort(told)
		slices.Sort(later)
		if !waiting || !wait(ctx, progressTick/5) {
			return told, later
		}
	}
}
