package node

import (
	"fmt"
	"runtime"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/member"
	"peerdex/protocol"
	"peerdex/record"
)

// What metrics and events say about who belongs is said in this file.

func (n *Node) noteInvited(inv invite) {
	n.events.Add(eventlog.DeviceInvited{By: n.self.Short(), Method: "secret", Uses: int64(inv.Uses), ValidMS: time.Until(inv.Expires).Milliseconds()})
}

// noteJoined says that a device joined, and what it is called now.
func (n *Node) noteJoined(j protocol.Joiner, name, method string) {
	n.metrics.JoinAnswered("joined")
	if name != j.Name {
		n.noteRenamed(j.Device, j.Name, name)
	}
	n.events.Add(eventlog.DeviceJoined{Name: name, OS: j.OS, By: n.self.Short(), Method: method}, eventlog.Peer(idText(j.Device)))
	n.log.Info("device joined", "peer", j.Device.Short())
}

func (n *Node) noteApproved(j protocol.Joiner) {
	n.events.Add(eventlog.DeviceApproved{Name: j.Name, OS: j.OS, By: n.self.Short()}, eventlog.Peer(idText(j.Device)))
}

func (n *Node) noteMoved(lib feed.LibraryID, method string) {
	n.events.Add(eventlog.DeviceJoined{Name: n.name(), OS: runtime.GOOS, By: "invite", Method: method}, eventlog.Peer(idText(n.self)))
	n.log.Info("joined library", "library", fmt.Sprintf("%x", lib[:8]))
}

func (n *Node) noteJoinRefused(j protocol.Joiner, err error) {
	reason := protocol.CodeOf(err).Label()
	n.metrics.JoinAnswered(reason)
	n.events.Add(eventlog.DeviceJoinRefused{Reason: reason, AddressClass: n.classOf(j.Device)}, eventlog.Peer(idText(j.Device)))
	n.metrics.Error("auth", j.Device.Short(), err.Error(), time.Now())
}

// noteFalseWelcome says that a device was asked into a library by certificates that do not make it a member.
func (n *Node) noteFalseWelcome(inviter record.DeviceID, set member.Set) {
	reason := "no_certificate"
	for _, r := range set.Rejected {
		if r.Cert.Subject == n.self {
			reason = string(r.Reason)
		}
	}
	n.events.Add(eventlog.AuthFailed{Reason: reason, AddressClass: n.classOf(inviter)}, eventlog.Peer(idText(inviter)))
	n.log.Warn("invited by certificates that do not end at the root key", "peer", inviter.Short(), "reason", reason)
}

func (n *Node) noteRenamed(d record.DeviceID, from, to string) {
	n.events.Add(eventlog.DeviceRenamed{From: from, To: to}, eventlog.Peer(idText(d)))
}

// noteDismissed ends what is said of devices that belong no more.
func (n *Node) noteDismissed(all []dismissed) {
	for _, d := range all {
		if d.session != nil {
			n.noteDisconnected(d.session, protocol.CodeNotMember)
		}
		n.metrics.DeviceForgotten(d.device.Short())
	}
}

// noteLeft says that this device is in a library of its own again.
func (n *Node) noteLeft() {
	n.metrics.DeviceDeparted(GoneLeft)
	n.events.Add(eventlog.DeviceLeft{Name: n.name()}, eventlog.Peer(idText(n.self)))
	n.log.Info("left the library")
}

// noteDepartures says who is out of the library since it was looked at before.
func (n *Node) noteDepartures(before, now member.Set) {
	n.mu.Lock()
	root := [32]byte(n.lib.root)
	n.mu.Unlock()
	for _, gone := range now.Gone() {
		if was, out := before.Removed(gone.Device); out && was.Kind == gone.Kind {
			continue
		}
		name, by, reason := n.nameLocked(gone.Device), record.DeviceID(gone.By).Short(), "admin"
		if gone.By == root {
			by, reason = "root", "root"
		}
		about := eventlog.Peer(idText(gone.Device))
		switch gone.Kind {
		case member.Revoke:
			n.metrics.DeviceDeparted(GoneRevoked)
			n.events.Add(eventlog.DeviceRevoked{Name: name, By: by, Reason: reason}, about)
		case member.Forget:
			n.metrics.DeviceDeparted(GoneForgotten)
			n.events.Add(eventlog.DeviceForgotten{Name: name, By: by, Reason: reason}, about)
		case member.Lapse:
			n.metrics.DeviceDeparted(GoneLeft)
			n.events.Add(eventlog.DeviceLeft{Name: name}, about)
		}
		n.log.Info("device is out of the library", "peer", gone.Device.Short(), "how", gone.Kind.String())
	}
}
