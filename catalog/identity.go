package catalog

import (
	"context"
	"slices"

	"peerdex/record"
)

// is reports whether f may be the thing the node stands for. What has no identity is known by its name.
func (p *pass) is(n uint32, f *found) bool {
	nd := p.l.tree.at(n)
	return nd.kind == f.kind && (nd.ino == 0 || f.id.ino == 0 || p.l.tree.identity(nd) == f.id)
}

func (t *tree) identity(nd *node) identity { return identity{t.devs[nd.dev], nd.ino} }

// settle finds out what f is, which is not what its name stood for: something moved, something replaced,
// or something new.
func (p *pass) settle(ctx context.Context, r *listing, f *found) error {
	t := p.l.tree
	c := t.child(r.node, f.name)
	if c != none && p.is(c, f) {
		return p.update(ctx, r, c, f, false)
	}
	away := c != none && r.elsewhere(t.identity(t.at(c)), f)
	m := p.moved(r, c, f, away)
	if c != none {
		if m == none && !away && t.at(c).kind == f.kind { // replaced, as editors and restores do
			if f.kind != record.Directory {
				t.identify(c, t.devIndex(f.id.dev), f.id.ino)
				return p.update(ctx, r, c, f, false)
			}
			p.l.unwatch(c)
			if dev := t.at(r.node).dev; t.at(c).dev != dev && f.id.dev == t.devs[dev] {
				p.suspects[c] = true // a disk was taken away from here: believe it once there is something
			} else {
				t.identify(c, t.devIndex(f.id.dev), f.id.ino)
			}
			return p.update(ctx, r, c, f, true)
		}
		if err := p.displace(ctx, c); err != nil {
			return err
		}
	}
	if m != none {
		return p.move(ctx, r, m, f)
	}
	return p.create(ctx, r, f)
}

// elsewhere reports whether the listing has id, which f is not, under some name.
func (r *listing) elsewhere(id identity, f *found) bool {
	if id.ino == 0 {
		return false
	}
	if r.ids == nil {
		r.ids = make(map[identity]int, len(r.entries))
		for i := range r.entries {
			if r.entries[i].err == nil {
				r.ids[r.entries[i].id]++
			}
		}
	}
	n := r.ids[id]
	if f.id == id { // the number of what was deleted, given to something of another kind
		n--
	}
	return n > 0
}

// moved returns the node that f was before it came here, or none. c is the node that has the name now,
// away that it is known to have moved itself.
func (p *pass) moved(r *listing, c uint32, f *found, away bool) uint32 {
	if f.id.ino == 0 {
		return none
	}
	t := p.l.tree
	replaces := c != none && !away && t.at(c).kind == f.kind
	if replaces && f.kind != record.Directory {
		return none // a file saved by writing another and renaming it stays the file it was
	}
	var candidates []uint32
	dev := t.devIndex(f.id.dev)
	t.byIno.find(inoHash(dev, f.id.ino), func(n uint32) bool {
		nd := t.at(n)
		if nd.dev == dev && nd.ino == f.id.ino && n != c && n != root && nd.kind == f.kind && (nd.pass != p.number || nd.flags&flagLimbo != 0) &&
			(f.kind != record.Regular || nd.size == f.size && nd.mtime == f.mtime) {
			candidates = append(candidates, n)
		}
		return len(candidates) == maxLinks
	})
	for _, n := range candidates {
		if t.below(r.node, n) {
			continue // a directory is not inside itself: the next full pass will see it clearer
		}
		if t.at(n).flags&flagLimbo != 0 {
			return n
		}
		rel, ok := t.rel(n)
		if !ok {
			return n // it hangs below something that is gone
		}
		old := p.l.disk.stat(p.l.path(rel))
		switch {
		case gone(old.err):
			return n
		case old.err != nil || old.id == f.id: // perhaps still there; another link
		case !replaces || old.id == t.identity(t.at(c)): // two changed places
			return n
		}
	}
	return none
}

// move puts a known node at the name of f, which is free: one record, whatever lies below it.
func (p *pass) move(ctx context.Context, r *listing, n uint32, f *found) error {
	t := p.l.tree
	nd := t.at(n)
	if nd.kind == record.Directory {
		p.l.unwatch(n)
	}
	if nd.flags&flagLimbo != 0 {
		nd.flags &^= flagLimbo
		t.tally(nd, 1)
	} else {
		t.unlink(n)
	}
	t.link(n, r.node, f.name)
	p.set(nd, f, t.sizeOf(f))
	nd.pass = p.number
	p.counts.Changed++
	if err := p.put(ctx, n, f); err != nil {
		return err
	}
	if f.kind == record.Directory {
		p.descend(r, n, f, true) // it was not watched on the way, and other rules may hold here
	}
	return nil
}

// displace takes the node from a name that is something else's now. Its tombstone is written at once, so
// that two never share a name; if it turns up elsewhere in this pass it lives on.
func (p *pass) displace(ctx context.Context, n uint32) error {
	t := p.l.tree
	nd := t.at(n)
	if nd.kind == record.Directory {
		p.l.unwatch(n)
	}
	f, err := p.known(n)
	if err != nil {
		return err
	}
	if !f.Hash.IsZero() {
		p.aside[n] = f
	}
	t.unlink(n)
	t.tally(nd, -1)
	nd.flags |= flagLimbo
	p.limbo = append(p.limbo, n)
	return p.tomb(ctx, nd.id)
}

// bury writes the tombstones of what was found nowhere.
func (p *pass) bury(ctx context.Context) error {
	t := p.l.tree
	for _, a := range p.missing {
		n := a.node
		if nd := t.at(n); nd.flags&(flagFree|flagLimbo) == 0 && nd.pass == a.seen {
			p.counts.Removed++
			if err := p.tomb(ctx, nd.id); err != nil {
				return err
			}
			if err := p.remove(ctx, n); err != nil {
				return err
			}
		}
	}
	for _, n := range p.limbo {
		if t.at(n).flags&flagLimbo != 0 {
			p.counts.Removed++
			if err := p.remove(ctx, n); err != nil {
				return err
			}
		}
	}
	t.tidy()
	return nil
}

// remove takes a node and all below it out of the tree, and writes the tombstones of those below.
func (p *pass) remove(ctx context.Context, top uint32) error {
	t := p.l.tree
	var all []uint32
	t.walk(top, func(n uint32) { all = append(all, n) })
	p.l.unwatch(top)
	for _, n := range slices.Backward(all) { // children before parents
		nd := t.at(n)
		if n != top {
			p.counts.Removed++
			if err := p.tomb(ctx, nd.id); err != nil {
				return err
			}
		}
		if nd.flags&flagLimbo == 0 {
			t.tally(nd, -1)
			t.unlink(n)
		}
		if nd.kind == record.Directory {
			delete(p.l.rules, n)
		}
		t.release(n)
	}
	return nil
}
