package eventlog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"peerdex/hlc"
)

var update = flag.Bool("update", false, "write the golden files")

// fill sets every field of v to something that is not its zero value.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(start))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		elem := reflect.New(v.Type().Elem()).Elem()
		fill(elem)
		v.SetMapIndex(reflect.ValueOf("entry"), elem)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64:
		v.SetUint(7)
	default:
		panic(v.Kind())
	}
}

func checkKeys(t *testing.T, at string, v any) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			if !regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`).MatchString(key) {
				t.Errorf("%s: key %q", at, key)
			}
			checkKeys(t, at+"."+key, inner)
		}
	case []any:
		for _, inner := range v {
			checkKeys(t, at, inner)
		}
	}
}

// Every type's details have snake_case keys, read back as they were, and have a summary that says more
// than nothing.
func TestDetailsRoundTrip(t *testing.T) {
	if len(Types()) != len(kinds) || len(kinds) < 50 {
		t.Fatalf("%d types listed, %d known", len(Types()), len(kinds))
	}
	for _, kind := range Types() {
		zero, err := kinds[kind].decode(json.RawMessage("{}"))
		if err != nil {
			t.Fatal(err)
		}
		full := reflect.New(reflect.TypeOf(zero)).Elem()
		fill(full)
		d := full.Interface().(Detail)
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var keys map[string]any
		if err := json.Unmarshal(text, &keys); err != nil || len(keys) == 0 {
			t.Fatalf("%s: %s: %v", kind, text, err)
		}
		checkKeys(t, string(kind), keys)
		again, err := (Event{Type: kind, Details: text}).Detail()
		if err != nil || !reflect.DeepEqual(again, d) {
			t.Errorf("%s: %+v came back as %+v (%v)", kind, d, again, err)
		}
		if d.Type() != kind || len(d.Summary()) < 3 {
			t.Errorf("%s: summary %q", kind, d.Summary())
		}
		if kind.Severity().rank() < 0 || kind.Category() == "" {
			t.Errorf("%s is %q, %q", kind, kind.Category(), kind.Severity())
		}
		_, sums := d.(repeatable)
		if sums != (kinds[kind].window > 0) {
			t.Errorf("%s: window %v", kind, kinds[kind].window)
		}
		_, tallied := full.Type().FieldByName("PerModel")
		if b := batched[kind]; tallied && b == nil && kind != (BackfillSessionCompleted{}).Type() || b != nil && b(Batch{}).Type() != kind {
			t.Errorf("%s: tallied %v", kind, tallied)
		}
	}
}

var hostile = []string{
	"plain", "", "a|b", "line\nbreak", "`code`", "<script>alert(1)</script>", "=1+1", "+x", "-x", "@x", "'quoted'", `"double"`,
	"\x1b[31mred\x1b[0m", "\u202ertl", "nul\x00byte", "bad\xff\xfeutf8", "tab\there", "\r\n", "a,b;c", "'; DROP TABLE sync_event_log; --",
	`back\slash|`, "![x](http://x)", "\u200b", "emoji 🎉", "&amp;", strings.Repeat("é", 500), "\u2028", "'=x", " padded ",
}

func texts() *rapid.Generator[string] {
	return rapid.OneOf(rapid.SampledFrom(hostile), rapid.String(), rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	}))
}

// anEvent makes events as a log could hold them.
func anEvent() *rapid.Generator[Event] {
	return rapid.Custom(func(t *rapid.T) Event {
		text := texts()
		kind := rapid.SampledFrom(Types()).Draw(t, "type")
		details, _ := json.Marshal(map[string]string{"message": text.Draw(t, "message")})
		e := Event{
			DeviceID: device, Seq: rapid.Uint64Range(1, 1<<60).Draw(t, "seq"), HLC: hlc.Stamp(rapid.Uint64().Draw(t, "hlc")),
			Timestamp: time.Unix(0, rapid.Int64Range(0, 1<<61).Draw(t, "time")).UTC(), BootID: "b1",
			Type: kind, Category: kind.Category(), Severity: kind.Severity(), SchemaVersion: SchemaVersion,
			Summary: summarize(text.Draw(t, "summary")), Details: details,
			CausedBy: clip(text.Draw(t, "cause"), maxPeer), PeerDeviceID: clip(text.Draw(t, "peer"), maxPeer),
		}
		copy(e.CorrelationID[:], rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, "session"))
		for range rapid.IntRange(0, 3).Draw(t, "models") {
			e.ModelTypes = append(e.ModelTypes, clip(text.Draw(t, "model"), maxName))
		}
		if rapid.Bool().Draw(t, "records") {
			e.RecordCount = new(rapid.Int64().Draw(t, "n"))
			e.DurationMS = new(rapid.Int64().Draw(t, "ms"))
		}
		return e
	})
}

func TestRowRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anEvent().Draw(t, "event")
		row := appendRow(nil, want)
		got, err := decodeRow(device, want.Position(), row)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v (%v)", got, want, err)
		}
		for n := range row {
			if _, err := decodeRow(device, want.Position(), row[:n]); !errors.Is(err, errRow) {
				t.Fatalf("%d of %d bytes: %v", n, len(row), err)
			}
		}
		if _, err := decodeRow(device, want.Position(), append(row, 0)); !errors.Is(err, errRow) {
			t.Fatalf("a byte too many: %v", err)
		}
	})
}

func TestEventJSONRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anEvent().Draw(t, "event")
		text, err := json.Marshal(want)
		if err != nil || !utf8.Valid(text) {
			t.Fatalf("%q: %v", text, err)
		}
		var got Event
		if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v (%v)", got, want, err)
		}
	})
}

// sample is one event of each shape, for the golden files.
func sample() []Event {
	id, _ := ParseID("0199a4d2-7c11-7d3e-8a55-0123456789ab")
	return []Event{
		{
			DeviceID: device, Seq: 1, Timestamp: start, HLC: hlc.At(start), BootID: "b1", Type: "backfill_session_started",
			Category: Lifecycle, Severity: Info, Summary: "it's started", Details: json.RawMessage(`{"chosen":"nas"}`),
			CorrelationID: id, PeerDeviceID: "12D3KooWNas", ModelTypes: []string{"entry", "tag"}, SchemaVersion: 1,
		},
		{
			DeviceID: device, Seq: 2, Timestamp: start.Add(1500 * time.Millisecond), HLC: hlc.At(start) + 1, BootID: "b1", Type: "batch_ingestion",
			Category: DataFlow, Severity: Debug, Summary: "live: 160 records (150 entry, 10 tag)", Details: json.RawMessage(`{"per_model":{"entry":150,"tag":10}}`),
			CausedBy: "12D3KooWNas/7", RecordCount: new(int64(160)), DurationMS: new(int64(28)), SchemaVersion: 1,
		},
		{
			DeviceID: device, Seq: 3, Timestamp: start.Add(time.Hour), HLC: hlc.At(start.Add(time.Hour)), BootID: "b1", Type: "sync_error",
			Category: Failure, Severity: Error, Summary: "=cmd|`x` <b>\x1b[31m\u202e | \\|", Details: json.RawMessage(`{"message":"it's \u0000"}`), SchemaVersion: 1,
		},
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
	}
}

// The bytes on disk of version 1 never change.
func TestRowGolden(t *testing.T) {
	var b bytes.Buffer
	for _, e := range sample() {
		b.WriteString(hex.EncodeToString(eventKey(e.Position())) + " " + hex.EncodeToString(appendRow(nil, e)) + "\n")
	}
	b.WriteString(hex.EncodeToString(meta{seq: 3, stamp: 9, count: [4]uint64{1, 2, 3, 4}, bytes: [4]uint64{5, 6, 7, 8}}.encode()) + "\n")
	golden(t, "rows-v1.txt", b.Bytes())
}

func TestMeta(t *testing.T) {
	want := meta{seq: 1 << 60, stamp: 9, count: [4]uint64{1, 2, 3, 4}, bytes: [4]uint64{5, 6, 7, 8}}
	b := want.encode()
	if got, err := decodeMeta(b); err != nil || got != want {
		t.Errorf("%+v (%v)", got, err)
	}
	for n := range b {
		if _, err := decodeMeta(b[:n]); !errors.Is(err, errRow) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func FuzzRow(f *testing.F) {
	for _, e := range sample() {
		f.Add(appendRow(nil, e))
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		at := Position{1, 2}
		e, err := decodeRow(device, at, row)
		if err != nil {
			return
		}
		again, err := decodeRow(device, at, appendRow(nil, e))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%+v became %+v (%v)", e, again, err)
		}
	})
}

func TestSummaryIsShort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := texts().Draw(t, "text")
		s := summarize(in)
		if n := utf8.RuneCountInString(s); n > MaxSummary || !utf8.ValidString(s) || strings.ContainsAny(s, "\n\r\t") {
			t.Fatalf("%d characters: %q", n, s)
		}
		if n := utf8.RuneCountInString(strings.ToValidUTF8(in, "x")); n <= MaxSummary && strings.HasSuffix(s, "…") && !strings.HasSuffix(in, "…") {
			t.Fatalf("%q was cut", in)
		}
	})
	if s := summarize(strings.Repeat("é", 201)); s != strings.Repeat("é", 199)+"…" {
		t.Errorf("%q", s)
	}
	if s := summarize(strings.Repeat("é", 200)); s != strings.Repeat("é", 200) {
		t.Errorf("%q", s)
	}
}

func TestID(t *testing.T) {
	const text = "0199a4d2-7c11-7d3e-8a55-0123456789ab"
	id, err := ParseID(strings.ToUpper(text))
	if err != nil || id.String() != text {
		t.Errorf("%s (%v)", id, err)
	}
	for _, bad := range []string{"", "0199a4d2", text + "00", strings.Replace(text, "a", "g", 1), "0199a4d2-7c11-7d3e-8a55-0123456789a"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

// Sentences have one of a thing or many, separators of thousands, and nothing that says nothing.
func TestSentences(t *testing.T) {
	for want, d := range map[string]Detail{
		"snapshot for up to 12,006 entries: 0 entries are held": StrategySelected{Feed: "snapshot", Strategy: "snapshot", EntryCount: 12_006, Why: "0 entries are held"},
		"pages for up to 1 entry of A/1: at most 10,000":        StrategySelected{Feed: "A/1", Strategy: "pages", EntryCount: 1, Why: "at most 10,000"},
		"search: 1 answered":                                               LookedUp{Batch{Reason: "search", Outcomes: map[string]int64{"answered": 1}}},
		"delta: 12,000 records (12,000 entry)":                             BackfillResponseSent{Batch{Reason: "delta", PerModel: map[string]int64{"entry": 12_000}}},
		"A/1: 12,006 records":                                              BackfillSessionCompleted{Feed: "A/1", Records: 12_006},
		"A/1: 1 record in 1 page, 80 B":                                    BackfillSessionCompleted{Feed: "A/1", Records: 1, Pages: 1, Bytes: 80},
		"in by pages, loading: 0 of 1 record":                              TransferProgress{Direction: "in", Strategy: "pages", Phase: "loading", Total: 1},
		"via lan, tcp":                                                     PeerConnected{Path: "lan", Transport: "tcp"},
		"via lan, tcp, 110µs":                                              PeerConnected{Path: "lan", Transport: "tcp", RTTMS: .11},
		"by A through secret, 1 use, valid for 10m0s":                      DeviceInvited{By: "A", Method: "secret", Uses: 1, ValidMS: 599_998},
		"173 MiB for snapshot, at most 256 MiB at once":                    MemoryRefused{Use: "snapshot", Bytes: 173 << 20, CapBytes: 256 << 20},
		"2.0 MiB for frame · 12,000 more":                                  MemoryRefused{Use: "frame", Bytes: 2 << 20, Repeats: Repeats{Repeats: 12_000}},
		"nothing new in /a":                                                SnapshotImportCompleted{File: "/a"},
		"2 feeds from /a":                                                  SnapshotImportCompleted{File: "/a", Feeds: 2},
		"A/1 was at 10,000, but 12,000 is known elsewhere: jump to 20,000": FeedRolledBack{Feed: "A/1", FromSeq: 10_000, SeenSeq: 12_000, ToSeq: 20_000, Method: "jump"},
		"1 entry in 1, 80 B, told 1 device":                                BulkIndexAnnounced{Folder: Folder{Location: "1"}, EntryCount: 1, Bytes: 80, Told: 1},
		"wait: 1,000,000 entries in photos, 80 B, 12,000 of them lacking: metered_large": BulkIndexDecided{Folder: Folder{Location: "1", Name: "photos"}, EntryCount: 1_000_000, Bytes: 80, Lacks: 12_000, Decision: "wait", Why: "metered_large"},
	} {
		if got := d.Summary(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
