package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"peerdex/internal/english"
	"peerdex/protocol"
)

// maxRequests is how many devices may wait for a person's approval at a time.
const maxRequests = 3

// request is a device that asks to join without a secret. Node.mu guards the map that holds it.
type request struct {
	joiner  protocol.Joiner
	digits  protocol.Digits
	since   time.Time
	decided chan error // capacity 1: nil approves
}

// awaitApproval shows a device that asks to join to a person and blocks until that person has decided.
func (n *Node) awaitApproval(ctx context.Context, j protocol.Joiner, d protocol.Digits) (protocol.Welcome, error) {
	r := &request{joiner: j, digits: d, since: time.Now(), decided: make(chan error, 1)}
	if err := n.addRequest(r); err != nil {
		return protocol.Welcome{}, err
	}
	defer n.endRequest(r)
	n.log.Info("a device asks to join", "peer", j.Device.Short())
	late := time.NewTimer(protocol.ApproveWithin)
	defer late.Stop()
	select {
	case err := <-r.decided:
		if err != nil {
			return protocol.Welcome{}, err
		}
		return n.welcome(j)
	case <-late.C:
		return protocol.Welcome{}, protocol.CodeInviteExpired
	case <-ctx.Done():
		return protocol.Welcome{}, protocol.CodeLost
	}
}

// addRequest returns CodeBusy if too many are waiting, or one that shows the same digits.
func (n *Node) addRequest(r *request) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, o := range n.requests {
		if o.digits == r.digits {
			return protocol.CodeBusy
		}
	}
	if _, asks := n.requests[r.joiner.Device]; asks || len(n.requests) >= maxRequests {
		return protocol.CodeBusy
	}
	n.requests[r.joiner.Device] = r
	return nil
}

func (n *Node) endRequest(r *request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.requests[r.joiner.Device] == r {
		delete(n.requests, r.joiner.Device)
	}
}

// cancelRequests refuses everybody who waits for approval: this device is about to change its library.
func (n *Node) cancelRequests() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.requests {
		r.decide(protocol.CodeNotMember)
	}
}

// decide tells the request what became of it; what was said first counts.
func (r *request) decide(err error) {
	select {
	case r.decided <- err:
	default:
	}
}

// Requests returns the devices that wait for approval, the first to come first.
func (n *Node) Requests(context.Context) ([]RequestView, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []RequestView{}
	for _, r := range n.requests {
		out = append(out, r.view())
	}
	slices.SortFunc(out, func(a, b RequestView) int { return a.Since.Compare(b.Since) })
	return out, nil
}

func (r *request) view() RequestView {
	return RequestView{
		Digits: string(r.digits), ID: idText(r.joiner.Device), Short: r.joiner.Device.Short(), Name: r.joiner.Name, OS: r.joiner.OS,
		Version: r.joiner.AppVersion, Since: r.since, Expires: r.since.Add(protocol.ApproveWithin), Approve: approveLine(r.digits),
	}
}

// approveLine is the command that both sides of a pairing without a secret print.
func approveLine(d protocol.Digits) string { return "peer devices approve " + string(d) }

// Approve makes a device a member that asked to join, or refuses it, and returns when that is durable. ref
// is the digits it shows, or its name where no other that waits has the same.
func (n *Node) Approve(ctx context.Context, ref string, refuse bool) (RequestView, error) {
	r, err := n.findRequest(ref)
	if err != nil {
		return RequestView{}, err
	}
	v := r.view()
	if refuse {
		r.decide(protocol.CodeNotApproved)
		return v, nil
	}
	if err := n.awaitAsked(ctx); err != nil {
		return v, err
	}
	r.decide(nil)
	for n.waits(r) {
		if !wait(ctx, progressTick/5) {
			return v, ctx.Err()
		}
	}
	if _, err := n.membership(r.joiner.Device); err != nil {
		return v, &Problem{Code: CodeConflict, Message: "the device was not let in", Cause: "it went away, or was refused, before it was approved", Try: "ask it to join again"}
	}
	if name := n.nameLocked(r.joiner.Device); name != v.Name {
		v.As = name
	}
	n.noteApproved(r.joiner)
	return v, nil
}

func (n *Node) waits(r *request) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.requests[r.joiner.Device] == r
}

// findRequest returns the request with these digits, in any grouping, or of the device of that name.
func (n *Node) findRequest(ref string) (*request, error) {
	bare := protocol.Digits(strings.NewReplacer(" ", "", "-", "").Replace(ref))
	n.mu.Lock()
	defer n.mu.Unlock()
	var named []*request
	for _, r := range n.requests {
		if r.digits == bare {
			return r, nil
		}
		if r.joiner.Name == ref {
			named = append(named, r)
		}
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(named) > 1:
		return nil, &Problem{Code: CodeAmbiguous, Message: fmt.Sprintf("%s called %q ask to join", english.Plural(len(named), "device", "devices"), ref),
			Cause: "any device may call itself so", Try: "peer devices approve DIGITS, with those that the right one shows"}
	}
	cause := "no device waits for approval"
	if len(n.requests) > 0 {
		cause = english.Plural(len(n.requests), "waits", "wait") + ", none with these digits or this name: if it shows them, somebody stands between"
	}
	return nil, &Problem{Code: CodeUnknownDevice, Message: fmt.Sprintf("nobody asks to join as %q", ref), Cause: cause, Try: "peer devices"}
}
