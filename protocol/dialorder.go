package protocol

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
)

// stageDelay is the head start of the addresses of one stage over those of the next, RFC 8305's 250 ms. If
// none of them is left to try, the next begin at once.
const stageDelay = 250 * time.Millisecond

// DialOrder says which addresses a host dials first: those of an early stage before those of a later, and
// within a stage as libp2p sees fit. The zero DialOrder prefers none. Its methods may be called by any
// goroutine.
type DialOrder struct {
	mu     sync.Mutex
	stages map[string]int // by address in binary; what is not in it is of the first
}

// Expect sets the stages of addresses that are about to be dialed, until forget is called.
func (o *DialOrder) Expect(stages ...[]multiaddr.Multiaddr) (forget func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stages == nil {
		o.stages = map[string]int{}
	}
	for i, addrs := range slices.Backward(stages) { // what is in two is of the earlier
		for _, a := range addrs {
			o.stages[string(a.Bytes())] = i
		}
	}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, a := range slices.Concat(stages...) {
			delete(o.stages, string(a.Bytes()))
		}
	}
}

// rank is a network.DialRanker.
func (o *DialOrder) rank(addrs []multiaddr.Multiaddr) (out []network.AddrDelay) {
	stages := map[int][]multiaddr.Multiaddr{}
	o.mu.Lock()
	for _, a := range addrs {
		i := o.stages[string(a.Bytes())]
		stages[i] = append(stages[i], a)
	}
	o.mu.Unlock()
	delay := time.Duration(0)
	for i := 0; len(out) < len(addrs); i++ {
		if len(stages[i]) == 0 {
			continue
		}
		for _, d := range swarm.DefaultDialRanker(stages[i]) {
			out = append(out, network.AddrDelay{Addr: d.Addr, Delay: delay + d.Delay})
		}
		delay = slices.MaxFunc(out, func(a, b network.AddrDelay) int { return cmp.Compare(a.Delay, b.Delay) }).Delay + stageDelay
	}
	return out
}
