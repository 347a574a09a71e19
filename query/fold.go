package query

import (
	"unicode"
	"unicode/utf8"
)

// Fold appends text with every letter replaced by the least of those that are equal to it under Unicode
// simple folding, so that equal texts become equal bytes, no longer than text. Bytes that are no UTF-8 equal
// themselves.
func Fold(out, text []byte) []byte {
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c >= 'a' && c <= 'z' {
				c -= 'a' - 'A'
			}
			out = append(out, c)
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			out = append(out, c)
			i++
			continue
		}
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		out = utf8.AppendRune(out, least)
		i += size
	}
	return out
}
