package eventlog

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"peerdex/hlc"
	"peerdex/kv"
	"peerdex/metrics"
)

// QueueSize is how many events may wait for the writer.
const QueueSize = 4096

// Reasons why events are dropped.
const (
	queueFull   = "queue_full"
	storeError  = "store_error"
	encodeError = "encode_error"
)

// Disk is where the log is kept: a kv.Engine or what gives out its transactions. The log owns the keys
// that begin with 'v'.
type Disk interface {
	Update(fn func(kv.Tx) error) error
	View(fn func(kv.Reader) error) error
	Sync() error
}

// Config tunes a Log. Device and Clock must be set.
type Config struct {
	Device string // id of this device, in full, as it stands in every event
	Boot   string // names this run of the program
	// Clock stamps events, inside the transaction that writes them: what it calls to persist its bound
	// must not write to the same Disk.
	Clock *hlc.Clock

	Keep     Retention
	MaxBytes uint64           // of all events together; 0 means 64 MB
	Now      func() time.Time // wall clock; nil means time.Now
	Metrics  *metrics.Metrics // nil counts nothing
}

// Log is the event log of one device. Everything but Run may be called from many goroutines; a nil *Log
// takes and drops what is added.
type Log struct {
	disk  Disk
	cfg   Config
	queue chan Event
	poke  chan struct{} // capacity 1: look again at everything below

	order sync.Mutex // held from the look at the clock until the event is in the queue; taken before mu

	mu       sync.Mutex // guards all below
	drops    map[string]*loss
	marks    map[uint64]mark // events of AddTx, by seq, whose commit was not seen yet
	tallies  map[tallyKey]*tally
	storms   map[stormKey]*storm
	flaps    map[string]*flap
	watchers map[chan struct{}]struct{}
	oldest   time.Time // of the events on disk; zero: none
}

type mark struct {
	category Category
	severity Severity
}

// loss is what was dropped for one reason and is not in the log yet.
type loss struct {
	count       int64
	first, last time.Time
}

// Open returns the log on disk. It starts nothing: run Run. It returns an error for a log of a newer
// version.
func Open(disk Disk, cfg Config) (*Log, error) {
	if cfg.Device == "" || cfg.Clock == nil {
		return nil, fmt.Errorf("open event log: device %q and a clock are needed", cfg.Device)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Keep = cfg.Keep.withDefaults()
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 64e6)
	l := &Log{
		disk: disk, cfg: cfg,
		queue:    make(chan Event, QueueSize),
		poke:     make(chan struct{}, 1),
		drops:    map[string]*loss{},
		marks:    map[uint64]mark{},
		tallies:  map[tallyKey]*tally{},
		storms:   map[stormKey]*storm{},
		flaps:    map[string]*flap{},
		watchers: map[chan struct{}]struct{}{},
	}
	if err := l.refresh(); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	return l, nil
}

// Add logs d. It never blocks: if the queue is full the event is counted as lost. Repetitions of some
// types are summed up (storm.go), and the end of a session or a change of state closes open tallies
// (batch.go).
func (l *Log) Add(d Detail, options ...Option) {
	if l == nil {
		return
	}
	e := l.event(d, options)
	l.settle(d, e)
	if l.flapping(d, e) || l.repeated(d, e) {
		return
	}
	l.happens(e)
}

// AddTx logs d in the caller's transaction: if that does not commit, it did not happen. It is never
// summed up. The event's number is read and written in tx, so numbers have no gaps.
func (l *Log) AddTx(tx kv.Tx, d Detail, options ...Option) error {
	if l == nil {
		return nil
	}
	e := l.event(d, options)
	if e.Details == nil {
		return nil // counted
	}
	m, err := readMeta(tx)
	if err != nil {
		return fmt.Errorf("event %s: %w", e.Type, err)
	}
	if err := l.place(tx, &m, &e); err != nil {
		return fmt.Errorf("event %s: %w", e.Type, err)
	}
	if err := tx.Set(metaKey, m.encode()); err != nil {
		return fmt.Errorf("event %s: %w", e.Type, err)
	}
	l.mu.Lock()
	l.marks[e.Seq] = mark{e.Category, e.Severity}
	l.mu.Unlock()
	l.wake() // the writer waits for this transaction, then counts the event and tells those who watch
	return nil
}

// place numbers and stamps e and writes it.
func (l *Log) place(tx kv.Tx, m *meta, e *Event) error {
	m.seq++
	m.stamp = max(l.stamp(), m.stamp+1)
	e.Seq, e.HLC = m.seq, m.stamp
	return put(tx, m, *e)
}

// stamp asks the clock; if that cannot persist its bound, an event is better off with a stamp that a
// restart may see again than lost.
func (l *Log) stamp() hlc.Stamp {
	s, err := l.cfg.Clock.Now()
	if err != nil {
		return max(l.cfg.Clock.Last(), hlc.At(l.cfg.Now()))
	}
	return s
}

// event makes the envelope, without number and stamp. Its details are nil if they cannot be encoded;
// that is counted.
func (l *Log) event(d Detail, options []Option) Event {
	t := d.Type()
	e := Event{
		DeviceID: l.cfg.Device, BootID: l.cfg.Boot, Timestamp: l.cfg.Now().UTC().Round(0),
		Type: t, Category: t.Category(), Severity: t.Severity(), SchemaVersion: SchemaVersion,
	}
	for _, option := range options {
		option(&e)
	}
	l.describe(&e, d)
	return e
}

// describe sets what follows from the detail.
func (l *Log) describe(e *Event, d Detail) {
	details, err := json.Marshal(d)
	if err != nil || e.Severity.rank() < 0 {
		l.lost(encodeError, 1)
		e.Details = nil
		return
	}
	if len(details) > maxDetails {
		details = fmt.Appendf(nil, `{"truncated_bytes":%d}`, len(details))
	}
	e.Details, e.Summary = bytes.ToValidUTF8(details, []byte("\uFFFD")), summarize(d.Summary())
}

// happens puts an event of this moment into the queue, behind all that happened before it.
func (l *Log) happens(e Event) {
	l.order.Lock()
	defer l.order.Unlock()
	e.Timestamp = l.cfg.Now().UTC().Round(0)
	l.enqueue(e)
}

func (l *Log) enqueue(e Event) {
	if e.Details == nil {
		return // counted
	}
	select {
	case l.queue <- e:
	default:
		l.lost(queueFull, 1)
	}
	l.cfg.Metrics.EventQueue(len(l.queue))
}

// lost counts events that will not be in the log, for metrics and for events_dropped.
func (l *Log) lost(reason string, n int) {
	l.cfg.Metrics.EventDropped(reason, n)
	now := l.cfg.Now().UTC()
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.drops[reason]
	if d == nil {
		d = &loss{first: now}
		l.drops[reason] = d
	}
	d.count += int64(n)
	d.last = now
	l.wake()
}

// wake makes the writer look again. It never blocks.
func (l *Log) wake() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// Watch returns a channel of capacity 1 that gets a value when events were committed: query again from
// the position of the last event seen. Call the function when done.
func (l *Log) Watch() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	l.mu.Lock()
	l.watchers[ch] = struct{}{}
	l.mu.Unlock()
	return ch, func() {
		l.mu.Lock()
		delete(l.watchers, ch)
		l.mu.Unlock()
	}
}

// Stats is what the log holds.
type Stats struct {
	Events uint64
	Bytes  uint64    // keys and values
	Oldest time.Time // hybrid time of the oldest event; zero if there is none
	Seq    uint64    // of the newest event ever written
}

// Stats reads what the log holds.
func (l *Log) Stats() (s Stats, err error) {
	err = l.disk.View(func(r kv.Reader) error {
		m, err := readMeta(r)
		if err != nil {
			return err
		}
		s.Events, s.Bytes = m.total()
		s.Seq = m.seq
		return r.ScanKeys([]byte{family, tableEvents}, nil, func(key []byte) error {
			s.Oldest = positionOf(key).HLC.Time().UTC()
			return kv.Stop
		})
	})
	if err != nil {
		return Stats{}, fmt.Errorf("read event log: %w", err)
	}
	return s, nil
}

// refresh tells the metrics what is stored.
func (l *Log) refresh() error {
	s, err := l.Stats()
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.oldest = s.Oldest
	l.mu.Unlock()
	l.cfg.Metrics.EventsStored(int(s.Events), int64(s.Bytes), s.Oldest)
	return nil
}
