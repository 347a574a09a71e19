package memory

import (
	"maps"
	"slices"
)

// Deleted returns the keys whose last value is remembered (Config.KeepDeleted), in ascending order.
func (e *Engine) Deleted() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.deleted))
}

// Undelete makes the disk forget that key was deleted: its last value is back wherever the key is
// absent, in the durable state too. It returns false if no value is remembered. Snapshots already taken
// stay as they are.
func (e *Engine) Undelete(key []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	b, ok := e.deleted[string(key)]
	if !ok {
		return false
	}
	delete(e.deleted, string(key))
	e.rot(func(t *tree) {
		if _, live := t.Get(string(key)); !live {
			t.Set(string(key), &value{b})
		}
	})
	return true
}

// Flip changes one bit of key's value wherever it stands on disk, the durable state included: bit 0 is
// the lowest of the first byte, and numbers beyond the value wrap round. It returns false if no version
// has a value with a byte to change. Snapshots already taken stay as they are.
func (e *Engine) Flip(key []byte, bit int) (flipped bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rot(func(t *tree) {
		v, ok := t.Get(string(key))
		if !ok || len(v.b) == 0 {
			return
		}
		b := slices.Clone(v.b)
		b[bit/8%len(b)] ^= 1 << (bit % 8)
		t.Set(string(key), &value{b})
		flipped = true
	})
	return flipped
}

// rot changes every version that can be read or recovered. e.mu is held.
func (e *Engine) rot(change func(*tree)) {
	damaged := func(v *version) *version {
		t := v.fork()
		change(t)
		return &version{tree: t}
	}
	e.durable = damaged(e.durable)
	for i, v := range e.unsynced {
		e.unsynced[i] = damaged(v)
	}
}
