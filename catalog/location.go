package catalog

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"peerdex/feed"
	"peerdex/record"
	"peerdex/store"
)

// Changes are told as one event per so long or so many.
const (
	changesWindow = 30 * time.Second
	changesMost   = 10_000
)

// pollsPerWatch is how many polls pass before watching is tried again.
const pollsPerWatch = 16

// location keeps one location of this device true to the disk. All but its status belongs to the
// goroutine in run.
type location struct {
	id      record.LocationID
	name    string
	folder  string // absolute, as the file system has it
	globs   []string
	feed    feed.ID
	feeds   Feeds
	disk    disk
	cfg     Config
	log     *slog.Logger
	backlog *backlog

	home, homeName string // peer's own directory, below the location; empty if it is not

	tree   *tree
	strays []record.EntryID // live entries of the feed that hang from nothing
	top    *rules           // defaults and globs
	rules  map[uint32]*rules
	ids    *rand.ChaCha8
	watch  *watches
	passes uint32
	rootID identity // of the folder when last seen; dev 0: from another run
	polls  int      // since watching was last tried
	degr   bool     // watch_degraded was told
	why    string   // its cause
	gained Counts   // changes not yet told
	since  time.Time

	ask    chan request
	cancel context.CancelFunc // of run; guarded by the indexer
	done   chan struct{}      // closed when run has returned

	mu         sync.Mutex // guards the fields below
	status     Status
	unread     map[string]string // path below the location -> reason
	unreadMore int               // beyond maxUnread
}

const maxUnread = 1000

// request asks for a full pass; done receives its outcome.
type request struct {
	reload bool
	done   chan error
}

// backlog adds up what waits in all locations.
type backlog struct {
	mu     sync.Mutex
	counts map[record.LocationID]int
	sum    int
	told   func(int)
}

func (b *backlog) set(id record.LocationID, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.counts[id] == n {
		return
	}
	b.sum += n - b.counts[id]
	b.counts[id] = n
	b.told(b.sum)
}

// inside returns the path of a name in a directory.
func inside(dir, name string) string {
	if strings.HasSuffix(dir, string(filepath.Separator)) {
		return dir + name
	}
	return dir + string(filepath.Separator) + name
}

// path returns where something with a path below the location lies.
func (l *location) path(rel string) string {
	if rel == "" {
		return l.folder
	}
	return inside(l.folder, filepath.FromSlash(rel))
}

// run loads what is known, scans, and then follows changes until ctx ends. An error is the store's.
func (l *location) run(ctx context.Context) error {
	defer l.watch.stop()
	defer l.backlog.set(l.id, 0)
	defer l.tell()
	if err := l.load(); err != nil {
		return fmt.Errorf("load location %q: %w", l.name, err)
	}
	var waiting []request
	for {
		err := l.scan(ctx)
		for _, r := range waiting {
			r.done <- err
		}
		waiting = nil
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.As(err, new(*unavailable)):
			return fmt.Errorf("scan location %q: %w", l.name, err)
		}
		r, err := l.follow(ctx)
		switch {
		case ctx.Err() != nil:
			if r != nil {
				r.done <- ctx.Err()
			}
			return nil
		case err != nil:
			return fmt.Errorf("follow location %q: %w", l.name, err)
		case r != nil:
			waiting = append(waiting, *r)
			if r.reload {
				if err := l.load(); err != nil {
					return fmt.Errorf("load location %q: %w", l.name, err)
				}
			}
		}
	}
}

// load builds the tree from the feed in one scan.
func (l *location) load() error {
	type link struct {
		n      uint32
		parent record.EntryID
		name   string
	}
	l.watch.stop()
	t := newTree()
	known := map[record.EntryID]uint32{{}: root}
	var links []link
	err := l.feeds.Entries(l.feed, func(row store.Row) error {
		if record.IsTombstone(row.Record) {
			return nil
		}
		rec, err := record.Decode(row.Key, row.Record)
		f, ok := rec.(record.File)
		if err != nil || !ok {
			return nil // of a newer version: nobody's business here
		}
		local, err := decodeFacts(row.Local)
		if err != nil {
			return fmt.Errorf("entry %v: %w", f.ID, err)
		}
		n := t.alloc()
		nd := t.at(n)
		*nd = node{id: f.ID, kind: f.Kind, mode: uint16(f.Mode), size: f.Size, mtime: f.ModTime, parent: none, first: none, next: none, prev: none}
		if f.Kind == record.Symlink {
			nd.size = t.targetHash(f.Target)
		}
		if local.foreign {
			t.identify(n, t.devIndex(local.dev), local.ino)
		} else {
			t.identify(n, 0, local.ino)
		}
		known[f.ID] = n
		links = append(links, link{n, f.Parent, f.Name})
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrUnknownFeed) {
		return err
	}
	l.strays = nil
	for _, k := range links {
		parent, ok := known[k.parent]
		if !ok || t.at(parent).kind != record.Directory {
			continue
		}
		if c := t.child(parent, k.name); c != none { // of two with one name the newer counts
			t.unlink(c)
		}
		t.link(k.n, parent, k.name)
	}
	reached := make([]bool, t.count)
	t.walk(root, func(n uint32) {
		reached[n] = true
		if n != root {
			t.tally(t.at(n), 1)
		}
	})
	for _, k := range links {
		if !reached[k.n] {
			l.strays = append(l.strays, t.at(k.n).id)
		}
	}
	for _, k := range links {
		if !reached[k.n] {
			if t.at(k.n).parent != none {
				t.unlink(k.n)
			}
			t.at(k.n).first = none
		}
	}
	for _, k := range links {
		if !reached[k.n] {
			t.release(k.n)
		}
	}
	b, err := l.feeds.Local(l.rootKey())
	if err != nil {
		return err
	}
	l.rootID = identity{}
	if len(b) == 8 {
		l.rootID.ino = binary.BigEndian.Uint64(b)
	}
	var seed [32]byte
	crand.Read(seed[:])
	l.tree, l.rules, l.ids = t, map[uint32]*rules{}, rand.NewChaCha8(seed)
	l.top = parseRules(parseRules(nil, "", strings.Join(DefaultIgnore, "\n")), "", strings.Join(l.globs, "\n"))
	l.show(func(s *Status) { s.Phase = Waiting })
	return nil
}

// rootKey names the local fact that holds the inode of the folder itself.
func (l *location) rootKey() string { return "location " + l.id.String() + " inode" }

// unavailable is why a location cannot be scanned; nothing of it is changed.
type unavailable struct{ reason string }

func (u *unavailable) Error() string { return u.reason }

// unlike reports whether the folder is another one than when last seen.
func (l *location) unlike(id identity) bool {
	return l.rootID.ino != 0 && (id.ino != l.rootID.ino || l.rootID.dev != 0 && id.dev != l.rootID.dev)
}

// attach looks whether the folder is there and is what it was.
func (l *location) attach() (found, error) {
	f := l.disk.stat(l.folder, true)
	switch {
	case f.err != nil:
		return f, &unavailable{reason(f.err)}
	case f.kind != record.Directory:
		return f, &unavailable{"not a directory any more"}
	}
	keep := func(string, bool, bool) bool { return true }
	if l.unlike(f.id) && l.tree.at(root).first != none {
		// Another disk may be mounted under other numbers. But a place where nothing is mounted is empty,
		// and says nothing of the disk that belongs there.
		entries, err := l.disk.list(place{l.folder, f.id, true}, nil, keep, nil)
		if err != nil {
			return f, &unavailable{reason(err)}
		}
		if len(entries) == 0 {
			return f, &unavailable{"another directory, an empty one, stands here: is the disk mounted?"}
		}
	}
	if f.id.ino != l.rootID.ino {
		if err := l.feeds.SetLocal(l.rootKey(), binary.BigEndian.AppendUint64(nil, f.id.ino)); err != nil {
			return f, fmt.Errorf("note the inode of %s: %w", l.folder, err)
		}
	}
	l.rootID = f.id
	l.tree.devs[0] = f.id.dev
	l.tree.at(root).ino = f.id.ino // not in the table: nothing moves to where the folder is
	return f, nil
}

func (l *location) nextPass() uint32 { l.passes++; return l.passes }

// scan is a full pass. It returns *unavailable if the folder is not there.
func (l *location) scan(ctx context.Context) error {
	start := l.cfg.Now()
	l.watch.take() // whatever it is, it will be seen
	f, err := l.attach()
	if err != nil {
		l.watch.stop()
		var u *unavailable
		if errors.As(err, &u) {
			l.setUnavailable(u.reason)
		}
		return err
	}
	cause := l.rewatch()
	l.cfg.Events.ScanStarted(l.id)
	l.mu.Lock()
	l.status.Phase, l.status.Reason, l.status.Started = Scanning, "", start
	l.status.Scanned, l.status.Expected = 0, l.tree.files+l.tree.dirs
	l.unread, l.unreadMore = map[string]string{}, 0
	l.mu.Unlock()
	p := &pass{l: l, number: l.nextPass(), suspects: map[uint32]bool{}}
	for _, id := range l.strays {
		p.batch = append(p.batch, store.Put{Record: record.Tombstone{ID: id}})
	}
	jobs := []job{{node: root, place: place{l.folder, f.id, true}, up: l.top, had: l.rules[root], deep: true}}
	err = p.run(ctx, jobs, l.more)
	took := l.cfg.Now().Sub(start)
	if err != nil {
		if ctx.Err() == nil {
			l.cfg.Events.ScanFailed(l.id, err.Error())
		}
		return err
	}
	l.strays = nil
	l.counted(p.counts)
	if l.tree.at(root).flags&flagUnread != 0 { // as when a disk fails: what was known is kept
		l.watch.stop()
		l.mu.Lock()
		why := l.unread[""]
		l.mu.Unlock()
		l.setUnavailable(why)
		return &unavailable{why}
	}
	now := l.cfg.Now()
	l.cfg.Metrics.ScanDone(l.id.String(), took, now)
	l.cfg.Events.ScanCompleted(l.id, p.counts, took)
	l.show(func(s *Status) { s.LastScan, s.Took, s.Last = now, took, p.counts })
	if cause == "" {
		if err := l.watch.broken(); err != nil {
			cause = l.cause(err)
		}
	}
	l.watched(cause)
	return nil
}

func (l *location) setUnavailable(why string) {
	before := l.Status().Phase
	l.show(func(s *Status) { s.Phase, s.Reason = Unavailable, why })
	l.cfg.Metrics.WatchActive(l.id.String(), false)
	if before != Unavailable {
		l.cfg.Events.ScanFailed(l.id, why)
		l.log.Warn("location is unavailable", "location", l.id, "reason", why)
	}
}

// rewatch makes sure that a full pass watches what it lists, if watching can be had. It returns why not.
func (l *location) rewatch() (cause string) {
	if fs := l.disk.remote(l.folder); fs != "" {
		l.watch.stop()
		return "network_fs:" + fs
	}
	if l.degr {
		if l.polls++; l.polls%pollsPerWatch != 0 {
			return l.why
		}
	}
	if err := l.watch.start(); err != nil {
		return l.cause(err)
	}
	return ""
}

func (l *location) cause(err error) string {
	l.log.Warn("cannot watch every directory", "location", l.id, "error", reason(err))
	return cmp.Or(watchCause(err), "unsupported")
}

// watched notes how a full pass left the watching: well, or not and why.
func (l *location) watched(cause string) {
	l.cfg.Metrics.WatchActive(l.id.String(), cause == "")
	if cause == "" {
		l.show(func(s *Status) { s.Phase, s.Reason = Watching, "" })
		if l.degr {
			l.degr = false
			l.cfg.Events.WatchRecovered(l.id)
		}
		return
	}
	l.watch.stop()
	l.show(func(s *Status) { s.Phase, s.Reason = Polling, cause })
	if !l.degr {
		l.degr, l.why, l.polls = true, cause, 0
		l.cfg.Events.WatchDegraded(l.id, cause)
	}
}

// follow takes in changes until a full pass is due, or asked for by the request it returns.
func (l *location) follow(ctx context.Context) (*request, error) {
	due := time.NewTimer(l.nextScan())
	defer due.Stop()
	told := time.NewTicker(changesWindow)
	defer told.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case r := <-l.ask:
			return &r, nil
		case <-due.C:
			return nil, nil
		case <-told.C:
			l.tell()
			continue
		case <-l.watch.wake:
		}
		l.gather(ctx)
		overflow, shaken, failed := l.watch.state()
		if overflow {
			l.cfg.Metrics.WatchOverflow()
			l.cfg.Events.WatchDegraded(l.id, "overflow")
			l.degr = true // told as recovered when the pass that follows has been through
			l.polls = -1
		}
		if overflow || failed != nil {
			return nil, nil
		}
		jobs := l.dirty()
		if shaken {
			if f := l.disk.stat(l.folder, true); f.err != nil || f.id != l.rootID || l.tree.at(root).flags&flagUnread != 0 {
				return nil, nil
			}
		}
		if len(jobs) == 0 {
			continue
		}
		p := &pass{l: l, number: l.nextPass(), suspects: map[uint32]bool{}}
		err := p.run(ctx, jobs, l.more)
		if err != nil {
			return nil, err
		}
		l.counted(p.counts)
		l.backlog.set(l.id, 0)
	}
}

// nextScan returns how long to wait for the next full pass.
func (l *location) nextScan() time.Duration {
	s := l.Status()
	switch s.Phase {
	case Watching:
		return l.cfg.RescanEvery + time.Duration(rand.Int64N(int64(l.cfg.RescanEvery)/5+1))
	case Polling:
		return max(l.cfg.PollEvery, 20*s.Took) // at most a twentieth of the time is spent looking
	}
	return l.cfg.RetryEvery
}

// gather waits until changes pause for a moment, but not long.
func (l *location) gather(ctx context.Context) {
	end := time.NewTimer(l.cfg.GatherMost)
	defer end.Stop()
	pause := time.NewTimer(l.cfg.Gather)
	defer pause.Stop()
	for {
		select {
		case <-l.watch.wake:
			pause.Reset(l.cfg.Gather)
		case <-pause.C:
			return
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// dirty turns what the watches reported into jobs. If the folder itself was moved or deleted, one is to list
// it, which finds nothing there and asks for a look at the folder.
func (l *location) dirty() (jobs []job) {
	t := l.tree
	for n, d := range l.watch.take() {
		nd := t.at(n)
		if nd.flags&(flagFree|flagLimbo) != 0 || nd.kind != record.Directory {
			continue
		}
		rel, ok := t.rel(n)
		if !ok {
			continue
		}
		j := job{node: n, place: place{l.path(rel), t.identity(nd), n == root}, rel: rel, had: l.rules[n]}
		switch {
		case d.names[IgnoreFile]: // other rules may hold for all that lies below
			j.deep, j.up = true, l.rulesAbove(n)
		case d.all:
			j.up = l.rulesAbove(n)
		default:
			j.up = l.rulesIn(n)
			for name := range d.names {
				j.names = append(j.names, name)
			}
			slices.Sort(j.names)
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// more returns what has become dirty since a pass began. It waits for that as long as for a pause in changes:
// of a move to another directory, word of where something went may come a moment after word that it went.
func (l *location) more(ctx context.Context) []job {
	pause := time.NewTimer(l.cfg.Gather)
	defer pause.Stop()
	for woken := false; ; {
		jobs := l.dirty()
		if len(jobs) == 0 && l.watch.active() {
			select {
			case <-l.watch.wake:
				woken = true
				continue
			case <-pause.C:
				jobs = l.dirty()
			case <-ctx.Done():
			}
		}
		if woken {
			l.watch.signal() // it may have been about more than what is dirty
		}
		return jobs
	}
}

// rulesIn returns the rules that hold for the entries of a directory.
func (l *location) rulesIn(n uint32) *rules {
	for ; n != none; n = l.tree.at(n).parent {
		if r := l.rules[n]; r != nil {
			return r
		}
	}
	return l.top
}

func (l *location) rulesAbove(n uint32) *rules {
	if n == root {
		return l.top
	}
	return l.rulesIn(l.tree.at(n).parent)
}

// setRules notes the rules of a directory that has some of its own.
func (l *location) setRules(n uint32, up, r *rules) {
	if r == up {
		delete(l.rules, n)
	} else {
		l.rules[n] = r
	}
}

// unwatch lets go of the watches of a directory and all below.
func (l *location) unwatch(n uint32) {
	l.tree.walk(n, func(n uint32) {
		if l.tree.at(n).kind == record.Directory {
			l.watch.forget(n)
		}
	})
}

// counted notes what a pass found.
func (l *location) counted(c Counts) {
	for _, r := range [...]struct {
		result string
		n      int
	}{{"added", c.Added}, {"changed", c.Changed}, {"removed", c.Removed}, {"unchanged", c.Unchanged}, {"ignored", c.Ignored}, {"error", c.Errors}} {
		if r.n > 0 {
			l.cfg.Metrics.ScanFiles(r.result, r.n)
		}
	}
	l.show(func(*Status) {})
	if c.differs() == 0 {
		return
	}
	if l.gained.differs() == 0 {
		l.since = l.cfg.Now()
	}
	l.gained.add(Counts{Added: c.Added, Changed: c.Changed, Removed: c.Removed})
	if l.gained.differs() >= changesMost {
		l.tell()
	}
}

// tell makes an event of the changes since the last one.
func (l *location) tell() {
	if l.gained.differs() == 0 {
		return
	}
	l.cfg.Events.FilesChanged(l.id, l.gained, l.cfg.Now().Sub(l.since))
	l.gained = Counts{}
}

// show changes the status, and brings its numbers up to date.
func (l *location) show(change func(*Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.status)
	l.numbers()
}

func (l *location) numbers() {
	l.status.Files, l.status.Dirs, l.status.Bytes = l.tree.files, l.tree.dirs, l.tree.bytes
}

// progress notes that a pass has seen more entries, and what it still has to look at.
func (l *location) progress(entries, backlog int) {
	l.mu.Lock()
	if l.status.Phase == Scanning {
		l.status.Scanned += entries
	}
	l.numbers()
	l.mu.Unlock()
	l.backlog.set(l.id, backlog)
}

func (l *location) unreadable(rel, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.unread[rel]; known || len(l.unread) < maxUnread {
		l.unread[rel] = why
	} else {
		l.unreadMore++
	}
}

// readable takes back what unreadable said.
func (l *location) readable(rel string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unread, rel)
}

// Status returns what is to be told of the location.
func (l *location) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	s.Unreadable = len(l.unread) + l.unreadMore
	paths := make([]string, 0, len(l.unread))
	for p := range l.unread {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths[:min(len(paths), maxSamples)] {
		s.Samples = append(s.Samples, Sample{p, l.unread[p]})
	}
	return s
}
