package integration

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"peerdex/api"
	"peerdex/eventlog"
)

// onMulticast reports whether this machine is on a network that knows multicast, loopback aside.
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
			return err == nil && p.Addr().Is4() && !p.Addr().IsLoopback()
		})
	})
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
