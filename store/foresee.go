package store

import (
	"runtime"

	"golang.org/x/sync/errgroup"

	"peerdex/feed"
	"peerdex/kv"
)

// foreseeFrom is how many keys there are at least for what they stand for to be read ahead.
const foreseeFrom = 64

// foreseen is what some keys stand for in their feed, read before the transaction by all processors at once: a
// transaction reads one thing after another while others wait, which for changes all over a large feed is most of the
// work. It holds as long as nobody else has written the feed. Each fact is used once, since the transaction may
// change it.
type foreseen struct {
	of     *row // as it was when this was read
	old    map[string]*held
	leaves map[uint64]storedLeaf
}

// foresee reads what keys stand for. In a feed that is coming for the first time that is nothing.
func (s *Store) foresee(id feed.ID, keys [][]byte) (*foreseen, error) {
	s.mu.Lock()
	r := s.rows[id]
	s.mu.Unlock()
	if len(keys) < foreseeFrom || r == nil || r.state.Count == 0 || r.state.Floor.IsGenesis() {
		return nil, nil
	}
	old := make([]*held, len(keys))
	err := s.each(len(keys), func(k kv.Reader, i int) (err error) {
		old[i], err = getEntry(k, r.num, keys[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	f := &foreseen{of: r, old: make(map[string]*held, len(keys)), leaves: map[uint64]storedLeaf{}}
	var touched []uint64
	for i, h := range old {
		f.old[string(keys[i])] = h
		if h == nil {
			continue
		}
		leaf := s.cfg.Shape.Leaf(h.Seq)
		if _, ok := f.leaves[leaf]; !ok {
			f.leaves[leaf] = storedLeaf{}
			touched = append(touched, leaf)
		}
	}
	leaves := make([]storedLeaf, len(touched))
	err = s.each(len(touched), func(k kv.Reader, i int) (err error) {
		leaves[i], err = (&nodes{r: k, shape: s.cfg.Shape, row: r}).stored(touched[i])
		return err
	})
	for i, leaf := range touched {
		f.leaves[leaf] = leaves[i]
	}
	return f, err
}

// each calls fn for 0 to n-1, on as many goroutines as there are processors.
func (s *Store) each(n int, fn func(k kv.Reader, i int) error) error {
	var g errgroup.Group
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		g.Go(func() error {
			return s.eng.View(func(k kv.Reader) error {
				for i := w; i < n; i += workers {
					if err := fn(k, i); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	return g.Wait()
}

// entry returns what is known to stand at key of feed r; false if nothing is known of it, or not any more.
func (f *foreseen) entry(r *row, key []byte) (h *held, ok bool) {
	if !f.is(r) {
		return nil, false
	}
	if h, ok = f.old[string(key)]; ok {
		delete(f.old, string(key))
	}
	return h, ok
}

// leaf is entry for a leaf.
func (f *foreseen) leaf(r *row, i uint64) (l storedLeaf, ok bool) {
	if !f.is(r) {
		return l, false
	}
	if l, ok = f.leaves[i]; ok {
		delete(f.leaves, i)
	}
	return l, ok
}

func (f *foreseen) is(r *row) bool { return f != nil && r.num == f.of.num }
