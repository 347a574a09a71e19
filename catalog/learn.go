package catalog

import (
	"context"
	"errors"
	"fmt"

	"peerdex/record"
	"peerdex/store"
)

// hashed is a file whose content was read.
type hashed struct {
	entry   record.EntryID
	version version
	hash    record.Hash
}

// hashes are handed to the location that writes them; done receives how that went.
type hashes struct {
	files []hashed
	done  chan error
}

// HashNow returns the hash of the content of a file of this device, whatever the policy of its location: at
// once if it is known, else the file is read first and the hash is durable on return. It needs Run, and waits for a scan of the
// location that is under way. It
// returns a *Refusal with ErrUnknown for what is no location of this device, ErrNotFound for what is no
// file there that has content, ErrChanging, ErrStopped, the disk's error or the store's.
func (ix *Indexer) HashNow(ctx context.Context, id record.LocationID, entry record.EntryID) (record.Hash, error) {
	ix.mu.Lock()
	l := ix.locations[id]
	ix.mu.Unlock()
	if l == nil {
		return record.Hash{}, &Refusal{Path: id.String(), Err: ErrUnknown}
	}
	f, rel, ok, err := l.lookup(entry)
	switch {
	case err != nil:
		return record.Hash{}, err
	case !ok || f.Kind != record.Regular || f.Size == 0:
		return record.Hash{}, fmt.Errorf("hash %v: %w", entry, ErrNotFound)
	case !f.Hash.IsZero():
		return f.Hash, nil
	}
	out, err := l.digest(ctx, f, rel, context.Context.Err)
	if err == nil {
		err = l.hand(ctx, []hashed{out})
	}
	if err == nil {
		if f, _, _, err = l.lookup(entry); err == nil && f.Hash != out.hash {
			err = ErrChanging
		}
	}
	if err != nil {
		return record.Hash{}, fmt.Errorf("hash %s: %w", l.path(rel), err)
	}
	return out.hash, nil
}

// lookup returns what the feed says of an entry, and its path below the location; false if it is no file or
// its path is not known. It may be called from any goroutine.
func (l *location) lookup(id record.EntryID) (f record.File, rel string, ok bool, err error) {
	at := id
	for depth := 0; depth < maxDepth; depth++ {
		row, found, err := l.feeds.Entry(l.feed, at[:])
		if err != nil || !found {
			return f, "", false, err
		}
		up, isFile := fileOf(row)
		if !isFile {
			return f, "", false, nil
		}
		if depth == 0 {
			f = up
		}
		if rel != "" {
			rel = "/" + rel
		}
		rel = up.Name + rel
		if at = up.Parent; at == (record.EntryID{}) {
			return f, rel, true, nil
		}
	}
	return f, "", false, nil
}

// digest reads a file. It may be called from any goroutine.
func (l *location) digest(ctx context.Context, f record.File, rel string, before func(context.Context) error) (hashed, error) {
	sum, read, err := digest(ctx, l.disk, l.folder, rel, versionOf(f), before)
	result := "hashed"
	switch {
	case errors.Is(err, ErrChanging), gone(err):
		result = "changed"
	case err != nil:
		result = "unreadable"
	}
	if ctx.Err() == nil {
		l.cfg.Metrics.FileHashed(result, read)
	}
	return hashed{f.ID, versionOf(f), sum}, err
}

// hand gives hashes to the goroutine of the location and waits until they are durable.
func (l *location) hand(ctx context.Context, files []hashed) error {
	h := hashes{files, make(chan error, 1)}
	select {
	case l.hashes <- h:
	case <-l.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-h.done:
		return err
	case <-l.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// learn writes the hashes of files that are still what they were when they were read.
func (l *location) learn(files []hashed) error {
	var puts []store.Put
	for _, h := range files {
		row, ok, err := l.feeds.Entry(l.feed, h.entry[:])
		if err != nil {
			return err
		}
		f, isFile := fileOf(row)
		if !ok || !isFile || versionOf(f) != h.version || f.Hash == h.hash {
			continue
		}
		f.Hash = h.hash
		puts = append(puts, store.Put{Record: f, Local: row.Local})
		l.read.files++
		l.read.bytes += f.Size
	}
	if _, err := l.feeds.Commit(l.feed, puts); err != nil {
		return err
	}
	return l.feeds.Sync()
}

// fileOf returns the file that a row holds, if it does.
func fileOf(row store.Row) (record.File, bool) {
	rec, err := record.Decode(row.Key, row.Record)
	f, ok := rec.(record.File)
	return f, ok && err == nil
}
