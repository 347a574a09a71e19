package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/metrics"
	"peerdex/protocol"
)

const stateBatch = 16 // its message number

// A member sends what is no message of the protocol, or one beyond its limits. Each time the stream is
// reset with the code that says so, the peer is counted, one event is written, and nothing is applied.
func TestHostileFrames(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	odd(t, dir)
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	first := a.start("", dir)
	b.join(first.Invite.Line)
	before := inStep(t, a, b)
	line := a.invite("--uses", "30")

	good := func(r *rogue) *protocol.StateBatch {
		entries := r.entries(3)
		return &protocol.StateBatch{Session: protocol.NewSessionID(), Entries: entries, Next: r.head(entries)}
	}
	batch := func(change func(*protocol.StateBatch)) func(*rogue) []byte {
		return func(r *rogue) []byte {
			b := good(r)
			change(b)
			return framed(t, b)
		}
	}
	whole := func(r *rogue) []byte { return framed(t, good(r)) }
	for name, c := range map[string]struct {
		bytes func(*rogue) []byte
		code  protocol.Code
	}{
		"length beyond the limit": {func(*rogue) []byte { return binary.AppendUvarint([]byte{stateBatch, 0}, 2<<20) }, protocol.CodeTooLarge},
		"length of 4 GiB":         {func(*rogue) []byte { return []byte{stateBatch, 0, 0xff, 0xff, 0xff, 0xff, 0x0f} }, protocol.CodeTooLarge},
		"length without an end":   {func(*rogue) []byte { return []byte{stateBatch, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }, protocol.CodeTooLarge},
		"truncated":               {func(r *rogue) []byte { return whole(r)[:100] }, protocol.CodeMalformed},
		"unknown type":            {func(*rogue) []byte { return frame(63, 0, []byte("hello")) }, protocol.CodeUnknownType},
		"out of place":            {func(*rogue) []byte { return framed(t, &protocol.Ping{T1: 1}) }, protocol.CodeUnexpected},
		"checksum": {func(r *rogue) []byte {
			b := whole(r)
			b[len(b)-1] ^= 1
			return b
		}, protocol.CodeChecksum},
		"unknown flags": {func(*rogue) []byte { return frame(stateBatch, 0x80, []byte("x")) }, protocol.CodeMalformed},
		"bomb": {func(*rogue) []byte {
			return frame(stateBatch, 1, append(binary.AppendUvarint(nil, 1<<40), bytes.Repeat([]byte{0}, 600)...))
		}, protocol.CodeTooLarge},
		"bytes after the end": {func(r *rogue) []byte {
			payload, err := protocol.Encode(good(r))
			if err != nil {
				t.Fatal(err)
			}
			return frame(stateBatch, 0, append(payload, 0))
		}, protocol.CodeMalformed},
		"too many entries": {func(r *rogue) []byte {
			payload, err := protocol.Encode(&protocol.StateBatch{Session: protocol.NewSessionID(), Next: r.head(r.entries(1))})
			if err != nil {
				t.Fatal(err)
			}
			return frame(stateBatch, 0, append(payload[:len(payload)-1], binary.AppendUvarint(nil, 100_000)...))
		}, protocol.CodeTooLarge},
		"key beyond the limit": {func(r *rogue) []byte {
			payload, err := protocol.Encode(&protocol.StateBatch{Session: protocol.NewSessionID(), Next: r.head(r.entries(1))})
			if err != nil {
				t.Fatal(err)
			}
			payload = append(payload[:len(payload)-1], 1, 1) // one entry, seq 1
			payload = append(binary.AppendUvarint(payload, 161), bytes.Repeat([]byte("k"), 161)...)
			return frame(stateBatch, 0, append(payload, 1, 'r'))
		}, protocol.CodeTooLarge},
		"head that is not signed":    {batch(func(b *protocol.StateBatch) { b.Next.Sig[0] ^= 1 }), protocol.CodeMismatch},
		"entries that do not add up": {batch(func(b *protocol.StateBatch) { b.Entries = b.Entries[:2] }), protocol.CodeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			r := joined(t, first, line)
			bytes := c.bytes(r)
			if got := r.send(protocol.StateBatchProtocol, bytes, true); got != c.code {
				t.Errorf("the stream ended with %s (%#x), want %s", got.Label(), uint32(got), c.code.Label())
			}
			wantAccused(t, a, r, 1)
		})
	}
	if d := before.diff(inStep(t, a, b)); d != "" {
		t.Errorf("something was applied: %s", d)
	}
	a.stop()
	f := openHome(t, a.home)
	defer f.close(t)
	f.wantWhole(t)
}

// of returns what a device counts of another.
func (p *peer) of(id string) metrics.Device {
	p.t.Helper()
	for _, d := range p.metrics().Devices {
		if d.ID == id {
			return d
		}
	}
	return metrics.Device{}
}

// wantAccused fails unless p counts exactly so many errors of r, has written as many events about it, and
// has applied nothing of it.
func wantAccused(t *testing.T, p *peer, r *rogue, n int) {
	t.Helper()
	eventually(t, "the peer is counted", func() string {
		if got := p.of(r.device.Short()).Errors.Total; got < uint64(n) {
			return fmt.Sprint(got)
		}
		return ""
	})
	var events []eventlog.Event
	eventually(t, "an event is written", func() string {
		if events = p.events(api.EventQuery{Peer: protocol.PeerID(r.device).String(), Types: []string{"change_rejected"}}); len(events) == 0 {
			return "none"
		}
		return ""
	})
	d := p.of(r.device.Short())
	if d.Errors.Total != uint64(n) || len(events) != n {
		t.Errorf("errors: %v; %d events: %v", d.Errors.By, len(events), events)
	}
	if d.Processed.By["applied"] != 0 || d.Received.Total != d.Processed.Total {
		t.Errorf("received %v, processed %v", d.Received.By, d.Processed.By)
	}
}

// A member shows a head and, asked for its entries, sends others.
func TestHostileDonor(t *testing.T) {
	t.Parallel()
	a := newPeer(t, "alpha")
	r := joined(t, a.start(""), a.invite())
	entries := r.entries(3)
	head := r.head(entries)
	forged := r.entries(3)
	forged[1].Record = append(forged[1].Record[:len(forged[1].Record):len(forged[1].Record)], 0)
	ended := make(chan error, 16)
	r.serve(protocol.BackfillProtocol, func(c *protocol.Conn) error {
		err := donate(c, head, forged)
		ended <- err
		return err
	})
	session, err := r.greet(r.hello())
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Send(&protocol.Heads{Full: true, Heads: []protocol.HeadInfo{{Settled: &head, Best: head}}}); err != nil {
		t.Fatal(err)
	}
	if err := session.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, protocol.CodeMismatch) {
		t.Errorf("the pull ended with %v", err)
	}
	for {
		if _, err := session.Recv(); err != nil {
			if !errors.Is(err, protocol.CodeMismatch) {
				t.Errorf("the session ended with %v", err)
			}
			break
		}
	}
	wantAccused(t, a, r, 1)
	a.stop()
	f := openHome(t, a.home)
	defer f.close(t)
	if st, _ := f.State(head.Feed); st.Settled != nil && !st.Settled.IsGenesis() {
		t.Errorf("settled at %s", headText(*st.Settled))
	}
}

// donate answers a pull with entries that are not those of the head, in every way it may ask.
func donate(c *protocol.Conn, head feed.Head, forged []feed.Entry) error {
	for {
		m, err := c.Recv()
		if err != nil {
			return err
		}
		var reply protocol.Message
		switch m := m.(type) {
		case *protocol.Open:
			if m.Feed != head.Feed {
				reply = &protocol.Refused{Code: protocol.CodeUnknownFeed}
				break
			}
			reply = &protocol.Opened{Head: head}
		case *protocol.Delta, *protocol.Fetch:
			reply = &protocol.Page{Entries: forged, Last: true}
		case *protocol.Nodes:
			reply = &protocol.NodesReply{Children: make([][]feed.Hash, len(m.Indexes))}
		case *protocol.Leaves:
			leaf := feed.Leaf{}
			for _, e := range forged {
				leaf = append(leaf, feed.Ref{Seq: e.Seq, Digest: e.Digest()})
			}
			reply = &protocol.LeavesReply{Leaves: [][]byte{feed.DefaultShape.Pack(leaf)}}
		default:
			return protocol.Unexpected(m)
		}
		if err := errors.Join(c.Send(reply), c.Flush()); err != nil {
			return err
		}
	}
}

// A member writes to a feed that is not its own: it is told no, nothing is applied.
func TestHostilePushOfOthersFeed(t *testing.T) {
	t.Parallel()
	a := newPeer(t, "alpha")
	r := joined(t, a.start(""), a.invite())
	entries := r.entries(1)
	head := r.head(entries)
	head.Feed.Device = r.target
	conn, err := protocol.Dial(t.Context(), r.host, r.target, protocol.StateBatchProtocol, protocol.ConnConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Reset(protocol.CodeShutdown)
	if err := errors.Join(conn.Send(&protocol.StateBatch{Session: protocol.NewSessionID(), Entries: entries, Next: head.Sign(r.key)}), conn.Flush()); err != nil {
		t.Fatal(err)
	}
	m, err := conn.Recv()
	if ack, ok := m.(*protocol.Ack); err != nil || !ok || ack.Outcome != protocol.Rejected {
		t.Errorf("answered %+v, %v", m, err)
	}
	eventually(t, "the event of the refusal", func() string { // logged beside the answer
		events := a.events(api.EventQuery{Types: []string{"change_rejected"}})
		if len(events) != 1 || detail[eventlog.ChangeRejected](t, events[0]).Reason != "unauthorized" {
			return fmt.Sprintf("events: %v", events)
		}
		return ""
	})
	if d := a.of(r.device.Short()); d.Processed.By["rejected"] != 1 || d.Processed.By["applied"] != 0 {
		t.Errorf("processed %v", d.Processed.By)
	}
}

// N20: a stranger gets nothing: from a device with no open invite not even a connection, from one with an
// invite no stream but that to pair on, and there nothing without the secret.
func TestN20Stranger(t *testing.T) {
	t.Parallel()
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	open := a.start("")
	closed := b.join(open.Invite.Line)
	inStep(t, a, b)
	r := newRogue(t, closed)
	for _, id := range []protocol.ID{protocol.SessionProtocol, protocol.StateBatchProtocol, protocol.BackfillProtocol, protocol.PairProtocol} {
		if answer, err := r.askFor(id); err == nil {
			t.Errorf("beta answered %s with %x", id, answer)
		}
	}
	r = newRogue(t, open)
	line := a.invite()
	for _, id := range []protocol.ID{protocol.SessionProtocol, protocol.StateBatchProtocol, protocol.BackfillProtocol} {
		if got := r.send(id, framed(t, &protocol.Open{Session: protocol.NewSessionID()}), true); got != protocol.CodeNotMember {
			t.Errorf("alpha ended %s with %s", id, got.Label())
		}
	}
	wrong := line[:len(line)-34] + protocol.NewSecret().Text()
	if err := r.pair(wrong); !errors.Is(err, protocol.CodeInviteInvalid) {
		t.Errorf("a wrong secret: %v", err)
	}
	for _, kind := range []string{"auth_failed", "device_join_refused"} {
		eventually(t, kind, func() string {
			if len(a.events(api.EventQuery{Types: []string{kind}})) == 0 {
				return "no event"
			}
			return ""
		})
	}
	if n := len(a.status().Devices); n != 2 {
		t.Errorf("%d devices are members", n)
	}
}
