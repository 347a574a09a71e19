package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Without a word about it: a table on a terminal, else an array, or what the file's extension asks for.
func TestEventFormats(t *testing.T) {
	b := newBench(t)
	_, out, _ := b.run("sync", "events")
	var list []map[string]any
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != len(eventLog()) || list[0]["device_id"] != laptopID {
		t.Errorf("piped: %v, %s", err, out)
	}
	harmless(t, out)
	b.width = 200
	if _, out, _ := b.run("sync", "events"); strings.HasPrefix(out, "[") || strings.Count(out, "\n") != len(eventLog()) {
		t.Errorf("on a terminal: %s", out)
	}
	b.width = 0
	for ext, begins := range map[string]string{"json": "[\n{", "ndjson": `{"device_id"`, "sql": "-- peer event export", "md": "# Sync Event Log",
		"csv": "device_id,", "txt": "2026-03-01 09:00", "log": "[\n{"} {
		path := filepath.Join(t.TempDir(), "events."+ext)
		if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		code, out, stderr := b.run("sync", "events", "-o", path)
		if code != 0 || out != "" || stderr != "4 events written to "+path+"\n" {
			t.Errorf("%s: exit %d, %q, %q", ext, code, out, stderr)
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), begins) {
			t.Errorf("%s: %v, %.60q", ext, err, text)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
			t.Errorf("%s: %v", ext, left)
		}
	}
	if _, out, _ := b.run("sync", "events", "-o", "-", "--format", "ndjson"); strings.Count(out, "\n") != 4 {
		t.Errorf("-o -: %s", out)
	}
}

// -o writes through a link and into a device or a pipe, and replaces neither.
func TestEventsOutputKept(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	real, link, dangling := filepath.Join(dir, "real"), filepath.Join(dir, "link.csv"), filepath.Join(dir, "dangling.csv")
	if err := os.WriteFile(real, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("real", link), os.Symlink("fresh", dangling)); err != nil {
		t.Fatal(err)
	}
	for path, file := range map[string]string{link: real, dangling: filepath.Join(dir, "fresh")} {
		if code, _, stderr := b.run("sync", "events", "-o", path); code != 0 {
			t.Errorf("%s: exit %d, %q", path, code, stderr)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is a link no more: %v, %v", path, info, err)
		}
		if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), "device_id,") {
			t.Errorf("%s: %v, %.60q", file, err, text)
		}
	}
	if code, _, stderr := b.run("sync", "events", "-o", dir); code != 7 || !strings.Contains(stderr, "is a directory") {
		t.Errorf("a directory: exit %d, %q", code, stderr)
	}
	if runtime.GOOS != "linux" {
		return
	}
	full := filepath.Join(dir, "full") // a link: a mistake must not cost the system its device
	if err := os.Symlink("/dev/full", full); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := b.run("sync", "events", "-o", full); code != 7 || !strings.Contains(stderr, "no space left") {
		t.Errorf("a full device: exit %d, %q", code, stderr)
	}
	if target, err := os.Readlink(full); err != nil || target != "/dev/full" {
		t.Errorf("the link to a device became %q, %v", target, err)
	}
}

// A follower sees the last events and then each new one, with --json one object per line.
func TestFollow(t *testing.T) {
	b := newBench(t)
	var r running
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a := b.app(nil, nil)
	a.out, a.err = &r.out, &r.err
	r.exit = make(chan int, 1)
	go func() { r.exit <- a.main(ctx, []string{"sync", "events", "-f", "--json"}) }()
	r.wait(t, "change_rejected")
	b.fake.happen("first")
	r.wait(t, "first")
	b.fake.happen("second " + hostile)
	r.wait(t, "second")
	cancel()
	if code := r.code(t); code != 130 {
		t.Errorf("exit %d, %s", code, r.err.String())
	}
	harmless(t, r.out.String())
	seq := 0
	for l := range strings.Lines(r.out.String()) {
		var e map[string]any
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%v in %q", err, l)
		}
		if seq++; e["seq"] != float64(seq) || e["schema"] != "peer.event/v1" || e["type"] != "event" {
			t.Errorf("line %d: %s", seq, l)
		}
	}
	if seq != 6 {
		t.Errorf("%d events, want 6", seq)
	}
}
