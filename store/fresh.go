package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"peerdex/internal/failpoint"
	"peerdex/kv"
)

// fresh is kv.Fresh: a folder beside the one that CURRENT names.
type fresh struct {
	e         *engine
	name, dir string
	old       *disk
	pin       *badgerTx // what old held when it began
	since     uint64    // version of old that has been taken over
	out       *bulk     // until Finish
	next      *disk     // from then on
	switched  bool
	named     bool // CURRENT may name it, though it was not switched to
}

// Fresh begins a fresh folder.
func (e *engine) Fresh() (kv.Fresh, error) {
	old, err := e.enter()
	if err != nil {
		return nil, err
	}
	f := &fresh{e: e, old: old, pin: &badgerTx{tx: old.db.NewTransaction(false), done: old.active.Done}}
	f.since = f.pin.tx.ReadTs()
	if err := f.begin(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *fresh) begin() error {
	root, err := current(f.e.root)
	if err != nil {
		return err
	}
	f.name = after(root)
	f.dir = filepath.Join(f.e.root, f.name)
	if err := errors.Join(os.RemoveAll(f.dir), os.Mkdir(f.dir, 0o700)); err != nil {
		return fmt.Errorf("make fresh files: %w", err)
	}
	f.out, err = openBulk(f.dir, func() error { return f.e.room(MinFree / 2) }, f.e.log)
	return err
}

func (f *fresh) Held() kv.Reader { return f.pin }

func (f *fresh) Dir() string { return f.dir }

func (f *fresh) Rows(family byte) kv.Rows { return f.out.stream(family) }

func (f *fresh) Finish() error {
	err := f.out.finish()
	if err == nil {
		f.out = nil
		f.next, err = openDisk(f.dir, f.e.log)
	}
	return err
}

func (f *fresh) CatchUp(left func(key []byte) bool) (rows int, err error) {
	tx := f.old.db.NewTransaction(false)
	defer tx.Discard()
	until := tx.ReadTs()
	batch := f.next.db.NewWriteBatch()
	defer batch.Cancel()
	opt := badger.DefaultIteratorOptions
	opt.AllVersions, opt.SinceTs, opt.PrefetchValues = true, f.since, false // all, or deletions would not be seen
	it := tx.NewIterator(opt)
	defer it.Close()
	var last []byte
	for it.Rewind(); it.Valid(); it.Next() { // the versions of a key come newest first
		item := it.Item()
		if last != nil && bytes.Equal(item.Key(), last) {
			continue
		}
		if last = item.KeyCopy(nil); left(last) {
			continue
		}
		rows++
		if item.IsDeletedOrExpired() {
			err = batch.Delete(last)
		} else {
			var v []byte
			if v, err = item.ValueCopy(nil); err == nil {
				err = batch.Set(last, v)
			}
		}
		if err != nil {
			return rows, fmt.Errorf("catch up: %w", edge(err))
		}
	}
	if err := batch.Flush(); err != nil {
		return rows, fmt.Errorf("catch up: %w", edge(err))
	}
	f.since = until
	return rows, nil
}

func (f *fresh) Update(fn func(kv.Tx) error) error { return f.next.update(fn) }

func (f *fresh) Sync() error {
	return errors.Join(f.next.db.Sync(), syncLogs(f.dir), SyncDir(f.dir))
}

func (f *fresh) Switch(last func() error) error {
	f.e.write.Lock()
	defer f.e.write.Unlock()
	if err := last(); err != nil {
		return err
	}
	failpoint.At(failpoint.C13)
	if err := setCurrent(f.e.root, f.name); err != nil {
		name, cerr := current(f.e.root)
		if f.named = cerr != nil || name == f.name; f.named {
			f.e.fail(err) // after a power cut either files may be found, so nothing more may be promised on the old
		}
		return err
	}
	f.e.mu.Lock()
	f.e.on = f.next
	f.e.mu.Unlock()
	f.switched = true
	return nil
}

// Retire removes the old files once nobody reads them any more.
func (f *fresh) Retire() {
	failpoint.At(failpoint.C15)
	f.e.retiring.Go(func() {
		if err := errors.Join(f.old.close(), removeFiles(f.e.root, f.old.dir)); err != nil { // what is left is removed when the store is opened again
			f.e.log.Warn("replaced files not removed", "dir", f.old.dir, "err", err)
		}
	})
}

func (f *fresh) Close() (err error) {
	if f.out != nil {
		err = f.out.abort()
		f.out = nil
	}
	if f.next != nil && !f.switched {
		err = errors.Join(err, f.next.db.Close())
		f.next = nil
	}
	f.pin.Close()
	if !f.switched && !f.named && f.dir != "" {
		err = errors.Join(err, os.RemoveAll(f.dir))
	}
	return err
}
