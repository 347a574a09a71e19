package node

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
)

// However many feeds there are, all heads are told: in messages of their own, the first of which begins anew.
func TestHeadsInParts(t *testing.T) {
	infos := make([]protocol.HeadInfo, 2*protocol.MaxHeads+1)
	for _, c := range []struct {
		heads int
		full  bool
		want  []int
	}{
		{0, false, nil}, {0, true, []int{0}}, {1, false, []int{1}}, {protocol.MaxHeads, true, []int{protocol.MaxHeads}},
		{2*protocol.MaxHeads + 1, true, []int{protocol.MaxHeads, protocol.MaxHeads, 1}},
		{protocol.MaxHeads + 1, false, []int{protocol.MaxHeads, 1}},
	} {
		got := inParts(infos[:c.heads], c.full, 3)
		if len(got) != len(c.want) {
			t.Errorf("%d heads: %d messages", c.heads, len(got))
			continue
		}
		for i, m := range got {
			if len(m.Heads) != c.want[i] || m.Full != (c.full && i == 0) || m.ActiveSyncs != 3 {
				t.Errorf("%d heads, message %d: %d heads, full %v", c.heads, i, len(m.Heads), m.Full)
			}
		}
	}
}

// A peer tells more heads than one message holds: all are kept, and a feed of this device that is not among the
// first is not taken for one that the peer does not hold.
func TestHeadsGoOn(t *testing.T) {
	a, b, _, _, _ := pair(t)
	b.mu.Lock()
	s := b.peers[a.self].session
	b.mu.Unlock()
	own := feed.ID{Device: b.self}
	await(t, "B knows where A is", func() bool { h, ok := s.sender.Held(own); return ok && h.Seq > 0 })
	before, _ := s.sender.Held(own)
	var infos []protocol.HeadInfo
	for i := range protocol.MaxHeads + 500 {
		id := feed.ID{Device: a.self, Location: record.LocationID{0xee, byte(i >> 8), byte(i)}}
		infos = append(infos, protocol.HeadInfo{Best: feed.Head{Feed: id, Seq: 1, Count: 1}})
	}
	for _, m := range inParts(infos, true, 0) {
		if err := b.hear(s, m); err != nil {
			t.Fatal(err)
		}
	}
	b.mu.Lock()
	kept := len(b.peers[a.self].heads)
	b.mu.Unlock()
	if after, ok := s.sender.Held(own); kept < len(infos) || !ok || after != before {
		t.Errorf("%d heads kept; A is at %+v of B's feed, was at %+v", kept, after, before)
	}
	if err := b.hear(s, &protocol.Heads{Full: true}); err != nil {
		t.Fatal(err)
	}
	if after, ok := s.sender.Held(own); ok && after.Seq == before.Seq {
		t.Errorf("A holds nothing, and is taken to be at %+v", after)
	}
}

// Why a device was not reached is a short line, whatever libp2p says.
func TestUnreached(t *testing.T) {
	failed := func(addr string, cause error) swarm.TransportError {
		return swarm.TransportError{Address: multiaddr.StringCast(addr), Cause: cause}
	}
	refused, timeout := fmt.Errorf("dial: %w", syscall.ECONNREFUSED), errors.New("timeout: no recent network activity")
	dial := &swarm.DialError{DialErrors: []swarm.TransportError{
		failed("/ip4/10.0.0.1/tcp/1", refused), failed("/ip4/10.0.0.2/tcp/1", refused), failed("/ip4/10.0.0.1/udp/1/quic-v1", timeout),
	}}
	for want, err := range map[string]error{
		"connection refused at 2 addresses, timed out": fmt.Errorf("open stream: %w", dial),
		"connection refused":                           &swarm.DialError{DialErrors: dial.DialErrors[:1]},
		"no address is known":                          errNoAddress,
		"not a member of the library":                  fmt.Errorf("greet: %w", &protocol.Error{Code: protocol.CodeNotMember, Remote: true}),
		"something else":                               errors.New("something else\nin many lines"),
	} {
		if got := unreached(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
