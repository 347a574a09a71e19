package catalog

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/record"
)

// holder is an entry that may have a content asked for: the column keeps the beginning of each hash alone.
type holder struct {
	begins uint32
	feed   feed.ID
	entry  record.EntryID
}

// beginnings are ranges of the first 32 bits of a hash, sorted and apart. The bits of top tell of each first 16 bits whether
// a range touches them: most entries are settled by one look.
type beginnings struct {
	top    [1 << 16 / 64]uint64
	ranges [][2]uint32
}

func newBeginnings(ranges [][2]uint32) *beginnings {
	slices.SortFunc(ranges, func(x, y [2]uint32) int { return cmp.Compare(x[0], y[0]) })
	b := &beginnings{}
	for _, r := range ranges {
		if last := len(b.ranges) - 1; last >= 0 && r[0] <= b.ranges[last][1] {
			b.ranges[last][1] = max(b.ranges[last][1], r[1])
		} else {
			b.ranges = append(b.ranges, r)
		}
		for at := r[0] >> 16; at <= r[1]>>16; at++ {
			b.top[at/64] |= 1 << (at % 64)
		}
	}
	return b
}

func (b *beginnings) has(h uint32) bool {
	if b.top[h>>22]&(1<<(h>>16%64)) == 0 {
		return false
	}
	n, exact := slices.BinarySearchFunc(b.ranges, h, func(r [2]uint32, h uint32) int { return cmp.Compare(r[0], h) })
	return exact || n > 0 && h <= b.ranges[n-1][1]
}

func begins(h record.Hash) uint32 { return binary.BigEndian.Uint32(h[:]) }

// holders returns the entries of all locations whose content's hash begins as one of b, in order of the beginnings.
func (s *segment) holders(id feed.ID, b *beginnings) (out []holder) {
	s.RLock()
	defer s.RUnlock()
	for _, block := range s.blocks {
		for i, h := range block.hashes {
			if b.has(h) && block.parents[i]&moreBit != 0 && block.names[i] != noName {
				out = append(out, holder{h, id, block.ids[i]})
			}
		}
	}
	return out
}

// holding calls fn for every live file whose content's hash is within b and fits, in order of hashes. kv.Stop ends
// it early.
func (c *Catalog) holding(ctx context.Context, b *beginnings, fits func(record.Hash) bool, fn func(record.Hash, feed.ID, record.EntryID) error) error {
	if err := c.loaded(ctx); err != nil {
		return err
	}
	var all []holder
	for id, s := range c.column.all() {
		all = append(all, s.holders(id, b)...)
	}
	slices.SortFunc(all, func(x, y holder) int { return cmp.Compare(x.begins, y.begins) })
	type held struct {
		hash record.Hash
		holder
	}
	for len(all) > 0 {
		alike := all // those that begin like the first
		for n := range all {
			if all[n].begins != all[0].begins {
				alike = all[:n]
				break
			}
		}
		all = all[len(alike):]
		if err := ctx.Err(); err != nil {
			return err
		}
		var found []held
		for _, h := range alike {
			f, ok, err := c.file(h.feed, h.entry)
			if err != nil {
				return err
			}
			if ok && fits(f.Hash) {
				found = append(found, held{f.Hash, h})
			}
		}
		slices.SortStableFunc(found, func(x, y held) int { return bytes.Compare(x.hash[:], y.hash[:]) })
		for _, f := range found {
			if err := fn(f.hash, f.feed, f.entry); errors.Is(err, kv.Stop) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// contents calls fn for every live file that has one of some contents, in order of their hashes.
func (c *Catalog) contents(ctx context.Context, of map[record.Hash]bool, fn func(record.Hash, feed.ID, record.EntryID) error) error {
	ranges := make([][2]uint32, 0, len(of))
	for h := range of {
		ranges = append(ranges, [2]uint32{begins(h), begins(h)})
	}
	return c.holding(ctx, newBeginnings(ranges), func(h record.Hash) bool { return of[h] }, fn)
}

// beginning calls fn for every live file whose hash begins with one of some hexadecimal digits, in order of hashes.
func (c *Catalog) beginning(ctx context.Context, digits []string, fn func(record.Hash, feed.ID, record.EntryID) error) error {
	var ranges [][2]uint32
	for _, d := range digits {
		first := d[:min(len(d), 8)]
		low, err := strconv.ParseUint(first+"00000000"[len(first):], 16, 32)
		if err != nil {
			return fmt.Errorf("hash %q: %w", d, err)
		}
		ranges = append(ranges, [2]uint32{uint32(low), uint32(low | 1<<(32-4*len(first)) - 1)})
	}
	fits := func(h record.Hash) bool {
		text := h.String()
		return slices.ContainsFunc(digits, func(d string) bool { return strings.HasPrefix(text, d) })
	}
	return c.holding(ctx, newBeginnings(ranges), fits, fn)
}
