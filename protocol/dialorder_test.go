package protocol

import (
	"slices"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
)

// Stages are dialed one after the other, an address of two stages in the earlier, one of none first; after
// forget nothing is left of them.
func TestDialOrder(t *testing.T) {
	addrs := func(texts ...string) (out []multiaddr.Multiaddr) {
		for _, text := range texts {
			out = append(out, multiaddr.StringCast(text))
		}
		return out
	}
	good := addrs("/ip4/203.0.113.1/tcp/4001")
	nearby := addrs("/ip4/192.168.1.20/tcp/4001", "/ip4/192.168.1.20/udp/4001/quic-v1")
	published := addrs("/ip4/10.0.0.1/tcp/4001", "/ip4/192.168.1.20/tcp/4001")
	var o DialOrder
	forget := o.Expect(good, nearby, published)
	all := slices.Concat(published[:1], nearby, good)
	byDelay := map[string]time.Duration{}
	for _, d := range o.rank(all) {
		byDelay[d.Addr.String()] = d.Delay
	}
	if len(byDelay) != len(all) {
		t.Fatalf("%v", byDelay)
	}
	first, quic, tcp, last := byDelay[good[0].String()], byDelay[nearby[1].String()], byDelay[nearby[0].String()], byDelay[published[0].String()]
	if first != 0 || quic != stageDelay || tcp <= quic || tcp >= last || last != tcp+stageDelay {
		t.Errorf("%v", byDelay)
	}
	if r := o.rank(published[:1]); len(r) != 1 || r[0].Delay != 0 {
		t.Errorf("a single address waits: %v", r)
	}
	forget()
	for _, d := range o.rank(good) {
		if d.Delay != 0 {
			t.Errorf("%v", d)
		}
	}
	if len(o.stages) != 0 {
		t.Errorf("%d stages are kept", len(o.stages))
	}
}
