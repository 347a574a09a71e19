package eventlog

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func each(events ...Event) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
	}
}

var names = ExportOptions{
	Name:     func(id string) string { return map[string]string{device: "laptop", "12D3KooWNas": "nas"}[id] },
	Exported: start.Add(2 * time.Hour),
}

func export(t interface {
	Helper()
	Fatal(...any)
}, format Format, events ...Event) string {
	t.Helper()
	var b bytes.Buffer
	n, err := Export(&b, format, each(events...), names)
	if err != nil || n != len(events) {
		t.Fatal(n, err)
	}
	return b.String()
}

func TestExportGolden(t *testing.T) {
	for _, format := range Formats {
		golden(t, "export."+string(format), []byte(export(t, format, sample()...)))
	}
}

func TestExportOfNothing(t *testing.T) {
	for format, want := range map[Format]string{
		JSON: "[]\n", NDJSON: "", Table: "", SQL: sqlHead + "COMMIT;\n", CSV: csvLine(csvHeader),
		Markdown: "# Sync Event Log\n\n**Exported**: 2026-03-01T12:00:00Z\n**Event Count**: 0\n\n| Timestamp | Device | Event Type | Severity | Summary |\n|---|---|---|---|---|\n",
	} {
		if got := export(t, format); got != want {
			t.Errorf("%s: %q", format, got)
		}
	}
	if _, err := Export(io.Discard, "xml", each(), ExportOptions{}); !errors.Is(err, ErrQuery) {
		t.Errorf("xml: %v", err)
	}
}

type fullDisk struct{ left int }

func (f *fullDisk) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errDisk
	}
	return len(b), nil
}

// Errors of the reader and of the writer come out, in every format.
func TestExportErrors(t *testing.T) {
	failing := func(yield func(Event, error) bool) {
		_ = yield(sample()[0], nil) && yield(Event{}, errDisk)
	}
	for _, format := range Formats {
		var b bytes.Buffer
		if n, err := Export(&b, format, failing, names); !errors.Is(err, errDisk) || n != 1 || strings.Contains(b.String(), "COMMIT") {
			t.Errorf("%s: %d, %v", format, n, err)
		}
		if _, err := Export(&fullDisk{100}, format, each(sample()...), names); !errors.Is(err, errDisk) {
			t.Errorf("%s on a full disk: %v", format, err)
		}
	}
}

func TestJSONExports(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(anEvent(), 0, 4).Draw(t, "events")
		array, lines := export(t, JSON, want...), export(t, NDJSON, want...)
		var got []Event
		if err := json.Unmarshal([]byte(array), &got); err != nil || len(got) != len(want) {
			t.Fatalf("%v in %q", err, array)
		}
		for i, line := range strings.Split(strings.TrimSuffix(lines, "\n"), "\n") {
			if len(want) == 0 {
				break
			}
			var e Event
			if err := json.Unmarshal([]byte(line), &e); err != nil || !reflect.DeepEqual(e, want[i]) || !reflect.DeepEqual(got[i], want[i]) {
				t.Fatalf("%v: %q is not %+v", err, line, want[i])
			}
		}
		if !utf8.ValidString(array) || strings.Count(lines, "\n") != len(want) {
			t.Fatalf("%q", lines)
		}
	})
}

// columns splits a row of a Markdown table as a reader of Markdown does.
func columns(row string) int {
	n := 0
	for i := 0; i < len(row); i++ {
		switch row[i] {
		case '\\':
			i++
		case '|':
			n++
		}
	}
	return n - 1
}

func checkMarkdown(t interface{ Fatalf(string, ...any) }, text string, events int) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	rows := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "|") {
			if rows++; columns(line) != 5 {
				t.Fatalf("%d columns in %q", columns(line), line)
			}
		}
	}
	if rows != events+2 || len(lines) != events+7 {
		t.Fatalf("%d rows, %d lines of %d events:\n%s", rows, len(lines), events, text)
	}
	for _, bad := range []string{"<script", "<b>"} {
		if strings.Contains(text, bad) {
			t.Fatalf("%s in %q", bad, text)
		}
	}
	if i := strings.IndexByte(text, '`'); i >= 0 && text[i-1] != '\\' {
		t.Fatalf("a bare backtick in %q", text)
	}
}

// checkTable: a terminal sees one line per event, and only characters that it shows.
func checkTable(t interface{ Fatalf(string, ...any) }, text string, events int) {
	if strings.Count(text, "\n") != events || !utf8.ValidString(text) {
		t.Fatalf("%q", text)
	}
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Fatalf("%q holds %U", text, r)
		}
	}
}

func checkCSV(t interface{ Fatalf(string, ...any) }, text string, events []Event) {
	r := csv.NewReader(strings.NewReader(text))
	rows, err := r.ReadAll()
	if err != nil || len(rows) != len(events)+1 {
		t.Fatalf("%v: %d rows of %d events in %q", err, len(rows), len(events), text)
	}
	for i, row := range rows[1:] {
		want := csvFields(events[i], names)
		for j, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) {
				t.Fatalf("%q is a formula", cell)
			}
			// encoding/csv reads CR LF within quotes as LF.
			if got, want := strings.TrimPrefix(cell, "'"), strings.ReplaceAll(want[j], "\r\n", "\n"); got != want {
				t.Fatalf("column %s is %q, want %q", csvHeader[j], got, want)
			}
		}
	}
	bare := strings.ReplaceAll(text, "\r\n", "")
	if len(events) == 0 && strings.ContainsAny(bare, "\r\n") {
		t.Fatalf("%q", text)
	}
}

func TestHostileExports(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(anEvent(), 0, 4).Draw(t, "events")
		checkMarkdown(t, export(t, Markdown, events...), len(events))
		checkTable(t, export(t, Table, events...), len(events))
		checkCSV(t, export(t, CSV, events...), events)
		checkSQL(t, export(t, SQL, events...), events)
	})
}

func FuzzExports(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e := sample()[0]
		e.Summary, e.PeerDeviceID, e.BootID = summarize(text), clip(text, maxPeer), strings.ToValidUTF8(text, "?")
		checkMarkdown(t, export(t, Markdown, e), 1)
		checkTable(t, export(t, Table, e), 1)
		checkCSV(t, export(t, CSV, e), []Event{e})
		checkSQL(t, export(t, SQL, e), []Event{e})
	})
}

// checkSQL reads the literals of each INSERT as SQLite does.
func checkSQL(t interface{ Fatalf(string, ...any) }, text string, events []Event) {
	body, ok := strings.CutPrefix(text, sqlHead)
	body, ok2 := strings.CutSuffix(body, "COMMIT;\n")
	if !ok || !ok2 || strings.Contains(text, "\x00") {
		t.Fatalf("%q", text)
	}
	literal := regexp.MustCompile(`^(?:'(?:[^']|'')*'|NULL|-?[0-9]+)`)
	for _, e := range events {
		if body, ok = strings.CutPrefix(body, "INSERT OR IGNORE INTO sync_event_log VALUES("); !ok {
			t.Fatalf("%q", body)
		}
		var values []string
		for {
			v := literal.FindString(body)
			if v == "" {
				t.Fatalf("no literal at %q", body)
			}
			values = append(values, v)
			body = body[len(v):]
			if body, ok = strings.CutPrefix(body, ","); !ok {
				break
			}
		}
		if body, ok = strings.CutPrefix(body, ");\n"); !ok || len(values) != 17 {
			t.Fatalf("%d values, then %q", len(values), body)
		}
		summary := strings.ReplaceAll(strings.Trim(values[9][1:len(values[9])-1], ""), "''", "'")
		if want := Printable(e.Summary); summary != want {
			t.Fatalf("summary %q, want %q", summary, want)
		}
	}
	if body != "" {
		t.Fatalf("left over: %q", body)
	}
}

// Logs of two devices imported twice each give no error and no doubles, and the sessions of both meet.
func TestSQLite(t *testing.T) {
	sqlite, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("NOT TESTED: there is no sqlite3 here; TestHostileExports reads the statements instead")
	}
	db := filepath.Join(t.TempDir(), "timeline.db")
	run := func(script string, args ...string) string {
		t.Helper()
		cmd := exec.Command(sqlite, append([]string{"-bail", db}, args...)...)
		cmd.Stdin = strings.NewReader(script)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "rror") {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	mine := sample()
	for i, text := range hostile {
		e := mine[1]
		e.Seq, e.Summary, e.CausedBy = uint64(10+i), summarize(text), strings.ToValidUTF8(text, "?")
		mine = append(mine, e)
	}
	theirs := slices.Clone(mine)
	for i := range theirs {
		theirs[i].DeviceID = "12D3KooWNas"
	}
	for range 2 {
		run(export(t, SQL, mine...))
		run(export(t, SQL, theirs...))
	}
	if got, want := run("", "SELECT COUNT(*), COUNT(DISTINCT device_id), MIN(seq) FROM sync_event_log"), fmt.Sprintf("%d|2|1", 2*len(mine)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := run("", "SELECT summary FROM sync_event_log WHERE seq = 1 AND device_name = 'laptop'"), "it's started"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	sessions := run("", `SELECT correlation_id, COUNT(DISTINCT device_id) FROM sync_event_log WHERE correlation_id IS NOT NULL GROUP BY correlation_id`)
	if want := "0199a4d2-7c11-7d3e-8a55-0123456789ab|2"; sessions != want {
		t.Errorf("%s, want %s", sessions, want)
	}
	if got, want := run("", "SELECT json_extract(details, '$.per_model.entry'), record_count, duration_ms FROM sync_event_log WHERE seq = 2 LIMIT 1"), "150|160|28"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Many lines need no more memory than a few.
func TestNDJSONHoldsNothing(t *testing.T) {
	const lines = 200_000
	e := sample()[0]
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var peak uint64
	n, err := Export(io.Discard, NDJSON, func(yield func(Event, error) bool) {
		for i := range lines {
			if e.Seq = uint64(i); i%(lines/4) == lines/8 {
				runtime.GC()
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapAlloc)
			}
			if !yield(e, nil) {
				return
			}
		}
	}, names)
	if err != nil || n != lines {
		t.Fatal(n, err)
	}
	if peak > before.HeapAlloc+4<<20 {
		t.Errorf("%d bytes more in the heap", peak-before.HeapAlloc)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 🎉":          "plain é 🎉",
		"\x1b[31mred":        `\x1b[31mred`,
		"a\u202eb":           `a\u202eb`,
		"\u2066\u200b\ufeff": `\u2066\u200b\ufeff`,
		"bad\xffend":         `bad\xffend`,
		"\x7f\x00\n\t":       `\x7f\x00\x0a\x09`,
		"\u0085\u00a0":       `\u0085\u00a0`,
		"\U000e0001":         `\U000e0001`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q is %s, want %s", in, got, want)
		}
	}
}

// What VisibleJSON changes means the same.
func TestVisibleJSON(t *testing.T) {
	for _, text := range append(slices.Clone(hostile), "\U000e0001\u009b\x7f", "plain é") {
		in, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		out := VisibleJSON(in)
		var back, want string
		if json.Unmarshal(out, &back) != nil || json.Unmarshal(in, &want) != nil || back != want {
			t.Errorf("%q became %q", in, out)
		}
		if bytes.ContainsFunc(out, func(r rune) bool { return unicode.Is(unicode.C, r) || r == 0x7f }) {
			t.Errorf("%q still acts on a terminal", out)
		}
	}
}
