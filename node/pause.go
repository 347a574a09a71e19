package node

import (
	"slices"
	"time"

	"peerdex/record"
)

// pause is what a person has stopped: sync as a whole, or with one device. Node.mu guards it.
type pause struct {
	all   bool
	until time.Time // zero: until resumed
}

// active reports whether it is paused.
func (p pause) active(now time.Time) bool {
	return p.all && (p.until.IsZero() || now.Before(p.until))
}

// why says so in words, or nothing.
func (p pause) why(now time.Time) string {
	switch {
	case !p.active(now):
		return ""
	case p.until.IsZero():
		return "paused by a person until resumed"
	}
	return "paused by a person until " + p.until.Format(time.RFC3339)
}

// pauseReason says why sync is paused, or nothing; n.mu is held.
func (n *Node) pauseReason(now time.Time) string {
	if n.full {
		return "the disk is almost full"
	}
	return n.paused.why(now)
}

// pausedFor reports whether sync with one device is paused; n.mu is held.
func (n *Node) pausedFor(d record.DeviceID) bool {
	p, now := n.peers[d], time.Now()
	return n.pauseReason(now) != "" || p != nil && p.paused.active(now)
}

// setPause pauses one device, or with none all, and ends what is under way.
func (n *Node) setPause(d *record.DeviceID, until time.Time) {
	n.mu.Lock()
	if d == nil {
		n.paused = pause{all: true, until: until}
	} else if p := n.peers[*d]; p != nil {
		p.paused = pause{all: true, until: until}
	}
	n.endPaused(nil)
	n.mu.Unlock()
	n.wake()
}

// endPaused ends what is under way where sync is paused, for a reason (nil: a person's wish); n.mu is held.
func (n *Node) endPaused(why error) {
	for _, p := range n.peers {
		if p.session != nil && n.pausedFor(p.id) && p.session.stopPush != nil {
			p.session.stopPush()
		}
	}
	for _, p := range n.pulls {
		if n.pausedFor(p.donor) && p.cancel != nil {
			p.cancel(why)
		}
	}
}

// resume ends the pause of one device, or with none of everything.
func (n *Node) resume(d *record.DeviceID) {
	n.mu.Lock()
	if d == nil {
		n.paused = pause{}
	}
	for _, p := range n.peers {
		if d == nil || p.id == *d {
			p.paused = pause{}
			p.link.kick()
			n.dialSoon()
		}
	}
	clear(n.retries)
	n.mu.Unlock()
	n.wake()
}

// pausedNames returns the names of devices paused one by one; n.mu is held.
func (n *Node) pausedNames() []string {
	out := []string{}
	for _, p := range n.peers {
		if p.paused.active(time.Now()) {
			out = append(out, n.nameOf(p.id))
		}
	}
	slices.Sort(out)
	return out
}
