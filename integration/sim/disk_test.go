package sim

import (
	"errors"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/kv"
	"peerdex/kv/memory"
	"peerdex/member"
	"peerdex/store"
)

// errPower is what a disk answers at the moment its power goes.
var errPower = errors.New("power is gone")

// disk is a node's engine with a count of what was committed and what of it is durable, and a note of
// which feeds changed.
type disk struct {
	*memory.Engine
	committed int
	durable   int             // the first so many of the committed transactions survive a power cut
	touched   map[feed.ID]int // feeds changed since the last check, with the transaction that did it last
	changed   map[feed.ID]int // the same since the start
	registers bool            // some register changed since the last check
}

func (d *disk) Update(fn func(kv.Tx) error) error {
	t := watchedTx{d: d}
	err := d.Engine.Update(func(tx kv.Tx) error {
		t.Tx, t.wrote, t.registers, t.feeds = tx, false, false, t.feeds[:0]
		return fn(&t)
	})
	if err != nil || !t.wrote {
		return err
	}
	d.committed++
	d.registers = d.registers || t.registers
	for _, id := range t.feeds {
		d.touch(id)
	}
	return nil
}

func (d *disk) touch(id feed.ID) { d.touched[id], d.changed[id] = d.committed, d.committed }

func (d *disk) Sync() error {
	n := d.committed
	if err := d.Engine.Sync(); err != nil {
		return err
	}
	d.durable = n
	return nil
}

type watchedTx struct {
	kv.Tx
	d                *disk
	wrote, registers bool
	feeds            []feed.ID
}

func (t *watchedTx) Set(key, value []byte) error {
	t.wrote = true
	t.note(key)
	return t.Tx.Set(key, value)
}

func (t *watchedTx) Delete(key []byte) error {
	t.wrote = true
	t.note(key)
	return t.Tx.Delete(key)
}

// note looks at the family of a key (store/layout.go).
func (t *watchedTx) note(key []byte) {
	switch key[0] {
	case 'f':
		t.feeds = append(t.feeds, feed.ParseID(key[1:]))
	case 'r', 'e':
		t.registers = true
	}
}

// marker is a store.Marker that lies outside the disk.
// backup is a copy of a device's home.
type backup struct {
	disk  memory.Backup
	bound hlc.Stamp
	certs []member.Cert
}

type marker struct{ state store.MarkerState }

func (m *marker) Load() (store.MarkerState, error) { return m.state, nil }

func (m *marker) Save(s store.MarkerState) error {
	m.state = s
	return nil
}
