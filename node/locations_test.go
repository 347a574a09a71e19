package node

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerdex/catalog"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/kv"
	"peerdex/record"
	"peerdex/store"
)

// The registers of a location come back from a peer when the node has run for long: it is indexed.
func TestLocationThatComesBackIsIndexed(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "home"), "a")
	a.index(t.TempDir()) // the indexer runs
	folder := t.TempDir()
	touch(t, folder, "one")
	loc := record.LocationID{7}
	e := record.Location(a.self, loc)
	if err := a.store.SetRegisters(
		record.Register{Entity: e, Field: record.FieldPath, Value: []byte(folder)},
		record.Register{Entity: e, Field: record.FieldName, Value: []byte("back")},
		record.Register{Entity: e, Field: record.FieldExists, Value: []byte{1}},
	); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		views, err := a.Locations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range views {
			if v.ID == loc.String() {
				return v.State
			}
		}
		return "unknown"
	}
	if s := stateOfPhase(""); s != "waiting" {
		t.Errorf("a location the indexer does not know is %q", s)
	}
	await(t, "the location is watched", func() bool { return state() == "watching" })
	if names := a.names(a.self, loc); len(names) != 1 || names[0] != "one" {
		t.Errorf("indexed %q", names)
	}
}

// Whoever waits for a scan of a location that is removed meanwhile is told so.
func TestWaitingForALocationThatGoes(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "home"), "a")
	loc := a.index(t.TempDir())
	waits := make(chan struct{}, 1000)
	ended := make(chan error, 1)
	go func() {
		_, err := a.awaitScan(t.Context(), loc, time.Now().Add(time.Hour), func(ScanProgress) {
			select {
			case waits <- struct{}{}:
			default:
			}
		})
		ended <- err
	}()
	<-waits
	if _, err := a.RemoveLocation(t.Context(), loc.String()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		var p *Problem
		if !errors.As(err, &p) || p.Code != CodeUnknownLocation {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("waits for ever")
	}
}

// What a device remembered of a feed goes with its location: heads that disagreed, and donors to ask again.
func TestGoneFeedIsForgotten(t *testing.T) {
	a, b, _, _, loc := pair(t)
	id := locationFeed(a.self, loc)
	st, _ := b.store.State(id)
	b.mu.Lock()
	b.retries[retryKey{a.self, id}] = retry{failures: 1}
	b.forked[id] = *st.Settled
	b.compared[compareKey{a.self, id}] = 1
	b.mu.Unlock()
	if _, err := a.RemoveLocation(t.Context(), loc.String()); err != nil {
		t.Fatal(err)
	}
	await(t, "all of it is forgotten", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		_, waits := b.retries[retryKey{a.self, id}]
		_, forked := b.forked[id]
		_, compared := b.compared[compareKey{a.self, id}]
		return !b.follow[id] && !waits && !forked && !compared
	})
}

// A node ends the deletion that a process before it began, and one that begins while it runs at once.
func TestDeletionsAreFinished(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	a := start(t, home, "a")
	gone, kept := t.TempDir(), t.TempDir()
	touch(t, gone, "one")
	touch(t, kept, "two")
	first, second := a.index(gone), a.index(kept)
	a.stop()
	drop := func(dir string, cfg store.Config) (*store.Store, error) {
		s, err := store.Open(dir, cfg)
		if err == nil {
			err = s.Drop(locationFeed(cfg.Device, first))
		}
		return s, err
	}
	a = startOn(t, home, "a", drop)
	being := func() (feeds int) {
		err := a.store.View(func(r kv.Reader) error { // as package store lays them out
			return r.ScanKeys([]byte{'z'}, nil, func([]byte) error { feeds++; return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		return feeds
	}
	await(t, "the deletion that was begun", func() bool { return being() == 0 })
	if _, err := a.RemoveLocation(t.Context(), second.String()); err != nil {
		t.Fatal(err)
	}
	await(t, "the other", func() bool {
		_, known := a.store.State(feed.ID{Device: a.self, Location: second})
		return !known && being() == 0
	})
}

// Events name the folder that they are about; the id is in their details.
func TestEventsNameFolders(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "a\x1b[31m\nfolder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	touch(t, folder, "one")
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	loc := a.index(folder)
	touch(t, folder, "two")
	await(t, "the second file", func() bool { return len(a.names(a.self, loc)) == 2 })
	a.events.Flush()
	for kind, rest := range map[eventlog.Type]string{
		eventlog.ScanStarted{}.Type():   "",
		eventlog.ScanCompleted{}.Type(): ": 1 added, 0 changed, 0 removed, 0 moved, 0 unchanged, 0 ignored, 0 errors",
	} {
		await(t, string(kind), func() bool { return len(a.logged(kind)) == 1 })
		e := a.logged(kind)[0]
		var d eventlog.Folder
		if err := json.Unmarshal(e.Details, &d); err != nil || d.Location != loc.String() || d.Name != filepath.Base(folder) {
			t.Errorf("%s: %s, %v", kind, e.Details, err)
		}
		if want := "a\x1b[31m folder" + rest; e.Summary != want {
			t.Errorf("%s: %q, want %q", kind, e.Summary, want)
		}
	}
	files := eventlog.FilesChanged{}.Type()
	scanNotes{a.Node}.FilesChanged(loc, catalog.Counts{Added: 12_000}, 0)
	await(t, "the batch", func() bool { return len(a.logged(files)) > 0 })
	var last eventlog.FilesChanged
	for _, e := range a.logged(files) {
		if err := json.Unmarshal(e.Details, &last); err != nil || last.Reason != loc.String() || !strings.HasPrefix(e.Summary, "a\x1b[31m folder: ") {
			t.Errorf("%q of %s, %v", e.Summary, e.Details, err)
		}
	}
	if gone := a.folder(record.LocationID{1}); gone.Name != gone.Location {
		t.Errorf("a folder that is not known is called %q", gone.Name)
	}
}
