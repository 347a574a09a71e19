package node

import (
	"path/filepath"
	"testing"

	"peerdex/record"
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
