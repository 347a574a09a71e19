package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerdex/node"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; go test ./cmd/peer -update writes it anew\n--- got\n%s--- want\n%s", path, got, want)
	}
}

// Commands that print something, against a daemon with hostile names in it.
var shown = map[string]string{
	"status":             "status",
	"check":              "status --check",
	"devices":            "devices",
	"locations":          "locations ls",
	"location":           "locations show Pictures",
	"location-polled":    "locations show 4e4e",
	"location-away":      "locations show box",
	"location-remove":    "locations remove Pictures",
	"location-set":       "locations set Pictures --hash all",
	"location-lazy":      "locations set nas:photos --fetch lazy",
	"location-metered":   "locations set photos --fetch metered",
	"location-eager":     "locations set photos --fetch eager",
	"plan":               "sync plan",
	"plan-none":          "sync plan --device nanopi",
	"location-rescan":    "locations rescan Pictures",
	"ls":                 "ls nas:/srv/photos",
	"ls-long":            "ls -l nas:/srv/photos",
	"ls-away":            "ls K0VN:/mnt/box",
	"ls-empty":           "ls nas:/empty",
	"ls-behind":          "ls nas:/srv/behind",
	"find-behind":        "find behind",
	"ls-asked":           "ls nas:/srv/asked",
	"find-asked":         "find asked",
	"where-asked":        "where nas:/srv/asked",
	"ls-locations":       "ls --on nas",
	"find":               "find beach",
	"find-sorted":        "find beach 2019 --sort size --limit 2 --on nas",
	"find-nothing":       "find nothing",
	"tags":               "tag ls",
	"tag-add":            "tag add family,#tax /a/one nas:/srv/two",
	"tag-query":          "tag add family --query ext:jpg",
	"tag-remove":         "tag remove family /a/one",
	"tag-content":        "tag add family --content /a/one",
	"tag-rename":         "tag rename kin family --merge",
	"tag-delete":         "tag delete kin",
	"note":               "note nas:/srv/two",
	"note-content":       "note /a/content",
	"note-none":          "note /a/none",
	"note-set":           "note /a/one shot-from-the-boat",
	"find-copies":        "find copies on:laptop,nas --tag tax --reverse",
	"find-limited":       "find copies --limit 2",
	"where":              "where laptop:/home/mia/tax.pdf",
	"where-hash":         "where blake3:9f2c41d8",
	"where-unread":       "where nas:/srv/beach.jpg",
	"info":               "info laptop:/home/mia/tax.pdf",
	"info-unread":        "info nas:/srv/beach.jpg",
	"info-away":          "info K0VN:/mnt/box/x",
	"invite":             "invite --ttl 1h --uses 2",
	"join":               "join " + goodAddr + "#k7f3-9qxe",
	"sync-status":        "sync status",
	"sync-status-device": "sync status --device nanopi",
	"snapshot-export":    "snapshot export library",
	"snapshot-import":    "snapshot import library",
	"snapshot-known":     "snapshot import known",
	"pause":              "sync pause",
	"pause-for":          "sync pause --for 2h",
	"pause-device":       "sync pause --device nas",
	"resume":             "sync resume",
	"now":                "sync now",
	"metrics":            "sync metrics",
	"metrics-device":     "sync metrics --device nas",
	"metrics-model":      "sync metrics --model entry",
	"metrics-sections":   "sync metrics --state --errors",
	"events":             "sync events --format table",
	"events-filtered":    "sync events --since 2h --min-severity info --peer nas --order desc --format table",
	"events-session":     "sync events --correlation-id 0199a4d2 --grep behind --format table",
	"events-none":        "sync events --event-type store_error --format table",
	"events-limited":     "sync events --limit 2 --format table",
}

func TestGolden(t *testing.T) {
	for name, line := range shown {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			code, out, stderr := b.run(strings.Fields(line)...)
			text := fmt.Sprintf("$ peer %s\n%s--- stderr\n%s--- exit %d\n", line, out, stderr, code)
			harmless(t, text)
			golden(t, name+".txt", text)

			// the same with --json: one document, nothing else on stdout
			b = newBench(t)
			line, _, _ := strings.Cut(line, " --format")
			code2, doc, stderr := b.run(append(strings.Fields(line), "--json")...)
			if code2 != code || stderr != "" {
				t.Errorf("--json: exit %d, want %d; stderr %q", code2, code, stderr)
			}
			one(t, doc)
			harmless(t, doc)
			golden(t, name+".json", doc)
		})
	}
}

// harmless fails if text holds what acts on a terminal.
func harmless(t *testing.T, text string) {
	t.Helper()
	for i, r := range text {
		if r != '\n' && !printable(r) {
			t.Errorf("byte %d is %q", i, r)
		}
	}
}

// one decodes the only JSON document in text, and insists on a schema and on no null list.
func one(t *testing.T, text string) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if d.More() {
		t.Errorf("more than one document: %q", text)
	}
	if s, _ := doc["schema"].(string); !strings.HasPrefix(s, "peer.") || !strings.HasSuffix(s, "/v1") {
		t.Errorf("schema %q", s)
	}
	for _, list := range []string{"devices", "locations", "entries", "sessions", "attention", "listen", "events", "tags", "written", "reached", "pending", "away", "places"} {
		if v, ok := doc[list]; ok && v == nil {
			t.Errorf("%s is null", list)
		}
	}
	return doc
}

func TestEmptyLists(t *testing.T) {
	for line, list := range map[string]string{
		"locations": "locations", "ls": "locations", "find nothing": "entries", "sync status": "sessions",
		"status": "attention", "ls /empty": "entries", "sync now": "devices",
		"sync events --event-type store_error": "events",
	} {
		b := newBench(t)
		b.fake.empty = true
		_, out, _ := b.run(append(strings.Fields(line), "--json")...)
		if v, ok := one(t, out)[list].([]any); !ok || len(v) != 0 {
			t.Errorf("peer %s --json: %s is %v, want []", line, list, one(t, out)[list])
		}
	}
}

// On a terminal rows are cut to its width, in colour; a pipe gets them whole.
func TestTerminal(t *testing.T) {
	b := newBench(t)
	b.width = 60
	_, out, _ := b.run("find", "beach")
	for line := range strings.Lines(out) {
		if n := columns(strings.TrimSuffix(line, "\n")); n > 60 {
			t.Errorf("%d columns in %q", n, line)
		}
	}
	if !strings.Contains(out, "…") {
		t.Errorf("nothing was shortened: %s", out)
	}
	if _, out, _ := b.run("find", "beach", "--wide"); strings.Contains(out, "…") {
		t.Errorf("--wide shortened: %s", out)
	}
	if _, out, _ := b.run("status"); !strings.Contains(out, "\x1b[32m●\x1b[0m") {
		t.Errorf("no colour on a terminal: %q", out)
	}
	b.env["NO_COLOR"] = "1"
	if _, out, _ := b.run("status"); strings.Contains(out, "\x1b") {
		t.Errorf("colour in spite of NO_COLOR: %q", out)
	}
	for _, ascii := range [][]string{{"status", "--ascii"}, {"sync", "status", "--ascii"}, {"sync", "metrics", "--ascii"}} {
		_, out, _ := b.run(ascii...)
		for _, glyph := range []string{"●", "◐", "○", "✗", "█", "·", "━", "…"} {
			if strings.Contains(out, glyph) {
				t.Errorf("%v prints %s", ascii, glyph)
			}
		}
	}
}

func TestPrint0(t *testing.T) {
	b := newBench(t)
	code, out, stderr := b.run("find", "-0", "beach")
	var want string
	for _, e := range entries() {
		want += e.Path + "\x00"
	}
	if code != 0 || out != want || stderr != "" {
		t.Errorf("exit %d, stderr %q, stdout %q, want %q", code, stderr, out, want)
	}
	if code, out, stderr := b.run("find", "-0", "--json", "beach"); code != 2 || out != "" || !strings.Contains(stderr, "exclude each other") {
		t.Errorf("-0 --json: exit %d, stdout %q, stderr %q", code, out, stderr)
	}
}

// A name that is no UTF-8 can be had back from --json.
func TestRawNames(t *testing.T) {
	b := newBench(t)
	_, out, _ := b.run("find", "beach", "--json")
	var doc struct {
		Entries []struct {
			Name string `json:"name"`
			B64  []byte `json:"name_b64"`
		} `json:"entries"`
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	for i, e := range entries() {
		got := doc.Entries[i].Name
		if b := doc.Entries[i].B64; b != nil {
			got = string(b)
		}
		if got != e.Name {
			t.Errorf("entry %d is %q, want %q", i, got, e.Name)
		}
	}
}

// A search that found nothing, but could not ask everybody, has no answer.
func TestFoundNothingOfAllThatWasAsked(t *testing.T) {
	if code, out, stderr := newBench(t).run("find", "-q", "asked", "nothing"); code != 6 || out+stderr != "" {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
}

// Of what is not here yet nobody says that it is.
func TestFetchingLine(t *testing.T) {
	for want, l := range map[string]node.LocationView{
		"eager: 9 entries, kept here":                                                              {Fetch: "eager", Entries: 9, Files: 9, AsOf: noon},
		"eager: of 9 entries up to 8 are lacking; fetching from nas":                               {Fetch: "eager", Entries: 9, Lacks: 8, From: "nas"},
		"metered: of 9 entries up to 8 are lacking; fetching from nas\\n":                          {Fetch: "metered", Entries: 9, Lacks: 8, From: "nas\n"},
		"eager: of 1 entry up to 1 is lacking; they come when a device that has them is connected": {Fetch: "eager", Entries: 1, Lacks: 1},
		"eager: of 9 entries up to 8 are lacking; not fetched now: sync with nas is paused":        {Fetch: "eager", Entries: 9, Lacks: 8, Paused: "sync with nas is paused"},
		"eager: of 9 entries up to 7 are lacking, for which the disk has no room":                  {Fetch: "eager", Entries: 9, Lacks: 7, Waits: "disk_low"},
		"metered: of 9 entries up to 7 are lacking, for which the disk has no room":                {Fetch: "metered", Entries: 9, Lacks: 7, Waits: "disk_low"},
		"metered: up to 7 entries wait for `peer sync now`":                                        {Fetch: "metered", Entries: 9, Lacks: 7, Waits: "metered_large"},
	} {
		if got := fetchingLine(l); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	a := &app{env: func(string) string { return "" }}
	if got := a.fetchState(node.LocationView{Fetch: "eager", Entries: 9000, Files: 1000, Lacks: 8000}); got != a.glyph(busy)+" eager, lacks up to 8,000" {
		t.Errorf("in the table of locations: %q", got)
	}
}
