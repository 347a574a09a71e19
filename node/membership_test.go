package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/member"
	"peerdex/protocol"
	"peerdex/record"
)

// of returns what r shows of another device.
func (r *running) of(o *running) DeviceView {
	r.tb.Helper()
	all, err := r.Devices(r.tb.Context())
	if err != nil {
		r.tb.Fatal(err)
	}
	for _, v := range all {
		if v.ID == idText(o.self) {
			return v
		}
	}
	return DeviceView{}
}

func (r *running) role(o *running) member.Role {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set.Role(o.self)
}

// library returns the library r is in, and whether it has its root key.
func (r *running) library() (id feed.LibraryID, root bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lib.id, r.root != nil
}

func (r *running) remove(o *running, forget bool) RemoveView {
	r.tb.Helper()
	v, err := r.Remove(r.tb.Context(), RemoveRequest{Device: idText(o.self), Forget: forget})
	if err != nil {
		r.tb.Fatal(err)
	}
	return v
}

// once fails unless exactly one event of a type about a device was written.
func (r *running) once(d eventlog.Detail, about *running) {
	r.tb.Helper()
	r.awaitEvent(d)
	n := 0
	for _, e := range r.logged(d.Type()) {
		if e.PeerDeviceID == idText(about.self) {
			n++
		}
	}
	if n != 1 {
		r.tb.Errorf("%s has %d events %s about %s", r.name(), n, d.Type(), about.name())
	}
}

// wantCode fails unless err is a problem with that code.
func wantCode(tb testing.TB, what string, err error, code Code) {
	tb.Helper()
	var p *Problem
	if !errors.As(err, &p) || p.Code != code || p.Message == "" || p.Cause == "" || p.Try == "" {
		tb.Errorf("%s: %v, want %s in three parts", what, err, code)
	}
}

// three starts three devices, each with a folder of one file: b and c were let in by a, by b where so said.
func three(tb testing.TB, cByB bool) (a, b, c *running, folders [3]string, locs [3]record.LocationID) {
	tb.Helper()
	var all [3]*running
	for i, name := range []string{"a", "b", "c"} {
		folders[i] = tb.TempDir()
		touch(tb, folders[i], "of "+name)
		all[i] = start(tb, filepath.Join(tb.TempDir(), name), name)
		locs[i] = all[i].index(folders[i])
	}
	a, b, c = all[0], all[1], all[2]
	b.joins(a)
	if cByB {
		c.joins(b)
	} else {
		c.joins(a)
	}
	await(tb, "three in step", func() bool {
		a.mu.Lock()
		all := len(a.follow) == 6
		a.mu.Unlock()
		return all && connected(a, c)() && connected(c, a)() && connected(b, c)() && inStep(a, b, c)()
	})
	return a, b, c, folders, locs
}

// A device is revoked on one member: that and the others turn it away at once, nothing of what it does later
// is heard, and what it wrote before stays, everywhere. Nobody who restarts is told again.
func TestRevoke(t *testing.T) {
	a, b, c, folders, locs := three(t, false)
	v := a.remove(b, false)
	if len(v.Told) != 1 || v.Told[0] != "c" || len(v.Later) != 0 || v.Device.Name != "b" {
		t.Errorf("told %v, later %v, %+v", v.Told, v.Later, v.Device)
	}
	for _, n := range []*running{a, c} {
		await(t, "the session with b ends", func() bool { return n.role(b) == 0 && !n.of(b).Online })
		n.once(eventlog.DeviceRevoked{}, b)
		if l, err := n.List(t.Context(), ListQuery{Device: idText(b.self), Path: folders[1]}); err != nil || l.Gone != GoneRevoked || len(l.Entries) != 1 || l.Entries[0].Gone != GoneRevoked {
			t.Errorf("%s lists %+v, %v", n.name(), l, err)
		}
		if got := n.of(b); got.Gone != GoneRevoked || got.GoneBy != "root" || got.Name != "b" || got.Files != 1 || got.Role != "" || got.Seen.IsZero() || got.Added.IsZero() {
			t.Errorf("%s shows %+v", n.name(), got)
		}
		for _, id := range []protocol.ID{protocol.SessionProtocol, protocol.StateBatchProtocol, protocol.BackfillProtocol, protocol.PairProtocol} {
			if err := n.gate(id)(b.self); err == nil {
				t.Errorf("%s lets b open %s", n.name(), id)
			}
		}
		if _, err := n.membership(b.self); !errors.Is(err, protocol.CodeNotMember) {
			t.Errorf("%s: %v", n.name(), err)
		}
	}
	touch(t, folders[1], "too late")
	touch(t, folders[0], "later")
	await(t, "c hears of a's file", func() bool { return len(c.names(a.self, locs[0])) == 2 })
	await(t, "b finds its own", func() bool { return len(b.names(b.self, locs[1])) == 2 })
	for _, n := range []*running{a, c} {
		if got := n.names(b.self, locs[1]); len(got) != 1 {
			t.Errorf("%s has of b %v", n.name(), got)
		}
	}
	if got := b.names(a.self, locs[0]); len(got) != 1 {
		t.Errorf("b has of a %v", got)
	}
	_, err := a.Remove(t.Context(), RemoveRequest{Device: idText(b.self)})
	wantCode(t, "revoked twice", err, CodeConflict)
	_, err = a.Remove(t.Context(), RemoveRequest{Device: idText(a.self)})
	wantCode(t, "revoking oneself", err, CodeConflict)
	err = b.Join(t.Context(), a.invite(1), func(JoinProgress) {})
	wantCode(t, "joining again", err, CodeConflict) // b believes to be a member still

	home := string(a.home)
	a.stop()
	a = start(t, home, "a")
	await(t, "in step again", func() bool { return connected(a, c)() && inStep(a, c)() })
	a.once(eventlog.DeviceRevoked{}, b)
	if got := a.of(b); got.Gone != GoneRevoked || got.Files != 1 || got.Seen.IsZero() || got.Added.IsZero() {
		t.Errorf("after a restart: %+v", got)
	}

	// b gives up and starts afresh; its key never returns.
	if v, err := b.Leave(t.Context(), false); err != nil || len(v.Told) != 0 {
		t.Errorf("leaving without a word: %+v, %v", v, err)
	}
	err = b.Join(t.Context(), a.invite(1), func(JoinProgress) {})
	wantCode(t, "joining again", err, CodeNotAllowed)
	if a.role(b) != 0 {
		t.Error("a revoked key is back")
	}
}

// An admin is revoked by the root: whom it let in stays, by the root's word, and whom it revoked stays out.
func TestRevokedAdminsWordsAreSaidAgain(t *testing.T) {
	a, b, c, _, _ := three(t, true)
	d := start(t, filepath.Join(t.TempDir(), "d"), "d")
	d.joins(b)
	await(t, "a hears of d", func() bool { return a.role(d) == member.Member && connected(a, b)() })
	b.remove(d, false)
	await(t, "a hears that d is out", func() bool { return a.role(d) == 0 })
	_, err := b.Remove(t.Context(), RemoveRequest{Device: idText(a.self)})
	wantCode(t, "an admin by an admin", err, CodeNotAllowed)
	_, err = c.Remove(t.Context(), RemoveRequest{Device: idText(b.self)})
	wantCode(t, "by a member", err, CodeNotAllowed)
	if _, err = c.Invite(t.Context(), InviteRequest{}); err == nil {
		t.Error("a member invites")
	}
	dry, err := a.Remove(t.Context(), RemoveRequest{Device: idText(b.self), DryRun: true})
	if err != nil || len(dry.Kept) != 1 || dry.Kept[0] != "c" || a.role(b) == 0 {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	v := a.remove(b, false)
	if len(v.Kept) != 1 || v.Kept[0] != "c" {
		t.Errorf("kept %v", v.Kept)
	}
	await(t, "c hears of it", func() bool { return c.role(b) == 0 })
	for _, n := range []*running{a, c} {
		if n.role(c) != member.Member || n.of(d).Gone != GoneRevoked || n.of(b).Gone != GoneRevoked {
			t.Errorf("%s: c is %v, d %q, b %q", n.name(), n.role(c), n.of(d).Gone, n.of(b).Gone)
		}
	}
	await(t, "a and c are in step", func() bool { return connected(a, c)() && inStep(a, c)() })
}

// A device leaves: the others show it as gone and keep what it wrote; it has its own folders in a library of
// its own, and may come back.
func TestLeave(t *testing.T) {
	a, b, c, folders, locs := three(t, false)
	old, _ := b.library()
	dry, err := b.Leave(t.Context(), true)
	if now, _ := b.library(); err != nil || dry.To != "" || now != old || b.role(b) == 0 {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	v, err := b.Leave(t.Context(), false)
	if err != nil || v.To == v.From || len(v.Told) == 0 || v.RootKey != "" {
		t.Fatalf("%+v, %v", v, err)
	}
	for _, n := range []*running{a, c} {
		await(t, "b is gone", func() bool { return n.of(b).Gone == GoneLeft })
		if v := n.of(b); v.Seen.IsZero() || v.Added.IsZero() || v.GoneSince.Before(v.Added) {
			t.Errorf("%s says b was added %v and last seen %v", n.name(), v.Added, v.Seen)
		}
		_, err := n.Pause(t.Context(), idText(b.self), 0)
		wantCode(t, "pausing a device that left", err, CodeUnknownDevice)
		if p := new(Problem); !errors.As(err, &p) || !strings.HasPrefix(p.Cause, "b is") {
			t.Errorf("it is called otherwise: %v", err)
		}
		n.once(eventlog.DeviceLeft{}, b)
		if got := n.names(b.self, locs[1]); len(got) != 1 {
			t.Errorf("%s has of b %v", n.name(), got)
		}
	}
	b.once(eventlog.DeviceLeft{}, b)
	if all, err := b.Devices(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("b shows %+v, %v", all, err)
	}
	if now, root := b.library(); now == old || !root || b.role(b) != member.Admin {
		t.Errorf("b is in %x as %v", now[:4], b.role(b))
	}
	if got := b.names(b.self, locs[1]); len(got) != 1 || len(b.names(a.self, locs[0])) != 0 {
		t.Errorf("b has its own %v, of a %v", got, b.names(a.self, locs[0]))
	}
	touch(t, folders[1], "alone")
	await(t, "b goes on indexing", func() bool { return len(b.names(b.self, locs[1])) == 2 })
	_, err = b.Leave(t.Context(), false)
	wantCode(t, "leaving one's own library", err, CodeConflict)

	home := string(b.home)
	b.stop()
	b = start(t, home, "b")
	if now, _ := b.library(); now == old || b.role(b) != member.Admin {
		t.Error("after a restart b is back")
	}
	b.joins(a)
	await(t, "b is back", func() bool {
		return a.role(b) == member.Admin && c.role(b) == member.Admin && len(c.names(b.self, locs[1])) == 2 && inStep(a, b, c)()
	})
	a.once(eventlog.DeviceLeft{}, b)
}

// The device that made the library leaves: its root key is kept beside, and whoever is left behind as the
// last admin may not go.
func TestLeaveAsAdmin(t *testing.T) {
	a, b, c, _, _ := three(t, true)
	_, err := b.Leave(t.Context(), true)
	if err != nil { // a is an admin
		t.Errorf("an admin of two: %v", err)
	}
	v, err := a.Leave(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(v.RootKey); err != nil || len(strings.TrimSpace(string(text))) != 64 {
		t.Errorf("root key %q: %v", v.RootKey, err)
	}
	await(t, "b and c hear", func() bool { return b.of(a).Gone == GoneLeft && c.of(a).Gone == GoneLeft })
	_, err = b.Leave(t.Context(), false)
	wantCode(t, "the last admin", err, CodeConflict)
	if p := new(Problem); !errors.As(err, &p) || !strings.Contains(p.Cause, "1 other device stays") || !strings.Contains(p.Try, "made the library join again") {
		t.Errorf("the last admin, without the root key, is told %v, %q", err, p.Try)
	}
	if _, err := c.Leave(t.Context(), true); err != nil {
		t.Errorf("a member: %v", err)
	}
	if b.role(c) != member.Member {
		t.Error("c does not belong any more")
	}

	// It comes back: with its root key it is what it was.
	a.joins(b)
	await(t, "a is an admin again everywhere", func() bool {
		return a.role(a) == member.Admin && b.role(a) == member.Admin && c.role(a) == member.Admin && inStep(a, b, c)()
	})
	if _, err := os.Stat(v.RootKey); !os.IsNotExist(err) {
		t.Errorf("the root key lies aside still: %v", err)
	}
	home := string(a.home)
	a.stop()
	a = start(t, home, "a")
	if _, root := a.library(); !root || a.role(a) != member.Admin {
		t.Error("after a restart the root key is gone")
	}
	a.remove(b, false)
	await(t, "c hears that the root put b out", func() bool { return c.role(b) == 0 && c.role(c) == member.Member })
	_, err = a.Leave(t.Context(), false)
	wantCode(t, "the last admin", err, CodeConflict)
	if p := new(Problem); !errors.As(err, &p) || !strings.Contains(p.Try, "join again from here: it becomes an admin") {
		t.Errorf("the last admin, with the root key, is told %q", p.Try)
	}
}

// An admin leaves, and comes back by the invite of another admin: it is a member.
func TestAdminComesBackAsMember(t *testing.T) {
	a, b, c, _, _ := three(t, false)
	if _, err := b.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	await(t, "all hear", func() bool { return a.role(b) == 0 && c.role(b) == 0 })
	b.joins(c)
	await(t, "b is a member", func() bool {
		return a.role(b) == member.Member && c.role(b) == member.Member && b.role(b) == member.Member
	})
	_, err := b.Invite(t.Context(), InviteRequest{})
	wantCode(t, "a former admin invites", err, CodeNotAllowed)
	_, err = c.Remove(t.Context(), RemoveRequest{Device: idText(b.self)})
	wantCode(t, "a former admin, by an admin", err, CodeNotAllowed)
}

// The process dies when the others know that it leaves and its own library is not there yet: it is made at
// the next start.
func TestLeaveIsFinished(t *testing.T) {
	a, b, _, _, _ := three(t, false)
	old, _ := b.library()
	lapse := member.Cert{Library: old, Subject: b.self, Kind: member.Lapse, Stamp: b.clock.Last() + 1}
	b.refreshing.Lock()
	if err := b.store.SetRegisters(lapse.Sign(b.key).Register()); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Sync(); err != nil {
		t.Fatal(err)
	}
	await(t, "a hears", func() bool { return a.of(b).Gone == GoneLeft })
	home := string(b.home)
	b.refreshing.Unlock()
	b.stop()
	b = start(t, home, "b")
	if now, root := b.library(); now == old || b.role(b) != member.Admin || !root {
		t.Errorf("b is in %x as %v", now[:4], b.role(b))
	}
}

// A device is forgotten: what it wrote is gone everywhere, also where the news arrives later.
func TestForget(t *testing.T) {
	a, b, c, _, locs := three(t, false)
	home := string(c.home)
	c.stop()
	a.remove(b, false)
	v := a.remove(b, true)
	if len(v.Told) != 0 || len(v.Later) != 1 || v.Later[0] != "c" {
		t.Errorf("told %v, later %v", v.Told, v.Later)
	}
	a.once(eventlog.DeviceForgotten{}, b)
	c = start(t, home, "c")
	for _, n := range []*running{a, c} {
		await(t, "b is forgotten", func() bool {
			_, own := n.store.State(feed.ID{Device: b.self})
			return n.of(b).ID == "" && !own && len(n.names(b.self, locs[1])) == 0
		})
	}
	c.once(eventlog.DeviceForgotten{}, b)
	_, err := a.Remove(t.Context(), RemoveRequest{Device: idText(b.self), Forget: true})
	wantCode(t, "forgotten twice", err, CodeUnknownDevice)
	await(t, "in step", func() bool { return connected(a, c)() && inStep(a, c)() })
}

// c was invited while b was away, and b's list of members is behind (F6). c cannot reach b on its own word;
// as soon as a member that knows c has told b, in its hello, they meet.
func TestMemberListBehind(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	home := filepath.Join(t.TempDir(), "b")
	b := start(t, home, "b")
	b.joins(a)
	await(t, "a and b in step", func() bool { return connected(a, b)() && inStep(a, b)() })
	b.stop()
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	c.joins(a)
	aHome := string(a.home)
	a.stop()
	b = start(t, home, "b")
	await(t, "c tries b in vain", func() bool {
		v := c.of(b)
		return v.Failures > 0
	})
	if b.role(c) != 0 || len(b.logged(eventlog.PeerConnected{}.Type())) > 1 {
		t.Error("b let a device in that it does not know")
	}
	a = start(t, aHome, "a")
	await(t, "b and c meet", func() bool { return connected(b, c)() && connected(a, b)() && inStep(a, b, c)() })
}

// asks joins without a secret: it returns when the digits are shown, and what Join returns later.
func (r *running) asks(o *running) (digits string, joined chan error) {
	r.tb.Helper()
	addrs := []string{}
	for _, a := range protocol.FullAddrs(o.host) {
		addrs = append(addrs, a.String())
	}
	ctx, cancel := context.WithTimeout(r.tb.Context(), patience)
	r.tb.Cleanup(cancel)
	shown := make(chan string, 1)
	joined = make(chan error, 1)
	go func() {
		joined <- r.Join(ctx, JoinRequest{Addrs: addrs}, func(p JoinProgress) {
			if p.Stage == "waiting" {
				shown <- p.Digits
				if p.Approve != "peer devices approve "+p.Digits {
					r.tb.Errorf("%s is told %q", r.name(), p.Approve)
				}
			}
		})
	}()
	select {
	case digits = <-shown:
	case err := <-joined:
		joined <- err
	}
	return digits, joined
}

// Without a secret a person decides, by digits that both sides show.
func TestApproval(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	b := start(t, filepath.Join(t.TempDir(), "b"), "nas")
	_, joined := b.asks(a)
	wantCode(t, "while nobody invites", <-joined, CodeInviteWrong)
	a.invite(1)

	digits, joined := b.asks(a)
	_, inviteErr := b.Invite(t.Context(), InviteRequest{})
	wantCode(t, "an invite of a device that joins", inviteErr, CodeConflict)
	await(t, "a shows the request", func() bool {
		all, err := a.Requests(t.Context())
		return err == nil && len(all) == 1 && all[0].Digits == digits && all[0].Name == "nas" && all[0].Approve == "peer devices approve "+digits
	})
	if st, err := a.Status(t.Context()); err != nil || len(st.Requests) != 1 || len(st.Attention) != 1 || !strings.Contains(st.Attention[0].Text, digits) {
		t.Errorf("%+v, %v", st.Attention, err)
	}
	_, err := a.Approve(t.Context(), wrongDigits(digits), false)
	wantCode(t, "other digits", err, CodeUnknownDevice)
	if _, err := a.Approve(t.Context(), digits, true); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "refused", <-joined, CodeNotAllowed)
	if _, root := b.library(); a.role(b) != 0 || !root {
		t.Error("b is in")
	}

	var more []*running
	for range maxRequests {
		o := start(t, filepath.Join(t.TempDir(), "o"), "nas")
		if d, joined := o.asks(a); d == "" {
			t.Fatal(<-joined)
		}
		more = append(more, o)
	}
	await(t, "all ask", func() bool { all, err := a.Requests(t.Context()); return err == nil && len(all) == maxRequests })
	_, joined = b.asks(a)
	wantCode(t, "too many", <-joined, CodeConflict)
	_, err = a.Approve(t.Context(), "nas", false)
	wantCode(t, "by a name that all have", err, CodeAmbiguous)
	for _, o := range more {
		o.stop()
	}
	await(t, "who went away is asked about no longer", func() bool { all, err := a.Requests(t.Context()); return err == nil && len(all) == 0 })

	digits, joined = b.asks(a)
	await(t, "it asks again", func() bool { all, err := a.Requests(t.Context()); return err == nil && len(all) == 1 })
	if _, err := a.Approve(t.Context(), digits[:3]+" "+digits[3:], false); err != nil {
		t.Fatal(err)
	}
	if err := <-joined; err != nil {
		t.Fatal(err)
	}
	await(t, "in step", func() bool { return a.role(b) == member.Admin && connected(a, b)() && inStep(a, b)() })
	a.once(eventlog.DeviceApproved{}, b)
	a.once(eventlog.DeviceJoined{}, b)
}

func wrongDigits(d string) string {
	if d[0] == '9' {
		return "0" + d[1:]
	}
	return string(d[0]+1) + d[1:]
}

// The pairing window closes soon after the last invite is used up or expires.
func TestWindowCloses(t *testing.T) {
	n := opened(t, "a")
	now := time.Now()
	secret, _, err := n.newInvite(time.Hour, 1, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.reviewInvites(now.Add(inviteGrace)); err != nil || !n.inviting() {
		t.Error("closed while an invite is open")
	}
	if _, err := n.redeem(secret.Invite(), knows(secret), joiner(1)); err != nil {
		t.Fatal(err)
	}
	if next, err := n.reviewInvites(time.Now()); err != nil || next > inviteGrace || !n.inviting() {
		t.Errorf("whoever comes second is not told why: %v, %v", next, err)
	}
	if _, err := n.reviewInvites(time.Now().Add(inviteGrace)); err != nil || n.inviting() {
		t.Errorf("open after the last use: %v", err)
	}
	if err := n.gate(protocol.PairProtocol)(record.DeviceID{9}); !errors.Is(err, protocol.CodeNotMember) {
		t.Errorf("a stranger hears %v", err)
	}
}

// Devices of one name join, by an invite and by approval: each gets a name of its own, which it writes itself
// and keeps, and all say so.
func TestNameTaken(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "a"), "nas")
	home := filepath.Join(t.TempDir(), "b")
	b := start(t, home, "NAS")
	var last JoinProgress
	join := a.invite(1)
	if err := b.Join(t.Context(), join, func(p JoinProgress) {
		if p.Stage == "joined" {
			last = p
		}
	}); err != nil {
		t.Fatal(err)
	}
	if last.Device != "nas" || last.Renamed == nil || *last.Renamed != (RenameView{"NAS", "NAS-2"}) {
		t.Errorf("b is told %+v", last)
	}
	c := start(t, filepath.Join(t.TempDir(), "c"), "nas")
	a.invite(1)
	digits, joined := c.asks(a)
	await(t, "c asks", func() bool { all, err := a.Requests(t.Context()); return err == nil && len(all) == 1 })
	if v, err := a.Approve(t.Context(), digits, false); err != nil || v.Name != "nas" || v.As != "nas-3" {
		t.Errorf("approved %+v, %v", v, err)
	}
	if err := <-joined; err != nil {
		t.Fatal(err)
	}
	for _, n := range []*running{a, b, c} {
		await(t, "all have names", func() bool { return n.of(a).Name == "nas" && n.of(b).Name == "NAS-2" && n.of(c).Name == "nas-3" })
	}
	a.once(eventlog.DeviceRenamed{}, b)
	b.once(eventlog.DeviceRenamed{}, b)
	a.once(eventlog.DeviceRenamed{}, c)
	c.once(eventlog.DeviceRenamed{}, c)
	b.stop()
	b = start(t, home, "NAS") // with the same command line
	if b.name() != "NAS-2" {
		t.Errorf("after a restart b is called %s", b.name())
	}
	b.stop()
	if b = start(t, home, "Nas-3"); b.name() != "Nas-3-2" {
		t.Errorf("started with a name taken b is called %s", b.name())
	}
}

// Host names become names that a device can have, and what a welcome says is taken over as a number alone.
func TestDeviceNames(t *testing.T) {
	for host, want := range map[string]string{
		"laptop": "laptop", "": "device", " x ": "x", "a/b:c,d": "a-b-c-d", "\xff\n": "device", "m\u202ex": "m-x",
		strings.Repeat("é", 200): strings.Repeat("é", 127),
	} {
		if got := cleanName(host); got != want || nameFault(got) != "" {
			t.Errorf("%q becomes %q, want %q", host, got, want)
		}
	}
	if !numbered("nas-12", "nas") || numbered("nas", "nas") || numbered("nas-", "nas") || numbered("nas-2b", "nas") || numbered("root-2", "nas") {
		t.Error("a device takes a name that is not its own with a number")
	}
	long := strings.Repeat("n", protocol.MaxText)
	if got := freeName(long, func(string) bool { return true }); got != long {
		t.Errorf("a long name becomes %q", got)
	}
	if FoldName("e\u0301COLE") != FoldName("\u00c9cole") || FoldName("\xff") == FoldName("\xfe") {
		t.Error("names compare wrongly")
	}
}

// A device names itself, with a name that no other has.
func TestRename(t *testing.T) {
	a, b, _, _, _ := three(t, false)
	for _, taken := range []string{"a", "A", a.self.Short(), strings.ToLower(a.self.Short()[:4]), idText(b.self)[:4], idText(a.self)} {
		_, err := b.Rename(t.Context(), taken)
		wantCode(t, "the name "+taken, err, CodeConflict)
	}
	for _, bad := range []string{"", "tab\there", "\xff", strings.Repeat("n", 256), "x\u202ey", " nas", "nas ", "n,s", "n:s", "n/s", `n"s`} {
		_, err := b.Rename(t.Context(), bad)
		wantCode(t, "a bad name", err, CodeUsage)
		if bad != "" {
			_, err = Open(Config{Home: filepath.Join(t.TempDir(), "new"), Name: bad})
			wantCode(t, "a bad name at the start", err, CodeUsage)
		}
	}
	v, err := b.Rename(t.Context(), "Büro 2")
	if err != nil || v != (RenameView{"b", "Büro 2"}) {
		t.Fatalf("%+v, %v", v, err)
	}
	await(t, "a hears of it", func() bool { return a.of(b).Name == "Büro 2" })
	a.once(eventlog.DeviceRenamed{}, b)
	b.once(eventlog.DeviceRenamed{}, b)
	if _, err := b.Rename(t.Context(), "Büro 2"); err != nil {
		t.Errorf("to its own name: %v", err)
	}
	b.once(eventlog.DeviceRenamed{}, b)
}

// A member whose home holds a copy of the root key may put out any other, an admin too.
func TestCopyOfTheRootKey(t *testing.T) {
	a, b, c, _, _ := three(t, false)
	text, err := os.ReadFile(a.home.path("root.key"))
	if err != nil {
		t.Fatal(err)
	}
	home := string(c.home)
	c.stop()
	if err := os.WriteFile(filepath.Join(home, "root.key"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	c = start(t, home, "c")
	await(t, "c is back", func() bool { return connected(c, a)() && connected(c, b)() })
	c.remove(a, false)
	await(t, "the first device is out", func() bool { return b.of(a).Gone == GoneRevoked })
	if b.role(b) != member.Admin || b.role(c) != member.Admin {
		t.Error("the others went with it")
	}
}
