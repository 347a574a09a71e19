package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	codec "github.com/dgraph-io/badger/v4/options"

	"peerdex/kv"
)

// ErrLocked is returned by Open when another process has the store open.
var ErrLocked = errors.New("store is in use by another process")

// ErrDamaged is returned by Open for files that Badger cannot make sense of. Nothing was changed.
var ErrDamaged = errors.New("store is damaged")

// ErrNoSpace is returned by writes while the disk has less room than the guard wants: Badger maps its
// files and dies of SIGBUS on a full disk (dgraph-io/badger#1682), so the store stops before.
var ErrNoSpace = errors.New("disk is almost full")

// SpaceError says how many bytes are free on the disk where Dir is, and how many are needed. It is ErrNoSpace.
type SpaceError struct {
	Dir        string
	Free, Need uint64
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%v: %d bytes free where %s is, %d needed", ErrNoSpace, e.Free, e.Dir, e.Need)
}

// Is makes errors.Is(err, ErrNoSpace) work.
func (e *SpaceError) Is(target error) bool { return target == ErrNoSpace }

const (
	memTable  = 16 << 20  // bytes; a transaction may hold 15% of it
	baseTable = 4 << 20   // bytes of a table of the first level; each is made durable by itself
	logFile   = 64 << 20  // bytes; values never reach the value log, which Badger creates all the same
	memSuffix = ".mem"    // of the log beside each memtable
	maxKey    = 2 << 10   // bytes of a key: MaxName and what stands around it, with room
	MinFree   = 512 << 20 // bytes the disk must keep free: thirty-two memtables; small facts and events may use half of it
)

// engine is kv.Engine on Badger. The files it works on may be replaced while it is open: what is under way
// ends on those it began on.
type engine struct {
	root string // the store's folder
	log  *slog.Logger
	free func(dir string) (uint64, error)

	write turn // one writer at a time: Badger's own conflict detection is off; taken before mu

	mu       sync.Mutex // guards closed, on, and on's active against Add after Wait
	closed   bool
	on       *disk          // changes under write alone
	retiring sync.WaitGroup // replaced files that are still read

	committed atomic.Uint64 // transactions so far
	syncing   sync.Mutex    // guards synced and lets waiters share one fsync
	synced    uint64
	broken    error // of the first fsync that failed; also guarded by syncing
}

// disk is a folder that Badger has open.
type disk struct {
	db     *badger.DB
	dir    string
	active sync.WaitGroup // calls under way: Badger panics when used after Close
}

// close waits for calls under way.
func (d *disk) close() error {
	d.active.Wait()
	return d.db.Close()
}

func openBadger(root string, free func(dir string) (uint64, error), log *slog.Logger) (*engine, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	e := &engine{root: root, log: log, free: free, write: newTurn()}
	if err := e.room(MinFree / 2); err != nil { // Badger maps new files as it opens
		return nil, err
	}
	for {
		name, err := current(root)
		if err != nil {
			return nil, err
		}
		if e.on, err = openDisk(filepath.Join(root, name), log); err != nil {
			return nil, err
		}
		now, err := current(root)
		if err == nil && now == name {
			err = removeLeftovers(root, name)
		} else if err == nil { // another process had it open and replaced its files before it ended
			if err = e.on.close(); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, errors.Join(err, e.on.close())
		}
		return e, nil
	}
}

func options(dir string, log *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithMemTableSize(memTable).
		WithNumMemtables(2).
		WithNumLevelZeroTables(12).
		WithValueLogFileSize(logFile).
		WithBlockCacheSize(0).       // blocks lie uncompressed in mapped files, which the system keeps in memory
		WithCompression(codec.None). // most of a row is random: a third less on disk for a tenth more work, and twice the memory where tables are made
		WithNumCompactors(2).
		WithBaseTableSize(baseTable).
		WithDetectConflicts(false).
		WithChecksumVerificationMode(codec.OnBlockRead). // and not of whole tables: each would be unpacked in memory when it is made, and all at each start
		WithMetricsEnabled(false).
		WithLogger(badgerLog{log})
}

func openDisk(dir string, log *slog.Logger) (*disk, error) {
	db, err := open(options(dir, log))
	if err == nil {
		return &disk{db: db, dir: dir}, nil
	}
	if strings.Contains(err.Error(), "Cannot acquire directory lock") { // Badger has no sentinel for it
		return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil, fmt.Errorf("open badger in %s: %w", dir, err)
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, dir, err)
}

// open is badger.Open, which panics on some files that are not what they should be.
func open(opt badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("badger: %v", r)
		}
	}()
	return badger.Open(opt)
}

// enter keeps the files in use open until their active.Done is called.
func (e *engine) enter() (*disk, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, kv.ErrClosed
	}
	e.on.active.Add(1)
	return e.on, nil
}

func (e *engine) View(fn func(kv.Reader) error) error {
	s, err := e.Snapshot()
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(s)
}

func (e *engine) Snapshot() (kv.Snapshot, error) {
	d, err := e.enter()
	if err != nil {
		return nil, err
	}
	return &badgerTx{tx: d.db.NewTransaction(false), done: d.active.Done}, nil
}

func (e *engine) Update(fn func(kv.Tx) error) error {
	e.write.Lock()
	defer e.write.Unlock()
	d, err := e.enter()
	if err != nil {
		return err
	}
	defer d.active.Done()
	if err := e.room(MinFree / 2); err != nil {
		return err
	}
	if err := d.update(fn); err != nil {
		return err
	}
	e.committed.Add(1)
	return nil
}

// update is one transaction; nobody else writes.
func (d *disk) update(fn func(kv.Tx) error) error {
	tx := &badgerTx{tx: d.db.NewTransaction(true)}
	defer tx.tx.Discard()
	if err := errors.Join(fn(tx), tx.failed); err != nil {
		return err
	}
	if err := edge(tx.tx.Commit()); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// room returns ErrNoSpace unless so many bytes are free where the store is.
func (e *engine) room(need uint64) error { return e.roomIn(e.root, need) }

func (e *engine) roomIn(dir string, need uint64) error {
	free, err := e.free(dir)
	if err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	if free < need {
		return &SpaceError{Dir: dir, Free: free, Need: need}
	}
	return nil
}

func (e *engine) Sync() error {
	want := e.committed.Load()
	e.syncing.Lock()
	defer e.syncing.Unlock()
	if e.broken != nil {
		return e.broken
	}
	if e.synced >= want {
		return e.open() // somebody's fsync began after our commit
	}
	covers, err := e.flush()
	if errors.Is(err, kv.ErrClosed) {
		return err
	}
	if err != nil {
		e.broken = fmt.Errorf("sync store: %w", err) // the kernel may have dropped what it could not write: a later success proves nothing
		return e.broken
	}
	e.synced = covers
	return nil
}

// fail makes every Sync from now on return err.
func (e *engine) fail(err error) {
	e.syncing.Lock()
	defer e.syncing.Unlock()
	e.broken = errors.Join(e.broken, err)
}

// open returns kv.ErrClosed after Close.
func (e *engine) open() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return kv.ErrClosed
	}
	return nil
}

// flush makes the logs durable and returns how many transactions that covers. Writers go on meanwhile, where
// the system allows it.
func (e *engine) flush() (covers uint64, err error) {
	covers = e.committed.Load() // of what is in other files than those entered now, every byte is durable
	d, err := e.enter()
	if err != nil {
		return 0, err
	}
	defer d.active.Done()
	if syncsMapped {
		return covers, syncLogs(d.dir)
	}
	e.write.Lock() // a full memtable is replaced by a writer: none runs while Badger looks which is in use
	err = d.db.Sync()
	e.write.Unlock()
	return covers, errors.Join(err, syncLogs(d.dir))
}

// syncLogs makes the logs of all memtables durable that are no tables yet. Badger's own Sync covers the one alone
// that is being written, and not while somebody writes it. One that is gone by the time it is looked at is a table,
// which was made durable first.
func syncLogs(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name.Name(), memSuffix) {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, name.Name()), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(syncData(f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) Close() error {
	e.mu.Lock()
	was := e.closed
	e.closed = true
	e.mu.Unlock()
	if was {
		return nil
	}
	e.write.Lock() // who waits for it finds the engine closed
	on := e.on
	e.write.Unlock()
	err := on.close()
	e.retiring.Wait()
	return err
}

// edge turns Badger's errors into the contract's.
func edge(err error) error {
	switch {
	case errors.Is(err, badger.ErrTxnTooBig):
		return kv.ErrTooBig
	case errors.Is(err, badger.ErrDBClosed):
		return kv.ErrClosed
	}
	return err
}

type badgerTx struct {
	tx     *badger.Txn
	slab   []badger.Entry // for the next writes: one allocation for many
	sets   int            // length of the last slab
	done   func()
	failed error // of a write that was refused: the transaction must not commit without it
}

func (t *badgerTx) Close() {
	t.tx.Discard()
	if t.done != nil {
		t.done()
		t.done = nil
	}
}

func (t *badgerTx) Get(key []byte) ([]byte, error) {
	item, err := t.tx.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, edge(err)
	}
	v, err := item.ValueCopy(nil)
	if v == nil && err == nil {
		v = []byte{}
	}
	return v, edge(err)
}

func (t *badgerTx) Set(key, value []byte) error {
	if len(t.slab) == 0 {
		t.sets = min(max(2*t.sets, 4), 128)
		t.slab = make([]badger.Entry, t.sets)
	}
	e := &t.slab[0]
	t.slab = t.slab[1:]
	e.Key, e.Value = key, value
	return t.wrote(t.tx.SetEntry(e))
}
func (t *badgerTx) Delete(key []byte) error { return t.wrote(t.tx.Delete(key)) }

func (t *badgerTx) wrote(err error) error {
	if err != nil && t.failed == nil {
		t.failed = edge(err)
	}
	return edge(err)
}

func (t *badgerTx) Scan(prefix, from []byte, fn func(key, value []byte) error) error {
	return t.iterate(prefix, from, false, true, fn)
}

func (t *badgerTx) ScanKeys(prefix, from []byte, fn func(key []byte) error) error {
	return t.iterate(prefix, from, false, false, func(key, _ []byte) error { return fn(key) })
}

func (t *badgerTx) ScanDown(prefix, from []byte, fn func(key, value []byte) error) error {
	return t.iterate(prefix, from, true, true, fn)
}

func (t *badgerTx) iterate(prefix, from []byte, down, values bool, fn func(key, value []byte) error) error {
	opt := badger.DefaultIteratorOptions
	opt.Prefix, opt.Reverse, opt.PrefetchValues = prefix, down, false // values are in the LSM tree: nothing to fetch ahead
	it := t.tx.NewIterator(opt)
	defer it.Close()
	start := from
	switch {
	case down && (start == nil || bytes.Compare(start, prefix) > 0 && !bytes.HasPrefix(start, prefix)):
		start = append(bytes.Clone(prefix), bytes.Repeat([]byte{0xFF}, maxKey+1-len(prefix))...)
	case down && bytes.Compare(start, prefix) < 0, !down && bytes.Compare(start, prefix) > 0 && !bytes.HasPrefix(start, prefix):
		return nil // begins beyond the last
	case !down && bytes.Compare(start, prefix) < 0:
		start = prefix
	}
	for it.Seek(start); it.ValidForPrefix(prefix); it.Next() {
		item := it.Item()
		key := item.Key()
		var err error
		if values {
			err = item.Value(func(v []byte) error { return fn(key, v) })
		} else {
			err = fn(key, nil)
		}
		if errors.Is(err, kv.Stop) {
			return nil
		}
		if err != nil {
			return edge(err)
		}
	}
	return nil
}

// badgerLog hands Badger's own words to slog: its info is our debug.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.log.Error("badger", "says", say(f, a)) }
func (l badgerLog) Warningf(f string, a ...any) { l.log.Warn("badger", "says", say(f, a)) }
func (l badgerLog) Infof(f string, a ...any)    { l.log.Debug("badger", "says", say(f, a)) }
func (l badgerLog) Debugf(f string, a ...any)   { l.log.Debug("badger", "says", say(f, a)) }

func say(f string, a []any) string { return strings.TrimSpace(fmt.Sprintf(f, a...)) }
