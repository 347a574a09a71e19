package store

import (
	"hash/maphash"
	"math/bits"

	"peerdex/feed"
)

const (
	unseenBits = 12      // a key, for which one new key in 150 passes for an old one
	unseenMost = 4 << 20 // keys that room is made for: 8 MiB; of more, more are looked up
)

// unseen tells of a feed that began empty which keys were never put into it, without a look at the disk: all of
// them, when a feed comes as a whole. It is a Bloom filter, so it may take a new key for an old one, never an
// old one for a new. Store.writing guards it.
type unseen struct {
	feed feed.ID
	num  num
	seed maphash.Seed
	bits []uint64 // as many as a power of two
}

func newUnseen(r *row) *unseen {
	room := max(min(r.state.Best.Seq, unseenMost)*unseenBits, 1<<10)
	return &unseen{r.state.Feed, r.num, maphash.MakeSeed(), make([]uint64, 1<<bits.Len64((room-1)/64))}
}

// add puts a key in and reports whether it was never put in before.
func (u *unseen) add(key []byte) (fresh bool) {
	h := maphash.Bytes(u.seed, key)
	step := h>>32 | 1
	for range 4 {
		at := h & (uint64(len(u.bits))*64 - 1)
		bit := uint64(1) << (at % 64)
		fresh = fresh || u.bits[at/64]&bit == 0
		u.bits[at/64] |= bit
		h += step
	}
	return fresh
}

// isNew reports whether an entry about to be put in another device's feed has a key that surely stands for
// nothing there. Only the feed that began last is remembered so; a transaction that fails leaves keys behind
// that will be looked up.
func (t *tx) isNew(r *row, key []byte) bool {
	if r.state.Feed.IsDevice() || r.state.Feed.Device == t.s.cfg.Device {
		return false
	}
	u := t.s.unseen
	if u == nil || u.feed != r.state.Feed || u.num != r.num {
		if r.state.Count > 0 {
			return false
		}
		u = newUnseen(r)
		t.s.unseen = u
	}
	return u.add(key)
}
