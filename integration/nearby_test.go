package integration

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"peerdex/api"
	"peerdex/eventlog"
)

// onMulticast reports whether what this machine says to a network, loopback aside, comes back to it.
func onMulticast(t *testing.T) bool {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(i net.Interface) bool {
		addrs, err := i.Addrs()
		return err == nil && i.Flags&net.FlagUp != 0 && i.Flags&net.FlagMulticast != 0 && slices.ContainsFunc(addrs, func(a net.Addr) bool {
			p, err := netip.ParsePrefix(a.String())
			return err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() && echoes(i, p.Addr())
		})
	})
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

// Two devices both come back on other ports: nobody but the local network can tell them where. A third that
// is of another library hears them and leaves them alone.
func TestNearby(t *testing.T) {
	t.Parallel()
	if !onMulticast(t) {
		t.Skip("this machine is on no network that knows multicast")
	}
	everywhere := []string{"--listen", "/ip4/0.0.0.0/tcp/0"}
	a, b, c := newPeer(t, "alpha", everywhere...), newPeer(t, "beta", everywhere...), newPeer(t, "gamma", everywhere...)
	b.join(a.start("").Invite.Line)
	inStep(t, a, b)
	a.stop()
	b.stop()
	a.flags, b.flags = slices.Clone(everywhere), slices.Clone(everywhere)
	a.start("")
	b.start("")
	inStep(t, a, b)
	eventually(t, "found by mDNS", func() string {
		for _, p := range []*peer{a, b} {
			for _, e := range p.events(api.EventQuery{Types: []string{"peer_discovered"}}) {
				if d := detail[eventlog.PeerDiscovered](t, e); d.Source == "mdns" && len(d.Addresses) > 0 {
					return ""
				}
			}
		}
		return "no event says so"
	})

	c.start("")
	eventually(t, "a stranger is heard", func() string {
		if *c.metrics().Operations.StrangersSeen == 0 || *a.metrics().Operations.StrangersSeen == 0 {
			return "not yet"
		}
		return ""
	})
	if n := len(c.status().Devices); n != 1 {
		t.Errorf("gamma knows %d devices", n)
	}
	if lines := c.stderr.String(); strings.Contains(lines, "zeroconf") {
		t.Errorf("gamma says %s", lines)
	}
}
