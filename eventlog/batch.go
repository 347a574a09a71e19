package eventlog

import (
	"fmt"
	"time"
)

// A tally is written out after this long or this many records, and when its session ends, the node
// changes state or the log closes.
const (
	tallyWindow  = 30 * time.Second
	tallyRecords = 10_000
	maxTallies   = 1024 // open at once; one more, and all are written out
)

// Tally is one push, page or request to be counted into an event that stands for many. Those of one
// type, peer, session and reason share an event.
type Tally struct {
	Type     Type // BatchIngestion and the other types whose details are a Batch
	Peer     string
	Session  ID
	Reason   string
	Name     string         // what people call the reason, if that is an id
	Models   map[string]int // records by model; their sum goes into record_count
	Outcomes map[string]int // what became of records or files
	Cursor   uint64
	Bytes    int
	Took     time.Duration // the work, not the waiting
}

// batched says how to make the details of each type that is tallied.
var batched = map[Type]func(Batch) Detail{
	BatchIngestion{}.Type():          func(b Batch) Detail { return BatchIngestion{b} },
	BatchBroadcast{}.Type():          func(b Batch) Detail { return BatchBroadcast{b} },
	BroadcastAcked{}.Type():          func(b Batch) Detail { return BroadcastAcked{b} },
	BackfillRequestSent{}.Type():     func(b Batch) Detail { return BackfillRequestSent{b} },
	BackfillRequestReceived{}.Type(): func(b Batch) Detail { return BackfillRequestReceived{b} },
	BackfillResponseSent{}.Type():    func(b Batch) Detail { return BackfillResponseSent{b} },
	FilesChanged{}.Type():            func(b Batch) Detail { return FilesChanged{b} },
	TagsChanged{}.Type():             func(b Batch) Detail { return TagsChanged{b} },
	LookedUp{}.Type():                func(b Batch) Detail { return LookedUp{b} },
	LookupAnswered{}.Type():          func(b Batch) Detail { return LookupAnswered{b} },
}

// endsSession holds the types after which nothing more is tallied for a session.
var endsSession = map[Type]bool{
	BackfillSessionCompleted{}.Type(): true, BackfillSessionFailed{}.Type(): true,
	CatchUpSessionCompleted{}.Type(): true, CatchUpSessionFailed{}.Type(): true,
	ReconcileSessionCompleted{}.Type(): true, ReconcileSessionFailed{}.Type(): true,
	PeerDisconnected{}.Type(): true,
}

type tallyKey struct {
	kind    Type
	peer    string
	session ID
	reason  string
}

// tally is an open one.
type tally struct {
	Batch
	opened  time.Time
	records int64
	weight  int64 // records or outcomes, whichever are more
	took    time.Duration
}

// AddBatch counts t. It never blocks. It panics if events of that type are not tallied.
func (l *Log) AddBatch(t Tally) {
	if l == nil {
		return
	}
	if batched[t.Type] == nil {
		panic(fmt.Sprintf("events of type %q are not tallied", t.Type))
	}
	key := tallyKey{t.Type, t.Peer, t.Session, t.Reason}
	var full map[tallyKey]*tally
	l.mu.Lock()
	open := l.tallies[key]
	if open == nil {
		open = &tally{opened: time.Now(), Batch: Batch{Reason: t.Reason, Name: t.Name, PerModel: map[string]int64{}, Outcomes: map[string]int64{}}}
		l.tallies[key] = open
		l.wake() // there is a window to be closed
	}
	open.add(t)
	switch {
	case open.weight >= tallyRecords:
		delete(l.tallies, key)
		full = map[tallyKey]*tally{key: open}
	case len(l.tallies) > maxTallies:
		full, l.tallies = l.tallies, map[tallyKey]*tally{}
	}
	l.mu.Unlock()
	l.emit(full)
}

func (b *tally) add(t Tally) {
	var records, outcomes int64
	for name, n := range t.Models {
		b.PerModel[name] += int64(n)
		records += int64(n)
	}
	for name, n := range t.Outcomes {
		b.Outcomes[name] += int64(n)
		outcomes += int64(n)
	}
	b.Batches++
	b.Bytes += int64(t.Bytes)
	b.Cursor = t.Cursor
	b.records += records
	b.weight += max(records, outcomes)
	b.took += t.Took
}

// emit puts tallies that nobody adds to any more into the queue.
func (l *Log) emit(full map[tallyKey]*tally) {
	for key, t := range full {
		t.WindowMS = time.Since(t.opened).Milliseconds()
		models := make([]string, 0, len(t.PerModel))
		for name := range t.PerModel {
			models = append(models, name)
		}
		l.happens(l.event(batched[key.kind](t.Batch), []Option{
			Session(key.session), Peer(key.peer), sortedModels(models), Records(int(t.records)), Took(t.took),
		}))
	}
}

// FlushSession writes out what is tallied for a session. Add does so by itself when it is given the
// session's end; AddTx does not.
func (l *Log) FlushSession(id ID) {
	if l != nil {
		l.emit(l.takeTallies(func(key tallyKey, _ *tally) bool { return key.session == id }))
	}
}

// Flush writes out everything that is tallied.
func (l *Log) Flush() {
	if l != nil {
		l.emit(l.takeTallies(func(tallyKey, *tally) bool { return true }))
	}
}

// settle writes out the tallies that d ends.
func (l *Log) settle(d Detail, e Event) {
	switch _, changed := d.(StateTransition); {
	case changed:
		l.Flush()
	case endsSession[e.Type] && !e.CorrelationID.IsZero():
		l.FlushSession(e.CorrelationID)
	}
}

func (l *Log) takeTallies(take func(tallyKey, *tally) bool) map[tallyKey]*tally {
	out := map[tallyKey]*tally{}
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, t := range l.tallies {
		if take(key, t) {
			out[key] = t
			delete(l.tallies, key)
		}
	}
	return out
}

// close ends the windows that are over; all of them if now is zero.
func (l *Log) close(now time.Time) {
	l.emit(l.takeTallies(func(_ tallyKey, t *tally) bool {
		return now.IsZero() || !t.opened.Add(tallyWindow).After(now)
	}))
	l.closeStorms(now)
	l.closeFlaps(now)
}

// nextClose returns when the next window ends; zero if none is open.
func (l *Log) nextClose() (next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	consider := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, t := range l.tallies {
		consider(t.opened.Add(tallyWindow))
	}
	for _, s := range l.storms {
		consider(s.until)
	}
	for _, f := range l.flaps {
		consider(f.until)
	}
	return next
}
