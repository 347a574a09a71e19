package node

import (
	"errors"
	"strconv"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/kv"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// pushNotes makes metrics and events of what is pushed, both ways.
type pushNotes struct{ *Node }

func feedPlace(id feed.ID, seq uint64) string { return id.String() + "@" + strconv.FormatUint(seq, 10) }

// broadcastKind is shared for a feed of registers and state for one of this device's own files.
func broadcastKind(id feed.ID) string {
	if id.IsDevice() {
		return "shared"
	}
	return "state"
}

func (n pushNotes) Pushed(to record.DeviceID, session protocol.SessionID, id feed.ID, entries []feed.Entry) {
	n.metrics.BroadcastSent(broadcastKind(id), len(entries))
	n.metrics.StrategySelected("push")
	n.events.AddBatch(eventlog.Tally{
		Type: eventlog.BatchBroadcast{}.Type(), Peer: idText(to), Session: eventlog.ID(session), Reason: broadcastKind(id),
		Models: modelsOf(id, entries),
	})
}

func modelsOf(id feed.ID, entries []feed.Entry) map[string]int {
	out := map[string]int{}
	for _, e := range entries {
		if rec, err := record.Decode(e.Key, e.Record); err == nil {
			out[rec.Model()]++
		} else {
			out["other"]++
		}
	}
	return out
}

func (n pushNotes) Acked(to record.DeviceID, session protocol.SessionID, id feed.ID, entries int, outcome protocol.Outcome, d time.Duration) {
	switch outcome {
	case protocol.Mismatch, protocol.Rejected:
		n.metrics.BroadcastFailed(to.Short(), outcome.String())
	default: // delivered and answered; what it could not take at once it pulls
		n.metrics.BroadcastAcked(d)
	}
	n.events.AddBatch(eventlog.Tally{
		Type: eventlog.BroadcastAcked{}.Type(), Peer: idText(to), Session: eventlog.ID(session), Reason: broadcastKind(id),
		Outcomes: map[string]int{outcome.String(): entries}, Took: d,
	})
}

func (n pushNotes) PushFailed(to record.DeviceID, session protocol.SessionID, id feed.ID, entries int, err error) {
	reason := protocol.CodeOf(err).Label()
	if errors.Is(err, protocol.CodeLost) || errors.Is(err, protocol.CodeShutdown) {
		reason = "reset"
	}
	n.metrics.BroadcastFailed(to.Short(), reason)
	n.blame(to, err)
}

func (n pushNotes) PushReceived(from record.DeviceID, id feed.ID, entries int) {
	n.metrics.ChangesReceived(from.Short(), "live", entries)
}

func (n pushNotes) PushCommitting(tx kv.Tx, from record.DeviceID, b *protocol.StateBatch, res *store.Result) error {
	return n.committing(tx, b.Next.Feed, res, []eventlog.Option{eventlog.Session(b.Session), eventlog.Peer(idText(from))})
}

func (n pushNotes) PushDone(from record.DeviceID, b *protocol.StateBatch, outcome protocol.Outcome, res store.Result, d time.Duration) {
	id, now, who := b.Next.Feed, time.Now(), from.Short()
	switch outcome {
	case protocol.Applied:
		n.processed(from, id, res, "live", d, now, eventlog.ID(b.Session))
		n.propagated("live", b.Next.Stamp, id.Device, now)
		n.noteConverged(id, b.Next)
		n.metrics.LastSync(who, now)
	case protocol.Known:
		n.metrics.ChangesProcessed(who, "duplicate", len(b.Entries))
	case protocol.Mismatch: // the event tells why the stream ended
		n.metrics.ChangesProcessed(who, "rejected", len(b.Entries))
		n.metrics.ChangesRejected("signature", len(b.Entries))
	case protocol.Rejected:
		n.metrics.ChangesProcessed(who, "rejected", len(b.Entries))
		n.metrics.ChangesRejected("unauthorized", len(b.Entries))
		n.events.Add(eventlog.ChangeRejected{
			Feed: id.String(), Reason: "unauthorized", Count: int64(len(b.Entries)), By: n.self.Short(),
			Message: "a feed that this device does not follow, or its own",
		}, eventlog.Session(b.Session), eventlog.Peer(idText(from)))
	default:
		n.metrics.ChangesProcessed(who, "dropped", len(b.Entries))
	}
	if outcome != protocol.Rejected && outcome != protocol.Mismatch { // whoever pushes a head of its own is settled there
		n.mu.Lock()
		if p := n.peers[from]; p != nil && p.session != nil && id.Device == from && n.follow[id] {
			p.heads[id] = protocol.HeadInfo{Settled: &b.Next, Best: b.Next}
		}
		n.mu.Unlock()
	}
}

// Look says that a feed is to be pulled.
func (n pushNotes) Look(id feed.ID) { n.hasten(id) }
