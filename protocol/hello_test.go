package protocol_test

import (
	"crypto/sha256"
	"errors"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
)

func hello(name string, comp ...protocol.Compression) protocol.Hello {
	return protocol.Hello{
		MinVersion: 1, MaxVersion: 2, Name: name, OS: "linux", AppVersion: "0.1.0", Boot: 7,
		Capabilities: []string{"a", "b", name}, Certs: [][]byte{[]byte("cert of " + name)}, Compression: comp,
	}
}

// greet runs both sides of a greeting over a stream that is left open, and returns what they got.
func greet(t *testing.T, ours, theirs protocol.Hello, skew time.Duration) (gi, ga protocol.Greeting, ci, ca *protocol.Conn, ei, ea error) {
	t.Helper()
	a, b := protocoltest.Pipe()
	ci, ca = protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
	var both sync.WaitGroup
	both.Go(func() {
		gi, ei = protocol.Greet(ci, ours, time.Now)
		if ei != nil {
			ci.End(ei)
		}
	})
	both.Go(func() {
		ga, ea = protocol.Answer(ca, theirs, func() time.Time { return time.Now().Add(skew) })
		if ea != nil {
			ca.End(ea)
		}
	})
	both.Wait()
	return
}

func TestGreeting(t *testing.T) {
	ours, theirs := hello("laptop", protocol.S2, protocol.Zstd), hello("nas", protocol.Zstd, protocol.S2)
	ours.Session, ours.MaxVersion = protocol.NewSessionID(), 3
	gi, ga, ci, ca, ei, ea := greet(t, ours, theirs, time.Hour)
	if ei != nil || ea != nil {
		t.Fatal(ei, ea)
	}
	answered := theirs
	answered.Session = ours.Session
	if !reflect.DeepEqual(gi.Theirs, answered) || !reflect.DeepEqual(ga.Theirs, ours) {
		t.Errorf("hellos changed on the way: %+v, %+v", gi.Theirs, ga.Theirs)
	}
	want := protocol.Terms{Version: 2, Capabilities: []string{"a", "b"}, Compression: protocol.S2}
	if !reflect.DeepEqual(gi.Terms, want) || !reflect.DeepEqual(ga.Terms, want) {
		t.Errorf("terms %+v and %+v, want %+v", gi.Terms, ga.Terms, want)
	}
	for _, c := range []*protocol.Conn{ci, ca} {
		if c.Session() != ours.Session || c.Compression() != protocol.S2 {
			t.Errorf("conn has session %s, compression %v", c.Session(), c.Compression())
		}
	}
	if off := gi.Clock.Offset - time.Hour; off.Abs() > gi.Clock.Uncertainty {
		t.Errorf("clock %+v, want an hour", gi.Clock)
	}
	// Afterwards either side may ping.
	send(t, ca, &protocol.Ping{T1: 5})
	send(t, ci, recv[*protocol.Ping](t, ci).Pong(time.Unix(0, 6), time.Unix(0, 7)))
	if got := *recv[*protocol.Pong](t, ca); got != (protocol.Pong{T1: 5, T2: 6, T3: 7}) {
		t.Errorf("got %+v", got)
	}
}

func TestClock(t *testing.T) {
	at := func(ms int64) int64 { return ms * 1e6 }
	for _, tc := range []struct {
		t1, t2, t3, t4 int64 // ms
		want           protocol.Clock
	}{
		{1000, 1010, 1012, 1022, protocol.Clock{Offset: 0, RTT: 20e6, Uncertainty: 10e6}},
		{1000, 5010, 5010, 1020, protocol.Clock{Offset: 4e9, RTT: 20e6, Uncertainty: 10e6}},
		{5000, 1010, 1010, 5020, protocol.Clock{Offset: -4e9, RTT: 20e6, Uncertainty: 10e6}},
		{1000, 1000, 1050, 1010, protocol.Clock{Offset: 20e6, RTT: 0}}, // a clock was set meanwhile
	} {
		p := protocol.Pong{T1: at(tc.t1), T2: at(tc.t2), T3: at(tc.t3)}
		if got := p.Clock(time.Unix(0, at(tc.t4))); got != tc.want {
			t.Errorf("%+v: got %+v, want %+v", tc, got, tc.want)
		}
	}
	far := protocol.Pong{T1: 0, T2: 1<<62 - 1, T3: 1<<62 - 1} // hostile, but no overflow
	if got := far.Clock(time.Unix(0, 0)); got.Offset != 1<<62-2 {
		t.Errorf("got %+v", got)
	}
}

// Of several pings the one that was on its way for the shortest time counts.
func TestGreetKeepsTheBestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := protocoltest.Pipe()
		go func() {
			c := protocol.NewConn(b, protocol.ConnConfig{})
			h := recv[*protocol.Hello](t, c)
			ack := hello("nas")
			ack.Session = h.Session
			send(t, c, &protocol.HelloAck{Hello: ack})
			for _, ms := range []time.Duration{50, 4, 30} {
				ping := recv[*protocol.Ping](t, c)
				time.Sleep(ms * time.Millisecond)
				now := time.Now().Add(time.Minute)
				send(t, c, ping.Pong(now, now))
			}
		}()
		ours := hello("laptop")
		ours.Session = protocol.NewSessionID()
		g, err := protocol.Greet(protocol.NewConn(a, protocol.ConnConfig{}), ours, time.Now)
		want := protocol.Clock{Offset: time.Minute + 2*time.Millisecond, RTT: 4 * time.Millisecond, Uncertainty: 2 * time.Millisecond}
		if err != nil || g.Clock != want {
			t.Errorf("got %+v, %v", g.Clock, err)
		}
	})
}

func TestVersionsThatDoNotMeet(t *testing.T) {
	ours, theirs := hello("laptop"), hello("nas")
	ours.Session = protocol.NewSessionID()
	theirs.MinVersion, theirs.MaxVersion = 3, 9
	_, _, _, _, ei, ea := greet(t, ours, theirs, 0)
	i, ok := errors.AsType[*protocol.VersionError](ei)
	if !ok || *i != (protocol.VersionError{OursMin: 1, OursMax: 2, TheirsMin: 3, TheirsMax: 9}) || !errors.Is(ei, protocol.CodeVersion) {
		t.Errorf("initiator: %v", ei)
	}
	r, ok := errors.AsType[*protocol.VersionError](ea)
	if !ok || *r != (protocol.VersionError{OursMin: 3, OursMax: 9, TheirsMin: 1, TheirsMax: 2}) || !errors.Is(ea, protocol.CodeVersion) {
		t.Errorf("responder: %v", ea)
	}
}

func TestOtherLibrary(t *testing.T) {
	ours, theirs := hello("laptop"), hello("nas")
	ours.Session = protocol.NewSessionID()
	theirs.Library[0] = 1
	_, _, _, _, ei, ea := greet(t, ours, theirs, 0)
	if e, ok := errors.AsType[*protocol.Error](ei); !ok || e.Code != protocol.CodeLibrary || !e.Remote {
		t.Errorf("initiator: %v", ei)
	}
	if e, ok := errors.AsType[*protocol.Error](ea); !ok || e.Code != protocol.CodeLibrary || e.Remote {
		t.Errorf("responder: %v", ea)
	}
}

func TestGreetingOutOfTurn(t *testing.T) {
	a, b := protocoltest.Pipe()
	ci, ca := protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
	send(t, ci, &protocol.Ping{T1: 1})
	if _, err := protocol.Answer(ca, hello("nas"), time.Now); !errors.Is(err, protocol.CodeUnexpected) {
		t.Errorf("a ping before the hello: %v", err)
	}
	a, b = protocoltest.Pipe()
	ci, ca = protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
	ack := hello("nas")
	ack.Session = protocol.NewSessionID()
	send(t, ca, &protocol.HelloAck{Hello: ack})
	ours := hello("laptop")
	ours.Session = protocol.NewSessionID()
	if _, err := protocol.Greet(ci, ours, time.Now); !errors.Is(err, protocol.CodeMalformed) {
		t.Errorf("an answer of another session: %v", err)
	}
	a, b = protocoltest.Pipe()
	ci, ca = protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
	if err := ca.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := protocol.Greet(ci, ours, time.Now); !errors.Is(err, protocol.CodeLost) {
		t.Errorf("no answer: %v", err)
	}
}

// invites is an inviter's book as a store would keep it.
type invites struct {
	secret  protocol.Secret
	used    bool
	expired bool
	welcome protocol.Welcome
	calls   int
}

func (b *invites) redeem(id protocol.InviteID, verify func(protocol.Secret) bool, j protocol.Joiner) (protocol.Welcome, error) {
	b.calls++
	switch {
	case id != b.secret.Invite():
		return protocol.Welcome{}, protocol.ErrInviteUnknown
	case !verify(b.secret):
		return protocol.Welcome{}, protocol.ErrInviteSecret
	case b.used:
		return protocol.Welcome{}, protocol.ErrInviteUsed
	case b.expired:
		return protocol.Welcome{}, protocol.ErrInviteExpired
	}
	b.used = true
	return b.welcome, nil
}

func pairOver(t *testing.T, book *invites, secret protocol.Secret) (w protocol.Welcome, j protocol.Joiner, ej, ei error) {
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
		w, ej = protocol.Pair(ca, joiner, secret)
		ca.End(ej)
	})
	both.Go(func() {
		j, ei = protocol.ServePair(t.Context(), cb, inviter, book.redeem, nil)
		cb.End(ei)
	})
	both.Wait()
	if j != joiner {
		t.Errorf("the inviter met %+v", j)
	}
	return
}

func newBook() *invites {
	b := &invites{secret: protocol.NewSecret()}
	b.welcome = protocol.Welcome{RootKey: [32]byte{5}, Certs: [][]byte{[]byte("c")}, Name: "laptop", OS: "darwin", AppVersion: "2"}
	b.welcome.Library = sha256.Sum256(b.welcome.RootKey[:])
	return b
}

func TestPairing(t *testing.T) {
	book := newBook()
	w, _, ej, ei := pairOver(t, book, book.secret)
	if ej != nil || ei != nil || !reflect.DeepEqual(w, book.welcome) {
		t.Fatalf("got %+v, %v, %v", w, ej, ei)
	}
	for _, tc := range []struct {
		name   string
		change func(*invites) protocol.Secret
		here   error
		there  protocol.Code
	}{
		{"used", func(b *invites) protocol.Secret { b.used = true; return b.secret }, protocol.ErrInviteUsed, protocol.CodeInviteUsed},
		{"expired", func(b *invites) protocol.Secret { b.expired = true; return b.secret }, protocol.ErrInviteExpired, protocol.CodeInviteExpired},
		{"unknown", func(b *invites) protocol.Secret { return protocol.NewSecret() }, protocol.ErrInviteUnknown, protocol.CodeInviteInvalid},
	} {
		book := newBook()
		w, _, ej, ei := pairOver(t, book, tc.change(book))
		e, ok := errors.AsType[*protocol.Error](ej)
		if !ok || e.Code != tc.there || !e.Remote || !reflect.DeepEqual(w, protocol.Welcome{}) {
			t.Errorf("%s: joiner got %+v, %v", tc.name, w, ej)
		}
		if !errors.Is(ei, tc.here) || protocol.CodeOf(ei) != tc.there {
			t.Errorf("%s: inviter got %v", tc.name, ei)
		}
	}
}

// Whoever knows an invite's id but not its secret is answered exactly as one who made both up.
func TestWrongSecretLooksUnknown(t *testing.T) {
	var answers [2][]protocol.Message
	for i := range answers {
		book := newBook()
		a, b := protocoltest.Pipe()
		ca, cb := protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
		served := make(chan error)
		go func() {
			_, err := protocol.ServePair(t.Context(), cb, book.welcomeDevice(), book.redeem, nil)
			cb.End(err)
			served <- err
		}()
		id := protocol.InviteID{1}
		want := protocol.ErrInviteUnknown
		if i == 1 {
			id, want = book.secret.Invite(), protocol.ErrInviteSecret
		}
		send(t, ca, &protocol.PairHello{Invite: id})
		recv[*protocol.PairChallenge](t, ca)
		send(t, ca, &protocol.PairProof{MAC: protocol.MAC{3}})
		for {
			m, err := ca.Recv()
			if err != nil {
				break
			}
			answers[i] = append(answers[i], m)
		}
		ca.End(nil)
		if err := <-served; !errors.Is(err, want) || book.used {
			t.Errorf("inviter got %v, want %v", err, want)
		}
	}
	if len(answers[0]) != 1 || !reflect.DeepEqual(answers[0], answers[1]) {
		t.Errorf("answers differ: %+v and %+v", answers[0], answers[1])
	}
}

func (b *invites) welcomeDevice() (d [32]byte) { return b.welcome.RootKey }

// An impostor that echoes the joiner's MAC, or hands over a library that is not its root key's, gets nobody.
func TestImpostorInviter(t *testing.T) {
	secret := protocol.NewSecret()
	for name, tc := range map[string]struct {
		welcome func(proof *protocol.PairProof) *protocol.PairWelcome
		want    protocol.Code
	}{
		"echo": {func(p *protocol.PairProof) *protocol.PairWelcome {
			return &protocol.PairWelcome{MAC: p.MAC, Library: sha256.Sum256(make([]byte, 32))}
		}, protocol.CodeUnauthorized},
		"guess": {func(*protocol.PairProof) *protocol.PairWelcome { return &protocol.PairWelcome{} }, protocol.CodeUnauthorized},
	} {
		a, b := protocoltest.Pipe()
		ca, cb := protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
		got := make(chan error)
		go func() {
			_, err := protocol.Pair(ca, protocol.Joiner{}, secret)
			got <- err
		}()
		recv[*protocol.PairHello](t, cb)
		send(t, cb, &protocol.PairChallenge{})
		send(t, cb, tc.welcome(recv[*protocol.PairProof](t, cb)))
		if err := <-got; !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	book := newBook()
	book.welcome.Library[0]++
	if _, _, ej, _ := pairOver(t, book, book.secret); !errors.Is(ej, protocol.CodeMalformed) {
		t.Errorf("library of another key: %v", ej)
	}
}
