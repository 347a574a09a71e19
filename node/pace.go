package node

import (
	"fmt"
	"slices"
	"time"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
)

// A donor that sends too little while it is waited for is left for another, if one is there that has not failed:
// where all are slow, each is tried once.
const (
	paceWindow = time.Minute                                      // of waiting for one donor
	paceLeast  = protocol.MinRate * int64(paceWindow/time.Second) // bytes that must come in it
	paceLook   = 5 * time.Second                                  // how often that is looked at
)

// errSlow ends a pull from a donor that does not keep pace.
var errSlow = &because{protocol.CodeTimeout, fmt.Sprintf("less than %d KiB came in %v of waiting, and another donor is there", paceLeast>>10, paceWindow)}

// pace is what had come in a pull, and how long that was waited for, when the window at hand began.
type pace struct {
	bytes  int64
	waited time.Duration
}

// slow reports whether a window has ended in which too little came; each that ends is followed by another.
func (p *pace) slow(bytes int64, waited time.Duration) bool {
	over := waited - p.waited
	if over < paceWindow {
		return false
	}
	least := int64(float64(paceLeast) * (float64(over) / float64(paceWindow)))
	came := bytes - p.bytes
	*p = pace{bytes, waited}
	return came < least
}

// watch lets the pace of a pull be looked at.
func (n *Node) watch(p *pulling, conn *protocol.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.conn = conn
}

// leaveSlow ends the pulls from donors that do not keep pace where another can serve.
func (n *Node) leaveSlow(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pulls {
		if p.conn == nil {
			continue
		}
		if bytes, waited := p.conn.Received(now); p.pace.slow(bytes, waited) && n.another(p) {
			p.cancel(errSlow)
		}
	}
}

// another reports whether some of what is pulled could come from a donor that is idle and has not failed at it; n.mu is
// held.
func (n *Node) another(p *pulling) bool {
	return slices.ContainsFunc(p.feeds, func(id feed.ID) bool {
		st, ok := n.store.State(id)
		if !ok || st.InStep() {
			return false
		}
		able := func(d record.DeviceID) bool {
			return d != p.donor && n.pulls[d] == nil && n.retryOf(d, id).failures == 0 && n.canServe(d, st)
		}
		for d := range n.peers {
			if able(d) {
				return true
			}
		}
		return false
	})
}
