// Package protocoltest has streams in memory, for tests of whoever talks over a protocol.Conn.
package protocoltest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"peerdex/protocol"
)

// Pipe returns the two ends of a stream that behaves as a libp2p stream does: writes are buffered up to
// 256 KiB and then block, either direction closes by itself, a reset reaches the other side with its code,
// and deadlines work. It starts no goroutine and may be used inside a testing/synctest bubble.
func Pipe() (a, b *Stream) {
	ab, ba := newHalf(), newHalf()
	return &Stream{in: ba, out: ab}, &Stream{in: ab, out: ba}
}

// Stream is one end of a Pipe.
type Stream struct{ in, out *half }

var _ protocol.Stream = (*Stream)(nil)

const window = 256 << 10 // bytes; what yamux begins with

// half is one direction.
type half struct {
	mu      sync.Mutex // guards everything below
	changed *sync.Cond
	buf     []byte
	closed  bool // nothing more will be written
	dropped bool // nobody will read
	reader  end
	writer  end
	bytes   int // written so far
}

// end is what one side of a direction fails with and when.
type end struct {
	err      error
	deadline time.Time
	timer    *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (e *end) fails() error {
	if e.err != nil {
		return e.err
	}
	if !e.deadline.IsZero() && !time.Now().Before(e.deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (h *half) setDeadline(e *end, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	e.deadline = t
	if !t.IsZero() {
		e.timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed.Broadcast()
		})
	}
	h.changed.Broadcast()
}

func (h *half) finish(set func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	set()
	for _, e := range []*end{&h.reader, &h.writer} {
		if e.timer != nil && e.err != nil {
			e.timer.Stop()
		}
	}
	h.changed.Broadcast()
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	h := s.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if err := h.reader.fails(); err != nil {
			return 0, err
		}
		if len(h.buf) > 0 {
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.changed.Broadcast()
			return n, nil
		}
		if h.closed {
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

// Write implements io.Writer.
func (s *Stream) Write(p []byte) (int, error) {
	h := s.out
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for {
		if err := h.writer.fails(); err != nil {
			return n, err
		}
		if h.closed {
			return n, net.ErrClosed
		}
		if len(p) == 0 {
			return n, nil
		}
		room := min(window-len(h.buf), len(p))
		if h.dropped {
			room = len(p) // as on a network: whether it is read, the writer does not learn
		} else {
			h.buf = append(h.buf, p[:room]...)
		}
		h.bytes += room
		n, p = n+room, p[room:]
		if room > 0 {
			h.changed.Broadcast()
			continue
		}
		h.changed.Wait()
	}
}

// Written returns the bytes written so far to this end.
func (s *Stream) Written() int {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return s.out.bytes
}

// CloseWrite implements protocol.Stream.
func (s *Stream) CloseWrite() error {
	s.out.finish(func() { s.out.closed = true })
	return nil
}

// Close implements protocol.Stream.
func (s *Stream) Close() error {
	s.out.finish(func() {
		s.out.closed = true
		s.out.writer.err = net.ErrClosed
	})
	s.in.finish(func() {
		s.in.reader.err = net.ErrClosed
		s.in.dropped, s.in.buf = true, nil
	})
	return nil
}

// Reset implements protocol.Stream.
func (s *Stream) Reset(code protocol.Code) error {
	here := net.ErrClosed
	there := &protocol.Error{Code: code, Remote: true}
	s.out.finish(func() {
		s.out.writer.err = here
		if s.out.reader.err == nil {
			s.out.reader.err = there
		}
		s.out.buf = nil
	})
	s.in.finish(func() {
		s.in.reader.err = here
		if s.in.writer.err == nil {
			s.in.writer.err = there
		}
		s.in.buf = nil
	})
	return nil
}

// SetReadDeadline makes reads fail from t on; the zero time means never.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.in.setDeadline(&s.in.reader, t)
	return nil
}

// SetWriteDeadline makes writes fail from t on; the zero time means never.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.out.setDeadline(&s.out.writer, t)
	return nil
}
