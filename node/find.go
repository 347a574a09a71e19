package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"peerdex/catalog"
	"peerdex/feed"
	"peerdex/kv"
	"peerdex/metrics"
	"peerdex/query"
	"peerdex/record"
)

// FindQuery asks for entries.
type FindQuery struct {
	Text    string            // in the language of package query
	Device  []string          // peer IDs; empty: every device
	Tag     []string          // names; an entry must show all of them
	Names   map[string]string // peer IDs of the devices that Text names, filled in by the API
	Sort    string            // one of the keys of Sorts, or "", which is none
	Reverse bool              // the other way round
	Limit   int               // most files, copies of one counting once; 0: no limit
}

// FindResult ends the answer to a FindQuery. Entries of one content come one after the other.
type FindResult struct {
	Now     time.Time       `json:"now"`
	Found   uint64          `json:"found"` // entries
	Files   uint64          `json:"files"` // the same, but what is known to be a copy of another does not count
	More    bool            `json:"more"`  // the limit cut it
	Took    metrics.Seconds `json:"duration_seconds"`
	Devices []DeviceView    `json:"devices"`           // that were asked, for freshness
	Asked   []Asked         `json:"asked,omitempty"`   // locations that are not kept here, and who answered for them
	Partial bool            `json:"partial,omitempty"` // nobody answered for some of those, or not in full
}

// Sorts are the orders of what is found, by name.
var Sorts = map[string]catalog.Sort{
	"name": catalog.ByName, "size": catalog.BySize, "modified": catalog.ByModified, "path": catalog.ByPath,
	"none": catalog.Unsorted,
}

// QueryFault says where a query is wrong.
type QueryFault struct {
	Query string `json:"query"`
	At    int    `json:"at"`  // byte at which the fault begins; it may be the end
	End   int    `json:"end"` // byte before which it ends
}

// ParseQuery reads a query; days are those of now's zone. Its error is a *Problem.
func ParseQuery(text string, now time.Time) (query.Query, error) {
	q, err := query.Parse(text, now)
	var wrong *query.Error
	if errors.As(err, &wrong) {
		return q, &Problem{Code: CodeBadQuery, Message: "the query is not understood: " + wrong.Message,
			Cause: fmt.Sprintf("byte %d of %q", wrong.At+1, text), Try: "peer find '" + strings.ReplaceAll(wrong.Example, "   ", "'   peer find '") + "'",
			Details: QueryFault{text, wrong.At, wrong.End}}
	}
	return q, err
}

// Find calls fn for each entry that the query asks for.
func (n *Node) Find(ctx context.Context, q FindQuery, fn func(Entry) error) (FindResult, error) {
	start := time.Now()
	defer func() { n.metrics.Query("find", time.Since(start)) }()
	res := FindResult{Now: start}
	m, err := n.catalog.Marks()
	if err != nil {
		return res, err
	}
	o, err := n.findOptions(ctx, q, m, start)
	if err != nil {
		return res, err
	}
	answers, others, err := n.askFind(ctx, q, o, m)
	if err != nil {
		return res, err
	}
	if res.Asked = askedOf(answers); partly(res.Asked) {
		if res.Partial = true; !others && !slices.ContainsFunc(res.Asked, func(a Asked) bool { return a.Problem == "" }) {
			return res, unanswered(res.Asked[0])
		}
	}
	full := false
	all, err := n.merge(ctx, answers, o, func(copies []foundItem) error {
		if full = q.Limit > 0 && res.Files == uint64(q.Limit); full {
			return kv.Stop
		}
		res.Files++
		for _, it := range copies {
			e := it.in.of(it.Item)
			e.Tags = tagsShown(m, it.Item)
			res.Found++
			if err := fn(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return res, err
	}
	locations := map[feed.ID]Entry{} // as they are now
	err = n.catalog.Find(ctx, o, func(items []catalog.Item) error {
		copies := make([]foundItem, len(items))
		for i, it := range items {
			in, known := locations[it.Location.Feed()]
			if !known {
				in = n.viewIn(it.Location)
				locations[it.Location.Feed()] = in
			}
			copies[i] = foundItem{it, in}
		}
		return all.local(copies)
	})
	if err == nil && !full {
		err = all.rest()
	}
	if err != nil && !errors.Is(err, kv.Stop) {
		return res, err
	}
	short := q.Limit == 0 || res.Files < uint64(q.Limit)
	for i, a := range res.Asked {
		res.Asked[i].Cut = a.More && short
		res.Partial = res.Partial || res.Asked[i].Cut
	}
	res.More = full || slices.ContainsFunc(res.Asked, func(a Asked) bool { return a.More })
	devices, err := n.Devices(ctx)
	if err != nil {
		return res, err
	}
	for _, v := range devices {
		if len(q.Device) == 0 || slices.Contains(q.Device, v.ID) {
			v.answered(res.Asked)
			res.Devices = append(res.Devices, v)
		}
	}
	res.Took = metrics.Seconds(time.Since(start))
	return res, nil
}

// findOptions finds out what the query's names mean.
func (n *Node) findOptions(ctx context.Context, q FindQuery, m *catalog.Marks, now time.Time) (catalog.FindOptions, error) {
	o := catalog.FindOptions{Sort: Sorts[q.Sort], Reverse: q.Reverse}
	parsed, err := ParseQuery(q.Text, now)
	if err != nil {
		return o, err
	}
	if len(q.Device) > 0 {
		parsed = parsed.And(query.Term{Key: "on", Values: q.Device})
	}
	for _, t := range q.Tag {
		parsed = parsed.And(query.Term{Key: "tag", Values: []string{t}})
	}
	o.Query = parsed
	for _, t := range parsed.Terms() {
		var set catalog.Set
		switch t.Key {
		case "on":
			set.Devices, err = q.devices(t.Values)
		case "tag":
			set, err = n.tagged(ctx, m, t.Values)
		case "hash":
			set, err = n.catalog.Hashed(ctx, t.Values)
		}
		if err != nil {
			return o, err
		}
		o.Sets = append(o.Sets, set)
	}
	return o, nil
}

// devices returns the devices of peer IDs, and of names that the API has looked up.
func (q FindQuery) devices(values []string) (out []record.DeviceID, err error) {
	for _, v := range values {
		if id, named := q.Names[v]; named {
			v = id
		}
		d, err := deviceOf(v)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// tagged returns what shows a tag of one of some names; of a name that several tags have, all of them.
func (n *Node) tagged(ctx context.Context, m *catalog.Marks, names []string) (catalog.Set, error) {
	var tags []catalog.Tag
	for _, name := range names {
		found := m.Named(name)
		if len(found) == 0 { // or the beginning of an id
			t, err := tagNamed(m, name)
			if err != nil {
				return catalog.Set{}, err
			}
			found = append(found, t)
		}
		tags = append(tags, found...)
	}
	return n.catalog.Tagged(ctx, m, tags)
}
