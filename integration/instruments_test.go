package integration

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"peerdex/api"
	"peerdex/backfill"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/member"
	"peerdex/metrics"
	"peerdex/node"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// instrument says whether a metric has moved, of what the local interface shows of it.
type instrument func(m metrics.Snapshot) bool

func anyDevice(moved func(d metrics.Device) bool) instrument {
	return func(m metrics.Snapshot) bool {
		return slices.ContainsFunc(m.Devices, func(d metrics.Device) bool { return !d.Own && moved(d) })
	}
}

func anySession(moved func(s metrics.Session) bool) instrument {
	return func(m metrics.Snapshot) bool { return slices.ContainsFunc(m.Operations.Sessions, moved) }
}

func anyDurations(of func(m metrics.Snapshot) map[string]metrics.Durations) instrument {
	return func(m metrics.Snapshot) bool {
		for _, d := range of(m) {
			if d.Count > 0 {
				return true
			}
		}
		return false
	}
}

// instruments is every metric there is.
var instruments = map[string]instrument{
	"build_info":                           func(m metrics.Snapshot) bool { return m.Version != "" },
	"device_info":                          anyDevice(func(d metrics.Device) bool { return d.Name != "" && d.OS != "" }),
	"sync_state":                           func(m metrics.Snapshot) bool { return m.State.Current != node.StateUninitialized },
	"sync_state_entered_timestamp_seconds": func(m metrics.Snapshot) bool { return !m.State.EnteredAt.IsZero() },
	"sync_state_seconds_total":             func(m metrics.Snapshot) bool { return m.State.TimeIn[node.StatePaused] > 0 },
	"sync_state_transitions_total":         func(m metrics.Snapshot) bool { return m.State.Transitions > 0 },
	"sync_broadcasts_sent_total": func(m metrics.Snapshot) bool {
		return m.Operations.Broadcasts.By["state"] > 0 && m.Operations.Broadcasts.By["shared"] > 0
	},
	"sync_broadcast_batches_sent_total": func(m metrics.Snapshot) bool { return m.Operations.Broadcasts.Batches > 0 },
	"sync_broadcast_batch_records":      func(m metrics.Snapshot) bool { return m.Operations.Broadcasts.BatchRecords.Count > 0 },
	"sync_broadcast_failures_total":     func(m metrics.Snapshot) bool { return m.Operations.FailedBroadcasts.Total > 0 },
	"sync_changes_received_total":       func(m metrics.Snapshot) bool { return m.Operations.Received.Total > 0 },
	"sync_changes_processed_total":      func(m metrics.Snapshot) bool { return m.Operations.Processed.By["applied"] > 0 },
	"sync_rejections_total":             func(m metrics.Snapshot) bool { return m.Operations.Rejections.Total > 0 },
	"sync_buffered_changes":             func(m metrics.Snapshot) bool { return *m.Operations.Buffered > 0 },
	"sync_buffer_dropped_total":         func(m metrics.Snapshot) bool { return *m.Operations.HintsDropped > 0 },
	"sync_stuck_changes":                func(m metrics.Snapshot) bool { return *m.Operations.StuckChanges > 0 },
	"sync_missing_parents":              func(m metrics.Snapshot) bool { return *m.Operations.MissingParents > 0 },
	"sync_sessions_active":              anySession(func(s metrics.Session) bool { return s.Active > 0 }),
	"sync_sessions_total":               anySession(func(s metrics.Session) bool { return s.Ended.Total > 0 }),
	"sync_session_duration_seconds":     anySession(func(s metrics.Session) bool { return s.Duration.Count > 0 }),
	"sync_backfill_pages_total":         func(m metrics.Snapshot) bool { return *m.Operations.Pages > 0 },
	"sync_snapshot_chunks_total":        func(m metrics.Snapshot) bool { return m.Operations.Chunks.Total > 0 },
	"sync_backfill_progress_ratio":      anyDevice(func(d metrics.Device) bool { return d.Progress > 0 }),
	"sync_retry_queue_depth":            func(m metrics.Snapshot) bool { return *m.Operations.RetryQueue > 0 },
	"sync_retries_total":                func(m metrics.Snapshot) bool { return m.Operations.Retries.Total > 0 },
	"sync_strategy_selected_total":      func(m metrics.Snapshot) bool { return len(m.Operations.Strategies) > 0 },
	"sync_bulk_decisions_total":         func(m metrics.Snapshot) bool { return m.Operations.BulkDecisions.Total > 0 },
	"sync_lookups_total": func(m metrics.Snapshot) bool {
		return m.Operations.LookupsAsked.Total > 0 || m.Operations.LookupsAnswered.Total > 0
	},
	"sync_records_synced_total": func(m metrics.Snapshot) bool {
		return !slices.ContainsFunc([]string{"entry", "device", "location", "member", "tag", "tagging", "note"}, func(model string) bool { return m.Volume.Records.By[model] == 0 })
	},
	"sync_sent_bytes_total":            func(m metrics.Snapshot) bool { return *m.Volume.SentBytes > 0 },
	"sync_received_bytes_total":        func(m metrics.Snapshot) bool { return *m.Volume.ReceivedBytes > 0 },
	"sync_uncompressed_bytes_total":    func(m metrics.Snapshot) bool { return m.Volume.Uncompressed.Total > 0 },
	"sync_last_sync_timestamp_seconds": anyDevice(func(d metrics.Device) bool { return d.LastSync != nil }),
	"sync_model_last_sync_timestamp_seconds": func(m metrics.Snapshot) bool {
		return slices.ContainsFunc(m.Volume.Models, func(x metrics.Model) bool { return x.LastSync != nil })
	},
	"device_last_seen_timestamp_seconds":     anyDevice(func(d metrics.Device) bool { return d.LastSeen != nil }),
	"device_online":                          anyDevice(func(d metrics.Device) bool { return d.Online }),
	"sync_broadcast_duration_seconds":        func(m metrics.Snapshot) bool { return m.Performance.Broadcast.Count > 0 },
	"sync_apply_duration_seconds":            func(m metrics.Snapshot) bool { return m.Performance.Apply.Count > 0 },
	"sync_backfill_request_duration_seconds": func(m metrics.Snapshot) bool { return m.Performance.Page.Count > 0 },
	"sync_watermark_timestamp_seconds":       anyDevice(func(d metrics.Device) bool { return d.StateWatermark != nil && d.SharedWatermark != nil }),
	"sync_lag_changes":                       anyDevice(func(d metrics.Device) bool { return d.LagOut > 0 }),
	"sync_propagation_seconds":               anyDurations(func(m metrics.Snapshot) map[string]metrics.Durations { return m.Performance.Propagation }),
	"device_rtt_seconds":                     anyDevice(func(d metrics.Device) bool { return d.RTT > 0 }),
	"clock_hlc_drift_seconds":                func(m metrics.Snapshot) bool { return *m.Performance.HLCDrift > 0 },
	"clock_hlc_logical_max":                  func(m metrics.Snapshot) bool { return *m.Performance.LogicalMax > 0 },
	"clock_device_offset_seconds":            anyDevice(func(d metrics.Device) bool { return d.ClockOffset != 0 }),
	"store_operation_duration_seconds":       anyDurations(func(m metrics.Snapshot) map[string]metrics.Durations { return m.Performance.Store }),
	"store_size_bytes":                       func(m metrics.Snapshot) bool { return m.Performance.StoreBytes.Total > 0 },
	"memory_reserved_peak_bytes":             func(m metrics.Snapshot) bool { return m.Performance.Memory["serve"].Most > 0 },
	"sync_errors_total":                      func(m metrics.Snapshot) bool { return m.Errors.Counts.Total > 0 },
	"sync_conflicts_total":                   func(m metrics.Snapshot) bool { return m.Errors.Conflicts.Total > 0 },
	"device_connection_state":                anyDevice(func(d metrics.Device) bool { return d.Connection == node.LinkConnected }),
	"device_connection_state_code":           anyDevice(func(d metrics.Device) bool { return d.Connection == node.LinkConnected }),
	"device_consecutive_failures":            anyDevice(func(d metrics.Device) bool { return d.ConsecutiveFailures > 0 }),
	"device_connection_attempts_total":       anyDevice(func(d metrics.Device) bool { return d.Attempts.Total > 0 }),
	"device_addresses_learned_total":         anyDevice(func(d metrics.Device) bool { return d.AddressesLearned.By["record"] > 0 }),
	"device_joins_total": func(m metrics.Snapshot) bool {
		return m.Operations.Joins.By["joined"] > 0 && m.Operations.Joins.By["not_approved"] > 0
	},
	"device_departures_total": func(m metrics.Snapshot) bool {
		return m.Operations.Departures.By["revoked"] > 0 && m.Operations.Departures.By["left"] > 0 && m.Operations.Departures.By["forgotten"] > 0
	},
	"streams_refused_total":          func(m metrics.Snapshot) bool { return m.Operations.StreamsRefused.By["not_member"] > 0 },
	"devices_tracked":                anyDevice(func(metrics.Device) bool { return true }),
	"devices_connected":              anyDevice(func(d metrics.Device) bool { return d.Online }),
	"catalog_records":                func(m metrics.Snapshot) bool { return m.Catalog.Records["entry"] > 0 },
	"catalog_tombstones":             func(m metrics.Snapshot) bool { return *m.Catalog.Tombstones > 0 },
	"catalog_files":                  func(m metrics.Snapshot) bool { return m.Catalog.Files > 0 },
	"catalog_file_bytes":             func(m metrics.Snapshot) bool { return m.Catalog.FileBytes > 0 },
	"catalog_digest_checks_total":    anyDevice(func(d metrics.Device) bool { return d.DigestChecks.Total > 0 }),
	"catalog_diverged":               anyDevice(func(d metrics.Device) bool { return d.Diverged }),
	"catalog_query_duration_seconds": anyDurations(func(m metrics.Snapshot) map[string]metrics.Durations { return m.Performance.Queries }),
	"scan_files_total":               func(m metrics.Snapshot) bool { return m.Catalog.Scan.Files.By["added"] > 0 },
	"scan_hashed_files_total":        func(m metrics.Snapshot) bool { return m.Catalog.Scan.Hashed.By["hashed"] > 0 },
	"scan_hashed_bytes_total":        func(m metrics.Snapshot) bool { return m.Catalog.Scan.HashedBytes > 0 },
	"scan_duration_seconds":          func(m metrics.Snapshot) bool { return m.Catalog.Scan.Duration.Count > 0 },
	"scan_last_completed_timestamp_seconds": func(m metrics.Snapshot) bool {
		return slices.ContainsFunc(m.Catalog.Scan.Locations, func(l metrics.Location) bool { return l.LastScan != nil })
	},
	"scan_watch_active": func(m metrics.Snapshot) bool {
		return slices.ContainsFunc(m.Catalog.Scan.Locations, func(l metrics.Location) bool { return l.Watched })
	},
	"scan_watch_overflows_total":      func(m metrics.Snapshot) bool { return m.Catalog.Scan.WatchOverflows > 0 },
	"metrics_label_overflow_total":    func(m metrics.Snapshot) bool { return m.Observer.LabelOverflow.Total > 0 },
	"events_logged_total":             func(m metrics.Snapshot) bool { return m.Observer.EventsLogged > 0 },
	"events_stored":                   func(m metrics.Snapshot) bool { return m.Observer.EventsStored > 0 },
	"events_stored_bytes":             func(m metrics.Snapshot) bool { return m.Observer.EventBytes > 0 },
	"events_oldest_timestamp_seconds": func(m metrics.Snapshot) bool { return m.Observer.EventsOldest != nil },
	"http_requests_total":             func(m metrics.Snapshot) bool { return len(m.Observer.Requests) > 0 },
	"http_request_duration_seconds": func(m metrics.Snapshot) bool {
		return slices.ContainsFunc(m.Observer.Requests, func(r metrics.Route) bool { return r.Duration.Count > 0 })
	},
}

// stillInstruments move for so short a time, or need so much, that processes on one machine cannot be seen
// moving them. Each names the test that does.
var stillInstruments = map[string]string{
	"scan_backlog_files":        "is above 0 only while directories wait to be listed: catalog, TestBacklog",
	"events_queue_depth":        "is above 0 only until the writer's next batch: eventlog, TestOverflow",
	"events_dropped_total":      "needs more events at once than the log queues, or a disk that fails: eventlog, TestOverflow",
	"discovery_strangers_total": "needs multicast, which not every machine has: TestNearby, and TestSighted of package node",
	"memory_reserved_bytes":     "is above 0 only while something is on its way: node, TestMemoryIsGivenBack",
	"memory_refused_total":      "needs more at a time than one machine's processes ask for: node, TestNoMemory",
	"scan_hash_backlog_files":   "is above 0 only while files are read: catalog, TestTwinsAreHashed",
}

// silentEvents cannot be provoked by processes on one machine within a test. Each names the test that sees it.
var silentEvents = map[eventlog.Type]string{
	"store_error":       "needs a disk that fails: node, TestFailedSync and TestStoreFails",
	"apply_failed":      "needs a disk that fails: node, TestStoreFails",
	"disk_low":          "needs a full disk: node, TestDiskLow",
	"events_dropped":    "needs more events at once than the log queues, or a disk that fails: eventlog, TestOverflow and TestDiskFails",
	"events_pruned":     "needs days, or 64 MB of events: eventlog, TestSizeCap",
	"memory_refused":    "needs more at a time than one machine's processes ask for: node, TestNoMemory",
	"peer_stalled":      "needs a device that reads nothing for 24 s: TestReceiverThatDoesNotRead",
	"feed_orphaned":     "needs a week: node, TestOrphanBelowTheFloor and TestOrphanOfNobody",
	"feed_cloned":       "needs a home that runs twice: TestHomeCloned, and node, TestClone",
	"feed_rolled_back":  "needs a store put back to what it was: node, TestStoreRolledBack",
	"entries_set_aside": "needs a frozen clone: node, TestClone",

	"transfer_progress":         "needs more than 10,000 entries: node, TestJoinBySnapshot",
	"snapshot_import_completed": "needs a device that was away from all others: node, TestJoinBySnapshot",
}

// watched notes what was seen on any device, while the script goes on.
type watched struct {
	peers   []*peer
	metrics map[string]bool
	events  map[eventlog.Type]bool
}

func (w *watched) look(t *testing.T) {
	for _, p := range w.peers {
		if p.cmd == nil {
			continue
		}
		m, err := p.client.Metrics(t.Context(), "", "")
		if err != nil {
			continue // it is stopped just now
		}
		for name, moved := range instruments {
			w.metrics[name] = w.metrics[name] || moved(m)
		}
		_, _ = p.client.Events(t.Context(), api.EventQuery{}, func(e eventlog.Event) error {
			w.events[e.Type] = true
			return nil
		})
	}
}

// until waits, looking, until a metric has been seen to move or an event of a type is there.
func (w *watched) until(t *testing.T, what string) {
	t.Helper()
	eventually(t, what, func() string {
		w.look(t)
		if w.metrics[what] || w.events[eventlog.Type(what)] {
			return ""
		}
		return "not seen"
	})
}

// Every metric that is registered moves, and every type of event that is declared appears, in one script
// of three devices and a fourth that misbehaves.
func TestEveryInstrument(t *testing.T) {
	t.Parallel()
	registered := registeredNames(t)
	for _, name := range registered {
		if _, ok := stillInstruments[name]; instruments[name] == nil && !ok {
			t.Errorf("metric %s is not in the table of this test", name)
		}
	}
	for _, name := range slices.Collect(maps.Keys(instruments)) {
		if !slices.Contains(registered, name) {
			t.Errorf("metric %s is not registered", name)
		}
	}

	dir, extra, vanishing := tempDir(t), tempDir(t), filepath.Join(tempDir(t), "vanishing")
	fill(t, dir, 3000)
	write(t, filepath.Join(vanishing, "f"), "123")
	a, b, c := newPeer(t, "alpha", "--bulk", "400"), newPeer(t, "beta"), newPeer(t, "gamma", "--bulk", "400")
	w := &watched{peers: []*peer{a, b, c}, metrics: map[string]bool{}, events: map[eventlog.Type]bool{}}
	first := a.start("", dir)
	b.join(first.Invite.Line, vanishing)
	c.join(a.invite(), folders(t, metrics.MaxLocations+1)...)
	inStep(t, a, b, c)
	w.look(t)

	// a large scan is announced; what it found is asked for one folder at a time, then fetched again
	wide := tempDir(t)
	fill(t, wide, 500)
	where := "alpha:" + a.add(wide).Location.Name
	w.until(t, "bulk_index_announced")
	w.until(t, "bulk_index_decided")
	inStep(t, a, b, c)
	b.ask(&node.LocationView{}, "locations", "set", where, "--fetch", "lazy")
	b.ask(&node.Listing{}, "ls", "alpha:"+wide)
	w.until(t, "looked_up")
	w.until(t, "lookup_answered")
	b.ask(&node.LocationView{}, "locations", "set", where, "--fetch", "eager")
	a.ask(&node.LocationView{}, "locations", "remove", wide)

	// changes both ways, in batches and alone; a rename, a deletion, a location less, a folder gone
	fill(t, filepath.Join(dir, "batch"), 50)
	write(t, filepath.Join(vanishing, "g"), "1")
	if err := os.Rename(filepath.Join(dir, "d001"), filepath.Join(dir, "renamed")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "d002")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the batch is catalogued", func() string { return a.run("ls", filepath.Join(dir, "batch")).stderr })
	a.edit("tag", "add", "seen", filepath.Join(dir, "batch"))
	a.edit("note", filepath.Join(dir, "batch"), "fifty")
	inStep(t, a, b, c)
	write(t, filepath.Join(extra, "x"), "x")
	a.add(extra)
	a.ask(&node.LocationView{}, "locations", "remove", extra)
	a.ask(&node.Listing{}, "ls", dir)
	library := filepath.Join(tempDir(t), "library")
	a.ask(&node.SnapshotView{}, "snapshot", "export", library)
	spoilt := filepath.Join(tempDir(t), "spoilt")
	write(t, spoilt, "no snapshot")
	b.wantProblem(t, 9, node.CodeIntegrity, "snapshot", "import", spoilt)
	a.wantProblem(t, 7, node.CodeConflict, "snapshot", "export", library) // which is there
	var known node.SnapshotView
	if b.ask(&known, "snapshot", "import", library); known.Feeds != 0 || known.Held == 0 {
		t.Errorf("of what it holds: %+v", known)
	}
	write(t, filepath.Join(dir, "twin"), "read")
	write(t, filepath.Join(dir, "other twin"), "read")
	a.ask(&node.LocationView{}, "locations", "set", dir, "--hash", "all")
	w.until(t, "location_changed")
	w.until(t, "scan_hashed_bytes_total")
	if err := os.RemoveAll(vanishing); err != nil {
		t.Fatal(err)
	}
	w.until(t, "scan_failed")
	write(t, filepath.Join(vanishing, "f"), "123")
	w.until(t, "catalog_tombstones")
	a.flood(dir)
	w.until(t, "scan_watch_overflows_total")
	w.until(t, "watch_degraded")
	w.until(t, "watch_recovered")

	a.wantProblem(t, 5, node.CodeUnknownLocation, "locations", "remove", "nowhere")

	// a pause, and what is missed meanwhile
	b.ask(&node.PauseView{}, "sync", "pause")
	write(t, filepath.Join(dir, "missed"), "x")
	w.until(t, "sync_lag_changes")
	b.ask(&node.PauseView{}, "sync", "resume")
	inStep(t, a, b)

	// a push that is never answered, a kill, and what was deleted and collected meanwhile
	c.signal(syscall.SIGSTOP)
	write(t, filepath.Join(dir, "unanswered"), "x")
	eventually(t, "unanswered", func() string {
		if b.dumpCatalogue().find(filepath.Join(dir, "unanswered")) == nil {
			return "not there"
		}
		return ""
	})
	c.kill()
	w.until(t, "sync_broadcast_failures_total")
	if err := os.RemoveAll(filepath.Join(dir, "d003")); err != nil {
		t.Fatal(err)
	}
	w.until(t, "device_consecutive_failures")
	w.until(t, "peer_connection_failed")
	id := locationAt(t, a, dir)
	a.ask(&node.ScanView{}, "locations", "rescan", dir)
	a.stop()
	b.stop() // it has the tombstones, and is no donor of theirs
	a.tombstones(t, id, true)
	a.start("")
	c.start("")
	w.until(t, "reconcile_session_completed")
	w.until(t, "watermark_too_old")
	b.start("")
	inStep(t, a, b, c)

	misbehave(t, a, w)
	w.look(t)
	for _, p := range w.peers {
		wantBalanced(t, p)
	}
	household(t, a, b, c)
	w.look(t)
	for _, name := range registered {
		if _, ok := stillInstruments[name]; !ok && !w.metrics[name] {
			t.Errorf("metric %s has not moved", name)
		}
	}
	for _, kind := range eventlog.Types() {
		if _, ok := silentEvents[kind]; !ok && !w.events[kind] {
			t.Errorf("event %s has not appeared", kind)
		}
	}
}

// household changes who belongs, in every way there is. a made the library.
func household(t *testing.T, a, b, c *peer) {
	t.Helper()
	a.invite()
	at := started{Status: a.status()}
	no, yes, stranger := newRogue(t, at), newRogue(t, at), newRogue(t, at)
	if err := no.request(func(digits string) { a.ask(&node.RequestView{}, "devices", "approve", "--refuse", digits) }); !errors.Is(err, protocol.CodeNotApproved) {
		t.Errorf("refused by a person: %v", err)
	}
	if err := yes.request(func(digits string) { a.ask(&node.RequestView{}, "devices", "approve", digits) }); err != nil {
		t.Errorf("approved by a person: %v", err)
	}
	if _, err := stranger.askFor(protocol.SessionProtocol); err == nil {
		t.Error("a stranger gets an answer")
	}
	b.ask(&node.RenameView{}, "devices", "rename", "delta")
	eventually(t, "the new name arrives", func() string {
		if _, ok := a.other("delta"); !ok {
			return "not yet"
		}
		return ""
	})
	c.ask(&node.LeaveView{}, "leave", "--yes")
	a.ask(&node.RemoveView{}, "devices", "revoke", "delta", "--yes")
	a.ask(&node.RemoveView{}, "devices", "forget", "delta", "--yes")
	eventually(t, "gamma has left", func() string {
		if d, ok := a.other("gamma"); !ok || d.Gone != node.GoneLeft {
			return fmt.Sprintf("%+v", d)
		}
		return ""
	})
}

// folders makes folders that each become a location.
func folders(t *testing.T, n int) (out []string) {
	t.Helper()
	base := tempDir(t)
	for i := range n {
		out = append(out, filepath.Join(base, fmt.Sprint(i)))
		if err := os.Mkdir(out[i], 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// flood changes a watched folder, while the process is stopped, more often than the kernel's queue holds.
func (p *peer) flood(dir string) {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	defer p.signal(syscall.SIGCONT)
	name := filepath.Join(dir, "flood")
	for range maxQueued(p.t)/2 + 2048 { // made and removed; the process has some room of its own
		if err := errors.Join(os.Mkdir(name, 0o700), os.Remove(name)); err != nil {
			p.t.Fatal(err)
		}
	}
}

// maxQueued returns how many changes the kernel's queue of a watcher holds.
func maxQueued(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		return 16384
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// registeredNames returns the metrics that a node registers, without the prefix.
func registeredNames(t *testing.T) (out []string) {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() {
		metrics.New(metrics.Config{}).Registry().Describe(descs)
		close(descs)
	}()
	name := regexp.MustCompile(`fqName: "peerdex_([^"]+)"`)
	for d := range descs {
		m := name.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("a metric without the prefix: %s", d)
		}
		out = append(out, m[1])
	}
	return out
}

// misbehave is a member that breaks rules, or does rightly what seldom happens.
func misbehave(t *testing.T, a *peer, w *watched) {
	st := started{Status: a.status()}
	fresh := func() *rogue { return joined(t, st, a.invite()) }

	stranger := newRogue(t, st) // nobody invited it, and it has a wrong secret
	line := a.invite()
	_ = stranger.send(protocol.SessionProtocol, framed(t, &protocol.Bye{}), true)
	_ = stranger.pair(line[:len(line)-34] + protocol.NewSecret().Text())
	w.until(t, "auth_failed")
	w.until(t, "device_join_refused")

	broken := fresh()
	_ = broken.send(protocol.StateBatchProtocol, frame(63, 0, nil), true)
	w.until(t, "change_rejected")

	late := fresh() // of another version
	h := late.hello()
	h.MinVersion, h.MaxVersion = 99, 99
	if _, err := late.greet(h); !errors.Is(err, protocol.CodeVersion) {
		t.Errorf("version 99: %v", err)
	}
	w.until(t, "protocol_mismatch")

	ill := fresh()
	ill.live(t, w)
}

// Ways in which a rogue answers a pull.
const (
	serveWell  int32 = iota
	refusePull       // it is not settled, it says
	cutPull          // the stream breaks once a road is chosen
	holdPull         // no answer until the test ends the hold
	stallPull        // part of a delta, and no more until the test ends the stall
)

// live is the life of a member whose clock is two minutes fast and who serves its feeds badly, then well.
func (r *rogue) live(t *testing.T, w *watched) {
	ahead := func() time.Time { return time.Now().Add(2 * time.Minute) }
	var manner atomic.Int32
	manner.Store(holdPull)
	held, stalled := make(chan struct{}), make(chan struct{})
	var asked atomic.Bool
	clock := hlc.NewClock(ahead, hlc.At(ahead()), func(hlc.Stamp) error { return nil })
	st := r.open(clock)
	donor := &backfill.Server{Store: st, Notes: unheard{}}
	r.serve(protocol.BackfillProtocol, func(c *protocol.Conn) error {
		switch manner.Load() {
		case holdPull:
			return cutAfterOpen(c, st, func(protocol.Message) { asked.Store(true); <-held })
		case cutPull:
			return cutAfterOpen(c, st, func(protocol.Message) {})
		case stallPull:
			return cutAfterOpen(c, st, func(m protocol.Message) {
				if delta, ok := m.(*protocol.Delta); ok {
					page := &protocol.Page{Entries: r.entries(1)}
					page.Entries[0].Seq = delta.After + 1
					_ = errors.Join(c.Send(page), c.Flush()) // the stream is cut in any case
				}
				<-stalled
			})
		case refusePull:
			donor := &backfill.Server{Store: st, Notes: unheard{}, Admit: func(record.DeviceID) error { return protocol.CodeNotSettled }}
			return donor.Serve(c)
		}
		return donor.Serve(c)
	})

	h := r.hello()
	h.HLC = hlc.At(ahead())
	conn, err := protocol.Dial(t.Context(), r.host, r.target, protocol.SessionProtocol, protocol.ConnConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := protocol.Greet(conn, h, ahead); err != nil {
		t.Fatal(err)
	}
	listening := make(chan struct{})
	go func() { // answers pings by its own clock
		defer close(listening)
		for {
			m, err := conn.Recv()
			if err != nil {
				return
			}
			if ping, ok := m.(*protocol.Ping); ok && (conn.Send(ping.Pong(ahead(), ahead())) != nil || conn.Flush() != nil) {
				return
			}
		}
	}()
	defer func() {
		conn.Reset(protocol.CodeShutdown)
		<-listening
	}()
	tell := func(m *protocol.Heads) {
		t.Helper()
		if err := errors.Join(conn.Send(m), conn.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	announce := func() {
		t.Helper()
		if err := st.Sync(); err != nil {
			t.Fatal(err)
		}
		m := &protocol.Heads{Full: true}
		for _, s := range st.States() {
			m.Heads = append(m.Heads, protocol.HeadInfo{Settled: s.Settled, Best: *s.Settled})
		}
		tell(m)
	}
	commit := func(id feed.ID, records ...record.Record) feed.Head {
		t.Helper()
		var puts []store.Put
		for _, rec := range records {
			puts = append(puts, store.Put{Record: rec})
		}
		head, err := st.Commit(id, puts)
		if err != nil {
			t.Fatal(err)
		}
		return head
	}
	w.until(t, "clock_skew_detected")
	w.until(t, "clock_device_offset_seconds")
	w.until(t, "clock_hlc_drift_seconds")

	// a location, and a register that contradicts what the inviter wrote into the same field
	place := record.LocationID{9}
	own, files := feed.ID{Device: r.device}, feed.ID{Device: r.device, Location: place}
	regs := []record.Register{
		{Entity: record.Device(r.device), Field: record.FieldName, Value: []byte("ill")},
		{Entity: record.Location(r.device, place), Field: record.FieldPath, Value: []byte("/ill")},
		{Entity: record.Location(r.device, place), Field: record.FieldName, Value: []byte("ill")},
		{Entity: record.Location(r.device, place), Field: record.FieldExists, Value: []byte{1}},
	}
	for _, raw := range r.welcome.Certs {
		c, err := member.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if c.Subject == r.device {
			reg := c.Register()
			reg.Value = []byte("something else")
			regs = append(regs, reg)
		}
	}
	if err := st.SetRegisters(regs...); err != nil {
		t.Fatal(err)
	}
	orphan := record.File{ID: record.EntryID{1}, Parent: record.EntryID{0xff}, Kind: record.Regular, Name: "orphan"}
	commit(files, orphan)
	announce()
	eventually(t, "the pull that is held", func() string {
		if !asked.Load() {
			return "not begun"
		}
		return ""
	})
	w.until(t, "sync_sessions_active")
	manner.Store(refusePull)
	close(held)
	w.until(t, "backfill_session_failed")
	w.until(t, "sync_retries_total")
	manner.Store(serveWell)
	announce()
	w.until(t, "sync_conflicts_total")
	w.until(t, "stuck_dependencies")
	w.until(t, "sync_stuck_changes")

	manner.Store(cutPull)
	commit(files, record.File{ID: record.EntryID{2}, Kind: record.Regular, Name: "later"})
	announce()
	w.until(t, "catch_up_session_failed")
	manner.Store(serveWell)
	settled := commit(files, record.File{ID: record.EntryID{3}, Kind: record.Regular, Name: "latest"})
	announce()
	r.awaitSettled(t, w.peers[0], "/ill/latest")

	// a register goes back in time: whoever holds the newer one keeps it
	now, err := clock.Now()
	if err != nil {
		t.Fatal(err)
	}
	note := record.Register{Entity: record.Device(r.device), Field: record.FieldSystem, Value: []byte("new"), Author: r.device, Stamp: now}
	manner.Store(stallPull) // a register waits for the rest of its page
	commit(own, note)
	announce()
	w.until(t, "sync_buffered_changes")
	manner.Store(serveWell)
	close(stalled)
	announce()
	eventually(t, "the new value arrives", func() string {
		for _, d := range w.peers[0].status().Devices {
			if d.OS == "new" {
				return ""
			}
		}
		return "not yet"
	})
	note.Value, note.Stamp = []byte("old"), now-1<<20
	r.pushBack(t, st, own, note)
	w.until(t, "feed_rescued")

	// two heads at one seq, and a third that ends the quarrel
	fork := settled
	fork.Root[0] ^= 0xff
	fork = fork.Sign(r.key)
	tell(&protocol.Heads{Heads: []protocol.HeadInfo{{Best: fork}}})
	w.until(t, "catalog_diverged")
	commit(files, record.File{ID: record.EntryID{4}, Kind: record.Regular, Name: "peace"})
	announce()
	w.until(t, "catalog_converged")

	// tombstones are collected before anybody heard of them, and the tree diff breaks off
	manner.Store(cutPull)
	gone := commit(files, record.Tombstone{ID: record.EntryID{4}})
	if _, err := st.Collect(files, gone.Seq); err != nil {
		t.Fatal(err)
	}
	announce()
	w.until(t, "reconcile_session_failed")
	manner.Store(serveWell)

	// more feeds than anybody keeps of one peer
	for i := range 6 {
		m := &protocol.Heads{}
		for j := range protocol.MaxHeads {
			id := feed.ID{Device: r.device, Location: record.LocationID{0xee, byte(i), byte(j >> 8), byte(j)}}
			m.Heads = append(m.Heads, protocol.HeadInfo{Best: feed.Head{Library: r.welcome.Library, Feed: id, Seq: 1, Count: 1}})
		}
		tell(m)
	}
	w.until(t, "buffer_overflow")
	w.until(t, "sync_buffer_dropped_total")

	// a record that its owner should not have signed
	bad := record.File{ID: record.EntryID{5}, Kind: record.Regular, Name: "a/b"}
	commit(files, raw{bad.Key(), bad.Append(nil)})
	announce()
	w.until(t, "sync_rejections_total")
}

// pushBack pushes an older register into a feed, as an owner that was restored from a backup may: no store
// of this version would write it.
func (r *rogue) pushBack(t *testing.T, st *store.Store, id feed.ID, older record.Register) {
	t.Helper()
	v, err := st.Serve(id)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	prev := *v.State.Settled
	entry := feed.Entry{Key: older.Key(), Seq: prev.Seq + 1, Record: older.Append(nil)}
	refs := []feed.Ref{}
	err = v.After(0, func(e feed.Entry) error {
		if !bytes.Equal(e.Key, entry.Key) {
			refs = append(refs, feed.Ref{Seq: e.Seq, Digest: e.Digest()})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	refs = append(refs, feed.Ref{Seq: entry.Seq, Digest: entry.Digest()})
	next := prev
	next.Seq, next.Count, next.Root = entry.Seq, uint64(len(refs)), feed.DefaultShape.Root(refs, entry.Seq)
	conn, err := protocol.Dial(t.Context(), r.host, r.target, protocol.StateBatchProtocol, protocol.ConnConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Reset(protocol.CodeShutdown)
	batch := &protocol.StateBatch{Session: protocol.NewSessionID(), Prev: prev, Entries: []feed.Entry{entry}, Next: next.Sign(r.key)}
	if err := errors.Join(conn.Send(batch), conn.Flush()); err != nil {
		t.Fatal(err)
	}
	m, err := conn.Recv()
	if ack, ok := m.(*protocol.Ack); err != nil || !ok || ack.Outcome != protocol.Applied {
		t.Fatalf("answer to a register from the past: %+v, %v", m, err)
	}
}

// awaitSettled waits until a device shows a path.
func (r *rogue) awaitSettled(t *testing.T, p *peer, path string) {
	t.Helper()
	eventually(t, path, func() string {
		if p.dumpCatalogue().find(path) == nil {
			return "not there"
		}
		return ""
	})
}

// cutAfterOpen opens what a pull asks for, and breaks off at the first question once wait has returned.
func cutAfterOpen(c *protocol.Conn, st *store.Store, wait func(protocol.Message)) error {
	for {
		m, err := c.Recv()
		if err != nil {
			return err
		}
		open, ok := m.(*protocol.Open)
		if !ok {
			wait(m)
			return protocol.CodeInternal
		}
		s, ok := st.State(open.Feed)
		var reply protocol.Message = &protocol.Refused{Code: protocol.CodeUnknownFeed}
		if ok && s.Settled != nil {
			reply = &protocol.Opened{Head: *s.Settled}
		}
		if err := errors.Join(c.Send(reply), c.Flush()); err != nil {
			return err
		}
	}
}

// unheard is told what is served, and tells nobody.
type unheard struct{}

func (unheard) Serving(protocol.SessionID, record.DeviceID, uint64)                   {}
func (unheard) Served(protocol.SessionID, record.DeviceID, feed.ID, string, int, int) {}
