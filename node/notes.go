package node

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"peerdex/backfill"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/internal/english"
	"peerdex/kv"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/statebatch"
	"peerdex/store"
)

// Everything that metrics and events say about sync is said in this file, pullnotes.go and scannotes.go.

func idText(d record.DeviceID) string { return protocol.PeerID(d).String() }

func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

// begin says that the node runs, and whether it ended in order the last time.
func (n *Node) begin() {
	clean, ran, err := n.lastEnd()
	if err != nil {
		n.log.Warn("last end not known", "err", err)
	}
	n.events.Add(eventlog.NodeStarted{
		Version: n.cfg.Version, Revision: revision(), OS: runtime.GOOS, GoVersion: runtime.Version(),
		Clean: clean || !ran,
	})
	n.mu.Lock()
	n.phase = phase{state: StateUninitialized, reason: "started", since: time.Now()}
	n.mu.Unlock()
	n.metrics.StateEntered(StateUninitialized, "started", n.started)
	n.decide(time.Now())
}

// lastEnd reports whether this node ran before and then ended in order; from now on it has not.
func (n *Node) lastEnd() (clean, ran bool, err error) {
	end, err := n.store.Local("clean end")
	if err != nil {
		return false, false, err
	}
	started, err := n.store.Local("ran")
	if err != nil {
		return false, false, err
	}
	return end != nil, started != nil, errors.Join(n.store.SetLocal("clean end", nil), n.store.SetLocal("ran", []byte{1}))
}

// end says why the node stops.
func (n *Node) end(err error) {
	reason := "asked to"
	if err != nil {
		reason = err.Error()
		n.metrics.Error("internal", "", reason, time.Now())
	} else if err := n.store.SetLocal("clean end", []byte{1}); err != nil {
		n.log.Warn("end not noted", "err", err)
	}
	n.events.Flush()
	n.events.Add(eventlog.NodeStopped{Reason: reason, UptimeMS: time.Since(n.started).Milliseconds()})
}

func (n *Node) noteState(from, to phase, now time.Time) {
	n.events.Flush() // what was gathered belongs to the state that ends
	n.metrics.StateEntered(to.state, to.reason, now)
	n.events.Add(eventlog.StateTransition{From: from.state, To: to.state, Reason: to.reason, InStateMS: now.Sub(from.since).Milliseconds()})
	n.log.Info("state", "from", from.state, "to", to.state, "reason", to.reason)
}

// skewWarn is the clock offset from which people are told.
const skewWarn = 30 * time.Second

func (n *Node) noteConnected(s *session, g protocol.Greeting) {
	d := s.peer.Short()
	n.metrics.ConsecutiveFailures(d, 0)
	n.metrics.Online(d, true)
	n.metrics.LastSeen(d, s.started)
	n.metrics.ConnectionState(d, LinkSyncing)
	path, transport, class := describe(s.address)
	n.events.Add(eventlog.PeerConnected{
		Path: path, Transport: transport, AddressClass: class, Outbound: s.initiator == n.self,
		RTTMS: float64(s.clock.RTT.Microseconds()) / 1000,
	}, eventlog.Session(s.id), eventlog.Peer(idText(s.peer)))
	n.rememberSeen(s.peer, s.started)
	if s.initiator == n.self { // the other way round the port is not one it listens at
		n.rememberAddr(s.peer, s.address)
	}
	if s.clock.RTT > 0 {
		n.noteClock(s, s.clock, s.started)
	}
	if err := n.clock.Observe(g.Theirs.HLC); err != nil {
		n.noteSkew(s, g.Theirs.HLC.Time().Sub(s.started), 0)
	}
}

// noteClock takes a measurement of a peer's clock.
func (n *Node) noteClock(s *session, c protocol.Clock, now time.Time) {
	n.mu.Lock()
	p := n.peers[s.peer]
	if p == nil || p.session != s {
		n.mu.Unlock()
		return
	}
	if p.rtt == 0 {
		p.rtt = c.RTT
	}
	p.rtt += (c.RTT - p.rtt) / 8 // smoothed as in RFC 6298
	p.offset = c.Offset
	rtt := p.rtt
	n.mu.Unlock()
	n.metrics.RTT(s.peer.Short(), rtt)
	n.metrics.ClockOffset(s.peer.Short(), c.Offset)
	if c.Offset.Abs()-c.Uncertainty > skewWarn {
		n.noteSkew(s, c.Offset, c.Uncertainty)
	}
}

func (n *Node) noteSkew(s *session, offset, uncertainty time.Duration) {
	n.events.Add(eventlog.ClockSkewDetected{OffsetMS: offset.Milliseconds(), UncertaintyMS: uncertainty.Milliseconds()},
		eventlog.Session(s.id), eventlog.Peer(idText(s.peer)))
}

func (n *Node) noteDisconnected(s *session, err error) {
	d := s.peer.Short()
	n.rememberSeen(s.peer, time.Now())
	n.metrics.Online(d, false)
	n.metrics.ConnectionState(d, LinkDisconnected)
	reason := "ended"
	if err != nil && !errors.Is(err, errEnded) {
		reason = protocol.CodeOf(err).Label()
	}
	n.events.FlushSession(eventlog.ID(s.id))
	n.events.Add(eventlog.PeerDisconnected{ReasonCode: reason, ConnectedMS: time.Since(s.started).Milliseconds()},
		eventlog.Session(s.id), eventlog.Peer(idText(s.peer)))
}

// blame counts what a stream to or from a peer ended with: against the peer if it broke the protocol.
func (n *Node) blame(d record.DeviceID, err error) {
	n.noteFrameRefused(d, err)
	if e, ok := errors.AsType[*protocol.Error](err); ok && e.Stalled() != "" {
		n.events.Add(eventlog.PeerStalled{Sending: e.Stalled()}, eventlog.Peer(idText(d)))
	}
	if fault, ok := errors.AsType[*protocol.Error](err); ok && fault.Fault() {
		n.accuse(d, fault, !errors.Is(err, statebatch.ErrOtherHistory))
		return
	}
	n.countError(d, err)
}

// countError puts an error that a peer's stream ended with into the errors people look at. That a stream
// ended because a side stopped is none.
func (n *Node) countError(d record.DeviceID, err error) {
	if err == nil || errors.Is(err, errEnded) {
		return
	}
	if e, ok := errors.AsType[*protocol.Error](err); ok && e.Ended() {
		return
	}
	var kind string
	switch code := protocol.CodeOf(err); code {
	case protocol.CodeShutdown, protocol.CodeBusy, protocol.CodePaused, protocol.CodeNotSettled:
		return
	case protocol.CodeInviteInvalid, protocol.CodeInviteUsed, protocol.CodeInviteExpired, protocol.CodeNotApproved, protocol.CodeRevoked:
		return // said where it was refused
	case protocol.CodeLost, protocol.CodeTimeout:
		kind = "network"
	case protocol.CodeNotMember, protocol.CodeLibrary, protocol.CodeUnauthorized:
		kind = "auth"
	case protocol.CodeMismatch:
		kind = "validation"
	case protocol.CodeInternal:
		kind = "internal"
		if errors.Is(err, store.ErrNoSpace) || errors.Is(err, kv.ErrClosed) {
			kind = "database"
		}
	default:
		kind = "protocol"
	}
	n.metrics.Error(kind, d.Short(), err.Error(), time.Now())
	if kind == "protocol" || kind == "validation" || kind == "internal" {
		n.events.Add(eventlog.SyncError{Kind: kind, Message: err.Error()}, eventlog.Peer(idText(d)))
	}
}

// noteHintsDropped counts heads that a peer showed beyond what is kept of one peer. They cost a pull
// later, when the peer tells all its heads again.
func (n *Node) noteHintsDropped(s *session, dropped int) {
	if dropped == 0 {
		return
	}
	for range dropped {
		n.metrics.HintDropped()
	}
	n.events.Add(eventlog.BufferOverflow{DroppedCount: int64(dropped), MaxBufferSize: maxPeerHeads, Phase: n.stateNow()},
		eventlog.Session(s.id), eventlog.Peer(idText(s.peer)))
}

func (n *Node) noteConnectFailed(d record.DeviceID, result string, err error, failures int) {
	if code := protocol.CodeOf(err); code == protocol.CodeVersion {
		n.noteVersion(d, err)
	}
	n.events.Add(eventlog.PeerConnectionFailed{Reason: result, Addresses: attemptsOf(err)}, eventlog.Peer(idText(d)))
	if failures == 1 {
		n.log.Info("peer not reached", "peer", d.Short(), "result", result)
	}
}

func (n *Node) noteVersion(d record.DeviceID, err error) {
	var v *protocol.VersionError
	if errors.As(err, &v) {
		n.events.Add(eventlog.ProtocolMismatch{
			Ours: fmt.Sprintf("%d to %d", v.OursMin, v.OursMax), Theirs: fmt.Sprintf("%d to %d", v.TheirsMin, v.TheirsMax),
		}, eventlog.Peer(idText(d)))
	}
}

// streamFailed is told why a stream of a peer was refused or its handler failed.
func (n *Node) streamFailed(d record.DeviceID, err error) {
	switch {
	case errors.Is(err, errSuperseded), errors.Is(err, errEnded):
		return
	case errors.Is(err, protocol.CodeNotMember), errors.Is(err, protocol.CodeRevoked):
		n.events.Add(eventlog.AuthFailed{Reason: protocol.CodeOf(err).Label(), AddressClass: n.classOf(d)}, eventlog.Peer(idText(d)))
		n.metrics.Error("auth", d.Short(), err.Error(), time.Now())
		return
	case errors.Is(err, protocol.CodeVersion):
		n.noteVersion(d, err)
	}
	n.blame(d, err)
}

// accuse notes that a peer broke the protocol: counted, in the log once, and its session is ended. It is
// dialed again after the usual backoff, or much later if it does so again and again. What an honest device
// with a past that went backwards may do as well is no strike: the session goes on.
func (n *Node) accuse(d record.DeviceID, fault *protocol.Error, strike bool) {
	kind, reason := "protocol", "other"
	switch fault.Code {
	case protocol.CodeMismatch:
		kind, reason = "validation", "signature"
	case protocol.CodeTooLarge:
		reason = "too_large"
	case protocol.CodeMalformed, protocol.CodeChecksum, protocol.CodeUnknownType, protocol.CodeUnexpected:
		reason = "decode"
	case protocol.CodeUnauthorized:
		reason = "unauthorized"
	}
	n.metrics.Error(kind, d.Short(), fault.Error(), time.Now())
	n.events.Add(eventlog.ChangeRejected{Reason: reason, Message: fault.Error(), By: n.self.Short()}, eventlog.Peer(idText(d)))
	n.log.Warn("peer broke the protocol", "peer", d.Short(), "code", fault.Code.Label(), "detail", fault.Detail)
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[d]
	if p == nil {
		return
	}
	if strike {
		p.faults++
	}
	if p.faults >= maxFaults {
		p.faults, p.shunned = 0, time.Now().Add(shunFor)
		p.link.retryAt = p.shunned
	}
	if strike && p.session != nil {
		p.session.conn.Reset(fault.Code)
	}
}

// noteFork says that one feed has two heads at one seq (invariant I8).
func (n *Node) noteFork(from record.DeviceID, h feed.Head) {
	st, _ := n.store.State(h.Feed)
	n.mu.Lock()
	known := n.forked[h.Feed] == h
	n.forked[h.Feed] = h
	n.mu.Unlock()
	if known {
		return
	}
	ours := st.Best
	if st.Settled != nil {
		ours = *st.Settled
	}
	n.metrics.DigestCheck(from.Short(), "mismatch")
	n.events.Add(eventlog.CatalogDiverged{
		Feed: h.Feed.String(), Seq: h.Seq, Ours: fmt.Sprintf("%x", ours.Root[:8]), Theirs: fmt.Sprintf("%x", h.Root[:8]),
	}, eventlog.Peer(idText(from)))
}

// noteConverged ends a fork once the owner's next head has settled it.
func (n *Node) noteConverged(id feed.ID, at feed.Head) {
	n.mu.Lock()
	h, forked := n.forked[id]
	if forked = forked && at.Seq > h.Seq; forked {
		delete(n.forked, id)
	}
	n.mu.Unlock()
	if forked {
		n.events.Add(eventlog.CatalogConverged{Feed: id.String(), Seq: at.Seq, Root: fmt.Sprintf("%x", at.Root[:8])})
	}
}

// freeze stops the writing of own feeds: another device has this one's key (rule 16).
func (n *Node) freeze(from record.DeviceID, h feed.Head) error {
	if n.store.Frozen() {
		return nil
	}
	n.events.Add(eventlog.FeedCloned{
		Feed: h.Feed.String(), OurBoot: fmt.Sprintf("%016x", n.boot), OtherBoot: fmt.Sprintf("%016x", h.Boot),
	}, eventlog.Peer(idText(from)))
	n.log.Error("this device's identity is in use twice: own feeds are frozen", "peer", from.Short())
	return n.store.Freeze()
}

func (n *Node) noteRolledBack(from record.DeviceID, id protocol.SessionID, f feed.ID, absorbed int, seen, to feed.Head) {
	method := "jump"
	if absorbed > 0 {
		method = "absorb"
	}
	n.events.Add(eventlog.FeedRolledBack{Feed: f.String(), Method: method, SeenSeq: seen.Seq, ToSeq: to.Seq},
		eventlog.Session(id), eventlog.Peer(idText(from)), eventlog.Records(absorbed))
}

// noteElection says who could have served a pull and how each was judged; the candidates go into the
// event that starts it.
func (n *Node) noteElection(p *pulling, order []backfill.Candidate, now time.Time) {
	for _, c := range order {
		penalty := 0.0
		if without := c; !c.Failed.IsZero() {
			without.Failed = time.Time{}
			penalty = without.Score(now) - c.Score(now)
		}
		p.candidates = append(p.candidates, eventlog.Candidate{
			Device: c.Device.Short(), Online: c.Online, Complete: c.Complete, LatencyMS: float64(c.Latency.Microseconds()) / 1000,
			ActiveSyncs: c.ActiveSyncs, Penalty: penalty, Score: c.Score(now),
		})
	}
}

func reasonOf(c backfill.Candidate, now time.Time) string {
	var why []string
	if c.Complete == 1 {
		why = append(why, "complete")
	}
	if c.Latency > 0 {
		why = append(why, c.Latency.Round(100*time.Microsecond).String()+" away")
	}
	if c.ActiveSyncs == 0 {
		why = append(why, "idle")
	}
	return fmt.Sprintf("online, %s (score %s)", strings.Join(why, ", "), english.Tenths(c.Score(now)))
}

// notePullEnded says what could not be had in a pull session.
func (n *Node) notePullEnded(p *pulling, refused map[feed.ID]error, err error, retries int) {
	n.notePullOver(p, err, time.Now())
	n.events.FlushSession(eventlog.ID(p.id))
	n.metrics.RetryQueued(retries)
	if p.again {
		result := "success"
		if err != nil || len(refused) > 0 {
			result = "failure"
		}
		n.metrics.Retried(result)
	}
	if err == nil && len(refused) < len(p.feeds) {
		n.metrics.LastSync(p.donor.Short(), time.Now())
	}
	if ownFault(err) {
		n.noteApplyFailed(p.donor, err)
	} else {
		n.blame(p.donor, err)
	}
}

// propagated measures how long a change took from its commit on its own device to here.
func (n *Node) propagated(source string, stamp hlc.Stamp, owner record.DeviceID, now time.Time) {
	n.mu.Lock()
	offset := time.Duration(0)
	if p := n.peers[owner]; p != nil {
		offset = p.offset
	}
	n.mu.Unlock()
	n.metrics.Propagated(source, max(0, now.Sub(stamp.Time().Add(-offset))))
}

// classOf names the kind of address a device is connected from.
func (n *Node) classOf(d record.DeviceID) string {
	_, _, class := describe(n.remoteAddr(d))
	return class
}

// describe says what there is to say about an address without naming it.
func describe(text string) (path, transport, class string) {
	path, transport, class = "direct", "tcp", "unknown"
	a, err := multiaddr.NewMultiaddr(text)
	if err != nil {
		return path, transport, class
	}
	if _, err := a.ValueForProtocol(multiaddr.P_QUIC_V1); err == nil {
		transport = "quic-v1"
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return path, transport, class
	}
	addr, _ := netip.AddrFromSlice(ip)
	addr = addr.Unmap()
	switch {
	case addr.IsLoopback():
		return "lan", transport, "loopback"
	case addr.IsPrivate(), addr.IsLinkLocalUnicast():
		return "lan", transport, "private"
	}
	return path, transport, classPublic
}

// classPublic is the class of an address that is on no network of one's own.
const classPublic = "public"
