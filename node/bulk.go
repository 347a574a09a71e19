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

// hearBulk takes the announcement of a peer that one of its locations has gained much. The device feed that tells of the
// location may still be on its way.
func (n *Node) hearBulk(s *session, m *protocol.BulkIndexComplete) error {
	id := m.Head.Feed
	if id.Device != s.peer {
		return &protocol.Error{Code: protocol.CodeUnauthorized, Detail: "a bulk index of another device's location"}
	}
	if err := n.store.Check(m.Head); err != nil {
		return &protocol.Error{Code: protocol.CodeMismatch, Detail: err.Error()}
	}
	if n.accepts(id) {
		return n.decideBulk(s, m)
	}
	select {
	case s.early <- earlyBulk{m, time.Now()}:
	default:
		n.noteBulk(s, m, DecideIgnore, whyUnknown, lackingOf(feed.State{}, m.Head))
	}
	return nil
}

// decideBulk decides about the entries of a location that is known here.
func (n *Node) decideBulk(s *session, m *protocol.BulkIndexComplete) error {
	if err := n.noteHead(s.peer, m.Head); err != nil {
		return err
	}
	st, _ := n.store.State(m.Head.Feed)
	if m.Head.Compare(st.Best) > 0 { // not noted, for lack of room
		st.Best = m.Head
	}
	n.mu.Lock()
	decision, why, lacks := n.decideOn(st, time.Now())
	n.mu.Unlock()
	n.noteBulk(s, m, decision, why, lacks)
	n.wake()
	return nil
}

func (n *Node) noteBulk(s *session, m *protocol.BulkIndexComplete, decision, why string, lacks uint64) {
	id := m.Head.Feed
	n.metrics.BulkDecided(decision)
	n.events.Add(eventlog.BulkIndexDecided{
		Folder: eventlog.Folder{Location: id.String(), Name: n.locationName(id)}, EntryCount: int64(m.Entries), Bytes: int64(m.Bytes), HeadSeq: m.Head.Seq,
		Lacks: int64(lacks), Decision: decision, Why: why,
	}, eventlog.Session(s.id), eventlog.Peer(idText(s.peer)))
}

// earlyBulk is an announcement that came before the device feed that tells of its location.
type earlyBulk struct {
	*protocol.BulkIndexComplete
	at time.Time
}

// earlyFor is how long an announcement waits for its location to become known.
const earlyFor = time.Minute

// sift parts announcements, the oldest first, into those to decide about, those to ignore and those that wait: the last
// bulkQueue at most.
func sift(early []earlyBulk, known func(feed.ID) bool, now time.Time) (due, over, left []earlyBulk) {
	for _, m := range early {
		switch {
		case known(m.Head.Feed):
			due = append(due, m)
		case now.Sub(m.at) >= earlyFor:
			over = append(over, m)
		default:
			left = append(left, m)
		}
	}
	surplus := max(0, len(left)-bulkQueue)
	return due, append(over, left[:surplus]...), left[surplus:]
}

// decideEarly decides about announcements whose locations have become known, and returns those that wait.
func (n *Node) decideEarly(s *session, early []earlyBulk, now time.Time) ([]earlyBulk, error) {
	due, over, left := sift(early, n.accepts, now)
	for _, m := range over {
		n.noteBulk(s, m.BulkIndexComplete, DecideIgnore, whyUnknown, lackingOf(feed.State{}, m.Head))
	}
	for _, m := range due {
		if err := n.decideBulk(s, m.BulkIndexComplete); err != nil {
			return nil, err
		}
	}
	return left, nil
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
