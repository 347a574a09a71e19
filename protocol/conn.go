package protocol

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"peerdex/record"
)

// Stream is what a Conn needs below it: a libp2p stream, or one in memory. Reads and writes fail with an
// *Error whose Remote is set once the other side has reset the stream.
//
// A Stream may have SetReadDeadline and SetWriteDeadline, as net.Conn does; without them a Conn never
// looks at the time. It may have Reserve(bytes int) error and Release(bytes int): the one is asked before memory for
// a large frame is taken, the other called when the next frame is asked for.
type Stream interface {
	io.ReadWriter
	CloseWrite() error // the other side reads what was written, then io.EOF
	Close() error      // both directions; may be called again
	Reset(Code) error  // drop everything, with the reason; may be called at any time by any goroutine
}

type deadliner interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

type reserver interface {
	Reserve(bytes int) error
	Release(bytes int)
}

// Traffic counts bytes. *metrics.Metrics is one.
type Traffic interface {
	BytesSent(device string, n int) // at the stream, after compression
	BytesReceived(device string, n int)
	Uncompressed(direction string, n int) // frames as they would be without compression; in or out
}

// ConnConfig tunes a Conn. The zero value is a good one, for all protocols.
type ConnConfig struct {
	Device      record.DeviceID // the other side
	Session     SessionID       // zero: not known yet
	Protocol    ID              // only its messages are let in; empty: all
	Compression Compression     // of what is sent
	Traffic     Traffic         // nil counts nothing

	FirstByte time.Duration // how long to wait for the first frame; 0 means 15 s
	Idle      time.Duration // how long to wait for each later one; 0 means 90 s
	Frame     time.Duration // for a frame to arrive or leave, and a second more for every 16 KiB; 0 means 20 s
}

const (
	defaultFirstByte = 15 * time.Second
	defaultIdle      = 90 * time.Second // three missed heartbeats
	defaultFrame     = 20 * time.Second
	MinRate          = 16 << 10 // bytes per second below which a frame is given up

	bufferSize  = 64 << 10
	keepScratch = 256 << 10 // bytes of encoding buffer kept between frames
)

// Conn carries messages over one stream. Send, Flush and the closing calls may be used by several
// goroutines, Recv by one. After an error from Recv or Send every later call of it returns the same error:
// the place in the stream is lost.
type Conn struct {
	stream    Stream
	deadlines deadliner // nil: none
	cfg       ConnConfig
	label     string // of the device in metrics
	session   atomic.Pointer[SessionID]
	ended     atomic.Pointer[ending] // the first Reset from this side; nil: none

	received atomic.Int64 // bytes
	waited   atomic.Int64 // nanoseconds in reads that are over
	waiting  atomic.Int64 // when the read under way began, in Unix nanoseconds; 0: none is

	// Owned by the goroutine that calls Recv.
	r        *bufio.Reader
	rerr     error
	started  bool // a frame was received
	reserved int  // bytes asked of the stream for the frame at hand

	mu          sync.Mutex // guards what follows
	w           *bufio.Writer
	werr        error
	compression Compression
	raw, packed []byte // scratch
}

// ending is why this side reset the stream.
type ending struct {
	code  Code
	cause error // nil: nothing more is to be said
}

// NewConn returns a Conn over s, which it then owns. It starts nothing.
func NewConn(s Stream, cfg ConnConfig) *Conn {
	cfg.FirstByte = cmp.Or(cfg.FirstByte, defaultFirstByte)
	cfg.Idle = cmp.Or(cfg.Idle, defaultIdle)
	cfg.Frame = cmp.Or(cfg.Frame, defaultFrame)
	c := &Conn{stream: s, cfg: cfg, label: cfg.Device.Short(), compression: cfg.Compression}
	c.deadlines, _ = s.(deadliner)
	c.session.Store(&cfg.Session)
	c.r = bufio.NewReaderSize(counted{c}, bufferSize)
	c.w = bufio.NewWriterSize(counted{c}, bufferSize)
	return c
}

// Device returns the other side.
func (c *Conn) Device() record.DeviceID { return c.cfg.Device }

// Session returns the session's id, zero until it is known.
func (c *Conn) Session() SessionID { return *c.session.Load() }

// SetSession notes the session's id once it is known.
func (c *Conn) SetSession(id SessionID) { c.session.Store(&id) }

// SetCompression chooses how bulk messages are sent from now on. What arrives needs no choice.
func (c *Conn) SetCompression(how Compression) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compression = how
}

// Compression returns how bulk messages are sent.
func (c *Conn) Compression() Compression {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.compression
}

// counted is the stream with its bytes counted and, when writing, its deadline pushed forward.
type counted struct{ c *Conn }

func (s counted) Read(p []byte) (int, error) {
	began := time.Now()
	s.c.waiting.Store(began.UnixNano())
	n, err := s.c.stream.Read(p)
	s.c.waiting.Store(0)
	s.c.waited.Add(int64(time.Since(began)))
	s.c.received.Add(int64(n))
	if n > 0 && s.c.cfg.Traffic != nil {
		s.c.cfg.Traffic.BytesReceived(s.c.label, n)
	}
	return n, err
}

func (s counted) Write(p []byte) (int, error) {
	if d := s.c.deadlines; d != nil {
		if err := d.SetWriteDeadline(time.Now().Add(s.c.frameTime(len(p)))); err != nil {
			return 0, err
		}
	}
	n, err := s.c.stream.Write(p)
	if n > 0 && s.c.cfg.Traffic != nil {
		s.c.cfg.Traffic.BytesSent(s.c.label, n)
	}
	return n, err
}

// Received returns how many bytes have come, before decompression, and how long until now they were waited for: time in
// which nobody asked for more is not the other side's. It may be called at any time by any goroutine.
func (c *Conn) Received(now time.Time) (bytes int64, waited time.Duration) {
	waited = time.Duration(c.waited.Load())
	if since := c.waiting.Load(); since != 0 {
		waited += max(0, now.Sub(time.Unix(0, since)))
	}
	return c.received.Load(), waited
}

// frameTime is how long a frame of n bytes may take.
func (c *Conn) frameTime(n int) time.Duration {
	return c.cfg.Frame + time.Duration(n)*time.Second/MinRate
}

// Frame flags.
const (
	frameZstd  = 1 << 0
	frameS2    = 1 << 1
	frameFlags = frameZstd | frameS2
)

// castagnoli is the polynomial of CRC32C (RFC 3720, appendix B.4).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(number, flags uint8, payload []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, []byte{number, flags}), castagnoli, payload)
}

// Send puts m behind what was sent before; Flush, or a full buffer, hands it to the stream. It blocks
// while the other side does not read. A message beyond its limits is refused with an *Error and nothing
// is sent; the Conn can go on. After any other error it cannot.
func (c *Conn) Send(m Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.werr != nil {
		return c.werr
	}
	s := specs[m.number()]
	if err := m.check(); err != nil {
		return fmt.Errorf("send %s: %w", s.name, err)
	}
	raw, err := m.append(c.raw[:0])
	if err != nil {
		return fmt.Errorf("send %s: %w", s.name, malformed("%v", err))
	}
	if c.raw = raw; cap(raw) > keepScratch {
		c.raw = nil
	}
	if len(raw) > s.max {
		return fmt.Errorf("send %s: %w", s.name, tooLarge("payload", len(raw), s.max))
	}
	payload, flags := raw, uint8(0)
	if s.bulk && c.compression != Uncompressed {
		packed, ok := compress(c.packed[:0], raw, c.compression)
		if ok {
			payload, flags = packed, frameZstd
			if c.compression == S2 {
				flags = frameS2
			}
		}
		if c.packed = packed; cap(packed) > keepScratch {
			c.packed = nil
		}
	}
	head := binary.AppendUvarint(append(make([]byte, 0, 12), m.number(), flags), uint64(len(payload)))
	tail := binary.LittleEndian.AppendUint32(make([]byte, 0, 4), checksum(m.number(), flags, payload))
	for _, part := range [...][]byte{head, payload, tail} {
		if _, err := c.w.Write(part); err != nil {
			c.werr = c.stuck(s.name, c.broken("send "+s.name, err))
			return c.werr
		}
	}
	if c.cfg.Traffic != nil {
		c.cfg.Traffic.Uncompressed("out", len(head)+len(raw)+len(tail))
	}
	return nil
}

// Flush hands everything sent so far to the stream. It blocks while the other side does not read.
func (c *Conn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flush()
}

func (c *Conn) flush() error {
	if c.werr != nil {
		return c.werr
	}
	if err := c.w.Flush(); err != nil {
		c.werr = c.stuck("flush", c.broken("flush", err))
	}
	return c.werr
}

// Recv returns the next message. It returns io.EOF when the other side closed the stream between two
// frames, and otherwise an *Error: what the other side said when it reset the stream, what is wrong with
// the bytes, CodeTimeout past a deadline, CodeLost if the stream broke. It does not reset the stream; see
// End.
func (c *Conn) Recv() (Message, error) {
	if c.rerr != nil {
		return nil, c.rerr
	}
	c.release()
	m, err := c.recv()
	if err != nil {
		c.rerr = err
		return nil, err
	}
	c.started = true
	return m, nil
}

func (c *Conn) recv() (Message, error) {
	wait := c.cfg.Idle
	if !c.started {
		wait = c.cfg.FirstByte
	}
	if err := c.within(1, wait); err != nil {
		return nil, err
	}
	if _, err := c.r.Peek(1); err == io.EOF && c.ended.Load() == nil {
		return nil, io.EOF
	} else if err != nil {
		return nil, c.broken("receive", err)
	}
	if err := c.within(frameHead, c.frameTime(0)); err != nil {
		return nil, err
	}
	number, flags, n, err := c.readHead()
	if err != nil {
		return nil, err
	}
	s, err := specOf(number, c.cfg.Protocol)
	if err != nil {
		return nil, err
	}
	if n > uint64(s.max) {
		return nil, faultf(CodeTooLarge, "%s of %d bytes, limit %d", s.name, n, s.max)
	}
	if flags&^frameFlags != 0 || flags == frameFlags || flags != 0 && !s.bulk {
		return nil, malformed("%s with flags %#x", s.name, flags)
	}
	if err := c.within(int(n)+4, c.frameTime(int(n))); err != nil {
		return nil, err
	}
	payload, err := c.readBody(s.name, number, flags, int(n))
	if err != nil {
		return nil, err
	}
	if c.cfg.Traffic != nil {
		c.cfg.Traffic.Uncompressed("in", 2+uvarintLen(uint64(len(payload)))+len(payload)+4)
	}
	return Decode(number, payload)
}

// frameHead is the longest beginning of a frame whose length is within limits.
const frameHead = 2 + 3

// within gives the stream a time until which need more bytes must have come, unless they are here.
func (c *Conn) within(need int, d time.Duration) error {
	if c.deadlines == nil || c.r.Buffered() >= need {
		return nil
	}
	if err := c.deadlines.SetReadDeadline(time.Now().Add(d)); err != nil {
		return c.broken("receive", err)
	}
	return nil
}

func (c *Conn) readHead() (number, flags uint8, n uint64, err error) {
	if number, err = c.r.ReadByte(); err == nil {
		flags, err = c.r.ReadByte()
	}
	if err != nil {
		return 0, 0, 0, c.cut("frame head", err)
	}
	for shift := uint(0); ; shift += 7 {
		b, err := c.r.ReadByte()
		if err != nil {
			return 0, 0, 0, c.cut("frame head", err)
		}
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return number, flags, n, nil
		}
		if shift == 28 { // 35 bits are far beyond every limit
			return 0, 0, 0, faultf(CodeTooLarge, "frame length of more than 5 bytes")
		}
	}
}

// readBody reads payload and checksum of a frame whose length was found to be within its limit.
func (c *Conn) readBody(name string, number, flags uint8, n int) ([]byte, error) {
	if err := c.reserve(n); err != nil {
		return nil, err
	}
	buf := make([]byte, n+4)
	if _, err := io.ReadFull(c.r, buf); err != nil {
		return nil, c.cut("frame body", err)
	}
	payload := buf[:n:n]
	if got, want := checksum(number, flags, payload), binary.LittleEndian.Uint32(buf[n:]); got != want {
		return nil, faultf(CodeChecksum, "%s of %d bytes has CRC32C %08x, sent %08x", name, n, got, want)
	}
	how := Zstd
	switch flags {
	case 0:
		return payload, nil
	case frameS2:
		how = S2
	}
	raw, _ := binary.Uvarint(payload)
	limit := specs[number].max
	if err := c.reserve(n + int(min(raw, uint64(limit)))); err != nil {
		return nil, err
	}
	out, err := decompress(payload, how, limit)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return out, nil
}

// reserve asks the stream's budget for n bytes in all for the frame at hand, if it is a large one.
func (c *Conn) reserve(n int) error {
	r, ok := c.stream.(reserver)
	if !ok || n <= c.reserved || n <= bufferSize {
		return nil
	}
	if err := r.Reserve(n - c.reserved); err != nil {
		return noMemory(UseFrame, n, err)
	}
	c.reserved = n
	return nil
}

// release gives back what the last frame took: whoever asks for the next has no more use for it, or has reserved memory
// for what it keeps.
func (c *Conn) release() {
	if c.reserved > 0 {
		c.stream.(reserver).Release(c.reserved)
		c.reserved = 0
	}
}

// broken turns an error of the stream into an *Error.
func (c *Conn) broken(doing string, err error) error {
	if end := c.ended.Load(); end != nil {
		out := &Error{Code: end.code, Detail: doing + ": reset by this side", ended: true, cause: err}
		if end.cause != nil {
			out.Detail, out.cause = doing+": "+end.cause.Error(), end.cause
		}
		return out
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	code := CodeLost
	if timedOut(err) {
		code = CodeTimeout
	}
	return &Error{Code: code, Detail: fmt.Sprintf("%s: %v", doing, err), cause: err}
}

// stuck notes in err that the other side did not read what was being sent, if that is why it came to a timeout.
func (c *Conn) stuck(what string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeTimeout && !e.Remote {
		e.stall = what
	}
	return err
}

// cut is broken for what happens within a frame: the other side must not close the stream there. A connection that
// broke says so in an error of its own, which may wrap io.EOF.
func (c *Conn) cut(doing string, err error) error {
	if (err == io.EOF || err == io.ErrUnexpectedEOF) && c.ended.Load() == nil {
		return &Error{Code: CodeMalformed, Detail: doing + " is cut short", cause: io.ErrUnexpectedEOF}
	}
	return c.broken(doing, err)
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// CloseWrite flushes and tells the other side that nothing more will come.
func (c *Conn) CloseWrite() error {
	if err := c.Flush(); err != nil {
		return err
	}
	if err := c.stream.CloseWrite(); err != nil {
		return c.broken("close for writing", err)
	}
	return nil
}

// Close flushes and closes both directions. That the other side received everything is only known from
// its answer.
func (c *Conn) Close() error {
	err := c.Flush()
	if cerr := c.stream.Close(); cerr != nil && err == nil {
		err = c.broken("close", cerr)
	}
	return err
}

// Reset drops the stream and tells the other side why. Blocked calls return an *Error with that code. It
// may be called at any time, by any goroutine, more than once; the first code counts.
func (c *Conn) Reset(code Code) { c.reset(code, nil) }

func (c *Conn) reset(code Code, cause error) {
	if code == 0 {
		code = CodeInternal
	}
	c.ended.CompareAndSwap(nil, &ending{code, cause})
	_ = c.stream.Reset(code) // gone either way
}

// End closes the stream if err is nil and resets it with the code of err if not: the last call of whoever
// opened or serves a stream.
func (c *Conn) End(err error) {
	if err == nil && c.Close() == nil {
		return
	}
	c.Reset(CodeOf(err))
}

// Bind resets the stream when ctx ends, which unblocks every call: with the code of what ctx ended for, which is
// CodeTimeout past a deadline and CodeShutdown if it was cancelled without a cause. The errors of those calls wrap
// the cause. The function it returns undoes that.
func (c *Conn) Bind(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		c.reset(CodeOf(cause), cause)
	})
}

// refuse sends a last message and waits until the other side has closed or reset the stream, so that a
// reset does not overtake it.
func (c *Conn) refuse(m Message) {
	if c.Send(m) != nil || c.CloseWrite() != nil {
		return
	}
	const patience = 8 // frames that may have been on their way
	for range patience {
		if _, err := c.Recv(); err != nil {
			return
		}
	}
}
