package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"peerdex/record"
)

// Config tunes an Indexer. Device is required; the rest of the zero value is good.
type Config struct {
	Device      record.DeviceID
	Home        string           // peer's own directory: never catalogued, even inside a location
	Gather      time.Duration    // changes must pause for so long before they are looked at; 0 means 10ms
	GatherMost  time.Duration    // but are looked at after so long; 0 means 100ms
	RescanEvery time.Duration    // between full passes over a watched location, and up to a fifth more; 0 means 1h
	PollEvery   time.Duration    // between full passes where watching fails; 0 means 30s
	RetryEvery  time.Duration    // between looks for a folder that is away; 0 means 5s
	HashAfter   time.Duration    // a file that changed so short ago is not read to hash it; 0 means 2s
	Metrics     Metrics          // nil counts nothing
	Events      Events           // nil tells nobody
	Log         *slog.Logger     // nil discards
	Now         func() time.Time // nil: time.Now; for what is shown, nothing is decided by it
}

func (c Config) withDefaults() Config {
	c.Gather = cmp.Or(c.Gather, 10*time.Millisecond)
	c.GatherMost = cmp.Or(c.GatherMost, 100*time.Millisecond)
	c.RescanEvery = cmp.Or(c.RescanEvery, time.Hour)
	c.PollEvery = cmp.Or(c.PollEvery, 30*time.Second)
	c.RetryEvery = cmp.Or(c.RetryEvery, 5*time.Second)
	c.HashAfter = cmp.Or(c.HashAfter, 2*time.Second)
	if c.Metrics == nil {
		c.Metrics = quiet{}
	}
	if c.Events == nil {
		c.Events = quiet{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Indexer keeps the location feeds of this device true to its disks. Its methods may be called from any
// goroutine, before, during and after Run.
type Indexer struct {
	feeds   Feeds
	cfg     Config
	disk    disk
	watcher func() (*fsnotify.Watcher, error)
	backlog *backlog
	hasher  *hasher

	change sync.Mutex // held while locations are added or removed; taken before mu

	mu        sync.Mutex // guards the fields below
	locations map[record.LocationID]*location
	spawn     func(l *location, after <-chan struct{}) // runs l once after is closed, if there is one; nil while not running
}

// NewIndexer returns an indexer of the device's own locations in feeds. It starts nothing.
func NewIndexer(feeds Feeds, cfg Config) *Indexer {
	cfg = cfg.withDefaults()
	ix := &Indexer{
		feeds: feeds, cfg: cfg, disk: realDisk{}, locations: map[record.LocationID]*location{},
		watcher: func() (*fsnotify.Watcher, error) { return fsnotify.NewBufferedWatcher(1024) },
		backlog: &backlog{counts: map[record.LocationID]int{}, told: cfg.Metrics.ScanBacklog},
	}
	ix.hasher = newHasher(ix)
	return ix
}

// Run indexes and follows every location of this device until ctx ends, with locations added meanwhile.
// An error is the store's; whatever happens to the folders themselves is in Status.
func (ix *Indexer) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if err := ix.begin(ctx, g); err != nil {
		return err
	}
	g.Go(func() error { return ix.hasher.run(ctx) })
	g.Go(func() error { // as long as this runs, another location may join the group
		<-ctx.Done()
		ix.mu.Lock()
		defer ix.mu.Unlock()
		ix.spawn = nil
		return nil
	})
	return g.Wait()
}

// begin starts each location of this device in g, and lets those follow that are added from now on. One
// that is being added meanwhile is started once: by Add if that comes second, else here.
func (ix *Indexer) begin(ctx context.Context, g *errgroup.Group) error {
	ix.change.Lock()
	defer ix.change.Unlock()
	own, err := ix.own()
	if err != nil {
		return err
	}
	ix.mu.Lock()
	ix.locations = map[record.LocationID]*location{}
	ix.mu.Unlock()
	own, again := single(own)
	for _, o := range again {
		if err := ix.remove(ctx, o); err != nil {
			return err
		}
	}
	ix.mu.Lock()
	ix.spawn = func(l *location, after <-chan struct{}) {
		ctx, cancel := context.WithCancel(ctx)
		l.cancel, l.done = cancel, make(chan struct{})
		g.Go(func() error {
			defer close(l.done)
			defer cancel()
			if after != nil {
				<-after
			}
			return l.run(ctx)
		})
	}
	for _, o := range own {
		ix.start(o, nil)
	}
	ix.mu.Unlock()
	return nil
}

// start begins to index a location, after another one has ended if told so; ix.mu is held. Without a path
// nothing is known of it yet.
func (ix *Indexer) start(o Location, after <-chan struct{}) {
	if ix.spawn != nil && o.Path != "" {
		ix.locations[o.ID] = ix.location(o)
		ix.spawn(ix.locations[o.ID], after)
	}
}

func (ix *Indexer) location(o Location) *location {
	l := &location{
		id: o.ID, name: o.Name, folder: o.Path, globs: o.Ignore, feed: o.Feed(), feeds: ix.feeds, disk: ix.disk,
		cfg: ix.cfg, log: ix.cfg.Log, backlog: ix.backlog, hasher: ix.hasher,
		watch: newWatches(ix.watcher), ask: make(chan request), hashes: make(chan hashes),
		tree: newTree(), unread: map[string]string{},
		status: Status{Location: o.ID, Name: o.Name, Path: o.Path, Phase: Waiting},
	}
	if home, ok := beneath(real(ix.cfg.Home), real(o.Path)); ok && home != "" {
		l.home = filepath.ToSlash(home)
		l.homeName = filepath.Base(home)
	}
	return l
}

// own returns the locations of this device that exist, by name.
func (ix *Indexer) own() ([]Location, error) {
	all, err := locations(ix.feeds)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(l Location) bool { return l.Owner != ix.cfg.Device || !l.Exists }), nil
}

// ErrStopped is returned by Rescan and Reload when the location is removed, or Run ends, meanwhile.
var ErrStopped = errors.New("no longer followed")

// Rescan makes a full pass over the given locations, or over all if none is given, and returns when the
// passes are through: nil if every folder was there. It needs Run.
func (ix *Indexer) Rescan(ctx context.Context, ids ...record.LocationID) error {
	return ix.request(ctx, false, ids)
}

// Reload is Rescan after something else wrote the location's feed, as when this device took its own
// entries back from a peer: what is known is read from the feed again first.
func (ix *Indexer) Reload(ctx context.Context, ids ...record.LocationID) error {
	return ix.request(ctx, true, ids)
}

func (ix *Indexer) request(ctx context.Context, reload bool, ids []record.LocationID) error {
	ix.mu.Lock()
	var asked []*location
	for id, l := range ix.locations {
		if len(ids) == 0 || slices.Contains(ids, id) {
			asked = append(asked, l)
		}
	}
	ix.mu.Unlock()
	for _, id := range ids {
		if !slices.ContainsFunc(asked, func(l *location) bool { return l.id == id }) {
			return &Refusal{Path: id.String(), Err: ErrUnknown}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range asked {
		g.Go(func() error {
			r := request{reload: reload, done: make(chan error, 1)}
			select {
			case l.ask <- r:
			case <-l.done:
				return fmt.Errorf("scan location %q: %w", l.name, ErrStopped)
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case err := <-r.done:
				if err != nil {
					return fmt.Errorf("scan location %q: %w", l.name, err)
				}
				return nil
			case <-l.done:
				return fmt.Errorf("scan location %q: %w", l.name, ErrStopped)
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	return g.Wait()
}

// Status returns what is to be told of each location while Run runs, by name.
func (ix *Indexer) Status() []Status {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	out := make([]Status, 0, len(ix.locations))
	for _, l := range ix.locations {
		s := l.Status()
		s.Unhashed = ix.hasher.unhashed(l.id)
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
