package protocol_test

import (
	"context"
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"

	"peerdex/protocol"
)

// reserved is what the resource manager counts of a use.
func (n *node) reserved(t *testing.T, use protocol.Use) (bytes int64) {
	t.Helper()
	err := n.Network().ResourceManager().ViewService(string(use), func(s network.ServiceScope) error {
		bytes = s.Stat().Memory
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// system is what the resource manager counts in all.
func (n *node) system(t *testing.T) (bytes int64) {
	t.Helper()
	err := n.Network().ResourceManager().ViewSystem(func(s network.ResourceScope) error {
		bytes = s.Stat().Memory
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// ofMemory reports whether err is that there is no memory left for a use.
func ofMemory(err error, use protocol.Use) bool {
	m, ok := errors.AsType[*protocol.MemoryError](err)
	return ok && m.Use == use
}

// Each use has its cap, to the byte and whatever the others take; what is refused takes nothing, and what is given
// back is there for the next.
func TestReserve(t *testing.T) {
	n := newNode(t)
	all := []protocol.Use{protocol.UseApply, protocol.UseServe, protocol.UseSnapshot}
	before := n.system(t)
	var give []func()
	total := int64(0)
	for _, use := range all {
		for _, bytes := range []int64{use.Cap() - 1000, 1000} {
			release, err := protocol.Reserve(n, use, int(bytes))
			if err != nil {
				t.Fatalf("%d bytes to %s: %v", bytes, use, err)
			}
			give = append(give, release)
		}
		_, err := protocol.Reserve(n, use, 1)
		if !ofMemory(err, use) || protocol.CodeOf(err) != protocol.CodeBusy {
			t.Errorf("a byte more to %s: %v", use, err)
		}
		if fault := new(protocol.Error); !errors.As(err, &fault) || fault.Fault() {
			t.Errorf("a byte more to %s accuses somebody: %v", use, err)
		}
		total += use.Cap()
		if got := n.reserved(t, use); got != use.Cap() {
			t.Errorf("%d bytes reserved to %s, cap %d", got, use, use.Cap())
		}
	}
	if got := n.system(t) - before; got != total {
		t.Errorf("%d bytes in all, want %d", got, total)
	}
	give[1]()
	give[1]()
	if got := n.reserved(t, all[0]); got != all[0].Cap()-1000 {
		t.Errorf("%d bytes left reserved", got)
	}
	again, err := protocol.Reserve(n, all[0], 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range append(give, again) {
		release()
	}
	if got := n.system(t); got != before {
		t.Errorf("%d bytes in the end, %d before", got, before)
	}
}

// A large frame counts to its stream from when its length is known until the next is asked for.
func TestFramesCount(t *testing.T) {
	server, client := newNode(t, tcp4), newNode(t)
	know(server, client)
	came, next := make(chan int64), make(chan bool)
	stream := func() (bytes int64) {
		err := server.Network().ResourceManager().ViewService("peerdex", func(s network.ServiceScope) error {
			bytes = s.Stat().Memory
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return bytes
	}
	server.serve(t, protocol.BackfillProtocol, protocol.ServeConfig{}, func(_ context.Context, c *protocol.Conn) error {
		for range 2 {
			if _, err := c.Recv(); err != nil {
				return err
			}
			came <- stream()
			<-next
		}
		return nil
	})
	c, err := client.dial(t, server, protocol.BackfillProtocol, protocol.ConnConfig{})
	if err != nil {
		t.Fatal(err)
	}
	page := &protocol.Page{Entries: entries(1000)}
	payload, err := protocol.Encode(page)
	if err != nil {
		t.Fatal(err)
	}
	send(t, c, page)
	if got := <-came; got != int64(len(payload)) {
		t.Errorf("%d bytes count while a page of %d is at hand", got, len(payload))
	}
	send(t, c, &protocol.Delta{After: 1})
	next <- true
	if got := <-came; got != 0 {
		t.Errorf("%d bytes count after it", got)
	}
	next <- true
	c.End(nil)
}
