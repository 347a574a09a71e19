package protocol_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"peerdex/protocol"
	"peerdex/record"
)

const (
	tcp4  = "/ip4/127.0.0.1/tcp/0"
	quic4 = "/ip4/127.0.0.1/udp/0/quic-v1"
)

// node is one real host.
type node struct {
	host.Host
	gater  *protocol.Gater
	device record.DeviceID
}

func newNode(t *testing.T, listen ...string) *node {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	addrs := []multiaddr.Multiaddr{}
	for _, l := range listen {
		addrs = append(addrs, multiaddr.StringCast(l))
	}
	g := &protocol.Gater{}
	h, err := protocol.NewHost(protocol.HostConfig{Key: key, Gater: g, Listen: addrs, Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return &node{h, g, record.DeviceID(pub)}
}

// serve runs Serve until the test ends, or until the function it returns is called.
func (n *node) serve(t *testing.T, id protocol.ID, cfg protocol.ServeConfig, handle func(context.Context, *protocol.Conn) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- protocol.Serve(ctx, n, id, cfg, handle) }()
	until(t, "the handler is there", func() bool {
		return slices.Contains(n.Mux().Protocols(), id)
	})
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (n *node) dial(t *testing.T, to *node, id protocol.ID, cfg protocol.ConnConfig) (*protocol.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n.Peerstore().AddAddrs(to.ID(), to.Addrs(), time.Hour)
	return protocol.Dial(ctx, n, to.device, id, cfg)
}

// until waits for a condition, at most ten seconds.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// know makes members of all nodes everywhere.
func know(nodes ...*node) {
	var all []record.DeviceID
	for _, n := range nodes {
		all = append(all, n.device)
	}
	for _, n := range nodes {
		n.gater.Set(all)
	}
}

func echo(_ context.Context, c *protocol.Conn) error {
	for {
		m, err := c.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ask(c, m); err != nil {
			return err
		}
	}
}

func TestServeOverRealTransports(t *testing.T) {
	for _, listen := range []string{tcp4, quic4} {
		server, client := newNode(t, listen), newNode(t)
		know(server, client)
		var met atomic.Pointer[record.DeviceID]
		stop := server.serve(t, protocol.BackfillProtocol, protocol.ServeConfig{
			Conn: func(d record.DeviceID) protocol.ConnConfig {
				met.Store(&d)
				return protocol.ConnConfig{Compression: protocol.S2}
			},
		}, echo)
		c, err := client.dial(t, server, protocol.BackfillProtocol, protocol.ConnConfig{Compression: protocol.Zstd})
		if err != nil {
			t.Fatal(err)
		}
		page := &protocol.Page{Entries: entries(1000), Last: true}
		for range 20 {
			send(t, c, page)
			if got := recv[*protocol.Page](t, c); !reflect.DeepEqual(got, page) {
				t.Fatal("the page has changed on the way")
			}
		}
		if err := server.Network().ResourceManager().ViewService("peerdex", func(s network.ServiceScope) error {
			if got := s.Stat(); got.NumStreamsInbound != 1 {
				return fmt.Errorf("the resource manager counts %+v", got)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if *met.Load() != client.device || c.Device() != server.device {
			t.Error("the sides do not know each other")
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Recv(); err != io.EOF {
			t.Errorf("%s: at the end: %v", listen, err)
		}
		c.End(nil)
		if agent, err := client.Peerstore().Get(server.ID(), "AgentVersion"); err != nil || agent != "peerdex/1.2.3" {
			t.Errorf("agent is %v, %v", agent, err)
		}

		// When the server stops, streams end with shutdown and Serve returns.
		c, err = client.dial(t, server, protocol.BackfillProtocol, protocol.ConnConfig{})
		if err != nil {
			t.Fatal(err)
		}
		send(t, c, &protocol.Delta{After: 1})
		recv[*protocol.Delta](t, c)
		stop()
		_, err = c.Recv()
		if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodeShutdown || !e.Remote {
			t.Errorf("%s: after shutdown: %v", listen, err)
		}
		c.End(err)
	}
}

func TestResetCodesArrive(t *testing.T) {
	for _, listen := range []string{tcp4, quic4} {
		server, client := newNode(t, listen), newNode(t)
		know(server, client)
		fail := errors.New("disk full")
		for i, want := range []protocol.Code{protocol.CodeMismatch, protocol.CodeNotSettled, protocol.CodePaused, protocol.CodeInternal} {
			failed := make(chan error, 1)
			stop := server.serve(t, protocol.BackfillProtocol, protocol.ServeConfig{
				Failed: func(d record.DeviceID, err error) {
					if d != client.device {
						t.Errorf("blames %s", d)
					}
					failed <- err
				},
			}, func(_ context.Context, c *protocol.Conn) error {
				if _, err := c.Recv(); err != nil {
					return err
				}
				if i == 3 {
					return fail
				}
				return fmt.Errorf("serve: %w", want)
			})
			c, err := client.dial(t, server, protocol.BackfillProtocol, protocol.ConnConfig{})
			if err != nil {
				t.Fatal(err)
			}
			send(t, c, &protocol.Delta{})
			_, err = c.Recv()
			e, ok := errors.AsType[*protocol.Error](err)
			if !ok || e.Code != want || !e.Remote || !errors.Is(err, network.ErrReset) {
				t.Errorf("%s: got %v, want %v", listen, err, want)
			}
			if err := <-failed; protocol.CodeOf(err) != want {
				t.Errorf("%s: server was told %v", listen, err)
			}
			c.End(err)
			stop()
		}
	}
}

// What a hostile member sends over a real stream is refused with its code, over and over, and the server
// serves the next.
func TestHostileBytes(t *testing.T) {
	server, client := newNode(t, tcp4), newNode(t)
	know(server, client)
	var failures atomic.Int32
	server.serve(t, protocol.BackfillProtocol, protocol.ServeConfig{
		Conn: func(record.DeviceID) protocol.ConnConfig {
			return protocol.ConnConfig{FirstByte: time.Second, Frame: time.Second}
		},
		Failed: func(record.DeviceID, error) { failures.Add(1) },
	}, echo)
	attacks := []struct {
		name  string
		bytes []byte
		want  protocol.Code
	}{
		{"length 0xFFFFFFFF", []byte{35, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F}, protocol.CodeTooLarge},
		{"bomb", frame(35, 1, packed(1<<20, zstdOf(t, make([]byte, 1<<20)))), protocol.CodeTooLarge},
		{"unknown type", frame(63, 0, nil), protocol.CodeUnknownType},
		{"checksum", append(frame(34, 0, []byte{8, 5})[:5], 0, 0, 0, 0), protocol.CodeChecksum},
		{"half a frame, then nothing", frame(35, 0, bytes.Repeat([]byte{1}, 5000))[:100], protocol.CodeTimeout},
		{"nothing", nil, protocol.CodeTimeout},
	}
	for i, tc := range attacks {
		client.Peerstore().AddAddrs(server.ID(), server.Addrs(), time.Hour)
		s, err := client.NewStream(context.Background(), server.ID(), protocol.BackfillProtocol)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(tc.bytes); err != nil { // also opens the stream when there is nothing to say
			t.Fatal(err)
		}
		_, err = s.Read(make([]byte, 1))
		e, ok := errors.AsType[*network.StreamError](err)
		if !ok || !e.Remote || e.ErrorCode != network.StreamErrorCode(tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		_ = s.Reset()
		until(t, "the failure was reported", func() bool { return int(failures.Load()) == i+1 })
	}
	c, err := client.dial(t, server, protocol.BackfillProtocol, protocol.ConnConfig{})
	if err != nil {
		t.Fatal(err)
	}
	send(t, c, &protocol.Delta{After: 3})
	recv[*protocol.Delta](t, c)
	c.End(nil)
}

// Who is no member gets no connection, whatever it tries.
func TestStrangerGetsNothing(t *testing.T) {
	for _, listen := range []string{tcp4, quic4} {
		server, stranger := newNode(t, listen), newNode(t)
		server.gater.Set(nil)
		stranger.gater.Set([]record.DeviceID{server.device})
		handled := make(chan struct{}, 1)
		for _, id := range []protocol.ID{protocol.SessionProtocol, protocol.PairProtocol} {
			server.serve(t, id, protocol.ServeConfig{}, func(context.Context, *protocol.Conn) error {
				handled <- struct{}{}
				return nil
			})
			c, err := stranger.dial(t, server, id, protocol.ConnConfig{})
			if err == nil { // a dialler may learn of it only from the first read
				_ = ask(c, &protocol.Ping{T1: 1})
				_, err = c.Recv()
				c.End(err)
			}
			if err == nil || err == io.EOF {
				t.Errorf("%s: stranger got %v on %s", listen, err, id)
			}
		}
		if len(handled) > 0 {
			t.Error("a handler ran for a stranger")
		}
		if got := server.Network().Peers(); len(got) != 0 {
			t.Errorf("connected to %v", got)
		}
		// And nobody dials a stranger either.
		if _, err := server.dial(t, stranger, protocol.SessionProtocol, protocol.ConnConfig{}); err == nil {
			t.Error("a stranger was dialled")
		}
	}
}

// While a pairing window is open a stranger may pair, and do nothing else. When it closes, it is gone.
func TestPairingWindow(t *testing.T) {
	for _, listen := range []string{tcp4, quic4} {
		inviter, joiner := newNode(t, listen), newNode(t)
		var refused atomic.Int32
		inviter.serve(t, protocol.SessionProtocol, protocol.ServeConfig{
			Gate: func(d record.DeviceID) error {
				if !inviter.gater.Member(protocol.PeerID(d)) {
					return protocol.CodeNotMember
				}
				return nil
			},
			Failed: func(record.DeviceID, error) { refused.Add(1) },
		}, echo)
		book := newBook()
		inviter.serve(t, protocol.PairProtocol, protocol.ServeConfig{}, func(_ context.Context, c *protocol.Conn) error {
			_, err := protocol.ServePair(t.Context(), c, inviter.device, book.redeem, nil)
			return err
		})
		inviter.gater.Open(1)
		done := joiner.gater.Admit(inviter.device)

		c, err := joiner.dial(t, inviter, protocol.SessionProtocol, protocol.ConnConfig{})
		if err != nil {
			t.Fatal(err)
		}
		_ = ask(c, &protocol.Ping{T1: 1})
		if _, err := c.Recv(); !errors.Is(err, protocol.CodeNotMember) {
			t.Errorf("%s: a stranger's session: %v", listen, err)
		}
		c.End(err)
		until(t, "the refusal was reported", func() bool { return refused.Load() == 1 })

		// The window is full: one more stranger must wait.
		second := newNode(t)
		second.gater.Admit(inviter.device)
		if c, err := second.dial(t, inviter, protocol.PairProtocol, protocol.ConnConfig{}); err == nil {
			_, err = protocol.Pair(c, protocol.Joiner{Device: second.device}, book.secret)
			c.End(err)
			if err == nil || book.used {
				t.Errorf("%s: more strangers than the window lets in", listen)
			}
		}

		c, err = joiner.dial(t, inviter, protocol.PairProtocol, protocol.ConnConfig{})
		if err != nil {
			t.Fatal(err)
		}
		w, err := protocol.Pair(c, protocol.Joiner{Device: joiner.device, Name: "nas"}, book.secret)
		if err != nil || !reflect.DeepEqual(w, book.welcome) {
			t.Fatalf("%s: got %+v, %v", listen, w, err)
		}
		c.End(nil)
		joiner.gater.Set([]record.DeviceID{inviter.device})
		done()
		inviter.gater.Close()
		until(t, "the window's guest is gone", func() bool { return len(inviter.Network().Peers()) == 0 })

		inviter.gater.Set([]record.DeviceID{joiner.device})
		inviter.gater.Close()
		until(t, "the joiner noticed", func() bool { return joiner.Network().Connectedness(inviter.ID()) != network.Connected })
		c, err = joiner.dial(t, inviter, protocol.SessionProtocol, protocol.ConnConfig{})
		if err != nil {
			t.Fatal(err)
		}
		send(t, c, &protocol.Ping{T1: 2})
		recv[*protocol.Ping](t, c)
		c.End(nil)
	}
}

func TestRevokedMemberIsDisconnected(t *testing.T) {
	for _, listen := range []string{tcp4, quic4} {
		server, client, other := newNode(t, listen), newNode(t), newNode(t)
		know(server, client, other)
		server.serve(t, protocol.SessionProtocol, protocol.ServeConfig{}, echo)
		var conns []*protocol.Conn
		for _, n := range []*node{client, other} {
			c, err := n.dial(t, server, protocol.SessionProtocol, protocol.ConnConfig{})
			if err != nil {
				t.Fatal(err)
			}
			send(t, c, &protocol.Ping{T1: 1})
			recv[*protocol.Ping](t, c)
			conns = append(conns, c)
			if !server.ConnManager().IsProtected(n.ID(), "member") {
				t.Error("a member is not protected")
			}
		}
		server.gater.Open(1) // strangers may come, but who was a member must go
		server.gater.Set([]record.DeviceID{other.device})
		if server.Network().Connectedness(client.ID()) == network.Connected || server.ConnManager().IsProtected(client.ID(), "member") {
			t.Error("the revoked member is still there")
		}
		if _, err := conns[0].Recv(); err == nil || err == io.EOF {
			t.Errorf("%s: the revoked member's stream: %v", listen, err)
		}
		conns[0].End(protocol.CodeLost)
		send(t, conns[1], &protocol.Ping{T1: 2})
		recv[*protocol.Ping](t, conns[1])
		conns[1].End(nil)
	}
}

func TestOnlyEd25519(t *testing.T) {
	server := newNode(t, tcp4, quic4)
	server.gater.Open(8) // strangers are welcome, but not these
	server.serve(t, protocol.PairProtocol, protocol.ServeConfig{}, echo)
	for _, kind := range []int{crypto.RSA, crypto.Secp256k1, crypto.ECDSA} {
		key, _, err := crypto.GenerateKeyPair(kind, 2048)
		if err != nil {
			t.Fatal(err)
		}
		h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range server.Addrs() {
			h.Peerstore().AddAddrs(server.ID(), []multiaddr.Multiaddr{a}, time.Hour)
			s, err := h.NewStream(context.Background(), server.ID(), protocol.PairProtocol)
			if err == nil {
				_, _ = s.Write([]byte{1})
				if _, err = s.Read(make([]byte, 1)); err == nil {
					t.Errorf("a key of type %d was answered on %s", kind, a)
				}
				_ = s.Reset()
			}
			h.Peerstore().ClearAddrs(server.ID())
		}
		if got := server.Network().Connectedness(h.ID()); got == network.Connected {
			t.Errorf("a key of type %d is connected", kind)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

// One peer gets as many streams of a protocol as it may have, and no more.
func TestStreamLimit(t *testing.T) {
	server, client := newNode(t, tcp4), newNode(t)
	know(server, client)
	server.serve(t, protocol.BackfillProtocol, protocol.ServeConfig{}, echo)
	var open []*protocol.Conn
	for i := range 6 {
		c, err := client.dial(t, server, protocol.BackfillProtocol, protocol.ConnConfig{})
		if err != nil {
			t.Fatal(err)
		}
		_ = ask(c, &protocol.Delta{After: uint64(i)})
		_, err = c.Recv()
		if i < 4 && err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
		if i >= 4 && !errors.Is(err, protocol.CodeBusy) {
			t.Errorf("stream %d: %v, want busy", i, err)
		}
		open = append(open, c)
	}
	for _, c := range open {
		c.End(nil)
	}
	until(t, "closed streams make room", func() bool {
		c, err := client.dial(t, server, protocol.BackfillProtocol, protocol.ConnConfig{})
		if err != nil {
			return false
		}
		defer c.End(nil)
		if ask(c, &protocol.Delta{}) != nil {
			return false
		}
		_, err = c.Recv()
		return err == nil
	})
}

// Serve has its own limit, for hosts whose resource manager has none, and outlives its handlers.
func TestServeLimitAndLifetime(t *testing.T) {
	var hosts [2]host.Host
	for i := range hosts {
		h, err := libp2p.New(libp2p.ListenAddrStrings(tcp4), libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		hosts[i] = h
	}
	server, client := hosts[0], hosts[1]
	device, err := protocol.DeviceOf(server.ID())
	if err != nil {
		t.Fatal(err)
	}
	client.Peerstore().AddAddrs(server.ID(), server.Addrs(), time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	var running atomic.Int32
	release, served := make(chan struct{}), make(chan error, 1)
	n := &node{Host: server}
	go func() {
		served <- protocol.Serve(ctx, server, protocol.PairProtocol, protocol.ServeConfig{}, func(ctx context.Context, c *protocol.Conn) error {
			running.Add(1)
			defer running.Add(-1)
			<-ctx.Done()
			<-release // a handler that is slow to stop
			return nil
		})
	}()
	until(t, "the handler is there", func() bool { return slices.Contains(n.Mux().Protocols(), protocol.PairProtocol) })
	open := func() *protocol.Conn {
		c, err := protocol.Dial(context.Background(), client, device, protocol.PairProtocol, protocol.ConnConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(c, &protocol.PairHello{}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for range 8 {
		open()
	}
	until(t, "eight handlers run", func() bool { return running.Load() == 8 })
	if _, err := open().Recv(); !errors.Is(err, protocol.CodeBusy) {
		t.Errorf("a ninth stream: %v", err)
	}
	cancel()
	until(t, "the handler is gone", func() bool { return !slices.Contains(n.Mux().Protocols(), protocol.PairProtocol) })
	if _, err := protocol.Dial(context.Background(), client, device, protocol.BackfillProtocol, protocol.ConnConfig{}); err == nil {
		t.Error("a protocol nobody serves was opened") // asked for the round trip: time for Serve to return
	}
	select {
	case <-served:
		t.Error("Serve returned before its handlers")
	default:
	}
	close(release)
	if err := <-served; err != nil || running.Load() != 0 {
		t.Errorf("Serve returned %v with %d handlers running", err, running.Load())
	}
}

func TestUnsupportedProtocol(t *testing.T) {
	server, client := newNode(t, tcp4), newNode(t)
	know(server, client)
	for range 2 { // before and after identify told what the peer speaks
		c, err := client.dial(t, server, protocol.StateBatchProtocol, protocol.ConnConfig{})
		if err == nil {
			_ = ask(c, &protocol.Ack{})
			_, err = c.Recv()
			c.End(err)
		}
		if !errors.Is(err, protocol.CodeUnsupported) {
			t.Errorf("got %v", err)
		}
	}
}

func TestListenErrors(t *testing.T) {
	tcpIn, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcpIn.Close()
	udpIn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udpIn.Close()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := newNode(t, tcp4) // another peer of the same user counts too
	for _, text := range []string{
		fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", tcpIn.Addr().(*net.TCPAddr).Port),
		fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", udpIn.LocalAddr().(*net.UDPAddr).Port),
		other.Addrs()[0].String(),
	} {
		bad := multiaddr.StringCast(text)
		_, err := protocol.NewHost(protocol.HostConfig{Key: key, Gater: &protocol.Gater{}, Listen: []multiaddr.Multiaddr{multiaddr.StringCast(tcp4), bad}})
		e, ok := errors.AsType[*protocol.ListenError](err)
		if !ok || !e.Addr.Equal(bad) || !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := protocol.NewHost(protocol.HostConfig{Gater: &protocol.Gater{}}); err == nil {
		t.Error("a host without a key")
	}
}

func TestFullAddrs(t *testing.T) {
	n := newNode(t, quic4, tcp4)
	got := protocol.FullAddrs(n)
	if len(got) != 2 {
		t.Fatalf("got %v", got)
	}
	for i, want := range []int{multiaddr.P_TCP, multiaddr.P_UDP} {
		info, err := peer.AddrInfoFromP2pAddr(got[i])
		if err != nil || info.ID != n.ID() {
			t.Errorf("%s: %v", got[i], err)
		}
		if _, err := got[i].ValueForProtocol(want); err != nil {
			t.Errorf("%s comes as number %d", got[i], i)
		}
		j, err := protocol.ParseJoin(got[i].String())
		if err != nil || j.Device != n.device {
			t.Errorf("%s: %v", got[i], err)
		}
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h, err := protocol.NewHost(protocol.HostConfig{Key: key, Gater: &protocol.Gater{}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	addrs := protocol.FullAddrs(h)
	if len(addrs) < 2 {
		t.Errorf("default addresses: %v", addrs)
	}
}
