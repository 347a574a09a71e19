package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"peerdex/node"
)

// Watching with --json is one object per line, until a signal; exit 130 then.
func TestWatch(t *testing.T) {
	for line, kind := range map[string]string{"status": "status", "sync status": "sync_status", "sync metrics --errors": "metrics"} {
		t.Run(line, func(t *testing.T) {
			b := newBench(t)
			var r running
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			a := b.app(nil, nil)
			a.out, a.err = &r.out, &r.err
			r.exit = make(chan int, 1)
			args := append(strings.Fields(line), "--watch", "--json", "--interval", "1s")
			go func() { r.exit <- a.main(ctx, args) }()
			r.wait(t, "\n")
			cancel()
			if code := r.code(t); code != 130 {
				t.Errorf("exit %d", code)
			}
			for l := range strings.Lines(r.out.String()) {
				var doc map[string]any
				if err := json.Unmarshal([]byte(l), &doc); err != nil || doc["type"] != kind || doc["schema"] == nil {
					t.Errorf("%v in %q", err, l)
				}
			}
		})
	}
}

// A terminal is redrawn, a pipe gets blocks; when the daemon goes, so does the watcher.
func TestWatchText(t *testing.T) {
	b := newBench(t)
	b.width = 100
	var r running
	a := b.app(nil, nil)
	a.out, a.err, a.outWidth = &r.out, &r.err, 100
	r.exit = make(chan int, 1)
	go func() { r.exit <- a.main(context.Background(), []string{"status", "-w", "--interval", "1s"}) }()
	r.wait(t, "\x1b[H\x1b[2J")
	b.cancel()
	if code := r.code(t); code != 3 || !strings.Contains(r.err.String(), "no daemon") {
		t.Errorf("exit %d, %q", code, r.err.String())
	}
}

// On a terminal an invite waits for its guest.
func TestInviteWaits(t *testing.T) {
	b := newBench(t)
	b.width = 120
	b.fake.empty = true
	var r running
	a := b.app(nil, nil)
	a.out, a.err, a.outWidth = &r.out, &r.err, 120
	r.exit = make(chan int, 1)
	go func() { r.exit <- a.main(context.Background(), []string{"invite", "--uses", "3"}) }()
	r.wait(t, "peer join '"+goodAddr)
	b.fake.mu.Lock()
	b.fake.empty = false
	b.fake.mu.Unlock()
	if code := r.code(t); code != 0 || !strings.Contains(r.out.String(), "nas joined (3F9D-PQ7A)") {
		t.Errorf("exit %d, %q", code, r.out.String())
	}
	harmless(t, r.out.String())
}

func TestMeter(t *testing.T) {
	var r running
	now := noon
	a := &app{err: &r.err, errWidth: 100, now: func() time.Time { return now }, env: func(string) string { return "C.UTF-8" }}
	m := a.meter("catalogue", "entries")
	m.update(0, 1000)
	now = now.Add(time.Second)
	m.update(250, 1000)
	m.update(251, 1000) // too soon to redraw
	now = now.Add(3 * time.Second)
	m.update(1000, 1000)
	m.done()
	want := "\r\x1b[Kcatalogue  ░░░░░░░░░░░░░░░░░░░░  0 of 1,000 entries" +
		"\r\x1b[Kcatalogue  █████░░░░░░░░░░░░░░░  250 of 1,000 entries · 250/s · 3.0 s left" +
		"\r\x1b[Kcatalogue  ████████████████████  1,000 of 1,000 entries · 250/s" +
		"\r\x1b[K"
	if got := r.err.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Elsewhere than on a terminal a line comes now and then, and none of what is over soon.
func TestMeterLines(t *testing.T) {
	var r running
	now := noon
	a := &app{err: &r.err, now: func() time.Time { return now }, env: func(string) string { return "" }}
	m := a.meter("catalogue", "entries")
	for i := range uint64(121) { // 12 s
		m.transfer(node.Progress{Done: i, Total: 120, Phase: "loading"})
		now = now.Add(100 * time.Millisecond)
	}
	m.done()
	want := "catalogue 50 of 120 entries - loading\ncatalogue 100 of 120 entries - loading\n"
	if got := strings.ReplaceAll(r.err.String(), a.sep(), " - "); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// On a terminal there is a bar while one waits; with --json there is none.
func TestNowBar(t *testing.T) {
	b := newBench(t)
	b.ewidth = 120
	bar := "\r\x1b[Kcatalogue  █████░░░░░░░░░░░░░░░  500 of 2,000 entries · 100/s · 15 s left · loading\r\x1b[K"
	if code, out, stderr := b.run("sync", "now"); code != 0 || stderr != bar || !strings.Contains(out, "reached") {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	if code, _, stderr := b.run("sync", "now", "--json"); code != 0 || stderr != "" {
		t.Errorf("with --json: exit %d, %q", code, stderr)
	}
}

func TestCompletion(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"sync", "status", "--device", "n"}, "nanopi nas"},
		{[]string{"find", "x", "--on", ""}, "laptop nanopi nas"}, // not the hostile one
		{[]string{"locations", "show", ""}, "Pictures nas:photos"},
		{[]string{"locations", "remove", ""}, "Pictures"},
		{[]string{"locations", "remove", "Pictures", ""}, ""},
		{[]string{"locations", "set", ""}, "Pictures nas:photos"},
		{[]string{"locations", "set", "photos", "--fetch", ""}, "eager lazy metered"},
		{[]string{"add", "x", "--hash", ""}, "auto all none"},
		{[]string{"ls", "na"}, "nanopi: nas:"},
		{[]string{"find", "x", "--sort", ""}, "modified name none path size"},
		{[]string{"completion", "b"}, "bash"},
	} {
		code, out, _ := b.run(append([]string{"__complete"}, c.args...)...)
		var got []string
		for l := range strings.Lines(out) {
			if !strings.HasPrefix(l, ":") {
				got = append(got, strings.TrimSpace(l))
			}
		}
		if code != 0 || strings.Join(got, " ") != c.want {
			t.Errorf("%v: exit %d, %v, want %s", c.args, code, got, c.want)
		}
	}
	for _, shell := range shells {
		if code, out, _ := b.run("completion", shell); code != 0 || !strings.Contains(out, "__complete") {
			t.Errorf("%s: exit %d", shell, code)
		}
	}
	if code, _, _ := newHome(t).run("__complete", "sync", "status", "--device", ""); code != 0 {
		t.Errorf("without a daemon: exit %d", code)
	}
}
