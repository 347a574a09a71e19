package node

import (
	"errors"
	"slices"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// bulkQueue is how many announcements may wait for one session; more are left to the heads.
const bulkQueue = 8

// passFrom notes where an own location stood when a pass began.
func (n *Node) passFrom(id record.LocationID) {
	st, _ := n.store.State(feed.ID{Device: n.self, Location: id})
	n.mu.Lock()
	n.passes[id] = heldSeq(st)
	n.mu.Unlock()
}

// announceBulk tells the devices that are connected of a pass that added more than is fetched without a word.
// It reads what was added, and blocks for as long: about a second for a million.
func (n *Node) announceBulk(id record.LocationID, now time.Time) error {
	n.mu.Lock()
	from := n.passes[id]
	n.mu.Unlock()
	v, err := n.store.Serve(feed.ID{Device: n.self, Location: id})
	if err != nil {
		return err
	}
	defer v.Close()
	m := &protocol.BulkIndexComplete{Head: *v.State.Settled, Time: now.UnixNano()}
	err = v.After(from, func(e feed.Entry) error {
		if !record.IsTombstone(e.Record) {
			m.Entries++
			m.Bytes += uint64(protocol.EntrySize(e))
		}
		return nil
	})
	if err != nil || m.Entries <= n.cfg.Thresholds.Bulk {
		return err
	}
	told := 0
	n.mu.Lock()
	for _, p := range n.peers {
		if s := p.session; s != nil && s.bulkier() {
			select {
			case s.bulk <- m:
				told++
			default:
			}
		}
	}
	n.mu.Unlock()
	n.events.Add(eventlog.BulkIndexAnnounced{
		Folder: n.folder(id), EntryCount: int64(m.Entries), Bytes: int64(m.Bytes), HeadSeq: m.Head.Seq, Told: int64(told),
	})
	return nil
}

// bulkier reports whether the peer takes announcements, and heads of feeds that are declined.
func (s *session) bulkier() bool {
	return slices.Contains(s.terms.Capabilities, protocol.CapabilityBulk)
}

// hearBulk takes the announcement of a peer that one of its locations has gained much.
func (n *Node) hearBulk(s *session, m *protocol.BulkIndexComplete) error {
	id := m.Head.Feed
	if id.Device != s.peer {
		return &protocol.Error{Code: protocol.CodeUnauthorized, Detail: "a bulk index of another device's location"}
	}
	if !n.accepts(id) { // the heads will tell, once it is known here
		return nil
	}
	if err := n.store.Check(m.Head); err != nil {
		return &protocol.Error{Code: protocol.CodeMismatch, Detail: err.Error()}
	}
	if err := n.noteHead(s.peer, m.Head); err != nil {
		return err
	}
	st, _ := n.store.State(id)
	if m.Head.Compare(st.Best) > 0 { // not noted, for lack of room
		st.Best = m.Head
	}
	n.mu.Lock()
	decision, why, lacks := n.decideOn(st, time.Now())
	n.mu.Unlock()
	n.metrics.BulkDecided(decision)
	n.events.Add(eventlog.BulkIndexDecided{
		Folder: eventlog.Folder{Location: id.String(), Name: n.locationName(id)}, EntryCount: int64(m.Entries), Bytes: int64(m.Bytes), HeadSeq: m.Head.Seq,
		Lacks: int64(lacks), Decision: decision, Why: why,
	}, eventlog.Session(s.id), eventlog.Peer(idText(s.peer)))
	n.wake()
	return nil
}

// noteHead takes a head that a member has shown, signature checked.
func (n *Node) noteHead(from record.DeviceID, h feed.Head) error {
	for {
		admitted, err := n.membership(from)
		if err != nil {
			return err
		}
		seen, err := n.store.Observe([]feed.Head{h}, admitted)
		switch {
		case errors.Is(err, store.ErrGeneration): // it is asked again whether the peer belongs
			continue
		case errors.Is(err, store.ErrNoSpace): // the head will be told again
			return nil
		}
		for _, o := range seen {
			if o.Forks {
				n.noteFork(from, o.Head)
			}
		}
		return err
	}
}
