package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"peerdex/record"
)

// ID names a stream protocol.
type ID = protocol.ID

// Stream protocols. A change that an older side would misread gets a new number at the end.
const (
	SessionProtocol    ID = "/peerdex/session/1"    // hello, then heads and heartbeats; opened by the dialer
	PairProtocol       ID = "/peerdex/pair/1"       // opened by the joiner
	StateBatchProtocol ID = "/peerdex/statebatch/1" // pushes; opened by the pusher
	BackfillProtocol   ID = "/peerdex/backfill/1"   // pulls; opened by the puller
	LookupProtocol     ID = "/peerdex/lookup/1"     // questions about a location; opened by who asks
	SnapshotProtocol   ID = "/peerdex/snapshot/1"   // all feeds at once; opened by whoever lacks them
)

// streams are the limits on inbound streams of each protocol.
var streams = map[ID]struct{ perPeer, total int }{
	SessionProtocol:    {2, 128}, // two while a broken one is being noticed
	PairProtocol:       {1, 8},
	StateBatchProtocol: {2, 128},
	BackfillProtocol:   {4, 64},
	LookupProtocol:     {8, 64}, // four, and as many that were answered and are being cleared away
	SnapshotProtocol:   {2, 16},
}

// ServeConfig tunes Serve. The zero value answers everybody.
type ServeConfig struct {
	Gate   func(record.DeviceID) error      // membership, asked when a stream opens; nil lets all in
	Conn   func(record.DeviceID) ConnConfig // nil: the zero ConnConfig; Device and Protocol are filled in
	Failed func(record.DeviceID, error)     // told why a stream was refused or its handler failed; may be nil
}

// Serve answers id with handle until ctx ends, then waits for handlers still running: a handler may use
// what is closed after Serve has returned. Streams end with the code of the handler's error, and with
// CodeShutdown when ctx ends. Beyond the protocol's limit they are refused with CodeBusy.
func Serve(ctx context.Context, h host.Host, id ID, cfg ServeConfig, handle func(context.Context, *Conn) error) error {
	var (
		mu       sync.Mutex
		stopping bool
		running  int
		active   sync.WaitGroup // Add only under mu while !stopping, so never racing Wait
	)
	most := streams[id].total
	enter := func() error {
		mu.Lock()
		defer mu.Unlock()
		if stopping {
			return CodeShutdown
		}
		if most > 0 && running >= most {
			return CodeBusy
		}
		running++
		active.Add(1)
		return nil
	}
	leave := func() {
		mu.Lock()
		defer mu.Unlock()
		running--
		active.Done()
	}
	h.SetStreamHandler(id, func(s network.Stream) {
		if err := enter(); err != nil {
			_ = netStream{s}.Reset(CodeOf(err))
			return
		}
		defer leave()
		device, err := serveStream(ctx, s, id, cfg, handle)
		if err != nil && ctx.Err() == nil && cfg.Failed != nil {
			cfg.Failed(device, err)
		}
	})
	<-ctx.Done()
	h.RemoveStreamHandler(id)
	mu.Lock()
	stopping = true
	mu.Unlock()
	active.Wait()
	return nil
}

func serveStream(ctx context.Context, s network.Stream, id ID, cfg ServeConfig, handle func(context.Context, *Conn) error) (record.DeviceID, error) {
	device, err := DeviceOf(s.Conn().RemotePeer())
	if err == nil && cfg.Gate != nil {
		err = cfg.Gate(device)
	}
	if err == nil {
		err = s.Scope().SetService(serviceName)
	}
	if err != nil {
		_ = netStream{s}.Reset(CodeOf(err))
		return device, fmt.Errorf("accept %s: %w", id, err)
	}
	var cc ConnConfig
	if cfg.Conn != nil {
		cc = cfg.Conn(device)
	}
	cc.Device, cc.Protocol = device, id
	c := NewConn(netStream{s}, cc)
	defer c.Bind(ctx)()
	err = handle(ctx, c)
	c.End(err)
	return device, err
}

// Dial opens a stream to a device, over a connection that exists or a new one to its known addresses
// (network.WithNoDial in ctx forbids the latter). ctx bounds the opening only; see Conn.Bind. The error is
// an *Error with CodeUnsupported if the device does not speak id, else libp2p's. Success is no sign of
// membership: a device that refuses this one ends the stream later.
func Dial(ctx context.Context, h host.Host, d record.DeviceID, id ID, cfg ConnConfig) (*Conn, error) {
	s, err := h.NewStream(ctx, PeerID(d), id)
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", id, d.Short(), unsupported(err))
	}
	if err := s.Scope().SetService(serviceName); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("open %s to %s: %w", id, d.Short(), &Error{Code: CodeBusy, Detail: err.Error(), cause: err})
	}
	cfg.Device, cfg.Protocol = d, id
	return NewConn(netStream{s}, cfg), nil
}

func unsupported(err error) error {
	if _, ok := errors.AsType[multistream.ErrNotSupported[ID]](err); ok {
		return &Error{Code: CodeUnsupported, Remote: true, cause: err}
	}
	return err
}

// netStream is a libp2p stream as a Stream.
type netStream struct{ network.Stream }

var (
	_ Stream    = netStream{}
	_ deadliner = netStream{}
	_ reserver  = netStream{}
)

func (s netStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if n > 0 { // yamux has read, and could not say so to the other side. What there is to say about that, the next read does
		return n, nil
	}
	return n, translate(err)
}

func (s netStream) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	return n, translate(err)
}

func (s netStream) Reset(code Code) error {
	return s.ResetWithError(network.StreamErrorCode(code))
}

// Reserve takes from the stream's budget, all of which libp2p gives back when the stream ends.
func (s netStream) Reserve(bytes int) error {
	return s.Scope().ReserveMemory(bytes, network.ReservationPriorityAlways)
}

// Release gives some of it back before.
func (s netStream) Release(bytes int) { s.Scope().ReleaseMemory(bytes) }

// translate gives libp2p's stream errors our codes.
func translate(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if e, ok := errors.AsType[*network.StreamError](err); ok && e.Remote {
		return &Error{Code: fromReset(e.ErrorCode), Remote: true, cause: err}
	}
	return unsupported(err)
}
