package catalog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"peerdex/record"
	"peerdex/store"
)

const (
	hashBatch  = 256         // hashes handed to a location at one time
	hashGather = time.Second // or those of so long
	planShare  = 20          // at most one part in so many of the time is spent comparing sizes
	holdFirst  = 30          // times HashAfter a file is left alone at first that changed while it was read
)

// hasher reads files of this device to know their contents: in the background, one at a time, and while
// nothing is scanned. What is to be read follows from the feeds alone, so nothing of it is kept on disk.
type hasher struct {
	ix   *Indexer
	calm calm
	look chan struct{} // capacity 1: there may be more to read

	mu   sync.Mutex // guards the fields below
	left map[record.LocationID]int
	held map[record.EntryID]hold
}

func newHasher(ix *Indexer) *hasher {
	return &hasher{ix: ix, look: make(chan struct{}, 1), held: map[record.EntryID]hold{}}
}

// run reads what is to be read, again and again as the feeds change, until ctx ends. An error is the store's.
func (h *hasher) run(ctx context.Context) error {
	wake, cancel := h.ix.feeds.Watch()
	defer cancel()
	for {
		if h.calm.wait(ctx) != nil {
			return nil
		}
		start := time.Now()
		todo, err := h.plan(ctx, start)
		rest := max(h.ix.cfg.HashAfter, planShare*time.Since(start))
		if err == nil {
			err = h.work(ctx, todo)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("hash contents: %w", err)
		}
		select { // what changes meanwhile is looked at together
		case <-time.After(rest):
		case <-ctx.Done():
			return nil
		}
		select {
		case <-wake:
		case <-h.look:
		case <-time.After(h.next(time.Now())):
		case <-ctx.Done():
			return nil
		}
	}
}

// plan returns what is to be read now, by location.
func (h *hasher) plan(ctx context.Context, now time.Time) ([]candidate, error) {
	all, err := locations(h.ix.feeds)
	if err != nil {
		return nil, err
	}
	policy := map[record.LocationID]Policy{}
	for _, l := range all {
		if l.Exists && l.Hash != HashNone && h.ix.readable(l.ID) != nil {
			policy[l.ID] = l.Hash
		}
	}
	if len(policy) == 0 {
		h.expect(nil)
		return nil, nil
	}
	sizes, own, err := h.survey(ctx, all, policy)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	held := map[record.EntryID]hold{} // those of files that are gone, or changed, are forgotten
	for _, c := range own {
		if x, ok := h.held[c.entry]; ok {
			held[c.entry] = x
		}
	}
	h.held = held
	todo := choose(own, twins(sizes), policy, func(id record.EntryID) bool {
		x, ok := held[id]
		return ok && !x.over(now)
	})
	h.mu.Unlock()
	h.expect(todo)
	return todo, nil
}

// survey returns the sizes of all files that are not empty, on whatever device, and those own files of the
// locations with a policy whose contents are not known. It is one pass over the entries of all feeds.
func (h *hasher) survey(ctx context.Context, all []Location, policy map[record.LocationID]Policy) (sizes []uint64, own []candidate, err error) {
	seen := 0
	for _, l := range all {
		if !l.Exists {
			continue
		}
		err := h.ix.feeds.Entries(l.Feed(), func(row store.Row) error {
			if seen++; seen%4096 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			f, ok := fileOf(row)
			if !ok || f.Kind != record.Regular || f.Size == 0 {
				return nil
			}
			sizes = append(sizes, f.Size)
			if f.Hash.IsZero() && policy[l.ID] != "" {
				own = append(own, candidate{l.ID, f.ID, f.Size})
			}
			return nil
		})
		if err != nil && !errors.Is(err, store.ErrUnknownFeed) {
			return nil, nil, err
		}
	}
	return sizes, own, nil
}

// expect sets what is left to read.
func (h *hasher) expect(todo []candidate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left = map[record.LocationID]int{}
	for _, c := range todo {
		h.left[c.location]++
	}
	h.ix.cfg.Metrics.HashBacklog(len(todo))
}

// done takes n files of a location off what is left.
func (h *hasher) done(id record.LocationID, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left[id] -= n
	sum := 0
	for _, n := range h.left {
		sum += n
	}
	h.ix.cfg.Metrics.HashBacklog(sum)
}

// unhashed returns how many files of a location are left to read.
func (h *hasher) unhashed(id record.LocationID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left[id]
}

// next returns how long it is until the first hold is over.
func (h *hasher) next(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	wait := time.Duration(math.MaxInt64)
	for _, x := range h.held {
		if !x.until.IsZero() {
			wait = min(wait, max(x.until.Sub(now), 0))
		}
	}
	return wait
}

// scanned lets go of the files that waited for a full pass over their location.
func (h *hasher) scanned(id record.LocationID) {
	h.mu.Lock()
	for entry, x := range h.held {
		if x.location == id && x.until.IsZero() {
			delete(h.held, entry)
		}
	}
	h.mu.Unlock()
	h.again()
}

// again makes run look for what is to be read.
func (h *hasher) again() {
	select {
	case h.look <- struct{}{}:
	default:
	}
}

// work reads files and hands their hashes to their locations.
func (h *hasher) work(ctx context.Context, todo []candidate) error {
	for len(todo) > 0 {
		l := h.ix.readable(todo[0].location)
		var (
			batch []hashed
			start = time.Now()
			n     = 0
		)
		for n < len(todo) && todo[n].location == todo[0].location && len(batch) < hashBatch && time.Since(start) < hashGather {
			if err := h.calm.wait(ctx); err != nil {
				return err
			}
			if l != nil {
				f, ok, err := h.one(ctx, l, todo[n])
				if err != nil {
					return err
				}
				if ok {
					batch = append(batch, f)
				}
			}
			n++
		}
		if len(batch) > 0 {
			if err := l.hand(ctx, batch); err != nil && !errors.Is(err, ErrStopped) {
				return err
			}
		}
		h.done(todo[0].location, n)
		todo = todo[n:]
	}
	return nil
}

// one reads a file; ok is false if that cannot be done now.
func (h *hasher) one(ctx context.Context, l *location, c candidate) (out hashed, ok bool, err error) {
	f, rel, ok, err := l.lookup(c.entry)
	if err != nil || !ok || f.Size != c.size || !f.Hash.IsZero() {
		return out, false, err
	}
	now := time.Now()
	if age := now.Sub(time.Unix(0, f.ModTime)); age >= 0 && age < h.ix.cfg.HashAfter {
		h.keep(c, func(x hold) hold { x.until = now.Add(h.ix.cfg.HashAfter - age); return x })
		return out, false, nil
	}
	out, err = l.digest(ctx, f, rel, h.calm.wait)
	switch {
	case err == nil:
		return out, true, nil
	case ctx.Err() != nil:
		return out, false, ctx.Err()
	case errors.Is(err, ErrChanging):
		h.keep(c, func(x hold) hold { return x.longer(time.Now(), holdFirst*h.ix.cfg.HashAfter) })
	default:
		h.keep(c, func(x hold) hold { x.until = time.Time{}; return x })
		if !gone(err) {
			l.unreadable(rel, reason(err))
		}
	}
	return out, false, nil
}

func (h *hasher) keep(c candidate, change func(hold) hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := change(h.held[c.entry])
	x.location = c.location
	h.held[c.entry] = x
}

// readable returns a location of this device whose files can be read, as far as is known, or nil.
func (ix *Indexer) readable(id record.LocationID) *location {
	ix.mu.Lock()
	l := ix.locations[id]
	ix.mu.Unlock()
	if l != nil {
		if p := l.Status().Phase; p != Watching && p != Polling {
			return nil
		}
	}
	return l
}
