package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain name (1).jpg":        "plain name (1).jpg",
		"Müller 漢字 👨\u200d👩\u200d👧": "Müller 漢字 👨\u200d👩\u200d👧",
		"می\u200cخواهم":             "می\u200cخواهم",
		`C:\Users\mia`:              `C:\Users\mia`,
		"a\nb\tc\rd":                `a\nb\tc\rd`,
		"\x1b[31mred":               `\x1b[31mred`,
		"del\x7f nul\x00":           `del\x7f nul\x00`,
		"bad \xff\xc3 utf8":         `bad \xff\xc3 utf8`,
		"\u009b2J":                  `\u{9b}2J`,
		"photo\u202egpj.exe":        `photo\u{202e}gpj.exe`,
		"\u2066x\u2069":             `\u{2066}x\u{2069}`,
		"line\u2028sep":             `line\u{2028}sep`,
		"zero\u200bwidth":           `zero\u{200b}width`,
		"\U000e0041tag":             `\u{e0041}tag`,
		"\\ and \n":                 `\\ and \n`,
		"real \ufffd is kept":       "real \ufffd is kept",
		"":                          "",
	} {
		if got := escape(in); got != want {
			t.Errorf("escape(%q) is %q, want %q", in, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add(hostile)
	f.Add("\x1b]0;title\x07")
	f.Add("\xed\xa0\x80\u2066")
	f.Fuzz(func(t *testing.T, text string) {
		got := escape(text)
		if !utf8.ValidString(got) {
			t.Fatalf("%q is no UTF-8", got)
		}
		for _, r := range got {
			if !printable(r) || r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
				t.Fatalf("%q holds %q", got, r)
			}
		}
		if escape(got) != got {
			t.Errorf("%q is escaped twice", got)
		}
		if cut := middle(got, 20, "…"); columns(cut) > 20 {
			t.Errorf("%q has %d columns", cut, columns(cut))
		}
	})
}

func TestMiddle(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"/home/mia/Pictures/beach.jpg", 15, "/home/m…ach.jpg"},
		{"short", 15, "short"},
		{"漢字漢字漢字", 7, "漢…漢字"[:len("漢…")] + "字"},
		{"abcdef", 1, "…"},
	} {
		got := middle(c.text, c.width, "…")
		if columns(got) > c.width || c.width > 7 && got != c.want {
			t.Errorf("middle(%q, %d) is %q, want %q", c.text, c.width, got, c.want)
		}
	}
	if got := middle("abcdefghij", 2, "..."); got != ".." {
		t.Errorf("%q", got)
	}
}

func TestTableFits(t *testing.T) {
	tab := &table{right: map[int]bool{1: true}, shrink: 0}
	tab.row(strings.Repeat("p", 100), "1.2 MB", strings.Repeat("d", 60))
	tab.row("x", "1 B", "nas")
	for _, width := range []int{20, 40, 80, 120} {
		for line := range strings.Lines(tab.lines(width, "…")) {
			if n := columns(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%d columns at width %d: %q", n, width, line)
			}
		}
	}
	if whole := tab.lines(0, "…"); strings.Contains(whole, "…") {
		t.Errorf("shortened without a terminal: %q", whole)
	}
}

func TestPercentages(t *testing.T) {
	got := percentages([]uint64{83, 47, 24}) // the seed said 58, 33 and 9
	if len(got) != 3 || got[0] != 54 || got[1] != 30 || got[2] != 16 {
		t.Errorf("%v", got)
	}
	for _, parts := range [][]uint64{{1, 1, 1}, {0, 1}, {7}, {1, 1, 1, 1, 1, 1, 1}, {1 << 60, 3}} {
		sum := 0
		for _, p := range percentages(parts) {
			sum += p
		}
		if sum != 100 {
			t.Errorf("%v add up to %d", parts, sum)
		}
	}
	if percentages([]uint64{0, 0}) != nil {
		t.Error("shares of nothing")
	}
}
