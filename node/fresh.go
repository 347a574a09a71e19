package node

import (
	"time"

	"peerdex/feed"
	"peerdex/record"
)

// contact is what the owner of a feed has said, as far as that tells how fresh is what is held of the feed.
type contact struct {
	online bool
	told   bool      // it has told all its heads in this session
	seen   time.Time // when it was last heard; zero: never
	head   feed.Head // the newest it has told of the feed; genesis: of none
	made   time.Time // of a location: the newest state known of its owner's device feed, which names it; else zero
}

// freshOf returns when what is held of another device's feed was last known to be all there is (zero: never), and
// whether that is known now. It is when its owner was last heard, if nobody has told of a newer head than is
// settled here, else when the head settled here was signed.
func freshOf(st feed.State, c contact) (asOf time.Time, current bool) {
	now := c.online && c.told
	heard := c.seen
	if c.online && !c.told { // it may be about to say that there is more
		heard = time.Time{}
	}
	switch {
	case st.Best.IsGenesis() && c.head.IsGenesis(): // an empty folder has no head; neither has one never told of
		if !now && (c.made.IsZero() || heard.Before(c.made)) {
			return time.Time{}, false
		}
		return heard, now
	case st.Settled == nil || st.Settled.IsGenesis():
		return time.Time{}, false
	}
	asOf = st.Settled.Stamp.Time()
	if !st.InStep() || st.Settled.Compare(c.head) < 0 {
		return asOf, false
	}
	if heard.After(asOf) {
		asOf = heard
	}
	return asOf, now
}

// freshness is freshOf for a feed of any device; this device's own is always known. n.mu is held.
func (n *Node) freshness(id feed.ID) (asOf time.Time, current bool) {
	if id.Device == n.self {
		return time.Now(), true
	}
	st, _ := n.store.State(id)
	var c contact
	if p := n.peers[id.Device]; p != nil {
		c.online, c.told, c.seen, c.head = p.session != nil, p.told, p.seen, p.heads[id].Best
	}
	if !id.IsDevice() {
		if owner, _ := n.store.State(feed.ID{Device: id.Device}); owner.Settled != nil {
			c.made = owner.Settled.Stamp.Time()
		}
	}
	return freshOf(st, c)
}

// deviceFreshness is the freshness of the least fresh of all that is kept of a device; n.mu is held.
func (n *Node) deviceFreshness(d record.DeviceID) (asOf time.Time, current bool) {
	asOf, current = n.freshness(feed.ID{Device: d})
	for id := range n.follow {
		if id.Device != d || n.fetchOf(id) == FetchLazy { // of a lazy one each answer says how fresh it is
			continue
		}
		at, now := n.freshness(id)
		asOf, current = staler(asOf, at), current && now
	}
	return asOf, current
}

// staler returns the earlier of two times; zero is the earliest.
func staler(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// answered makes what is said of a device no fresher than what was answered for its lazy locations.
func (v *DeviceView) answered(asked []Asked) {
	for _, a := range asked {
		if a.Device != v.ID {
			continue
		}
		v.AsOf, v.Current = staler(v.AsOf, a.AsOf), v.Current && a.Via == a.Device
	}
}
