package catalog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"time"
)

// haltMost is how long Adopt waits for a location to stop.
const haltMost = time.Second

// Adopt takes in what the registers say of this device's locations by now, as after its own registers came
// back from a peer: it begins to index those it does not know, and lets go of those that exist no more. Of
// two with one path, as when a folder was added again before the news of it came back, the younger is
// removed. Without Run it does nothing: Run begins with the same.
//
// It never waits long for a disk: what an Add or Remove under way, or a location whose disk does not answer,
// stands in the way of is left to a call to come.
func (ix *Indexer) Adopt() error {
	if !ix.change.TryLock() {
		return nil
	}
	defer ix.change.Unlock()
	ix.mu.Lock()
	running, known := ix.spawn != nil, maps.Clone(ix.locations)
	ix.mu.Unlock()
	if !running {
		return nil
	}
	all, err := locations(ix.feeds)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), haltMost)
	defer cancel()
	var own []Location
	for _, o := range all {
		l := known[o.ID]
		switch {
		case o.Owner != ix.cfg.Device:
		case o.Exists:
			own = append(own, o)
		case o.ended && l != nil:
			if ix.halt(ctx, l) == nil {
				ix.forget(o, l)
			}
		}
	}
	own, again := single(own)
	ix.mu.Lock()
	for _, o := range own {
		if known[o.ID] == nil {
			ix.start(o, nil)
		}
	}
	ix.mu.Unlock()
	for _, o := range again {
		if err := ix.remove(ctx, o); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return nil
}

// single parts locations into those that are the only or the oldest ones with their paths, and the rest.
func single(all []Location) (first, again []Location) {
	oldest := map[string]Location{}
	for _, o := range all {
		if old, ok := oldest[o.Path]; !ok || cmp.Or(cmp.Compare(o.placed, old.placed), bytes.Compare(o.ID[:], old.ID[:])) < 0 {
			oldest[o.Path] = o
		}
	}
	for _, o := range all {
		if o.Path == "" || o.ID == oldest[o.Path].ID {
			first = append(first, o)
		} else {
			again = append(again, o)
		}
	}
	return first, again
}
