package node

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"peerdex/eventlog"
	"peerdex/protocol"
	"peerdex/record"
)

func parse(text string) (out []multiaddr.Multiaddr) {
	for _, a := range strings.Fields(text) {
		out = append(out, multiaddr.StringCast(a))
	}
	return out
}

func show(addrs []multiaddr.Multiaddr) string {
	return strings.ReplaceAll(string(formatAddrs(addrs)), "\n", " ")
}

func TestRemember(t *testing.T) {
	for _, c := range []struct{ known, latest, want string }{
		{"", "/ip4/192.168.1.2/tcp/1", "/ip4/192.168.1.2/tcp/1"},
		{"/ip4/192.168.1.2/tcp/1", "/ip4/192.168.1.2/tcp/2", "/ip4/192.168.1.2/tcp/2"},
		{"/ip4/9.9.9.9/tcp/1", "/ip4/192.168.1.2/tcp/2", "/ip4/192.168.1.2/tcp/2 /ip4/9.9.9.9/tcp/1"},
		{"/ip4/192.168.1.2/tcp/2 /ip4/9.9.9.9/tcp/1", "/ip6/2a00::1/udp/1/quic-v1", "/ip6/2a00::1/udp/1/quic-v1 /ip4/192.168.1.2/tcp/2"},
		{"/ip4/192.168.1.2/tcp/2 /ip4/9.9.9.9/tcp/1 /dns4/home.example/tcp/1", "/ip4/127.0.0.1/tcp/3", "/ip4/127.0.0.1/tcp/3 /ip4/9.9.9.9/tcp/1 /dns4/home.example/tcp/1"},
	} {
		if got := show(remember(parse(c.known), parse(c.latest)[0])); got != c.want {
			t.Errorf("%s after %q: %q, want %q", c.latest, c.known, got, c.want)
		}
	}
}

func TestStanding(t *testing.T) {
	for _, c := range []struct{ known, published, want string }{
		{"/ip4/10.0.0.1/tcp/1", "", "/ip4/10.0.0.1/tcp/1"},
		{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"},
		{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/2", ""},
		{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/2/quic-v1", "/ip4/10.0.0.1/tcp/1"},
		{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/2 /ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"},
		{"/ip4/9.9.9.9/tcp/1 /dns4/home.example/tcp/1", "/ip4/10.0.0.1/tcp/2", "/ip4/9.9.9.9/tcp/1 /dns4/home.example/tcp/1"},
	} {
		if got := show(standing(parse(c.known), parse(c.published))); got != c.want {
			t.Errorf("%q, published %q: %q, want %q", c.known, c.published, got, c.want)
		}
	}
}

// Announcements run out, are few, and what is told again is not new.
func TestHearNearby(t *testing.T) {
	now := time.Now()
	known, fresh := hearNearby(nil, parse("/ip4/10.0.0.1/tcp/1 /ip4/10.0.0.1/tcp/2 /ip4/10.0.0.1/tcp/1"), now)
	if show(fresh) != "/ip4/10.0.0.1/tcp/1 /ip4/10.0.0.1/tcp/2" {
		t.Errorf("new are %s", show(fresh))
	}
	later := now.Add(nearbyFor - time.Second)
	known, fresh = hearNearby(known, parse("/ip4/10.0.0.1/tcp/2 /ip4/10.0.0.1/tcp/3"), later)
	if show(fresh) != "/ip4/10.0.0.1/tcp/3" || show(current(known, later)) != "/ip4/10.0.0.1/tcp/2 /ip4/10.0.0.1/tcp/3 /ip4/10.0.0.1/tcp/1" {
		t.Errorf("new are %s of %s", show(fresh), show(current(known, later)))
	}
	if got := show(current(known, now.Add(nearbyFor))); got != "/ip4/10.0.0.1/tcp/2 /ip4/10.0.0.1/tcp/3" {
		t.Errorf("in the end %s are left", got)
	}
	for i := range 10 * maxNearby {
		known, fresh = hearNearby(known, parse(fmt.Sprintf("/ip4/10.0.0.2/tcp/%d", i+1)), later)
		if len(fresh) != 1 || len(known) > maxNearby || !known[0].addr.Equal(fresh[0]) {
			t.Fatalf("%d: %d new, %d known", i, len(fresh), len(known))
		}
	}
}

func TestInStages(t *testing.T) {
	var many []multiaddr.Multiaddr
	for i := range 2 * maxAddrs {
		many = append(many, parse(fmt.Sprintf("/ip4/10.0.0.9/tcp/%d", i+1))...)
	}
	stages := inStages(parse("/ip4/10.0.0.1/tcp/1"), parse("/ip4/10.0.0.2/tcp/1 /ip4/10.0.0.1/tcp/1"), slices.Concat(parse("/ip4/10.0.0.2/tcp/1"), many))
	if show(stages[0]) != "/ip4/10.0.0.1/tcp/1" || show(stages[1]) != "/ip4/10.0.0.2/tcp/1" || show(stages[2]) != show(many[:maxAddrs-2]) {
		t.Errorf("%v", stages)
	}
}

// What somebody announces on the network is dialed if it is a member's, and only counted if not.
func TestSighted(t *testing.T) {
	a, b, _, _, _ := pair(t)
	b.stop()
	await(t, "A notices", func() bool { return !connected(a, b)() })
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed := make(chan struct{})
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.Close()
			close(dialed)
		}
	}()
	at := parse(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d /ip4/127.0.0.1/tcp/9", l.Addr().(*net.TCPAddr).Port))
	stranger := record.DeviceID{1}
	a.sighted(protocol.Sighting{Device: stranger, Addrs: at})
	if m := a.metrics.Snapshot(time.Now()); *m.Operations.StrangersSeen != 1 {
		t.Errorf("%d strangers are counted", *m.Operations.StrangersSeen)
	}
	a.mu.Lock()
	p := a.peers[b.self]
	if a.peers[stranger] != nil {
		t.Error("a stranger is a peer")
	}
	a.mu.Unlock()

	a.sighted(protocol.Sighting{Device: b.self, Addrs: at})
	a.sighted(protocol.Sighting{Device: b.self, Addrs: at})
	stages, err := a.addresses(p, time.Now())
	if err != nil || show(stages[1]) != show(at) {
		t.Errorf("%v, %v", stages, err)
	}
	await(t, "B is dialed where it announced itself", func() bool { // failed dials in the log are summed up
		select {
		case <-dialed:
			return true
		default:
			return false
		}
	})
	var learned uint64
	for _, d := range a.metrics.Snapshot(time.Now()).Devices {
		learned += d.AddressesLearned.By["mdns"]
	}
	if learned != 2 {
		t.Errorf("%d addresses were learned", learned)
	}
	found := 0
	await(t, "its addresses are in the log", func() bool {
		found = 0
		for _, e := range a.logged(eventlog.PeerDiscovered{}.Type()) {
			if strings.Contains(string(e.Details), `"mdns"`) && e.PeerDeviceID == idText(b.self) {
				found++
			}
		}
		return found > 0
	})
	if found != 1 {
		t.Errorf("%d events", found)
	}
}

// elsewhere makes the next start of a home listen on another port.
func elsewhere(home string) { ports.Delete(home) }

// A device that comes back on another port is found again, whether the other runs meanwhile or not, and
// where it was before is dialed no more.
func TestAnotherPort(t *testing.T) {
	for _, up := range []bool{true, false} {
		t.Run(map[bool]string{true: "other up", false: "other down"}[up], func(t *testing.T) {
			a, b, home, _, _ := pair(t)
			old := a.host.Addrs()[0]
			homeB := string(b.home)
			if !up {
				b.stop()
			}
			a.stop()
			elsewhere(home)
			a = start(t, home, "a")
			if !up {
				b = start(t, homeB, "b")
			}
			await(t, "A and B are connected", func() bool { return connected(a, b)() && connected(b, a)() })
			await(t, "B knows where A is", func() bool {
				b.mu.Lock()
				p := b.peers[a.self]
				b.mu.Unlock()
				stages, err := b.addresses(p, time.Now())
				all := slices.Concat(stages...)
				return err == nil && slices.ContainsFunc(all, a.host.Addrs()[0].Equal) && !slices.ContainsFunc(all, old.Equal)
			})
		})
	}
}

// Two devices come back on other ports, so that neither knows where the other is; a third that stayed tells
// them.
func TestBothElsewhere(t *testing.T) {
	a, b, homeA, _, _ := pair(t)
	homeC := filepath.Join(t.TempDir(), "c")
	c := start(t, homeC, "c")
	c.joins(b)
	await(t, "all in step", func() bool { return inStep(a, b, c)() && connected(a, c)() })
	a.stop()
	c.stop()
	elsewhere(homeA)
	elsewhere(homeC)
	a, c = start(t, homeA, "a"), start(t, homeC, "c")
	await(t, "A and C are connected", func() bool { return connected(a, c)() && connected(c, a)() })
}

// A device joined by a name, which may stand for another address tomorrow: the name is kept as well.
func TestJoinedByName(t *testing.T) {
	a, b := start(t, filepath.Join(t.TempDir(), "a"), "a"), start(t, filepath.Join(t.TempDir(), "b"), "b")
	req := a.invite(1)
	for i := range req.Addrs {
		req.Addrs[i] = strings.Replace(req.Addrs[i], "/ip4/127.0.0.1/", "/dns4/localhost/", 1)
	}
	if err := b.Join(t.Context(), req, func(JoinProgress) {}); err != nil {
		t.Fatal(err)
	}
	at := a.host.Addrs()[0].String()
	want := at + " " + strings.Replace(at, "/ip4/127.0.0.1/", "/dns4/localhost/", 1)
	await(t, "both are remembered", func() bool {
		good, err := b.reachedAt(a.self)
		return err == nil && show(good) == want
	})
}

// A device that gets another address says so in its own feed, and looks for the others at once, however long
// it would have waited: they may be within reach now.
func TestNewAddressOfOurOwn(t *testing.T) {
	a, b, _, _, _ := pair(t)
	b.stop()
	await(t, "A notices", func() bool { return !connected(a, b)() })
	later := time.Now().Add(time.Hour)
	a.mu.Lock()
	p := a.peers[b.self]
	a.mu.Unlock()
	await(t, "A waits long", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if p.link.state == LinkDisconnected {
			p.link.retryAt = later
		}
		return p.link.retryAt.Equal(later)
	})
	s, ok := a.host.Network().(interface {
		AddListenAddr(multiaddr.Multiaddr) error
	})
	if !ok {
		t.Fatalf("network is a %T", a.host.Network())
	}
	if err := s.AddListenAddr(multiaddr.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")); err != nil {
		t.Fatal(err)
	}
	await(t, "A dials again", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return !p.link.retryAt.Equal(later)
	})
	await(t, "A says where it listens", func() bool {
		r, ok, err := a.store.Register(record.Device(a.self), record.FieldAddrs)
		return err == nil && ok && strings.Count(string(r.Value), "\n") == 1 && strings.Contains(string(r.Value), "/quic-v1")
	})
}

// Where a device was reached before is tried first, though left to itself libp2p prefers QUIC.
func TestDialsTheKnownAddressFirst(t *testing.T) {
	a, b := opened(t, "a"), opened(t, "b")
	tcp := a.host.Addrs()[0]
	if err := a.host.Network().Listen(multiaddr.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")); err != nil {
		t.Fatal(err)
	}
	a.gater.Set([]record.DeviceID{b.self})
	b.gater.Set([]record.DeviceID{a.self})
	p := &peer{id: a.self, published: a.host.Network().ListenAddresses()}
	for _, want := range []string{"quic-v1", "tcp"} {
		_, err := b.reach(t.Context(), p)
		conns := b.host.Network().ConnsToPeer(protocol.PeerID(a.self))
		if len(conns) != 1 { // that A does not run, and so answers nothing, is no matter
			t.Fatalf("%d connections, %v", len(conns), err)
		}
		if at := conns[0].RemoteMultiaddr().String(); !strings.Contains(at, "/"+want) {
			t.Errorf("connected at %s, want %s", at, want)
		}
		if err := b.host.Network().ClosePeer(protocol.PeerID(a.self)); err != nil {
			t.Fatal(err)
		}
		b.rememberAddr(a.self, tcp.String())
	}
}
