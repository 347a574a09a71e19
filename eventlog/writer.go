package eventlog

import (
	"context"
	"errors"
	"time"

	"peerdex/kv"
)

const (
	commitEvery = 100 * time.Millisecond // at most this long an event waits, and at least this long between commits
	syncEvery   = time.Second            // at most this much of the log a power cut takes, warnings and errors aside
	maxBatch    = 512                    // events per transaction
	pruneEvery  = time.Hour
	retryAfter  = time.Second // after the disk failed
)

// Run writes what is added until ctx ends, then writes what is left, open tallies and summaries included,
// and returns nil. Events are committed in batches at most 100 ms apart; warnings and errors are durable
// before the next batch begins, the rest within a second. Old events are removed at the start, every
// hour, and whenever the log outgrows its size. It returns an error only when the disk was closed.
func (l *Log) Run(ctx context.Context) error {
	w := writer{Log: l, nextPrune: time.Now()}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.close(time.Time{}) // puts what is open into the queue
			for w.drain() {
				if err := w.commit(); err != nil {
					return err
				}
			}
			if err := w.commit(); err != nil {
				return err
			}
			return w.sync()
		case e := <-l.queue:
			w.take(e)
			w.drain()
		case <-l.poke:
			w.request()
		case <-timer.C:
		}
		next, err := w.work(time.Now())
		if err != nil {
			return err
		}
		timer.Reset(time.Until(next))
	}
}

// writer is the state of one Run.
type writer struct {
	*Log
	batch      []Event
	urgent     bool      // the batch holds a warning or an error
	wanted     bool      // commit, even if the batch is empty
	lastCommit time.Time // or last try
	notBefore  time.Time // the disk failed not long ago
	unsynced   time.Time // since when something is committed and not durable; zero: nothing is
	nextPrune  time.Time
	oversize   bool
}

func (w *writer) take(e Event) {
	w.batch = append(w.batch, e)
	w.urgent = w.urgent || e.Severity.rank() >= Warning.rank()
	w.wanted = true
}

func (w *writer) request() { w.wanted = true }

// drain fills the batch with what waits, and reports whether there is anything in it.
func (w *writer) drain() bool {
	for len(w.batch) < maxBatch {
		select {
		case e := <-w.queue:
			w.take(e)
			continue
		default:
		}
		break
	}
	w.cfg.Metrics.EventQueue(len(w.queue))
	return len(w.batch) > 0
}

// work does what is due now and returns when there is something to do next.
func (w *writer) work(now time.Time) (next time.Time, err error) {
	w.close(now)
	if w.drain(); w.wanted {
		due := w.lastCommit.Add(commitEvery)
		if w.urgent || len(w.batch) >= maxBatch {
			due = now
		}
		if due.Before(w.notBefore) {
			due = w.notBefore
		}
		if !due.After(now) {
			urgent := w.urgent
			if err := w.commit(); err != nil {
				return now, err
			}
			if urgent {
				if err := w.sync(); err != nil {
					return now, err
				}
			}
		}
	}
	if !w.nextPrune.After(now) || w.oversize {
		w.nextPrune, w.oversize = now.Add(pruneEvery), false
		if err := w.prune(); errors.Is(err, kv.ErrClosed) {
			return now, err
		} else if err != nil {
			w.failed(err) // and in an hour again
		}
	}
	if !w.unsynced.IsZero() && !w.unsynced.Add(syncEvery).After(now) {
		if err := w.sync(); err != nil {
			return now, err
		}
	}
	next = w.nextPrune
	if w.wanted {
		next = earlier(next, later(w.lastCommit.Add(commitEvery), w.notBefore))
	}
	if !w.unsynced.IsZero() {
		next = earlier(next, w.unsynced.Add(syncEvery))
	}
	if t := w.nextClose(); !t.IsZero() {
		next = earlier(next, t)
	}
	return next, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// commit writes the batch and what is to be said of lost events. If the disk fails they are lost and
// counted; only a closed disk is an error.
func (w *writer) commit() error {
	batch := append(w.dropped(), w.batch...)
	w.batch, w.urgent, w.wanted, w.lastCommit = nil, false, false, time.Now()
	if err := w.write(batch); err != nil {
		w.notBefore = time.Now().Add(retryAfter)
		if errors.Is(err, kv.ErrClosed) {
			return err
		}
		w.failed(err)
	}
	return nil
}

// failed counts an error of the disk. It goes no further: no work fails because it cannot be logged.
func (w *writer) failed(err error) { w.cfg.Metrics.Error("database", "", err.Error(), w.cfg.Now()) }

// write commits batch in as many transactions as it takes.
func (w *writer) write(batch []Event) error {
	var (
		m     meta
		marks map[uint64]mark
		seq   uint64 // the last that others committed
	)
	err := w.disk.Update(func(tx kv.Tx) (err error) {
		if m, err = readMeta(tx); err != nil {
			return err
		}
		// Nobody else is inside a transaction now, so whoever marked an event has committed it or failed.
		w.mu.Lock()
		for s, mk := range w.marks {
			if marks == nil {
				marks = map[uint64]mark{}
			}
			marks[s] = mk
		}
		clear(w.marks)
		w.mu.Unlock()
		if seq = m.seq; len(batch) == 0 {
			return nil
		}
		for i := range batch {
			e := batch[i]
			if err := w.place(tx, &m, &e); err != nil {
				return err
			}
		}
		return tx.Set(metaKey, m.encode())
	})
	for s, mk := range marks {
		if s <= seq {
			w.cfg.Metrics.EventLogged(string(mk.category), string(mk.severity))
		}
	}
	if errors.Is(err, kv.ErrTooBig) && len(batch) > 1 {
		half := len(batch) / 2
		return errors.Join(w.write(batch[:half]), w.write(batch[half:]))
	}
	if err != nil {
		if len(batch) > 0 {
			w.lost(storeError, countLost(w.Log, batch))
		}
		return err
	}
	if len(batch) > 0 || len(marks) > 0 {
		w.committed(m, batch)
	}
	return nil
}

// countLost returns how many events are lost with batch. What events_dropped said in it is still to be
// said, so it goes back.
func countLost(l *Log, batch []Event) (n int) {
	for _, e := range batch {
		d, err := e.Detail()
		if said, ok := d.(EventsDropped); ok && err == nil {
			l.restore(said)
			continue
		}
		n++
	}
	return n
}

func (l *Log) restore(said EventsDropped) {
	first, err := time.Parse(time.RFC3339Nano, said.FirstAt)
	if err != nil {
		first = l.cfg.Now().UTC()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.drops[said.Reason]
	if d == nil {
		last, err := time.Parse(time.RFC3339Nano, said.LastAt)
		if err != nil {
			last = first
		}
		d = &loss{last: last}
		l.drops[said.Reason] = d
	}
	d.first = first
	d.count += said.Count
	l.wake()
}

// committed tells the metrics and those who watch.
func (w *writer) committed(m meta, batch []Event) {
	for _, e := range batch {
		w.cfg.Metrics.EventLogged(string(e.Category), string(e.Severity))
	}
	events, bytes := m.total()
	w.mu.Lock()
	if w.oldest.IsZero() && events > 0 {
		w.oldest = m.stamp.Time().UTC()
	}
	oldest := w.oldest
	for ch := range w.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
	w.mu.Unlock()
	w.cfg.Metrics.EventsStored(int(events), int64(bytes), oldest)
	w.oversize = w.oversize || bytes > w.cfg.MaxBytes
	if w.unsynced.IsZero() {
		w.unsynced = time.Now()
	}
}

func (w *writer) sync() error {
	if w.unsynced.IsZero() {
		return nil
	}
	err := w.disk.Sync()
	switch {
	case errors.Is(err, kv.ErrClosed):
		return err
	case err != nil:
		w.unsynced = time.Now() // try again in a second
		w.failed(err)
	default:
		w.unsynced = time.Time{}
	}
	return nil
}

// dropped takes what was lost and returns the events that say so.
func (l *Log) dropped() (out []Event) {
	l.mu.Lock()
	drops := l.drops
	if len(drops) > 0 {
		l.drops = map[string]*loss{}
	}
	l.mu.Unlock()
	if len(drops) == 0 {
		return nil
	}
	var after uint64
	if s, err := l.Stats(); err == nil {
		after = s.Seq
	}
	for _, reason := range []string{queueFull, storeError, encodeError} {
		if d := drops[reason]; d != nil {
			out = append(out, l.event(EventsDropped{
				Count: d.count, Reason: reason, AfterSeq: after,
				FirstAt: d.first.Format(timeLayout), LastAt: d.last.Format(timeLayout),
			}, nil))
		}
	}
	return out
}
