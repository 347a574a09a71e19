package store

import (
	"bytes"

	"peerdex/kv"
)

// SetLocal keeps a fact that never leaves this device, under a name; nil removes it.
func (s *Store) SetLocal(name string, value []byte) error {
	return s.eng.Update(func(tx kv.Tx) error { return SetLocalTx(tx, name, value) })
}

// SetLocalTx is SetLocal within a transaction.
func SetLocalTx(tx kv.Tx, name string, value []byte) error {
	if value == nil {
		return tx.Delete(localKey("x " + name))
	}
	return tx.Set(localKey("x "+name), value)
}

// Local returns what SetLocal kept, or nil.
func (s *Store) Local(name string) (value []byte, err error) {
	err = s.eng.View(func(r kv.Reader) error {
		value, err = LocalTx(r, name)
		return err
	})
	return value, err
}

// LocalTx is Local within a transaction.
func LocalTx(r kv.Reader, name string) ([]byte, error) { return r.Get(localKey("x " + name)) }

// Locals calls fn for each local fact whose name begins with prefix, in order.
func (s *Store) Locals(prefix string, fn func(name string, value []byte) error) error {
	return s.eng.View(func(r kv.Reader) error {
		return r.Scan(localKey("x "+prefix), nil, func(k, v []byte) error {
			return fn(string(k[3:]), bytes.Clone(v))
		})
	})
}
