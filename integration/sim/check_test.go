package sim

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"peerdex/backfill"
	"peerdex/feed"
	"peerdex/record"
	"peerdex/store"
)

// check looks at every feed that changed since the last look (invariants with "A" in reliability.md).
func (n *node) check() {
	if n.down || n.broken || n.w.over {
		return
	}
	d := n.disk
	for _, id := range n.w.feeds {
		tx, ok := d.touched[id]
		if !ok {
			continue
		}
		delete(d.touched, id)
		n.checkFeed(id, tx)
	}
	n.checkGeneration(d.registers)
	if d.registers {
		d.registers = false
		n.checkView()
	}
}

// entries returns what the node holds of a feed.
func (n *node) entries(id feed.ID) (out []feed.Entry) {
	err := n.st.Entries(id, func(r store.Row) error {
		out = append(out, feed.Entry{Key: bytes.Clone(r.Key), Seq: r.Seq, Record: bytes.Clone(r.Record)})
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrUnknownFeed) {
		n.ought(err)
	}
	return out
}

func (n *node) checkFeed(id feed.ID, tx int) {
	w := n.w
	st, _ := n.st.State(id)
	held := n.entries(id)
	name := w.feedName(id)
	if st.Count != uint64(len(held)) {
		w.fail("I1", n, "%s counts %d entries and holds %d", name, st.Count, len(held))
	}
	own := id.Device == n.dev
	if h := st.Settled; h != nil {
		if own {
			w.remember(n, *h, held)
		}
		n.checkSettled(st, *h, held)
		if _, ok := n.birth[keyOf(*h)]; !ok {
			n.birth[keyOf(*h)] = tx
		}
	} else if !own {
		for _, e := range held {
			if !w.ever[id][entryKey(e)] {
				w.fail("I5", n, "%s holds an entry at %d that its owner never signed for", name, e.Seq)
			}
		}
	}
	was, ok := n.last[id]
	if ok && !n.orphaned[id] && (st.Floor.Compare(was.Floor) < 0 || st.Best.Compare(was.Best) < 0) {
		w.fail("I11", n, "%s went back from %d to %d", name, was.Floor.Seq, st.Floor.Seq)
	}
	n.last[id] = st
	for session, k := range n.keep {
		if k.feed == id {
			n.checkKept(k, held)
			if st.Settled != nil { // the pull is over
				delete(n.keep, session)
			}
		}
	}
}

// kept are the keys of a feed that are live before a pull and in the head pulled.
type kept struct {
	feed feed.ID
	keys []string
}

func (n *node) checkKept(k kept, held []feed.Entry) {
	for _, key := range k.keys {
		if !slices.ContainsFunc(held, func(e feed.Entry) bool { return string(e.Key) == key && !record.IsTombstone(e.Record) }) {
			n.w.fail("FLICKER", n, "key %x of %s was there, is there in the head pulled, and is absent in between", key, n.w.feedName(k.feed))
		}
	}
}

func (n *node) checkSettled(st feed.State, h feed.Head, held []feed.Entry) {
	w, name := n.w, n.w.feedName(h.Feed)
	if h.IsGenesis() {
		if len(held) > 0 {
			w.fail("I1", n, "%s is settled at genesis with %d entries", name, len(held))
		}
		return
	}
	want, ok := w.signed[keyOf(h)]
	if !ok {
		w.fail("I5", n, "%s is settled at head %d that nobody signed", name, h.Seq)
	}
	if !slices.EqualFunc(want, held, sameEntry) {
		w.fail("I1", n, "%s is settled at %d with other entries than its owner had", name, h.Seq)
	}
	if st.Floor != h || st.Cursor != nil || st.Best.Compare(h) < 0 {
		w.fail("I1", n, "%s is settled at %d and has floor %d, best %d", name, h.Seq, st.Floor.Seq, st.Best.Seq)
	}
}

func sameEntry(a, b feed.Entry) bool {
	return a.Seq == b.Seq && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Record, b.Record)
}

func entryKey(e feed.Entry) string {
	d := digest(e)
	return string(d[:])
}

// remember notes the live set under a head when its owner has just signed it, and checks the root by an
// independent reckoning.
func (w *world) remember(n *node, h feed.Head, held []feed.Entry) {
	if _, ok := w.signed[keyOf(h)]; ok || h.IsGenesis() {
		return
	}
	name := w.feedName(h.Feed)
	if h.Count != uint64(len(held)) || verify(h) != nil {
		w.fail("I1", n, "head %d of %s counts %d entries of %d", h.Seq, name, h.Count, len(held))
	}
	seqs := map[uint64]bool{}
	for _, e := range held {
		if e.Seq > h.Seq || seqs[e.Seq] {
			w.fail("RULE1", n, "two entries of %s stand at %d, or one stands above the head", name, e.Seq)
		}
		seqs[e.Seq] = true
	}
	if h.Root != rootOf(w.shape, h.Seq, held) {
		w.fail("I1", n, "root of %s at %d is not the root of its entries", name, h.Seq)
	}
	w.signed[keyOf(h)] = held
	w.history[h.Feed] = append(w.history[h.Feed], h)
	ever := w.ever[h.Feed]
	if ever == nil {
		ever = map[string]bool{}
		w.ever[h.Feed] = ever
	}
	for _, e := range held {
		ever[entryKey(e)] = true
	}
}

// digest is feed.Entry.Digest, written again from the description.
func digest(e feed.Entry) (d [16]byte) {
	b := append([]byte{byte(len(e.Key))}, e.Key...)
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	sum := sha256.Sum256(append(b, e.Record...))
	copy(d[:], sum[:])
	return d
}

// rootOf reckons the root of a live set from the description of the tree, level by level.
func rootOf(shape feed.Shape, seq uint64, entries []feed.Entry) feed.Hash {
	level := map[uint64]feed.Hash{}
	for i := 0; i < len(entries); {
		leaf := entries[i].Seq >> shape.LeafBits
		b := []byte{0}
		for ; i < len(entries) && entries[i].Seq>>shape.LeafBits == leaf; i++ {
			d := digest(entries[i])
			b = append(binary.BigEndian.AppendUint64(b, entries[i].Seq), d[:]...)
		}
		level[leaf] = sha256.Sum256(b)
	}
	for last := seq >> shape.LeafBits; last > 0; last >>= shape.FanBits {
		up := map[uint64][]byte{}
		fan := uint64(1) << shape.FanBits
		for i, h := range level {
			b, ok := up[i/fan]
			if !ok {
				b = make([]byte, 1+fan*32)
				b[0] = 1
				up[i/fan] = b
			}
			copy(b[1+i%fan*32:], h[:])
		}
		level = make(map[uint64]feed.Hash, len(up))
		for i, b := range up {
			level[i] = sha256.Sum256(b)
		}
	}
	return level[0]
}

// recovered checks a node that has just started again.
func (n *node) recovered() {
	if held := n.all(); held != nil && !n.liar {
		n.keeps("I3", n.acked, held, n.wall())
		n.told = told{}
		maps.Copy(n.told, n.acked)
		n.checkView()
	}
}

// published fails unless h, which leaves the node now, is durable there (I7).
func (n *node) published(h feed.Head) {
	if h.IsGenesis() || n.w.over || n.down || n.broken {
		return
	}
	n.check()
	tx, ok := n.birth[keyOf(h)]
	if !ok {
		n.w.fail("I7", n, "head %d of %s leaves, and the node was never settled there", h.Seq, n.w.feedName(h.Feed))
	}
	if tx > n.disk.durable {
		n.w.fail("I7", n, "head %d of %s leaves before it is durable", h.Seq, n.w.feedName(h.Feed))
	}
}

// keepFrom notes the keys that are live here, settled, and in the head about to be pulled.
func (n *node) keepFrom(p backfill.Pull) {
	delete(n.keep, p.Session)
	if st, _ := n.st.State(p.Feed); st.Settled == nil {
		return
	}
	there := map[string]bool{}
	for _, e := range n.w.signed[keyOf(p.Head)] {
		if !record.IsTombstone(e.Record) {
			there[string(e.Key)] = true
		}
	}
	k := kept{feed: p.Feed}
	for _, e := range n.entries(p.Feed) {
		if there[string(e.Key)] && !record.IsTombstone(e.Record) {
			k.keys = append(k.keys, string(e.Key))
		}
	}
	n.keep[p.Session] = k
}

// checkCursor fails if the cursor of a delta has passed an entry that is not here: after a crash nobody would ask for
// it again (rule 10).
func (n *node) checkCursor(p backfill.Pull) {
	st, _ := n.st.State(p.Feed)
	if p.Route.Road != feed.RoadDelta || st.Cursor == nil || n.down || n.broken || n.w.over {
		return
	}
	held := n.entries(p.Feed)
	for _, e := range n.w.signed[keyOf(p.Head)] {
		if e.Seq > p.Route.From && e.Seq <= st.Cursor.Seq && !slices.ContainsFunc(held, func(h feed.Entry) bool { return sameEntry(h, e) }) {
			n.w.fail("RULE10", n, "the cursor of %s is at %d, and the entry at %d is not here", n.w.feedName(p.Feed), st.Cursor.Seq, e.Seq)
		}
	}
}

// checkAbsorbed fails unless whoever is settled at over, from which an own feed was absorbed, comes to the head signed
// then by a plain delta (rule 15).
func (n *node) checkAbsorbed(over, to feed.Head) {
	w := n.w
	want, ok := w.signed[keyOf(to)]
	if !ok || w.signed[keyOf(over)] == nil || to.GC > over.Seq {
		return
	}
	live := map[string]feed.Entry{}
	for _, e := range w.signed[keyOf(over)] {
		live[string(e.Key)] = e
	}
	for _, e := range want {
		if e.Seq > over.Seq {
			live[string(e.Key)] = e
		}
	}
	maps.DeleteFunc(live, func(_ string, e feed.Entry) bool { return record.IsTombstone(e.Record) && e.Seq <= to.GC })
	for _, e := range want {
		if got, ok := live[string(e.Key)]; !ok || !sameEntry(got, e) {
			w.fail("RULE15", n, "%s was absorbed over %d, and who is settled there gets no entry at %d by a delta to %d", w.feedName(to.Feed), over.Seq, e.Seq, to.Seq)
		}
	}
	if len(live) != len(want) {
		w.fail("RULE15", n, "%s was absorbed over %d, and who is settled there has %d entries after a delta to %d, not %d", w.feedName(to.Feed), over.Seq, len(live), to.Seq, len(want))
	}
}

// checkIndexes compares what the store derives with what it holds (at quiescence).
func (n *node) checkIndexes(id feed.ID) {
	held := n.entries(id)
	var want store.Counts
	for _, e := range held {
		rec, err := record.Decode(e.Key, e.Record)
		switch rec := rec.(type) {
		case nil:
			want.Opaque++
			if !errors.Is(err, record.ErrUnknownModel) {
				n.w.fail("I20", n, "an entry does not decode: %v", err)
			}
		case record.File:
			if rec.Kind == record.Directory {
				want.Dirs++
			} else {
				want.Files++
				want.Bytes += rec.Size
			}
		case record.Tombstone:
			want.Tombstones++
		case record.Register:
			want.Registers++
		}
	}
	got := n.st.Counts(id)
	if got != want {
		n.w.fail("INDEX", n, "%s counts %+v, holds %+v", n.w.feedName(id), got, want)
	}
}
