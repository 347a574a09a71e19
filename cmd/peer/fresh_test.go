package main

import (
	"bytes"
	"testing"
	"time"

	"peerdex/node"
)

// That a device is connected does not make what is held of it current.
func TestFresh(t *testing.T) {
	hour := noon.Add(-time.Hour)
	for want, got := range map[string]string{
		"now":           fresh(noon, true, noon),
		"as of 1 h ago": fresh(noon, false, hour),
		"as of never":   fresh(noon, false, time.Time{}),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	b := newBench(t)
	var out, stderr bytes.Buffer
	a := b.app(&out, &stderr)
	l := node.LocationView{Online: true, Fetch: "eager", AsOf: hour}
	if got := a.locationFresh(noon, l); got != "as of 1 h ago" {
		t.Errorf("a location that lacks something: %q", got)
	}
	current := node.Entry{Device: nasID, DeviceName: "nas", Online: true, Current: true, AsOf: noon}
	behind := node.Entry{Device: nasID, DeviceName: "nas", Online: true, AsOf: hour}
	for _, copies := range [][]node.Entry{{current, behind}, {behind, current}} {
		if got := a.places(noon, copies); got != "nas ×2 (as of 1 h ago)" {
			t.Errorf("places in a folder that is whole and one that is not: %q", got)
		}
	}
}

// A monitor is told when this device is not in step and somebody has to do something.
func TestHealthy(t *testing.T) {
	for what, c := range map[string]struct {
		st   node.Status
		want bool
	}{
		"ready":                   {node.Status{State: node.StateReady}, true},
		"catching up":             {node.Status{State: node.StateCatchingUp}, true},
		"a warning":               {node.Status{State: node.StateReady, Attention: []node.Attention{{Severity: "warning"}}}, true},
		"no other device reached": {node.Status{State: node.StateUninitialized}, false},
		"paused":                  {node.Status{State: node.StatePaused}, false},
		"no room for what lacks":  {node.Status{State: node.StateReady, Attention: []node.Attention{{Severity: "warning"}, {Severity: "problem"}}}, false},
	} {
		if got := healthy(c.st); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
