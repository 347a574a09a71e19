package integration

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"peerdex/api"
	"peerdex/backfill"
	"peerdex/eventlog"
	"peerdex/protocol"
)

// A member asks for 20,000 entries on as many streams as it may open and reads none of them, as a process does that
// was stopped. The sender has reserved what it takes to serve them and no more, and sends no further than the windows
// of the streams; others get everything meanwhile; and after a while the streams are given up, with an event, and
// nothing is reserved any more.
func TestReceiverThatDoesNotRead(t *testing.T) {
	t.Parallel()
	const (
		streams = 4         // a device may open
		window  = 256 << 10 // bytes of each that are on their way unread
	)
	dir := tempDir(t)
	fill(t, dir, 20_000)
	a := newPeer(t, "alpha", "--listen", "/ip4/127.0.0.1/tcp/0")
	first := a.start("", dir)
	line := a.invite("--uses", "2")
	same(t, 20_000+200, a.client)
	r := joined(t, first, line)
	session, err := r.greet(r.hello())
	if err != nil {
		t.Fatal(err)
	}
	head := r.headOf(session)
	var all []*protocol.Conn
	for range streams {
		c, err := protocol.Dial(t.Context(), r.host, r.target, protocol.BackfillProtocol, protocol.ConnConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Reset(protocol.CodeShutdown)
		all = append(all, c)
		if err := errors.Join(c.Send(&protocol.Open{Session: protocol.NewSessionID(), Feed: head.Feed}), c.Send(&protocol.Delta{}), c.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	reserved := func() int64 { return a.metrics().Performance.Memory["serve"].Bytes }
	eventually(t, "memory for each stream is reserved", func() string {
		if got := reserved(); got != streams*backfill.ServeMemory {
			return fmt.Sprint(got)
		}
		return ""
	})

	b := newPeer(t, "beta")
	b.join(line)
	same(t, 20_000+200, a.client, b.client)
	write(t, filepath.Join(dir, "one more"), "x")
	same(t, 20_000+201, a.client, b.client)
	eventually(t, "what others took is given back", func() string {
		if got := reserved(); got != streams*backfill.ServeMemory {
			return fmt.Sprint(got)
		}
		return ""
	})

	var stalled []eventlog.Event
	eventually(t, "the streams are given up", func() string {
		stalled = a.events(api.EventQuery{Peer: protocol.PeerID(r.device).String(), Types: []string{"peer_stalled"}})
		if got := reserved(); got != 0 || len(stalled) == 0 {
			return fmt.Sprintf("%d bytes reserved, events %v", got, stalled)
		}
		return ""
	})
	if d := detail[eventlog.PeerStalled](t, stalled[0]); d.Sending != "page" {
		t.Errorf("told as %+v", d)
	}
	d := a.of(r.device.Short())
	if d.SentBytes > streams*window+64<<10 { // the session and the joining besides
		t.Errorf("%d bytes were sent to a device that reads nothing", d.SentBytes)
	}
	if d.Errors.By["network"] != streams || d.Errors.Total != streams {
		t.Errorf("errors %v", d.Errors.By)
	}
	for _, c := range all {
		for err = nil; err == nil; {
			_, err = c.Recv()
		}
		if !errors.Is(err, protocol.CodeTimeout) {
			t.Errorf("a stream ended with %v", err)
		}
	}
	inStep(t, a, b)
	wantEqualOnDisk(t, a, b)
}
