package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	corepeer "github.com/libp2p/go-libp2p/core/peer"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// Gossip carries heads to members that have no session with the one that moved. It loses messages in
// ordinary use, so nothing depends on it: sessions tell the same, a little later for those further away.
const (
	gossipMax    = 64 << 10 // bytes of one message
	gossipGather = 250 * time.Millisecond
	gossipEvery  = 30 * time.Second // again, in case it was lost; with up to a third of jitter
	gossipBeat   = 5 * time.Second  // of the mesh; flood publishing does not wait for it
	gossipQueue  = 256              // messages and RPCs that may wait, each way
	gossipHeads  = 128              // in one message: fits in gossipMax
)

// topic names the library's topic without telling which library it is.
func (n *Node) topic() string {
	lib := n.store.Library()
	sum := sha256.Sum256(append([]byte("peerdex topic 1\x00"), lib[:]...))
	return "/peerdex/heads/1/" + hex.EncodeToString(sum[:8])
}

// gossip publishes this node's heads as they change and hears those of others, until ctx ends. When the
// device moves to another library it begins again there.
func (n *Node) gossip(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := n.gossipIn(ctx, n.topic()); err != nil {
			return fmt.Errorf("gossip: %w", err)
		}
	}
	return nil
}

func (n *Node) gossipIn(ctx context.Context, name string) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	params := pubsub.DefaultGossipSubParams()
	params.HeartbeatInterval = gossipBeat
	ps, err := pubsub.NewGossipSub(ctx, n.host,
		pubsub.WithGossipSubParams(params),
		pubsub.WithFloodPublish(true), // the first publish to a fresh mesh is lost without
		pubsub.WithPeerOutboundQueueSize(gossipQueue),
		pubsub.WithMaxMessageSize(gossipMax),
		pubsub.WithPeerFilter(func(p corepeer.ID, _ string) bool { return n.gater.Member(p) }),
		pubsub.WithSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(name)))
	if err != nil {
		return err
	}
	valid := func(_ context.Context, _ corepeer.ID, m *pubsub.Message) bool {
		author, err := protocol.DeviceOf(m.GetFrom())
		if err != nil || author != n.self && !n.gater.Member(m.GetFrom()) { // it may have heard that it is out itself
			return false
		}
		heads, err := protocol.Decode(protocol.Number(&protocol.Heads{}), m.Data)
		if err != nil {
			return false
		}
		m.ValidatorData = gossiped{author, heads.(*protocol.Heads)}
		return true
	}
	if err := ps.RegisterTopicValidator(name, valid, pubsub.WithValidatorInline(true)); err != nil {
		return err
	}
	topic, err := ps.Join(name)
	if err != nil {
		return err
	}
	sub, err := topic.Subscribe(pubsub.WithBufferSize(gossipQueue))
	if err != nil {
		return err
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		n.hearGossip(ctx, sub)
	}()
	err = n.publish(ctx, topic, name)
	cancel()
	<-heard
	sub.Cancel()
	return err
}

type gossiped struct {
	author record.DeviceID
	heads  *protocol.Heads
}

// publish announces heads that are new since the last announcement, and all of them now and then.
func (n *Node) publish(ctx context.Context, topic *pubsub.Topic, name string) error {
	wake, cancel := n.store.Watch()
	defer cancel()
	told := map[feed.ID]feed.Head{}
	again := time.NewTimer(gossipEvery)
	defer again.Stop()
	for {
		if n.topic() != name {
			return nil
		}
		if err := n.announce(ctx, topic, told); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-wake:
			if !wait(ctx, gossipGather) {
				return nil
			}
		case <-again.C:
			clear(told)
			again.Reset(gossipEvery + rand.N(gossipEvery/3))
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) announce(ctx context.Context, topic *pubsub.Topic, told map[feed.ID]feed.Head) error {
	states := n.store.States()
	if err := n.store.Sync(); err != nil { // rule 2
		return err
	}
	m := &protocol.Heads{ActiveSyncs: n.activeSyncs()}
	for _, st := range states {
		if st.Best.IsGenesis() || !n.follows(st.Feed) || told[st.Feed].Same(st.Best) || len(m.Heads) == gossipHeads {
			continue
		}
		told[st.Feed] = st.Best
		m.Heads = append(m.Heads, protocol.HeadInfo{Best: st.Best})
	}
	if len(m.Heads) == 0 || len(topic.ListPeers()) == 0 {
		return nil
	}
	b, err := protocol.Encode(m)
	if err != nil {
		return err
	}
	return topic.Publish(ctx, b)
}

func (n *Node) hearGossip(ctx context.Context, sub *pubsub.Subscription) {
	for {
		m, err := sub.Next(ctx)
		if err != nil {
			return // ctx has ended
		}
		g, ok := m.ValidatorData.(gossiped)
		if !ok || g.author == n.self {
			continue
		}
		var heads []feed.Head
		for _, info := range g.heads.Heads {
			if info.Best.Feed.Device != n.self && n.follows(info.Best.Feed) {
				heads = append(heads, info.Best)
			}
		}
		admitted, err := n.membership(g.author)
		if errors.Is(err, protocol.CodeNotMember) {
			continue
		}
		var seen []store.Observed
		if err == nil {
			seen, err = n.store.Observe(heads, admitted)
		}
		if errors.Is(err, feed.ErrSignature) {
			n.accuse(g.author, &protocol.Error{Code: protocol.CodeMismatch, Detail: err.Error()}, true)
		} else if err != nil && !errors.Is(err, store.ErrGeneration) { // lost, as gossip may be
			n.log.Warn("gossip not noted", "err", err)
		}
		for _, o := range seen {
			if o.Forks {
				n.noteFork(g.author, o.Head)
			}
		}
		n.wake()
	}
}
