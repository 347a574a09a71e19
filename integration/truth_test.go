package integration

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerdex/api"
	"peerdex/metrics"
	"peerdex/node"
)

// wantBalanced fails unless the numbers of a device add up: every change received has one outcome or is
// buffered, time in state is the time it has been up, transitions are the events of them.
func wantBalanced(t *testing.T, p *peer) {
	t.Helper()
	m := p.metrics()
	balanced := func(name string, received, processed metrics.Counts, buffered int64) {
		sum := uint64(0)
		for _, outcome := range []string{"applied", "duplicate", "superseded", "rejected", "dropped"} {
			sum += processed.By[outcome]
		}
		if sum != processed.Total || received.Total != sum+uint64(buffered) {
			t.Errorf("%s, %s: received %v, processed %v, buffered %d", p.name, name, received, processed, buffered)
		}
	}
	o := m.Operations
	balanced("all", *o.Received, *o.Processed, *o.Buffered)
	var received, sent uint64
	for _, d := range m.Devices {
		balanced(d.ID, d.Received, d.Processed, d.Buffered)
		received, sent = received+d.ReceivedBytes, sent+d.SentBytes
	}
	if received != *m.Volume.ReceivedBytes || sent != *m.Volume.SentBytes {
		t.Errorf("%s: bytes of the devices do not add up", p.name)
	}
	var in time.Duration
	for _, d := range m.State.TimeIn {
		in += d.Duration()
	}
	if in != m.State.Uptime.Duration() {
		t.Errorf("%s: %v in states, up for %v", p.name, in, m.State.Uptime.Duration())
	}
	moves := uint64(0)
	for _, x := range m.State.Moves {
		moves += x.Count
	}
	if moves != m.State.Transitions {
		t.Errorf("%s: %d transitions, %d moves", p.name, m.State.Transitions, moves)
	}
	var transitions int
	eventually(t, "transitions are in the log", func() string {
		started := p.status().Started
		transitions = len(p.events(api.EventQuery{Types: []string{"state_transition"}, Since: started.Add(-time.Second)}))
		if uint64(transitions) < moves {
			return fmt.Sprint(transitions)
		}
		return ""
	})
}

// M1, M2, M5, E7: a run without faults: nothing is counted as an error, nothing failed, what one sent the
// other received, and one session id returns the session from both devices.
func TestTruthOfAFaultlessRun(t *testing.T) {
	t.Parallel()
	dir, aside := tempDir(t), tempDir(t)
	fill(t, dir, 1500)
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	line := a.start("", dir).Invite.Line
	if m := a.metrics(); m.State.Current != node.StateReady || m.Operations.Received.Total != 0 {
		t.Errorf("alone: %s, received %v", m.State.Current, m.Operations.Received) // M1
	}
	b.join(line)
	inStep(t, a, b)
	for i := range 25 {
		// one change: not of a file that grows, nor of one whose size is another's, which would be hashed
		write(t, filepath.Join(aside, "x"), strings.Repeat("x", 1000+i))
		if err := os.Rename(filepath.Join(aside, "x"), filepath.Join(dir, fmt.Sprintf("live %d", i))); err != nil {
			t.Fatal(err)
		}
		same(t, 1515+i+1, a.client, b.client)
	}
	inStep(t, a, b)
	eventually(t, "what was sent is acknowledged", func() string {
		m := a.metrics()
		if m.Operations.Broadcasts.Total != m.Performance.Broadcast.Count {
			return fmt.Sprintf("%d sent, %d acknowledged", m.Operations.Broadcasts.Total, m.Performance.Broadcast.Count)
		}
		return ""
	})
	for _, p := range []*peer{a, b} {
		m := p.metrics()
		if m.Errors.Counts.Total != 0 || m.Operations.FailedBroadcasts.Total != 0 {
			t.Errorf("%s: errors %v %v, failed broadcasts %v", p.name, m.Errors.Counts.By, m.Errors.Recent, m.Operations.FailedBroadcasts.By)
		}
		if bad := p.events(api.EventQuery{MinSeverity: "warning"}); len(bad) != 0 {
			t.Errorf("%s: %s %s", p.name, bad[0].Type, bad[0].Summary)
		}
		wantBalanced(t, p)
	}
	if n := a.metrics().Operations.Broadcasts.By["state"]; n != 25 {
		t.Errorf("%d pushes of 25 changes", n)
	}
	if done := b.metrics().Operations.Processed; done.Total != done.By["applied"] {
		t.Errorf("not every change came once: %v", done.By)
	}
	// the sessions: each of beta's backfills is in alpha's log under the same id
	for _, kind := range []string{"backfill_session_completed", "peer_connected"} {
		events := b.events(api.EventQuery{Types: []string{kind}})
		if len(events) == 0 {
			t.Errorf("no %s", kind)
		}
		for _, e := range events {
			eventually(t, "the session is in both logs", func() string {
				if len(a.events(api.EventQuery{Correlation: e.CorrelationID.String()})) == 0 {
					return e.CorrelationID.String()
				}
				return ""
			})
		}
	}
}

// Bytes are counted where they leave: what a first sync is said to have cost is what went through the
// socket, but for at most 2% that encryption and the handshake add.
func TestTruthOfBytes(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	for range 6000 { // names that do not compress
		var name [40]byte
		rand.Read(name[:])
		write(t, filepath.Join(dir, hex.EncodeToString(name[:])), "")
	}
	tcp := []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--pubsub", "off"}
	a, b := newPeer(t, "alpha", tcp...), newPeer(t, "beta", tcp...)
	first := a.start("", dir)
	x := newProxy(t, a)
	b.join(x.line(first.Invite.Line))
	inStep(t, a, b)
	sent, carried := float64(*a.metrics().Volume.SentBytes), float64(x.carried())
	if over := (carried - sent) / carried; carried < 300_000 || over < 0 || over > 0.02 {
		t.Errorf("alpha says it sent %.0f bytes, %.0f went by: %.1f%% more", sent, carried, 100*over)
	}
	got := float64(*b.metrics().Volume.ReceivedBytes)
	if over := (carried - got) / carried; over < 0 || over > 0.02 {
		t.Errorf("beta says it received %.0f bytes, %.0f went by: %.1f%% more", got, carried, 100*over)
	}
}
