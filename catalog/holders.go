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
	begins uint16
	feed   feed.ID
	entry  record.EntryID
}

// beginnings are some of the first 16 bits that hashes may have, a bit for each.
type beginnings [1 << 16 / 64]uint64

func (b *beginnings) add(low, high uint16) {
	for at := uint32(low); at <= uint32(high); at++ {
		b[at/64] |= 1 << (at % 64)
	}
}

// addDigits adds what begins with some hexadecimal digits.
func (b *beginnings) addDigits(digits string) error {
	first := digits[:min(len(digits), 4)]
	low, err := strconv.ParseUint(first+"0000"[len(first):], 16, 16)
	if err != nil {
		return fmt.Errorf("hash %q: %w", digits, err)
	}
	b.add(uint16(low), uint16(low|(1<<(16-4*len(first))-1)))
	return nil
}

func (b *beginnings) has(h uint16) bool { return b[h/64]&(1<<(h%64)) != 0 }

func begins(h record.Hash) uint16 { return binary.BigEndian.Uint16(h[:]) }

// holders returns the entries of all locations whose content's hash begins as one of b, in order of the beginnings.
func (s *segment) holders(id feed.ID, b *beginnings) (out []holder) {
	s.RLock()
	defer s.RUnlock()
	var none [blockSize]uint16
	for n, block := range s.blocks {
		hashes := s.hashes[n]
		if hashes == nil {
			hashes = &none
		}
		for i, h := range hashes {
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
	var b beginnings
	for h := range of {
		b.add(begins(h), begins(h))
	}
	return c.holding(ctx, &b, func(h record.Hash) bool { return of[h] }, fn)
}

// beginning calls fn for every live file whose hash begins with one of some hexadecimal digits, in order of hashes.
func (c *Catalog) beginning(ctx context.Context, digits []string, fn func(record.Hash, feed.ID, record.EntryID) error) error {
	var b beginnings
	for _, d := range digits {
		if err := b.addDigits(d); err != nil {
			return err
		}
	}
	fits := func(h record.Hash) bool {
		text := h.String()
		return slices.ContainsFunc(digits, func(d string) bool { return strings.HasPrefix(text, d) })
	}
	return c.holding(ctx, &b, fits, fn)
}
