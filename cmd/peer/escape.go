package main

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// escape makes text of a file system or another device safe to print: what could move the cursor, change
// colours, turn the writing direction, hide or break a line becomes visible as \n, \t, \r, \xNN (a byte)
// or \u{N} (a character). Where something was escaped, a backslash is doubled. Text without any such
// character is returned as it is.
func escape(text string) string {
	if clean(text) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\\':
			b.WriteString(`\\`)
		case r < 0x80 && !printable(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case !printable(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
		text = text[n:]
	}
	return b.String()
}

func clean(text string) bool {
	for i, r := range text {
		if !printable(r) {
			return false
		}
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(text[i:]); n == 1 {
				return false
			}
		}
	}
	return true
}

// printable: letters, marks, numbers, signs and spaces, and the two joiners that Persian and emoji need.
// Not among them are all controls, line separators and the characters that set the direction of text.
func printable(r rune) bool {
	return unicode.IsGraphic(r) || r == '\u200c' || r == '\u200d'
}

// columns returns how wide printed text is on a terminal.
func columns(text string) int {
	n := 0
	for i := 0; i < len(text); {
		if strings.HasPrefix(text[i:], "\x1b[") { // our own colours
			if end := strings.IndexByte(text[i:], 'm'); end > 0 {
				i += end + 1
				continue
			}
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		n += runeColumns(r)
		i += size
	}
	return n
}

var uncoloured = regexp.MustCompile("\x1b\\[[0-9]*m")

func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0x303e, r >= 0x3041 && r <= 0xa4cf,
		r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f,
		r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1f64f,
		r >= 0x1f900 && r <= 0x1f9ff, r >= 0x20000 && r <= 0x3fffd: // East Asian Wide, UAX 11
		return 2
	}
	return 1
}

// middle shortens printed text to width columns by an ellipsis in its middle. Text with colours loses them.
func middle(text string, width int, ellipsis string) string {
	if columns(text) <= width || width < 1 {
		return text
	}
	runes := []rune(uncoloured.ReplaceAllString(text, ""))
	room := width - columns(ellipsis)
	if room <= 0 {
		return string([]rune(ellipsis)[:min(columns(ellipsis), width)])
	}
	tail, from := 0, len(runes)
	for from > 0 && tail+runeColumns(runes[from-1]) <= room-room/2 {
		from--
		tail += runeColumns(runes[from])
	}
	head, to := 0, 0
	for to < from && head+runeColumns(runes[to]) <= room/2 {
		head += runeColumns(runes[to])
		to++
	}
	return string(runes[:to]) + ellipsis + string(runes[from:])
}
