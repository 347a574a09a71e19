//go:build linux

package catalog

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/record"
	"peerdex/store"
)

// ledger is a real store that checks after every single put that no two live entries share a name, and
// counts what was put.
type ledger struct {
	*store.Store
	tb testing.TB

	mu   sync.Mutex
	live map[record.EntryID]record.File
	at   map[string]record.EntryID
	puts int
}

func (l *ledger) Commit(id feed.ID, puts []store.Put) (feed.Head, error) {
	l.mu.Lock()
	for _, p := range puts {
		l.puts++
		slot := func(f record.File) string { return string(id.Location[:]) + string(f.Parent[:]) + f.Name }
		switch r := p.Record.(type) {
		case record.File:
			if old, ok := l.live[r.ID]; ok {
				delete(l.at, slot(old))
			}
			if other, ok := l.at[slot(r)]; ok && other != r.ID {
				l.tb.Errorf("put %d: %q is taken by %v and given to %v", l.puts, r.Name, other, r.ID)
			}
			l.live[r.ID], l.at[slot(r)] = r, r.ID
		case record.Tombstone:
			if old, ok := l.live[r.ID]; ok {
				delete(l.at, slot(old))
				delete(l.live, r.ID)
			} else {
				l.tb.Errorf("tombstone of %v, which is not alive", r.ID)
			}
		}
	}
	l.mu.Unlock()
	return l.Store.Commit(id, puts)
}

// count returns the puts since the last call.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.puts
	l.puts = 0
	return n
}

func newLedger(tb testing.TB) *ledger {
	tb.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	var tick atomic.Uint64
	s, err := store.Open(tb.TempDir(), store.Config{
		Device: record.DeviceID(key.Public().(ed25519.PublicKey)), Library: feed.LibraryID{1}, Boot: 1,
		Clock: func() (hlc.Stamp, error) { return hlc.At(time.Now()) + hlc.Stamp(tick.Add(1)), nil },
		Sign:  func(h feed.Head) feed.Head { return h.Sign(key) },
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return &ledger{Store: s, tb: tb, live: map[record.EntryID]record.File{}, at: map[string]record.EntryID{}}
}

func testDevice() record.DeviceID {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	return record.DeviceID(key.Public().(ed25519.PublicKey))
}

// notes keeps what an indexer tells.
type notes struct {
	quiet
	mu   sync.Mutex
	said []string

	files int // hashed
	bytes uint64
}

func (n *notes) say(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, fmt.Sprintf(format, args...))
}

func (n *notes) has(what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.said {
		if s == what {
			return true
		}
	}
	return false
}

// last returns what was said last that begins with prefix.
func (n *notes) last(prefix string) (out string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.said {
		if strings.HasPrefix(s, prefix) {
			out = s
		}
	}
	return out
}

func (n *notes) LocationAdded(_ record.LocationID, name, _ string) { n.say("added %s", name) }
func (n *notes) LocationRemoved(_ record.LocationID, name string, files int) {
	n.say("removed %s %d", name, files)
}
func (n *notes) PassStarted(record.LocationID)               { n.say("pass started") }
func (n *notes) PassCompleted(_ record.LocationID, c Counts) { n.say("pass completed %+v", c) }
func (n *notes) ScanStarted(record.LocationID)               { n.say("scan started") }
func (n *notes) ScanCompleted(_ record.LocationID, c Counts, _ time.Duration) {
	n.say("scan completed %+v", c)
}
func (n *notes) ScanFailed(_ record.LocationID, why string)      { n.say("scan failed: %s", why) }
func (n *notes) WatchDegraded(_ record.LocationID, cause string) { n.say("degraded: %s", cause) }
func (n *notes) WatchRecovered(record.LocationID)                { n.say("recovered") }
func (n *notes) WatchOverflow()                                  { n.say("overflow") }
func (n *notes) ScanBacklog(dirs int)                            { n.say("backlog %d", dirs) }
func (n *notes) ScanDone(string, time.Duration, time.Time)       { n.say("scan done") }
func (n *notes) LocationGone(string)                             { n.say("location gone") }
func (n *notes) WatchActive(_ string, on bool)                   { n.say("watch active %v", on) }
func (n *notes) FilesChanged(_ record.LocationID, c Counts, _ time.Duration) {
	n.say("changed %d %d %d", c.Added, c.Changed, c.Removed)
}

func (n *notes) FileHashed(result string, bytes int) { n.say("read %s %d", result, bytes) }
func (n *notes) HashBacklog(left int)                { n.say("backlog %d", left) }
func (n *notes) LocationChanged(_ record.LocationID, name string, p Policy) {
	n.say("policy %s %s", name, p)
}
func (n *notes) FilesHashed(_ record.LocationID, files int, bytes uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.files, n.bytes = n.files+files, n.bytes+bytes
}

// hashes returns how many files were told to be hashed, and their bytes.
func (n *notes) hashes() (files int, bytes uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.files, n.bytes
}

// bench is an indexer at work on folders of its own.
type bench struct {
	testing.TB
	ix    *Indexer
	feeds *ledger
	notes *notes
	stop  func()
}

func newBench(tb testing.TB, cfg Config) *bench {
	tb.Helper()
	b := &bench{TB: tb, feeds: newLedger(tb), notes: &notes{}}
	b.ix = b.indexer(cfg)
	return b
}

func (b *bench) indexer(cfg Config) *Indexer {
	cfg.Device, cfg.Metrics, cfg.Events = testDevice(), b.notes, b.notes
	return NewIndexer(b.feeds, cfg)
}

// run starts the indexer; the test's end, or stop, ends it.
func (b *bench) run() {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.ix.Run(ctx) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				b.Errorf("indexer: %v", err)
			}
		})
	}
	b.Cleanup(b.stop)
	b.until("the indexer runs", func() bool {
		b.ix.mu.Lock()
		defer b.ix.mu.Unlock()
		return b.ix.spawn != nil
	})
}

// until waits for cond.
func (b *bench) until(what string, cond func() bool) {
	b.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			b.Fatalf("still not: %s; %+v", what, b.ix.Status())
		}
		time.Sleep(200 * time.Microsecond)
	}
}

func (b *bench) add(path string, o Options) Location {
	b.Helper()
	l, err := b.ix.Add(context.Background(), path, o)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func (b *bench) rescan(ids ...record.LocationID) {
	b.Helper()
	if err := b.ix.Rescan(context.Background(), ids...); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) phase(want Phase) {
	b.Helper()
	b.until("phase "+string(want), func() bool {
		s := b.ix.Status()
		return len(s) == 1 && s[0].Phase == want
	})
}

// line is one entry as text, without its id.
func line(path string, f record.File) string {
	return fmt.Sprintf("%q %v %o %d %d %q", path, f.Kind, f.Mode, f.Size, f.ModTime, f.Target)
}

// catalogued returns what the feed says of a location, sorted, and the ids by path.
func (b *bench) catalogued(l Location) ([]string, map[string]record.EntryID) {
	b.Helper()
	files := map[record.EntryID]record.File{}
	err := b.feeds.Entries(l.Feed(), func(r store.Row) error {
		if record.IsTombstone(r.Record) {
			return nil
		}
		rec, err := record.Decode(r.Key, r.Record)
		if err != nil {
			return err
		}
		f := rec.(record.File)
		files[f.ID] = f
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrUnknownFeed) {
		b.Fatal(err)
	}
	var lines []string
	ids := map[string]record.EntryID{}
	for id, f := range files {
		path := f.Name
		for p := f.Parent; p != (record.EntryID{}); {
			up, ok := files[p]
			if !ok {
				path = "(lost)/" + path
				break
			}
			path, p = up.Name+"/"+path, up.Parent
		}
		lines = append(lines, line(path, f))
		ids[path] = id
	}
	sort.Strings(lines)
	return lines, ids
}

// walked returns what an independent walk of the folder sees, in the form of catalogued.
func walked(tb testing.TB, dir string, skip func(rel string) bool) []string {
	tb.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if rel == "." {
			return nil
		}
		if skip != nil && skip(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		f := record.File{Mode: st.Mode & 0o7777, ModTime: info.ModTime().UnixNano()}
		switch {
		case info.Mode().IsRegular():
			f.Kind, f.Size = record.Regular, uint64(info.Size())
		case info.IsDir():
			f.Kind, f.ModTime = record.Directory, 0
		case info.Mode()&fs.ModeSymlink != 0:
			f.Kind = record.Symlink
			if f.Target, err = os.Readlink(path); err != nil {
				return err
			}
		default:
			f.Kind = record.Special
		}
		lines = append(lines, line(rel, f))
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	sort.Strings(lines)
	return lines
}

func equal(a, b []string) bool { return strings.Join(a, "\n") == strings.Join(b, "\n") }

// settles waits until the catalogue of l is what a walk of its folder sees.
func (b *bench) settles(l Location) {
	b.Helper()
	var have, want []string
	deadline := time.Now().Add(20 * time.Second)
	for {
		want = walked(b, l.Path, nil)
		if have, _ = b.catalogued(l); equal(have, want) {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("catalogue and disk differ\nonly catalogued:\n%s\nonly on disk:\n%s\nstatus %+v", minus(have, want), minus(want, have), b.ix.Status())
		}
		time.Sleep(time.Millisecond)
	}
}

func minus(a, b []string) string {
	in := map[string]bool{}
	for _, s := range b {
		in[s] = true
	}
	var out []string
	for _, s := range a {
		if !in[s] {
			out = append(out, s)
		}
	}
	return strings.Join(out, "\n")
}

// write makes files, and directories where the path ends with a slash.
func write(tb testing.TB, dir string, paths ...string) {
	tb.Helper()
	for _, p := range paths {
		full := filepath.Join(dir, p)
		parent := filepath.Dir(full)
		if strings.HasSuffix(p, "/") {
			parent = full
		}
		if err := os.MkdirAll(parent, 0o755); err != nil {
			tb.Fatal(err)
		}
		if parent != full {
			if err := os.WriteFile(full, []byte(p), 0o644); err != nil {
				tb.Fatal(err)
			}
		}
	}
}
