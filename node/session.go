package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/statebatch"
	"peerdex/store"
)

// Rhythm of a session, in quiet times under 40 messages a minute for both directions together.
const (
	pingEvery   = 10 * time.Second
	deadAfter   = 15 * time.Second       // without a frame: a ping and a half
	headsEvery  = 30 * time.Second       // all heads, whether they changed or not
	headsGather = 200 * time.Millisecond // changed heads, unless a push has told the peer before
)

// session is one conversation with one peer.
type session struct {
	id        protocol.SessionID
	peer      record.DeviceID
	initiator record.DeviceID
	boot      uint64 // nonce of the peer's process
	conn      *protocol.Conn
	clock     protocol.Clock
	terms     protocol.Terms
	started   time.Time
	address   string
	sender    *statebatch.Sender
	stopPush  context.CancelFunc               // Node.mu guards it
	bulk      chan *protocol.BulkIndexComplete // to be told
	early     chan earlyBulk                   // heard, of locations that are not known yet
	ping      chan struct{}                    // capacity 1: the peer is to give a sign of life
}

// hello is how this device introduces itself to d, to which it is connected.
func (n *Node) hello(id protocol.SessionID, d record.DeviceID) protocol.Hello {
	prefers := compressions(n.classOf(d))
	n.mu.Lock()
	defer n.mu.Unlock()
	h := protocol.Hello{
		Library: n.lib.id, Session: id, MinVersion: protocol.MinVersion, MaxVersion: protocol.MaxVersion,
		Capabilities: []string{protocol.CapabilityBulk}, Name: n.nameOf(n.self), OS: n.osName(), AppVersion: n.cfg.Version, Boot: n.boot, HLC: n.clock.Last(),
		ActiveSyncs: uint32(len(n.pulls) + len(n.serving)), Compression: prefers,
	}
	for _, c := range n.lib.certs {
		h.Certs = append(h.Certs, c.Append(nil))
	}
	return h
}

// compressions are what this device understands, the preferred first, which the initiator of a session decides:
// on the way through the internet what makes less, elsewhere what takes less time.
func compressions(class string) []protocol.Compression {
	if class == classPublic {
		return []protocol.Compression{protocol.Zstd, protocol.S2}
	}
	return []protocol.Compression{protocol.S2, protocol.Zstd}
}

// answer is the responder's side of a session.
func (n *Node) answer(ctx context.Context, conn *protocol.Conn) error {
	g, err := protocol.Answer(conn, n.hello(protocol.SessionID{}, conn.Device()), n.cfg.Now)
	if err != nil {
		return err
	}
	return n.runSession(ctx, conn, g, conn.Device())
}

// runSession lives a session from the greeting to its end. It blocks.
func (n *Node) runSession(ctx context.Context, conn *protocol.Conn, g protocol.Greeting, initiator record.DeviceID) error {
	now := time.Now()
	s := &session{
		id: conn.Session(), peer: conn.Device(), initiator: initiator, boot: g.Theirs.Boot,
		bulk: make(chan *protocol.BulkIndexComplete, bulkQueue), early: make(chan earlyBulk, bulkQueue), ping: make(chan struct{}, 1), conn: conn, clock: g.Clock, terms: g.Terms, started: now, address: n.remoteAddr(conn.Device()),
	}
	s.sender = statebatch.NewSender(statebatch.SenderConfig{
		Store: n.store, Peer: s.peer, Session: s.id, Near: n.cfg.Thresholds.Push, Notes: pushNotes{n}, Now: time.Now, Reserve: n.reserver(protocol.UseServe),
		Open: func(ctx context.Context) (*protocol.Conn, error) {
			conn, err := protocol.Dial(ctx, n.host, s.peer, protocol.StateBatchProtocol, n.ackConfig(s.peer))
			if err == nil {
				conn.Bind(ctx) // until the sender has ended
			}
			return conn, err
		},
	})
	if err := n.learnCerts(g.Theirs.Certs); err != nil {
		return err
	}
	if err := n.adopt(s, now); err != nil {
		return err
	}
	n.noteConnected(s, g)
	n.wake()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work, workCtx := errgroup.WithContext(ctx)
	work.Go(func() error { return n.listen(s) })
	work.Go(func() error { return n.tell(workCtx, s) })
	work.Go(func() error { return n.push(workCtx, s) })
	work.Go(func() error { // ends the reader when anything else has ended
		<-workCtx.Done()
		if ctx.Err() != nil {
			_ = conn.Send(&protocol.Bye{Reason: protocol.CodeShutdown}) // best effort: the stream ends anyway
			_ = conn.Flush()
		}
		conn.Reset(protocol.CodeShutdown)
		return nil
	})
	err := work.Wait()
	if n.release(s, time.Now()) {
		n.noteDisconnected(s, err)
		n.wake()
	}
	return err
}

// errEnded stops the other parts of a session when the peer has said goodbye.
var errEnded = errors.New("session ended")

// listen receives until the session ends.
func (n *Node) listen(s *session) error {
	for {
		m, err := s.conn.Recv()
		if errors.Is(err, io.EOF) {
			return errEnded
		}
		if err != nil {
			return err
		}
		arrived := time.Now()
		n.metrics.LastSeen(s.peer.Short(), arrived)
		switch m := m.(type) {
		case *protocol.Ping:
			if err := s.say(m.Pong(n.cfg.Now(), n.cfg.Now())); err != nil {
				return err
			}
		case *protocol.Pong:
			n.noteClock(s, m.Clock(n.cfg.Now()), arrived)
		case *protocol.Heads:
			if err := n.hear(s, m); err != nil {
				return err
			}
		case *protocol.BulkIndexComplete:
			if err := n.hearBulk(s, m); err != nil {
				return err
			}
		case *protocol.Bye:
			return errEnded
		default:
			return protocol.Unexpected(m)
		}
		n.mu.Lock()
		if p := n.peers[s.peer]; p != nil {
			p.seen = arrived
		}
		n.mu.Unlock()
	}
}

func (s *session) say(m protocol.Message) error {
	if err := s.conn.Send(m); err != nil {
		return err
	}
	return s.conn.Flush()
}

// ask pings the peer.
func (s *session) ask(now time.Time) error { return s.say(&protocol.Ping{T1: now.UnixNano()}) }

// tell sends heads and pings until the session ends, and decides about announcements that came early.
func (n *Node) tell(ctx context.Context, s *session) error {
	wake, cancel := n.store.Watch() // before the first look
	defer cancel()
	ping, all := time.NewTicker(pingEvery), time.NewTicker(headsEvery)
	defer ping.Stop()
	defer all.Stop()
	var (
		told   = map[feed.ID]protocol.HeadInfo{}
		gather <-chan time.Time
		early  []earlyBulk
		err    error
	)
	if s.initiator != n.self { // whoever dialed has measured in the greeting
		if err := s.ask(n.cfg.Now()); err != nil {
			return err
		}
	}
	for look, full := true, true; ; {
		if look {
			if err := n.tellHeads(s, told, full); err != nil {
				return err
			}
			look, full = false, false
		}
		if early, err = n.decideEarly(s, early, time.Now()); err != nil {
			return err
		}
		select {
		case <-ping.C:
			if err := s.ask(n.cfg.Now()); err != nil {
				return err
			}
		case <-s.ping:
			if err := s.ask(n.cfg.Now()); err != nil {
				return err
			}
		case <-all.C:
			look, full = true, true
		case m := <-s.bulk:
			if err := s.say(m); err != nil {
				return err
			}
		case m := <-s.early:
			early = append(early, m)
		case <-wake:
			if gather == nil {
				gather = time.After(headsGather)
			}
		case <-gather:
			gather, look = nil, true
		case <-ctx.Done():
			return nil
		}
	}
}

// tellHeads sends where this node stands on each feed: all, or what is new since told.
func (n *Node) tellHeads(s *session, told map[feed.ID]protocol.HeadInfo, full bool) error {
	states := n.store.States()
	if err := n.store.Sync(); err != nil { // rule 2: what is told is durable
		return err
	}
	var heads []protocol.HeadInfo
	for _, st := range states {
		if !n.follows(st.Feed) || st.Best.IsGenesis() {
			continue
		}
		info := protocol.HeadInfo{Best: st.Best}
		if st.Settled != nil && !st.Settled.IsGenesis() {
			info.Settled = st.Settled
		}
		info.Declines = s.bulkier() && n.declined(st.Feed)
		if !full && sameInfo(told[st.Feed], info) {
			continue
		}
		if !full && st.Feed.Device == n.self && info.Settled != nil {
			if held, ok := s.sender.Held(st.Feed); ok && held.Same(*info.Settled) {
				told[st.Feed] = info // it came by push
				continue
			}
		}
		told[st.Feed] = info
		heads = append(heads, info)
	}
	for _, m := range inParts(heads, full, n.activeSyncs()) {
		if err := s.conn.Send(m); err != nil {
			return err
		}
	}
	return s.conn.Flush()
}

// inParts makes the messages that tell heads. Only the first of a full account replaces what was told before.
func inParts(heads []protocol.HeadInfo, full bool, active uint32) (out []*protocol.Heads) {
	for part := range slices.Chunk(heads, protocol.MaxHeads) {
		out = append(out, &protocol.Heads{Heads: part, Full: full && out == nil, ActiveSyncs: active})
	}
	if full && out == nil {
		out = append(out, &protocol.Heads{Full: true, ActiveSyncs: active})
	}
	return out
}

// maxPeerHeads is how many heads are kept of one peer: as many feeds as 64 devices with 150 folders each.
const maxPeerHeads = 5 * protocol.MaxHeads

func sameInfo(a, b protocol.HeadInfo) bool {
	if (a.Settled == nil) != (b.Settled == nil) || a.Declines != b.Declines || !a.Best.Same(b.Best) {
		return false
	}
	return a.Settled == nil || a.Settled.Same(*b.Settled)
}

// hear takes a peer's heads: what it has of others' feeds makes it a donor, what it has of this device's
// own tells the sender where to go on, and whether history went backwards (rules 15 and 16).
func (n *Node) hear(s *session, m *protocol.Heads) error {
	now := time.Now()
	shown := map[feed.ID]bool{}
	for _, info := range m.Heads {
		id := info.Best.Feed
		shown[id] = true
		if id.Device != n.self {
			continue
		}
		held := feed.Head{Feed: id}
		if info.Settled != nil {
			held = *info.Settled
		}
		if err := n.hearOwn(s, info); err != nil {
			return err
		}
		if info.Declines {
			s.sender.Declines(id)
		} else {
			s.sender.Holds(held)
		}
	}
	if m.Full && len(m.Heads) < protocol.MaxHeads { // else there may be more to come
		for _, st := range n.store.States() {
			if st.Feed.Device == n.self && !shown[st.Feed] {
				s.sender.Holds(feed.Head{Feed: st.Feed})
			}
		}
	}
	n.mu.Lock()
	p := n.peers[s.peer]
	if p == nil || p.session != s {
		n.mu.Unlock()
		return errSuperseded
	}
	p.activeSyncs = int(m.ActiveSyncs)
	if m.Full {
		p.heads = make(map[feed.ID]protocol.HeadInfo, len(m.Heads))
	}
	dropped := 0
	for _, info := range m.Heads {
		if _, known := p.heads[info.Best.Feed]; !known && len(p.heads) >= maxPeerHeads {
			dropped++
			continue
		}
		p.heads[info.Best.Feed] = info
	}
	first := m.Full && !p.told
	p.told = p.told || m.Full
	n.mu.Unlock()
	n.noteHintsDropped(s, dropped)
	if first {
		n.noteMissing(s, now)
	}
	n.wake()
	return nil
}

// noteMissing records what the peer has and this node lacks, at the beginning of a session.
func (n *Node) noteMissing(s *session, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[s.peer]
	if p == nil || p.session != s {
		return
	}
	want := map[feed.ID]feed.Head{}
	for id, info := range p.heads {
		if id.Device == n.self || info.Settled == nil || n.declines(id, now) {
			continue
		}
		st, _ := n.store.State(id)
		if st.Settled == nil || st.Settled.Compare(*info.Settled) < 0 {
			want[id] = *info.Settled
		}
	}
	p.link.told(want)
}

// hearOwn deals with what a peer shows of one of this device's own feeds.
func (n *Node) hearOwn(s *session, info protocol.HeadInfo) error {
	id := info.Best.Feed
	st, _ := n.store.State(id)
	v := st.DecideOwn(n.boot, info.Settled, info.Best)
	if v.Own == feed.OwnIgnore || n.store.Frozen() {
		return nil
	}
	if err := v.Over.Verify(); err != nil || v.Over.Library != n.store.Library() {
		return &protocol.Error{Code: protocol.CodeMismatch, Detail: fmt.Sprintf("head of own feed %v that this device did not sign", id)}
	}
	switch v.Own {
	case feed.OwnFreeze:
		return n.freeze(s.peer, v.Over)
	case feed.OwnAbsorb:
		n.mu.Lock()
		if p := n.peers[s.peer]; p != nil && p.session == s {
			p.absorb[id] = true
		}
		n.mu.Unlock()
	case feed.OwnJump:
		if !n.follows(id) { // of a location that is no more; the peer will hear of that and drop it
			return nil
		}
		release, ok := n.store.Claim(id)
		if !ok {
			return nil // it is being taken back from another peer: the next heads tell what is left to do
		}
		to, err := n.store.Jump(id, v.Over)
		release()
		switch {
		case errors.Is(err, store.ErrFrozen), errors.Is(err, store.ErrNoSpace):
			return nil // no reason to stop talking; said elsewhere
		case err != nil:
			return err
		}
		n.noteRolledBack(s.peer, s.id, id, 0, v.Over, to)
		if !id.IsDevice() {
			n.reindex(id.Location)
		}
	}
	return nil
}

// push runs the sender while this node and the peer are not paused.
func (n *Node) push(ctx context.Context, s *session) error {
	for {
		running, cancel := context.WithCancel(ctx)
		n.mu.Lock()
		s.stopPush = cancel
		paused := n.pausedFor(s.peer)
		n.mu.Unlock()
		if !paused {
			if err := s.sender.Run(running); err != nil {
				n.log.Debug("push ended", "peer", s.peer.Short(), "err", err)
			}
		}
		cancel()
		if !wait(ctx, pushRetry) { // paused, or the stream broke: the heads still tell the peer
			return nil
		}
	}
}

// pushRetry is how long a push waits after its stream broke, or to look whether a pause is over.
const pushRetry = 500 * time.Millisecond

// ackConfig is the pusher's end of a push stream: an answer comes soon, or the peer is in trouble.
func (n *Node) ackConfig(d record.DeviceID) protocol.ConnConfig {
	cfg := n.connConfig(d, protocol.StateBatchProtocol)
	cfg.FirstByte, cfg.Idle = ackWithin, ackWithin
	return cfg
}

// ackWithin bounds the wait for the answer to a push: a commit and a sync on a slow disk.
const ackWithin = 30 * time.Second

// remoteAddr returns the address of the connection with a peer and remembers it for the next start.
func (n *Node) remoteAddr(d record.DeviceID) string {
	conns := n.host.Network().ConnsToPeer(protocol.PeerID(d))
	if len(conns) == 0 {
		return ""
	}
	return conns[0].RemoteMultiaddr().String()
}

func (n *Node) activeSyncs() uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return uint32(len(n.pulls) + len(n.serving))
}

func (n *Node) compression(d record.DeviceID) protocol.Compression {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.peers[d]; p != nil && p.session != nil {
		return p.session.terms.Compression
	}
	return 0
}
