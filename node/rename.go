package node

import (
	"context"
	"fmt"
	"unicode"
	"unicode/utf8"

	"peerdex/protocol"
	"peerdex/record"
)

// Rename gives this device another name and returns when that is durable. No other device can: what is said
// of a device is its own word.
func (n *Node) Rename(ctx context.Context, name string) (RenameView, error) {
	if err := CheckDeviceName(name); err != nil {
		return RenameView{}, err
	}
	if err := n.awaitAsked(ctx); err != nil {
		return RenameView{}, err
	}
	v := RenameView{From: n.name(), To: name}
	n.mu.Lock()
	var taken record.DeviceID
	for _, d := range n.set.Members() {
		if d != n.self && n.nameOf(d) == name {
			taken = d
		}
	}
	n.mu.Unlock()
	if taken != (record.DeviceID{}) {
		return v, &Problem{Code: CodeConflict, Message: fmt.Sprintf("another device is called %s", name),
			Cause: fmt.Sprintf("%s has the name, and two of one name are hard to tell apart", taken.Short()), Try: "peer devices rename ANOTHER-NAME"}
	}
	if err := n.store.SetRegisters(record.Register{Entity: record.Device(n.self), Field: record.FieldName, Value: []byte(name)}); err != nil {
		return v, spaceProblem(err)
	}
	n.mu.Lock()
	n.label = name
	n.mu.Unlock()
	if err := n.store.Sync(); err != nil {
		return v, err
	}
	return v, n.refresh()
}

// badName says why a device cannot be called so, or nothing.
func badName(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case len(name) > protocol.MaxText:
		return fmt.Sprintf("it has %d bytes, more than %d", len(name), protocol.MaxText)
	case !utf8.ValidString(name):
		return "it is not UTF-8"
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("it has the character %U, which cannot be seen", r)
		}
	}
	return ""
}
