package eventlog

import (
	"slices"
	"time"
)

// Some errors come in storms. The first of its kind is logged at once; those that follow within the
// type's window are summed up in one event at its end, and the next window begins. A window in which
// nothing came ends the storm.

// maxStorms is how many windows may be open; beyond, kinds of one type share a window.
const maxStorms = 1024

// repeatable is a Detail whose repetitions are summed up.
type repeatable interface {
	Detail
	// repeatKey says what makes two occurrences the same, besides type and peer.
	repeatKey() string
	// repeat returns the detail with what sum, nil or the result for the occurrence before, says of the
	// earlier ones.
	repeat(sum Detail, r Repeats) Detail
}

type stormKey struct {
	kind Type
	peer string
	key  string
}

type storm struct {
	until   time.Time
	window  time.Duration
	sum     Detail // nil: nothing was repeated yet
	last    Event
	repeats Repeats
	records int64
}

// repeated reports whether e will be part of a summary and is not to be written.
func (l *Log) repeated(d Detail, e Event) bool {
	r, ok := d.(repeatable)
	if !ok {
		return false
	}
	now := time.Now()
	key := stormKey{e.Type, e.PeerDeviceID, r.repeatKey()}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.storms[key]
	if s == nil && len(l.storms) >= maxStorms {
		key = stormKey{kind: e.Type}
		s = l.storms[key]
	}
	if s == nil {
		window := kinds[e.Type].window
		l.storms[key] = &storm{until: now.Add(window), window: window}
		l.wake() // there is a window to be closed
		return false
	}
	at := e.Timestamp
	if s.repeats.Repeats == 0 {
		s.repeats.FirstAt = &at
	}
	s.repeats.Repeats++
	s.repeats.LastAt = &at
	s.sum, s.last = r.repeat(s.sum, s.repeats), e
	if e.RecordCount != nil {
		s.records += *e.RecordCount
	}
	return true
}

// closeStorms writes the summaries of windows that are over; all of them if now is zero.
func (l *Log) closeStorms(now time.Time) {
	var over []*storm
	l.mu.Lock()
	for key, s := range l.storms {
		switch {
		case !now.IsZero() && s.until.After(now):
			continue
		case s.sum != nil && !now.IsZero():
			l.storms[key] = &storm{until: now.Add(s.window), window: s.window}
		default:
			delete(l.storms, key)
		}
		if s.sum != nil {
			over = append(over, s)
		}
	}
	l.mu.Unlock()
	for _, s := range over {
		if s.last.RecordCount != nil {
			s.last.RecordCount = &s.records
		}
		l.describe(&s.last, s.sum)
		l.enqueue(s.last)
	}
}

// sortedModels is Models in the order of their names.
func sortedModels(names []string) Option {
	slices.Sort(names)
	return Models(names...)
}
