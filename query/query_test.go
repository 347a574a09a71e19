package query

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "time/tzdata" // the zones of these tests, wherever they run

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write testdata/errors.txt")

// berlin is a zone with summer time; noon there is a Wednesday in spring.
var (
	berlin = mustZone("Europe/Berlin")
	noon   = time.Date(2024, 3, 13, 12, 0, 0, 0, berlin)
)

func mustZone(name string) *time.Location {
	z, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return z
}

// file is an entry that answers as plainly as possible.
type file struct {
	path     string
	size     int64 // -1: no regular file
	modified time.Time
	in       []int
	folder   bool
}

func folded(s string) []byte { return Fold(nil, []byte(s)) }

func (f file) Name() []byte            { return folded(f.path[strings.LastIndexByte(f.path, '/')+1:]) }
func (f file) InPath(part []byte) bool { return bytes.Contains(folded(f.path), part) }
func (f file) Folder() bool            { return f.folder }
func (f file) Size() (uint64, bool)    { return uint64(f.size), f.size >= 0 }
func (f file) Modified() (int64, bool) { return f.modified.UnixNano(), !f.modified.IsZero() }
func (f file) In(term int) bool        { return slices.Contains(f.in, term) }

func parse(t *testing.T, text string) Query {
	t.Helper()
	q, err := Parse(text, noon)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func at(y int, m time.Month, d, hour int) time.Time { return time.Date(y, m, d, hour, 0, 0, 0, berlin) }

func TestMatch(t *testing.T) {
	named := func(path string) file { return file{path: path, size: 5} }
	sized := func(n int64) file { return file{path: "/f", size: n} }
	dated := func(t time.Time) file { return file{path: "/f", modified: t} }
	for _, c := range []struct {
		query string
		yes   []file
		no    []file
	}{
		{"", []file{named("/x")}, nil},
		{" \t\u00a0", []file{named("/x")}, nil},
		{"beach 2019", []file{named("/2019 Beach.jpg"), named("/BEACH2019")}, []file{named("/beach"), named("/2019/beach")}},
		{`"beach 2019"`, []file{named("/my beach 2019.jpg")}, []file{named("/2019 beach"), named("/beach  2019")}},
		{`"a \"b\" \\ \c"`, []file{named(`/a "b" \ \c`)}, []file{named(`/a b \ c`)}},
		{`a"b c"d`, []file{named("/dab c")}, []file{named("/ab cx"), named("/ad")}},
		{"beach | lake", []file{named("/beach"), named("/lake")}, []file{named("/sea")}},
		{"a b | c", []file{named("/ab"), named("/c"), named("/abc")}, []file{named("/a"), named("/b")}},
		{"a (b|c)", []file{named("/ab"), named("/ac")}, []file{named("/b"), named("/bc"), named("/a")}},
		{"a|b c|d", []file{named("/a"), named("/bc"), named("/d")}, []file{named("/b"), named("/c")}},
		{"!draft", []file{named("/final")}, []file{named("/Draft 3")}},
		{"!!a ! b", []file{named("/a")}, []file{named("/ab"), named("/c")}},
		{"!(a b) c", []file{named("/ac"), named("/c")}, []file{named("/abc"), named("/a")}},
		{"!a b", []file{named("/b")}, []file{named("/ab"), named("/x")}},
		{"IMG(1).jpg", []file{named("/img(1).JPG")}, []file{named("/img1.jpg")}},
		{"(b(1) c)", []file{named("/b(1)c")}, []file{named("/b1c")}},
		{"a)", []file{named("/a)")}, []file{named("/a")}},
		{"wow!", []file{named("/wow!")}, []file{named("/wow")}},
		{`C\x 12:30 :a`, []file{named(`/c\x12:30:a`)}, []file{named("/cx")}},
		{"K straße", []file{named("/\u212A STRAßE")}, []file{named("/x straße")}},
		{"\xff", []file{named("/a\xffb")}, []file{named("/\xfe")}},
		{"ext:jpg,.PNG", []file{named("/a.JPG"), named("/a.b.png")}, []file{named("/jpg"), named("/.jpg"), named("/a.jpg.txt"), {path: "/d.jpg", size: -1, folder: true}}},
		{"ext:tar.gz", []file{named("/a.tar.gz")}, []file{named("/a.gz"), named("/.tar.gz")}},
		{`EXT:"a b"`, []file{named("/x.A B")}, []file{named("/x.a")}},
		{"path:2019/", []file{named("/srv/2019/x"), named("/My2019/y")}, []file{named("/srv/2019"), named("/2019x/y")}},
		{`path:"my pictures/"`, []file{named("/My Pictures/x")}, []file{named("/my/pictures/x")}},
		{"path:a,b", []file{named("/a,b")}, []file{named("/a")}},
		{"size:0", []file{sized(0)}, []file{sized(1), sized(-1)}},
		{"size:10kB", []file{sized(10_000)}, []file{sized(9_999), sized(10_001), sized(10_240)}},
		{"size:>1KiB", []file{sized(1025)}, []file{sized(1024), sized(-1)}},
		{"size:>=1.5k", []file{sized(1500)}, []file{sized(1499)}},
		{`size:"< 1 MB"`, []file{sized(999_999), sized(0)}, []file{sized(1_000_000), sized(-1)}},
		{"size:<=1m", []file{sized(1_000_000)}, []file{sized(1_000_001)}},
		{"size:1MB..2MiB", []file{sized(1_000_000), sized(2 << 20)}, []file{sized(999_999), sized(2<<20 + 1), sized(-1)}},
		{"size:1MB..", []file{sized(1_000_000), sized(1 << 60)}, []file{sized(999_999)}},
		{"size:..1MB", []file{sized(0), sized(1_000_000)}, []file{sized(1_000_001), sized(-1)}},
		{"size:7..7", []file{sized(7)}, []file{sized(6), sized(8)}},
		{"size:<0", nil, []file{sized(0), sized(-1)}},
		{"size:>18446744073709551615", nil, []file{sized(0), sized(1 << 62)}},
		{"size:0.0000011MB", []file{sized(1)}, []file{sized(0), sized(2)}},
		{"date:2024", []file{dated(at(2024, 1, 1, 0)), dated(at(2025, 1, 1, 0).Add(-1))}, []file{dated(at(2023, 12, 31, 23)), dated(at(2025, 1, 1, 0)), dated(time.Time{})}},
		{"date:2024-03", []file{dated(at(2024, 3, 31, 23))}, []file{dated(at(2024, 4, 1, 0)), dated(at(2024, 2, 29, 23))}},
		{"date:2024-03-31", []file{dated(at(2024, 3, 31, 0)), dated(at(2024, 3, 31, 23))}, []file{dated(at(2024, 4, 1, 0)), dated(at(2024, 3, 30, 23))}}, // a day of 23 hours
		{"date:today", []file{dated(noon)}, []file{dated(at(2024, 3, 12, 23)), dated(at(2024, 3, 14, 0))}},
		{"date:Yesterday", []file{dated(at(2024, 3, 12, 0)), dated(at(2024, 3, 12, 23))}, []file{dated(noon), dated(at(2024, 3, 11, 23))}},
		{"date:>2024-01-01", []file{dated(at(2024, 1, 2, 0))}, []file{dated(at(2024, 1, 1, 23)), dated(time.Time{})}},
		{"date:>=2024-01-01", []file{dated(at(2024, 1, 1, 0))}, []file{dated(at(2023, 12, 31, 23))}},
		{"date:<2024", []file{dated(at(2023, 12, 31, 23))}, []file{dated(at(2024, 1, 1, 0)), dated(time.Time{})}},
		{"date:<=2024", []file{dated(at(2024, 12, 31, 23))}, []file{dated(at(2025, 1, 1, 0))}},
		{"date:2019..2021-06", []file{dated(at(2019, 1, 1, 0)), dated(at(2021, 6, 30, 23))}, []file{dated(at(2018, 12, 31, 23)), dated(at(2021, 7, 1, 0))}},
		{"date:2019..", []file{dated(at(2024, 1, 1, 0))}, []file{dated(at(2018, 1, 1, 0)), dated(time.Time{})}},
		{"date:..2019", []file{dated(at(2018, 1, 1, 0))}, []file{dated(at(2020, 1, 1, 0)), dated(time.Time{})}},
		{"date:>9998", nil, []file{dated(noon)}},
		{"date:<0001", nil, []file{dated(noon)}},
		{"on:nas tag:family,work !hash:9F2c", []file{{path: "/f", in: []int{0, 1}}}, []file{{path: "/f", in: []int{0}}, {path: "/f", in: []int{0, 1, 2}}}},
	} {
		q := parse(t, c.query)
		for _, f := range c.yes {
			if !q.Match(f) {
				t.Errorf("%q does not match %+v", c.query, f)
			}
		}
		for _, f := range c.no {
			if q.Match(f) {
				t.Errorf("%q matches %+v", c.query, f)
			}
		}
	}
}

func TestTerms(t *testing.T) {
	q := parse(t, `on:"my laptop",nas (tag:a | hash:blake3:ABCD,9f2c41d8)`)
	want := []Term{{"on", []string{"my laptop", "nas"}}, {"tag", []string{"a"}}, {"hash", []string{"abcd", "9f2c41d8"}}}
	same := func(a, b Term) bool { return a.Key == b.Key && slices.Equal(a.Values, b.Values) }
	if got := q.Terms(); !slices.EqualFunc(got, want, same) {
		t.Errorf("terms %v, want %v", got, want)
	}
	more := q.And(Term{Key: "tag", Values: []string{"x"}})
	if len(q.Terms()) != 3 || len(more.Terms()) != 4 || more.Terms()[3].Values[0] != "x" {
		t.Errorf("%v became %v", q.Terms(), more.Terms())
	}
	for _, in := range [][]int{{0, 1}, {0, 1, 3}, {3}} {
		f := file{path: "/f", in: in}
		if got, want := more.Match(f), len(in) == 3; got != want {
			t.Errorf("in %v: %v", in, got)
		}
		if got := (Query{}).And(Term{Key: "on"}).Match(f); got != (in[0] == 0) {
			t.Errorf("in %v, on alone: %v", in, got)
		}
	}
}

// Each of these says what is wrong, where, and how it is said right: with a query, or several and three spaces
// between them.
func TestErrors(t *testing.T) {
	var got strings.Builder
	for _, text := range []string{
		"| a", "a |", "a | | b", "a |) b", "(a | b", "a (b (c)", "a )", "()", "!", "a !", "! | b", "!)",
		`"a b`, `""`, `path:"x`, `a ext:`, `ext:jpg,`, `ext: jpg`, `tag:""`, "tag:a,,b", `on:"",x`,
		"extn:pdf", "http://x", "C:\\x y",
		"size:big", "size:10XB", "size:>", "size:1..x", "size:2MB..1MB", "size:..", "size:-1", "size:1.MB", "size:.5MB", "size:20000PB", "size:18446744073709551616",
		"size:1,5MB", "date:24", "date:2024-13", "date:2024-02-30", "date:tomorrow", "date:2024..2023", "date:..", "date:>", "date:2024-1",
		"hash:9f", "hash:xyzw", "hash:" + strings.Repeat("a", 65), "hash:abcd,12",
		strings.Repeat("(", 60), strings.Repeat("!", 60) + "a", strings.Repeat("ä", 600),
	} {
		_, err := Parse(text, noon)
		var e *Error
		if !errors.As(err, &e) || e.Query != text || e.At < 0 || e.End < e.At || e.End > len(text) {
			t.Errorf("%q: %+v", text, err)
			continue
		}
		if len(text) > 100 {
			text = text[:100] + "…"
		}
		for _, example := range strings.Split(e.Example, "   ") {
			if _, err := Parse(example, noon); err != nil {
				t.Error(err)
			}
		}
		fmt.Fprintf(&got, "%s\n%s%s\n  %s\n  for example: %s\n\n", text, strings.Repeat(" ", min(e.At, 110)), strings.Repeat("^", max(1, min(e.End-e.At, 30))), e.Message, e.Example)
	}
	golden := filepath.Join("testdata", "errors.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("messages differ from %s; they are now:\n%s", golden, got.String())
	}
}

// Two texts fold to the same bytes exactly if strings.EqualFold calls them equal.
func TestFoldIsEqualFold(t *testing.T) {
	letter := rapid.SampledFrom([]rune("aAkK\u212AsSſßẞσςΣµμΜİıiIǅǆǄДд\U00010400\U00010428"))
	rapid.Check(t, func(t *rapid.T) {
		a, b := string(rapid.SliceOfN(letter, 0, 3).Draw(t, "a")), string(rapid.SliceOfN(letter, 0, 3).Draw(t, "b"))
		if got, want := string(folded(a)) == string(folded(b)), strings.EqualFold(a, b); got != want {
			t.Fatalf("%q and %q: %v, want %v", a, b, got, want)
		}
	})
}

// Folding makes nothing longer: whoever keeps folded texts relies on it.
func TestFoldIsNoLonger(t *testing.T) {
	for r := rune(0); r <= 0x10ffff; r++ {
		if text := string(r); len(folded(text)) > len(text) {
			t.Errorf("%U becomes % x", r, folded(text))
		}
	}
}

// Whatever is typed is a query or an error that lies within it; no query fails on an entry.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "beach 2019", `"a b" | !c (d e)`, "ext:jpg,png size:>10MB path:2019/", "date:2024-01..yesterday", `on:"x",y tag:z hash:9f2c`,
		"((((", "a:b:c", "\xff\xfe", "size:1.5KiB..2pb", `"\\\""`, "!(a|!b)", "date:>=2024-02-29",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := Parse(text, noon)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.At < 0 || e.At > e.End || e.End > len(text) || e.Message == "" || e.Example == "" {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		for _, e := range []file{{path: "/a/b.jpg", size: 7, modified: noon, in: []int{0}}, {path: "/" + text, folder: true, size: -1}} {
			q.Match(e)
		}
	})
}
