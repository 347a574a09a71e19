package sim

import (
	"peerdex/feed"
	"peerdex/kv"
)

// fresh is what an engine is to be replaced by, on a disk whose power may go at the crash points of a snapshot.
type fresh struct {
	kv.Fresh
	n   *node
	was map[feed.ID]feed.State
	tx  map[feed.ID]int // which changed each feed last, when this was begun
}

func (e engine) Fresh() (kv.Fresh, error) {
	if e.n.broken {
		return nil, errPower
	}
	f, err := e.disk.Engine.Fresh()
	if err != nil {
		return nil, err
	}
	out := &fresh{Fresh: f, n: e.n, was: map[feed.ID]feed.State{}, tx: map[feed.ID]int{}}
	for _, id := range e.n.w.feeds {
		out.was[id], _ = e.n.st.State(id)
		out.tx[id] = e.changed[id]
	}
	return out, nil
}

func (f *fresh) Finish() error {
	if f.n.broken {
		return errPower
	}
	return f.Fresh.Finish()
}

func (f *fresh) Update(fn func(kv.Tx) error) error {
	if f.n.broken {
		return errPower
	}
	return f.Fresh.Update(fn)
}

// Switch may be the last thing that the node does. The new name becomes durable by a sync of the engine.
func (f *fresh) Switch(last func() error) error {
	n, d := f.n, f.n.disk
	err := f.Fresh.Switch(func() error {
		if err := last(); err != nil {
			return err
		}
		if n.dies("C13", 0.15) {
			return errPower
		}
		n.naming = true
		return nil
	})
	n.naming = false
	if err != nil {
		return err
	}
	d.committed++
	d.durable = d.committed
	for _, h := range n.showing {
		d.touch(h.Feed)
	}
	if n.dies("C15", 0.2) {
		return errPower
	}
	return nil
}

// Close checks that a snapshot which was not switched to has changed nothing (I13): a feed is as it was unless a
// transaction has changed it since.
func (f *fresh) Close() error {
	n := f.n
	if n.down || n.broken || n.w.over {
		return f.Fresh.Close()
	}
	for _, id := range n.w.feeds {
		if st, _ := n.st.State(id); n.disk.changed[id] == f.tx[id] && st != f.was[id] {
			n.w.fail("I13", n, "%s is not as it was before a snapshot that was not taken", n.w.feedName(id))
		}
	}
	return f.Fresh.Close()
}
