package node

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
)

// What counts is what came in each window of waiting, however long one window was.
func TestPace(t *testing.T) {
	const least = paceLeast
	var p pace
	for i, c := range []struct {
		bytes  int64
		waited time.Duration
		slow   bool
	}{
		{0, paceWindow - 1, false},
		{least, paceWindow, false},
		{least, 2*paceWindow - 1, false},
		{2*least - 1, 2 * paceWindow, true},
		{2*least + least/2, 3 * paceWindow, true}, // the window before is over and done with
		{4*least + least/2, 5 * paceWindow, false},
		{5 * least, 7 * paceWindow, true},
	} {
		if got := p.slow(c.bytes, c.waited); got != c.slow {
			t.Errorf("step %d: slow is %v", i, got)
		}
	}
}

// A donor that is waited for in vain, though its session lives, is left where another can serve that has not failed.
func TestSlowDonorIsLeft(t *testing.T) {
	a, b, _, folder, loc := pair(t)
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	c.joins(a)
	await(t, "all in step", inStep(a, b, c))
	await(t, "B and C meet", connected(b, c))
	b.setPause(&a.self, time.Time{}) // it is to push nothing
	here, far := protocoltest.Pipe()
	conn, end := protocol.NewConn(here, protocol.ConnConfig{FirstByte: time.Hour}), make(chan error)
	go func() { _, err := conn.Recv(); end <- err }()
	defer func() { _ = far.Reset(protocol.CodeShutdown); <-end }()
	id := locationFeed(a.self, loc)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	p := &pulling{donor: a.self, feeds: []feed.ID{id}, cancel: cancel, conn: conn}
	b.mu.Lock()
	b.pulls[a.self] = p
	b.mu.Unlock()
	touch(t, folder, "two")
	await(t, "C can serve", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.another(p)
	})
	await(t, "the wait", func() bool {
		_, waited := conn.Received(time.Now().Add(time.Hour))
		return waited > time.Hour/2
	})
	b.mu.Lock()
	b.retries[retryKey{c.self, id}] = retry{failures: 1, at: time.Now().Add(time.Hour)}
	b.mu.Unlock()
	b.leaveSlow(time.Now().Add(2 * paceWindow))
	if ctx.Err() != nil {
		t.Fatal("left for one that has failed")
	}
	b.mu.Lock()
	clear(b.retries)
	b.mu.Unlock()
	if b.leaveSlow(time.Now().Add(paceWindow)); ctx.Err() != nil {
		t.Fatal("left before another window was over")
	}
	if b.leaveSlow(time.Now().Add(4 * paceWindow)); context.Cause(ctx) != errSlow {
		t.Fatalf("not left: %v", context.Cause(ctx))
	}
	b.mu.Lock()
	delete(b.pulls, a.self)
	b.mu.Unlock()
	b.wake()
	await(t, "what the other has", func() bool { return slices.Equal(b.names(a.self, loc), []string{"one", "two"}) })
}
