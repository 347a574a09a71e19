package protocol_test

import (
	"context"
	"errors"
	"reflect"
	"regexp"
	"sync"
	"testing"

	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
)

// request is one pairing without a secret: what each side saw of it.
type request struct {
	shown, asked protocol.Digits
	welcome      protocol.Welcome
	joiner       protocol.Joiner
	here, there  error // of the inviter and of the joiner
}

func requestOver(t *testing.T, approve protocol.Approve) (r request) {
	t.Helper()
	a, b := protocoltest.Pipe()
	joiner := protocol.Joiner{Name: "nas", OS: "linux", AppVersion: "1"}
	joiner.Device[0] = 1
	inviter := joiner.Device
	inviter[0] = 2
	ca := protocol.NewConn(a, protocol.ConnConfig{Device: inviter, Protocol: protocol.PairProtocol})
	cb := protocol.NewConn(b, protocol.ConnConfig{Device: joiner.Device, Protocol: protocol.PairProtocol})
	var both sync.WaitGroup
	both.Go(func() {
		r.welcome, r.there = protocol.Ask(ca, joiner, func(d protocol.Digits) { r.shown = d })
		ca.End(r.there)
	})
	both.Go(func() {
		r.joiner, r.here = protocol.ServePair(t.Context(), cb, inviter, nil, func(ctx context.Context, j protocol.Joiner, d protocol.Digits) (protocol.Welcome, error) {
			r.asked = d
			return approve(ctx, j, d)
		})
		cb.End(r.here)
	})
	both.Wait()
	if r.joiner != joiner {
		t.Errorf("the inviter met %+v", r.joiner)
	}
	return r
}

// Both sides show the same six digits, other ones each time; what the person says reaches the joiner.
func TestApproval(t *testing.T) {
	book := newBook()
	seen := map[protocol.Digits]bool{}
	for range 20 {
		r := requestOver(t, func(context.Context, protocol.Joiner, protocol.Digits) (protocol.Welcome, error) {
			return book.welcome, nil
		})
		if r.here != nil || r.there != nil || !reflect.DeepEqual(r.welcome, book.welcome) {
			t.Fatalf("got %+v, %v, %v", r.welcome, r.there, r.here)
		}
		if r.shown != r.asked || !regexp.MustCompile(`^[0-9]{6}$`).MatchString(string(r.shown)) {
			t.Errorf("the joiner shows %q, the inviter %q", r.shown, r.asked)
		}
		seen[r.shown] = true
	}
	if len(seen) < 19 { // two alike among twenty: once in five thousand runs; three never
		t.Errorf("only %d different digits in 20 requests", len(seen))
	}
	for _, code := range []protocol.Code{protocol.CodeNotApproved, protocol.CodeBusy, protocol.CodeInviteExpired, protocol.CodeRevoked} {
		r := requestOver(t, func(context.Context, protocol.Joiner, protocol.Digits) (protocol.Welcome, error) {
			return protocol.Welcome{}, code
		})
		e, ok := errors.AsType[*protocol.Error](r.there)
		if !ok || e.Code != code || !e.Remote || !errors.Is(r.here, code) || !reflect.DeepEqual(r.welcome, protocol.Welcome{}) {
			t.Errorf("%s: joiner got %+v, %v; inviter %v", code.Label(), r.welcome, r.there, r.here)
		}
	}
	lie := book.welcome
	lie.Library[0] ^= 1
	r := requestOver(t, func(context.Context, protocol.Joiner, protocol.Digits) (protocol.Welcome, error) { return lie, nil })
	if protocol.CodeOf(r.there) != protocol.CodeMalformed {
		t.Errorf("a library that its root key does not name: %v", r.there)
	}
}

// A joiner that changes its mind about its nonce, once it knows the inviter's, is shown to nobody; one that
// goes away is asked about no longer.
func TestApprovalIsCommitted(t *testing.T) {
	for name, c := range map[string]struct {
		reveal protocol.Message
		code   protocol.Code
		shown  bool
	}{
		"another nonce":          {&protocol.PairReveal{Nonce: protocol.Nonce{1}}, protocol.CodeUnauthorized, false},
		"no nonce":               {&protocol.PairProof{}, protocol.CodeUnexpected, false},
		"a secret after all":     {&protocol.PairHello{}, protocol.CodeUnexpected, false},
		"gone before the reveal": {nil, protocol.CodeLost, false},
	} {
		a, b := protocoltest.Pipe()
		ca, cb := protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
		done := make(chan error, 1)
		go func() {
			_, err := protocol.ServePair(t.Context(), cb, [32]byte{}, nil, func(context.Context, protocol.Joiner, protocol.Digits) (protocol.Welcome, error) {
				t.Errorf("%s: shown to a person", name)
				return protocol.Welcome{}, protocol.CodeNotApproved
			})
			cb.End(err)
			done <- err
		}()
		send(t, ca, &protocol.PairRequest{Commitment: protocol.Commitment{7}})
		recv[*protocol.PairChallenge](t, ca)
		if c.reveal != nil {
			send(t, ca, c.reveal)
		} else if err := ca.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; protocol.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, b := protocoltest.Pipe()
	ca, cb := protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
	asked := make(chan error, 1)
	go func() {
		_, err := protocol.Ask(ca, protocol.Joiner{}, func(protocol.Digits) {})
		asked <- err
	}()
	_, err := protocol.ServePair(t.Context(), cb, [32]byte{}, nil, func(ctx context.Context, _ protocol.Joiner, _ protocol.Digits) (protocol.Welcome, error) {
		ca.Reset(protocol.CodeShutdown)
		<-ctx.Done()
		return protocol.Welcome{}, ctx.Err()
	})
	if err == nil || <-asked == nil {
		t.Error("a request whose joiner went away was approved")
	}
}
