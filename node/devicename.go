package node

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"peerdex/protocol"
	"peerdex/query"
	"peerdex/record"
)

// FoldName returns what two names have in common that people would take for one: they are composed (NFC) and
// equal under Unicode simple folding.
func FoldName(name string) string {
	return string(query.Fold(nil, norm.NFC.Bytes([]byte(name))))
}

// nameFault says why a device cannot be called so, or nothing. What is refused could not be seen, or typed
// where a device is named. Other devices may say of themselves what they like: that is shown escaped.
func nameFault(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case len(name) > protocol.MaxText:
		return fmt.Sprintf("it has %d bytes, more than %d", len(name), protocol.MaxText)
	case !utf8.ValidString(name):
		return "it is not UTF-8"
	case strings.TrimSpace(name) != name:
		return "it begins or ends with a space"
	case strings.ContainsAny(name, unfitInNames):
		return "it has one of the characters " + strings.Join(strings.Split(unfitInNames, ""), " ") + " in it"
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("it has the character %U, which cannot be seen", r)
		}
	}
	return ""
}

// unfitInNames separate a device from what else stands beside it: in lists, before paths and in queries.
const unfitInNames = `,:/"`

// CheckDeviceName returns a Problem for a name that is not to be given to a device.
func CheckDeviceName(name string) error {
	if fault := nameFault(name); fault != "" {
		return &Problem{Code: CodeUsage, Message: fmt.Sprintf("a device cannot be called %q", name), Cause: fault, Try: "peer devices rename laptop"}
	}
	return nil
}

// cleanName makes a name of what an operating system says.
func cleanName(host string) string {
	name := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) || strings.ContainsRune(unfitInNames, r) {
			return '-'
		}
		return r
	}, host)
	for name = strings.Trim(name, " -"); len(name) > protocol.MaxText; {
		_, size := utf8.DecodeLastRuneInString(name)
		name = strings.TrimSpace(name[:len(name)-size])
	}
	if name == "" {
		return "device"
	}
	return name
}

// shortestID is the number of characters from which on a name is compared with the beginnings of ids.
const shortestID = 4

// likeID reports whether a name could be taken for the beginning of a device's short id or peer ID.
func likeID(name string, d record.DeviceID) bool {
	bare := strings.ReplaceAll(name, "-", "")
	short := strings.ReplaceAll(d.Short(), "-", "")
	return len(bare) >= shortestID && strings.HasPrefix(FoldName(short), FoldName(bare)) ||
		len(name) >= shortestID && strings.HasPrefix(FoldName(idText(d)), FoldName(name))
}

// freeName returns want, or want with the first number behind it that gives a name nobody has. Where that
// would be too long it returns want.
func freeName(want string, taken func(name string) bool) string {
	name := want
	for i := 2; taken(name); i++ {
		if name = fmt.Sprintf("%s-%d", want, i); len(name) > protocol.MaxText {
			return want
		}
	}
	return name
}

// numbered reports whether a name is what freeName makes of another.
func numbered(name, of string) bool {
	number, ok := strings.CutPrefix(name, of+"-")
	return ok && number != "" && strings.Trim(number, "0123456789") == "" && nameFault(name) == ""
}

// holder returns the member that a device would be confused with if it were called so: one that has the name,
// or any, the device itself too, whose id may begin so; n.mu is held.
func (n *Node) holder(name string, of record.DeviceID) (d record.DeviceID, why string) {
	folded := FoldName(name)
	for _, d := range append(n.set.Members(), of) {
		switch {
		case d != of && FoldName(n.nameOf(d)) == folded:
			return d, "has the name"
		case likeID(name, d):
			return d, "has an id that begins so"
		}
	}
	return record.DeviceID{}, ""
}

// freeNameFor returns what a device is to be called that wants a name; n.mu is held.
func (n *Node) freeNameFor(want string, d record.DeviceID) string {
	return freeName(want, func(name string) bool {
		_, why := n.holder(name, d)
		return why != ""
	})
}
