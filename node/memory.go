package node

import (
	"errors"

	"peerdex/eventlog"
	"peerdex/protocol"
	"peerdex/record"
)

// reserve takes memory for a use until release is called, which it must be once. It does not wait: a *protocol.Error
// with CodeBusy says that there is none left, and so does an event.
func (n *Node) reserve(use protocol.Use, bytes int) (release func(), err error) {
	give, err := protocol.Reserve(n.host, use, bytes)
	if err != nil {
		n.noteNoMemory(record.DeviceID{}, err)
		return nil, err
	}
	n.metrics.MemoryReserved(string(use), bytes)
	return func() {
		give()
		n.metrics.MemoryReserved(string(use), -bytes)
	}, nil
}

// reserver is reserve for one use.
func (n *Node) reserver(use protocol.Use) func(bytes int) (func(), error) {
	return func(bytes int) (func(), error) { return n.reserve(use, bytes) }
}

// noteNoMemory says that something was refused because the memory set aside for it is in use; a zero device: by none.
func (n *Node) noteNoMemory(d record.DeviceID, err error) {
	m, ok := errors.AsType[*protocol.MemoryError](err)
	if !ok {
		return
	}
	n.metrics.MemoryRefused(string(m.Use))
	var about []eventlog.Option
	if d != (record.DeviceID{}) {
		about = append(about, eventlog.Peer(idText(d)))
	}
	n.events.Add(eventlog.MemoryRefused{Use: string(m.Use), Bytes: int64(m.Bytes), CapBytes: m.Use.Cap()}, about...)
}

// noteFrameRefused is noteNoMemory for a frame: what other memory was refused was told where it was asked for.
func (n *Node) noteFrameRefused(d record.DeviceID, err error) {
	if m, ok := errors.AsType[*protocol.MemoryError](err); ok && m.Use == protocol.UseFrame {
		n.noteNoMemory(d, err)
	}
}
