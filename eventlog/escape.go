package eventlog

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Names, paths and messages in events come from other devices and from file systems. Each format escapes
// what could mean something in it.

// Printable returns text that does nothing to a terminal: bytes that are no UTF-8, control characters
// (and with them every ANSI sequence), characters that are invisible or turn the writing direction, and
// separators other than the space appear as \x1b or \u202e.
func Printable(text string) string {
	clean := true
	for _, r := range text {
		if clean = plain(r); !clean {
			break
		}
	}
	if clean {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && n == 1 || r < 0x20 || r == 0x7F:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case plain(r):
			b.WriteString(text[i : i+n])
		case r > 0xFFFF:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}

// plain reports whether r is a visible character or a space. unicode.IsPrint leaves out control, format
// (bidirectional and zero-width ones among them), surrogate and private characters. The replacement
// character is left out too: it cannot be told here from a byte that is no UTF-8.
func plain(r rune) bool { return unicode.IsPrint(r) && r != utf8.RuneError }

// VisibleJSON writes the characters of JSON text that would act on a terminal (C1 controls, the direction of text,
// what is not assigned) as \uXXXX, which means the same.
func VisibleJSON(doc []byte) []byte {
	acts := func(r rune) bool { return r == 0x7f || r > unicode.MaxASCII && !unicode.IsGraphic(r) }
	if bytes.IndexFunc(doc, acts) < 0 {
		return doc
	}
	out := make([]byte, 0, len(doc)+64)
	for _, r := range string(doc) {
		switch {
		case !acts(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// markdownCell makes text one cell of a table.
func markdownCell(text string) string {
	return markdownEscapes.Replace(Printable(strings.Join(strings.Fields(text), " ")))
}

var markdownEscapes = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", `|`, `\|`, `*`, `\*`, `[`, `\[`, `]`, `\]`, `!`, `\!`,
	`<`, "&lt;", `>`, "&gt;", `&`, "&amp;",
)

// csvCell quotes a field (RFC 4180) and puts an apostrophe before what a spreadsheet would take for a
// formula. Text that begins with an apostrophe gets one more, so that taking one away gives every text
// back.
func csvCell(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if text != "" && strings.ContainsRune("=+-@\t\r'", rune(text[0])) {
		text = "'" + text
	}
	if strings.ContainsAny(text, "\",\r\n") || strings.HasPrefix(text, " ") || strings.HasSuffix(text, " ") {
		return `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
	}
	return text
}

// sqlText makes a string literal; "" becomes NULL if null is set.
func sqlText(text string, null bool) string {
	if text == "" && null {
		return "NULL"
	}
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "")
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}
