package backfill

import (
	"slices"

	"peerdex/feed"
	"peerdex/internal/mutant"
	"peerdex/kv"
	"peerdex/protocol"
	"peerdex/store"
)

// diff walks both trees from the top, checks every node and leaf against its parent and the top against
// the signed root, fetches only the entries that are lacking, and settles only on equality (rule 12).
// Everything is put in before anything is taken out, so no entry that both sides hold is ever absent.
func (u *pulling) diff() error {
	mine, err := u.Store.Peek(u.Feed)
	if err != nil {
		return err
	}
	defer mine.Close()
	w := &walk{pulling: u, mine: mine}
	if err := w.find(); err != nil {
		return err
	}
	u.Notes.Compared(u.Pull, len(w.lack), len(w.spare), w.differ)
	if len(w.lack)+len(w.spare) <= w.limit() { // small enough for one transaction: never unsettled
		var entries []feed.Entry
		if len(w.lack) > 0 {
			err := w.fetch(func(page []feed.Entry) error {
				entries = append(entries, page...)
				return u.holdEntries(page)
			})
			if err != nil {
				return err
			}
		}
		remove, err := w.read(w.spare)
		if err != nil {
			return err
		}
		return u.apply(store.Change{Entries: entries, Remove: remove, Settle: &u.Head})
	}
	if mutant.Is("phase_swap") {
		if err := w.remove(); err != nil {
			return err
		}
		w.spare = nil
	}
	if err := w.fetch(func(page []feed.Entry) error { return u.apply(store.Change{Entries: page}) }); err != nil {
		return err
	}
	if err := w.remove(); err != nil {
		return err
	}
	return u.apply(store.Change{Settle: &u.Head})
}

// walk compares this device's tree with the donor's.
type walk struct {
	*pulling
	mine  *store.View
	lack  []feed.Ref // the donor's entries that are not here
	spare []feed.Ref // the entries here that are not the donor's

	differ int // leaves
}

// node is a place in the donor's tree with the hash its parent, or the head, gives it.
type node struct {
	index uint64
	hash  feed.Hash
}

// find fills lack and spare.
func (w *walk) find() error {
	top := w.Shape.Top(w.Head.Seq)
	if err := w.beyond(top); err != nil {
		return err
	}
	nodes := []node{{0, w.Head.Root}}
	for level := top; level > 0 && len(nodes) > 0; level-- {
		var err error
		if nodes, err = w.descend(level, nodes); err != nil {
			return err
		}
	}
	return w.leaves(nodes)
}

// beyond marks every leaf held to the right of the donor's tree as spare.
func (w *walk) beyond(top int) error {
	if mutant.Is("no_tail_leaves") {
		return nil
	}
	first := uint64(1) << (uint(top) * w.Shape.FanBits)
	return w.mine.LeavesFrom(first, w.spareLeaf)
}

func (w *walk) spareLeaf(i uint64) error {
	l, err := w.mine.Leaf(i)
	if err != nil {
		return err
	}
	return w.note(nil, l)
}

// note adds to what is lacking and to what is spare.
func (w *walk) note(lack, spare feed.Leaf) error {
	w.lack, w.spare = append(w.lack, lack...), append(w.spare, spare...)
	return w.hold((len(lack) + len(spare)) * refSize)
}

// descend returns the children of nodes that differ here.
func (w *walk) descend(level int, nodes []node) (down []node, err error) {
	differ, err := w.differing(level, nodes)
	if err != nil {
		return nil, err
	}
	for len(differ) > 0 {
		part := differ[:min(len(differ), nodesPerRequest)]
		differ = differ[len(part):]
		if err := w.ask(&protocol.Nodes{Level: level, Indexes: indexes(part)}, "nodes"); err != nil {
			return nil, err
		}
		m, err := w.conn.Recv()
		reply, ok := m.(*protocol.NodesReply)
		if !ok {
			return nil, unexpected(m, err)
		}
		if len(reply.Children) != len(part) {
			return nil, violation(protocol.CodeMalformed, "asked for %d nodes, got %d", len(part), len(reply.Children))
		}
		for i, n := range part {
			children := reply.Children[i]
			if len(children) > w.Shape.Fan() || w.Shape.HashNode(children) != n.hash {
				return nil, violation(protocol.CodeMismatch, "node %d of level %d is not what its parent says", n.index, level)
			}
			full := make([]feed.Hash, w.Shape.Fan())
			copy(full, children)
			for c, h := range full {
				down = append(down, node{n.index<<w.Shape.FanBits | uint64(c), h})
			}
		}
	}
	return down, nil
}

// differing returns the nodes of a level that are not the same here, and takes care of those below
// which the donor has nothing.
func (w *walk) differing(level int, nodes []node) (out []node, err error) {
	for _, n := range nodes {
		children, err := w.mine.Node(level, n.index)
		if err != nil {
			return nil, err
		}
		// Above the height of the tree here nothing is stored, which is not to say that nothing lies below.
		stored := level <= w.mine.Height() || n.index > 0 || mutant.Is("diff_low_tree")
		switch mine := w.Shape.HashNode(children); {
		case stored && mine == n.hash:
		case n.hash == feed.Hash{}:
			width := uint64(1) << (uint(level) * w.Shape.FanBits)
			first := n.index * width
			err := w.mine.LeavesFrom(first, func(i uint64) error {
				if i >= first+width {
					return kv.Stop
				}
				return w.spareLeaf(i)
			})
			if err != nil {
				return nil, err
			}
		default:
			out = append(out, n)
		}
	}
	return out, nil
}

// leaves compares the leaves that differ, entry by entry.
func (w *walk) leaves(nodes []node) error {
	var differ []node
	for _, n := range nodes {
		l, err := w.mine.Leaf(n.index)
		if err != nil {
			return err
		}
		switch mine := l.Hash(); {
		case mine == n.hash:
		case n.hash == feed.Hash{}:
			if err := w.note(nil, l); err != nil {
				return err
			}
		default:
			differ = append(differ, n)
		}
	}
	w.differ = len(differ)
	for len(differ) > 0 {
		part := differ[:min(len(differ), leavesPerRequest)]
		differ = differ[len(part):]
		if err := w.ask(&protocol.Leaves{Indexes: indexes(part)}, "leaves"); err != nil {
			return err
		}
		m, err := w.conn.Recv()
		reply, ok := m.(*protocol.LeavesReply)
		if !ok {
			return unexpected(m, err)
		}
		if len(reply.Leaves) != len(part) {
			return violation(protocol.CodeMalformed, "asked for %d leaves, got %d", len(part), len(reply.Leaves))
		}
		for i, n := range part {
			theirs, err := w.Shape.Unpack(n.index, reply.Leaves[i])
			if err != nil {
				return violation(protocol.CodeMalformed, "%v", err)
			}
			if theirs.Hash() != n.hash {
				return violation(protocol.CodeMismatch, "leaf %d is not what its parent says", n.index)
			}
			mine, err := w.mine.Leaf(n.index)
			if err != nil {
				return err
			}
			if err := w.note(theirs.Missing(mine), mine.Missing(theirs)); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch asks for the lacking entries, checks each against its digest and hands them on page by page.
func (w *walk) fetch(take func([]feed.Entry) error) error {
	for lack := w.lack; len(lack) > 0; {
		part := lack[:min(len(lack), w.limit())]
		lack = lack[len(part):]
		seqs := make([]uint64, len(part))
		want := make(map[feed.Ref]bool, len(part))
		for i, r := range part {
			seqs[i], want[r] = r.Seq, true
		}
		if err := w.ask(&protocol.Fetch{Seqs: seqs}, "fetch"); err != nil {
			return err
		}
		for last := false; !last; {
			page, err := w.page()
			if err != nil {
				return err
			}
			if len(page.Entries) == 0 && !page.Last {
				return violation(protocol.CodeMalformed, "empty page before the last")
			}
			for _, e := range page.Entries {
				ref := feed.Ref{Seq: e.Seq, Digest: e.Digest()}
				if !want[ref] {
					return violation(protocol.CodeMismatch, "entry at %d is not the one asked for", e.Seq)
				}
				delete(want, ref)
			}
			if err := take(page.Entries); err != nil {
				return err
			}
			last = page.Last
		}
		if len(want) > 0 {
			return violation(protocol.CodeMismatch, "%d of the entries asked for did not come", len(want))
		}
	}
	return nil
}

// remove takes out what the donor does not hold, a transaction's worth at a time.
func (w *walk) remove() error {
	for part := range slices.Chunk(w.spare, w.limit()) {
		entries, err := w.read(part)
		if err != nil {
			return err
		}
		if err := w.apply(store.Change{Remove: entries}); err != nil {
			return err
		}
	}
	return nil
}

// read reads entries held here.
func (w *walk) read(refs []feed.Ref) (out []feed.Entry, err error) {
	for _, r := range refs {
		err := w.mine.At(r.Seq, func(e feed.Entry) error {
			if e.Digest() == r.Digest {
				out = append(out, e)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func indexes(nodes []node) []uint64 {
	out := make([]uint64, len(nodes))
	for i, n := range nodes {
		out[i] = n.index
	}
	return out
}
