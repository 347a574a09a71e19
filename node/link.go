package node

import (
	"math/rand/v2"
	"time"

	"peerdex/feed"
)

// link is the connection state of one device, as a state machine of events with times.
//
//	disconnected ─dial─► connecting ─session─► syncing ─settled─► connected
//	      ▲                  │                    │                   │
//	      └──────────────────┴────────────────────┴───────────────────┘
type link struct {
	state    string
	since    time.Time
	failures int       // consecutive failed attempts
	retryAt  time.Time // when to dial next; zero: at once
	sawAt    time.Time // when an announcement last brought the next dial forward
	lastErr  string
	want     map[feed.ID]feed.Head // what the peer had and we lacked when the session began; nil until it told
}

// Backoff of dialing: 1 s doubling to a minute, each with up to a quarter of jitter, so that devices
// that lost the same network do not return in step.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

func newLink(now time.Time) link { return link{state: LinkDisconnected, since: now} }

func (l *link) enter(state string, now time.Time) {
	if l.state != state {
		l.state, l.since = state, now
	}
}

// due reports whether to dial now.
func (l *link) due(now time.Time) bool {
	return l.state == LinkDisconnected && !now.Before(l.retryAt)
}

func (l *link) dialing(now time.Time) { l.enter(LinkConnecting, now) }

// failed notes an attempt that came to nothing, and why.
func (l *link) failed(now time.Time, why string) {
	l.enter(LinkDisconnected, now)
	l.failures++
	wait := min(firstRetry<<min(l.failures-1, 10), lastRetry)
	l.retryAt = now.Add(wait + rand.N(wait/4))
	l.lastErr = why
}

// opened notes that a session has begun; what the peer has is not known yet.
func (l *link) opened(now time.Time) {
	l.enter(LinkSyncing, now)
	l.failures, l.lastErr, l.want = 0, "", nil
}

// told notes, once in a session, the heads of what the peer has and this device lacks.
func (l *link) told(want map[feed.ID]feed.Head) {
	if l.want == nil {
		l.want = want
	}
}

// look moves on to connected when what was missing at connect has settled; settled returns where a feed
// is settled here, and false for a feed that is no longer followed.
func (l *link) look(now time.Time, settled func(feed.ID) (at *feed.Head, followed bool)) {
	if l.state != LinkSyncing || l.want == nil {
		return
	}
	for id, h := range l.want {
		at, followed := settled(id)
		if !followed || at != nil && at.Compare(h) >= 0 {
			delete(l.want, id)
		}
	}
	if len(l.want) == 0 {
		l.enter(LinkConnected, now)
	}
}

// closed notes the end of a session: the device is dialed again soon.
func (l *link) closed(now time.Time) {
	l.enter(LinkDisconnected, now)
	l.want = nil
	if soon := now.Add(rand.N(firstRetry / 4)); soon.After(l.retryAt) {
		l.retryAt = soon
	}
}

// sightedEvery is how often announcements may bring a dial forward: anybody on the network can make them.
const sightedEvery = 10 * time.Second

// sighted notes that the device seems to be on the local network: it is dialed after wait.
func (l *link) sighted(now time.Time, wait time.Duration) {
	if at := now.Add(wait); at.Before(l.retryAt) && now.Sub(l.sawAt) >= sightedEvery {
		l.retryAt, l.sawAt = at, now
	}
}

// kick makes the next dial due at once: an address changed, or a person asked.
func (l *link) kick() { l.retryAt = time.Time{} }
