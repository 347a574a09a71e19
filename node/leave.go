package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	"peerdex/internal/english"
	"peerdex/member"
	"peerdex/record"
)

// Leave takes this device out of its library into a fresh one of its own, with its folders, and returns when
// that is durable. A member that is connected is told first, so that the others hear of it too.
func (n *Node) Leave(ctx context.Context, dryRun bool) (LeaveView, error) {
	if err := n.awaitAsked(ctx); err != nil {
		return LeaveView{}, err
	}
	n.refreshing.Lock() // or this device would no longer belong before the others have heard
	defer n.refreshing.Unlock()
	n.mu.Lock()
	set, lib, root := n.set, n.lib, n.root
	v := LeaveView{DryRun: dryRun, From: hex.EncodeToString(lib.id[:]), Told: []string{}, Later: n.otherNames(n.self)}
	n.mu.Unlock()
	if p := n.mayLeave(set, root != nil); p != nil {
		return v, p
	}
	if root != nil {
		v.RootKey = n.home.path(asideName(lib))
	}
	if dryRun {
		return v, nil
	}
	if set.Role(n.self) != 0 {
		stamp, err := n.clock.Now()
		if err != nil {
			return v, err
		}
		lapse := member.Cert{Library: lib.id, Subject: n.self, Kind: member.Lapse, Stamp: max(stamp, set.Added(n.self)+1)}
		if err := n.store.SetRegisters(lapse.Sign(n.key).Register()); err != nil {
			return v, spaceProblem(fmt.Errorf("write leaving: %w", err))
		}
		if err := n.store.Sync(); err != nil {
			return v, err
		}
		v.Told, v.Later = n.spread(ctx, tellWithin, true)
	}
	if err := n.startAfresh(); err != nil {
		return v, err
	}
	if err := n.introduce(); err != nil {
		return v, err
	}
	n.noteLeft()
	n.mu.Lock()
	v.To = hex.EncodeToString(n.lib.id[:])
	n.mu.Unlock()
	return v, n.reread()
}

// mayLeave says why this device cannot leave its library.
func (n *Node) mayLeave(set member.Set, hasRoot bool) *Problem {
	others := slices.DeleteFunc(set.Members(), func(d record.DeviceID) bool { return d == n.self })
	admins := slices.ContainsFunc(others, func(d record.DeviceID) bool { return set.Role(d) == member.Admin })
	switch {
	case n.store.Frozen():
		return &Problem{Code: CodeConflict, Message: "cannot leave: this device's identity is in use twice",
			Cause: "nothing it says is recorded any more", Try: "start with another --home, and stop the copy"}
	case set.Role(n.self) == 0: // put out by others
		return nil
	case len(others) == 0:
		return &Problem{Code: CodeConflict, Message: "cannot leave: this device is alone in its library",
			Cause: "there is nobody to leave", Try: "peer join LINE moves it into another library"}
	case set.Role(n.self) == member.Admin && !admins:
		return &Problem{Code: CodeConflict, Message: "cannot leave: this device is the last admin of the library",
			Cause: stayBehind(len(others)), Try: lastAdminAdvice(set, others, hasRoot)}
	}
	return nil
}

// stayBehind says why a library needs an admin.
func stayBehind(others int) string {
	if others == 1 {
		return "1 other device stays, and could neither let a device in nor put one out"
	}
	return english.Plural(others, "other device stays, and it", "other devices stay, and none of them") + " could let a device in or put one out"
}

// lastAdminAdvice says how the last admin can leave after all. Only the root key makes another admin.
func lastAdminAdvice(set member.Set, others []record.DeviceID, hasRoot bool) string {
	revoke := "`peer devices revoke` the others first, or "
	switch {
	case hasRoot:
		return revoke + "let one of them `peer leave` and join again from here: it becomes an admin"
	case slices.ContainsFunc(others, set.RootOnly): // which this device cannot put out
		revoke = ""
	}
	return revoke + "let the device that made the library join again from here: its root key makes it an admin"
}

// startAfresh makes a library of its own for this device. n.refreshing is held.
func (n *Node) startAfresh() error {
	n.mu.Lock()
	old, hadRoot := n.lib, n.root != nil
	n.mu.Unlock()
	if hadRoot {
		if err := n.home.rename("root.key", asideName(old)); err != nil {
			return err
		}
	}
	root, err := n.home.key("root.key", true)
	if err != nil {
		return err
	}
	return n.enter(found(n.self, root))
}
