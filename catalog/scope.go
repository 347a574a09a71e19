package catalog

import (
	"bytes"
	"runtime"
	"slices"
	"sync"

	"peerdex/query"
	"peerdex/record"
)

// scope is a location that is searched, with what the query's terms say of it.
type scope struct {
	Location
	*segment
	base []byte // its path, folded, with slashes and one at its end
	in   []member

	paths   map[uint32]where // of directories, while the segment has that version
	version uint64
}

// member says what of a location a term names: everything, or some entries.
type member struct {
	all  bool
	some map[record.EntryID]bool
}

// where is the path of a directory.
type where struct {
	path string
	lost bool
}

// scanPart is how many blocks one goroutine looks at, at least: less is not worth starting it.
const scanPart = 8

// scan returns the hits of one location, in the order of their slots.
func (p *scope) scan(q query.Query, index uint32) []hit {
	p.RLock()
	defer p.RUnlock()
	workers := min(runtime.GOMAXPROCS(0), len(p.blocks)/scanPart)
	if workers < 2 {
		return p.scanBlocks(q, index, 0, len(p.blocks))
	}
	parts := make([][]hit, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			parts[w] = p.scanBlocks(q, index, w*len(p.blocks)/workers, (w+1)*len(p.blocks)/workers)
		})
	}
	wg.Wait()
	return slices.Concat(parts...)
}

// scanBlocks is scan for some blocks; p is locked for reading.
func (p *scope) scanBlocks(q query.Query, index uint32, from, to int) (out []hit) {
	c := p.cursor()
	for k := from; k < to; k++ {
		c.block = p.blocks[k]
		most := min(blockSize, p.count-uint32(k*blockSize))
		for c.i = 0; c.i < most; c.i++ {
			if c.names[c.i] != noName && q.Match(c) {
				h := hit{scope: index, slot: uint32(k*blockSize) + c.i}
				copy(h.id[:], c.ids[c.i][:])
				out = append(out, h)
			}
		}
	}
	return out
}

// cursor shows the query one entry after the other.
type cursor struct {
	*scope
	*block
	i    uint32
	dirs map[uint32][]byte // paths of directories, folded, with a slash at their ends
	last uint32            // the directory whose path is dir
	dir  []byte
	buf  []byte
}

func (p *scope) cursor() *cursor {
	return &cursor{scope: p, dirs: map[uint32][]byte{}, last: noParent, dir: p.base}
}

func (c *cursor) Name() []byte { return c.block.folded(c.scope.names, c.i) }

func (c *cursor) Folder() bool { return c.kind(c.i) == record.Directory }

func (c *cursor) Size() (uint64, bool) { return c.sizes[c.i], c.kind(c.i) == record.Regular }

func (c *cursor) Modified() (int64, bool) {
	t := c.times[c.i]
	return t, t != 0 // zero is unknown, here as wherever it is shown
}

func (c *cursor) In(term int) bool { return c.in[term].all || c.in[term].some[c.ids[c.i]] }

func (c *cursor) InPath(part []byte) bool {
	if up := c.parents[c.i] & parentMask; up != c.last {
		c.last, c.dir = up, c.dirOf(up)
	}
	c.buf = append(append(c.buf[:0], c.dir...), c.Name()...)
	return bytes.Contains(c.buf, part)
}

// dirOf returns the folded path of a directory, with a slash at its end.
func (c *cursor) dirOf(n uint32) []byte {
	var chain []uint32
	path := c.base
	for n != noParent {
		if known, ok := c.dirs[n]; ok {
			path = known
			break
		}
		b, i := c.at(n)
		if ring := len(chain) == maxDepth; ring || b.names[i] == noName {
			path = append(query.Fold(c.base[:len(c.base):len(c.base)], []byte(LostMark)), '/')
			if ring {
				return path
			}
			break
		}
		chain = append(chain, n)
		n = b.parents[i] & parentMask
	}
	if len(c.dirs) > maxCached {
		clear(c.dirs)
	}
	for _, n := range slices.Backward(chain) {
		b, i := c.at(n)
		path = append(append(path[:len(path):len(path)], b.folded(c.scope.names, i)...), '/')
		c.dirs[n] = path
	}
	return path
}

const (
	maxDepth  = 4096    // directories above an entry; more, and the chain is a ring
	maxCached = 100_000 // directories whose paths one search remembers
)

// dirPath returns the path of a directory as its device has it; p is locked for reading.
func (p *scope) dirPath(n uint32) where {
	if p.version != p.segment.version || len(p.paths) > maxCached {
		p.paths, p.version = nil, p.segment.version
	}
	if p.paths == nil {
		p.paths = map[uint32]where{}
	}
	var chain []uint32
	at := where{path: p.Path}
	for n != noParent {
		if known, ok := p.paths[n]; ok {
			at = known
			break
		}
		b, i := p.at(n)
		if ring := len(chain) == maxDepth; ring || b.names[i] == noName {
			at = where{path: under(p.Path, LostMark), lost: true}
			if ring {
				return at // no name of it says where the entry is
			}
			break
		}
		chain = append(chain, n)
		n = b.parents[i] & parentMask
	}
	for _, n := range slices.Backward(chain) {
		at.path = under(at.path, p.name(n))
		p.paths[n] = at
	}
	return at
}

// item returns what is in a slot, and whether the record says more; p is locked for reading.
func (p *scope) item(n uint32) (Item, bool) {
	f, more := p.file(n)
	b, i := p.at(n)
	dir := p.dirPath(b.parents[i] & parentMask)
	return Item{Location: p.Location, File: f, Path: under(dir.path, f.Name), Lost: dir.lost}, more
}
