package node

import (
	"encoding/binary"
	"fmt"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/kv"
	"peerdex/store"
)

const (
	// orphanAfter is how long a feed may stay unsettled while this node runs, with nobody to complete it,
	// before it may settle below its floor (rule 17).
	orphanAfter  = 7 * 24 * time.Hour
	orphanReason = "nobody who could complete it was reachable for a week"

	saveStuck = time.Minute // how often that time is written down: what a restart forgets of it at most
)

// stuckPrefix and 48 bytes of feed.ID name the local fact how long a feed has been stuck, in nanoseconds.
const stuckPrefix = "stuck "

// loadStuck reads how long feeds were stuck when this node ran before.
func (n *Node) loadStuck() error {
	return n.store.Locals(stuckPrefix, func(name string, value []byte) error {
		id := []byte(name[len(stuckPrefix):])
		if len(id) != feed.IDSize || len(value) != 8 {
			return fmt.Errorf("local fact %q is damaged", name)
		}
		n.stuck[feed.ParseID(id)] = time.Duration(binary.BigEndian.Uint64(value))
		return nil
	})
}

func (n *Node) saveStuck(id feed.ID, waited time.Duration) error {
	value := binary.BigEndian.AppendUint64(nil, uint64(waited))
	if waited == 0 {
		value = nil
	}
	return n.store.SetLocal(stuckPrefix+string(id.Append(nil)), value)
}

// reviewOrphans finds feeds that have been unsettled for a week because nobody alive can complete them,
// and lets them settle at the highest head that somebody is settled at, or at nothing (rule 17).
func (n *Node) reviewOrphans(now time.Time) error {
	var alone []feed.State
	stuck, orphans := map[feed.ID]time.Duration{}, map[feed.ID]bool{}
	n.mu.Lock()
	passed := now.Sub(n.reviewed)
	if n.reviewed.IsZero() || passed < 0 {
		passed = 0
	}
	n.reviewed = now
	if n.pauseReason(now) != "" { // nobody is asked meanwhile
		n.mu.Unlock()
		return nil
	}
	for _, st := range n.store.States() {
		if st.Settled != nil || st.Count == 0 || !n.follow[st.Feed] || st.Feed.Device == n.self {
			continue
		}
		reachable, below := false, false
		for d := range n.peers {
			reachable = reachable || n.offers(d, st, false)
			below = below || n.offers(d, st, true)
		}
		if reachable {
			continue
		}
		waited, known := n.stuck[st.Feed]
		if known {
			waited += passed
		}
		stuck[st.Feed] = waited
		switch {
		case waited < orphanAfter:
		case below:
			orphans[st.Feed] = true
			n.wake()
		case st.Feed.IsDevice(): // rows of a location stay, incomplete
			alone = append(alone, st)
		}
	}
	before := n.stuck
	n.stuck, n.orphans = stuck, orphans
	n.mu.Unlock()

	for id, waited := range stuck {
		if waited/saveStuck != before[id]/saveStuck {
			if err := n.saveStuck(id, waited); err != nil {
				return err
			}
		}
	}
	for id := range before {
		if _, still := stuck[id]; !still {
			if err := n.saveStuck(id, 0); err != nil {
				return err
			}
		}
	}
	for _, st := range alone {
		_, err := n.store.Orphan(st.Feed, func(tx kv.Tx, settling bool, res *store.Result) error {
			if err := n.committing(tx, st.Feed, res, nil); err != nil || !settling {
				return err
			}
			return n.events.AddTx(tx, eventlog.FeedOrphaned{Feed: st.Feed.String(), FloorSeq: st.Floor.Seq, Reason: orphanReason})
		})
		if err != nil {
			return err
		}
	}
	return nil
}
