package protocol

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Versions of the session's rules that this program understands. Only a change that the other side must
// know about raises MaxVersion; see the package documentation.
const (
	MinVersion = 1
	MaxVersion = 1
)

// greetPings is how many pings the initiator sends in a greeting; the one with the shortest way counts.
const greetPings = 3

// VersionError says that two devices understand no common version. It is found in an *Error with
// CodeVersion.
type VersionError struct {
	OursMin, OursMax, TheirsMin, TheirsMax uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("this device speaks versions %d to %d, the other %d to %d", e.OursMin, e.OursMax, e.TheirsMin, e.TheirsMax)
}

// Terms are what a hello and its answer agree on; both sides come to the same.
type Terms struct {
	Version      uint32      // the newest both understand
	Capabilities []string    // that both have, in the initiator's order
	Compression  Compression // the initiator's first choice that the responder understands
}

// Clock is the other device's clock against this one's, by the four timestamps of RFC 5905, section 8.
type Clock struct {
	Offset      time.Duration // theirs less ours
	RTT         time.Duration
	Uncertainty time.Duration // the true offset lies within Offset ± this
}

// Greeting is the result of a hello.
type Greeting struct {
	Theirs Hello
	Terms  Terms
	Clock  Clock // zero on the responder's side: its own pings will tell
}

// Pong answers a ping that came at received, when the answer leaves at sent.
func (p *Ping) Pong(received, sent time.Time) *Pong {
	return &Pong{T1: p.T1, T2: received.UnixNano(), T3: sent.UnixNano()}
}

// Clock evaluates a pong that arrived at the given time.
func (p *Pong) Clock(arrived time.Time) Clock {
	t4 := arrived.UnixNano()
	rtt := max(0, (t4-p.T1)-(p.T3-p.T2)) // a clock that was set meanwhile could make it negative
	return Clock{
		Offset:      time.Duration((p.T2-p.T1)/2 + (p.T3-t4)/2),
		RTT:         time.Duration(rtt),
		Uncertainty: time.Duration((rtt + 1) / 2),
	}
}

// Greet opens a session as its initiator: hello, the answer, pings. ours.Session must be fresh. It
// returns an *Error; its code is CodeVersion (with a *VersionError), CodeLibrary, or what the other side
// refused with. Afterwards c knows the session and compresses as agreed. now is the device's clock.
func Greet(c *Conn, ours Hello, now func() time.Time) (Greeting, error) {
	g, err := greet(c, ours, now)
	if err != nil {
		return g, fmt.Errorf("greet %s: %w", c.Device().Short(), err)
	}
	return g, nil
}

func greet(c *Conn, ours Hello, now func() time.Time) (g Greeting, err error) {
	c.SetSession(ours.Session)
	if err := ask(c, &ours); err != nil {
		return g, err
	}
	ack, err := expect[*HelloAck](c)
	if err != nil {
		return g, err
	}
	g.Theirs = ack.Hello
	if g.Theirs.Session != ours.Session {
		return g, malformed("answer to session %s in session %s", g.Theirs.Session, ours.Session)
	}
	if err := compatible(ours, g.Theirs); err != nil {
		return g, err
	}
	g.Terms = agree(ours, g.Theirs)
	c.SetCompression(g.Terms.Compression)
	for i := range greetPings {
		if err := ask(c, &Ping{T1: now().UnixNano()}); err != nil {
			return g, err
		}
		pong, err := expect[*Pong](c)
		if err != nil {
			return g, err
		}
		if clock := pong.Clock(now()); i == 0 || clock.RTT < g.Clock.RTT {
			g.Clock = clock
		}
	}
	return g, nil
}

// Answer opens a session as its responder: it waits for the hello, answers it with ours (whose Session is
// set) and answers the initiator's pings. Its errors are those of Greet.
func Answer(c *Conn, ours Hello, now func() time.Time) (Greeting, error) {
	g, err := answer(c, ours, now)
	if err != nil {
		return g, fmt.Errorf("answer %s: %w", c.Device().Short(), err)
	}
	return g, nil
}

func answer(c *Conn, ours Hello, now func() time.Time) (g Greeting, err error) {
	hello, err := expect[*Hello](c)
	if err != nil {
		return g, err
	}
	g.Theirs = *hello
	ours.Session = hello.Session
	c.SetSession(hello.Session)
	if err := compatible(ours, g.Theirs); err != nil {
		if errors.Is(err, CodeVersion) {
			c.refuse(&HelloAck{ours}) // so that they see both windows
		} else {
			c.refuse(&Refused{CodeOf(err)})
		}
		return g, err
	}
	g.Terms = agree(g.Theirs, ours)
	if err := ask(c, &HelloAck{ours}); err != nil {
		return g, err
	}
	c.SetCompression(g.Terms.Compression)
	for range greetPings {
		ping, err := expect[*Ping](c)
		if err != nil {
			return g, err
		}
		if err := ask(c, ping.Pong(now(), now())); err != nil {
			return g, err
		}
	}
	return g, nil
}

func compatible(ours, theirs Hello) error {
	if theirs.MinVersion > ours.MaxVersion || ours.MinVersion > theirs.MaxVersion {
		e := &VersionError{ours.MinVersion, ours.MaxVersion, theirs.MinVersion, theirs.MaxVersion}
		return &Error{Code: CodeVersion, Detail: e.Error(), cause: e}
	}
	if ours.Library != theirs.Library {
		return faultf(CodeLibrary, "%x, this device's is %x", theirs.Library[:4], ours.Library[:4])
	}
	return nil
}

// agree assumes compatible hellos.
func agree(initiator, responder Hello) Terms {
	t := Terms{Version: min(initiator.MaxVersion, responder.MaxVersion)}
	for _, c := range initiator.Capabilities {
		if slices.Contains(responder.Capabilities, c) {
			t.Capabilities = append(t.Capabilities, c)
		}
	}
	for _, c := range initiator.Compression {
		if c <= S2 && slices.Contains(responder.Compression, c) {
			t.Compression = c
			break
		}
	}
	return t
}

// ask sends and flushes.
func ask(c *Conn, m Message) error {
	if err := c.Send(m); err != nil {
		return err
	}
	return c.Flush()
}

// expect receives a message of one type; a Refused becomes the error it stands for, and so do a Bye and
// the end of the stream.
func expect[M Message](c *Conn) (M, error) {
	var none M
	m, err := c.Recv()
	if err == io.EOF {
		return none, faultf(CodeLost, "closed before an answer came")
	}
	if err != nil {
		return none, err
	}
	switch m := m.(type) {
	case M:
		return m, nil
	case *Refused:
		return none, &Error{Code: m.Code, Remote: true}
	case *Bye:
		return none, &Error{Code: m.Reason, Remote: true}
	}
	return none, Unexpected(m)
}
