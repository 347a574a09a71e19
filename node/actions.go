package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"

	"peerdex/catalog"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/metrics"
	"peerdex/protocol"
	"peerdex/record"
)

// progressTick is how often a person waiting is told how far things are.
const progressTick = 100 * time.Millisecond

// AddLocation indexes a folder and returns when its first scan is durable.
func (n *Node) AddLocation(ctx context.Context, req AddRequest, progress func(ScanProgress)) (ScanView, error) {
	if err := n.awaitAsked(ctx); err != nil {
		return ScanView{}, err
	}
	l, err := n.indexer.Add(ctx, req.Path, catalog.Options{Name: req.Name, Ignore: req.Ignore, Hash: catalog.Policy(req.Hash)})
	if err != nil {
		return ScanView{}, addProblem(req, err)
	}
	if err := n.refresh(); err != nil {
		return ScanView{}, err
	}
	return n.awaitScan(ctx, l.ID, time.Time{}, progress)
}

// Rescan compares a location of this device with the disk and returns when done.
func (n *Node) Rescan(ctx context.Context, id string, progress func(ScanProgress)) (ScanView, error) {
	loc, err := n.ownLocation(id)
	if err != nil {
		return ScanView{}, err
	}
	before := time.Now()
	done := make(chan error, 1)
	go func() { done <- n.indexer.Rescan(ctx, loc.ID) }()
	t := time.NewTicker(progressTick)
	defer t.Stop()
	for {
		select {
		case err := <-done:
			if s, ok := n.report(loc.ID, progress); ok && s.Phase == catalog.Unavailable {
				return ScanView{}, &Problem{Code: CodeFolderMissing, Message: "cannot scan " + s.Path, Cause: s.Reason, Try: "plug the drive in, or `peer locations remove` it"}
			}
			if err != nil {
				return ScanView{}, spaceProblem(err)
			}
			return n.awaitScan(ctx, loc.ID, before, progress)
		case <-t.C:
			n.report(loc.ID, progress)
		}
	}
}

// awaitScan returns the outcome of the first full pass of a location that ends after since.
func (n *Node) awaitScan(ctx context.Context, id record.LocationID, since time.Time, progress func(ScanProgress)) (ScanView, error) {
	for {
		s, ok := n.report(id, progress)
		switch {
		case !ok: // just added, or gone
			if _, err := n.ownLocation(id.String()); err != nil {
				return ScanView{}, err
			}
		case s.Phase == catalog.Unavailable:
			return ScanView{}, &Problem{Code: CodeFolderMissing, Message: "cannot scan " + s.Path, Cause: s.Reason, Try: "peer locations"}
		case s.LastScan.After(since):
			if err := n.store.Sync(); err != nil {
				return ScanView{}, err
			}
			return n.scanView(ctx, s)
		}
		if !wait(ctx, progressTick/5) {
			return ScanView{}, ctx.Err()
		}
	}
}

func (n *Node) report(id record.LocationID, progress func(ScanProgress)) (catalog.Status, bool) {
	all := n.indexer.Status()
	i := slices.IndexFunc(all, func(s catalog.Status) bool { return s.Location == id })
	if i < 0 {
		return catalog.Status{}, false
	}
	progress(ScanProgress{Seen: uint64(all[i].Scanned), Total: uint64(all[i].Expected)})
	return all[i], true
}

func (n *Node) scanView(ctx context.Context, s catalog.Status) (ScanView, error) {
	v := ScanView{
		Added: uint64(s.Last.Added), Changed: uint64(s.Last.Changed), Removed: uint64(s.Last.Removed),
		Unchanged: uint64(s.Last.Unchanged), Ignored: uint64(s.Last.Ignored), Unreadable: uint64(s.Unreadable),
		Took: metrics.Seconds(s.Took),
	}
	views, err := n.Locations(ctx)
	if err != nil {
		return v, err
	}
	for _, l := range views {
		if l.ID == s.Location.String() {
			v.Location = l
		}
	}
	return v, nil
}

func addProblem(req AddRequest, err error) error {
	var r *catalog.Refusal
	if !errors.As(err, &r) {
		return spaceProblem(err)
	}
	p := &Problem{Code: CodeConflict, Message: fmt.Sprintf("cannot index %s", req.Path), Cause: r.Err.Error(), Try: "peer locations"}
	switch {
	case errors.Is(err, catalog.ErrMissing):
		p.Code, p.Try = CodeFolderMissing, "check the path, or plug the drive in"
	case errors.Is(err, catalog.ErrNotDirectory):
		p.Code, p.Try = CodeNotFolder, "name the folder that holds it"
	case errors.Is(err, catalog.ErrInside), errors.Is(err, catalog.ErrContains), errors.Is(err, catalog.ErrIndexed):
		p.Code, p.Cause = CodeFolderOverlap, fmt.Sprintf("%v: %s at %s", r.Err, r.Other.Name, r.Other.Path)
		p.Try = "peer ls " + r.Other.Path
	case errors.Is(err, catalog.ErrHome):
		p.Code, p.Try = CodeFolderOverlap, "name a folder with files of yours"
	case errors.Is(err, catalog.ErrNameTaken):
		p.Cause, p.Try = fmt.Sprintf("location %s is called so: %s", r.Other.Name, r.Other.Path), "--name ANOTHER"
	case errors.Is(err, catalog.ErrBadName), errors.Is(err, catalog.ErrBadIgnore), errors.Is(err, catalog.ErrBadPolicy):
		p.Code, p.Try = CodeUsage, "peer help add"
	}
	return p
}

func (n *Node) ownLocation(id string) (catalog.Location, error) {
	all, err := n.catalog.Locations()
	if err != nil {
		return catalog.Location{}, err
	}
	for _, l := range all {
		if l.ID.String() == id && l.Owner == n.self {
			return l, nil
		}
	}
	return catalog.Location{}, &Problem{Code: CodeUnknownLocation, Message: "this device has no such location", Cause: "only the device that has a folder can scan or remove it", Try: "peer locations"}
}

// RemoveLocation stops indexing a location of this device and drops its entries everywhere.
func (n *Node) RemoveLocation(ctx context.Context, id string) (LocationView, error) {
	if err := n.awaitAsked(ctx); err != nil {
		return LocationView{}, err
	}
	loc, err := n.ownLocation(id)
	if err != nil {
		return LocationView{}, err
	}
	views, err := n.Locations(ctx)
	if err != nil {
		return LocationView{}, err
	}
	var was LocationView
	for _, v := range views {
		if v.ID == id {
			was = v
		}
	}
	if err := n.indexer.Remove(ctx, loc.ID); err != nil {
		return was, err
	}
	if err := n.store.Sync(); err != nil {
		return was, err
	}
	return was, n.refresh()
}

// awaitAsked blocks until peers were asked what they hold of this device's past, where that is needed: a
// store that was restored or wiped must not be written to before.
func (n *Node) awaitAsked(ctx context.Context) error {
	select {
	case <-n.asked:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lineAddrs is how many addresses an invite's line carries.
const lineAddrs = 4

// Invite makes a secret that lets a device join.
func (n *Node) Invite(_ context.Context, req InviteRequest) (InviteView, error) {
	ttl, uses := time.Duration(req.TTL), req.Uses
	if ttl == 0 {
		ttl = inviteTTL
	}
	if uses == 0 {
		uses = 1
	}
	if ttl < 0 || uses < 0 || uses > 100 || ttl > 30*24*time.Hour {
		return InviteView{}, &Problem{Code: CodeUsage, Message: "cannot make such an invite",
			Cause: "it is good for 1 to 100 devices and at most 30 days", Try: "peer invite --ttl 10m --uses 1"}
	}
	secret, inv, err := n.newInvite(ttl, uses, time.Now())
	if err != nil {
		return InviteView{}, err
	}
	v := InviteView{Addrs: []string{}, Expires: inv.Expires, Uses: uses}
	for _, a := range protocol.FullAddrs(n.host) {
		v.Addrs = append(v.Addrs, a.String())
	}
	v.Line = strings.Join(v.Addrs[:min(len(v.Addrs), lineAddrs)], ",") + "#" + secret.Text()
	return v, nil
}

// Join pairs with the device behind req and returns when this node is in step with it.
func (n *Node) Join(ctx context.Context, req JoinRequest, progress func(JoinProgress)) error {
	j, addrs, err := parseJoin(req)
	if err != nil {
		return err
	}
	if err := n.awaitAsked(ctx); err != nil {
		return err
	}
	was := n.name()
	progress(JoinProgress{Stage: "dialing", Address: req.Addrs[0]})
	show := func(d protocol.Digits) {
		progress(JoinProgress{Stage: "waiting", Address: req.Addrs[0], Digits: string(d), Approve: approveLine(d)})
	}
	if err := n.join(ctx, addrs, j, show); err != nil {
		return err
	}
	joined := JoinProgress{Stage: "joined", Device: n.nameLocked(j.Device)}
	if name := n.name(); name != was {
		joined.Renamed = &RenameView{From: was, To: name}
	}
	progress(joined)
	for connected := false; ; {
		p, ok := n.joinState(j.Device)
		if ok && !connected {
			connected = true
			first := p
			first.Stage = "connected"
			progress(first)
		}
		if ok {
			progress(p)
		}
		if p.Stage == "in_step" {
			return nil
		}
		if err := n.whilePaused("the library is joined, and nothing comes: sync is paused"); err != nil && connected {
			return err
		}
		if !wait(ctx, progressTick) {
			return ctx.Err()
		}
	}
}

// whilePaused returns a *Problem that says why sync is paused with everybody; nil if it is not.
func (n *Node) whilePaused(message string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := &Problem{Code: CodeConflict, Message: message, Cause: n.pauseReason(time.Now()), Try: "peer sync resume"}
	if n.full {
		p.Try = "make room where the home folder is"
	}
	if p.Cause == "" {
		return nil
	}
	return p
}

func (n *Node) nameLocked(d record.DeviceID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nameOf(d)
}

// joinState tells how far this node has come with a device; false while there is no session.
func (n *Node) joinState(d record.DeviceID) (JoinProgress, bool) {
	states := n.store.States()
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[d]
	if p == nil || p.session == nil {
		return JoinProgress{}, false
	}
	out := JoinProgress{Stage: "syncing", Device: n.nameOf(d), Address: p.address, RTT: metrics.Seconds(p.rtt)}
	held := map[feed.ID]feed.State{}
	for _, st := range states {
		held[st.Feed] = st
	}
	now, here := time.Now(), true
	out.Progress, _ = n.transferring(now)
	out.Done, out.Total = 0, 0 // of all that it has, and not only of what is on its way
	for id, info := range p.heads {
		if id.Device == n.self || info.Settled == nil || !n.follow[id] || n.declines(id, now) {
			continue
		}
		left := lackingOf(held[id], *info.Settled)
		out.Total += info.Settled.Count
		out.Done += info.Settled.Count - left
		here = here && held[id].Settled != nil && held[id].Settled.Compare(*info.Settled) >= 0
	}
	for _, pull := range n.pulls {
		if pull.snapshot != nil { // all of it shows at once in the end
			out.Done = min(out.Done+pull.progress.records, out.Total)
		}
	}
	out.ETASeconds = metrics.Left(out.Total-out.Done, out.Rate).Seconds()
	for _, o := range n.set.Members() {
		if o != n.self && o != d {
			out.Met = append(out.Met, n.nameOf(o))
		}
	}
	if p.told && p.link.state == LinkConnected && here {
		out.Stage = "in_step"
	}
	return out, true
}

func parseJoin(req JoinRequest) (j protocol.Join, addrs []multiaddr.Multiaddr, err error) {
	if len(req.Addrs) == 0 {
		return j, nil, &Problem{Code: CodeBadAddress, Message: "this is not a join line", Cause: "there is no address in it", Try: "copy the whole line that `peer invite` prints on the other device, in quotes"}
	}
	for _, text := range req.Addrs {
		line := text
		if req.Secret != "" {
			line += "#" + req.Secret
		}
		one, err := protocol.ParseJoin(line)
		if err != nil {
			var bad *protocol.AddrError
			if errors.As(err, &bad) {
				return j, nil, &Problem{Code: CodeBadAddress, Message: bad.Problem, Cause: bad.Cause, Try: bad.Try}
			}
			return j, nil, err
		}
		j = one
		addrs = append(addrs, one.Addr)
	}
	return j, addrs, nil
}

// Stop asks the node to end.
func (n *Node) Stop(context.Context) (StopResult, error) {
	n.ending.Do(func() { close(n.stop) })
	return StopResult{PID: os.Getpid(), Started: n.started, Now: time.Now()}, nil
}

// Pause stops sync with one device, or with all if device is empty.
func (n *Node) Pause(_ context.Context, device string, d time.Duration) (PauseView, error) {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	target, err := n.target(device)
	if err != nil {
		return PauseView{}, err
	}
	n.setPause(target, until)
	return n.pauseView(), nil
}

// Resume ends what Pause began.
func (n *Node) Resume(_ context.Context, device string) (PauseView, error) {
	target, err := n.target(device)
	if err != nil {
		return PauseView{}, err
	}
	n.resume(target)
	return n.pauseView(), nil
}

// target reads the device that a request is about; nil means all.
func (n *Node) target(device string) (*record.DeviceID, error) {
	if device == "" {
		return nil, nil
	}
	d, err := deviceOf(device)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.peers[d] == nil || n.set.Role(d) == 0 {
		return nil, &Problem{Code: CodeUnknownDevice, Message: "no such device to sync with", Cause: n.nameOf(d) + " is not another member of this library", Try: "peer devices"}
	}
	return &d, nil
}

func (n *Node) pauseView() PauseView {
	n.decide(time.Now())
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	v := PauseView{Now: now, Paused: n.paused.active(now), Devices: n.pausedNames()}
	if v.Paused {
		v.Until = n.paused.until
	}
	return v
}

// nowTimeout bounds how long a person waits for the devices to answer.
const nowTimeout = dialTimeout + 5*time.Second

// SyncNow dials and compares heads at once, and returns when each device was tried and what was lacking then is
// here, as far as it can be had. What metered locations lack is fetched too. If ctx ends first it goes on. It returns a
// *Problem while sync is paused.
func (n *Node) SyncNow(ctx context.Context, device string, progress func(Progress)) (NowView, error) {
	target, err := n.target(device)
	if err != nil {
		return NowView{}, err
	}
	if err := n.whilePaused("nothing is fetched now: sync is paused"); err != nil {
		return NowView{}, err
	}
	n.dialNow(ctx, target, time.Now())
	if err := n.observeHeads(); err != nil { // what was told just now is not looked at yet
		return NowView{}, err
	}
	n.mu.Lock()
	n.askFor(func(id feed.ID) bool { return target == nil || id.Device == *target })
	goal := n.reachable(target, time.Now())
	n.mu.Unlock()
	n.wake()
	for n.awaited(goal, time.Now()) {
		if !wait(ctx, progressTick) {
			return NowView{}, ctx.Err()
		}
		n.mu.Lock()
		p, any := n.transferring(time.Now())
		n.mu.Unlock()
		if any {
			progress(p)
		}
	}
	devices, err := n.Devices(ctx)
	if err != nil {
		return NowView{}, err
	}
	v := NowView{Now: time.Now(), Devices: []DeviceView{}}
	for _, d := range others(devices) {
		if device == "" || d.ID == device {
			v.Devices = append(v.Devices, d)
		}
	}
	return v, nil
}

// dialNow dials devices that are not connected, and returns when each has told its heads or was dialed in vain.
func (n *Node) dialNow(ctx context.Context, target *record.DeviceID, now time.Time) {
	n.mu.Lock()
	for _, p := range n.peers {
		if target == nil || p.id == *target {
			p.link.kick()
			n.dialSoon()
			for k := range n.retries {
				if k.donor == p.id || k.donor == anyDonor {
					delete(n.retries, k)
				}
			}
		}
	}
	n.mu.Unlock()
	n.wake()
	ctx, cancel := context.WithTimeout(ctx, nowTimeout)
	defer cancel()
	for !n.tried(target, now) && wait(ctx, progressTick) {
	}
}

// tried reports whether each device has told its heads, or was dialed in vain since t.
func (n *Node) tried(target *record.DeviceID, t time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if target != nil && p.id != *target || n.set.Role(p.id) == 0 {
			continue
		}
		if p.session != nil && p.told {
			continue
		}
		if p.link.state == LinkDisconnected && p.link.failures > 0 && p.link.since.After(t) {
			continue
		}
		return false
	}
	return true
}

// reachable returns the heads of what is lacking here and wanted that a device, or one of all, can serve; n.mu is
// held.
func (n *Node) reachable(target *record.DeviceID, now time.Time) []feed.Head {
	var out []feed.Head
	for _, st := range n.lacking(now) {
		for d := range n.peers {
			if (target == nil || d == *target) && n.canServe(d, st) {
				out = append(out, *n.peers[d].heads[st.Feed].Settled)
				break
			}
		}
	}
	return out
}

// awaited reports whether one of some heads is still to come: somebody has it who did not fail since the retries were
// begun anew.
func (n *Node) awaited(heads []feed.Head, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pauseReason(now) != "" {
		return false
	}
	for _, h := range heads {
		st, _ := n.store.State(h.Feed)
		if !n.follow[h.Feed] || st.Settled != nil && st.Settled.Compare(h) >= 0 || n.declines(h.Feed, now) {
			continue
		}
		for d := range n.peers {
			if n.canServe(d, st) && n.retryOf(d, h.Feed).failures == 0 {
				return true
			}
		}
	}
	return false
}

// Refused notes that a request of a person or a program was answered with a problem.
func (n *Node) Refused(route string, code Code) {
	n.events.Add(eventlog.RequestRefused{Request: route, Code: string(code)})
}
