package catalog

import (
	"context"
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
	hasher  *hasher

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
	read   struct { // and hashed, likewise
		files int
		bytes uint64
	}

	ask    chan request
	hashes chan hashes
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

func (l *location) nextPass() uint32 { l.passes++; return l.passes }

// scan is a full pass. It returns *unavailable if the folder is not there.
func (l *location) scan(ctx context.Context) error {
	defer l.hasher.calm.disturb()()
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
	l.cfg.Events.PassStarted(l.id)
	l.mu.Lock()
	l.status.Phase, l.status.Reason, l.status.Started = Scanning, "", start
	l.status.Scanned, l.status.Expected = 0, l.tree.files+l.tree.dirs
	l.unread, l.unreadMore = map[string]string{}, 0
	l.mu.Unlock()
	p := l.newPass()
	for _, id := range l.strays {
		p.batch = append(p.batch, store.Put{Record: record.Tombstone{ID: id}})
	}
	jobs := []job{{node: root, place: place{l.folder, f.id}, up: l.top, had: l.rules[root], deep: true}}
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
	l.cfg.Events.PassCompleted(l.id, p.counts)
	l.show(func(s *Status) { s.LastScan, s.Took, s.Last = now, took, p.counts })
	if cause == "" {
		if err := l.watch.broken(); err != nil {
			cause = l.cause(err)
		}
	}
	l.watched(cause)
	l.hasher.scanned(l.id)
	return nil
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
	if l.read.files > 0 {
		l.cfg.Events.FilesHashed(l.id, l.read.files, l.read.bytes)
		l.read.files, l.read.bytes = 0, 0
	}
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
