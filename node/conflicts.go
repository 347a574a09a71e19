package node

import (
	"peerdex/eventlog"
	"peerdex/store"
)

// How a conflict was settled, in metrics and events.
const (
	ruleStamp = "hlc"
	ruleTie   = "tiebreak"
)

// countConflicts counts each conflict by how it was settled.
func (n *Node) countConflicts(c store.Conflicts) {
	for range c.ByStamp {
		n.metrics.Conflict(ruleStamp)
	}
	for range c.ByTie {
		n.metrics.Conflict(ruleTie)
	}
}

// conflictEvents says who won over whom, where and why, without saying what they wrote: that is people's own.
func conflictEvents(c store.Conflicts) (out []eventlog.Detail) {
	for i, one := range c.Few {
		e := eventlog.ConflictResolved{
			Model: one.Won.Model(), Entity: one.Won.Entity.String(), Field: one.Won.Field, Rule: ruleStamp,
			Winner: eventlog.Written{Device: one.Won.Author.Short(), Stamp: one.Won.Stamp.String()},
			Loser:  eventlog.Written{Device: one.Lost.Author.Short(), Stamp: one.Lost.Stamp.String()},
		}
		if one.Tie() {
			e.Rule = ruleTie
		}
		if i == len(c.Few)-1 {
			e.More = int64(c.ByStamp + c.ByTie - len(c.Few))
		}
		out = append(out, e)
	}
	return out
}
