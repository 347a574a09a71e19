package node

import (
	"context"
	"fmt"

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
	other, why := n.holder(name, n.self)
	n.mu.Unlock()
	if why != "" {
		return v, &Problem{Code: CodeConflict, Message: fmt.Sprintf("this device cannot be called %s", name),
			Cause: fmt.Sprintf("%s %s, and nobody could tell which is meant", other.Short(), why), Try: "peer devices rename ANOTHER-NAME"}
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
