package protocol

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

// HostConfig describes a libp2p host. Key and Gater are required.
type HostConfig struct {
	Key        ed25519.PrivateKey    // the device's identity
	Gater      *Gater                // who may connect
	Listen     []multiaddr.Multiaddr // nil: every interface, TCP and QUIC, at Port
	Port       int                   // where to listen if Listen is nil; 0: ports of the system's choice
	Version    string                // of the program, shown to peers; "" means "dev"
	DialOrder  *DialOrder            // nil: libp2p's own
	Registerer prometheus.Registerer // where libp2p's own metrics go; nil: nowhere. They are shared by all hosts of a process
	Options    []libp2p.Option       // appended: a simulated network below, in tests
}

// ListenError says which address a host could not listen on; it wraps the reason, such as
// syscall.EADDRINUSE.
type ListenError struct {
	Addr multiaddr.Multiaddr
	Err  error
}

func (e *ListenError) Error() string { return fmt.Sprintf("listen on %s: %v", e.Addr, e.Err) }
func (e *ListenError) Unwrap() error { return e.Err }

const (
	serviceName = "peerdex" // under which the resource manager counts our streams

	maxInbound  = 64 // connections
	connsLow    = 32 // the connection manager trims unprotected connections from connsHigh down to here
	connsHigh   = 96
	trimGrace   = time.Minute
	maxMemory   = 128 << 20 // bytes of frames and windows; what else is taken has caps of its own
	perSource   = 64        // inbound connections from one IPv4 address or IPv6 /56: a household behind one NAT
	sourceRPS   = 8         // new connections per second from there
	sourceBurst = 128
)

// NewHost starts a host that listens on every address of cfg.Listen, or returns a *ListenError; whoever
// calls it closes the host. It speaks TCP (TLS 1.3, then Noise) and QUIC, and offers neither relay, DHT,
// AutoNAT nor ping services.
func NewHost(cfg HostConfig) (host.Host, error) {
	if len(cfg.Key) != ed25519.PrivateKeySize || cfg.Gater == nil {
		return nil, errors.New("start host: key and gater are required")
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("start host: identity: %w", err)
	}
	limits, err := newResourceManager()
	if err != nil {
		return nil, fmt.Errorf("start host: resource manager: %w", err)
	}
	conns, err := connmgr.NewConnManager(connsLow, connsHigh, connmgr.WithGracePeriod(trimGrace))
	if err != nil {
		return nil, fmt.Errorf("start host: connection manager: %w", errors.Join(err, limits.Close()))
	}
	options := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.NoListenAddrs,
		// Without SO_REUSEPORT a port in use is noticed, also when another peer of the same user has it.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Security(noise.ID, noise.New),
		libp2p.ConnectionGater(cfg.Gater),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.UserAgent("peerdex/" + cmp.Or(cfg.Version, "dev")),
		libp2p.DisableRelay(),
		libp2p.Ping(false),
	}
	if cfg.Registerer == nil {
		options = append(options, libp2p.DisableMetrics())
	} else {
		options = append(options, libp2p.PrometheusRegisterer(cfg.Registerer))
	}
	if cfg.DialOrder != nil {
		options = append(options, libp2p.SwarmOpts(swarm.WithDialRanker(cfg.DialOrder.rank)))
	}
	h, err := libp2p.New(append(options, cfg.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("start host: %w", errors.Join(err, conns.Close(), limits.Close()))
	}
	cfg.Gater.Attach(h)
	if err := listen(h, cfg.Listen, cfg.Port); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// defaultListen is where a host listens if nobody says otherwise. The IPv6 half may fail: not every
// machine has it.
var defaultListen = []string{"/ip4/0.0.0.0/tcp/%d", "/ip4/0.0.0.0/udp/%d/quic-v1", "/ip6/::/tcp/%d", "/ip6/::/udp/%d/quic-v1"}

// listen takes the addresses one by one, since the host by itself is content with any of them.
func listen(h host.Host, addrs []multiaddr.Multiaddr, port int) error {
	swarm, ok := h.Network().(interface {
		AddListenAddr(multiaddr.Multiaddr) error
	})
	if !ok {
		return fmt.Errorf("listen: network is a %T", h.Network())
	}
	if addrs != nil {
		for _, a := range addrs {
			if err := swarm.AddListenAddr(a); err != nil {
				return &ListenError{a, err}
			}
		}
		return nil
	}
	for i, text := range defaultListen {
		a := multiaddr.StringCast(fmt.Sprintf(text, port))
		if err := swarm.AddListenAddr(a); err != nil && i < 2 {
			return &ListenError{a, err}
		}
	}
	return nil
}

// newResourceManager states every limit that matters; libp2p's defaults, scaled to maxMemory, hold for
// its own services. Per-source limits count whole households, and loopback, where tests and several
// devices of one machine meet, is free of them.
func newResourceManager() (network.ResourceManager, error) {
	scaled := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaled)
	total := int64(maxMemory)
	for _, most := range caps {
		total += most
	}
	partial := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: 2 * maxInbound, ConnsInbound: maxInbound, ConnsOutbound: 2 * maxInbound, FD: 4 * maxInbound,
			Streams: 2048, StreamsInbound: 1024, StreamsOutbound: 2048, Memory: rcmgr.LimitVal64(total),
		},
		Transient: rcmgr.ResourceLimits{ // before the handshake is done
			Conns: maxInbound, ConnsInbound: maxInbound / 2, ConnsOutbound: maxInbound, FD: maxInbound,
			Streams: 256, StreamsInbound: 128, StreamsOutbound: 256, Memory: maxMemory / 4,
		},
		PeerDefault: rcmgr.ResourceLimits{ // eight dials run at once per peer
			Conns: 12, ConnsInbound: 4, ConnsOutbound: 8, FD: 12,
			Streams: 128, StreamsInbound: 64, StreamsOutbound: 64, Memory: maxMemory / 2,
		},
		Conn:   rcmgr.ResourceLimits{Conns: 1, ConnsInbound: 1, ConnsOutbound: 1, FD: 1, Memory: maxMemory / 4},
		Stream: rcmgr.ResourceLimits{Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: 16 << 20},
		Service: map[string]rcmgr.ResourceLimits{serviceName: {
			Streams: 1024, StreamsInbound: 512, StreamsOutbound: 1024, Memory: maxMemory * 3 / 4,
		}},
		ServicePeer: map[string]rcmgr.ResourceLimits{serviceName: {
			Streams: 32, StreamsInbound: 16, StreamsOutbound: 32, Memory: maxMemory / 4,
		}},
		Protocol:     map[ID]rcmgr.ResourceLimits{},
		ProtocolPeer: map[ID]rcmgr.ResourceLimits{},
	}
	for use, most := range caps {
		partial.Service[string(use)] = rcmgr.ResourceLimits{Memory: rcmgr.LimitVal64(most)}
	}
	for id, most := range streams {
		partial.Protocol[id] = rcmgr.ResourceLimits{
			Streams: rcmgr.LimitVal(3 * most.total), StreamsInbound: rcmgr.LimitVal(most.total),
			StreamsOutbound: rcmgr.LimitVal(2 * most.total), Memory: maxMemory * 3 / 4,
		}
		partial.ProtocolPeer[id] = rcmgr.ResourceLimits{
			Streams: rcmgr.LimitVal(most.perPeer + 8), StreamsInbound: rcmgr.LimitVal(most.perPeer),
			StreamsOutbound: 8, Memory: maxMemory / 4,
		}
	}
	subnets4 := []rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: perSource}}
	subnets6 := []rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: perSource}, {PrefixLength: 48, ConnCount: 2 * perSource}}
	loopback4, loopback6 := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")
	source := rate.Limit{RPS: sourceRPS, Burst: sourceBurst}
	return rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(partial.Build(scaled.Scale(maxMemory, 4*maxInbound))),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(subnets4, subnets6),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: loopback4, ConnCount: math.MaxInt}},
			[]rcmgr.NetworkPrefixLimit{{Network: loopback6, ConnCount: math.MaxInt}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{{Prefix: loopback4}, {Prefix: loopback6}},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: source}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: source}, {PrefixLength: 48, Limit: rate.Limit{RPS: 2 * sourceRPS, Burst: 2 * sourceBurst}}},
				GracePeriod:      time.Minute,
			},
		}),
	)
}

// Addrs returns the addresses of a host that others can use, the best first: IPv4 before IPv6, TCP before
// QUIC. Loopback addresses are left out unless there is nothing else.
func Addrs(h host.Host) []multiaddr.Multiaddr {
	addrs := slices.Clone(h.Addrs())
	if reachable := slices.DeleteFunc(slices.Clone(addrs), isLoopback); len(reachable) > 0 {
		addrs = reachable
	}
	slices.SortStableFunc(addrs, func(a, b multiaddr.Multiaddr) int { return addrRank(a) - addrRank(b) })
	return addrs
}

// FullAddrs is Addrs with the peer ID of the host at the end of each.
func FullAddrs(h host.Host) []multiaddr.Multiaddr {
	addrs := Addrs(h)
	suffix := multiaddr.StringCast("/p2p/" + h.ID().String())
	out := make([]multiaddr.Multiaddr, len(addrs))
	for i, a := range addrs {
		out[i] = a.Encapsulate(suffix)
	}
	return out
}
