package integration

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// proxy is a TCP proxy in front of a device. It counts what it carries, and holds back what the device sends
// once so much has gone by as a test lets through: a transfer then stands still half way, whatever the speed
// of the machine.
type proxy struct {
	t      testing.TB
	listen net.Listener
	target string // the device's address as it is in a join line
	all    sync.WaitGroup

	mu      sync.Mutex // guards what follows
	changed *sync.Cond
	passed  int64 // bytes from the device
	limit   int64 // of passed; negative: none
	holds   bool  // something waits
	conns   map[net.Conn]bool
	closed  bool
}

// newProxy returns a proxy in front of a device that listens on TCP of loopback.
func newProxy(t testing.TB, p *peer) *proxy {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &proxy{t: t, listen: l, target: port(p.status(), "/tcp/"), limit: -1, conns: map[net.Conn]bool{}}
	x.changed = sync.NewCond(&x.mu)
	x.all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp4", "127.0.0.1:"+x.target)
			if err != nil { // as if nobody listened
				in.Close()
				continue
			}
			x.carry(in, out)
		}
	})
	t.Cleanup(func() {
		l.Close()
		x.mu.Lock()
		x.closed = true
		x.mu.Unlock()
		x.cut()
		x.all.Wait()
	})
	return x
}

// line returns a join line of the device that leads through the proxy.
func (x *proxy) line(line string) string {
	x.t.Helper()
	_, own, _ := net.SplitHostPort(x.listen.Addr().String())
	through := strings.Replace(line, "/tcp/"+x.target+"/", "/tcp/"+own+"/", 1)
	if through == line {
		x.t.Fatalf("%s does not lead to port %s", line, x.target)
	}
	return through
}

func (x *proxy) carry(in, out net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		in.Close()
		out.Close()
		return
	}
	x.conns[in], x.conns[out] = true, true
	end := func() {
		in.Close()
		out.Close()
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.conns, in)
		delete(x.conns, out)
	}
	x.all.Go(func() {
		defer end()
		copyAll(out, in, func(int) {})
	})
	x.all.Go(func() {
		defer end()
		copyAll(in, out, x.pass)
	})
}

func copyAll(to, from net.Conn, pass func(n int)) {
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			pass(n)
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits until n bytes from the device may go by.
func (x *proxy) pass(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.limit >= 0 && x.passed+int64(n) > x.limit {
		x.holds = true
		x.changed.Wait()
	}
	x.passed += int64(n)
}

// hold lets so many more bytes go by, and no others until open.
func (x *proxy) hold(more int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.limit, x.holds = x.passed+more, false
}

// holding reports whether something waits to go by.
func (x *proxy) holding() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.holds
}

// open lets everything go by.
func (x *proxy) open() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.limit, x.holds = -1, false
	x.changed.Broadcast()
}

// cut ends every connection, and loses what waits.
func (x *proxy) cut() {
	x.mu.Lock()
	for c := range x.conns {
		c.Close()
	}
	x.mu.Unlock()
	x.open()
}

// carried returns how many bytes of the device went by.
func (x *proxy) carried() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.passed
}
