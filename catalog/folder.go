package catalog

import (
	"slices"
	"strings"

	"peerdex/feed"
	"peerdex/query"
	"peerdex/record"
)

// What lies in a folder is asked of the names in memory: all parents of a location are looked through, half a
// millisecond for a million, which is less than an index of them on disk costs whoever writes.

// leafing is a large folder that somebody reads page by page: what lies in it, sorted by the bytes of the names, at one
// version of the segment.
type leafing struct {
	folder  uint32
	version uint64
	slots   []uint32
}

// named is a slot and the name that it had when it was looked at.
type named struct {
	slot uint32
	name string
}

// folderSlot returns the slot of a folder as its children name it; false if nothing lies in it. s is locked.
func (s *segment) folderSlot(id record.EntryID) (uint32, bool) {
	if id == (record.EntryID{}) {
		return noParent, true
	}
	return s.find(id)
}

// eachIn calls fn for each entry directly in a folder, in the order of the slots, until it returns false; s is locked.
func (s *segment) eachIn(folder uint32, fn func(n uint32) bool) {
	for k, b := range s.blocks {
		for i, p := range b.parents[:min(blockSize, s.count-uint32(k*blockSize))] {
			if p&parentMask == folder && b.names[i] != noName && !fn(uint32(k*blockSize+i)) {
				return
			}
		}
	}
}

// list returns up to limit entries directly in a folder, sorted by the bytes of their names, after the name after;
// limit 0 returns all.
func (s *segment) list(folder record.EntryID, after string, limit int) []named {
	s.RLock()
	at, ok := s.folderSlot(folder)
	if !ok {
		s.RUnlock()
		return nil
	}
	if l := s.leafing.Load(); l != nil && l.folder == at {
		if l.version == s.version {
			defer s.RUnlock()
			return s.page(l, after, limit)
		}
		s.leafing.Store(nil)
	}
	var all []named
	s.eachIn(at, func(n uint32) bool {
		all = append(all, named{n, s.name(n)})
		return true
	})
	version := s.version
	s.RUnlock()
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(a.name, b.name) })
	first, _ := slices.BinarySearchFunc(all, after, func(e named, after string) int {
		if e.name <= after {
			return -1
		}
		return 1
	})
	if limit == 0 || len(all)-first <= limit {
		return all[first:]
	}
	l := &leafing{folder: at, version: version, slots: make([]uint32, len(all))}
	for i, e := range all {
		l.slots[i] = e.slot
	}
	s.leafing.Store(l)
	return all[first:][:limit]
}

// page is list for what l holds; s is locked.
func (s *segment) page(l *leafing, after string, limit int) (out []named) {
	first, _ := slices.BinarySearchFunc(l.slots, after, func(n uint32, after string) int {
		if s.name(n) <= after {
			return -1
		}
		return 1
	})
	slots := l.slots[first:]
	if limit > 0 && len(slots) > limit {
		slots = slots[:limit]
	} else {
		s.leafing.Store(nil)
	}
	for _, n := range slots {
		out = append(out, named{n, s.name(n)})
	}
	return out
}

const nowhere = ^uint32(0)

// descend follows paths, each in its names, from the folder of the location down, and returns the slot where each leads:
// nowhere if it leads to nothing, noParent if it is empty. s is locked.
func (s *segment) descend(paths [][]string) []uint32 {
	at := make([]uint32, len(paths))
	for i := range at {
		at[i] = noParent
	}
	for level := 0; s.step(paths, at, level); level++ {
	}
	return at
}

// step brings all paths one level further, in one look at the segment; false if all are at their ends.
func (s *segment) step(paths [][]string, at []uint32, level int) bool {
	type place struct {
		folder uint32
		name   string // folded
	}
	var (
		left    int
		wanted  = map[place][]int{} // paths
		folders = map[uint32]bool{}
	)
	for i, names := range paths {
		if level < len(names) && at[i] != nowhere {
			key := place{at[i], string(query.Fold(nil, []byte(names[level])))}
			wanted[key], folders[at[i]] = append(wanted[key], i), true
			at[i] = nowhere
			left++
		}
	}
	if left == 0 {
		return false
	}
	meet := func(n uint32) bool {
		b, i := s.at(n)
		met := wanted[place{b.parents[i] & parentMask, string(b.folded(s.names, i))}]
		if len(met) == 0 {
			return true
		}
		name := s.name(n)
		for _, p := range met {
			if at[p] == nowhere && paths[p][level] == name {
				at[p] = n
				left--
			}
		}
		return left > 0
	}
	if len(folders) == 1 {
		for folder := range folders {
			s.eachIn(folder, meet)
		}
	} else {
		s.eachOf(folders, meet)
	}
	return true
}

// eachOf is eachIn for several folders, none of which is the location's own.
func (s *segment) eachOf(folders map[uint32]bool, fn func(n uint32) bool) {
	in := make([]uint64, s.count/64+1)
	for n := range folders {
		in[n/64] |= 1 << (n % 64)
	}
	for k, b := range s.blocks {
		for i, p := range b.parents[:min(blockSize, s.count-uint32(k*blockSize))] {
			p &= parentMask
			if p != noParent && in[p/64]&(1<<(p%64)) != 0 && b.names[i] != noName && !fn(uint32(k*blockSize+i)) {
				return
			}
		}
	}
}

// Orphans are entries whose folder is not known, as when a feed has not come in completely.
type Orphans struct {
	Entries int
	Folders int // that they wait for
}

// orphans is what was counted at one version of a segment.
type orphans struct {
	Orphans
	version uint64
}

// countOrphans counts the entries without a folder.
func (s *segment) countOrphans() (o Orphans) {
	s.RLock()
	defer s.RUnlock()
	if s.byID.used == s.live {
		return o // every slot has a name
	}
	if c := s.orphans.Load(); c != nil && c.version == s.version {
		return c.Orphans
	}
	folders := make([]uint64, s.count/64+1)
	for k, b := range s.blocks {
		for i, p := range b.parents[:min(blockSize, s.count-uint32(k*blockSize))] {
			if p &= parentMask; p == noParent || b.names[i] == noName {
				continue
			}
			if up, j := s.at(p); up.names[j] == noName {
				o.Entries++
				if bit := uint64(1) << (p % 64); folders[p/64]&bit == 0 {
					folders[p/64] |= bit
					o.Folders++
				}
			}
		}
	}
	s.orphans.Store(&orphans{o, s.version})
	return o
}

// Orphans counts the entries of a location whose folder is not known; none as long as the names are still being read.
func (c *Catalog) Orphans(id feed.ID) Orphans {
	if s := c.column.segment(id); s != nil && c.column.isReady() {
		return s.countOrphans()
	}
	return Orphans{}
}
