package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"peerdex/backfill"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// maxPulls is how many donors are pulled from at a time.
const maxPulls = 2

// pulling is one pull session that is going on. Node.mu guards it.
type pulling struct {
	id         protocol.SessionID
	donor      record.DeviceID
	kind       string // of the feed at hand: backfill, catch_up or reconcile
	now        feedPull
	again      bool // some of it was tried before
	feeds      []feed.ID
	floors     map[feed.ID]feed.Head // of each when it began
	started    time.Time
	why        string
	cancel     context.CancelCauseFunc // nil: it has not begun; told nil: at somebody's wish
	strategy   string                  // of the feed at hand
	progress   progress                //
	lacks      map[feed.ID]uint64      // entries still to come of each feed, at most
	candidates []eventlog.Candidate    // as they were judged
	conn       *protocol.Conn          // nil: not open yet
	pace       pace
	snapshot   *snapshotPull // nil: the feeds come one by one
	instead    string        // why no snapshot of so much is asked for
}

// expect begins the account of what is to come.
func (p *pulling) expect(lacks map[feed.ID]uint64, now time.Time) {
	p.lacks, p.strategy, p.progress = lacks, StrategyPages, newProgress(PhaseLoading, 0, now)
	if p.snapshot != nil {
		p.strategy, p.progress.phase = StrategySnapshot, PhasePreparing
	}
	p.account(0, 0, now)
}

// reach notes that a feed is at hand, which lacks so much; those before it are over.
func (p *pulling) reach(id feed.ID, lacks uint64, phase string, now time.Time) {
	for _, before := range p.feeds[:max(0, slices.Index(p.feeds, id))] {
		delete(p.lacks, before)
	}
	p.lacks[id] = lacks
	p.account(0, 0, now)
	p.progress.enter(phase, now)
}

// come notes that entries of the feed at hand have come.
func (p *pulling) come(entries, bytes int, now time.Time) {
	p.lacks[p.now.feed] -= min(p.lacks[p.now.feed], uint64(entries))
	p.account(entries, bytes, now)
}

func (p *pulling) account(entries, bytes int, now time.Time) {
	left := uint64(0)
	for _, n := range p.lacks {
		left += n
	}
	p.progress.at(p.progress.records+uint64(entries), left, p.progress.bytes+uint64(bytes), now)
}

// retryKey names a feed at a donor that would not or could not serve it.
type retryKey struct {
	donor record.DeviceID // anyDonor: this device could not take it
	feed  feed.ID
}

// anyDonor stands for all donors: what fails here fails with each.
var anyDonor record.DeviceID

// retryOf says when to try again to get a feed from a donor; n.mu is held.
func (n *Node) retryOf(d record.DeviceID, id feed.ID) retry {
	there, here := n.retries[retryKey{d, id}], n.retries[retryKey{anyDonor, id}]
	if here.at.After(there.at) {
		there.at = here.at
	}
	there.failures += here.failures
	return there
}

// retry says when to try again.
type retry struct {
	at       time.Time
	failures int
}

// Backoff of pulls: half a second doubling to half a minute.
const (
	firstPullRetry = 500 * time.Millisecond
	lastPullRetry  = 30 * time.Second
)

// pullFeeds looks, whenever something changed, whether a feed can be brought further, and from whom.
func (n *Node) pullFeeds(ctx context.Context) error {
	done := make(chan struct{})
	running := 0
	defer func() {
		for ; running > 0; running-- {
			<-done
		}
	}()
	for {
		if err := n.observeHeads(); err != nil {
			return err
		}
		for _, p := range n.choosePulls(time.Now()) {
			running++
			go func() {
				n.runPull(ctx, p)
				done <- struct{}{}
			}()
		}
		n.leaveSlow(time.Now())
		n.decide(time.Now())
		timer := time.NewTimer(n.nextLook(time.Now()))
		select {
		case <-n.look:
		case <-timer.C:
		case <-done:
			running--
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// lookAgain is how long sync sleeps at most when nothing wakes it.
const lookAgain = 30 * time.Second

// nextLook returns how long until the pace of pulls or the room on the disk is looked at, a retry is due, a push has been waited for or a pause ends.
func (n *Node) nextLook(now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := lookAgain
	if len(n.pulls) > 0 || n.refused {
		next = paceLook
	}
	for _, r := range n.retries {
		if r.at.After(now) {
			next = min(next, r.at.Sub(now))
		}
	}
	for id := range n.lacks {
		st, _ := n.store.State(id)
		if left := n.grace(st, now); left > 0 {
			next = min(next, left)
		}
	}
	pauses := []pause{n.paused}
	for _, p := range n.peers {
		pauses = append(pauses, p.paused)
	}
	for _, p := range pauses {
		if p.active(now) && !p.until.IsZero() {
			next = min(next, p.until.Sub(now))
		}
	}
	return max(next, time.Millisecond)
}

// observeHeads notes the heads that peers have shown of followed feeds.
func (n *Node) observeHeads() error {
	type shown struct {
		from  record.DeviceID
		heads []feed.Head
	}
	var all []shown
	n.mu.Lock()
	for d, p := range n.peers {
		s := shown{from: d}
		for id, info := range p.heads {
			if !n.follow[id] || id.Device == n.self {
				continue
			}
			s.heads = append(s.heads, info.Best)
			if info.Settled != nil {
				s.heads = append(s.heads, *info.Settled)
			}
		}
		all = append(all, s)
	}
	n.mu.Unlock()
	for _, s := range all {
		admitted, err := n.membership(s.from)
		if errors.Is(err, protocol.CodeNotMember) {
			continue
		}
		var seen []store.Observed
		if err == nil {
			seen, err = n.store.Observe(s.heads, admitted)
		}
		if errors.Is(err, store.ErrGeneration) {
			n.wake() // it is asked again whether the peer belongs
			continue
		}
		if errors.Is(err, feed.ErrSignature) {
			n.mu.Lock() // said once: what was shown is forgotten with it
			if p := n.peers[s.from]; p != nil {
				clear(p.heads)
			}
			n.mu.Unlock()
			n.accuse(s.from, &protocol.Error{Code: protocol.CodeMismatch, Detail: err.Error()}, true)
			continue
		}
		if errors.Is(err, store.ErrNoSpace) {
			return nil // sync is about to pause; the heads will be told again
		}
		if err != nil {
			return err
		}
		for _, o := range seen {
			if o.Forks {
				n.noteFork(s.from, o.Head)
			}
		}
	}
	return nil
}

// choosePulls decides which feeds to pull from whom now, and marks those pulls as going on.
func (n *Node) choosePulls(now time.Time) (out []*pulling) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pauseReason(now) != "" {
		return nil
	}
	lacking := n.lacking(now)
	n.noteLacks(lacking, now)
	candidates := n.candidates(lacking)
	order := backfill.Elect(now, candidates)
	busy := map[feed.ID]bool{}
	for _, p := range n.pulls {
		for _, id := range p.feeds {
			busy[id] = true
		}
	}
	byDonor := map[record.DeviceID][]feed.ID{}
	for _, st := range lacking {
		if busy[st.Feed] || n.grace(st, now) > 0 {
			continue
		}
		for _, c := range order {
			if n.canServe(c.Device, st) && n.pulls[c.Device] == nil && !now.Before(n.retryOf(c.Device, st.Feed).at) {
				byDonor[c.Device] = append(byDonor[c.Device], st.Feed)
				break
			}
		}
	}
	for d, p := range n.peers { // own feeds that a rollback lost, not those of locations that are no more
		for id := range p.absorb {
			if n.follow[id] && !n.pausedFor(d) && n.pulls[d] == nil && !busy[id] && p.session != nil && !now.Before(n.retryOf(d, id).at) {
				byDonor[d] = append(byDonor[d], id)
			}
		}
	}
	for _, c := range order {
		feeds := byDonor[c.Device]
		if len(feeds) == 0 || len(n.pulls) >= maxPulls {
			continue
		}
		slices.SortFunc(feeds, pullOrder)
		p := &pulling{
			id: protocol.NewSessionID(), donor: c.Device, feeds: feeds, started: now,
			kind: n.kindOf(feeds), floors: map[feed.ID]feed.Head{},
		}
		n.planSnapshot(p, now)
		p.expect(n.lacksOf(p.feeds, c.Device), now)
		for _, id := range p.feeds {
			st, _ := n.store.State(id)
			p.floors[id] = st.Floor
			p.again = p.again || n.retryOf(c.Device, id).failures > 0
		}
		p.why = reasonOf(c, now)
		n.pulls[c.Device] = p
		out = append(out, p)
		n.noteElection(p, order, now)
	}
	return out
}

// pullOrder puts device feeds before all others: they are short, and tell of locations and of where other donors are,
// should this one go.
func pullOrder(a, b feed.ID) int {
	if a.IsDevice() != b.IsDevice() {
		if a.IsDevice() {
			return -1
		}
		return 1
	}
	return a.Compare(b)
}

// lacking returns the followed feeds of others that somebody may bring further, but for those whose entries
// are declined; n.mu is held.
func (n *Node) lacking(now time.Time) (out []feed.State) {
	n.refused = false
	for id := range n.follow {
		if id.Device == n.self {
			continue
		}
		st, ok := n.store.State(id)
		if !ok || st.InStep() {
			continue
		}
		decision := DecideFetch
		if !id.IsDevice() {
			decision, _, _ = n.decideOn(st, now)
		}
		n.refused = n.refused || decision == DecideRefuse
		if decision == DecideFetch {
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b feed.State) int { return a.Feed.Compare(b.Feed) })
	return out
}

// canServe reports whether a peer can bring this node further in a feed now; n.mu is held.
func (n *Node) canServe(d record.DeviceID, st feed.State) bool {
	return !n.pausedFor(d) && n.offers(d, st, n.orphans[st.Feed])
}

// offers reports whether a peer is online and settled where a feed may go from here, below its floor too
// if orphaned, unless sync with it is paused; n.mu is held.
func (n *Node) offers(d record.DeviceID, st feed.State, orphaned bool) bool {
	p := n.peers[d]
	if p == nil || p.session == nil || p.paused.active(time.Now()) {
		return false
	}
	info, ok := p.heads[st.Feed]
	if !ok || info.Settled == nil {
		return false
	}
	road := st.DecideRoute(*info.Settled, orphaned).Road
	return road == feed.RoadDelta || road == feed.RoadDiff
}

// candidates returns every member with what its score is made of; n.mu is held.
func (n *Node) candidates(lacking []feed.State) (out []backfill.Candidate) {
	for d, p := range n.peers {
		if n.set.Role(d) == 0 {
			continue
		}
		c := backfill.Candidate{Device: d, Online: p.session != nil, Latency: p.rtt, ActiveSyncs: p.activeSyncs, Failed: p.failedPull}
		whole := 0
		for _, st := range lacking {
			if info, ok := p.heads[st.Feed]; ok && info.Settled != nil && info.Settled.Compare(st.Best) >= 0 {
				whole++
			}
		}
		if len(lacking) > 0 {
			c.Complete = float64(whole) / float64(len(lacking))
		} else if len(p.absorb) > 0 {
			c.Complete = 1
		}
		out = append(out, c)
	}
	return out
}

// kindOf names a session by what it begins with; n.mu is held.
func (n *Node) kindOf(feeds []feed.ID) string {
	for _, id := range feeds {
		if st, _ := n.store.State(id); id.Device != n.self && st.Floor.IsGenesis() {
			return "backfill"
		}
	}
	return "catch_up"
}

// lacksOf returns how many entries feeds lack at most of what a donor has; n.mu is held.
func (n *Node) lacksOf(feeds []feed.ID, d record.DeviceID) map[feed.ID]uint64 {
	out := map[feed.ID]uint64{}
	for _, id := range feeds {
		if at := n.peers[d].heads[id].Settled; at != nil {
			st, _ := n.store.State(id)
			out[id] = lackingOf(st, *at)
		}
	}
	return out
}

// runPull carries out one pull session. It blocks.
func (n *Node) runPull(ctx context.Context, p *pulling) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n.mu.Lock()
	p.cancel = cancel
	if n.pausedFor(p.donor) || slices.ContainsFunc(p.feeds, func(id feed.ID) bool { return n.declines(id, time.Now()) }) { // since it was chosen
		cancel(nil)
	}
	if peer := n.peers[p.donor]; peer == nil || peer.session == nil {
		cancel(errDonorLost)
	}
	n.mu.Unlock()
	refused, err := n.carryOut(ctx, p)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // told to stop
	}
	now := time.Now()
	n.mu.Lock()
	delete(n.pulls, p.donor)
	peer, at, ours := n.peers[p.donor], p.donor, notTheirs(err)
	if ours {
		at = anyDonor
	}
	pages := p.snapshot != nil && n.snapshotEnded(p, peer, err, now)
	for _, id := range p.feeds {
		k := retryKey{at, id}
		if pages || !n.follow[id] {
			delete(n.retries, k)
		} else if refused[id] != nil || err != nil {
			r := n.retries[k]
			r.failures++
			r.at = now.Add(min(firstPullRetry<<min(r.failures-1, 10), lastPullRetry))
			n.retries[k] = r
		} else if st, _ := n.store.State(id); id.Device != n.self && st.Floor == p.floors[id] && n.canServe(p.donor, st) {
			// It has told a head that it does not serve. Without a wait it would be asked again at once.
			n.retries[k] = retry{at: now.Add(lastPullRetry), failures: n.retries[k].failures + 1}
		} else {
			delete(n.retries, k)
			delete(n.retries, retryKey{anyDonor, id})
			if peer != nil {
				delete(peer.absorb, id)
			}
		}
	}
	if peer != nil && err != nil && !ours && err != context.Canceled {
		peer.failedPull = now
	}
	waiting := len(n.retries)
	if err == nil && n.keepsInVain() {
		if err := n.fetcher.Forget(); err != nil {
			n.log.Warn("chunks not removed", "err", err)
		}
	}
	n.mu.Unlock()
	n.notePullEnded(p, refused, err, waiting)
	n.wake()
}

// keepsInVain reports whether no snapshot is on its way, nor any to be expected to go on: all that is wanted has been
// here once; n.mu is held.
func (n *Node) keepsInVain() bool {
	for _, p := range n.pulls {
		if p.snapshot != nil {
			return false
		}
	}
	for id := range n.follow {
		st, _ := n.store.State(id)
		if id.Device != n.self && !id.IsDevice() && n.fetchOf(id) != FetchLazy && st.Floor.IsGenesis() && !st.Best.IsGenesis() {
			return false
		}
	}
	return true
}

// errDonorLost ends a pull whose donor is not there any more.
var errDonorLost = &because{protocol.CodeLost, "the donor answers nothing any more"}

// because is a code with words of its own.
type because struct {
	code protocol.Code
	text string
}

func (b *because) Error() string { return b.text }
func (b *because) Unwrap() error { return b.code }

// notTheirs reports whether it is nothing of the donor's that ended a pull: this device has no memory or no room for
// what came, or failed, or a person ended it.
func notTheirs(err error) bool {
	_, memory := errors.AsType[*protocol.MemoryError](err)
	return memory || ownFault(err)
}

// carryOut pulls the feeds of a session one by one, or takes them all at once.
func (n *Node) carryOut(ctx context.Context, p *pulling) (map[feed.ID]error, error) {
	if p.snapshot != nil {
		return nil, n.takeSnapshot(ctx, p)
	}
	return n.pullFrom(ctx, p)
}

func (n *Node) pullFrom(ctx context.Context, p *pulling) (map[feed.ID]error, error) {
	cfg := n.connConfig(p.donor, protocol.BackfillProtocol)
	cfg.Session = p.id
	open, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := protocol.Dial(open, n.host, p.donor, protocol.BackfillProtocol, cfg)
	if err != nil {
		return nil, unopened(err)
	}
	defer conn.Bind(ctx)()
	n.watch(p, conn)
	refused, err := n.puller.Run(conn, p.id, p.feeds)
	conn.End(err)
	return refused, err
}

// unopened is what a stream that could not be opened failed with: the donor is out of reach, if nothing else is known.
func unopened(err error) error {
	if protocol.CodeOf(err) == protocol.CodeInternal {
		return fmt.Errorf("%w: %w", protocol.CodeLost, err)
	}
	return err
}

// orphaned reports whether a feed may settle below its floor (rule 17).
func (n *Node) orphaned(id feed.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.orphans[id]
}

// decide brings the node's state and the links of its peers up to date.
func (n *Node) decide(now time.Time) {
	n.deciding.Lock() // or two transitions could be told in the wrong order
	defer n.deciding.Unlock()
	n.mu.Lock()
	s := situation{paused: n.pauseReason(now), out: n.set.Role(n.self) == 0}
	for _, d := range n.set.Members() {
		p := n.peers[d]
		if p == nil {
			continue
		}
		s.others++
		if p.session != nil {
			s.online++
		}
	}
	for id := range n.follow {
		if id.Device == n.self {
			continue
		}
		st, _ := n.store.State(id)
		if n.declines(id, now) {
			if n.fetchOf(id) != FetchLazy {
				s.waiting++
			}
			continue
		}
		f := feedSituation{state: st}
		for d := range n.peers {
			f.servable = f.servable || n.canServe(d, st)
		}
		s.everSettled = s.everSettled || !st.Floor.IsGenesis()
		s.feeds = append(s.feeds, f)
	}
	state, reason := decideState(s)
	old := n.phase
	next, changed := old.step(state, reason, now)
	n.phase = next
	var moved []*peer
	for _, p := range n.peers {
		before := p.link.state
		p.link.look(now, func(id feed.ID) (*feed.Head, bool) {
			st, _ := n.store.State(id)
			return st.Settled, n.follow[id] && !n.declines(id, now)
		})
		if p.link.state != before {
			moved = append(moved, p)
		}
	}
	n.mu.Unlock()
	if changed {
		n.noteState(old, next, now)
	}
	for _, p := range moved {
		n.metrics.ConnectionState(p.id.Short(), LinkConnected)
	}
}
