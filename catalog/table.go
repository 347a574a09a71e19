package catalog

// table is a hash table of node numbers with open addressing; several equal things may stand in it. It
// costs about eight bytes a node, a sixth of a Go map.
type table struct {
	slots []uint32 // node number + 1; 0: never used; tomb: removed
	used  int      // slots that are not 0
	live  int
}

const tomb = ^uint32(0)

// add puts n, whose hash is h, in. hash returns the hash of a node already in the table.
func (t *table) add(h uint64, n uint32, hash func(uint32) uint64) {
	if (t.used+1)*3 > len(t.slots)*2 {
		t.rebuild(hash)
	}
	t.put(h, n)
	t.live++
}

func (t *table) put(h uint64, n uint32) {
	mask := uint64(len(t.slots) - 1)
	i := h & mask
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = n + 1
	t.used++
}

func (t *table) rebuild(hash func(uint32) uint64) {
	size := 16
	for size < t.live*2+2 {
		size *= 2
	}
	old := t.slots
	t.slots, t.used = make([]uint32, size), 0
	for _, s := range old {
		if s != 0 && s != tomb {
			t.put(hash(s-1), s-1)
		}
	}
}

// find calls fn for the nodes whose hash may be h until it returns true, and reports whether it did.
func (t *table) find(h uint64, fn func(n uint32) bool) bool {
	if len(t.slots) == 0 {
		return false
	}
	mask := uint64(len(t.slots) - 1)
	for i := h & mask; t.slots[i] != 0; i = (i + 1) & mask {
		if s := t.slots[i]; s != tomb && fn(s-1) {
			return true
		}
	}
	return false
}

// remove takes n, whose hash is h, out. It may be absent.
func (t *table) remove(h uint64, n uint32) {
	if len(t.slots) == 0 {
		return
	}
	mask := uint64(len(t.slots) - 1)
	for i := h & mask; t.slots[i] != 0; i = (i + 1) & mask {
		if t.slots[i] == n+1 {
			t.slots[i] = tomb
			t.live--
			return
		}
	}
}
