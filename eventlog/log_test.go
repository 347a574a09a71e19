package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"peerdex/kv"
)

var errDisk = errors.New("no space left")

// bubble runs fn with a clock of its own, a running log, and stops the log at the end.
func bubble(t *testing.T, disk *memory, change func(*Config), fn func(t *testing.T, f fixture)) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t, disk, func(c *Config) {
			c.Now = time.Now
			if change != nil {
				change(c)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		fn(t, f)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// after runs a log to its end and returns what it wrote.
func after(t *testing.T, fn func(t *testing.T, f fixture)) []Event {
	disk := newMemory()
	bubble(t, disk, nil, fn)
	return open(t, disk, nil).query(t, Query{})
}

func summaries(events []Event) (out []string) {
	for _, e := range events {
		out = append(out, string(e.Type)+": "+e.Summary)
	}
	return out
}

func decode[D Detail](t testing.TB, e Event) D {
	t.Helper()
	d, err := e.Detail()
	if err != nil {
		t.Fatal(err)
	}
	out, ok := d.(D)
	if !ok {
		t.Fatalf("event %d is a %T", e.Seq, d)
	}
	return out
}

func checkSeqs(t testing.TB, events []Event) {
	t.Helper()
	for i, e := range events {
		if e.Seq != uint64(i+1) {
			t.Fatalf("event %d has seq %d", i+1, e.Seq)
		}
		if i > 0 && e.HLC <= events[i-1].HLC {
			t.Fatalf("stamp of event %d is not after the one before", e.Seq)
		}
	}
}

func TestEnvelope(t *testing.T) {
	f := open(t, newMemory(), nil)
	session := [16]byte{1, 2, 3}
	f.add(t, StateTransition{From: "ready", To: "catching_up", Reason: "peer connected", InStateMS: 5},
		Session(session), Peer("nas"), Models("entry", "device"), Records(3), Took(1500*time.Millisecond))
	e := f.query(t, Query{})[0]
	if e.DeviceID != device || e.Seq != 1 || e.BootID != "b1" || !e.Timestamp.Equal(start) || !e.HLC.Time().Equal(start) ||
		e.Type != "state_transition" || e.Category != Lifecycle || e.Severity != Info || e.CorrelationID != session ||
		e.PeerDeviceID != "nas" || !slices.Equal(e.ModelTypes, []string{"entry", "device"}) ||
		*e.RecordCount != 3 || *e.DurationMS != 1500 || e.SchemaVersion != 1 || e.Summary != "ready → catching_up: peer connected" {
		t.Errorf("%+v", e)
	}
	if d := decode[StateTransition](t, e); d.InStateMS != 5 {
		t.Errorf("%+v", d)
	}
}

func TestNilLogTakesEverything(t *testing.T) {
	var l *Log
	l.Add(NodeStarted{})
	l.AddBatch(Tally{Type: "batch_ingestion"})
	l.Flush()
	l.FlushSession(ID{})
	if err := l.AddTx(nil, NodeStarted{}); err != nil {
		t.Error(err)
	}
}

// Numbers have no gaps whoever writes: the writer, transactions that commit, transactions that do not,
// and the next run of the program.
func TestSeqHasNoGaps(t *testing.T) {
	disk := newMemory()
	r := rand.New(rand.NewPCG(1, 2))
	want := 0
	for range 3 {
		bubble(t, disk, nil, func(t *testing.T, f fixture) {
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 50 {
						f.Add(ScanStarted{Folder: Folder{Location: "l"}})
					}
				})
			}
			want += 200
			for range 50 {
				fail := r.IntN(3) == 0
				err := disk.Update(func(tx kv.Tx) error {
					err := errors.Join(f.AddTx(tx, FilesChanged{}), f.AddTx(tx, FilesChanged{}))
					if fail {
						return errDisk
					}
					return err
				})
				if fail != (err != nil) {
					t.Fatal(err)
				}
				if !fail {
					want += 2
				}
			}
			wg.Wait()
		})
	}
	f := open(t, disk, nil)
	events := f.query(t, Query{})
	if len(events) != want {
		t.Fatalf("%d events, want %d", len(events), want)
	}
	checkSeqs(t, events)
}

// What is counted as logged is what was committed, events in other people's transactions included.
func TestLoggedIsWhatWasCommitted(t *testing.T) {
	disk := newMemory()
	var f fixture
	bubble(t, disk, nil, func(t *testing.T, running fixture) {
		f = running
		f.add(t, FeedCloned{Feed: "x"})
		err := disk.Update(func(tx kv.Tx) error { return errors.Join(f.AddTx(tx, FeedCloned{}), errDisk) })
		if err == nil {
			t.Fatal("committed")
		}
		f.Add(NodeStopped{Reason: "told to"})
		time.Sleep(time.Second)
		f.add(t, FeedOrphaned{})
	})
	o := f.metrics.Snapshot(time.Now()).Observer
	if o.EventsLogged != 3 || o.ByCategory["error"]["error"] != 1 || o.ByCategory["error"]["warning"] != 1 || o.ByCategory["lifecycle"]["info"] != 1 {
		t.Errorf("%+v", o)
	}
	stats, err := f.Stats()
	if err != nil || o.EventsStored != 3 || uint64(o.EventBytes) != stats.Bytes || !o.EventsOldest.Equal(stats.Oldest) {
		t.Errorf("%+v, %+v (%v)", o, stats, err)
	}
}

// A queue that is full loses events, but says how many.
func TestOverflow(t *testing.T) {
	disk := newMemory()
	f := open(t, disk, nil)
	for range QueueSize + 14 {
		f.Add(ScanStarted{}) // nobody writes yet
	}
	if n := f.metrics.Snapshot(start).Observer.EventQueue; n != QueueSize {
		t.Errorf("%d events wait", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Run(ctx); err != nil {
		t.Fatal(err)
	}
	events := f.query(t, Query{})
	checkSeqs(t, events)
	if len(events) != QueueSize+1 {
		t.Fatalf("%d events", len(events))
	}
	lost := f.query(t, Query{Types: []Type{"events_dropped"}})
	if len(lost) != 1 {
		t.Fatalf("%v", summaries(lost))
	}
	if d := decode[EventsDropped](t, lost[0]); d.Count != 14 || d.Reason != "queue_full" || d.FirstAt == "" {
		t.Errorf("%+v", d)
	}
	if o := f.metrics.Snapshot(start).Observer; o.EventsDropped.By["queue_full"] != 14 || o.EventsLogged != QueueSize+1 {
		t.Errorf("%+v", o)
	}
}

// Events that a failing disk did not take are counted and told about once it works again.
func TestDiskFails(t *testing.T) {
	disk := newMemory()
	bubble(t, disk, nil, func(t *testing.T, f fixture) {
		f.Add(NodeStarted{})
		time.Sleep(time.Second)
		disk.setFail(errDisk)
		f.Add(SyncError{Kind: "apply"})
		f.Add(SyncError{Kind: "apply"})
		time.Sleep(5 * time.Second)
		disk.setFail(nil)
		time.Sleep(5 * time.Second)
	})
	events := open(t, disk, nil).query(t, Query{})
	if len(events) != 2 {
		t.Fatalf("%v", summaries(events))
	}
	if d := decode[EventsDropped](t, events[1]); d.Count != 2 || d.Reason != "store_error" || d.AfterSeq != 1 {
		t.Errorf("%+v", d)
	}
}

func TestClosedDiskEndsRun(t *testing.T) {
	disk := newMemory()
	disk.setFail(kv.ErrClosed)
	f := open(t, disk, nil)
	f.Add(SyncError{})
	if err := f.Run(t.Context()); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// A batch beyond what a transaction can hold is split, and nothing of it is lost.
func TestTransactionTooBig(t *testing.T) {
	disk := newMemory()
	disk.limit = 20
	f := open(t, disk, nil)
	for range 100 {
		f.Add(ScanStarted{})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Run(ctx); err != nil {
		t.Fatal(err)
	}
	events := f.query(t, Query{})
	checkSeqs(t, events)
	if len(events) != 100 {
		t.Errorf("%d events", len(events))
	}
}

// After kill -9 everything committed is there, at most 100 ms old; after a power cut at most the last
// second of debug and info events is gone, and no warning or error.
func TestCrash(t *testing.T) {
	disk := newMemory()
	bubble(t, disk, nil, func(t *testing.T, f fixture) {
		for i := range 50 {
			f.Add(ScanStarted{Folder: Folder{Location: fmt.Sprint(i)}})
			time.Sleep(37 * time.Millisecond)
			if i%7 == 0 {
				f.Add(WatchDegraded{Folder: Folder{Location: fmt.Sprint(i)}})
				synctest.Wait()
				if got := open(t, disk.cut(1000), nil).query(t, Query{Types: []Type{"watch_degraded"}}); len(got) != i/7+1 {
					t.Fatalf("%d warnings survive a power cut, want %d", len(got), i/7+1)
				}
			}
			synctest.Wait()
			now := time.Now()
			killed := open(t, disk.cut(0), nil).query(t, Query{Types: []Type{"scan_started"}})
			cut := open(t, disk.cut(1000), nil).query(t, Query{Types: []Type{"scan_started"}})
			checkSeqs(t, open(t, disk.cut(1000), nil).query(t, Query{}))
			if late := i + 1 - len(killed); late*37 > 100+37 {
				t.Fatalf("%d events lost to kill -9", late)
			}
			if late := i + 1 - len(cut); late*37 > 1100+37 {
				t.Fatalf("%d events lost to a power cut at %v", late, now)
			}
		}
	})
}

func TestWatch(t *testing.T) {
	bubble(t, newMemory(), nil, func(t *testing.T, f fixture) {
		woken, stop := f.Watch()
		defer stop()
		f.Add(NodeStarted{})
		<-woken
		f.add(t, FilesChanged{}) // in a transaction of its own
		<-woken
		events := f.query(t, Query{})
		if len(events) != 2 {
			t.Errorf("%v", summaries(events))
		}
		f.Add(NodeStopped{})
		<-woken
		if more := f.query(t, Query{Cursor: After(events[1])}); len(more) != 1 || more[0].Type != "node_stopped" {
			t.Errorf("%v", summaries(more))
		}
	})
}

// E4: 160 records of three models in one window are one event whose counts add up.
func TestOneBatchEvent(t *testing.T) {
	session := ID{7}
	events := after(t, func(t *testing.T, f fixture) {
		for range 10 {
			f.AddBatch(Tally{
				Type: "batch_ingestion", Peer: "nas", Session: session, Reason: "backfill",
				Models: map[string]int{"entry": 10, "device": 4, "location": 2}, Outcomes: map[string]int{"applied": 16, "duplicate": 1},
				Bytes: 100, Took: 3 * time.Millisecond,
			})
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
	})
	if len(events) != 1 {
		t.Fatalf("%v", summaries(events))
	}
	e, d := events[0], decode[BatchIngestion](t, events[0])
	if *e.RecordCount != 160 || *e.DurationMS != 30 || e.PeerDeviceID != "nas" || e.CorrelationID != session ||
		!slices.Equal(e.ModelTypes, []string{"device", "entry", "location"}) {
		t.Errorf("%+v", e)
	}
	want := Batch{
		Reason: "backfill", PerModel: map[string]int64{"entry": 100, "device": 40, "location": 20},
		Outcomes: map[string]int64{"applied": 160, "duplicate": 10}, Batches: 10, Bytes: 1000, WindowMS: 30_000,
	}
	if fmt.Sprint(d.Batch) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", d.Batch, want)
	}
	if e.Summary != "backfill: 160 records (100 entry, 40 device, 20 location), in 10 parts, 160 applied, 10 duplicate, 1.0 kB" {
		t.Errorf("%q", e.Summary)
	}
}

func TestWhatClosesATally(t *testing.T) {
	one := func(session ID, peer, reason string) Tally {
		return Tally{Type: "batch_ingestion", Peer: peer, Session: session, Reason: reason, Models: map[string]int{"entry": 1}}
	}
	events := after(t, func(t *testing.T, f fixture) {
		f.AddBatch(one(ID{1}, "nas", "live"))
		f.AddBatch(one(ID{2}, "nas", "live"))
		f.AddBatch(one(ID{2}, "nas", "catch_up"))
		f.AddBatch(one(ID{2}, "desk", "live"))
		f.Add(CatchUpSessionCompleted{}, Session(ID{1})) // the first
		synctest.Wait()
		f.Add(StateTransition{}) // the three others
		f.AddBatch(one(ID{3}, "nas", "live"))
		f.AddBatch(Tally{Type: "backfill_request_sent", Session: ID{3}, Models: map[string]int{"entry": 9_999}})
		f.AddBatch(Tally{Type: "backfill_request_sent", Session: ID{3}, Models: map[string]int{"entry": 1}}) // full
		time.Sleep(time.Second)                                                                              // the last is left to the end of the log
	})
	var types []Type
	for _, e := range events {
		types = append(types, e.Type)
	}
	want := []Type{
		"batch_ingestion", "catch_up_session_completed", "batch_ingestion", "batch_ingestion", "batch_ingestion",
		"state_transition", "backfill_request_sent", "batch_ingestion",
	}
	if !slices.Equal(types, want) || events[0].CorrelationID != (ID{1}) || *events[6].RecordCount != 10_000 {
		t.Errorf("%v", types)
	}
}

// However many add at once, and whenever windows close, nothing is counted twice or left out.
func TestTalliesAddUp(t *testing.T) {
	disk := newMemory()
	f := open(t, disk, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		total  = map[string]int64{}
		models = []string{"entry", "device", "location"}
	)
	for worker := range 32 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(worker)))
			own := map[string]int64{}
			for range 300 {
				model, n := models[r.IntN(3)], r.IntN(200)
				f.AddBatch(Tally{
					Type: "batch_ingestion", Peer: fmt.Sprint(r.IntN(3)), Session: ID{byte(r.IntN(4))},
					Reason: "live", Models: map[string]int{model: n},
				})
				own[model] += int64(n)
				switch r.IntN(40) {
				case 0:
					f.Flush()
				case 1:
					f.FlushSession(ID{byte(r.IntN(4))})
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for model, n := range own {
				total[model] += n
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var records, sum int64
	got := map[string]int64{}
	for _, e := range f.query(t, Query{}) {
		records += *e.RecordCount
		for model, n := range decode[BatchIngestion](t, e).PerModel {
			got[model] += n
		}
	}
	for _, n := range total {
		sum += n
	}
	if records != sum || !maps.Equal(got, total) {
		t.Errorf("%d records, %v; want %d, %v", records, got, sum, total)
	}
}

// The first error of a storm is there at once, the others as one summary per window, and they add up.
func TestStorm(t *testing.T) {
	disk := newMemory()
	bubble(t, disk, nil, func(t *testing.T, f fixture) {
		reject := func(peer string, n int64) {
			f.Add(ChangeRejected{Feed: "x", Reason: "schema", Count: n, Changes: []string{"a"}, By: "us"}, Peer(peer), Records(int(n)))
		}
		reject("nas", 4)
		synctest.Wait()
		if got := f.query(t, Query{}); len(got) != 1 {
			t.Fatalf("the first is not there at once: %v", summaries(got))
		}
		for range 10 {
			reject("nas", 2)
			time.Sleep(time.Second)
		}
		reject("desk", 1) // another device: a storm of its own
		time.Sleep(25 * time.Second)
		reject("nas", 1) // in the next window, which began when the first was summed up
		time.Sleep(2 * time.Minute)
		reject("nas", 8) // a new storm
		time.Sleep(time.Second)
		reject("nas", 16) // summed up when the log closes
	})
	f := open(t, disk, nil)
	var counts, repeats []int64
	for _, e := range f.query(t, Query{Peer: "nas"}) {
		d := decode[ChangeRejected](t, e)
		counts, repeats = append(counts, d.Count), append(repeats, d.Repeats.Repeats)
		if *e.RecordCount != d.Count {
			t.Errorf("%d records of %d", *e.RecordCount, d.Count)
		}
	}
	if !slices.Equal(counts, []int64{4, 20, 1, 8, 16}) || !slices.Equal(repeats, []int64{0, 10, 1, 0, 1}) {
		t.Errorf("counts %v, repeats %v", counts, repeats)
	}
	if n := len(f.query(t, Query{Peer: "desk"})); n != 1 {
		t.Errorf("%d of the other device", n)
	}
}

// More than three connects in ten minutes are one event that says so; what was held back is said once
// the window is over.
func TestFlaps(t *testing.T) {
	events := after(t, func(t *testing.T, f fixture) {
		for range 6 {
			f.Add(PeerConnected{Path: "lan"}, Peer("nas"))
			f.Add(PeerDisconnected{ReasonCode: "reset"}, Peer("nas"))
			time.Sleep(time.Minute)
		}
		f.Add(PeerConnected{Path: "lan"}, Peer("desk")) // steady
		time.Sleep(time.Hour)
		f.Add(PeerConnected{Path: "lan"}, Peer("nas"))
	})
	var got []string
	for _, e := range events {
		if e.PeerDeviceID == "nas" {
			s := string(e.Type)
			if e.Type == "peer_connected" {
				s += fmt.Sprint(decode[PeerConnected](t, e).Flaps)
			}
			got = append(got, s)
		}
	}
	want := []string{
		"peer_connected0", "peer_disconnected", "peer_connected0", "peer_disconnected", "peer_connected0", "peer_disconnected",
		"peer_connected4", "peer_connected2", "peer_disconnected", "peer_connected0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestRetention(t *testing.T) {
	disk := newMemory()
	f := open(t, disk, nil)
	f.add(t, ScanStarted{}) // debug
	f.add(t, NodeStarted{}) // info
	f.add(t, ScanFailed{})  // warning
	f.add(t, SyncError{})   // error
	for _, step := range []struct {
		after time.Duration
		want  []Type
	}{
		{3*day - time.Second, []Type{"scan_started", "node_started", "scan_failed", "sync_error"}},
		{3*day + time.Second, []Type{"node_started", "scan_failed", "sync_error"}},
		{7*day + time.Second, []Type{"scan_failed", "sync_error"}},
		{90*day - time.Second, []Type{"scan_failed", "sync_error"}},
		{90*day + time.Second, nil},
	} {
		f.wall.set(start.Add(step.after))
		if err := f.prune(); err != nil {
			t.Fatal(err)
		}
		var got []Type
		for _, e := range f.query(t, Query{}) {
			got = append(got, e.Type)
		}
		if !slices.Equal(got, step.want) {
			t.Errorf("after %v: %v, want %v", step.after, got, step.want)
		}
	}
	left := 0
	disk.View(func(r kv.Reader) error {
		return r.ScanKeys([]byte{family}, nil, func([]byte) error { left++; return nil })
	})
	if s, err := f.Stats(); err != nil || left != 1 || s.Events != 0 || s.Bytes != 0 || s.Seq != 4 {
		t.Errorf("%d keys, %+v (%v)", left, s, err)
	}
}

// stored counts what is on disk key by key.
func stored(t *testing.T, disk *memory) (bytes uint64) {
	err := disk.View(func(r kv.Reader) error {
		return r.Scan([]byte{family}, nil, func(key, value []byte) error {
			if string(key) != string(metaKey) {
				bytes += uint64(len(key) + len(value))
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// A log that outgrows its size loses the oldest of its least severe events, and says so.
func TestSizeCap(t *testing.T) {
	disk := newMemory()
	const limit = 100_000
	bubble(t, disk, func(c *Config) { c.MaxBytes = limit }, func(t *testing.T, f fixture) {
		for i := range 300 {
			f.Add(SyncError{Kind: "apply", Message: fmt.Sprint(i)}, Peer("nas"), Session(ID{1}))
			f.Add(ScanStarted{Folder: Folder{Location: fmt.Sprint(i)}})
			time.Sleep(time.Second)
			if s, err := f.Stats(); err != nil || s.Bytes != stored(t, disk) || s.Bytes > limit+2000 {
				t.Fatalf("%+v, %d on disk (%v)", s, stored(t, disk), err)
			}
		}
	})
	f := open(t, disk, nil)
	errors, debug := f.query(t, Query{Severities: []Severity{Error}}), f.query(t, Query{Types: []Type{"scan_started"}})
	if len(errors) != 300 || len(debug) == 0 || len(debug) > 200 {
		t.Fatalf("%d errors and %d debug events left", len(errors), len(debug))
	}
	for i, e := range debug {
		if d, want := decode[ScanStarted](t, e), fmt.Sprint(300-len(debug)+i); d.Location != want {
			t.Fatalf("%s is left where %s should be: not the newest are kept", d.Location, want)
		}
	}
	pruned := f.query(t, Query{Types: []Type{"events_pruned"}})
	if len(pruned) == 0 {
		t.Fatal("nobody was told")
	}
	if d := decode[EventsPruned](t, pruned[0]); d.Reason != "size" || d.Count == 0 || d.PerSeverity["debug"] != d.Count || d.FirstSeq == 0 {
		t.Errorf("%+v", d)
	}
}

// What cannot be encoded is counted, and what is too large says how large it was.
func TestOddDetails(t *testing.T) {
	f := open(t, newMemory(), nil)
	f.add(t, BackfillSessionStarted{Candidates: []Candidate{{Score: nan()}}})
	f.add(t, SyncError{Message: string(make([]byte, 1<<20))})
	events := f.query(t, Query{})
	if len(events) != 1 || len(events[0].Details) > 100 || !json.Valid(events[0].Details) {
		t.Errorf("%v", summaries(events))
	}
	if o := f.metrics.Snapshot(start).Observer; o.EventsDropped.By["encode_error"] != 1 {
		t.Errorf("%+v", o.EventsDropped)
	}
}

func nan() float64 { var zero float64; return zero / zero }

var (
	somePeers    = []string{"", "nas", "desk"}
	someSessions = []ID{{}, {1}, {2}}
	someTypes    = []Type{"scan_started", "node_started", "sync_error", "stuck_dependencies", "catalog_converged", "batch_ingestion", "device_invited"}
	someModels   = []string{"entry", "device"}
)

// aLog fills a log with n events of all sorts, one millisecond or so apart.
func aLog(t testing.TB, n int, r *rand.Rand) (fixture, []Event) {
	f := open(t, newMemory(), nil)
	f.wall.step = time.Millisecond
	for i := 0; i < n; {
		err := f.disk.Update(func(tx kv.Tx) error {
			for range min(500, n-i) {
				d, _ := kinds[someTypes[r.IntN(len(someTypes))]].decode(json.RawMessage(`{}`))
				options := []Option{Session(someSessions[r.IntN(3)]), Peer(somePeers[r.IntN(3)])}
				if r.IntN(2) == 0 {
					options = append(options, Models(someModels[r.IntN(2)]))
				}
				if err := f.AddTx(tx, d, options...); err != nil {
					return err
				}
				i++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var all []Event
	err := f.disk.View(func(r kv.Reader) error {
		return r.Scan([]byte{family, tableEvents}, nil, func(key, row []byte) error {
			e, err := decodeRow(device, positionOf(key), row)
			all = append(all, e)
			return err
		})
	})
	if err != nil || len(all) != n {
		t.Fatal(len(all), err)
	}
	return f, all
}

// selects is the oracle: what q means, said in the plainest way.
func selects(q Query, e Event) bool {
	ms := e.HLC.Time()
	in := func(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }
	var types, categories, severities []string
	for _, t := range q.Types {
		types = append(types, string(t))
	}
	for _, c := range q.Categories {
		categories = append(categories, string(c))
	}
	for _, s := range q.Severities {
		severities = append(severities, string(s))
	}
	order := map[Severity]int{Debug: 1, Info: 2, Warning: 3, Error: 4}
	return (q.Since.IsZero() || !ms.Before(q.Since)) &&
		(q.Until.IsZero() || ms.Before(q.Until)) &&
		(in(types, string(e.Type)) || slices.Contains(types, "sync_error") && e.Category == "error") &&
		in(categories, string(e.Category)) && in(severities, string(e.Severity)) &&
		order[e.Severity] >= order[q.MinSeverity] &&
		(q.Correlation == ID{} || q.Correlation == e.CorrelationID) &&
		(q.Peer == "" || q.Peer == e.PeerDeviceID) &&
		(q.Model == "" || slices.Contains(e.ModelTypes, q.Model)) &&
		(q.Grep == nil || q.Grep.MatchString(e.Summary+"\n"+string(e.Type)+"\n"+string(e.Details)))
}

// Every filter, every pair and every set of filters finds what the oracle finds, in pages of any size that
// neither overlap nor skip, in both directions.
func TestQueryAgainstOracle(t *testing.T) {
	f, all := aLog(t, 600, rand.New(rand.NewPCG(5, 6)))
	last := all[len(all)-1].HLC.Time()
	rapid.Check(t, func(t *rapid.T) {
		at := func(name string) time.Time {
			return start.Add(time.Duration(rapid.Int64Range(-5, last.Sub(start).Milliseconds()+5).Draw(t, name)) * time.Millisecond)
		}
		q := Query{Desc: rapid.Bool().Draw(t, "desc"), Limit: rapid.IntRange(1, 700).Draw(t, "limit")}
		for _, field := range rapid.SliceOfNDistinct(rapid.IntRange(0, 9), 0, 4, rapid.ID).Draw(t, "fields") {
			switch field {
			case 0:
				q.Since = at("since")
			case 1:
				q.Until = at("until")
			case 2:
				q.Types = rapid.SliceOfN(rapid.SampledFrom(Types()), 1, 4).Draw(t, "types")
				q.Types = append(q.Types, rapid.SliceOfN(rapid.SampledFrom(someTypes), 0, 3).Draw(t, "more types")...)
			case 3:
				q.Categories = rapid.SliceOfN(rapid.SampledFrom(Categories), 1, 3).Draw(t, "categories")
			case 4:
				q.Severities = rapid.SliceOfN(rapid.SampledFrom(Severities), 1, 3).Draw(t, "severities")
			case 5:
				q.MinSeverity = rapid.SampledFrom(Severities).Draw(t, "min severity")
			case 6:
				q.Correlation = rapid.SampledFrom([]ID{{1}, {2}, {3}}).Draw(t, "session")
			case 7:
				q.Peer = rapid.SampledFrom([]string{"nas", "desk", "attic"}).Draw(t, "peer")
			case 8:
				q.Model = rapid.SampledFrom([]string{"entry", "device", "tag"}).Draw(t, "model")
			case 9:
				q.Grep = regexp.MustCompile(rapid.SampledFrom([]string{"missing", "scan", `"kind"`, "nothing has this"}).Draw(t, "grep"))
			}
		}
		var want []uint64
		for _, e := range all {
			if selects(q, e) {
				want = append(want, e.Seq)
			}
		}
		if q.Desc {
			slices.Reverse(want)
		}
		var got []uint64
		for {
			events, next, err := f.Query(q)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				got = append(got, e.Seq)
			}
			if next == (Cursor{}) {
				break
			}
			if len(events) != q.Limit {
				t.Fatalf("a page of %d, limit %d, and there is more", len(events), q.Limit)
			}
			q.Cursor = next
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v\ngot  %v\nwant %v", q, got, want)
		}
	})
}

// Pages stay true while events are logged between them.
func TestPagesWhileLogging(t *testing.T) {
	f, _ := aLog(t, 100, rand.New(rand.NewPCG(7, 8)))
	q := Query{Limit: 7, MinSeverity: Info}
	var seqs []uint64
	for {
		events, next, err := f.Query(q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			seqs = append(seqs, e.Seq)
		}
		if len(seqs) < 200 {
			f.add(t, NodeStarted{})
		}
		if next == (Cursor{}) {
			break
		}
		q.Cursor = next
	}
	var want []uint64
	for _, e := range f.query(t, Query{MinSeverity: Info}) {
		want = append(want, e.Seq)
	}
	if !slices.Equal(seqs, want[:len(seqs)]) || len(want)-len(seqs) > 1 {
		t.Errorf("got  %v\nwant %v", seqs, want)
	}
}

// A cursor never leads out of the time asked for.
func TestCursorBeforeSince(t *testing.T) {
	f, all := aLog(t, 100, rand.New(rand.NewPCG(11, 12)))
	got := f.query(t, Query{Since: all[50].HLC.Time(), Cursor: After(all[3])})
	if len(got) == 0 || got[0].HLC.Time().Before(all[50].HLC.Time()) || len(got) > 51 {
		t.Errorf("%d events", len(got))
	}
}

func TestBadQueries(t *testing.T) {
	f := open(t, newMemory(), nil)
	for _, q := range []Query{
		{Limit: -1}, {Limit: MaxLimit + 1}, {MinSeverity: "loud"}, {Severities: []Severity{"loud"}},
		{Types: []Type{"StateTransition"}}, {Categories: []Category{"x"}},
	} {
		if _, _, err := f.Query(q); !errors.Is(err, ErrQuery) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if _, err := Open(newMemory(), Config{}); err == nil {
		t.Error("a log without device and clock opened")
	}
}

func BenchmarkQuery(b *testing.B) {
	f, _ := aLog(b, 100_000, rand.New(rand.NewPCG(9, 10)))
	for name, q := range map[string]Query{
		"time":          {Since: start.Add(time.Minute)},
		"type":          {Types: []Type{"device_invited"}},
		"session":       {Correlation: ID{1}},
		"peer+type":     {Peer: "nas", Types: []Type{"sync_error"}},
		"errors-newest": {MinSeverity: Error, Desc: true},
	} {
		b.Run(name+"/events=1000of100000", func(b *testing.B) {
			for b.Loop() {
				if events, _, err := f.Query(q); err != nil || len(events) != 1000 {
					b.Fatal(len(events), err)
				}
			}
		})
	}
}

// What many do at once is in the log in the order of its times.
func TestInOrderOfTime(t *testing.T) {
	disk := newMemory()
	var ticks atomic.Int64
	f := open(t, disk, func(c *Config) {
		c.Now = func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Microsecond) }
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	const many, each = 8, 200
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			for range each {
				f.Add(NodeStarted{Clean: true})
				f.AddBatch(Tally{Type: LookedUp{}.Type(), Reason: "search", Outcomes: map[string]int{"answered": tallyRecords}})
			}
		})
	}
	all.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	events := open(t, disk, nil).query(t, Query{Limit: MaxLimit})
	if len(events) != 2*many*each {
		t.Fatalf("%d events", len(events))
	}
	for i, e := range events[1:] {
		if before := events[i]; e.Timestamp.Before(before.Timestamp) || e.HLC <= before.HLC || e.Seq != before.Seq+1 {
			t.Fatalf("%d at %v (%v) comes behind %d at %v (%v)", e.Seq, e.Timestamp, e.HLC, before.Seq, before.Timestamp, before.HLC)
		}
	}
}
