package node

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"peerdex/catalog"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/internal/english"
	"peerdex/member"
	"peerdex/metrics"
	"peerdex/protocol"
	"peerdex/record"
)

// nameOf returns what a device is called, or its short id; n.mu is held.
func (n *Node) nameOf(d record.DeviceID) string {
	if d == n.self {
		return n.label
	}
	return cmp.Or(n.facts[d].name, n.paired[d], d.Short())
}

func (n *Node) name() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.label
}

func (n *Node) osName() string { return runtime.GOOS }

func (n *Node) stateNow() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.phase.state
}

// Status answers "is it fine?".
func (n *Node) Status(ctx context.Context) (Status, error) {
	devices, err := n.Devices(ctx)
	if err != nil {
		return Status{}, err
	}
	locations, err := n.Locations(ctx)
	if err != nil {
		return Status{}, err
	}
	n.mu.Lock()
	ph, lib := n.phase, n.lib.id
	n.mu.Unlock()
	s := Status{
		Now: time.Now(), Version: n.cfg.Version, PID: os.Getpid(), Started: n.started, Boot: fmt.Sprintf("%016x", n.boot),
		Home: string(n.home), Library: hex.EncodeToString(lib[:]), State: ph.state, Reason: ph.reason, Since: ph.since,
		Listen: []string{}, Devices: devices, Locations: []LocationView{}, Attention: []Attention{},
	}
	for _, a := range protocol.FullAddrs(n.host) {
		s.Listen = append(s.Listen, a.String())
	}
	for _, d := range devices {
		s.Files, s.Dirs, s.Bytes = s.Files+d.Files, s.Dirs+d.Dirs, s.Bytes+d.Bytes
	}
	for _, l := range locations {
		if l.Self {
			s.Locations = append(s.Locations, l)
		}
	}
	if s.Requests, err = n.Requests(ctx); err != nil {
		return s, err
	}
	s.Attention = append(append(s.Attention, n.attention(s)...), fetchAttention(locations)...)
	slices.SortStableFunc(s.Attention, func(a, b Attention) int { return strings.Compare(a.Severity, b.Severity) }) // problem, warning
	return s, nil
}

// attention lists what a person should know, worst first.
func (n *Node) attention(s Status) (out []Attention) {
	if n.store.Frozen() {
		out = append(out, Attention{Severity: "problem",
			Text: "this device's identity is in use twice: nothing it does is recorded any more", Try: "peer sync events --event-type feed_cloned"})
	}
	for _, r := range s.Requests {
		out = append(out, Attention{Severity: "warning", Text: fmt.Sprintf("%s asks to join; approve only if it shows the digits %s", r.Name, r.Digits), Try: r.Approve})
	}
	out = append(out, standingAttention(s.Devices)...)
	for _, l := range s.Locations {
		switch {
		case l.State == "gone":
			out = append(out, Attention{Severity: "problem", Text: fmt.Sprintf("%s is not there: %s", l.Path, l.Cause), Try: "peer locations show " + l.Name})
		case l.Unreadable > 0:
			out = append(out, Attention{Severity: "warning", Text: fmt.Sprintf("%s below %s cannot be read", english.Plural(l.Unreadable, "path", "paths"), l.Path), Try: "peer locations show " + l.Name})
		case l.State == "polling":
			out = append(out, Attention{Severity: "warning", Text: fmt.Sprintf("%s is not watched: %s", l.Path, l.Cause), Try: "peer locations show " + l.Name})
		}
	}
	for _, d := range s.Devices {
		if time.Duration(d.ClockOffset).Abs() > skewWarn {
			out = append(out, Attention{Severity: "warning", Device: d.ID,
				Text: fmt.Sprintf("its clock differs from ours by %s", time.Duration(d.ClockOffset).Abs().Round(time.Second)), Try: "set the clocks of both devices"})
		}
	}
	return out
}

// standingAttention says what is odd about who belongs.
func standingAttention(devices []DeviceView) (out []Attention) {
	var self DeviceView
	for _, d := range devices {
		switch {
		case d.Self:
			self = d
			if d.Gone != "" {
				out = append(out, Attention{Severity: "problem", Text: "this device was put out of the library: the others refuse it", Try: "peer leave"})
			}
		case d.Gone == "" && d.Name == self.Name:
			out = append(out, Attention{Severity: "warning", Device: d.ID, Text: "another device has the same name as this one", Try: "peer devices rename ANOTHER-NAME"})
		}
	}
	return out
}

// Devices returns every member, this device first, then by name, and after them the devices that were revoked
// or have left.
func (n *Node) Devices(context.Context) ([]DeviceView, error) {
	states := map[feed.ID]feed.State{}
	for _, st := range n.store.States() {
		states[st.Feed] = st
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []DeviceView{}
	all := n.set.Members()
	for _, gone := range n.set.Gone() {
		if gone.Kind != member.Forget {
			all = append(all, gone.Device)
		}
	}
	if !slices.Contains(all, n.self) { // put out, and forgotten
		all = append(all, n.self)
	}
	for _, d := range all {
		v := DeviceView{ID: idText(d), Short: d.Short(), Name: n.nameOf(d), Self: d == n.self, Link: LinkDisconnected}
		v.OS, v.Version = n.facts[d].os, n.facts[d].version
		n.viewStanding(&v, d)
		v.AsOf, v.Current = n.deviceFreshness(d)
		for id := range states {
			if id.Device != d || !n.follow[id] {
				continue
			}
			counts := n.store.Counts(id)
			v.Files, v.Dirs, v.Bytes = v.Files+counts.Files, v.Dirs+counts.Dirs, v.Bytes+counts.Bytes
		}
		if v.Self {
			v.OS, v.Version, v.Link, v.Online, v.Seen = runtime.GOOS, n.cfg.Version, LinkConnected, true, time.Now()
		} else if p := n.peers[d]; p != nil {
			n.viewPeer(&v, p, states)
		}
		out = append(out, v)
	}
	order := func(v DeviceView) int {
		switch {
		case v.Self:
			return 0
		case v.Gone == "":
			return 1
		}
		return 2
	}
	slices.SortFunc(out, func(a, b DeviceView) int {
		return cmp.Or(order(a)-order(b), strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return out, nil
}

// viewStanding fills in whether a device belongs; n.mu is held.
func (n *Node) viewStanding(v *DeviceView, d record.DeviceID) {
	if role := n.set.Role(d); role != 0 {
		v.Role, v.Added = role.String(), n.set.Added(d).Time()
		return
	}
	gone, out := n.set.Removed(d)
	if !out {
		return
	}
	v.Gone, v.GoneSince, v.Seen = n.goneAs(d), gone.Stamp.Time(), n.past[d]
	if gone.Added != 0 {
		v.Added = gone.Added.Time()
	}
	switch {
	case !gone.Kind.Removes():
	case gone.By == [32]byte(n.lib.root):
		v.GoneBy = "root"
	default:
		v.GoneBy = idText(gone.By)
	}
}

// goneAs says how a device is out, or nothing; n.mu is held.
func (n *Node) goneAs(d record.DeviceID) string {
	gone, out := n.set.Removed(d)
	switch {
	case !out:
		return ""
	case gone.Kind.Removes():
		return GoneRevoked
	}
	return GoneLeft
}

// viewPeer fills in what is known of another device; n.mu is held.
func (n *Node) viewPeer(v *DeviceView, p *peer, states map[feed.ID]feed.State) {
	v.Link, v.Online, v.Seen = p.link.state, p.session != nil, p.seen
	v.RTT, v.ClockOffset = metrics.Seconds(p.rtt), metrics.Seconds(p.offset)
	v.Paused, v.Failures, v.LastError = p.paused.active(time.Now()), p.link.failures, p.link.lastErr
	if p.session != nil {
		v.Address = p.address
	}
	if p.told || len(p.heads) > 0 {
		in, out := n.lags(p, states)
		v.WeLack, v.ItLacks = &in, &out
	}
}

// lags returns the changes a peer has and this node lacks, and the other way round, as far as both have
// told; n.mu is held.
func (n *Node) lags(p *peer, states map[feed.ID]feed.State) (in, out uint64) {
	at := func(h *feed.Head) uint64 {
		if h == nil {
			return 0
		}
		return h.Seq
	}
	for id := range n.follow {
		if n.fetchOf(id) == FetchLazy || p.heads[id].Declines && p.heads[id].Settled == nil { // nothing of it is wanted
			continue
		}
		ours, theirs := at(states[id].Settled), at(p.heads[id].Settled)
		if id.Device == n.self && p.session != nil {
			if held, ok := p.session.sender.Held(id); ok {
				theirs = max(theirs, held.Seq)
			}
		}
		switch {
		case theirs > ours:
			in += theirs - ours
		default:
			out += ours - theirs
		}
	}
	return in, out
}

// Locations returns the folders of every device: this one's first, then by device and path.
func (n *Node) Locations(context.Context) ([]LocationView, error) {
	all, err := n.catalog.Locations()
	if err != nil {
		return nil, err
	}
	status := map[record.LocationID]catalog.Status{}
	for _, s := range n.indexer.Status() {
		status[s.Location] = s
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []LocationView{}
	for _, l := range all {
		if !n.follow[feed.ID{Device: l.Owner}] {
			continue
		}
		out = append(out, n.viewLocation(l, status[l.ID]))
	}
	slices.SortFunc(out, func(a, b LocationView) int {
		if a.Self != b.Self {
			if a.Self {
				return -1
			}
			return 1
		}
		return strings.Compare(a.DeviceName+"\x00"+a.Device+"\x00"+a.Path, b.DeviceName+"\x00"+b.Device+"\x00"+b.Path)
	})
	return out, nil
}

// viewLocation makes the view of one location; n.mu is held.
func (n *Node) viewLocation(l catalog.Location, s catalog.Status) LocationView {
	counts := n.store.Counts(l.Feed())
	v := LocationView{
		ID: l.ID.String(), Device: idText(l.Owner), DeviceName: n.nameOf(l.Owner), Gone: n.goneAs(l.Owner), Self: l.Owner == n.self,
		Name: l.Name, Path: l.Path, Files: counts.Files, Dirs: counts.Dirs, Bytes: counts.Bytes, Online: n.online(l.Owner),
	}
	v.AsOf, v.Current = n.freshness(l.Feed())
	if !v.Self {
		n.viewFetch(&v, l.Feed())
		return v
	}
	v.Ignore = l.Ignore
	v.Hash, v.Unhashed = string(l.Hash), uint64(s.Unhashed)
	v.State, v.Cause = stateOfPhase(s.Phase), s.Reason
	v.Ignored, v.Unreadable = uint64(s.Last.Ignored), uint64(s.Unreadable)
	v.LastScan, v.ScanTook = s.LastScan, metrics.Seconds(s.Took)
	for _, u := range s.Samples {
		v.Samples = append(v.Samples, UnreadableView{Path: u.Path, Reason: u.Reason})
	}
	return v
}

func stateOfPhase(p catalog.Phase) string {
	switch p {
	case "": // the indexer does not know the location yet, or does not run
		return "waiting"
	case catalog.Unavailable:
		return "gone"
	case catalog.Watching, catalog.Polling:
		return string(p)
	}
	return "scanning"
}

// online reports whether a device is connected, or this one; n.mu is held.
func (n *Node) online(d record.DeviceID) bool {
	if d == n.self {
		return true
	}
	p := n.peers[d]
	return p != nil && p.session != nil
}

// SyncStatus tells what is moving.
func (n *Node) SyncStatus(ctx context.Context) (SyncStatus, error) {
	devices, err := n.Devices(ctx)
	if err != nil {
		return SyncStatus{}, err
	}
	snapshot := n.metrics.Snapshot(time.Now())
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	s := SyncStatus{
		Now: now, State: n.phase.state, Reason: n.phase.reason, Since: n.phase.since,
		Sessions: []SessionView{}, Devices: others(devices),
	}
	if n.paused.active(now) {
		s.PausedUntil = n.paused.until
	}
	for _, p := range n.pulls {
		s.Sessions = append(s.Sessions, n.sessionView(p, now))
	}
	s.Serving = n.handingViews(now)
	slices.SortFunc(s.Sessions, func(a, b SessionView) int { return strings.Compare(a.ID, b.ID) })
	s.Queues.Retry = uint64(len(n.retries))
	if b := snapshot.Operations.Buffered; b != nil {
		s.Queues.Apply = uint64(*b)
	}
	for id := range n.follow {
		s.Queues.WaitingParents += uint64(n.catalog.Orphans(id).Entries)
	}
	return s, nil
}

// sessionView says how far a transfer is; n.mu is held.
func (n *Node) sessionView(p *pulling, now time.Time) SessionView {
	return SessionView{
		ID: eventlog.ID(p.id).String(), Kind: p.kind, Device: idText(p.donor), Name: n.nameOf(p.donor),
		Started: p.started, Why: p.why, Strategy: p.strategy, Progress: p.progress.view(now),
	}
}

// others returns the members but for this device.
func others(all []DeviceView) []DeviceView {
	return slices.DeleteFunc(all, func(d DeviceView) bool { return d.Self || d.Gone != "" })
}

// Metrics returns every number as of now.
func (n *Node) Metrics(context.Context) (metrics.Snapshot, error) {
	n.measure(time.Now())
	return n.metrics.Snapshot(time.Now()), nil
}

// Events returns a page of this device's event log; see eventlog.Log.Query.
func (n *Node) Events(_ context.Context, q eventlog.Query) ([]eventlog.Event, eventlog.Cursor, error) {
	return n.events.Query(q)
}

// WatchEvents returns a channel that receives when there are new events; see eventlog.Log.Watch.
func (n *Node) WatchEvents() (<-chan struct{}, func()) { return n.events.Watch() }

// HTTPRequest counts a request to the local API.
func (n *Node) HTTPRequest(route string, code int, d time.Duration) {
	n.metrics.HTTPRequest(route, code, d)
}
