package memory

import (
	"errors"
	"strings"

	"peerdex/kv"
)

// reader reads one tree that does not change, or, in a transaction, changes only between scans.
type reader struct {
	engine   *Engine
	tree     *tree
	writes   bool // it belongs to a transaction, and so to one goroutine
	nested   bool // a scan runs in that transaction
	scanning bool // and walks tree itself, so that a write must copy it first
}

// Close lets the snapshot go.
func (r *reader) Close() {}

func (r *reader) Get(key []byte) ([]byte, error) {
	if r.engine.closed.Load() {
		return nil, kv.ErrClosed
	}
	v, ok := r.tree.Get(string(key))
	if !ok {
		return nil, nil
	}
	return v.b, nil
}

func (r *reader) Scan(prefix, from []byte, fn func(key, value []byte) error) error {
	start := max(string(prefix), string(from))
	return r.walk(string(prefix), fn, func(visit func(string, *value) bool) { r.tree.Ascend(start, visit) })
}

func (r *reader) ScanKeys(prefix, from []byte, fn func(key []byte) error) error {
	return r.Scan(prefix, from, func(key, _ []byte) error { return fn(key) })
}

func (r *reader) ScanDown(prefix, from []byte, fn func(key, value []byte) error) error {
	end, bounded := after(string(prefix))
	start := end
	if from != nil && (!bounded || string(from) < end) {
		start, bounded = string(from), true
	}
	return r.walk(string(prefix), fn, func(visit func(string, *value) bool) {
		if !bounded {
			r.tree.Reverse(visit)
			return
		}
		r.tree.Descend(start, func(k string, v *value) bool {
			if k == end && end != "" {
				return true // the first key above the prefix
			}
			return visit(k, v)
		})
	})
}

// after returns the first string above everything that begins with prefix; false if there is none.
func after(prefix string) (string, bool) {
	for n := len(prefix); n > 0; n-- {
		if c := prefix[n-1]; c < 0xFF {
			return prefix[:n-1] + string([]byte{c + 1}), true
		}
	}
	return "", false
}

// walk calls fn for what each visits while it begins with prefix. The slices fn gets are overwritten
// after the call, so that a caller who keeps one is found out.
func (r *reader) walk(prefix string, fn func(key, value []byte) error, each func(func(string, *value) bool)) error {
	if r.engine.closed.Load() {
		return kv.ErrClosed
	}
	if r.writes {
		if r.nested {
			panic("memory: a scan inside a scan of one transaction, which Badger refuses")
		}
		r.nested, r.scanning = true, true
		defer func() { r.nested, r.scanning = false, false }()
	}
	var (
		key, val = []byte{}, []byte{}
		err      error
	)
	each(func(k string, v *value) bool {
		if !strings.HasPrefix(k, prefix) {
			return false
		}
		if r.engine.closed.Load() {
			err = kv.ErrClosed
			return false
		}
		key, val = append(key[:0], k...), append(val[:0], v.b...)
		err = fn(key, val)
		clear(key)
		clear(val)
		return err == nil
	})
	if errors.Is(err, kv.Stop) {
		return nil
	}
	return err
}
