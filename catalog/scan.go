package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"peerdex/record"
	"peerdex/store"
)

const (
	batchPuts   = 2000    // records a commit holds at most: one transaction of the store
	batchBytes  = 1 << 19 // and about so many bytes of them
	scanWorkers = 4       // directories read at one time: a disk answers several questions at once
	drainRounds = 8       // times a pass takes in what happened meanwhile before it believes in deletions
)

// Counts is what a pass found.
type Counts struct {
	Added, Changed, Removed, Unchanged, Ignored, Errors int
}

func (c *Counts) add(o Counts) {
	c.Added += o.Added
	c.Changed += o.Changed
	c.Removed += o.Removed
	c.Unchanged += o.Unchanged
	c.Ignored += o.Ignored
	c.Errors += o.Errors
}

// differs returns how many entries a pass wrote.
func (c Counts) differs() int { return c.Added + c.Changed + c.Removed }

// job is a directory to be looked at.
type job struct {
	node  uint32
	place place
	rel   string   // its path below the location
	up    *rules   // of the directories above; of itself too if names are given
	had   *rules   // its own rules at the last look
	names []string // only these entries; none: all
	deep  bool     // look at everything below as well
}

// listing is what was found there.
type listing struct {
	job
	rules   *rules // that hold in it
	entries []found
	ids     map[identity]int // how often each occurs; made when first asked for
	ignored int
	err     error
	ruleErr error
}

// look does the part of a job that waits for the disk. It runs in several goroutines.
func (l *location) look(j job) *listing {
	out := &listing{job: j, rules: j.up}
	path := j.place.path
	l.watch.add(j.node, path, j.place.id, func() bool { // before the listing, so that no change falls between
		f := l.disk.stat(path)
		return f.err == nil && f.id == j.place.id
	})
	if len(j.names) == 0 {
		text, err := l.disk.read(inside(path, IgnoreFile), maxIgnoreFile)
		switch {
		case err == nil:
			out.rules = parseRules(j.up, j.rel, string(text))
		case !gone(err) && j.had != nil: // rather the rules of yesterday than none
			again := *j.had
			again.up, again.base = j.up, j.rel
			out.rules, out.ruleErr = &again, err
		case !gone(err):
			out.ruleErr = err
		}
	}
	keep := func(name string, isDir, sure bool) bool {
		if out.rules.ignores(j.rel, name, isDir) || isDir && name == l.homeName && join(j.rel, name) == l.home {
			if sure {
				out.ignored++
			}
			return false
		}
		return true
	}
	out.entries, out.err = l.disk.list(j.place, j.names, keep, nil)
	return out
}

// pass is one look at a location or at parts of it. It belongs to one goroutine, which owns the tree.
type pass struct {
	l      *location
	number uint32

	stack    []job
	missing  []absence
	limbo    []uint32 // nodes something else took the name of
	suspects map[uint32]bool
	counts   Counts

	batch   []store.Put
	bytes   int
	commits chan<- []store.Put
	wrote   bool
	aside   map[uint32]record.File // what displaced nodes with a hash were
}

func (l *location) newPass() *pass {
	return &pass{l: l, number: l.nextPass(), suspects: map[uint32]bool{}, aside: map[uint32]record.File{}}
}

// absence is a node whose name was not found. It is gone unless the pass sees it after that.
type absence struct {
	node, seen uint32
}

// run looks at the jobs and all that follows from them, and writes what differs: on return it is
// committed and durable. more is asked for further jobs before anything is deleted.
func (p *pass) run(ctx context.Context, jobs []job, more func(context.Context) []job) error {
	g, ctx := errgroup.WithContext(ctx)
	var (
		work    = make(chan job)
		results = make(chan *listing, 2*scanWorkers)
		commits = make(chan []store.Put, 1)
	)
	for range scanWorkers {
		g.Go(func() error {
			for j := range work {
				select {
				case results <- p.l.look(j):
				case <-ctx.Done():
					return nil
				}
			}
			return nil
		})
	}
	g.Go(func() (err error) { // committing overlaps with walking
		w := NewWriter(p.l.feeds, p.l.feed)
		defer func() { err = errors.Join(err, w.Close()) }()
		for {
			select {
			case batch, more := <-commits:
				switch {
				case more:
					err = w.Write(batch)
				case ctx.Err() == nil:
					return w.Hurry()
				}
				if err != nil || !more {
					return err
				}
			case <-w.Due():
				if err := w.Hurry(); err != nil {
					return err
				}
			}
		}
	})
	p.commits, p.stack = commits, jobs
	g.Go(func() error {
		defer close(work)
		defer close(commits)
		return p.drive(ctx, work, results, more)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if p.wrote {
		if err := p.l.feeds.Sync(); err != nil {
			return fmt.Errorf("sync after a scan: %w", err)
		}
	}
	return nil
}

func (p *pass) drive(ctx context.Context, work chan<- job, results <-chan *listing, more func(context.Context) []job) error {
	for round := 0; ; round++ {
		for out := 0; out > 0 || len(p.stack) > 0; {
			var (
				to   chan<- job
				next job
			)
			if len(p.stack) > 0 {
				to, next = work, p.stack[len(p.stack)-1]
			}
			select {
			case to <- next:
				p.stack = p.stack[:len(p.stack)-1]
				out++
			case r := <-results:
				out--
				if err := p.apply(ctx, r); err != nil {
					return err
				}
				p.l.progress(len(r.entries), len(p.stack)+out)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		// What is missing in one directory may have turned up in another one a moment ago.
		if round == drainRounds || len(p.missing)+len(p.limbo) == 0 {
			break
		}
		if p.stack = more(ctx); len(p.stack) == 0 {
			break
		}
		p.number = p.l.nextPass()
	}
	if err := p.bury(ctx); err != nil {
		return err
	}
	return p.flush(ctx)
}

// apply brings the tree in line with a listing.
func (p *pass) apply(ctx context.Context, r *listing) error {
	t := p.l.tree
	nd := t.at(r.node)
	if nd.flags&(flagFree|flagLimbo) != 0 {
		return nil
	}
	p.counts.Ignored += r.ignored
	if r.ruleErr != nil {
		p.unreadable(join(r.rel, IgnoreFile), r.ruleErr)
	}
	if gone(r.err) {
		// The directory above tells what became of it. It may even be back by then, with all that was to
		// be looked at in it: unlisted, it is entered again when it is seen.
		nd.flags |= flagUnread
		if r.node != root {
			p.l.watch.mark(nd.parent)
		} else {
			p.l.watch.shake()
		}
		return nil
	}
	if len(r.names) == 0 {
		p.l.setRules(r.node, r.up, r.rules)
		if p.suspects[r.node] && r.err == nil {
			if len(r.entries) == 0 && nd.first != none {
				r.err = errUnmounted
			} else {
				t.identify(r.node, t.devIndex(r.place.id.dev), r.place.id.ino)
			}
		}
		nd.flags &^= flagUnread
		p.l.readable(r.rel)
	}
	if r.err != nil {
		nd.flags |= flagUnread
		p.unreadable(r.rel, r.err)
	}
	// First what stands where it stood, then new names, then names that changed hands: so nothing is
	// taken for moved that is still there, and a name is free before it is taken.
	var fresh, taken []int
	for i := range r.entries {
		f := &r.entries[i]
		c := t.child(r.node, f.name)
		switch {
		case gone(f.err):
			if c != none {
				p.missing = append(p.missing, absence{c, t.at(c).pass})
			}
		case !p.usable(r, f):
			if c != none {
				t.at(c).pass = p.number // as it was last known
			}
		case c == none:
			fresh = append(fresh, i)
		case p.is(c, f):
			if err := p.update(ctx, r, c, f, false); err != nil {
				return err
			}
		default:
			taken = append(taken, i)
		}
	}
	for _, i := range append(fresh, taken...) {
		if err := p.settle(ctx, r, &r.entries[i]); err != nil {
			return err
		}
	}
	if len(r.names) == 0 && r.err == nil {
		for c := nd.first; c != none; c = t.at(c).next {
			if t.at(c).pass != p.number {
				p.missing = append(p.missing, absence{c, t.at(c).pass})
			}
		}
	}
	return nil
}

var errUnmounted = errors.New("nothing is mounted here any more")

// usable reports whether enough is known of f to make a record of it.
func (p *pass) usable(r *listing, f *found) bool {
	err := f.err
	if err == nil {
		rec := record.File{ID: record.EntryID{1}, Kind: f.kind, Mode: uint32(f.mode), Size: f.size, ModTime: f.mtime, Name: f.name, Target: f.target}
		err = rec.Validate()
	}
	if err != nil {
		p.unreadable(join(r.rel, f.name), err)
	}
	return err == nil
}

// update notes what f says of a node that stands at its name already.
func (p *pass) update(ctx context.Context, r *listing, n uint32, f *found, replaced bool) error {
	t := p.l.tree
	nd := t.at(n)
	nd.pass = p.number
	if nd.ino == 0 && f.id.ino != 0 {
		t.identify(n, t.devIndex(f.id.dev), f.id.ino)
	}
	size := t.sizeOf(f)
	changed := nd.mode != f.mode || nd.size != size || nd.mtime != f.mtime
	if changed {
		p.counts.Changed++
		p.set(nd, f, size)
		if err := p.put(ctx, n, f); err != nil {
			return err
		}
		if err := p.links(ctx, n, f); err != nil {
			return err
		}
	} else {
		p.counts.Unchanged++
	}
	if f.kind == record.Directory && (r.deep || replaced || changed || nd.flags&flagUnread != 0 || p.l.watch.lacks(n)) {
		p.descend(r, n, f, r.deep || replaced)
	}
	return nil
}

// links brings the other names of a changed file up to date: a change through one name is reported for
// that name alone.
func (p *pass) links(ctx context.Context, n uint32, f *found) error {
	t := p.l.tree
	if f.kind == record.Directory || f.id.ino == 0 {
		return nil
	}
	var others []uint32
	dev := t.at(n).dev
	t.byIno.find(inoHash(dev, f.id.ino), func(m uint32) bool {
		if nd := t.at(m); m != n && nd.dev == dev && nd.ino == f.id.ino && nd.kind == f.kind &&
			(nd.mode != f.mode || nd.size != t.sizeOf(f) || nd.mtime != f.mtime) {
			others = append(others, m)
		}
		return false
	})
	for _, m := range others {
		rel, ok := t.rel(m)
		if !ok {
			continue
		}
		g := p.l.disk.stat(p.l.path(rel))
		if g.err != nil || g.id != f.id {
			continue // its directory will be looked at
		}
		nd := t.at(m)
		g.name, g.target = string(t.nameOf(nd)), f.target
		p.set(nd, &g, t.sizeOf(&g))
		p.counts.Changed++
		if err := p.put(ctx, m, &g); err != nil {
			return err
		}
	}
	return nil
}

// sizeOf is what a node keeps as size: of a link, a hash of its target.
func (t *tree) sizeOf(f *found) uint64 {
	if f.kind == record.Symlink {
		return t.targetHash(f.target)
	}
	return f.size
}

func (p *pass) set(nd *node, f *found, size uint64) {
	p.l.tree.tally(nd, -1)
	nd.mode, nd.size, nd.mtime = f.mode, size, f.mtime
	p.l.tree.tally(nd, 1)
}

func (p *pass) create(ctx context.Context, r *listing, f *found) error {
	t := p.l.tree
	n := t.alloc()
	nd := t.at(n)
	*nd = node{kind: f.kind, mode: f.mode, size: t.sizeOf(f), mtime: f.mtime, pass: p.number, parent: none, first: none, next: none, prev: none}
	p.l.ids.Read(nd.id[:])
	t.link(n, r.node, f.name)
	t.identify(n, t.devIndex(f.id.dev), f.id.ino)
	t.tally(nd, 1)
	p.counts.Added++
	if err := p.add(ctx, store.Put{Record: p.file(nd, f), Local: p.facts(nd), New: true}); err != nil {
		return err
	}
	if f.kind == record.Directory {
		p.descend(r, n, f, true)
	}
	return nil
}

func (p *pass) descend(r *listing, n uint32, f *found, deep bool) {
	if f.pseudo {
		return
	}
	rel := join(r.rel, f.name)
	p.stack = append(p.stack, job{
		node: n, place: place{path: inside(r.place.path, f.name), id: f.id},
		rel: rel, up: r.rules, had: p.l.rules[n], deep: deep,
	})
}

// put writes the record of a node as f has it.
func (p *pass) put(ctx context.Context, n uint32, f *found) error {
	nd := p.l.tree.at(n)
	rec := p.file(nd, f)
	old, err := p.known(n)
	if err != nil {
		return err
	}
	if f.kind == record.Regular && versionOf(old) == versionOf(rec) {
		rec.Hash = old.Hash
	}
	return p.add(ctx, store.Put{Record: rec, Local: p.facts(nd)})
}

// known returns the record that a node had before this pass, or one later than that: whatever was written
// since of its content has another version. It is the zero File if there is none.
func (p *pass) known(n uint32) (record.File, error) {
	nd := p.l.tree.at(n)
	if f, ok := p.aside[n]; ok {
		return f, nil
	}
	if nd.kind != record.Regular {
		return record.File{}, nil
	}
	row, _, err := p.l.feeds.Entry(p.l.feed, nd.id[:])
	f, _ := fileOf(row)
	return f, err
}

func (p *pass) file(nd *node, f *found) record.File {
	return record.File{
		ID: nd.id, Parent: p.l.tree.at(nd.parent).id, Kind: f.kind, Mode: uint32(f.mode), Size: f.size, ModTime: f.mtime,
		Name: f.name, Target: f.target,
	}
}

func (p *pass) facts(nd *node) []byte {
	return facts{ino: nd.ino, dev: p.l.tree.devs[nd.dev], foreign: nd.dev != 0}.append(nil)
}

// tomb writes the tombstone of an entry.
func (p *pass) tomb(ctx context.Context, id record.EntryID) error {
	return p.add(ctx, store.Put{Record: record.Tombstone{ID: id}})
}

func (p *pass) add(ctx context.Context, put store.Put) error {
	if p.batch == nil {
		p.batch = make([]store.Put, 0, 64)
	}
	p.batch = append(p.batch, put)
	if f, ok := put.Record.(record.File); ok {
		p.bytes += len(f.Name) + len(f.Target)
	}
	if len(p.batch) < batchPuts && p.bytes < batchBytes {
		return nil
	}
	return p.flush(ctx)
}

func (p *pass) flush(ctx context.Context) error {
	if len(p.batch) == 0 {
		return nil
	}
	select {
	case p.commits <- p.batch:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.batch, p.bytes, p.wrote = nil, 0, true
	return nil
}

func (p *pass) unreadable(rel string, err error) {
	p.counts.Errors++
	p.l.unreadable(rel, reason(err))
}

// reason is an error without the path, which is told beside it.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err.Error()
}
