package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/snapshot"
)

// peer is what this node knows of one other member. Node.mu guards it.
type peer struct {
	id          record.DeviceID
	published   []multiaddr.Multiaddr // where it says it listens
	nearby      []nearbyAddr          // where it announces itself on the local network
	link        link
	session     *session // nil: none
	heads       map[feed.ID]protocol.HeadInfo
	told        bool // it has sent all its heads in this session
	activeSyncs int
	seen        time.Time
	rtt         time.Duration
	offset      time.Duration
	failedPull  time.Time
	snapshots   snapshot.Attempts
	paused      pause
	address     string
	absorb      map[feed.ID]bool // own feeds to take back from it
	faults      int              // violations of the protocol since it was last shunned
	shunned     time.Time        // until when it is neither dialed nor let in
}

// A peer that breaks the protocol this often is left alone for so long.
const (
	maxFaults = 3
	shunFor   = 10 * time.Minute
)

// dialPeers keeps a session with every member that can be reached.
func (n *Node) dialPeers(ctx context.Context) error {
	done := make(chan struct{})
	running := 0
	defer func() {
		for ; running > 0; running-- {
			<-done
		}
	}()
	for {
		due, next := n.duePeers(time.Now())
		for _, p := range due {
			running++
			go func() {
				n.dial(ctx, p)
				done <- struct{}{}
			}()
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-n.redial:
		case <-done:
			running--
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// duePeers returns the peers to dial now, marked as connecting, and how long until the next is due.
func (n *Node) duePeers(now time.Time) (due []*peer, next time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next = lastRetry
	for _, d := range n.set.Members() {
		p := n.peers[d]
		if p == nil || p.session != nil || p.link.state != LinkDisconnected {
			continue
		}
		if now.Before(p.shunned) {
			next = min(next, p.shunned.Sub(now))
			continue
		}
		if !p.link.due(now) {
			next = min(next, p.link.retryAt.Sub(now))
			continue
		}
		p.link.dialing(now)
		n.metrics.ConnectionState(d.Short(), LinkConnecting)
		due = append(due, p)
	}
	return due, next
}

// yield is how long the device with the greater ID waits for the other to dial, so that two that meet do
// not open two sessions of which one must go.
const yield = 500 * time.Millisecond

// yieldTo returns how long to wait for d to dial.
func (n *Node) yieldTo(d record.DeviceID) time.Duration {
	if slices.Compare(n.self[:], d[:]) > 0 {
		return yield
	}
	return 0
}

// freshLink returns the link of a device that was not known before.
func (n *Node) freshLink(d record.DeviceID, now time.Time) link {
	l := newLink(now)
	l.retryAt = now.Add(n.yieldTo(d))
	if n.phase.state != "" { // a new member must settle in first
		l.retryAt = now.Add(yield)
	}
	return l
}

// dialSoon makes dialPeers look again: somebody may be due.
func (n *Node) dialSoon() {
	select {
	case n.redial <- struct{}{}:
	default:
	}
}

// kickAll makes the next dial of every device due.
func (n *Node) kickAll() {
	n.mu.Lock()
	for _, p := range n.peers {
		p.link.kick()
	}
	n.mu.Unlock()
	n.dialSoon()
}

// dialTimeout bounds one attempt to reach one peer at all its addresses.
const dialTimeout = 15 * time.Second

// dial opens a session with p and lives it.
func (n *Node) dial(ctx context.Context, p *peer) {
	conn, err := n.reach(ctx, p)
	now := time.Now()
	if err != nil {
		n.dialFailed(ctx, p, now, err)
		return
	}
	ours := n.hello(protocol.NewSessionID(), p.id)
	stop := conn.Bind(ctx)
	defer stop()
	g, err := protocol.Greet(conn, ours, n.cfg.Now)
	if err != nil {
		conn.End(err)
		n.dialFailed(ctx, p, now, err)
		return
	}
	n.metrics.ConnectionAttempt(p.id.Short(), "success")
	err = n.runSession(ctx, conn, g, n.self)
	conn.End(err)
	if ctx.Err() == nil {
		n.blame(p.id, err) // as protocol.Serve has it done for sessions that the peer opened
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.session == nil && p.link.state == LinkConnecting { // the session was not taken up
		p.link.closed(time.Now())
		n.dialSoon()
	}
}

func (n *Node) reach(ctx context.Context, p *peer) (*protocol.Conn, error) {
	stages, err := n.addresses(p, time.Now())
	if err != nil {
		return nil, err
	}
	addrs := slices.Concat(stages...)
	if len(addrs) == 0 && n.host.Network().Connectedness(protocol.PeerID(p.id)) != network.Connected {
		return nil, errNoAddress
	}
	pid := protocol.PeerID(p.id)
	if s, ok := n.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(pid) // ours is the backoff that counts
	}
	n.host.Peerstore().ClearAddrs(pid)
	n.host.Peerstore().AddAddrs(pid, addrs, peerstore.TempAddrTTL)
	defer n.order.Expect(stages...)()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return protocol.Dial(ctx, n.host, p.id, protocol.SessionProtocol, n.connConfig(p.id, protocol.SessionProtocol))
}

var errNoAddress = errors.New("no address is known")

func (n *Node) dialFailed(ctx context.Context, p *peer, now time.Time, err error) {
	if ctx.Err() != nil {
		return
	}
	result := attemptResult(err)
	n.mu.Lock()
	if p.session != nil { // it reached us meanwhile
		n.mu.Unlock()
		return
	}
	p.link.failed(now, unreached(err))
	failures := p.link.failures
	n.mu.Unlock()
	n.metrics.ConnectionAttempt(p.id.Short(), result)
	n.metrics.ConsecutiveFailures(p.id.Short(), failures)
	n.metrics.ConnectionState(p.id.Short(), LinkDisconnected)
	n.noteConnectFailed(p.id, result, err, failures)
	n.dialSoon()
}

// attemptResult sorts an error of dialing into the metric's closed list.
func attemptResult(err error) string {
	var timeout net.Error
	switch code := protocol.CodeOf(err); {
	case errors.Is(err, errNoAddress), errors.Is(err, swarm.ErrNoGoodAddresses), errors.Is(err, swarm.ErrNoAddresses):
		return "no_address"
	case code == protocol.CodeNotMember, code == protocol.CodeLibrary, errors.Is(err, swarm.ErrGaterDisallowedConnection):
		return "unauthorized"
	case code == protocol.CodeBusy:
		return "rate_limited"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	}
	return "error"
}

// errSuperseded ends a session in favour of another with the same peer.
var errSuperseded = fmt.Errorf("another session with the same device: %w", protocol.CodeBusy)

// adopt makes s the session with its peer, or returns errSuperseded. Of two that were opened at the same
// time the one stays that the smaller device ID opened; a peer that was restarted always wins.
func (n *Node) adopt(s *session, now time.Time) error {
	n.mu.Lock()
	p := n.peers[s.peer]
	if p == nil || n.set.Role(s.peer) == 0 {
		n.mu.Unlock()
		return protocol.CodeNotMember
	}
	if now.Before(p.shunned) {
		n.mu.Unlock()
		return protocol.CodeBusy
	}
	old := p.session
	if old != nil && old.boot == s.boot && slices.Compare(old.initiator[:], s.initiator[:]) < 0 {
		n.mu.Unlock()
		return errSuperseded
	}
	p.session = s
	p.link.opened(now)
	p.heads, p.told, p.seen = map[feed.ID]protocol.HeadInfo{}, false, now
	p.absorb = map[feed.ID]bool{}
	if s.clock.RTT > 0 {
		p.rtt, p.offset = s.clock.RTT, s.clock.Offset
	}
	p.address = s.address
	n.mu.Unlock()
	if old != nil {
		old.conn.Reset(protocol.CodeBusy)
	}
	return nil
}

// release ends what adopt began, and what is pulled from the peer; it reports whether s was still the session with its peer.
func (n *Node) release(s *session, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[s.peer]
	if p == nil || p.session != s {
		return false
	}
	p.session, p.told = nil, false
	p.seen = now
	p.link.closed(now)
	p.link.retryAt = p.link.retryAt.Add(n.yieldTo(s.peer))
	if pull := n.pulls[s.peer]; pull != nil && pull.cancel != nil {
		pull.cancel(errDonorLost) // a connection may live long after the device behind it froze
	}
	n.dialSoon()
	return true
}

// awaitsAnyone reports whether there are other members and none of them has told its heads yet, or one
// that has is still to give something back.
func (n *Node) awaitsAnyone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	told := len(n.peers) == 0
	for _, p := range n.peers {
		told = told || p.told
		if p.session != nil && len(p.absorb) > 0 {
			return true
		}
	}
	return !told
}

// takingBack reports whether own feeds are being pulled.
func (n *Node) takingBack() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pulls {
		for _, id := range p.feeds {
			if id.Device == n.self {
				return true
			}
		}
	}
	return false
}

// rememberSeen keeps when a device was last talked to, for the next start.
func (n *Node) rememberSeen(d record.DeviceID, at time.Time) {
	if err := n.store.SetLocal("seen "+d.String(), hlc.At(at).Append(nil)); err != nil {
		n.log.Warn("last contact not remembered", "peer", d.Short(), "err", err)
	}
}

// lastSeen returns when a device was last talked to before this start; zero: never.
func (n *Node) lastSeen(d record.DeviceID) (time.Time, error) {
	b, err := n.store.Local("seen " + d.String())
	if err != nil || len(b) != hlc.Size {
		return time.Time{}, err
	}
	return hlc.FromBytes(b).Time(), nil
}
