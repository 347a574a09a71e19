package protocol_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
	"peerdex/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// traffic adds up what a Conn reports.
type traffic struct {
	mu                   sync.Mutex // guards everything below
	sent, received       int
	rawSent, rawReceived int
	device               string
}

func (t *traffic) BytesSent(d string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.device, t.sent = d, t.sent+n
}

func (t *traffic) BytesReceived(d string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.device, t.received = d, t.received+n
}

func (t *traffic) Uncompressed(direction string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if direction == "out" {
		t.rawSent += n
	} else {
		t.rawReceived += n
	}
}

// timeless hides the deadlines of a stream.
type timeless struct{ protocol.Stream }

func entries(n int) []feed.Entry {
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([]feed.Entry, n)
	for i := range out {
		key := make([]byte, 16)
		for j := range key {
			key[j] = byte(rng.Uint32())
		}
		rec := fmt.Appendf(nil, "record %d of a folder with a long name, holding photographs", i)
		out[i] = feed.Entry{Key: key, Seq: uint64(i + 1), Record: rec}
	}
	return out
}

func send(t *testing.T, c *protocol.Conn, messages ...protocol.Message) {
	t.Helper()
	for _, m := range messages {
		if err := c.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

func recv[M protocol.Message](t *testing.T, c *protocol.Conn) M {
	t.Helper()
	m, err := c.Recv()
	if err != nil {
		t.Fatal(err)
	}
	got, ok := m.(M)
	if !ok {
		t.Fatalf("got %T", m)
	}
	return got
}

func TestConnCarriesMessages(t *testing.T) {
	for _, how := range []protocol.Compression{protocol.Uncompressed, protocol.Zstd, protocol.S2} {
		var ta, tb traffic
		a, b := protocoltest.Pipe()
		var dev record.DeviceID
		dev[0] = 9
		sid := protocol.NewSessionID()
		left := protocol.NewConn(timeless{a}, protocol.ConnConfig{Device: dev, Session: sid, Compression: how, Traffic: &ta})
		right := protocol.NewConn(b, protocol.ConnConfig{Traffic: &tb})
		if left.Device() != dev || left.Session() != sid || left.Compression() != how {
			t.Error("the config is not kept")
		}
		page := &protocol.Page{Entries: entries(1000), Last: true}
		send(t, left, &protocol.Delta{After: 7}, page)
		if got := recv[*protocol.Delta](t, right); got.After != 7 {
			t.Errorf("got %+v", got)
		}
		if got := recv[*protocol.Page](t, right); !reflect.DeepEqual(got, page) {
			t.Errorf("%v: the page has changed on the way", how)
		}
		if err := left.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := right.Recv(); err != io.EOF {
				t.Errorf("after the end: %v, want EOF", err)
			}
		}
		send(t, right, &protocol.Delta{After: 8}) // the other direction still works
		if got := recv[*protocol.Delta](t, left); got.After != 8 {
			t.Errorf("got %+v", got)
		}
		if err := errors.Join(left.Close(), right.Close()); err != nil {
			t.Error(err)
		}
		if ta.sent != a.Written() || ta.sent != tb.received || ta.received != tb.sent || ta.received != b.Written() {
			t.Errorf("%v: counted %+v and %+v, written %d and %d", how, &ta, &tb, a.Written(), b.Written())
		}
		if ta.rawSent != tb.rawReceived || tb.rawSent != ta.rawReceived {
			t.Errorf("%v: uncompressed %+v and %+v", how, &ta, &tb)
		}
		if squeezed := ta.sent < ta.rawSent*2/3; squeezed != (how != protocol.Uncompressed) {
			t.Errorf("%v: %d bytes on the wire of %d", how, ta.sent, ta.rawSent)
		}
		if how == protocol.Uncompressed && ta.sent != ta.rawSent {
			t.Errorf("%d bytes on the wire, %d uncompressed", ta.sent, ta.rawSent)
		}
		if ta.device != dev.Short() {
			t.Errorf("counted for %q", ta.device)
		}
	}
}

func TestConnRefusesToSendTooMuchAndGoesOn(t *testing.T) {
	a, b := protocoltest.Pipe()
	left, right := protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
	if err := left.Send(&protocol.Page{Entries: entries(1001)}); !errors.Is(err, protocol.CodeTooLarge) {
		t.Errorf("got %v", err)
	}
	send(t, left, &protocol.Delta{After: 1})
	recv[*protocol.Delta](t, right)
}

// What compresses better than a receiver believes is sent as it is.
func TestUnbelievableCompressionIsNotSent(t *testing.T) {
	page := &protocol.Page{Entries: []feed.Entry{{Key: []byte{1}, Seq: 1, Record: make([]byte, 60<<10)}}}
	for _, how := range []protocol.Compression{protocol.Zstd, protocol.S2} {
		a, b := protocoltest.Pipe()
		send(t, protocol.NewConn(a, protocol.ConnConfig{Compression: how}), page)
		if got := recv[*protocol.Page](t, protocol.NewConn(b, protocol.ConnConfig{})); !reflect.DeepEqual(got, page) {
			t.Errorf("%v: the page has changed on the way", how)
		}
	}
}

// frame builds a frame by the specification, not by the code under test.
func frame(number, flags byte, payload []byte) []byte {
	out := binary.AppendUvarint([]byte{number, flags}, uint64(len(payload)))
	out = append(out, payload...)
	sum := crc32.Checksum(append([]byte{number, flags}, payload...), crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32(out, sum)
}

func packed(size uint64, data []byte) []byte { return append(binary.AppendUvarint(nil, size), data...) }

func zstdOf(t *testing.T, raw []byte, opts ...zstd.EOption) []byte {
	e, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(raw, nil)
}

func TestBadBytes(t *testing.T) {
	const page, ping, delta = 35, 3, 34
	good := frame(delta, 0, []byte{8, 5})
	bad := bytes.Clone(good)
	bad[4] ^= 1
	random := make([]byte, 4000)
	for i := range random {
		random[i] = byte(i * i >> 3)
	}
	zeros := make([]byte, 1<<20)
	large := make([]byte, 3<<19) // compresses well, but not unbelievably
	for i := 0; i < len(large); i += 128 {
		binary.LittleEndian.PutUint32(large[i:], uint32(i)*2654435761)
	}
	pageBytes := func(n int) []byte {
		b, err := protocol.Encode(&protocol.Page{Entries: entries(n)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}(100)
	for _, tc := range []struct {
		name  string
		bytes []byte
		id    protocol.ID
		want  protocol.Code
	}{
		{"length 0xFFFFFFFF", []byte{page, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F}, "", protocol.CodeTooLarge},
		{"length of 2^63", []byte{page, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1}, "", protocol.CodeTooLarge},
		{"one byte above the limit of its message", []byte{delta, 0, 0x81, 0x04}, "", protocol.CodeTooLarge},
		{"wrong checksum", bad, "", protocol.CodeChecksum},
		{"unknown number", frame(60, 0, nil), "", protocol.CodeUnknownType},
		{"number above all", frame(255, 0, nil), "", protocol.CodeUnknownType},
		{"message of another stream", good, protocol.SessionProtocol, protocol.CodeUnexpected},
		{"a page for the pairing protocol", frame(page, 0, []byte{0, 0}), protocol.PairProtocol, protocol.CodeUnexpected},
		{"unknown flag", frame(page, 4, []byte{0, 0}), "", protocol.CodeMalformed},
		{"both compressions", frame(page, 3, []byte{0, 0}), "", protocol.CodeMalformed},
		{"compressed control message", frame(delta, 1, packed(2, zstdOf(t, []byte{8, 5}))), "", protocol.CodeMalformed},
		{"no protobuf", frame(delta, 0, []byte{0xFF}), "", protocol.CodeMalformed},
		{"compressed nothing", frame(page, 1, nil), "", protocol.CodeMalformed},
		{"declared 1 GiB", frame(page, 1, packed(1<<30, zstdOf(t, zeros))), "", protocol.CodeTooLarge},
		{"declared 1 GiB of s2", frame(page, 2, packed(1<<30, s2.Encode(nil, zeros))), "", protocol.CodeTooLarge},
		{"more than the limit, at a good ratio", frame(page, 1, packed(3<<19, zstdOf(t, large))), "", protocol.CodeTooLarge},
		{"zstd bomb within the declared size", frame(page, 1, packed(1<<20, zstdOf(t, zeros))), "", protocol.CodeTooLarge},
		{"s2 bomb within the declared size", frame(page, 2, packed(1<<20, s2.Encode(nil, zeros))), "", protocol.CodeTooLarge},
		{"zstd larger than declared", frame(page, 1, packed(uint64(len(pageBytes)-1), zstdOf(t, pageBytes))), "", protocol.CodeMalformed},
		{"zstd smaller than declared", frame(page, 1, packed(uint64(len(pageBytes)+1), zstdOf(t, pageBytes))), "", protocol.CodeMalformed},
		{"s2 other than declared", frame(page, 2, packed(uint64(len(pageBytes)+1), s2.Encode(nil, pageBytes))), "", protocol.CodeMalformed},
		{"zstd bomb declared small", frame(page, 1, packed(500, zstdOf(t, make([]byte, 64<<20)))), "", protocol.CodeMalformed},
		{"zstd that is none", frame(page, 1, packed(4000, random)), "", protocol.CodeMalformed},
		{"s2 that is none", frame(page, 2, packed(4000, random)), "", protocol.CodeMalformed},
	} {
		a, b := protocoltest.Pipe()
		if _, err := a.Write(tc.bytes); err != nil {
			t.Fatal(err)
		}
		c := protocol.NewConn(b, protocol.ConnConfig{Protocol: tc.id})
		_, err := c.Recv()
		e, ok := errors.AsType[*protocol.Error](err)
		if !ok || e.Code != tc.want || !e.Fault() {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if _, again := c.Recv(); again != err {
			t.Errorf("%s: then %v", tc.name, again)
		}
		c.End(err)
		if _, err := a.Read(make([]byte, 1)); protocol.CodeOf(err) != tc.want {
			t.Errorf("%s: the other side got %v", tc.name, err)
		}
	}
}

// A stream that ends within a frame is cut, one that ends between two is closed.
func TestFramesCutShort(t *testing.T) {
	b, err := protocol.Encode(&protocol.Page{Entries: entries(20)})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range [][]byte{frame(34, 0, []byte{8, 5}), frame(35, 0, b), frame(35, 1, packed(uint64(len(b)), zstdOf(t, b)))} {
		for n := range len(f) + 1 {
			a, b := protocoltest.Pipe()
			if _, err := a.Write(f[:n]); err != nil {
				t.Fatal(err)
			}
			if err := a.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			c := protocol.NewConn(b, protocol.ConnConfig{})
			_, err := c.Recv()
			switch n {
			case 0:
				if err != io.EOF {
					t.Errorf("nothing: %v", err)
				}
			case len(f):
				if err != nil {
					t.Errorf("whole frame: %v", err)
				}
			default:
				if !errors.Is(err, protocol.CodeMalformed) || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%d of %d bytes: %v", n, len(f), err)
				}
			}
		}
	}
}

func TestResets(t *testing.T) {
	a, b := protocoltest.Pipe()
	left, right := protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
	blocked := make(chan error)
	go func() {
		for {
			if err := left.Send(&protocol.Page{Entries: entries(1000)}); err != nil {
				blocked <- err
				return
			}
		}
	}()
	waiting := make(chan error)
	go func() {
		_, err := left.Recv()
		waiting <- err
	}()
	right.End(fmt.Errorf("apply: %w", protocol.CodeMismatch))
	for _, ch := range []chan error{blocked, waiting} {
		e, ok := errors.AsType[*protocol.Error](<-ch)
		if !ok || e.Code != protocol.CodeMismatch || !e.Remote || e.Fault() {
			t.Errorf("the other side got %#v", e)
		}
	}
	_, err := right.Recv()
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodeMismatch || e.Remote {
		t.Errorf("this side got %v", err)
	}
	if err := right.Send(&protocol.Delta{}); err != nil {
		t.Errorf("a send into the buffer: %v", err)
	}
	if err := right.Flush(); !errors.Is(err, protocol.CodeMismatch) {
		t.Errorf("flush: %v", err)
	}
}

// What a stream is bound to ends: whoever waits is told why, and so is the other side, as a code. A deadline is no
// shutdown.
func TestBind(t *testing.T) {
	own := errors.New("the disk is full")
	for want, end := range map[protocol.Code]func(context.Context) (context.Context, context.CancelFunc){
		protocol.CodeTimeout: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithDeadline(ctx, time.Now())
		},
		protocol.CodeShutdown: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		},
		protocol.CodeInternal: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(own)
			return ctx, func() {}
		},
	} {
		a, b := protocoltest.Pipe()
		here, there := protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
		ctx, cancel := end(context.Background())
		here.Bind(ctx)
		_, err := here.Recv()
		if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != want || !e.Ended() || e.Fault() || !errors.Is(err, context.Cause(ctx)) {
			t.Errorf("%s: this side got %v", want.Label(), err)
		}
		if _, err := there.Recv(); !errors.Is(err, want) {
			t.Errorf("%s: the other side got %v", want.Label(), err)
		}
		cancel()
	}
}

// A peer that sends slowly, or nothing, or does not read, is given up at the deadline and not before.
func TestDeadlines(t *testing.T) {
	cfg := protocol.ConnConfig{FirstByte: 5 * time.Second, Idle: 30 * time.Second, Frame: 10 * time.Second}
	for name, tc := range map[string]struct {
		peer func(s protocol.Stream)
		want time.Duration // after the start
	}{
		"says nothing": {func(protocol.Stream) {}, 5 * time.Second},
		"says hello and no more": {func(s protocol.Stream) {
			time.Sleep(2 * time.Second)
			_, _ = s.Write(frame(34, 0, []byte{8, 5}))
		}, 32 * time.Second},
		"the first byte of a frame": {func(s protocol.Stream) {
			_, _ = s.Write([]byte{34})
		}, 10 * time.Second},
		"a byte a second": {func(s protocol.Stream) {
			_, _ = s.Write(frame(34, 0, []byte{8, 5}))
			time.Sleep(time.Second)
			for _, b := range frame(3, 0, make([]byte, 500)) {
				if _, err := s.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
			// the head is complete after 3 s, then 10 s and what 500 bytes take at 16 KiB/s
		}, time.Second + 3*time.Second + 10*time.Second + 500*time.Second/16384},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := protocoltest.Pipe()
			var peer sync.WaitGroup
			peer.Go(func() { tc.peer(a) })
			start := time.Now()
			c := protocol.NewConn(b, cfg)
			var err error
			for err == nil {
				_, err = c.Recv()
			}
			took := time.Since(start)
			if !errors.Is(err, protocol.CodeTimeout) || took < tc.want-time.Second || took > tc.want {
				t.Errorf("%s: %v after %v, want a timeout after %v", name, err, took, tc.want)
			}
			c.End(err)
			peer.Wait()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		a, b := protocoltest.Pipe()
		defer b.Close()
		c := protocol.NewConn(a, cfg)
		var err error
		for err == nil {
			err = c.Send(&protocol.Page{Entries: entries(1000)})
		}
		if !errors.Is(err, protocol.CodeTimeout) {
			t.Errorf("a peer that does not read: %v", err)
		}
		if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Stalled() != "page" || e.Fault() {
			t.Errorf("a peer that does not read: %#v", err)
		}
		if again := c.Flush(); again != err {
			t.Errorf("then %v", again)
		}
	})
}

// Heartbeats keep a stream open for ever, and a slow but steady frame has its time.
func TestSteadyPeersAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := protocoltest.Pipe()
		left, right := protocol.NewConn(a, protocol.ConnConfig{}), protocol.NewConn(b, protocol.ConnConfig{})
		page, err := protocol.Encode(&protocol.Page{Entries: entries(1000)})
		if err != nil {
			t.Fatal(err)
		}
		var peer sync.WaitGroup
		defer peer.Wait()
		defer right.Reset(protocol.CodeShutdown) // unblocks the peer if the test failed
		peer.Go(func() {
			for range 100 {
				if err := ask(left, &protocol.Ping{T1: 1}); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(80 * time.Second)
			}
			_ = a.SetWriteDeadline(time.Time{}) // the one of the last ping
			for f := frame(35, 0, page); len(f) > 0; time.Sleep(time.Second) {
				n, err := a.Write(f[:min(len(f), 17<<10)])
				if err != nil {
					t.Error(err)
					return
				}
				f = f[n:]
			}
			if err := left.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		for range 100 {
			recv[*protocol.Ping](t, right)
		}
		recv[*protocol.Page](t, right)
		if _, err := right.Recv(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	})
}

func ask(c *protocol.Conn, m protocol.Message) error {
	if err := c.Send(m); err != nil {
		return err
	}
	return c.Flush()
}

func TestSendFromSeveralGoroutines(t *testing.T) {
	a, b := protocoltest.Pipe()
	left, right := protocol.NewConn(a, protocol.ConnConfig{Compression: protocol.S2}), protocol.NewConn(b, protocol.ConnConfig{})
	var senders sync.WaitGroup
	page := &protocol.Page{Entries: entries(200)}
	for range 4 {
		senders.Go(func() {
			for range 25 {
				if err := errors.Join(left.Send(page), left.Flush()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 100 {
		if got := recv[*protocol.Page](t, right); !reflect.DeepEqual(got, page) {
			t.Fatal("frames are mixed up")
		}
	}
	senders.Wait()
}

func FuzzRecv(f *testing.F) {
	f.Add(frame(34, 0, []byte{8, 5}))
	f.Add([]byte{35, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F})
	b, _ := protocol.Encode(&protocol.Page{Entries: entries(20)})
	f.Add(frame(35, 0, b))
	f.Add(frame(35, 2, packed(uint64(len(b)), s2.Encode(nil, b))))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := protocoltest.Pipe()
		if _, err := x.Write(b[:min(len(b), 200<<10)]); err != nil {
			t.Fatal(err)
		}
		x.CloseWrite()
		c := protocol.NewConn(timeless{y}, protocol.ConnConfig{})
		for {
			_, err := c.Recv()
			if err == io.EOF {
				return
			}
			if err != nil {
				if code := protocol.CodeOf(err); code == protocol.CodeInternal || code == protocol.CodeLost {
					t.Fatalf("no code: %v", err)
				}
				return
			}
		}
	})
}

// FuzzDecompress gives the decoders bytes that pass the checksum.
func FuzzDecompress(f *testing.F) {
	b, _ := protocol.Encode(&protocol.Page{Entries: entries(20)})
	e, _ := zstd.NewWriter(nil)
	f.Add(uint8(1), uint64(len(b)), e.EncodeAll(b, nil))
	f.Add(uint8(2), uint64(len(b)), s2.Encode(nil, b))
	f.Fuzz(func(t *testing.T, flags uint8, size uint64, data []byte) {
		x, y := protocoltest.Pipe()
		if _, err := x.Write(frame(35, flags, packed(size, data[:min(len(data), 100<<10)]))); err != nil {
			t.Fatal(err)
		}
		x.CloseWrite()
		_, err := protocol.NewConn(timeless{y}, protocol.ConnConfig{}).Recv()
		if code := protocol.CodeOf(err); code == protocol.CodeInternal || code == protocol.CodeLost {
			t.Fatalf("no code: %v", err)
		}
	})
}

// budget is a stream with so many bytes of memory for frames.
type budget struct {
	protocol.Stream
	left *int
}

func (b budget) Reserve(n int) error {
	if n > *b.left {
		return errors.New("no more")
	}
	*b.left -= n
	return nil
}

func (b budget) Release(n int) { *b.left += n }

func TestMemoryIsReserved(t *testing.T) {
	a, b := protocoltest.Pipe()
	left := 300 << 10
	c := protocol.NewConn(budget{b, &left}, protocol.ConnConfig{})
	largest, err := protocol.Encode(&protocol.Page{Entries: entries(1000)})
	if err != nil {
		t.Fatal(err)
	}
	smaller, err := protocol.Encode(&protocol.Page{Entries: entries(950)})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{largest, smaller, largest} { // each counts until the next is asked for
		if _, err := a.Write(frame(35, 0, b)); err != nil {
			t.Fatal(err)
		}
		recv[*protocol.Page](t, c)
		if want := 300<<10 - len(b); left != want {
			t.Errorf("%d bytes left, want %d", left, want)
		}
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Recv(); err != io.EOF || left != 300<<10 {
		t.Errorf("in the end %v, and %d bytes left", err, left)
	}
	left = 200 << 10
	for _, f := range [][]byte{
		frame(35, 0, make([]byte, 250<<10)),                         // beyond what is left
		frame(35, 2, packed(1<<20, bytes.Repeat([]byte{7}, 1<<17))), // with what it claims to become
	} {
		a, b := protocoltest.Pipe()
		go a.Write(f) // more than the window holds
		_, err := protocol.NewConn(budget{b, &left}, protocol.ConnConfig{}).Recv()
		if !errors.Is(err, protocol.CodeBusy) || !ofMemory(err, protocol.UseFrame) {
			t.Errorf("got %v, want busy for want of memory", err)
		}
		if err := a.Reset(protocol.CodeBusy); err != nil {
			t.Fatal(err)
		}
	}
}

// The shared coders must work in every bubble: a channel made in one would panic in the next.
func TestCompressionInBubbles(t *testing.T) {
	page := &protocol.Page{Entries: entries(500)}
	for range 2 {
		for _, how := range []protocol.Compression{protocol.Zstd, protocol.S2} {
			synctest.Test(t, func(t *testing.T) {
				a, b := protocoltest.Pipe()
				go func() {
					if err := ask(protocol.NewConn(a, protocol.ConnConfig{Compression: how}), page); err != nil {
						t.Error(err)
					}
				}()
				if got := recv[*protocol.Page](t, protocol.NewConn(b, protocol.ConnConfig{})); !reflect.DeepEqual(got, page) {
					t.Error("the page has changed on the way")
				}
			})
		}
	}
}

func BenchmarkConn(b *testing.B) {
	for _, how := range []protocol.Compression{protocol.Uncompressed, protocol.Zstd, protocol.S2} {
		b.Run(fmt.Sprintf("compression=%v/entries=1000", how), func(b *testing.B) {
			x, y := protocoltest.Pipe()
			left, right := protocol.NewConn(x, protocol.ConnConfig{Compression: how}), protocol.NewConn(y, protocol.ConnConfig{})
			page := &protocol.Page{Entries: entries(1000)}
			b.ReportAllocs()
			for b.Loop() {
				if err := ask(left, page); err != nil {
					b.Fatal(err)
				}
				if _, err := right.Recv(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "records/s")
		})
	}
}
