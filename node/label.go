package node

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"peerdex/record"
)

// labelFault says why name is not to be given to a tag; "" for a good one. What is refused could not be
// seen, typed, written in a query or told from something else. Tags that other devices made may have any
// name: they are shown escaped, and named by their ids.
func labelFault(name string) string {
	switch {
	case name == "":
		return "a tag needs a name"
	case len(name) > record.MaxLabel:
		return fmt.Sprintf("its name has %d bytes, at most %d are allowed", len(name), record.MaxLabel)
	case !utf8.ValidString(name):
		return "its name is not valid UTF-8"
	case strings.HasPrefix(name, "#"):
		return "a name has no # in front: it is put there when the tag is shown"
	case len(name) >= idDigits && strings.Trim(name, "0123456789abcdefABCDEF") == "" && strings.Trim(name, "0123456789") != "":
		return fmt.Sprintf("%d or more hexadecimal digits are taken for the id of a tag", idDigits)
	case strings.TrimSpace(name) != name:
		return "its name begins or ends with a space"
	case strings.ContainsAny(name, `/",`):
		return `a name holds no slash, quote or comma`
	}
	for _, r := range name {
		if !unicode.IsGraphic(r) && r != zwnj && r != zwj {
			return fmt.Sprintf("its name holds %U, which cannot be seen", r)
		}
	}
	return ""
}

// CheckTagName returns a Problem for a name that is not to be given to a tag.
func CheckTagName(name string) error {
	if fault := labelFault(name); fault != "" {
		return &Problem{Code: CodeUsage, Message: fmt.Sprintf("a tag cannot be called %q", name), Cause: fault, Try: "peer tag add family PATH"}
	}
	return nil
}

// CheckNote returns a Problem for text that is no note.
func CheckNote(text string) error {
	if fault := noteFault(text); fault != "" {
		return &Problem{Code: CodeUsage, Message: "that is no note", Cause: fault, Try: `peer note PATH "shot at the lake"`}
	}
	return nil
}

// The joiners that Persian and emoji need: all others that cannot be seen are refused.
const zwnj, zwj = '\u200c', '\u200d'

// noteFault says why text is no note; "" if it is one.
func noteFault(text string) string {
	switch {
	case len(text) > record.MaxValue:
		return fmt.Sprintf("it has %d bytes, at most %d are allowed", len(text), record.MaxValue)
	case !utf8.ValidString(text):
		return "it is not valid UTF-8"
	}
	return ""
}
