package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"peerdex/backfill"
	"peerdex/catalog"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/internal/english"
	"peerdex/store"
)

// fetchPrefix and 48 bytes of feed.ID name the local fact what Fetch a person set for a location.
const fetchPrefix = "fetch "

// loadFetch reads the policies that were set before.
func (n *Node) loadFetch() error {
	return n.store.Locals(fetchPrefix, func(name string, value []byte) error {
		id := []byte(name[len(fetchPrefix):])
		if len(id) != feed.IDSize || !slices.Contains(Fetches, Fetch(value)) {
			return fmt.Errorf("local fact %q is damaged", name)
		}
		n.fetch[feed.ParseID(id)] = Fetch(value)
		return nil
	})
}

// fetchOf returns the policy of a feed; n.mu is held.
func (n *Node) fetchOf(id feed.ID) Fetch {
	if p, set := n.fetch[id]; set {
		return p
	}
	return FetchEager
}

// lazy reports whether a feed is followed by head only.
func (n *Node) lazy(id feed.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fetchOf(id) == FetchLazy
}

// meterWindow is the time in which entries of a metered location add up.
const meterWindow = time.Hour

// meter counts what comes of a metered location.
type meter struct {
	since time.Time
	at    uint64 // seq that was held then
	asked uint64 // up to this seq a person wants it, and it does not count
}

// look begins another window once one is over, and returns how much came in it that was not asked for.
func (m *meter) look(now time.Time, at uint64) (recent uint64) {
	if passed := now.Sub(m.since); passed < 0 || passed >= meterWindow {
		m.since, m.at = now, at
	}
	from := max(m.at, min(m.asked, at))
	return at - min(from, at)
}

// decideOn says what to do about the entries that a feed of another device lacks; n.mu is held.
func (n *Node) decideOn(st feed.State, now time.Time) (decision, why string, lacks uint64) {
	at := heldSeq(st)
	lacks = lackingOf(st, st.Best)
	c := FetchCase{Policy: n.fetchOf(st.Feed), Settled: st.InStep(), Lacks: lacks, Bulk: n.cfg.Thresholds.Bulk}
	if c.Policy == FetchMetered {
		m := n.meters[st.Feed]
		c.Recent = m.look(now, at)
		c.Asked = max(m.asked, at) - at
		n.meters[st.Feed] = m
	}
	if lacks > c.Bulk {
		c.Room = n.room()
	}
	decision, why = DecideEntries(c)
	return decision, why, lacks
}

// heldSeq is how far the entries held of a feed are known to reach: what was settled last is still here in the
// middle of a tree diff, but for what differs.
func heldSeq(st feed.State) uint64 {
	switch {
	case st.Settled != nil:
		return st.Settled.Seq
	case st.Cursor != nil:
		return max(st.Cursor.Seq, st.Floor.Seq)
	case st.Count > 0:
		return st.Floor.Seq
	}
	return 0
}

// lackingOf is how many entries a feed lacks of a head, at most.
func lackingOf(st feed.State, h feed.Head) uint64 {
	return min(h.Seq-min(h.Seq, heldSeq(st)), h.Count)
}

// room returns how many bytes may be written before the disk counts as almost full; zero if that is not known.
func (n *Node) room() uint64 {
	free := n.store.Free()
	if free == 0 {
		return 0
	}
	return max(1, free-min(free, store.MinFree))
}

// declines reports whether no entries are taken of a feed at present; n.mu is held.
func (n *Node) declines(id feed.ID, now time.Time) bool {
	if id.Device == n.self || id.IsDevice() {
		return false
	}
	st, _ := n.store.State(id)
	return n.declinesAt(st, now)
}

// declinesAt is declines for a location of another device in a state; n.mu is held.
func (n *Node) declinesAt(st feed.State, now time.Time) bool {
	decision, _, _ := n.decideOn(st, now)
	return decision != DecideFetch && decision != DecideInStep
}

// declinesPush reports whether what leads to a head is not taken from a push.
func (n *Node) declinesPush(next feed.Head) bool {
	if next.Feed.IsDevice() {
		return false
	}
	st, _ := n.store.State(next.Feed)
	if next.Compare(st.Best) > 0 {
		st.Best = next
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.declinesAt(st, time.Now())
}

// declined is declines for who does not hold n.mu.
func (n *Node) declined(id feed.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.declines(id, time.Now())
}

// askFor makes what metered locations lack now be fetched, of one device or of all; n.mu is held.
func (n *Node) askFor(from func(feed.ID) bool) {
	for id := range n.follow {
		if n.fetchOf(id) != FetchMetered || !from(id) {
			continue
		}
		st, _ := n.store.State(id)
		m := n.meters[id]
		m.asked = max(m.asked, st.Best.Seq)
		n.meters[id] = m
	}
}

// SetFetch changes whether the entries of another device's location are kept here. What is kept of one that
// becomes lazy is given up before it returns; what becomes eager is fetched afterwards.
func (n *Node) SetFetch(ctx context.Context, device, id string, policy Fetch) (LocationView, error) {
	if !slices.Contains(Fetches, policy) {
		return LocationView{}, &Problem{Code: CodeUsage, Message: fmt.Sprintf("cannot fetch %q", policy),
			Cause: "it is eager, lazy or metered", Try: "peer help locations set"}
	}
	l, err := n.locationOf(device, id)
	if err != nil {
		return LocationView{}, err
	}
	if l.Owner == n.self {
		return LocationView{}, &Problem{Code: CodeConflict, Message: fmt.Sprintf("location %q is a folder of this device", l.Name),
			Cause: "its entries are made here, not fetched", Try: "run the command on another device"}
	}
	at := l.Feed()
	value := []byte(policy)
	if policy == FetchEager {
		value = nil
	}
	if err := n.store.SetLocal(fetchPrefix+string(at.Append(nil)), value); err != nil {
		return LocationView{}, spaceProblem(err)
	}
	st, _ := n.store.State(at)
	now := time.Now()
	n.mu.Lock()
	was := n.fetchOf(at)
	n.fetch[at] = policy
	n.meters[at] = meter{since: now, at: heldSeq(st)}
	for _, p := range n.pulls {
		if slices.Contains(p.feeds, at) && p.cancel != nil && n.declines(at, now) {
			p.cancel(nil)
		}
	}
	n.mu.Unlock()
	if was != policy {
		n.events.Add(eventlog.LocationFetchChanged{Device: l.Owner.Short(), Location: l.ID.String(), Name: l.Name, Fetch: string(policy), Was: string(was)}, eventlog.Peer(idText(l.Owner)))
	}
	for policy == FetchLazy {
		kept, err := n.giveUp(at)
		if err != nil {
			return LocationView{}, spaceProblem(err)
		}
		if !kept {
			break
		}
		if !wait(ctx, progressTick/10) { // what was being written ends now
			return LocationView{}, ctx.Err()
		}
	}
	if err := n.store.Sync(); err != nil {
		return LocationView{}, err
	}
	n.wake()
	return n.locationView(ctx, l)
}

// giveUp forgets the entries of a lazy location, and remembers the head. It reports whether they are kept
// still, because somebody is writing the feed.
func (n *Node) giveUp(id feed.ID) (kept bool, err error) {
	release, ok := n.store.Claim(id)
	if !ok {
		return true, nil
	}
	defer release()
	st, ok := n.store.State(id)
	if !ok || !holdsAny(st) {
		return false, nil
	}
	generation := n.store.Generation()
	if err := n.store.Drop(id); err != nil && !errors.Is(err, store.ErrUnknownFeed) {
		return true, err
	}
	_, err = n.store.Observe([]feed.Head{st.Best}, generation)
	if errors.Is(err, store.ErrGeneration) || errors.Is(err, store.ErrNoSpace) { // it will be told again
		err = nil
	}
	return false, err
}

// overfull reports whether entries are held of a feed that is followed by head only: the node was cut off while
// it gave them up.
func (n *Node) overfull(st feed.State) bool {
	return holdsAny(st) && n.lazy(st.Feed)
}

// holdsAny reports whether anything but a head is held of a feed.
func holdsAny(st feed.State) bool {
	return st.Count > 0 || st.Settled != nil || st.Cursor != nil || !st.Floor.IsGenesis()
}

// locationOf returns a location of any device.
func (n *Node) locationOf(device, id string) (catalog.Location, error) {
	all, err := n.catalog.Locations()
	if err != nil {
		return catalog.Location{}, err
	}
	for _, l := range all {
		if l.ID.String() == id && idText(l.Owner) == device {
			return l, nil
		}
	}
	return catalog.Location{}, &Problem{Code: CodeUnknownLocation, Message: "there is no such location", Cause: "it may have been removed just now", Try: "peer locations"}
}

func (n *Node) locationView(ctx context.Context, l catalog.Location) (LocationView, error) {
	views, err := n.Locations(ctx)
	if err != nil {
		return LocationView{}, err
	}
	for _, v := range views {
		if v.ID == l.ID.String() && v.Device == idText(l.Owner) {
			return v, nil
		}
	}
	return LocationView{}, &Problem{Code: CodeUnknownLocation, Message: "the location was removed meanwhile", Try: "peer locations"}
}

// viewFetch fills in what becomes of the entries of another device's location; n.mu is held.
func (n *Node) viewFetch(v *LocationView, id feed.ID) {
	st, _ := n.store.State(id)
	decision, why, lacks := n.decideOn(st, time.Now())
	v.Fetch, v.Entries = string(n.fetchOf(id)), st.Best.Count
	switch decision {
	case DecideWait, DecideRefuse:
		v.Waits, v.Lacks = why, lacks
	case DecideFetch:
		v.Lacks = lacks
		v.From, v.Paused = n.comesFrom(st, time.Now())
	case DecideOnDemand:
		v.AsOf, v.Current = time.Time{}, false
		if !st.Best.IsGenesis() {
			v.AsOf = st.Best.Stamp.Time()
		}
	}
}

// comesFrom returns the name of the device that a feed that is behind comes from, or why it does not come though there
// is one; n.mu is held.
func (n *Node) comesFrom(st feed.State, now time.Time) (name, paused string) {
	for _, p := range n.pulls {
		if slices.Contains(p.feeds, st.Feed) {
			return n.nameOf(p.donor), ""
		}
	}
	if why := n.pauseReason(now); why != "" {
		return "", why
	}
	for _, c := range backfill.Elect(now, n.candidates(n.lacking(now))) {
		switch p := n.peers[c.Device]; {
		case n.offers(c.Device, st, n.orphans[st.Feed]):
			return n.nameOf(c.Device), ""
		case p.session != nil && p.paused.active(now) && p.heads[st.Feed].Settled != nil:
			paused = "sync with " + n.nameOf(c.Device) + " is paused"
		}
	}
	return "", paused
}

// fetchAttention says which locations wait for somebody.
func fetchAttention(locations []LocationView) (out []Attention) {
	for _, l := range locations {
		name := l.DeviceName + ":" + l.Name
		switch {
		case l.Waits == "":
		case strings.HasPrefix(l.Waits, whyDisk):
			out = append(out, Attention{Severity: "problem", Device: l.Device, Text: fmt.Sprintf("up to %s of %s, for which this device's disk has no room", english.Plural(l.Lacks, "entry is lacking", "entries are lacking"), l.Name),
				Try: "peer locations set " + name + " --fetch lazy"})
		default:
			out = append(out, Attention{Severity: "problem", Device: l.Device, Text: fmt.Sprintf("%s is metered, and has changed by up to %s for `peer sync now`", l.Name, english.Plural(l.Lacks, "entry, which waits", "entries, which wait")),
				Try: "peer sync now"})
		}
	}
	return out
}
