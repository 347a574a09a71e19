package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Badger's Sync leaves out memtables that are full and not yet tables, so that a power cut in that moment
// took commits away from the middle of what had been called durable. All logs are synced: one that cannot be is
// an error, though nothing is wrong with the one being written.
func TestSyncCoversAllLogs(t *testing.T) {
	dir := t.TempDir()
	log := func(n int) string { return filepath.Join(dir, fmt.Sprintf("%05d.mem", n)) }
	if err := os.WriteFile(log(2), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syncLogs(dir); err != nil {
		t.Fatalf("with one log, being written: %v", err)
	}
	if err := os.Mkdir(log(1), 0o700); err != nil { // cannot be opened for writing
		t.Fatal(err)
	}
	if err := syncLogs(dir); err == nil {
		t.Fatal("the log of a full memtable was not synced")
	}
	if err := os.Remove(log(1)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "gone"), log(1)); err != nil {
		t.Fatal(err)
	}
	if err := syncLogs(dir); err != nil {
		t.Fatalf("with a log that became a table: %v", err)
	}
}

// The size is what the files take on disk, however large Badger made them.
func TestSizeOf(t *testing.T) {
	dir := t.TempDir()
	for name, written := range map[string]int{"000001.sst": 300 << 10, "00002.mem": 200 << 10, "000001.vlog": 100 << 10, "MANIFEST": 1 << 20} {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(name, make([]byte, written), 0o600), os.Truncate(name, 64<<20)); err != nil {
			t.Fatal(err)
		}
	}
	lsm, log, err := sizeOf(dir)
	if err != nil || lsm < 500<<10 || lsm > 600<<10 || log < 100<<10 || log > 200<<10 {
		t.Errorf("%d and %d bytes, %v", lsm, log, err)
	}
	if lsm, _, err := newDevice(t, 1).Size(); err != nil || lsm == 0 {
		t.Errorf("a store that was just opened: %d bytes, %v", lsm, err)
	}
}
