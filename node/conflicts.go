package node

import (
	"peerdex/eventlog"
	"peerdex/record"
	"peerdex/store"
)

// rules are the names of store.Rule in metrics and events.
var rules = [...]string{store.ByStamp: "hlc", store.ByTie: "tiebreak", store.ByDelete: "delete", store.ByMerge: "merge"}

// countConflicts counts each conflict by how it was settled.
func (n *Node) countConflicts(c store.Conflicts) {
	for rule, count := range c.By {
		for range count {
			n.metrics.Conflict(rules[rule])
		}
	}
}

// conflictEvents says who won over whom, where and why, and what text each wrote: the loser's is shown nowhere
// else, and its author is to get it back.
func conflictEvents(c store.Conflicts) (out []eventlog.Detail) {
	for i, one := range c.Few {
		e := eventlog.ConflictResolved{
			Model: one.Lost.Model(), Entity: one.Lost.Entity.String(), Field: one.Lost.Field, Rule: rules[one.Rule()],
			Winner: writtenBy(one.Won), Loser: writtenBy(one.Lost),
		}
		switch ent := one.Lost.Entity; ent.Kind {
		case record.TagEntity:
			e.Tag = record.TagID([]byte(ent.ID)).String()
		case record.ContentEntity:
			e.Hash = record.Hash([]byte(ent.ID)).String()
		case record.EntryEntity:
			d, l, entry := ent.Entry()
			e.Device, e.Location, e.Entry = d.Short(), l.String(), entry.String()
		}
		if i == len(c.Few)-1 {
			e.More = int64(c.Total() - len(c.Few))
		}
		out = append(out, e)
	}
	return out
}

func writtenBy(r record.Register) eventlog.Written {
	w := eventlog.Written{Device: r.Author.Short(), Stamp: r.Stamp.String()}
	if r.Field == record.FieldNote || r.Field == record.FieldName && r.Entity.Kind == record.TagEntity {
		w = w.Saying(r.Value)
	}
	return w
}
