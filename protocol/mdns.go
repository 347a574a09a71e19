package protocol

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/zeroconf/v2"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"peerdex/record"
)

// mdnsService names neither the library nor the device: on a network that others share, it tells them only
// that somebody runs this program, and the peer ID and addresses that go with it.
const mdnsService = "_peerdex._udp"

const (
	mdnsDomain = "local"
	mdnsPrefix = "dnsaddr=" // before each address, as in libp2p's specification of discovery by mDNS
	mdnsPort   = 4001       // an announcement must name a port; the addresses have their own

	// MaxAnnounced is how many addresses one announcement holds. With more it would not fit in a packet.
	MaxAnnounced = 8

	// MDNSRound is how long a search goes on before it begins anew. One search tells of an announcement
	// once, whoever comes and goes.
	MDNSRound = 10 * time.Minute

	maxSightings = 256              // of one search, each of which the search remembers to its end
	mdnsRest     = 15 * time.Second // after a search that came to nothing or to too much
)

// Sighting is what an announcement on the local network claims: that a device can be reached at these
// addresses, of which there is at least one. Nobody has proved it.
type Sighting struct {
	Device record.DeviceID
	Addrs  []multiaddr.Multiaddr // at most MaxAnnounced, all IP addresses of a local network
}

// FindNearby announces by multicast DNS (RFC 6762 and 6763) where h listens, and tells seen what others
// announce, one at a time, until ctx ends; then it returns nil. It uses only networks on which h listens;
// loopback is none. Without any it waits for one. A network that knows no multicast is no error: it is
// tried again.
func FindNearby(ctx context.Context, h host.Host, log *slog.Logger, seen func(Sighting)) error {
	moved, err := h.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated))
	if err != nil {
		return fmt.Errorf("watch own addresses: %w", err)
	}
	defer moved.Close()
	for ctx.Err() == nil {
		addrs := announced(h)
		round, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			stay(round, h, addrs, log, seen)
		}()
		for same := true; same; { // what is announced is fixed when an announcement begins
			select {
			case <-moved.Out():
				same = slices.EqualFunc(addrs, announced(h), multiaddr.Multiaddr.Equal)
			case <-ctx.Done():
				same = false
			}
		}
		stop()
		<-ended
	}
	return nil
}

// stay announces addrs and searches until ctx ends.
func stay(ctx context.Context, h host.Host, addrs []multiaddr.Multiaddr, log *slog.Logger, seen func(Sighting)) {
	networks := networksOf(addrs)
	if len(networks.interfaces) == 0 {
		return
	}
	for told := false; ctx.Err() == nil; {
		err := announce(ctx, h, addrs, networks, seen)
		if err != nil && !told {
			told = true
			log.Info("devices on the local network cannot be found", "err", err)
		}
		pause(ctx, mdnsRest)
	}
}

// announce is one announcement with the searches beside it, until ctx ends or something fails.
func announce(ctx context.Context, h host.Host, addrs []multiaddr.Multiaddr, on networks, seen func(Sighting)) error {
	texts, ips := []string{}, []string{}
	for _, a := range addrs {
		texts = append(texts, mdnsPrefix+a.String()+"/p2p/"+h.ID().String())
	}
	for _, ip := range on.ips {
		ips = append(ips, ip.String())
	}
	name := fmt.Sprintf("%016x", rand.Uint64()) // as little as the service's name
	server, err := zeroconf.RegisterProxy(name, mdnsService, mdnsDomain, mdnsPort, name, ips, texts, on.interfaces)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	defer server.Shutdown()
	for ctx.Err() == nil {
		sightings, err := search(ctx, on, func(texts []string) {
			if s, ok := readSighting(texts, on.prefixes); ok && PeerID(s.Device) != h.ID() {
				seen(s)
			}
		})
		if err != nil {
			return fmt.Errorf("search: %w", err)
		}
		if sightings >= maxSightings {
			pause(ctx, mdnsRest)
		}
	}
	return nil
}

// search looks for announcements for MDNSRound, or until there have been maxSightings, and returns how many
// there were.
func search(ctx context.Context, on networks, found func(texts []string)) (sightings int, err error) {
	ctx, cancel := context.WithTimeout(ctx, MDNSRound)
	defer cancel()
	entries := make(chan *zeroconf.ServiceEntry)
	ended := make(chan error, 1)
	go func() {
		ended <- zeroconf.Browse(ctx, mdnsService, mdnsDomain, entries, zeroconf.SelectIfaces(on.interfaces), zeroconf.SelectIPTraffic(on.traffic))
	}()
	for {
		select {
		case e, open := <-entries:
			if !open { // it has ended
				return sightings, <-ended
			}
			if sightings++; sightings <= maxSightings {
				found(e.Text)
			}
			if sightings == maxSightings {
				cancel()
			}
		case err := <-ended: // it could not begin: the entries stay open
			return sightings, err
		}
	}
}

// announced returns the addresses of h that others on a local network can use.
func announced(h host.Host) []multiaddr.Multiaddr {
	out := slices.DeleteFunc(slices.Clone(h.Addrs()), func(a multiaddr.Multiaddr) bool {
		ip, ok := ipOf(a)
		return !ok || !onNetwork(ip) || checkTransport(a) != nil
	})
	slices.SortStableFunc(out, func(a, b multiaddr.Multiaddr) int { return addrRank(a) - addrRank(b) })
	return out[:min(len(out), MaxAnnounced)]
}

// networks are those on which a host listens.
type networks struct {
	interfaces []net.Interface
	prefixes   []netip.Prefix
	ips        []netip.Addr // one of each family, which the records of an announcement need
	traffic    zeroconf.IPType
}

func networksOf(addrs []multiaddr.Multiaddr) (n networks) {
	all, err := net.Interfaces()
	if err != nil {
		return n
	}
	for _, i := range all {
		own, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0 {
			continue
		}
		listens := false
		for _, o := range own {
			p, err := netip.ParsePrefix(o.String())
			if err != nil || !onNetwork(p.Addr()) {
				continue
			}
			listens = listens || slices.ContainsFunc(addrs, func(a multiaddr.Multiaddr) bool {
				ip, _ := ipOf(a)
				return ip == p.Addr()
			})
			n.prefixes = append(n.prefixes, p.Masked())
		}
		if listens {
			n.interfaces = append(n.interfaces, i)
		}
	}
	for _, a := range addrs {
		ip, _ := ipOf(a)
		family := zeroconf.IPv6
		if ip.Is4() {
			family = zeroconf.IPv4
		}
		if n.traffic&family == 0 {
			n.traffic |= family
			n.ips = append(n.ips, ip)
		}
	}
	return n
}

// readSighting reads an announcement: what is not an address of the one device it names first, on a network
// that may be local, is left out. links are the networks of this machine.
func readSighting(texts []string, links []netip.Prefix) (s Sighting, ok bool) {
	for _, text := range texts[:min(len(texts), 2*MaxAnnounced)] {
		text, ours := strings.CutPrefix(text, mdnsPrefix)
		if !ours {
			continue
		}
		j, err := ParseJoin(text)
		if err != nil || !j.Secret.IsZero() || ok && j.Device != s.Device {
			continue
		}
		if ip, isIP := ipOf(j.Addr); !isIP || !nearby(ip, links) || len(s.Addrs) == MaxAnnounced {
			continue
		}
		s.Device, ok = j.Device, true
		s.Addrs = append(s.Addrs, j.Addr)
	}
	return s, ok
}

// nearby reports whether ip may be of a local network: private, or on a network of this machine. Whoever
// shares the network must not be able to make this device dial the rest of the world.
func nearby(ip netip.Addr, links []netip.Prefix) bool {
	return onNetwork(ip) && (ip.IsPrivate() || slices.ContainsFunc(links, func(p netip.Prefix) bool { return p.Contains(ip) }))
}

// onNetwork reports whether another machine can use ip as it stands; an address of the link alone would
// need the name of an interface.
func onNetwork(ip netip.Addr) bool {
	return ip.IsValid() && !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLinkLocalUnicast()
}

func ipOf(a multiaddr.Multiaddr) (netip.Addr, bool) {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// pause returns when d is over or ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
