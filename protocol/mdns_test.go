package protocol

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/multiformats/go-multiaddr"

	"peerdex/record"
)

var (
	mdnsKey, otherKey = ed25519.NewKeyFromSeed(make([]byte, 32)), ed25519.NewKeyFromSeed(append(make([]byte, 31), 1))
	links             = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/64")}
)

func deviceOf(key ed25519.PrivateKey) record.DeviceID {
	return record.DeviceID(key.Public().(ed25519.PublicKey))
}

func TestReadSighting(t *testing.T) {
	me, other := "/p2p/"+PeerID(deviceOf(mdnsKey)).String(), "/p2p/"+PeerID(deviceOf(otherKey)).String()
	many := make([]string, 40)
	for i := range many {
		many[i] = "dnsaddr=/ip4/10.0.0.1/tcp/" + string(rune('1'+i%9)) + "00" + me
	}
	for name, c := range map[string]struct {
		texts []string
		want  []string
	}{
		"nothing":          {nil, nil},
		"private":          {[]string{"dnsaddr=/ip4/192.168.1.20/udp/4001/quic-v1" + me, "dnsaddr=/ip6/fd00::2/tcp/4001" + me}, []string{"/ip4/192.168.1.20/udp/4001/quic-v1", "/ip6/fd00::2/tcp/4001"}},
		"on our network":   {[]string{"dnsaddr=/ip4/192.0.2.9/tcp/1" + me, "dnsaddr=/ip6/2001:db8:1::9/tcp/1" + me}, []string{"/ip4/192.0.2.9/tcp/1", "/ip6/2001:db8:1::9/tcp/1"}},
		"elsewhere":        {[]string{"dnsaddr=/ip4/198.51.100.1/tcp/1" + me, "dnsaddr=/ip6/2001:db8:2::9/tcp/1" + me}, nil},
		"ourselves":        {[]string{"dnsaddr=/ip4/127.0.0.1/tcp/1" + me, "dnsaddr=/ip6/::1/tcp/1" + me, "dnsaddr=/ip4/0.0.0.0/tcp/1" + me}, nil},
		"of the link":      {[]string{"dnsaddr=/ip6/fe80::1/tcp/1" + me, "dnsaddr=/ip4/169.254.1.1/tcp/1" + me, "dnsaddr=/ip4/224.0.0.251/tcp/1" + me}, nil},
		"mapped":           {[]string{"dnsaddr=/ip6/::ffff:198.51.100.1/tcp/1" + me}, nil},
		"a name":           {[]string{"dnsaddr=/dns4/router.local/tcp/1" + me}, nil},
		"a relay":          {[]string{"dnsaddr=/ip4/10.0.0.1/tcp/1" + other + "/p2p-circuit" + me}, nil},
		"another protocol": {[]string{"dnsaddr=/ip4/10.0.0.1/tcp/1/ws" + me}, nil},
		"a secret":         {[]string{"dnsaddr=/ip4/10.0.0.1/tcp/1" + me + "#" + NewSecret().Text()}, nil},
		"no device":        {[]string{"dnsaddr=/ip4/10.0.0.1/tcp/1", "dnsaddr=", "dnsaddr=/p2p/", "", "\x00\xff", "/ip4/10.0.0.1/tcp/1" + me}, nil},
		"two devices":      {[]string{"dnsaddr=/ip4/10.0.0.1/tcp/1" + me, "dnsaddr=/ip4/10.0.0.2/tcp/1" + other, "dnsaddr=/ip4/10.0.0.3/tcp/1" + me}, []string{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.3/tcp/1"}},
		"many":             {many, []string{"/ip4/10.0.0.1/tcp/100", "/ip4/10.0.0.1/tcp/200", "/ip4/10.0.0.1/tcp/300", "/ip4/10.0.0.1/tcp/400", "/ip4/10.0.0.1/tcp/500", "/ip4/10.0.0.1/tcp/600", "/ip4/10.0.0.1/tcp/700", "/ip4/10.0.0.1/tcp/800"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, ok := readSighting(c.texts, links)
			if ok != (c.want != nil) || ok && s.Device != deviceOf(mdnsKey) {
				t.Fatalf("%v, %v", s, ok)
			}
			if got := texts(s.Addrs); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func texts(addrs []multiaddr.Multiaddr) (out []string) {
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// Whatever anybody on the network says: one device, few addresses, none far away.
func FuzzReadSighting(f *testing.F) {
	me := "/p2p/" + PeerID(deviceOf(mdnsKey)).String()
	f.Add("dnsaddr=/ip4/192.168.1.20/udp/4001/quic-v1" + me + "\ndnsaddr=/ip4/8.8.8.8/tcp/1" + me)
	f.Add("dnsaddr=/ip6/fe80::1/tcp/1\n\ndnsaddr=#")
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := readSighting(strings.Split(text, "\n"), links)
		if ok != (len(s.Addrs) > 0) || len(s.Addrs) > MaxAnnounced {
			t.Fatalf("%v, %v", s, ok)
		}
		for _, a := range s.Addrs {
			if ip, isIP := ipOf(a); !isIP || !nearby(ip, links) || checkTransport(a) != nil {
				t.Errorf("%s", a)
			}
		}
	})
}

// nearbyHost is a host on every interface.
func nearbyHost(t *testing.T, key ed25519.PrivateKey) host.Host {
	t.Helper()
	h, err := NewHost(HostConfig{Key: key, Gater: new(Gater), Listen: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/0.0.0.0/tcp/0")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// nearbyRun runs FindNearby until the test ends; what it sees comes on the channel.
func nearbyRun(t *testing.T, h host.Host) <-chan Sighting {
	t.Helper()
	seen := make(chan Sighting)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- FindNearby(ctx, h, slog.New(slog.DiscardHandler), func(s Sighting) {
			select {
			case seen <- s:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return seen
}

// echoes reports whether a datagram from ip to a group of an interface comes back.
func echoes(i net.Interface, ip netip.Addr) bool {
	hear, err := net.ListenMulticastUDP("udp4", &i, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251)})
	if err != nil {
		return false
	}
	defer hear.Close()
	say, err := net.DialUDP("udp4", &net.UDPAddr{IP: ip.AsSlice()}, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: hear.LocalAddr().(*net.UDPAddr).Port})
	if err != nil {
		return false
	}
	defer say.Close()
	_, err = say.Write([]byte("?"))
	if err == nil {
		err = hear.SetReadDeadline(time.Now().Add(5 * time.Second))
	}
	if err == nil {
		_, err = hear.Read(make([]byte, 1))
	}
	return err == nil
}

// Two hosts of one network find each other, and again where one of them listens from then on.
func TestFindNearby(t *testing.T) {
	a, b := nearbyHost(t, mdnsKey), nearbyHost(t, otherKey)
	if on := networksOf(announced(a)); len(on.interfaces) == 0 || !echoes(on.interfaces[0], on.ips[0]) {
		t.Skip("this machine is on no network that knows multicast")
	}
	seenByB := nearbyRun(t, b)
	seenByA := nearbyRun(t, a)
	sighted := func(by host.Host, seen <-chan Sighting, of host.Host, addr string) {
		t.Helper()
		late := time.After(20 * time.Second)
		for {
			select {
			case s := <-seen: // of others too, if there are any on this network
				if PeerID(s.Device) == by.ID() {
					t.Fatal("a host sees itself")
				}
				if PeerID(s.Device) == of.ID() && slices.Contains(texts(s.Addrs), addr) {
					return
				}
			case <-late:
				t.Fatalf("%s is not seen at %s", of.ID(), addr)
			}
		}
	}
	sighted(b, seenByB, a, announced(a)[0].String())
	sighted(a, seenByA, b, announced(b)[0].String())
	if err := listen(a, []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/0.0.0.0/udp/0/quic-v1")}, 0); err != nil {
		t.Fatal(err)
	}
	for len(announced(a)) < 2 { // the host looks at its addresses by itself
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("a does not know where it listens")
		}
	}
	sighted(b, seenByB, a, announced(a)[1].String())
}

// Loopback is no network: nothing is announced there.
func TestNothingToAnnounce(t *testing.T) {
	h, err := NewHost(HostConfig{Key: mdnsKey, Gater: new(Gater), Listen: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if a := announced(h); len(a) != 0 {
		t.Errorf("%v is announced", a)
	}
	if n := networksOf(nil); len(n.interfaces) != 0 {
		t.Errorf("on %v", n.interfaces)
	}
}
