package statebatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// SenderNotes is told what a sender does.
type SenderNotes interface {
	Pushed(to record.DeviceID, session protocol.SessionID, id feed.ID, entries []feed.Entry) // handed to the network
	Acked(to record.DeviceID, session protocol.SessionID, id feed.ID, entries int, outcome protocol.Outcome, d time.Duration)
	PushFailed(to record.DeviceID, session protocol.SessionID, id feed.ID, entries int, err error)
}

// SenderConfig is what a Sender needs; all of it is required, but for Reserve.
type SenderConfig struct {
	Store   *store.Store
	Peer    record.DeviceID
	Session protocol.SessionID
	Open    func(context.Context) (*protocol.Conn, error) // a new statebatch stream to the peer
	Near    uint64                                        // seqs that the peer may lack, by its own word, and still be pushed to; at most Limit
	Notes   SenderNotes
	Now     func() time.Time
	// Reserve takes memory for a push on its way, until release is called. Its error ends Run, as one of the stream
	// does; nil: there is always memory.
	Reserve func(bytes int) (release func(), err error)
}

// pushMemory is how many bytes a push takes: its entries, the same encoded, and that compressed.
func pushMemory(b *protocol.StateBatch) (bytes int) {
	for _, e := range b.Entries {
		bytes += 3 * protocol.EntrySize(e)
	}
	return bytes
}

// Sender pushes this device's own feeds to one peer.
type Sender struct {
	SenderConfig

	mu    sync.Mutex // guards held
	held  map[feed.ID]feed.Head
	moved chan struct{} // capacity 1: held changed
}

// NewSender returns a sender that knows nothing yet of what its peer holds.
func NewSender(cfg SenderConfig) *Sender {
	return &Sender{SenderConfig: cfg, held: map[feed.ID]feed.Head{}, moved: make(chan struct{}, 1)}
}

// Holds notes where the peer says it is settled on one of this device's feeds: genesis if nowhere. A peer
// that is far behind knows that by this device's heads and pulls: a push would bring it all a second time.
func (s *Sender) Holds(h feed.Head) {
	st, _ := s.Store.State(h.Feed)
	s.mu.Lock()
	if st.Settled != nil && st.Settled.Seq > h.Seq+s.Near {
		delete(s.held, h.Feed)
	} else {
		s.held[h.Feed] = h
	}
	s.mu.Unlock()
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// Declines notes that the peer takes no entries of one of this device's feeds at present: nothing is pushed
// until Holds says where it is.
func (s *Sender) Declines(id feed.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, id)
}

// Held returns where the peer is settled on a feed, as far as is known here.
func (s *Sender) Held(id feed.ID) (feed.Head, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.held[id]
	return h, ok
}

// Run pushes until ctx ends or the peer fails. Nothing waits in memory: the feed is the queue.
func (s *Sender) Run(ctx context.Context) error {
	wake, cancel := s.Store.Watch() // before the first look, so that no commit falls in between
	defer cancel()
	var conn *protocol.Conn
	defer func() {
		if conn != nil {
			conn.Reset(protocol.CodeShutdown)
		}
	}()
	for {
		for _, st := range s.Store.States() {
			if st.Feed.Device != s.Store.Device() {
				continue
			}
			held, ok := s.Held(st.Feed)
			if !ok || !plan(held, st) {
				continue
			}
			if conn == nil {
				var err error
				if conn, err = s.Open(ctx); err != nil {
					return fmt.Errorf("open push stream: %w", err)
				}
			}
			if err := s.Push(conn, st.Feed, held); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
		select {
		case <-wake:
		case <-s.moved:
		case <-ctx.Done():
			return nil
		}
	}
}

// Push sends what follows held in one batch and waits for the answer. It blocks.
func (s *Sender) Push(conn *protocol.Conn, id feed.ID, held feed.Head) error {
	batch, ok, err := s.batch(id, held)
	if err != nil || !ok {
		return err
	}
	if s.Reserve != nil {
		release, err := s.Reserve(pushMemory(batch))
		if err != nil {
			return err
		}
		defer release()
	}
	start := s.Now()
	s.Notes.Pushed(s.Peer, s.Session, id, batch.Entries)
	ack, err := exchange(conn, batch)
	s.answered(id, held, ack)
	if err != nil {
		s.Notes.PushFailed(s.Peer, s.Session, id, len(batch.Entries), err)
		return fmt.Errorf("push feed %v: %w", id, err)
	}
	s.Notes.Acked(s.Peer, s.Session, id, len(batch.Entries), ack.Outcome, s.Now().Sub(start))
	return nil
}

// answered notes where the peer is after a push from held: where it says, or unknown until it shows it.
// What it has shown while the push was under way stays.
func (s *Sender) answered(id feed.ID, held feed.Head, ack *protocol.Ack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ack != nil && (ack.Outcome == protocol.Applied || ack.Outcome == protocol.Known && ack.Head.Seq > 0):
		s.held[id] = ack.Head
	case s.held[id] == held:
		delete(s.held, id)
	}
}

// batch reads what a peer settled at held lacks, from one durable moment of the feed.
func (s *Sender) batch(id feed.ID, held feed.Head) (*protocol.StateBatch, bool, error) {
	v, err := s.Store.Serve(id)
	if errors.Is(err, store.ErrUnsettled) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer v.Close()
	if !plan(held, v.State) {
		return nil, false, nil
	}
	b := &protocol.StateBatch{Session: s.Session, Prev: held, Next: *v.State.Settled}
	if held.IsGenesis() {
		b.Prev = feed.Head{}
	}
	size, fits := 0, true
	err = v.After(held.Seq, func(e feed.Entry) error {
		size += protocol.EntrySize(e)
		if size > protocol.MaxPage || len(b.Entries) == Limit {
			fits = false
			return kv.Stop
		}
		b.Entries = append(b.Entries, e)
		return nil
	})
	return b, fits, err
}

func exchange(conn *protocol.Conn, b *protocol.StateBatch) (*protocol.Ack, error) {
	if err := conn.Send(b); err != nil {
		return nil, err
	}
	if err := conn.Flush(); err != nil {
		return nil, err
	}
	m, err := conn.Recv()
	if err != nil {
		return nil, err
	}
	ack, ok := m.(*protocol.Ack)
	if !ok || ack.Feed != b.Next.Feed {
		return nil, protocol.Unexpected(m)
	}
	return ack, nil
}
