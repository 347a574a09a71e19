package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"peerdex/eventlog"
	"peerdex/internal/english"
	"peerdex/protocol"
	"peerdex/store"
)

// problemOf turns what can go wrong at the opening of a node into what a person can act on.
func problemOf(err error) error {
	var (
		schema *store.SchemaError
		listen *protocol.ListenError
		known  *Problem
	)
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, store.ErrLocked):
		return &Problem{Code: CodeAlreadyRunning, Message: "another process uses this home", Cause: err.Error(), Try: "peer status, or start with another --home"}
	case errors.As(err, &schema):
		if !schema.Newer() {
			return &Problem{Code: CodeIntegrity, Message: "cannot start: the store was written by a version before the first release", Cause: schema.Error(),
				Try: "move the folder store/ of the home away and start again: what other devices hold comes back, and folders are scanned"}
		}
		return &Problem{Code: CodeNewerSchema, Message: "this home was written by a newer version", Cause: schema.Error(), Try: "run the newer peer, or start with another --home"}
	case errors.Is(err, store.ErrDamaged):
		return &Problem{Code: CodeIntegrity, Message: "cannot start: the store is damaged", Cause: err.Error(),
			Try: "move the folder store/ of the home away and start again: what other devices hold comes back, and folders are scanned"}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return &Problem{Code: CodeHomeUnsafe, Message: "cannot start: the home folder cannot be written", Cause: err.Error(), Try: "make it yours and writable, or name another with --home"}
	case errors.Is(err, errDamaged):
		return &Problem{Code: CodeIntegrity, Message: "cannot start: a file of the home folder is damaged", Cause: err.Error(), Try: "restore that file from a backup; the folders you indexed are not concerned"}
	case errors.Is(err, store.ErrNoSpace):
		return &Problem{Code: CodeConflict, Message: "the disk is almost full", Cause: err.Error(), Try: "make room, then start again"}
	case errors.As(err, &listen) && errors.Is(err, syscall.EADDRINUSE):
		return &Problem{Code: CodePortInUse, Message: fmt.Sprintf("cannot listen on %s", listen.Addr), Cause: "another program has that port", Try: "--listen with another port, or port 0 for any"}
	case errors.As(err, &listen):
		return &Problem{Code: CodeBadAddress, Message: fmt.Sprintf("cannot listen on %s", listen.Addr), Cause: listen.Err.Error(), Try: "--listen /ip4/0.0.0.0/tcp/4001 --listen /ip4/0.0.0.0/udp/4001/quic-v1"}
	}
	return err
}

// spaceProblem says what a person can do about a full disk or a frozen identity; other errors stay as they are.
func spaceProblem(err error) error {
	switch {
	case errors.Is(err, store.ErrNoSpace):
		return &Problem{Code: CodeConflict, Message: "nothing can be recorded: the disk is almost full", Cause: err.Error(), Try: "make room where the home folder is"}
	case errors.Is(err, store.ErrFrozen):
		return &Problem{Code: CodeConflict, Message: "nothing can be recorded: this device's identity is in use twice", Cause: err.Error(), Try: "peer sync events --event-type feed_cloned"}
	}
	return err
}

// joinProblem says why a join did not come about.
func joinProblem(j protocol.Join, err error) error {
	again := "on the other device run `peer invite` and paste the new line"
	switch {
	case errors.Is(err, protocol.CodeInviteInvalid):
		return &Problem{Code: CodeInviteWrong, Message: "cannot join: the invite was refused", Cause: "there is no such invite on that device, or its secret is wrong", Try: again}
	case errors.Is(err, protocol.CodeInviteUsed):
		return &Problem{Code: CodeInviteUsed, Message: "cannot join: the invite was used already", Cause: "an invite works once unless it was made for more", Try: again}
	case errors.Is(err, protocol.CodeInviteExpired):
		p := &Problem{Code: CodeInviteExpired, Message: "cannot join: the invite has expired", Cause: "an invite lasts 10 minutes unless it was made for longer", Try: again}
		if j.Secret.IsZero() {
			p.Message, p.Cause = "cannot join: nobody approved in time", "a request without an invite waits 10 minutes"
		}
		return p
	case errors.Is(err, protocol.CodeNotApproved):
		return &Problem{Code: CodeNotAllowed, Message: "cannot join: a person said no on the other device", Cause: "the request was refused there", Try: again}
	case errors.Is(err, protocol.CodeRevoked):
		return &Problem{Code: CodeNotAllowed, Message: "cannot join: this device was revoked there", Cause: "a revoked key never returns",
			Try: "start with another --home: that is a new device"}
	case errors.Is(err, protocol.CodeBusy):
		return &Problem{Code: CodeConflict, Message: "cannot join: the other device cannot take another one now", Cause: "too many ask at once, or its library is full", Try: "try again later, or with an invite: " + again}
	case errors.Is(err, protocol.CodeNotMember), errors.Is(err, protocol.CodeLost), errors.Is(err, protocol.CodeShutdown):
		return turnedAway(again)
	case errors.Is(err, protocol.CodeUnauthorized):
		return &Problem{Code: CodeNotAllowed, Message: "cannot join: the other device could not prove that it made the invite", Cause: err.Error(), Try: again}
	}
	results := attemptsOf(err)
	if len(results) == 0 && !errors.Is(err, context.DeadlineExceeded) { // connected, and cut off at once
		return turnedAway(again)
	}
	if len(results) == 0 {
		return &Problem{Code: CodeUnreachable, Message: "cannot join: the other device did not answer", Cause: err.Error(), Try: "check that `peer status` works there"}
	}
	var cause []string
	details := make([]AddressResult, len(results))
	for i, r := range results {
		cause = append(cause, r.Address+" "+r.Result)
		details[i] = AddressResult{Address: r.Address, Result: r.Result}
	}
	return &Problem{Code: CodeUnreachable, Message: "cannot join: nothing answered", Cause: strings.Join(cause, "; "),
		Try: "check that `peer status` works on the other device, and that both are on one network", Details: details}
}

// turnedAway is the problem of a device that knocks where no invite is open: it is cut off without a word.
func turnedAway(again string) *Problem {
	return &Problem{Code: CodeInviteWrong, Message: "cannot join: the other device does not take new devices now",
		Cause: "it has no open invite: none was made, or it was used or has expired", Try: again}
}

// attemptsOf returns what came of each address of a failed dial.
func attemptsOf(err error) []eventlog.AddressResult {
	var dial *swarm.DialError
	out := []eventlog.AddressResult{}
	if !errors.As(err, &dial) {
		return out
	}
	for _, e := range dial.DialErrors {
		out = append(out, eventlog.AddressResult{Address: e.Address.String(), Result: dialResult(e.Cause)})
	}
	slices.SortFunc(out, func(a, b eventlog.AddressResult) int { return strings.Compare(a.Address, b.Address) })
	return out
}

// unreached says in a line why a device was not reached: what came of how many of its addresses.
func unreached(err error) string {
	count, order := map[string]int{}, []string{}
	for _, r := range attemptsOf(err) {
		if count[r.Result]++; count[r.Result] == 1 {
			order = append(order, r.Result)
		}
	}
	for i, result := range order {
		if n := count[result]; n > 1 {
			order[i] = result + " at " + english.Plural(n, "address", "addresses")
		}
	}
	if len(order) > 0 {
		return strings.Join(order, ", ")
	}
	if code := protocol.CodeOf(err); code != protocol.CodeInternal {
		return code.Error()
	}
	why, _, _ := strings.Cut(err.Error(), "\n")
	return why
}

func dialResult(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(err.Error(), "timeout"):
		return "timed out"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no route"
	}
	text := err.Error()
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	return text[:min(len(text), 120)]
}
