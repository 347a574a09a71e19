package main

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy forwards TCP connections from one port of loopback to another and counts what goes through, both
// ways. A read is what one call to read returned: a message that was written at once, or several that
// were written close together.
type proxy struct {
	l     net.Listener
	to    int
	wg    sync.WaitGroup
	bytes atomic.Int64
	reads atomic.Int64
	conns atomic.Int64

	mu   sync.Mutex // guards open
	open map[net.Conn]bool
}

func newProxy(from, to int) (*proxy, error) {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", from))
	if err != nil {
		return nil, err
	}
	p := &proxy{l: l, to: to, open: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return // closed
			}
			p.wg.Go(func() { p.serve(in) })
		}
	})
	return p, nil
}

func (p *proxy) serve(in net.Conn) {
	out, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", p.to))
	if err != nil {
		in.Close()
		return
	}
	p.mu.Lock()
	p.open[in], p.open[out] = true, true
	p.mu.Unlock()
	p.conns.Add(1)
	var both sync.WaitGroup
	both.Go(func() { p.copy(out, in) })
	both.Go(func() { p.copy(in, out) })
	both.Wait()
	p.mu.Lock()
	delete(p.open, in)
	delete(p.open, out)
	p.mu.Unlock()
}

func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.bytes.Add(int64(n))
			p.reads.Add(1)
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return // io.EOF or the other direction's end
		}
	}
}

func (p *proxy) Close() error {
	err := p.l.Close()
	p.mu.Lock()
	for c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
	return err
}

var _ io.Closer = (*proxy)(nil)

// between are the proxies that two peers meet through: each at the port where the other believes its
// peer to listen.
type between []*proxy

func (w between) bytes() (n int64) {
	for _, p := range w {
		n += p.bytes.Load()
	}
	return n
}

func (w between) reads() (n int64) {
	for _, p := range w {
		n += p.reads.Load()
	}
	return n
}

func (w between) conns() (n int64) {
	for _, p := range w {
		n += p.conns.Load()
	}
	return n
}

// quiet waits until nothing has gone through for a while and returns the bytes until then.
func (w between) quiet(pause time.Duration) int64 {
	for {
		n := w.bytes()
		time.Sleep(pause)
		if w.bytes() == n {
			return n
		}
	}
}

func (w between) Close() {
	for _, p := range w {
		_ = p.Close() // a listener that is closed twice: nothing depends on it
	}
}
