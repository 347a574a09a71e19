package integration

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/multiformats/go-multiaddr"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// rogue is a device that speaks to a real one by hand. Once it has joined it is a member like any other:
// what it may do wrong is up to the test.
type rogue struct {
	t       testing.TB
	key     ed25519.PrivateKey
	device  record.DeviceID
	host    host.Host
	gater   *protocol.Gater
	target  record.DeviceID
	welcome protocol.Welcome
}

// newRogue returns a device that knows where target is and has not joined.
func newRogue(t testing.TB, target started) *rogue {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newRogueOf(t, target, key)
}

// newRogueOf is newRogue for a device with that key.
func newRogueOf(t testing.TB, target started, key ed25519.PrivateKey) *rogue {
	t.Helper()
	r := &rogue{t: t, key: key, device: record.DeviceID(key.Public().(ed25519.PublicKey)), gater: &protocol.Gater{}}
	var err error
	r.host, err = protocol.NewHost(protocol.HostConfig{Key: key, Gater: r.gater, Listen: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.host.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, line := range target.Status.Listen {
		j, err := protocol.ParseJoin(line)
		if err != nil {
			t.Fatal(err)
		}
		r.target = j.Device
		r.host.Peerstore().AddAddr(protocol.PeerID(j.Device), j.Addr, peerstore.PermanentAddrTTL)
	}
	r.gater.Set([]record.DeviceID{r.target})
	return r
}

// pair joins with the secret of a join line.
func (r *rogue) pair(line string) error {
	r.t.Helper()
	_, text, _ := strings.Cut(line, "#")
	secret, err := protocol.ParseSecret(text)
	if err != nil {
		r.t.Fatal(err)
	}
	conn, err := protocol.Dial(r.t.Context(), r.host, r.target, protocol.PairProtocol, protocol.ConnConfig{})
	if err != nil {
		return err
	}
	r.welcome, err = protocol.Pair(conn, protocol.Joiner{Device: r.device, Name: "rogue", OS: "test", AppVersion: "0"}, secret)
	conn.End(err)
	return err
}

// request joins without a secret: approve is called with the digits, in a goroutine of its own.
func (r *rogue) request(approve func(digits string)) error {
	r.t.Helper()
	conn, err := protocol.Dial(r.t.Context(), r.host, r.target, protocol.PairProtocol, protocol.ConnConfig{})
	if err != nil {
		return err
	}
	approved := make(chan struct{})
	show := func(d protocol.Digits) {
		go func() {
			defer close(approved)
			approve(string(d))
		}()
	}
	r.welcome, err = protocol.Ask(conn, protocol.Joiner{Device: r.device, Name: "rogue", OS: "test", AppVersion: "0"}, show)
	conn.End(err)
	<-approved
	return err
}

// joined returns a rogue that is a member by one of the invites behind line.
func joined(t testing.TB, target started, line string) *rogue {
	t.Helper()
	r := newRogue(t, target)
	if err := r.pair(line); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rogue) hello() protocol.Hello {
	return protocol.Hello{
		Library: r.welcome.Library, Session: protocol.NewSessionID(), MinVersion: protocol.MinVersion, MaxVersion: protocol.MaxVersion,
		Name: "rogue", OS: "test", AppVersion: "0", Boot: 7, HLC: hlc.At(time.Now()), Certs: r.welcome.Certs,
	}
}

// greet opens a session.
func (r *rogue) greet(h protocol.Hello) (*protocol.Conn, error) {
	r.t.Helper()
	conn, err := protocol.Dial(r.t.Context(), r.host, r.target, protocol.SessionProtocol, protocol.ConnConfig{})
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { conn.Reset(protocol.CodeShutdown) })
	_, err = protocol.Greet(conn, h, time.Now)
	return conn, err
}

// open returns a store of the rogue's own, which the test closes.
func (r *rogue) open(clock *hlc.Clock) *store.Store {
	r.t.Helper()
	st, err := store.Open(filepath.Join(tempDir(r.t), "store"), store.Config{
		Device: r.device, Library: r.welcome.Library, Boot: 7, Clock: clock.Now, Sign: func(h feed.Head) feed.Head { return h.Sign(r.key) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := st.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return st
}

// serve answers a protocol until the test ends.
func (r *rogue) serve(id protocol.ID, handle func(*protocol.Conn) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = protocol.Serve(ctx, r.host, id, protocol.ServeConfig{}, func(_ context.Context, c *protocol.Conn) error { return handle(c) })
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// askFor opens a stream and returns the first byte that comes back.
func (r *rogue) askFor(id protocol.ID) (byte, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	s, err := r.host.NewStream(ctx, protocol.PeerID(r.target), id)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	var b [1]byte
	if _, err := s.Write(framed(r.t, &protocol.Ping{T1: 1})); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(s, b[:])
	return b[0], err
}

// send writes bytes on a new stream, closes it for writing if they are all, and returns the code that the
// stream is reset with; 0 if it is closed in order.
func (r *rogue) send(id protocol.ID, b []byte, all bool) protocol.Code {
	r.t.Helper()
	s, err := r.host.NewStream(r.t.Context(), protocol.PeerID(r.target), id)
	if err != nil {
		return resetCode(r.t, err)
	}
	defer s.Close()
	_, err = s.Write(b)
	if all && err == nil {
		err = s.CloseWrite()
	}
	if err != nil {
		return resetCode(r.t, err)
	}
	if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	if _, err = io.Copy(io.Discard, s); err == nil {
		return 0
	}
	return resetCode(r.t, err)
}

func resetCode(t testing.TB, err error) protocol.Code {
	t.Helper()
	var reset *network.StreamError
	if !errors.As(err, &reset) {
		t.Fatalf("the stream ended with %v, not with a code", err)
	}
	return protocol.Code(reset.ErrorCode)
}

// frame writes a message as it goes over the wire.
func frame(number, flags byte, payload []byte) []byte {
	b := binary.AppendUvarint([]byte{number, flags}, uint64(len(payload)))
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Update(0, table, []byte{number, flags}), table, payload)
	return binary.LittleEndian.AppendUint32(append(b, payload...), sum)
}

// framed writes a good message as it goes over the wire.
func framed(t testing.TB, m protocol.Message) []byte {
	t.Helper()
	payload, err := protocol.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return frame(protocol.Number(m), 0, payload)
}

// entries makes n entries of registers, of this device's name and system, as it would write them itself.
func (r *rogue) entries(n int) (out []feed.Entry) {
	for i := range n {
		reg := record.Register{
			Entity: record.Device(r.device), Field: []string{record.FieldName, record.FieldSystem, record.FieldVersion}[i%3], Value: []byte("rogue"),
			Author: r.device, Stamp: hlc.At(time.Now()),
		}
		out = append(out, feed.Entry{Key: reg.Key(), Seq: uint64(i + 1), Record: reg.Append(nil)})
	}
	return out
}

// head signs a head over entries of the own device feed.
func (r *rogue) head(entries []feed.Entry) feed.Head {
	r.t.Helper()
	tree := feed.NewEditor(feed.DefaultShape, &treeNodes{leaves: map[uint64]feed.Leaf{}, nodes: map[[2]uint64][]feed.Hash{}})
	for _, e := range entries {
		if err := tree.Add(feed.Ref{Seq: e.Seq, Digest: e.Digest()}); err != nil {
			r.t.Fatal(err)
		}
	}
	seq := entries[len(entries)-1].Seq
	root, err := tree.Flush(seq)
	if err != nil {
		r.t.Fatal(err)
	}
	return feed.Head{
		Library: r.welcome.Library, Feed: feed.ID{Device: r.device}, Seq: seq, Count: uint64(len(entries)), Root: root, Boot: 7, Stamp: hlc.At(time.Now()),
	}.Sign(r.key)
}

// headOf receives on a session until the other side has told the head of a location of its own, and goes on, answering
// heartbeats, until the test ends.
func (r *rogue) headOf(session *protocol.Conn) feed.Head {
	r.t.Helper()
	found := make(chan feed.Head, 1)
	go func() {
		for {
			m, err := session.Recv()
			if err != nil {
				close(found)
				return
			}
			if ping, ok := m.(*protocol.Ping); ok && errors.Join(session.Send(ping.Pong(time.Now(), time.Now())), session.Flush()) != nil {
				continue // the next Recv says why
			}
			heads, ok := m.(*protocol.Heads)
			if !ok {
				continue
			}
			for _, h := range heads.Heads {
				if h.Best.Feed.Device == r.target && !h.Best.Feed.IsDevice() {
					select {
					case found <- h.Best:
					default:
					}
				}
			}
		}
	}()
	head, ok := <-found
	if !ok {
		r.t.Fatal("the session ended before a head was told")
	}
	return head
}
