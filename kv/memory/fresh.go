package memory

import (
	"bytes"

	"peerdex/kv"
)

// fresh is content that may take the place of an engine's.
type fresh struct {
	e       *Engine
	held    *version
	caught  *version // what the engine held at the last CatchUp
	now     *version
	durable *version // what a power cut leaves of it; nil: nothing
}

// Fresh begins content beside that of e.
func (e *Engine) Fresh() (kv.Fresh, error) {
	v, err := e.pin()
	if err != nil {
		return nil, err
	}
	return &fresh{e: e, held: v, caught: v, now: &version{tree: new(tree)}}, nil
}

func (f *fresh) Held() kv.Reader { return &reader{engine: f.e, tree: f.held.tree} }

func (f *fresh) Dir() string { return "" }

func (f *fresh) Rows(byte) kv.Rows { return &rows{f: f} }

type rows struct {
	f    *fresh
	last []byte
}

func (r *rows) Put(key, b []byte) error {
	if r.last != nil && bytes.Compare(key, r.last) <= 0 {
		return kv.ErrOrder
	}
	r.last = append(r.last[:0], key...)
	r.f.now.tree.Set(string(key), &value{append([]byte{}, b...)})
	return nil
}

func (r *rows) End() error { return nil }

func (f *fresh) Finish() error { return f.Sync() }

func (f *fresh) CatchUp(left func(key []byte) bool) (rows int, err error) {
	v, err := f.e.pin()
	if err != nil {
		return 0, err
	}
	was := f.caught.tree
	t := f.now.fork()
	v.tree.Scan(func(k string, b *value) bool {
		if old, ok := was.Get(k); (!ok || old != b) && !left([]byte(k)) {
			t.Set(k, b)
			rows++
		}
		return true
	})
	was.Scan(func(k string, _ *value) bool {
		if _, ok := v.tree.Get(k); !ok && !left([]byte(k)) {
			t.Delete(k)
			rows++
		}
		return true
	})
	f.caught, f.now = v, &version{tree: t}
	return rows, nil
}

func (f *fresh) Update(fn func(kv.Tx) error) error {
	t := &tx{reader: &reader{engine: f.e, tree: f.now.fork(), writes: true}}
	defer func() { t.done = true }()
	if err := fn(t); err != nil {
		return err
	}
	if t.tooBig {
		return kv.ErrTooBig
	}
	t.own()
	f.now = &version{tree: t.tree}
	return nil
}

func (f *fresh) Sync() error {
	if f.e.closed.Load() {
		return kv.ErrClosed
	}
	f.durable = f.now
	return nil
}

// Switch puts f in the place of what e holds. The new name is made durable as by Sync: if Config.OnSync fails
// or crashes then, a power cut may find either content.
func (f *fresh) Switch(last func() error) error {
	e := f.e
	e.writer.Lock()
	defer e.writer.Unlock()
	if err := last(); err != nil {
		return err
	}
	named := f.durable
	if named == nil {
		named = &version{tree: new(tree)}
	}
	e.mu.Lock()
	e.unsynced = append(e.unsynced, named)
	e.mu.Unlock()
	if err := e.Sync(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone = false
	if f.now != named { // not all of it was synced
		e.unsynced = append(e.unsynced, f.now)
	}
	return nil
}

func (f *fresh) Retire() {
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	f.e.gone = f.e.present() != f.now // not switched: what is in use is read until the next crash
}

func (f *fresh) Close() error { return nil }
