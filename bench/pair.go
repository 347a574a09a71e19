package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"peerdex/node"
	"peerdex/protocol"
	"peerdex/record"
)

// pairFiles are the files of the device that is joined: they come in one page.
const pairFiles = 500

// pairing measures from the start of `peer join` until the first page of the other device has been received,
// committed and can be asked for, beside the least that cannot be left out: a connection and one question
// over it.
func (b *bench) pairing(ctx context.Context) error {
	var command, raw []float64
	for i := range b.runs {
		note("pair: run %d of %d", i+1, b.runs)
		took, err := b.pairOnce(ctx)
		if err != nil {
			return err
		}
		command = append(command, ms(took))
		if took, err = rawPair(ctx); err != nil {
			return err
		}
		raw = append(raw, ms(took))
	}
	b.table.add(figure{what: "pairing, from the start of `peer join` until the first page is there", unit: "ms", got: command, bar: 1000, strict: true})
	b.table.add(figure{what: "the same beside a libp2p dial and one round trip", unit: "ms", got: command, peer: "dial", of: raw})
	return nil
}

func (b *bench) pairOnce(ctx context.Context) (took time.Duration, err error) {
	folder, err := b.fresh("pair-")
	if err != nil {
		return 0, err
	}
	for i := range pairFiles {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file %03d", i)), []byte("x"), 0o600); err != nil {
			return 0, err
		}
	}
	var both [2]*daemon
	for k, name := range []string{"A", "B"} {
		home, err := b.fresh("home-")
		if err != nil {
			return 0, err
		}
		port, err := freePort()
		if err != nil {
			return 0, err
		}
		if both[k], err = b.start(ctx, name, home, port); err != nil {
			return 0, err
		}
	}
	a, z := both[0], both[1]
	if _, err := b.command(ctx, a, "add", folder); err != nil {
		return 0, err
	}
	self, err := a.self(ctx)
	if err != nil {
		return 0, err
	}
	invite, err := a.client.Invite(ctx, node.InviteRequest{})
	if err != nil {
		return 0, err
	}
	flush()
	start := time.Now()
	joined := make(chan error, 1)
	go func() {
		_, err := b.command(ctx, z, "join", invite.Line)
		joined <- err
	}()
	err = z.await(ctx, time.Millisecond, "it has the first page", func() (bool, error) {
		there, err := z.shows(ctx, self, filepath.Join(folder, "file 000"))
		var unknown *node.Problem
		if errors.As(err, &unknown) && unknown.Code == node.CodeUnknownDevice {
			return false, nil
		}
		return there, err
	})
	took = time.Since(start)
	return took, errors.Join(err, <-joined, a.stop(ctx), z.stop(ctx))
}

// rawPair opens a connection between two hosts such as a peer has, a stream over it, and asks one question.
func rawPair(ctx context.Context) (took time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var hosts [2]host.Host
	var gaters [2]*protocol.Gater
	for i := range hosts {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return 0, err
		}
		gaters[i] = &protocol.Gater{}
		hosts[i], err = protocol.NewHost(protocol.HostConfig{Key: key, Gater: gaters[i], Listen: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}})
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, hosts[i].Close()) }()
	}
	var devices [2]record.DeviceID
	for i, h := range hosts {
		if devices[i], err = protocol.DeviceOf(h.ID()); err != nil {
			return 0, err
		}
	}
	for i, g := range gaters {
		g.Set([]record.DeviceID{devices[1-i]})
	}
	served := make(chan error, 1)
	go func() {
		served <- protocol.Serve(ctx, hosts[0], protocol.PairProtocol, protocol.ServeConfig{}, func(_ context.Context, c *protocol.Conn) error {
			if _, err := c.Recv(); err != nil {
				return err
			}
			return errors.Join(c.Send(&protocol.PairChallenge{}), c.Flush())
		})
	}()
	defer func() {
		cancel()
		err = errors.Join(err, <-served)
	}()
	hosts[1].Peerstore().AddAddrs(hosts[0].ID(), hosts[0].Addrs(), time.Minute)
	for { // until it answers the protocol
		if supported := hosts[0].Mux().Protocols(); slices.Contains(supported, protocol.PairProtocol) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	if err := hosts[1].Connect(ctx, peer.AddrInfo{ID: hosts[0].ID()}); err != nil {
		return 0, err
	}
	conn, err := protocol.Dial(ctx, hosts[1], devices[0], protocol.PairProtocol, protocol.ConnConfig{})
	if err != nil {
		return 0, err
	}
	if err := errors.Join(conn.Send(&protocol.PairHello{}), conn.Flush()); err != nil {
		return 0, err
	}
	if _, err := conn.Recv(); err != nil {
		return 0, err
	}
	return time.Since(start), conn.Close()
}
