package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"peerdex/feed"
	"peerdex/node"
	"peerdex/record"
	"peerdex/store"
)

// deletion measures how long an edit takes, durable, while the entries of a location are deleted: because a
// person removed the location, which leaves nothing of it, and because its folder was emptied, which leaves a
// tombstone of each.
func (b *bench) deletion(ctx context.Context) error {
	var idle, removed, removedMost, emptied, emptiedMost []float64
	for i := range b.runs {
		note("delete: run %d of %d", i+1, b.runs)
		d, folders, err := b.twoFull(ctx, uint64(i))
		if err != nil {
			return err
		}
		quiet, err := d.edits(ctx, time.After(2*time.Second))
		if err != nil {
			return err
		}
		idle = append(idle, quantile(quiet, 0.99))

		if _, err := d.client.RemoveLocation(ctx, filepath.Base(folders[0])); err != nil {
			return err
		}
		// It takes longer than this, so all are beside it.
		took, err := d.edits(ctx, time.After(time.Duration(b.entries)*10*time.Microsecond))
		if err != nil {
			return err
		}
		removed, removedMost = append(removed, quantile(took, 0.99)), append(removedMost, slices.Max(took))
		if _, err := d.edits(ctx, time.After(time.Duration(b.entries)*15*time.Microsecond)); err != nil { // until it is over
			return err
		}

		if err := os.MkdirAll(filepath.Join(folders[1], "new"), 0o700); err != nil {
			return err
		}
		var scanErr error
		done := make(chan time.Time)
		go func() {
			_, scanErr = d.client.Rescan(ctx, filepath.Base(folders[1]), func(node.ScanProgress) {})
			close(done)
		}()
		took, err = d.edits(ctx, done)
		if err := errors.Join(err, scanErr); err != nil {
			return err
		}
		if _, err := b.scanned(ctx, d, 0); err != nil { // one location, and no file in it
			return err
		}
		emptied, emptiedMost = append(emptied, quantile(took, 0.99)), append(emptiedMost, slices.Max(took))
		if err := errors.Join(d.stop(ctx), os.RemoveAll(d.home)); err != nil {
			return err
		}
	}
	beside := func(what string, got []float64) {
		b.table.add(figure{what: what, unit: "ms", got: got, peer: "with nothing beside it, p99", of: idle})
	}
	beside(fmt.Sprintf("an edit, durable, while a removed location of %d entries is deleted, p99", b.entries), removed)
	beside("the slowest of these", removedMost)
	beside(fmt.Sprintf("an edit while %d entries of an emptied folder are deleted, p99", b.entries), emptied)
	beside("the slowest of these", emptiedMost)
	return nil
}

// twoFull starts a daemon with two locations of b.entries each, whose folders are not there.
func (b *bench) twoFull(ctx context.Context, seed uint64) (d *daemon, folders [2]string, err error) {
	home, err := b.fresh("home-")
	if err != nil {
		return nil, folders, err
	}
	port, err := freePort()
	if err != nil {
		return nil, folders, err
	}
	if d, err = b.start(ctx, "deletes", home, port); err != nil {
		return nil, folders, err
	}
	base, err := b.fresh("folders-")
	if err != nil {
		return nil, folders, err
	}
	for i := range folders {
		folders[i] = filepath.Join(base, fmt.Sprint("folder", i))
		if err := os.Mkdir(folders[i], 0o700); err != nil {
			return nil, folders, err
		}
		if _, err := d.client.AddLocation(ctx, node.AddRequest{Path: folders[i], Hash: "none"}, func(node.ScanProgress) {}); err != nil {
			return nil, folders, err
		}
	}
	all, err := d.client.Locations(ctx)
	if err != nil {
		return nil, folders, err
	}
	if err := d.stop(ctx); err != nil {
		return nil, folders, err
	}
	o, err := readOwner(home)
	if err != nil {
		return nil, folders, err
	}
	err = into(d, func(s *store.Store) error {
		for i, l := range all {
			id, err := hex.DecodeString(l.ID)
			if err != nil {
				return err
			}
			if _, err := scan(ctx, s, feed.ID{Device: o.id, Location: record.LocationID(id)}, randomFiles(b.entries, 2*seed+uint64(i))); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, os.Remove(folders[0]), os.Remove(folders[1])); err != nil {
		return nil, folders, err
	}
	flush()
	if d, err = b.start(ctx, "deletes", home, port); err != nil {
		return nil, folders, err
	}
	_, err = d.client.Find(ctx, node.FindQuery{Text: "no such file"}, func(node.Entry) error { return nil }) // all names are in memory
	return d, folders, err
}

// edits renames the device every few milliseconds until end comes or is closed, and returns how long each took.
func (d *daemon) edits(ctx context.Context, end <-chan time.Time) (took []float64, err error) {
	self, err := d.self(ctx)
	if err != nil {
		return nil, err
	}
	for i := 0; ; i++ {
		select {
		case <-end:
			return took, nil
		case <-time.After(5 * time.Millisecond):
		}
		start := time.Now()
		if _, err := d.client.Rename(ctx, self, fmt.Sprint("deletes", i%10)); err != nil {
			return nil, err
		}
		took = append(took, ms(time.Since(start)))
	}
}
