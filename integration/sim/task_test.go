package sim

import (
	"io"
	"iter"
	"math/rand/v2"

	"peerdex/protocol"
	"peerdex/snapshot"
)

// task is a goroutine of the product run as a coroutine: it goes on only when the scheduler resumes it,
// and hands control back where a stream would block and where notes are taken. It never holds a lock there.
type task struct {
	on    *node
	link  *link
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	wait  *half // reading from this while it is empty
	dead  bool  // runs down: no more pauses
	done  bool
}

func (w *world) spawn(on *node, l *link, fn func()) {
	t := &task{on: on, link: l}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		fn()
	})
	w.tasks = append(w.tasks, t)
}

// resume runs t until it pauses or ends.
func (w *world) resume(t *task) {
	w.cur = t
	_, more := t.next()
	w.cur = nil
	t.done = !more
}

// pause hands control to the scheduler; outside a task it does nothing.
func (w *world) pause() {
	if t := w.cur; t != nil && !t.dead && !t.yield(struct{}{}) {
		t.dead = true
	}
}

func (t *task) ready() bool { return t.wait == nil || t.wait.readable() }

// finish runs t to its end without pauses.
func (w *world) finish(t *task) {
	t.dead = true
	for !t.done {
		w.resume(t)
	}
}

// sweep forgets the tasks that have ended.
func (w *world) sweep() {
	keep := w.tasks[:0]
	for _, t := range w.tasks {
		if !t.done {
			keep = append(keep, t)
		}
	}
	clear(w.tasks[len(keep):])
	w.tasks = keep
}

// drain runs all tasks to their ends, in turn.
func (w *world) drain() {
	for len(w.tasks) > 0 {
		moved := false
		for _, t := range w.tasks {
			if t.ready() {
				w.resume(t)
				moved = true
			}
		}
		w.sweep()
		if !moved && len(w.tasks) > 0 {
			w.fail("STUCK", w.tasks[0].on, "%d tasks wait for each other", len(w.tasks))
		}
	}
}

// link is one stream between two nodes: the bytes under way in both directions.
type link struct {
	w      *world
	a, b   *node
	ab, ba half
	faulty bool               // it was cut, corrupted or truncated: errors on it prove nothing
	offer  *snapshot.Manifest // what the donor of a snapshot offers
}

type half struct {
	buf []byte
	eof bool
	err error
}

func (h *half) readable() bool { return len(h.buf) > 0 || h.eof || h.err != nil }

// cut breaks the link as a lost connection does.
func (l *link) cut() {
	l.faulty = true
	for _, h := range []*half{&l.ab, &l.ba} {
		h.buf = nil
		if h.err == nil {
			h.err = io.ErrClosedPipe
		}
	}
}

// stream is one end of a link.
type stream struct {
	l       *link
	on      *node
	in, out *half
	seen    []byte // written, not yet a whole frame
}

func (l *link) ends() (a, b *stream) {
	return &stream{l: l, on: l.a, in: &l.ba, out: &l.ab}, &stream{l: l, on: l.b, in: &l.ab, out: &l.ba}
}

func (s *stream) Read(p []byte) (int, error) {
	w := s.l.w
	for !s.in.readable() {
		if w.cur == nil || w.cur.dead {
			return 0, io.ErrClosedPipe
		}
		w.cur.wait = s.in
		w.pause()
	}
	if w.cur != nil {
		w.cur.wait = nil
	}
	if w.chaos && chance(w.net, 0.15) {
		w.pause()
	}
	switch {
	case s.in.err != nil:
		return 0, s.in.err
	case len(s.in.buf) == 0:
		return 0, io.EOF
	}
	n := len(s.in.buf)
	if w.knob.fragment && n > 1 {
		n = 1 + w.net.IntN(n)
	}
	n = copy(p, s.in.buf[:n])
	s.in.buf = s.in.buf[n:]
	return n, nil
}

func (s *stream) Write(p []byte) (int, error) {
	w := s.l.w
	if s.out.err != nil {
		return 0, s.out.err
	}
	if s.out.eof {
		return 0, io.ErrClosedPipe
	}
	s.watch(p)
	if w.chaos {
		switch x := w.net.Float64(); {
		case x < w.knob.corrupt:
			p = append([]byte(nil), p...)
			p[w.net.IntN(len(p))] ^= 1 << w.net.IntN(8)
			s.l.faulty = true
			w.reach("corrupt")
		case x < w.knob.corrupt+w.knob.truncate:
			s.out.buf = append(s.out.buf, p[:w.net.IntN(len(p))]...)
			s.out.eof, s.l.faulty = true, true
			w.reach("truncate")
			return len(p), nil
		}
	}
	s.out.buf = append(s.out.buf, p...)
	if w.chaos && chance(w.net, 0.2) {
		w.pause()
	}
	return len(p), nil
}

func (s *stream) CloseWrite() error {
	s.out.eof = true
	return nil
}

func (s *stream) Close() error {
	s.out.eof = true
	return nil
}

func (s *stream) Reset(code protocol.Code) error {
	if s.out.err == nil {
		s.out.buf, s.out.err = nil, &protocol.Error{Code: code, Remote: true}
	}
	if s.in.err == nil {
		s.in.buf, s.in.err = nil, io.ErrClosedPipe
	}
	return nil
}

func chance(r *rand.Rand, p float64) bool { return r.Float64() < p }
