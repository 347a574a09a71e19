package node

import (
	"testing"

	"peerdex/protocol"
)

// What is preferred depends on how the device is connected; whoever prefers it, both are understood.
func TestCompressionByTheWay(t *testing.T) {
	for address, want := range map[string]protocol.Compression{
		"/ip4/127.0.0.1/tcp/4001":           protocol.S2,
		"/ip4/192.168.1.7/udp/4001/quic-v1": protocol.S2,
		"/ip6/fe80::7/tcp/4001":             protocol.S2,
		"/ip4/203.0.113.7/tcp/4001":         protocol.Zstd,
		"/ip6/2001:db8::7/udp/4001/quic-v1": protocol.Zstd,
		"":                                  protocol.S2, // not connected any more
	} {
		_, _, class := describe(address)
		got := compressions(class)
		if got[0] != want || len(got) != 2 || got[0] == got[1] {
			t.Errorf("%q: %v, want %v first and the other after it", address, got, want)
		}
	}
}
