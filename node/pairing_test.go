package node

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"peerdex/eventlog"
	"peerdex/member"
	"peerdex/protocol"
	"peerdex/record"
)

func opened(tb testing.TB, name string) *Node {
	tb.Helper()
	n, err := Open(Config{Home: filepath.Join(tb.TempDir(), name), Name: name, Listen: loopback()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.Close(); err != nil {
			tb.Error(err)
		}
	})
	return n
}

func knows(secret protocol.Secret) func(protocol.Secret) bool {
	return func(s protocol.Secret) bool { return s == secret }
}

func wrong(protocol.Secret) bool { return false }

func joiner(n byte) protocol.Joiner {
	return protocol.Joiner{Device: record.DeviceID{n}, Name: "joiner"}
}

// An invite for one device, redeemed by eight at once: exactly one is in, the others hear that it was used.
func TestInviteIsUsedOnce(t *testing.T) {
	n := opened(t, "a")
	secret, _, err := n.newInvite(time.Minute, 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	const crowd = 8
	results := make([]error, crowd)
	var all sync.WaitGroup
	for i := range crowd {
		all.Go(func() { _, results[i] = n.redeem(secret.Invite(), knows(secret), joiner(byte(i+1))) })
	}
	all.Wait()
	winner := -1
	for i, err := range results {
		switch {
		case err == nil && winner < 0:
			winner = i
		case err == nil:
			t.Errorf("%d and %d are both in", winner, i)
		case !errors.Is(err, protocol.ErrInviteUsed):
			t.Errorf("%d hears %v", i, err)
		}
	}
	if winner < 0 {
		t.Fatal("nobody is in")
	}
	for i := range crowd {
		n.mu.Lock()
		role := n.set.Role(record.DeviceID{byte(i + 1)})
		n.mu.Unlock()
		if (role != 0) != (i == winner) {
			t.Errorf("%d has role %v", i, role)
		}
	}
	// The welcome was lost on the way: the same device may ask again, nobody else.
	w, err := n.redeem(secret.Invite(), knows(secret), joiner(byte(winner+1)))
	if err != nil {
		t.Fatalf("asking again: %v", err)
	}
	var certs []member.Cert
	for _, raw := range w.Certs {
		c, err := member.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, c)
	}
	if set := member.Evaluate(w.RootKey[:], certs); set.Role(record.DeviceID{byte(winner + 1)}) == 0 || len(set.Members()) != 2 {
		t.Errorf("welcomed into %v", set.Members())
	}
	if _, err := n.redeem(secret.Invite(), knows(secret), joiner(99)); !errors.Is(err, protocol.ErrInviteUsed) {
		t.Errorf("somebody else hears %v", err)
	}
}

// Three wrong secrets and the invite is worth nothing, to whoever has the right one as well.
func TestInviteDiesOfGuesses(t *testing.T) {
	n := opened(t, "a")
	secret, _, err := n.newInvite(time.Minute, 5, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.redeem(secret.Invite(), knows(secret), joiner(1)); err != nil {
		t.Fatal(err)
	}
	for range inviteTries {
		if _, err := n.redeem(secret.Invite(), wrong, joiner(2)); !errors.Is(err, protocol.ErrInviteSecret) {
			t.Fatalf("a guess gives %v", err)
		}
	}
	for _, j := range []byte{1, 3} {
		if _, err := n.redeem(secret.Invite(), knows(secret), joiner(j)); !errors.Is(err, protocol.ErrInviteUnknown) {
			t.Errorf("after the guesses %d hears %v", j, err)
		}
	}
	other := protocol.NewSecret()
	if _, err := n.redeem(other.Invite(), knows(other), joiner(2)); !errors.Is(err, protocol.ErrInviteUnknown) {
		t.Errorf("an invite nobody made gives %v", err)
	}
}

// Past its time an invite says so, and is forgotten later; the window for strangers closes with the last.
func TestInviteExpires(t *testing.T) {
	n := opened(t, "a")
	now := time.Now()
	secret, inv, err := n.newInvite(time.Minute, 1, now)
	if err != nil {
		t.Fatal(err)
	}
	if !n.inviting() {
		t.Error("the window is closed")
	}
	inv.Expires = now.Add(-time.Second)
	b, err := json.Marshal(inv)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.store.SetLocal(inviteName(secret.Invite()), b); err != nil {
		t.Fatal(err)
	}
	if _, err := n.redeem(secret.Invite(), knows(secret), joiner(1)); !errors.Is(err, protocol.ErrInviteExpired) {
		t.Errorf("an expired invite gives %v", err)
	}
	if next, err := n.reviewInvites(now); err != nil || !n.inviting() || next > inviteTTL {
		t.Errorf("the window closed before it could say so: %v, %v", next, err)
	}
	if _, err := n.reviewInvites(now.Add(inviteTTL)); err != nil || n.inviting() {
		t.Errorf("the window is open still, %v", err)
	}
	if _, err := n.redeem(secret.Invite(), knows(secret), joiner(1)); !errors.Is(err, protocol.ErrInviteUnknown) {
		t.Errorf("a forgotten invite gives %v", err)
	}
}

// Two devices use one line at the same time, over the network: one joins, the other is told why not, and
// stays in its own library.
func TestTwoDevicesOneInvite(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	req := a.invite(1)
	var joiners [2]*running
	var results [2]error
	for i := range joiners {
		joiners[i] = start(t, filepath.Join(t.TempDir(), "b"), "b")
	}
	var all sync.WaitGroup
	for i, j := range joiners {
		all.Go(func() { results[i] = j.Join(t.Context(), req, func(JoinProgress) {}) })
	}
	all.Wait()
	in := 0
	for i, err := range results {
		if err == nil {
			in++
			continue
		}
		var p *Problem
		if !errors.As(err, &p) || p.Code != CodeInviteUsed {
			t.Errorf("the loser hears %v", err)
		}
		if joiners[i].lib.id == a.lib.id || joiners[i].root == nil {
			t.Error("the loser left its own library")
		}
	}
	if in != 1 {
		t.Fatalf("%d are in", in)
	}
	a.awaitEvent(&eventlog.DeviceJoined{})
	a.awaitEvent(&eventlog.DeviceJoinRefused{})
}

// A peer that breaks the protocol three times is left alone for ten minutes: not dialed, not let in on any
// stream, whoever asks; then it is a peer as before.
func TestShunned(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	b := start(t, filepath.Join(t.TempDir(), "b"), "b")
	b.joins(a)
	await(t, "a session", connected(a, b))
	fault := &protocol.Error{Code: protocol.CodeMalformed, Detail: "rubbish"}
	for range maxFaults - 1 {
		a.accuse(b.self, fault, true)
	}
	if err := a.gate(protocol.BackfillProtocol)(b.self); err != nil {
		t.Fatalf("shunned too early: %v", err)
	}
	a.accuse(b.self, fault, true)
	for _, id := range []protocol.ID{protocol.SessionProtocol, protocol.StateBatchProtocol, protocol.BackfillProtocol} {
		if err := a.gate(id)(b.self); !errors.Is(err, protocol.CodeBusy) {
			t.Errorf("%s is let in: %v", id, err)
		}
	}
	await(t, "the session ends", func() bool { return !connected(a, b)() })
	a.mu.Lock()
	p := a.peers[b.self]
	end, state := p.shunned, p.link.state
	p.link.kick() // somebody asks
	a.mu.Unlock()
	if d := time.Until(end); d > shunFor || d < shunFor-time.Minute {
		t.Errorf("shunned for %v", d)
	}
	if due, next := a.duePeers(time.Now()); len(due) != 0 || next > lastRetry || state == LinkConnecting {
		t.Errorf("dialed all the same: %v, next in %v, %s", due, next, state)
	}
	if all := a.logged(eventlog.ChangeRejected{}.Type()); len(all) == 0 {
		t.Error("no event change_rejected")
	}
	a.mu.Lock()
	p.shunned = time.Time{}
	p.link.kick()
	a.mu.Unlock()
	a.dialSoon()
	await(t, "a session again", connected(a, b))
}

// While paused nothing is pulled, pushed or served; afterwards everything comes.
func TestPause(t *testing.T) {
	a, b, _, folder, loc := pair(t)
	self := a.self
	if _, err := b.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	if s, err := b.SyncStatus(t.Context()); err != nil || s.State != StatePaused {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := b.admit(a.self); !errors.Is(err, protocol.CodePaused) {
		t.Errorf("a pull from a paused node gives %v", err)
	}
	touch(t, folder, "two")
	await(t, "A has the file", func() bool { return len(a.names(self, loc)) == 2 })
	head, _ := a.store.State(locationFeed(self, loc))
	await(t, "B hears of it", func() bool {
		st, _ := b.store.State(locationFeed(self, loc))
		return st.Best.Seq >= head.Best.Seq || len(b.names(self, loc)) > 1
	})
	if got := b.names(self, loc); len(got) != 1 {
		t.Errorf("synced while paused: %v", got)
	}
	if _, err := b.Resume(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	await(t, "both in step", func() bool { return len(b.names(self, loc)) == 2 && inStep(a, b)() })
}

// One device is paused for a while and not for good.
func TestPauseOfOneDeviceEnds(t *testing.T) {
	a, b, _, folder, loc := pair(t)
	if _, err := b.Pause(t.Context(), idText(a.self), time.Second); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	until := b.peers[a.self].paused.until
	next := b.pausedFor(a.self)
	b.mu.Unlock()
	if d := time.Until(until); d > time.Second || !next {
		t.Fatalf("paused for %v", d)
	}
	if _, err := a.Pause(t.Context(), idText(b.self), time.Second); err != nil {
		t.Fatal(err)
	}
	touch(t, folder, "two")
	await(t, "the file at B after the pause", func() bool { return len(b.names(a.self, loc)) == 2 })
	if time.Now().Before(until) {
		t.Error("it came during the pause")
	}
	if v, err := b.Resume(t.Context(), ""); err != nil || len(v.Devices) != 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

// A peer tells of a head that it does not serve. It is asked once, and not again at once and for ever.
func TestLiarIsAskedOnce(t *testing.T) {
	a, b, _, _, loc := pair(t)
	id := locationFeed(a.self, loc)
	st, _ := b.store.State(id)
	lie := *st.Settled
	lie.Seq += 5
	lie = lie.Sign(a.key)
	await(t, "the pull", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.peers[a.self].heads[id] = protocol.HeadInfo{Settled: &lie, Best: lie} // the truth may come in between
		b.lacks[id] = lack{settled: st.Settled.Seq}                             // no push is waited for
		b.wake()
		return b.retries[retryKey{a.self, id}].failures > 0
	})
	b.mu.Lock()
	b.peers[a.self].heads[id] = protocol.HeadInfo{Settled: &lie, Best: lie} // it may have told the truth since
	_, waits := b.retries[retryKey{a.self, id}]
	b.mu.Unlock()
	if got := b.choosePulls(time.Now()); len(got) != 0 || !waits {
		t.Errorf("asked again: %+v", got)
	}
}
