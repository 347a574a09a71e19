package catalog

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"peerdex/feed"
	"peerdex/record"
)

// fieldIgnore is a field of a location: its own ignore patterns, one a line.
const fieldIgnore = "ignore"

// maxLocationName is the longest name of a location, in bytes.
const maxLocationName = 255

// Why Add or Remove refuse. They come wrapped in *Refusal.
var (
	ErrMissing      = errors.New("there is no such folder")
	ErrNotDirectory = errors.New("not a folder")
	ErrIndexed      = errors.New("already indexed")
	ErrInside       = errors.New("inside a folder that is indexed already")
	ErrContains     = errors.New("contains a folder that is indexed already")
	ErrNameTaken    = errors.New("another location has this name")
	ErrBadName      = errors.New("not a usable name")
	ErrBadIgnore    = errors.New("too many ignore patterns")
	ErrBadPolicy    = errors.New("which files to hash is one of auto, all and none")
	ErrHome         = errors.New("peer keeps its own data there")
	ErrUnknown      = errors.New("no such location on this device")
)

// ErrStopped is returned by Rescan and Reload when the location is removed, or Run ends, meanwhile.
var ErrStopped = errors.New("no longer followed")

// Refusal says what Add or Remove would not do; nothing was changed.
type Refusal struct {
	Path  string   // or name, or id, that was asked for
	Other Location // the location in the way, for ErrIndexed, ErrInside, ErrContains and ErrNameTaken
	Err   error    // one of the above
}

func (r *Refusal) Error() string {
	if r.Other.ID.IsZero() {
		return fmt.Sprintf("%q: %v", r.Path, r.Err)
	}
	return fmt.Sprintf("%q: %v: location %q at %q", r.Path, r.Err, r.Other.Name, r.Other.Path)
}

func (r *Refusal) Unwrap() error { return r.Err }

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

// haltMost is how long Adopt waits for a location to stop.
const haltMost = time.Second

// Adopt takes in what the registers say of this device's locations by now, as after its own registers came
// back from a peer: it begins to index those it does not know, and lets go of those that exist no more. Of
// two with one path, as when a folder was added again before the news of it came back, the younger is
// removed. Without Run it does nothing: Run begins with the same.
//
// It never waits long for a disk: what an Add or Remove under way, or a location whose disk does not answer,
// stands in the way of is left to a call to come.
func (ix *Indexer) Adopt() error {
	if !ix.change.TryLock() {
		return nil
	}
	defer ix.change.Unlock()
	ix.mu.Lock()
	running, known := ix.spawn != nil, maps.Clone(ix.locations)
	ix.mu.Unlock()
	if !running {
		return nil
	}
	all, err := locations(ix.feeds)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), haltMost)
	defer cancel()
	var own []Location
	for _, o := range all {
		l := known[o.ID]
		switch {
		case o.Owner != ix.cfg.Device:
		case o.Exists:
			own = append(own, o)
		case o.ended && l != nil:
			if ix.halt(ctx, l) == nil {
				ix.forget(o, l)
			}
		}
	}
	own, again := single(own)
	ix.mu.Lock()
	for _, o := range own {
		if known[o.ID] == nil {
			ix.start(o, nil)
		}
	}
	ix.mu.Unlock()
	for _, o := range again {
		if err := ix.remove(ctx, o); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return nil
}

// single parts locations into those that are the only or the oldest ones with their paths, and the rest.
func single(all []Location) (first, again []Location) {
	oldest := map[string]Location{}
	for _, o := range all {
		if old, ok := oldest[o.Path]; !ok || cmp.Or(cmp.Compare(o.placed, old.placed), bytes.Compare(o.ID[:], old.ID[:])) < 0 {
			oldest[o.Path] = o
		}
	}
	for _, o := range all {
		if o.Path == "" || o.ID == oldest[o.Path].ID {
			first = append(first, o)
		} else {
			again = append(again, o)
		}
	}
	return first, again
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

// Options are what may be said of a location when it is added.
type Options struct {
	Name   string   // for people; "" means the folder's own name, with a number if that is taken
	Ignore []string // patterns as in a .peerignore file in the folder itself, weaker than those there
	Hash   Policy   // "" means HashAuto
}

// real resolves links in path as far as it exists; "" stays "".
func real(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	return path
}

// beneath returns the path of inner below outer: "" if they are the same, false if inner is elsewhere.
func beneath(inner, outer string) (string, bool) {
	rel, err := filepath.Rel(outer, inner)
	if err != nil || inner == "" || outer == "" || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return "", false
	}
	if rel == "." {
		return "", true
	}
	return rel, true
}

// Add makes a folder a location of this device: durable on return, indexed as soon as Run gets to it
// (Status tells). It returns a *Refusal, or the store's error.
func (ix *Indexer) Add(_ context.Context, path string, o Options) (Location, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return Location{}, fmt.Errorf("add %q: %w", path, err)
	}
	ix.change.Lock()
	defer ix.change.Unlock()
	own, err := ix.own()
	if err != nil {
		return Location{}, err
	}
	if err := ix.admit(abs, own); err != nil {
		return Location{}, err
	}
	// The folder itself, not the links that lead to it today: a link put in its place later is not followed.
	l := Location{Owner: ix.cfg.Device, Path: real(abs), Exists: true, Ignore: o.Ignore, Hash: cmp.Or(o.Hash, HashAuto)}
	if l.Name, err = nameFor(abs, o.Name, own); err != nil {
		return Location{}, err
	}
	globs := strings.Join(o.Ignore, "\n")
	if len(globs) > record.MaxValue || len(l.Path) > record.MaxValue {
		return Location{}, &Refusal{Path: abs, Err: ErrBadIgnore}
	}
	if !slices.Contains(Policies, l.Hash) {
		return Location{}, &Refusal{Path: string(l.Hash), Err: ErrBadPolicy}
	}
	rand.Read(l.ID[:])
	e := l.entity()
	regs := []record.Register{
		{Entity: e, Field: record.FieldPath, Value: []byte(l.Path)},
		{Entity: e, Field: record.FieldName, Value: []byte(l.Name)},
		{Entity: e, Field: record.FieldExists, Value: []byte{1}},
	}
	if globs != "" {
		regs = append(regs, record.Register{Entity: e, Field: fieldIgnore, Value: []byte(globs)})
	}
	if l.Hash != HashAuto {
		regs = append(regs, record.Register{Entity: e, Field: fieldHash, Value: []byte(l.Hash)})
	}
	if err := ix.feeds.SetRegisters(regs...); err != nil {
		return Location{}, fmt.Errorf("add location %q: %w", l.Name, err)
	}
	if err := ix.feeds.Sync(); err != nil {
		return Location{}, fmt.Errorf("add location %q: %w", l.Name, err)
	}
	ix.cfg.Events.LocationAdded(l.ID, l.Name, l.Path)
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.start(l, nil)
	return l, nil
}

// admit checks that abs may become a location beside own.
func (ix *Indexer) admit(abs string, own []Location) error {
	refuse := func(err error, other Location) error { return &Refusal{Path: abs, Other: other, Err: err} }
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, errNotDirectory):
		return refuse(ErrMissing, Location{})
	case err != nil:
		return fmt.Errorf("add %q: %w", abs, err)
	case !info.IsDir():
		return refuse(ErrNotDirectory, Location{})
	}
	folder := real(abs)
	if _, ok := beneath(folder, real(ix.cfg.Home)); ok {
		return refuse(ErrHome, Location{})
	}
	for _, o := range own {
		other := real(o.Path)
		if there, err := os.Stat(o.Path); folder == other || err == nil && os.SameFile(info, there) {
			return refuse(ErrIndexed, o)
		}
		if _, ok := beneath(folder, other); ok {
			return refuse(ErrInside, o)
		}
		if _, ok := beneath(other, folder); ok {
			return refuse(ErrContains, o)
		}
	}
	return nil
}

// nameFor returns the name of a new location.
func nameFor(abs, asked string, own []Location) (string, error) {
	taken := func(name string) (Location, bool) {
		i := slices.IndexFunc(own, func(l Location) bool { return l.Name == name })
		if i < 0 {
			return Location{}, false
		}
		return own[i], true
	}
	if asked != "" {
		if !utf8.ValidString(asked) || len(asked) > maxLocationName || strings.ContainsAny(asked, "/\x00") {
			return "", &Refusal{Path: asked, Err: ErrBadName}
		}
		if other, ok := taken(asked); ok {
			return "", &Refusal{Path: asked, Other: other, Err: ErrNameTaken}
		}
		return asked, nil
	}
	base := strings.ToValidUTF8(filepath.Base(abs), "\ufffd")
	if base == string(filepath.Separator) || base == "." {
		base = "root"
	}
	name := base
	for n := 2; ; n++ {
		if _, ok := taken(name); !ok {
			return name, nil
		}
		name = fmt.Sprintf("%s-%d", base, n)
	}
}

// SetPolicy changes which files of a location are read to hash their contents: durable on return. Hashes
// that are known stay. It returns a *Refusal or the store's error.
func (ix *Indexer) SetPolicy(id record.LocationID, p Policy) (Location, error) {
	if !slices.Contains(Policies, p) {
		return Location{}, &Refusal{Path: string(p), Err: ErrBadPolicy}
	}
	ix.change.Lock()
	defer ix.change.Unlock()
	own, err := ix.own()
	if err != nil {
		return Location{}, err
	}
	at := slices.IndexFunc(own, func(l Location) bool { return l.ID == id })
	if at < 0 {
		return Location{}, &Refusal{Path: id.String(), Err: ErrUnknown}
	}
	l := own[at]
	if l.Hash == p {
		return l, nil
	}
	l.Hash = p
	err = ix.feeds.SetRegisters(record.Register{Entity: l.entity(), Field: fieldHash, Value: []byte(p)})
	if err == nil {
		err = ix.feeds.Sync()
	}
	if err != nil {
		return Location{}, fmt.Errorf("change location %q: %w", l.Name, err)
	}
	ix.cfg.Events.LocationChanged(l.ID, l.Name, p)
	ix.hasher.again()
	return l, nil
}

// Remove ends a location: one register says that it exists no more, and everybody drops its feed. The
// folder is not touched. It returns a *Refusal with ErrUnknown for what is no location of this device; on
// any other error the location is indexed as before.
func (ix *Indexer) Remove(ctx context.Context, id record.LocationID) error {
	ix.change.Lock()
	defer ix.change.Unlock()
	own, err := ix.own()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(own, func(l Location) bool { return l.ID == id })
	if at < 0 {
		return &Refusal{Path: id.String(), Err: ErrUnknown}
	}
	return ix.remove(ctx, own[at])
}

// remove ends an own location; ix.change is held.
func (ix *Indexer) remove(ctx context.Context, o Location) error {
	ix.mu.Lock()
	l := ix.locations[o.ID]
	ix.mu.Unlock()
	err := ix.halt(ctx, l) // nothing may be written to its feed after the register
	if err == nil {
		err = ix.feeds.SetRegisters(record.Register{Entity: o.entity(), Field: record.FieldExists, Value: []byte{0}})
	}
	if err == nil {
		err = ix.feeds.Sync()
	}
	if err != nil {
		if l != nil {
			ix.mu.Lock()
			ix.start(o, l.done)
			ix.mu.Unlock()
		}
		return fmt.Errorf("remove location %q: %w", o.Name, err)
	}
	ix.forget(o, l)
	return nil
}

// halt stops a location and waits until it has. It stays among the locations.
func (ix *Indexer) halt(ctx context.Context, l *location) error {
	if l == nil {
		return nil
	}
	l.cancel()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget lets go of a location that exists no more and has stopped, and tells so.
func (ix *Indexer) forget(o Location, l *location) {
	files := 0
	if l != nil {
		files = l.Status().Files
	}
	ix.mu.Lock()
	delete(ix.locations, o.ID)
	ix.mu.Unlock()
	ix.cfg.Metrics.LocationGone(o.ID.String())
	ix.cfg.Events.LocationRemoved(o.ID, o.Name, files)
}

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

// Feed returns the feed that holds the location's entries.
func (l Location) Feed() feed.ID { return feed.ID{Device: l.Owner, Location: l.ID} }

func (l Location) entity() record.Entity { return record.Location(l.Owner, l.ID) }
