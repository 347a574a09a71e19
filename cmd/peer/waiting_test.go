package main

import (
	"strings"
	"testing"

	"peerdex/node"
)

// A folder that waits for its first scan is not shown as one that is watched.
func TestWaitingFolder(t *testing.T) {
	a := &app{env: func(string) string { return "" }, color: "never"}
	waiting := node.LocationView{Self: true, State: "waiting"}
	if got := a.locationState(waiting); got != a.glyph(busy)+" waiting" {
		t.Errorf("state %q", got)
	}
	st := node.Status{Locations: []node.LocationView{waiting, {Self: true, State: "watching"}}}
	if got := a.indexLine(st); !strings.Contains(got, "1 watching, 1 waiting") {
		t.Errorf("index line %q", got)
	}
}
