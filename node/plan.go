package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"peerdex/backfill"
	"peerdex/catalog"
	"peerdex/feed"
	"peerdex/internal/english"
	"peerdex/metrics"
	"peerdex/record"
)

// PlanView says of each followed feed that is behind what would be done about it now, or once sync as a whole is no
// longer paused. Nothing is done.
type PlanView struct {
	Now    time.Time  `json:"now"`
	Paused string     `json:"paused,omitempty"` // why nothing is fetched at present
	Feeds  []FeedPlan `json:"feeds"`            // by device and location

	Thresholds Thresholds `json:"thresholds"` // by which it is chosen
}

// FeedPlan is what would be done about one feed.
type FeedPlan struct {
	Feed       string          `json:"feed"`
	Device     string          `json:"device"` // peer ID of the owner
	DeviceName string          `json:"device_name"`
	Location   string          `json:"location,omitempty"` // hex of record.LocationID; empty: the device's own feed
	Name       string          `json:"name,omitempty"`     // of the location
	Fetch      string          `json:"fetch"`              // eager, lazy or metered
	Settled    uint64          `json:"settled_seq"`        // 0: nowhere
	Best       uint64          `json:"best_seq"`
	Lacks      uint64          `json:"lacks"`              // entries, at most
	Decision   string          `json:"decision"`           // fetch, on_demand, wait or refuse
	Why        string          `json:"why"`                // of the decision: a word of a closed list
	Strategy   string          `json:"strategy,omitempty"` // push, pages, bulk or snapshot; empty: nothing is fetched
	Road       string          `json:"road,omitempty"`     // delta or diff, from Donor; empty for a push and a snapshot
	Reason     string          `json:"reason"`             // in words
	Donor      string          `json:"donor,omitempty"`    // peer ID
	DonorName  string          `json:"donor_name,omitempty"`
	Running    bool            `json:"running,omitempty"` // it is being done
	Candidates []CandidateView `json:"candidates"`        // the best first; those that cannot serve too
}

// CandidateView is a device that a feed might come from, with everything it is judged by.
type CandidateView struct {
	Device      string          `json:"device"`
	Name        string          `json:"name"`
	Serves      bool            `json:"serves"` // it is online, and settled where the feed can go from here
	Settled     uint64          `json:"settled_seq"`
	Online      bool            `json:"online"`
	Complete    float64         `json:"complete"` // share of all that is lacking here that it is settled at
	Latency     metrics.Seconds `json:"latency_seconds"`
	ActiveSyncs int             `json:"active_syncs"`
	Failed      bool            `json:"failed,omitempty"` // a session with it failed within ten minutes
	Score       float64         `json:"score"`
}

// SyncPlan says what would be done now about each feed that is behind, of one device or (empty) of all.
func (n *Node) SyncPlan(_ context.Context, device string) (PlanView, error) {
	target, err := n.target(device)
	if err != nil {
		return PlanView{}, err
	}
	locations, err := n.catalog.Locations()
	if err != nil {
		return PlanView{}, err
	}
	names := map[feed.ID]catalog.Location{}
	for _, l := range locations {
		names[l.Feed()] = l
	}
	now := time.Now()
	out := PlanView{Now: now, Feeds: []FeedPlan{}, Thresholds: n.cfg.Thresholds}
	states := n.store.States()
	n.mu.Lock()
	defer n.mu.Unlock()
	out.Paused = n.pauseReason(now)
	order := backfill.Elect(now, n.candidates(n.lacking(now)))
	for _, st := range states {
		if id := st.Feed; !n.follow[id] || id.Device == n.self || st.InStep() || st.Best.IsGenesis() || target != nil && id.Device != *target {
			continue
		}
		f := n.planFeed(st, order, now)
		if l, ok := names[st.Feed]; ok {
			f.Location, f.Name = l.ID.String(), l.Name
		}
		out.Feeds = append(out.Feeds, f)
	}
	n.planSnapshots(out.Feeds, states, now)
	return out, nil
}

// planSnapshots says which feeds would come as a snapshot; n.mu is held.
func (n *Node) planSnapshots(feeds []FeedPlan, states []feed.State, now time.Time) {
	ids := map[string]feed.ID{}
	for _, st := range states {
		ids[st.Feed.String()] = st.Feed
	}
	for d := range n.peers {
		p := &pulling{donor: d}
		for _, f := range feeds {
			if id := ids[f.Feed]; f.Road != "" && f.Donor == idText(d) && !id.IsDevice() {
				p.feeds = append(p.feeds, id)
			}
		}
		n.planSnapshot(p, now)
		for i, f := range feeds {
			switch in := slices.Contains(p.feeds, ids[f.Feed]); {
			case in && p.snapshot != nil:
				feeds[i].Strategy, feeds[i].Road, feeds[i].Reason = StrategySnapshot, "", p.snapshot.why
			case in:
				feeds[i].Reason += p.instead
			}
		}
	}
}

// planFeed is what would be done about one feed; n.mu is held.
func (n *Node) planFeed(st feed.State, order []backfill.Candidate, now time.Time) FeedPlan {
	f := FeedPlan{
		Feed: st.Feed.String(), Device: idText(st.Feed.Device), DeviceName: n.nameOf(st.Feed.Device), Best: st.Best.Seq,
		Fetch: string(n.fetchOf(st.Feed)), Candidates: []CandidateView{},
	}
	if st.Settled != nil {
		f.Settled = st.Settled.Seq
	}
	f.Decision, f.Why, f.Lacks = n.decideOn(st, now)
	var donor *record.DeviceID
	for _, c := range order {
		v := CandidateView{
			Device: idText(c.Device), Name: n.nameOf(c.Device), Serves: n.offers(c.Device, st, n.orphans[st.Feed]), Online: c.Online, Complete: c.Complete,
			Latency: metrics.Seconds(c.Latency), ActiveSyncs: c.ActiveSyncs, Failed: c.Lately(now), Score: c.Score(now),
		}
		if at := n.peers[c.Device].heads[st.Feed].Settled; at != nil {
			v.Settled = at.Seq
		}
		if v.Serves && donor == nil {
			donor = &c.Device
		}
		f.Candidates = append(f.Candidates, v)
	}
	for _, p := range n.pulls {
		f.Running = f.Running || p.now.feed == st.Feed
	}
	switch f.Decision {
	case DecideOnDemand:
		f.Reason = "it is lazy: whoever is settled is asked when you ask"
	case DecideWait:
		f.Reason = "it is metered, and more than " + english.Plural(n.cfg.Thresholds.Bulk, "entry", "entries") + " at once wait for `peer sync now`"
	case DecideRefuse:
		f.Reason = "the disk has no room for it"
	case DecideFetch:
		n.planFetch(&f, st, donor, now)
	}
	return f
}

// planFetch says by which way and road a feed would come, and from whom; n.mu is held.
func (n *Node) planFetch(f *FeedPlan, st feed.State, donor *record.DeviceID, now time.Time) {
	if donor == nil {
		f.Reason = "nobody who is connected holds it"
		return
	}
	var why string
	if owner := n.peers[st.Feed.Device]; n.graceIf(owner != nil && owner.session != nil && !owner.paused.active(now), st, now) > 0 {
		f.Strategy, why = strategy(f.Lacks, n.cfg.Thresholds, true)
		f.Donor, f.DonorName = idText(st.Feed.Device), n.nameOf(st.Feed.Device)
		f.Reason = fmt.Sprintf("up to %s lacking: %s", english.Count(f.Lacks), why)
		return
	}
	head := *n.peers[*donor].heads[st.Feed].Settled
	route := st.DecideRoute(head, n.orphans[st.Feed])
	f.Strategy, why = strategy(lackingOf(st, head), n.cfg.Thresholds, false)
	f.Donor, f.DonorName, f.Road = idText(*donor), n.nameOf(*donor), route.Road.String()
	f.Reason = fmt.Sprintf("up to %s lacking: %s; %s: %s", english.Count(f.Lacks), why, f.Road, strings.ReplaceAll(route.Reason, "_", " "))
}
