package eventlog

import (
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"time"

	"peerdex/hlc"
	"peerdex/kv"
)

// DefaultLimit is how many events a page holds if the query does not say; MaxLimit the most it may ask for.
const (
	DefaultLimit = 1000
	MaxLimit     = 10_000
)

// Query selects events. Each field that is set narrows it; values within a list are alternatives.
type Query struct {
	// Since and Until bound the hybrid time, to the millisecond: from Since on, before Until. Hybrid time
	// orders the log. It is that of the commit: up to about 100 ms after the timestamp, more if the wall clock was set
	// or the event sums up earlier ones.
	Since, Until time.Time

	Types       []Type // sync_error also stands for every type of the category error
	Categories  []Category
	Severities  []Severity
	MinSeverity Severity // this one and above
	Correlation ID
	Peer        string
	Model       string
	Grep        *regexp.Regexp // matches the summary, the type or the details

	Desc   bool   // newest first
	Limit  int    // of one page; 0 means DefaultLimit
	Cursor Cursor // continue after this event
}

// Cursor is where a page ended. The zero Cursor is the beginning, and as a result it says that there is
// no more.
type Cursor Position

// After returns the cursor of an event, to ask for what came after it.
func After(e Event) Cursor { return Cursor(e.Position()) }

// ErrQuery is returned, wrapped with the reason, for a query that can have no answer.
var ErrQuery = errors.New("invalid query")

func (q Query) validate() error {
	switch {
	case q.Limit < 0 || q.Limit > MaxLimit:
		return fmt.Errorf("%w: limit %d, at most %d", ErrQuery, q.Limit, MaxLimit)
	case q.MinSeverity != "" && q.MinSeverity.rank() < 0:
		return fmt.Errorf("%w: unknown severity %q", ErrQuery, q.MinSeverity)
	}
	for _, s := range q.Severities {
		if s.rank() < 0 {
			return fmt.Errorf("%w: unknown severity %q", ErrQuery, s)
		}
	}
	for _, t := range q.Types {
		if _, ok := kinds[t]; !ok {
			return fmt.Errorf("%w: unknown event type %q", ErrQuery, t)
		}
	}
	for _, c := range q.Categories {
		if !slices.Contains(Categories, c) {
			return fmt.Errorf("%w: unknown category %q", ErrQuery, c)
		}
	}
	return nil
}

// Matches reports whether e is among what q selects, Cursor and Limit aside.
func (q Query) Matches(e Event) bool {
	switch {
	case !q.Since.IsZero() && e.HLC < hlc.At(q.Since),
		!q.Until.IsZero() && e.HLC >= hlc.At(q.Until),
		len(q.Types) > 0 && !q.hasType(e),
		len(q.Categories) > 0 && !slices.Contains(q.Categories, e.Category),
		len(q.Severities) > 0 && !slices.Contains(q.Severities, e.Severity),
		q.MinSeverity != "" && e.Severity.rank() < q.MinSeverity.rank(),
		!q.Correlation.IsZero() && e.CorrelationID != q.Correlation,
		q.Peer != "" && e.PeerDeviceID != q.Peer,
		q.Model != "" && !slices.Contains(e.ModelTypes, q.Model):
		return false
	}
	return q.Grep == nil || q.Grep.MatchString(e.Summary) || q.Grep.MatchString(string(e.Type)) || q.Grep.Match(e.Details)
}

func (q Query) hasType(e Event) bool {
	return slices.Contains(q.Types, e.Type) || e.Category == Failure && slices.Contains(q.Types, SyncError{}.Type())
}

// Query returns one page of the events q selects, in the order of the log, and where the next begins; the
// zero Cursor if there is none. Pages of an unchanged query neither overlap nor skip, whatever is logged
// meanwhile. It returns ErrQuery for unknown names.
func (l *Log) Query(q Query) ([]Event, Cursor, error) {
	if err := q.validate(); err != nil {
		return nil, Cursor{}, err
	}
	limit := q.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	events := []Event{}
	err := l.disk.View(func(r kv.Reader) error {
		return l.each(r, q, func(e Event) error {
			if events = append(events, e); len(events) > limit {
				return kv.Stop
			}
			return nil
		})
	})
	if err != nil {
		return nil, Cursor{}, fmt.Errorf("query event log: %w", err)
	}
	if len(events) <= limit {
		return events, Cursor{}, nil
	}
	events = events[:limit]
	return events, After(events[limit-1]), nil
}

// All returns every event that q selects, page by page, so that it holds no more than one page in memory
// and no transaction while the caller works. Limit is the size of a page.
func (l *Log) All(q Query) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			events, next, err := l.Query(q)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			if next == (Cursor{}) {
				return
			}
			q.Cursor = next
		}
	}
}

// each calls fn for what q selects, in order, until fn returns kv.Stop.
func (l *Log) each(r kv.Reader, q Query, fn func(Event) error) error {
	from, to, ok := q.bounds()
	if !ok {
		return nil
	}
	parts, err := q.parts(r)
	if err != nil {
		return err
	}
	if parts == nil {
		return l.eachRow(r, q, from, to, fn)
	}
	for at, ok := from, true; ok; at, ok = at.step(q.Desc) {
		if at, ok, err = meet(parts, at, q.Desc); err != nil || !ok || to.before(at, q.Desc) {
			return err
		}
		e, err := l.read(r, at)
		if err != nil {
			return err
		}
		if !q.Matches(e) {
			continue
		}
		if err := fn(e); err != nil {
			return ended(err)
		}
	}
	return nil
}

// eachRow is each without an index.
func (l *Log) eachRow(r kv.Reader, q Query, from, to Position, fn func(Event) error) error {
	scan := r.Scan
	if q.Desc {
		scan = r.ScanDown
	}
	return scan([]byte{family, tableEvents}, eventKey(from), func(key, row []byte) error {
		at := positionOf(key)
		if to.before(at, q.Desc) {
			return kv.Stop
		}
		e, err := decodeRow(l.cfg.Device, at, row)
		if err != nil {
			return err
		}
		if q.Matches(e) {
			return fn(e)
		}
		return nil
	})
}

func ended(err error) error {
	if errors.Is(err, kv.Stop) {
		return nil
	}
	return err
}

func (l *Log) read(r kv.Reader, at Position) (Event, error) {
	row, err := r.Get(eventKey(at))
	if err != nil {
		return Event{}, err
	}
	if row == nil {
		return Event{}, fmt.Errorf("%w: event %d is in an index only", errRow, at.Seq)
	}
	return decodeRow(l.cfg.Device, at, row)
}

// bounds returns the first and the last position to look at, in the order asked for; false if there is
// none.
func (q Query) bounds() (from, to Position, ok bool) {
	low, high := Position{}, Position{^hlc.Stamp(0), ^uint64(0)}
	if !q.Since.IsZero() {
		low = Position{hlc.At(q.Since), 0}
	}
	if !q.Until.IsZero() {
		end := hlc.At(q.Until)
		if end == 0 {
			return low, high, false
		}
		high = Position{end - 1, ^uint64(0)}
	}
	from, to = low, high
	if q.Desc {
		from, to = high, low
	}
	if q.Cursor != (Cursor{}) {
		next, more := Position(q.Cursor).step(q.Desc)
		if !more {
			return from, to, false
		}
		if from.before(next, q.Desc) {
			from = next
		}
	}
	return from, to, true
}

// before reports whether p comes before o in the order asked for.
func (p Position) before(o Position, desc bool) bool {
	if desc {
		p, o = o, p
	}
	return p.HLC < o.HLC || p.HLC == o.HLC && p.Seq < o.Seq
}

// step returns the position next to p; false at the end of all.
func (p Position) step(desc bool) (Position, bool) {
	switch {
	case !desc && p.Seq < ^uint64(0):
		return Position{p.HLC, p.Seq + 1}, true
	case !desc && p.HLC < ^hlc.Stamp(0):
		return Position{p.HLC + 1, 0}, true
	case desc && p.Seq > 0:
		return Position{p.HLC, p.Seq - 1}, true
	case desc && p.HLC > 0:
		return Position{p.HLC - 1, ^uint64(0)}, true
	}
	return p, false
}
