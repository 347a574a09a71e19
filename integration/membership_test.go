package integration

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/member"
	"peerdex/node"
	"peerdex/protocol"
	"peerdex/record"
)

// gone waits until p shows a device as out in some way.
func (p *peer) gone(name, how string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%s is %s at %s", name, how, p.name), func() string {
		if d, _ := p.other(name); d.Gone != how {
			return fmt.Sprintf("it is %q", d.Gone)
		}
		return ""
	})
}

// catalogues reports whether p has a path in its catalogue.
func (p *peer) catalogues(path string) bool {
	p.t.Helper()
	return p.dumpCatalogue().find(path) != nil
}

func (p *peer) awaitPath(path string) {
	p.t.Helper()
	eventually(p.t, path+" at "+p.name, func() string {
		if !p.catalogues(path) {
			return "not there"
		}
		return ""
	})
}

// N20: a device holds every kind of stream open at the moment it is revoked. All of them end, nothing more
// comes out of them or goes in, and no new one opens: at the member where it happened, and at the others.
func TestN20Revoked(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	write(t, filepath.Join(dir, "secret"), "x")
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	first := a.start("", dir)
	second := b.join(first.Invite.Line)
	r := joined(t, first, a.invite())
	eventually(t, "beta knows the rogue", func() string {
		if len(b.status().Devices) != 3 {
			return "not yet"
		}
		return ""
	})
	elsewhere := r.elsewhere(second)
	before := inStep(t, a, b)

	location, err := hex.DecodeString(locationAt(t, a, dir))
	if err != nil {
		t.Fatal(err)
	}
	id := feed.ID{Device: r.target, Location: record.LocationID(location)}
	var streams []*held
	for _, at := range []*rogue{r, elsewhere} {
		streams = append(streams, at.hold(id)...)
	}
	pushes := []*protocol.Conn{streams[1].conn, streams[4].conn}

	a.ask(&node.RemoveView{}, "devices", "revoke", r.device.Short(), "--yes")
	b.gone(r.device.Short(), node.GoneRevoked)
	for _, s := range streams {
		if err := s.end(); err == nil {
			t.Errorf("%s goes on after the revocation", s.what)
		}
	}
	for i, conn := range pushes { // as if it had not noticed
		entries := r.entries(3)
		if errors.Join(conn.Send(&protocol.StateBatch{Session: protocol.NewSessionID(), Entries: entries, Next: r.head(entries)}), conn.Flush()) == nil {
			if m, err := conn.Recv(); err == nil {
				t.Errorf("push %d is answered with %+v", i, m)
			}
		}
	}
	a.invite() // an open window changes nothing for it
	for _, at := range []*rogue{r, elsewhere} {
		for _, protocolID := range []protocol.ID{protocol.SessionProtocol, protocol.StateBatchProtocol, protocol.BackfillProtocol, protocol.PairProtocol} {
			if answer, err := at.askFor(protocolID); err == nil {
				t.Errorf("%s is answered with %x", protocolID, answer)
			}
		}
	}
	if err := r.pair(a.invite()); !errors.Is(err, protocol.CodeRevoked) {
		t.Errorf("pairing again: %v", err)
	}
	for _, p := range []*peer{a, b} {
		if d := before.diff(p.dumpCatalogue()); d != "" {
			t.Errorf("%s: %s", p.name, d)
		}
		if d := p.of(r.device.Short()); d.Processed.By["applied"] != 0 {
			t.Errorf("%s applied %v of it", p.name, d.Processed.By)
		}
		if n := len(p.events(api.EventQuery{Types: []string{"device_revoked"}})); n != 1 {
			t.Errorf("%s has %d events device_revoked", p.name, n)
		}
	}
	inStep(t, a, b)
}

// elsewhere is the same device, speaking to another member.
func (r *rogue) elsewhere(at started) *rogue {
	r.t.Helper()
	o := newRogueOf(r.t, at, r.key)
	o.welcome = r.welcome
	return o
}

// held is a stream that a rogue keeps open.
type held struct {
	what string
	conn *protocol.Conn
	ask  protocol.Message // what was about to be asked
}

// end asks, and returns how the stream ended; nil if there was an answer.
func (h *held) end() error {
	if err := errors.Join(h.conn.Send(h.ask), h.conn.Flush()); err != nil {
		return err
	}
	for {
		m, err := h.conn.Recv()
		if err != nil {
			return err
		}
		switch m.(type) {
		case *protocol.Page, *protocol.Pong, *protocol.Ack:
			return nil
		}
	}
}

// hold opens a session, a push stream and a pull of a feed, and leaves them open.
func (r *rogue) hold(id feed.ID) []*held {
	r.t.Helper()
	session, err := r.greet(r.hello())
	if err != nil {
		r.t.Fatal(err)
	}
	dial := func(p protocol.ID) *protocol.Conn {
		conn, err := protocol.Dial(r.t.Context(), r.host, r.target, p, protocol.ConnConfig{})
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { conn.Reset(protocol.CodeShutdown) })
		return conn
	}
	push, pull := dial(protocol.StateBatchProtocol), dial(protocol.BackfillProtocol)
	// The push stream is there once a push that says nothing new was answered.
	stale := &protocol.StateBatch{Session: protocol.NewSessionID(), Next: feed.Head{Library: r.welcome.Library, Feed: feed.ID{Device: r.target}, Seq: 1, Stamp: 1}}
	if err := errors.Join(push.Send(stale), push.Flush()); err != nil {
		r.t.Fatal(err)
	}
	if m, err := push.Recv(); err != nil {
		r.t.Fatalf("push: %+v, %v", m, err)
	}
	if err := errors.Join(pull.Send(&protocol.Open{Session: protocol.NewSessionID(), Feed: id}), pull.Flush()); err != nil {
		r.t.Fatal(err)
	}
	if m, err := pull.Recv(); err != nil {
		r.t.Fatalf("pull: %+v, %v", m, err)
	} else if _, ok := m.(*protocol.Opened); !ok {
		r.t.Fatalf("pull: %+v", m)
	}
	return []*held{
		{"the session", session, &protocol.Ping{T1: 1}},
		{"the push stream", push, stale},
		{"the pull", pull, &protocol.Delta{}},
	}
}

// A device is revoked while it and another member are away. The other comes back first to the one, which it
// believes in still, then to the one that knows: from then on the revoked device is out everywhere. A
// certificate of another library, and the own ones in any order and more than once, change nothing.
func TestRevokedWhileAway(t *testing.T) {
	t.Parallel()
	dirs := [3]string{}
	peers := [3]*peer{}
	for i, name := range []string{"alpha", "beta", "gamma"} {
		dirs[i] = tempDir(t)
		write(t, filepath.Join(dirs[i], "first of "+name), name)
		peers[i] = newPeer(t, name)
	}
	a, b, c := peers[0], peers[1], peers[2]
	first := a.start("", dirs[0])
	b.join(first.Invite.Line, dirs[1])
	c.join(a.invite(), dirs[2])
	inStep(t, a, b, c)

	r := joined(t, first, a.invite())
	h := r.hello()
	slices.Reverse(h.Certs)
	h.Certs = append(append(h.Certs, h.Certs...), foreign(t, r.device).Append(nil), []byte("rubbish"))
	if _, err := r.greet(h); err != nil {
		t.Fatal(err)
	}
	inStep(t, a, b, c)
	if n := len(a.status().Devices); n != 4 {
		t.Errorf("%d devices after a hello of odd certificates", n)
	}
	a.ask(&node.RemoveView{}, "devices", "forget", r.device.Short(), "--yes")

	b.stop()
	c.stop()
	var v node.RemoveView
	a.ask(&v, "devices", "revoke", "beta", "--yes")
	if len(v.Told) != 0 || !slices.Equal(v.Later, []string{"gamma"}) {
		t.Errorf("told %v, later %v", v.Told, v.Later)
	}
	a.stop()
	b.start("")
	c.start("")
	eventually(t, "beta and gamma meet", func() string {
		if d, _ := c.other("beta"); !d.Online {
			return "not yet"
		}
		return ""
	})
	between := filepath.Join(dirs[1], "while nobody knew")
	write(t, between, "x")
	c.awaitPath(between)
	a.start("")
	c.gone("beta", node.GoneRevoked)
	late := filepath.Join(dirs[1], "too late")
	write(t, late, "x")
	b.awaitPath(late)
	news := filepath.Join(dirs[0], "news")
	write(t, news, "x")
	c.awaitPath(news)
	want := inStep(t, a, c) // with what gamma heard of beta before it knew
	if want.find(between) == nil || want.find(late) != nil {
		t.Error("what gamma had is not what alpha got")
	}
	if b.catalogues(news) {
		t.Error("beta hears what was made after its revocation")
	}
	if d, _ := b.other("alpha"); d.Online {
		t.Error("beta has a session with alpha")
	}
}

// foreign is a certificate for a device of a library that nobody here knows.
func foreign(t testing.TB, d record.DeviceID) member.Cert {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	lib := member.LibraryOf(key.Public().(ed25519.PublicKey))
	return member.Cert{Library: lib, Subject: d, Kind: member.AddAdmin, Stamp: hlc.At(time.Now())}.Sign(key)
}

// pending is a command that waits for a person.
type pending struct {
	p      *peer
	cmd    *exec.Cmd
	stderr *lockedBuffer
	out    *lockedBuffer
	done   chan struct{}
}

// begin runs a command in the background.
func (p *peer) begin(args ...string) *pending {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c := &pending{p: p, cmd: exec.CommandContext(ctx, peerBinary(p.t), append(args, "--home", p.home)...), stderr: &lockedBuffer{}, out: &lockedBuffer{}, done: make(chan struct{})}
	c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = p.env(), c.out, c.stderr
	if err := c.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // the code says all
	}()
	p.t.Cleanup(func() {
		cancel()
		<-c.done
	})
	return c
}

// end waits for the command.
func (c *pending) end() answer {
	<-c.done
	return answer{c.cmd.ProcessState.ExitCode(), c.out.String(), c.stderr.String()}
}

// digits waits until the command shows digits, and returns them with the command that approves.
func (c *pending) digits() (digits, approve string) {
	c.p.t.Helper()
	shown := regexp.MustCompile(`the digits (\d{3}) (\d{3})\.[\s\S]*\n  (peer devices approve \d{6})\n`)
	eventually(c.p.t, "digits at "+c.p.name, func() string {
		m := shown.FindStringSubmatch(c.stderr.String())
		if m == nil {
			return "not shown: " + c.stderr.String()
		}
		digits, approve = m[1]+m[2], m[3]
		return ""
	})
	return digits, approve
}

// Without a secret: both devices show the same digits and the same command, a person refuses once and
// approves once, and the devices come into step.
func TestApprovalByDigits(t *testing.T) {
	t.Parallel()
	dirA, dirB := tempDir(t), tempDir(t)
	write(t, filepath.Join(dirA, "of a"), "x")
	write(t, filepath.Join(dirB, "of b"), "x")
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	bare, _, _ := strings.Cut(a.start("", dirA).Invite.Line, "#")
	b.start("", dirB)
	asked := func(c *pending) string {
		digits, approve := c.digits()
		var doc struct {
			Requests []node.RequestView `json:"requests"`
		}
		a.ask(&doc, "devices", "ls")
		if len(doc.Requests) != 1 || doc.Requests[0].Digits != digits || doc.Requests[0].Approve != approve || doc.Requests[0].Name != "beta" {
			t.Errorf("alpha shows %+v, beta %s and %q", doc.Requests, digits, approve)
		}
		if text := a.run("devices").stdout; !strings.Contains(text, digits[:3]+" "+digits[3:]) || !strings.Contains(text, approve) {
			t.Errorf("alpha shows %s", text)
		}
		if st := a.status(); len(st.Attention) != 1 || st.Attention[0].Try != approve {
			t.Errorf("attention: %+v", st.Attention)
		}
		return digits
	}
	join := b.begin("join", bare)
	digits := asked(join)
	a.wantProblem(t, 5, node.CodeUnknownDevice, "devices", "approve", "999999x")
	a.wantProblem(t, 2, node.CodeUsage, "devices", "approve", "beta") // whose digits nobody has compared
	a.ask(&node.RequestView{}, "devices", "approve", "--refuse", digits)
	if got := join.end(); got.code != 4 || !strings.Contains(got.stderr, "a person said no") {
		t.Errorf("refused: exit %d, %s", got.code, got.stderr)
	}
	if len(a.status().Devices) != 1 || len(b.status().Devices) != 1 {
		t.Error("beta is in")
	}
	join = b.begin("join", bare)
	digits = asked(join)
	if got := a.run("devices", "approve", digits); got.code != 0 || !strings.HasPrefix(got.stdout, "beta joined (") {
		t.Errorf("approved: exit %d, %s%s", got.code, got.stdout, got.stderr)
	}
	if got := join.end(); got.code != 0 || !strings.Contains(got.stdout, "in step with alpha") {
		t.Errorf("joined: exit %d, %s%s", got.code, got.stdout, got.stderr)
	}
	inStep(t, a, b)
	for kind, method := range map[string]string{"device_approved": "", "device_joined": "approval"} {
		events := a.events(api.EventQuery{Types: []string{kind}})
		if len(events) != 1 || method != "" && detail[eventlog.DeviceJoined](t, events[0]).Method != method {
			t.Errorf("events %s: %v", kind, events)
		}
	}
}

// F4, with processes: two devices use one invite at the same moment. One is in; the other hears that it was
// used, and stays what it was.
func TestInviteRace(t *testing.T) {
	t.Parallel()
	a := newPeer(t, "alpha")
	line := a.start("").Invite.Line
	var racers [2]*peer
	var own [2]string
	for i := range racers {
		racers[i] = newPeer(t, fmt.Sprintf("racer%d", i))
		own[i] = racers[i].start("").Status.Library
	}
	var got [2]answer
	var all sync.WaitGroup
	for i, r := range racers {
		c := r.begin("join", line, "--json")
		all.Go(func() { got[i] = c.end() })
	}
	all.Wait()
	in := 0
	for i, r := range racers {
		switch {
		case got[i].code == 0:
			in++
		case got[i].code != 4 || problemIn(t, got[i]).Code != node.CodeInviteUsed:
			t.Errorf("the loser: exit %d, %s", got[i].code, got[i].stderr)
		case r.status().Library != own[i]:
			t.Error("the loser left its own library")
		}
	}
	if in != 1 || len(a.status().Devices) != 2 {
		t.Errorf("%d are in, %d devices", in, len(a.status().Devices))
	}
}

// A device leaves and joins again; another is forgotten, and nothing of it is left, on a device that was away
// at the time too. What a person may not do is refused, and changes nothing.
func TestLeaveAndForget(t *testing.T) {
	t.Parallel()
	dirs := [3]string{}
	for i := range dirs {
		dirs[i] = tempDir(t)
		write(t, filepath.Join(dirs[i], "f"), "x")
	}
	a, b, c := newPeer(t, "alpha"), newPeer(t, "beta"), newPeer(t, "gamma")
	line := a.start("", dirs[0]).Invite.Line
	a.wantProblem(t, 7, node.CodeConflict, "leave", "--yes") // it is alone
	b.join(line, dirs[1])
	c.join(b.invite(), dirs[2]) // b is an admin, c a mere member
	inStep(t, a, b, c)
	for _, p := range []struct {
		p    *peer
		exit int
		code node.Code
		args []string
	}{
		{a, 7, node.CodeConflict, []string{"devices", "revoke", "alpha", "--yes"}},
		{a, 7, node.CodeConflict, []string{"devices", "forget", "alpha", "--dry-run"}},
		{a, 2, node.CodeUsage, []string{"devices", "revoke", "beta"}},
		{a, 2, node.CodeUsage, []string{"leave"}},
		{a, 5, node.CodeUnknownDevice, []string{"devices", "revoke", "delta", "--yes"}},
		{a, 5, node.CodeUnknownDevice, []string{"devices", "show", "delta"}},
		{a, 5, node.CodeUnknownDevice, []string{"devices", "pause", "delta"}},
		{a, 5, node.CodeUnknownDevice, []string{"devices", "approve", "123456"}},
		{a, 7, node.CodeConflict, []string{"devices", "rename", "beta"}},
		{a, 7, node.CodeConflict, []string{"devices", "rename", "beta", "delta"}},
		{a, 2, node.CodeUsage, []string{"devices", "rename", ""}},
		{a, 2, node.CodeUsage, []string{"invite", "--uses", "101"}},
		{b, 4, node.CodeNotAllowed, []string{"devices", "revoke", "alpha", "--yes"}},
		{c, 4, node.CodeNotAllowed, []string{"devices", "revoke", "beta", "--yes"}},
		{c, 4, node.CodeNotAllowed, []string{"devices", "forget", "beta", "--yes"}},
		{c, 4, node.CodeNotAllowed, []string{"invite"}},
		{c, 7, node.CodeConflict, []string{"join", a.invite()}},
	} {
		p.p.wantProblem(t, p.exit, p.code, p.args...)
	}
	a.ask(&node.RemoveView{}, "devices", "revoke", "beta", "--dry-run")
	b.ask(&node.LeaveView{}, "leave", "--dry-run")
	inStep(t, a, b, c)

	var left node.LeaveView
	b.ask(&left, "leave", "--yes")
	if !slices.Contains(left.Told, "alpha") || left.From == left.To || len(b.status().Devices) != 1 {
		t.Errorf("%+v", left)
	}
	a.gone("beta", node.GoneLeft)
	c.gone("beta", node.GoneLeft)
	if !a.catalogues(filepath.Join(dirs[1], "f")) || !b.catalogues(filepath.Join(dirs[1], "f")) || b.catalogues(filepath.Join(dirs[0], "f")) {
		t.Error("what beta wrote is gone, or it holds what is not its own")
	}
	a.wantProblem(t, 7, node.CodeConflict, "leave", "--yes") // the last admin
	b.ask(&node.JoinProgress{}, "join", a.invite())
	write(t, filepath.Join(dirs[1], "again"), "x")
	c.awaitPath(filepath.Join(dirs[1], "again"))
	inStep(t, a, b, c)

	c.stop()
	a.ask(&node.RemoveView{}, "devices", "forget", "beta", "--yes")
	c.start("")
	for _, p := range []*peer{a, c} {
		eventually(t, "beta is forgotten at "+p.name, func() string {
			if _, ok := p.other("beta"); ok || p.catalogues(filepath.Join(dirs[1], "f")) {
				return "not yet"
			}
			return ""
		})
	}
	inStep(t, a, c)
	a.stop()
	f := openHome(t, a.home)
	defer f.close(t)
	for _, st := range f.States() {
		if strings.HasPrefix(st.Feed.String(), deviceID(t, b).Short()) {
			t.Errorf("feed %v is held", st.Feed)
		}
	}
}

// awaitFailure waits for an event auth_failed about a device with a reason.
func (p *peer) awaitFailure(peerID, reason string) {
	p.t.Helper()
	eventually(p.t, "auth_failed: "+reason, func() string {
		for _, e := range p.events(api.EventQuery{Types: []string{"auth_failed"}}) {
			if e.PeerDeviceID == peerID && detail[eventlog.AuthFailed](p.t, e).Reason == reason {
				return ""
			}
		}
		return "no event says so"
	})
}

// deviceID returns the id of a device that is running.
func deviceID(t testing.TB, p *peer) record.DeviceID {
	t.Helper()
	j, err := protocol.ParseJoin(p.status().Listen[0])
	if err != nil {
		t.Fatal(err)
	}
	return j.Device
}

// A device that is asked to join into a library whose certificates do not end at its root key stays where it
// is, and says so.
func TestJoinChainThatDoesNotEndAtTheRoot(t *testing.T) {
	t.Parallel()
	b := newPeer(t, "beta")
	st := b.start("")
	before := b.status()
	r := newRogue(t, st)
	secret := protocol.NewSecret()
	_, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.gater.Open(4)
	r.serve(protocol.PairProtocol, func(c *protocol.Conn) error {
		_, err := protocol.ServePair(t.Context(), c, r.device, func(_ protocol.InviteID, verify func(protocol.Secret) bool, j protocol.Joiner) (protocol.Welcome, error) {
			if !verify(secret) {
				return protocol.Welcome{}, protocol.ErrInviteSecret
			}
			w := protocol.Welcome{RootKey: [32]byte(root.Public().(ed25519.PublicKey)), Certs: [][]byte{foreign(t, j.Device).Append(nil)}, Name: "rogue"}
			w.Library = member.LibraryOf(root.Public().(ed25519.PublicKey))
			return w, nil
		}, nil)
		return err
	})
	line := multiaddr.Join(r.host.Addrs()[0], multiaddr.StringCast("/p2p/"+protocol.PeerID(r.device).String())).String() + "#" + secret.Text()
	b.wantProblem(t, 4, node.CodeNotAllowed, "join", line)
	b.awaitFailure(protocol.PeerID(r.device).String(), string(member.WrongLibrary))
	after := b.status()
	if after.Library != before.Library || len(after.Devices) != 1 {
		t.Errorf("beta is in %s with %d devices", after.Library, len(after.Devices))
	}
	if text, err := os.ReadFile(filepath.Join(b.home, "library.json")); err != nil || !json.Valid(text) || !strings.Contains(string(text), before.Library) {
		t.Errorf("library.json: %v", err)
	}
}
