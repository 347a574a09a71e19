package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"peerdex/api"
	"peerdex/node"
)

// Every form that the documents name.
func TestParseTime(t *testing.T) {
	zone := time.FixedZone("here", 3600)
	now := time.Date(2025, 10, 23, 14, 30, 15, 500, zone)
	start := now.Add(-42 * time.Minute)
	day := time.Date(2025, 10, 23, 0, 0, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"2025-10-23T10:00:00Z":        day.Add(11 * time.Hour),
		"2025-10-23T10:00:00.5+02:00": day.Add(9*time.Hour + 500*time.Millisecond),
		"2025-10-23 10:00:00":         day.Add(10 * time.Hour),
		"2025-10-23 10:00":            day.Add(10 * time.Hour),
		"2025-10-23":                  day,
		"10:00":                       day.Add(10 * time.Hour),
		"10:00:30":                    day.Add(10*time.Hour + 30*time.Second),
		" 10:00 ":                     day.Add(10 * time.Hour),
		"now":                         now,
		"today":                       day,
		"yesterday":                   day.AddDate(0, 0, -1),
		"1 hour ago":                  now.Add(-time.Hour),
		"90 min ago":                  now.Add(-90 * time.Minute),
		"1h30m ago":                   now.Add(-90 * time.Minute),
		"1 Hour Ago":                  now.Add(-time.Hour),
		"2 days ago":                  now.Add(-48 * time.Hour),
		"2h":                          now.Add(-2 * time.Hour),
		"-2h":                         now.Add(-2 * time.Hour),
		"2h ago":                      now.Add(-2 * time.Hour),
		"7d":                          now.Add(-7 * 24 * time.Hour),
		"2w":                          now.Add(-14 * 24 * time.Hour),
		"30s":                         now.Add(-30 * time.Second),
		"@1761213600":                 time.Unix(1761213600, 0),
		"start":                       start,
	} {
		got, err := parseTime("--since", text, now, zone, func() (time.Time, error) { return start, nil })
		if err != nil || !got.Equal(want) {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "1 hour before", "soon", "25:00", "2025-13-01", "2025-02-30", "2", "h", "-", "--2h", "-2h ago", "2x", "2hh",
		"1.5h", "@", "@-1", "@+1", "@99999999999999", "999999999w", "99999999999999999999h", "1h ago ago", "tomorrow", "2h\n", "２h", "2025-10-23T10:00:00"} {
		if text == "2h\n" { // space around is allowed
			continue
		}
		_, err := parseTime("--since", text, now, zone, nil)
		var p *node.Problem
		if !errors.As(err, &p) || p.Code != node.CodeBadTime || strings.Count(p.Try, "--since") != 3 {
			t.Errorf("%q: %v", text, err)
		}
	}
	gone := errors.New("no daemon")
	if _, err := parseTime("--since", "start", now, zone, func() (time.Time, error) { return time.Time{}, gone }); !errors.Is(err, gone) {
		t.Errorf("start without a daemon: %v", err)
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2h", "1 hour ago", "@1", "2025-10-23 10:00:00", "start", "1h30m ago"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseTime("--since", text, noon, time.UTC, func() (time.Time, error) { return noon, nil })
		if err != nil {
			if p := api.AsProblem(err); p.Code != node.CodeBadTime {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if at.Before(noon.Add(-2*maxSpan)) && !strings.Contains(text, "-") {
			t.Errorf("%q is %v", text, at)
		}
	})
}

func TestMeterLine(t *testing.T) {
	a := &app{env: func(string) string { return "" }}
	for want, p := range map[string]node.Progress{
		"indexing 0 names": {}, "indexing 1 name": {Done: 1}, "indexing 1,000 names": {Done: 1000},
		"indexing 0 of 1 name": {Total: 1}, "indexing 1 of 2 names": {Done: 1, Total: 2},
		"indexing 1 of 2 names, 3/s, 1.0 s left, loading": {Done: 1, Total: 2, Rate: 3.9, ETASeconds: .2, Phase: "loading"},
		"indexing 1 of 2 names, 2m 5s left":               {Done: 1, Total: 2, Rate: .008, ETASeconds: 125},
	} {
		if got := strings.ReplaceAll(a.meter("indexing", "names").line(p), a.sep(), ", "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := strings.Join(a.progress(node.Progress{Done: 1}, "entries"), ""); got != "1 entry" {
		t.Errorf("%q", got)
	}
	p := node.Progress{Done: 134893, Total: 217570, Bytes: 9_100_000, TotalBytes: 14_700_000, Rate: 8430.8, ETASeconds: 9.8, Phase: "loading"}
	for width, want := range map[int]string{
		120: "catalogue  ############--------  134,893 of 217,570 entries, 9.1 MB of 15 MB, 8,430/s, 10 s left, loading",
		100: "catalogue  ######----  134,893 of 217,570 entries, 9.1 MB of 15 MB, 8,430/s, 10 s left, loading",
		80:  "catalogue  ######----  134,893 of 217,570 entries, 9.1 MB of 15 MB, 8,430/s",
		60:  "catalogue  ######----  134,893 of 217,570 entries",
		20:  "catalogue  ######----  134,893 of 217,570 entries",
	} {
		a.errWidth = width
		if got := strings.ReplaceAll(a.meter("catalogue", "entries").line(p), a.sep(), ", "); got != want || width > 40 && len(got) >= width {
			t.Errorf("%d columns: %q, want %q", width, got, want)
		}
	}
}
