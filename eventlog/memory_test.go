package eventlog

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/btree"

	"peerdex/hlc"
	"peerdex/kv"
	"peerdex/metrics"
)

// memory keeps the contract of kv: one writer, atomic transactions, and a power cut takes a suffix of
// what was not synced.
type memory struct {
	write sync.Mutex // held by Update
	mu    sync.Mutex // guards all below
	now   *btree.Map[string, []byte]
	past  []*btree.Map[string, []byte] // states since the last sync, that one first
	fail  error                        // of the next updates
	limit int                          // sets and deletes per transaction; 0: any
	syncs int
}

func newMemory() *memory {
	m := &memory{now: &btree.Map[string, []byte]{}}
	m.past = []*btree.Map[string, []byte]{m.now.Copy()}
	return m
}

// cut returns what is on disk after a power cut that takes the last lost transactions not synced.
func (m *memory) cut(lost int) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	states := m.past
	at := max(len(states)-1-lost, 0)
	out := newMemory()
	out.now = states[at].Copy()
	out.past = []*btree.Map[string, []byte]{out.now.Copy()}
	return out
}

func (m *memory) View(fn func(kv.Reader) error) error {
	m.mu.Lock()
	state := m.now.Copy()
	m.mu.Unlock()
	return fn(&memoryTx{state: state})
}

func (m *memory) Update(fn func(kv.Tx) error) error {
	m.write.Lock()
	defer m.write.Unlock()
	m.mu.Lock()
	tx := &memoryTx{state: m.now.Copy(), limit: m.limit}
	fail := m.fail
	m.mu.Unlock()
	if err := fn(tx); err != nil {
		return err
	}
	if fail != nil {
		return fail
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = tx.state
	m.past = append(m.past, m.now.Copy())
	return nil
}

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.past = m.past[len(m.past)-1:]
	m.syncs++
	return nil
}

func (m *memory) setFail(err error) {
	m.mu.Lock()
	m.fail = err
	m.mu.Unlock()
}

type memoryTx struct {
	state   *btree.Map[string, []byte]
	limit   int
	changes int
}

func (t *memoryTx) Get(key []byte) ([]byte, error) {
	v, _ := t.state.Get(string(key))
	return v, nil
}

func (t *memoryTx) Scan(prefix, from []byte, fn func(key, value []byte) error) error {
	if bytes.Compare(from, prefix) < 0 {
		from = prefix
	}
	var err error
	t.state.Ascend(string(from), func(key string, value []byte) bool {
		if !bytes.HasPrefix([]byte(key), prefix) {
			return false
		}
		err = fn([]byte(key), value)
		return err == nil
	})
	if errors.Is(err, kv.Stop) {
		return nil
	}
	return err
}

func (t *memoryTx) ScanKeys(prefix, from []byte, fn func(key []byte) error) error {
	return t.Scan(prefix, from, func(key, _ []byte) error { return fn(key) })
}

func (t *memoryTx) ScanDown(prefix, from []byte, fn func(key, value []byte) error) error {
	if from == nil {
		from = append(bytes.Clone(prefix), bytes.Repeat([]byte{0xFF}, 64)...)
	}
	var err error
	t.state.Descend(string(from), func(key string, value []byte) bool {
		if !bytes.HasPrefix([]byte(key), prefix) {
			return false
		}
		err = fn([]byte(key), value)
		return err == nil
	})
	if errors.Is(err, kv.Stop) {
		return nil
	}
	return err
}

func (t *memoryTx) change() error {
	if t.changes++; t.limit > 0 && t.changes > t.limit {
		return kv.ErrTooBig
	}
	return nil
}

func (t *memoryTx) Set(key, value []byte) error {
	t.state.Set(string(key), value)
	return t.change()
}

func (t *memoryTx) Delete(key []byte) error {
	t.state.Delete(string(key))
	return t.change()
}

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

const device = "12D3KooWLaptop"

// wall is a clock that moves one millisecond each time it is read, or stands still.
type wall struct {
	mu   sync.Mutex
	t    time.Time
	step time.Duration
}

func (w *wall) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = w.t.Add(w.step)
	return w.t
}

func (w *wall) set(t time.Time) {
	w.mu.Lock()
	w.t = t
	w.mu.Unlock()
}

type fixture struct {
	*Log
	disk    *memory
	wall    *wall
	metrics *metrics.Metrics
}

func open(t testing.TB, disk *memory, change func(*Config)) fixture {
	t.Helper()
	w := &wall{t: start}
	f := fixture{disk: disk, wall: w, metrics: metrics.New(metrics.Config{Now: w.now})}
	cfg := Config{
		Device: device, Boot: "b1", Now: w.now, Metrics: f.metrics,
		Clock: hlc.NewClock(w.now, 0, func(hlc.Stamp) error { return nil }),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if f.Log, err = Open(disk, cfg); err != nil {
		t.Fatal(err)
	}
	return f
}

// add writes one event in a transaction of its own.
func (f fixture) add(t testing.TB, d Detail, options ...Option) {
	t.Helper()
	if err := f.disk.Update(func(tx kv.Tx) error { return f.AddTx(tx, d, options...) }); err != nil {
		t.Fatal(err)
	}
}

func (f fixture) query(t testing.TB, q Query) []Event {
	t.Helper()
	var out []Event
	for e, err := range f.All(q) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}
