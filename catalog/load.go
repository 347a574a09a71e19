package catalog

import (
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"peerdex/record"
	"peerdex/store"
)

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
	f := l.disk.stat(l.folder)
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
		entries, err := l.disk.list(place{l.folder, f.id}, nil, keep, nil)
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

func (l *location) setUnavailable(why string) {
	before := l.Status().Phase
	l.show(func(s *Status) { s.Phase, s.Reason = Unavailable, why })
	l.cfg.Metrics.WatchActive(l.id.String(), false)
	if before != Unavailable {
		l.cfg.Events.ScanFailed(l.id, why)
		l.log.Warn("location is unavailable", "location", l.name, "reason", why)
	}
}
