package metrics

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"pgregory.net/rapid"

	"peerdex/record"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// fakeClock stands still until told.
type fakeClock struct{ t time.Time }

func (c *fakeClock) now() time.Time { return c.t }

func newMetrics(t testing.TB) (*Metrics, *fakeClock) {
	t.Helper()
	c := &fakeClock{epoch}
	return New(Config{Device: "OWN0-0000", Version: "1.2.3", Revision: "abc", Now: c.now}), c
}

// everything calls every method once with values that move something.
func everything(m *Metrics, id string, now time.Time) {
	m.DeviceKnown(id, "nas", "linux", "0.1")
	m.StateEntered("backfilling", "peer connected", now)
	m.BroadcastSent("state", 1)
	m.BroadcastSent("shared", 160)
	m.BroadcastFailed(id, "timeout")
	m.BroadcastAcked(3 * time.Millisecond)
	m.ChangesReceived(id, "live", 10)
	m.ChangesProcessed(id, "applied", 7)
	m.ChangesProcessed(id, "rejected", 2)
	m.ChangesRejected("schema", 2)
	m.RecordsSynced("entry", "insert", 7, now)
	m.SessionStarted("backfill")
	m.SessionStarted("catch_up")
	m.SessionEnded("catch_up", "completed", 2*time.Second)
	m.PageFetched(40 * time.Millisecond)
	m.Chunks("peer", 3)
	m.Chunks("kept", 2)
	m.Progress(id, .5)
	m.StrategySelected("pages")
	m.BulkDecided("wait")
	m.Lookup("out", "answered")
	m.Lookup("in", "refused")
	m.RetryQueued(2)
	m.Retried("success")
	m.HintDropped()
	m.StuckChanges(12, 3)
	m.Applied(5 * time.Millisecond)
	m.Propagated("live", 30*time.Millisecond)
	m.BytesSent(id, 1000)
	m.BytesReceived(id, 2000)
	m.Uncompressed("in", 5000)
	m.LastSync(id, now)
	m.LastSeen(id, now)
	m.Online(id, true)
	m.ConnectionState(id, "syncing")
	m.ConnectionAttempt(id, "refused")
	m.AddressesLearned(id, "mdns", 2)
	m.StrangerSeen()
	m.JoinAnswered("joined")
	m.JoinAnswered("invite_used")
	m.JoinAnswered("from a newer version")
	m.DeviceDeparted("revoked")
	m.DeviceDeparted("abducted")
	m.StreamRefused("not_member")
	m.StreamRefused("bad mood")
	m.ConsecutiveFailures(id, 4)
	m.RTT(id, 2*time.Millisecond)
	m.ClockOffset(id, -95*time.Second)
	m.Lag(id, 12, 313)
	m.Watermark(id, "state", now)
	m.Error("network", id, "connection reset", now)
	m.Conflict("hlc")
	m.HLC(12*time.Millisecond, 3)
	m.StoreOp("get", time.Millisecond)
	m.StoreSize(4096, 8192)
	m.MemoryReserved("serve", 3000)
	m.MemoryReserved("serve", -1000)
	m.MemoryRefused("frame")
	m.CatalogRecords("entry", 48210)
	m.CatalogTombstones(9)
	m.CatalogFiles(id, 100, 1<<30)
	m.Query("find", 14*time.Millisecond)
	m.ScanFiles("added", 5)
	m.ScanDone("l1", time.Minute, now)
	m.ScanBacklog(6)
	m.FileHashed("hashed", 4096)
	m.HashBacklog(7)
	m.WatchActive("l1", true)
	m.WatchOverflow()
	m.LocationGone("none")
	m.DigestCheck(id, "mismatch")
	m.EventLogged("network", "info")
	m.EventDropped("queue_full", 14)
	m.EventQueue(1)
	m.EventsStored(5, 500, now)
	m.HTTPRequest("GET /v1/status", 200, time.Millisecond)
}

func TestNamesFollowTheRules(t *testing.T) {
	m, c := newMetrics(t)
	everything(m, "NAS0-0000", c.t)
	gathered, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(gathered).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	// Every metric declared is gathered, and nothing else.
	if len(gathered) != len(families) {
		t.Errorf("%d metrics gathered, %d declared", len(gathered), len(families))
	}
}

// series returns every value of the registry by its name and labels; histograms as the number of their
// observations.
func series(t testing.TB, m *Metrics) map[string]float64 {
	t.Helper()
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, s := range f.Metric {
			var labels []string
			for _, l := range s.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := fmt.Sprintf("%s{%s}", strings.TrimPrefix(f.GetName(), "peerdex_"), strings.Join(labels, ","))
			switch {
			case s.Gauge != nil:
				out[name] = s.Gauge.GetValue()
			case s.Counter != nil:
				out[name] = s.Counter.GetValue()
			case s.Histogram != nil:
				out[name] = float64(s.Histogram.GetSampleCount())
			}
		}
	}
	return out
}

func TestEveryMethodMovesItsMetric(t *testing.T) {
	m, c := newMetrics(t)
	const id = "NAS0-0000"
	before := series(t, m)
	c.t = c.t.Add(time.Second)
	everything(m, id, c.t)
	c.t = c.t.Add(time.Second)
	after := series(t, m)
	at := float64(epoch.Add(time.Second).Unix())
	for name, want := range map[string]float64{
		"device_info{device=NAS0-0000,name=nas,os=linux,version=0.1}":              1,
		"sync_state{state=backfilling}":                                            1,
		"sync_state{state=uninitialized}":                                          0,
		"sync_state_entered_timestamp_seconds{}":                                   at,
		"sync_state_seconds_total{state=backfilling}":                              1,
		"sync_state_seconds_total{state=uninitialized}":                            1,
		"sync_state_transitions_total{from=uninitialized,to=backfilling}":          1,
		"sync_broadcasts_sent_total{kind=state}":                                   1,
		"sync_broadcasts_sent_total{kind=shared}":                                  1,
		"sync_broadcast_batches_sent_total{}":                                      1,
		"sync_broadcast_batch_records{}":                                           1,
		"sync_broadcast_failures_total{device=NAS0-0000,reason=timeout}":           1,
		"sync_broadcast_duration_seconds{}":                                        1,
		"sync_changes_received_total{device=NAS0-0000,source=live}":                10,
		"sync_changes_processed_total{device=NAS0-0000,outcome=applied}":           7,
		"sync_changes_processed_total{device=NAS0-0000,outcome=rejected}":          2,
		"sync_buffered_changes{}":                                                  1,
		"sync_rejections_total{reason=schema}":                                     2,
		"sync_records_synced_total{model=entry,op=insert}":                         7,
		"sync_model_last_sync_timestamp_seconds{model=entry}":                      at,
		"sync_sessions_active{kind=backfill}":                                      1,
		"sync_sessions_active{kind=catch_up}":                                      0,
		"sync_sessions_total{kind=catch_up,result=completed}":                      1,
		"sync_session_duration_seconds{kind=catch_up}":                             1,
		"sync_backfill_pages_total{}":                                              1,
		"sync_snapshot_chunks_total{source=peer}":                                  3,
		"sync_snapshot_chunks_total{source=kept}":                                  2,
		"sync_backfill_request_duration_seconds{}":                                 1,
		"sync_backfill_progress_ratio{device=NAS0-0000}":                           .5,
		"sync_strategy_selected_total{strategy=pages}":                             1,
		"sync_bulk_decisions_total{decision=wait}":                                 1,
		"sync_lookups_total{direction=out,result=answered}":                        1,
		"sync_lookups_total{direction=in,result=refused}":                          1,
		"sync_retry_queue_depth{}":                                                 2,
		"sync_retries_total{result=success}":                                       1,
		"sync_buffer_dropped_total{}":                                              1,
		"sync_stuck_changes{}":                                                     12,
		"sync_missing_parents{}":                                                   3,
		"sync_apply_duration_seconds{}":                                            1,
		"sync_propagation_seconds{source=live}":                                    1,
		"sync_sent_bytes_total{device=NAS0-0000}":                                  1000,
		"sync_received_bytes_total{device=NAS0-0000}":                              2000,
		"sync_uncompressed_bytes_total{direction=in}":                              5000,
		"sync_last_sync_timestamp_seconds{device=NAS0-0000}":                       at,
		"device_last_seen_timestamp_seconds{device=NAS0-0000}":                     at,
		"device_online{device=NAS0-0000}":                                          1,
		"devices_tracked{}":                                                        1,
		"devices_connected{}":                                                      1,
		"device_connection_state{device=NAS0-0000,state=syncing}":                  1,
		"device_connection_state{device=NAS0-0000,state=disconnected}":             0,
		"device_connection_state_code{device=NAS0-0000}":                           2,
		"device_connection_attempts_total{device=NAS0-0000,result=refused}":        1,
		"device_addresses_learned_total{device=NAS0-0000,source=mdns}":             2,
		"discovery_strangers_total{}":                                              1,
		"device_joins_total{result=joined}":                                        1,
		"device_joins_total{result=invite_used}":                                   1,
		"device_joins_total{result=other}":                                         1,
		"device_departures_total{how=revoked}":                                     1,
		"streams_refused_total{reason=not_member}":                                 1,
		"streams_refused_total{reason=other}":                                      1,
		"device_consecutive_failures{device=NAS0-0000}":                            4,
		"device_rtt_seconds{device=NAS0-0000}":                                     .002,
		"clock_device_offset_seconds{device=NAS0-0000}":                            -95,
		"sync_lag_changes{device=NAS0-0000,direction=in}":                          12,
		"sync_lag_changes{device=NAS0-0000,direction=out}":                         313,
		"sync_watermark_timestamp_seconds{device=NAS0-0000,kind=state}":            at,
		"sync_errors_total{kind=network}":                                          1,
		"sync_conflicts_total{resolution=hlc}":                                     1,
		"clock_hlc_drift_seconds{}":                                                .012,
		"clock_hlc_logical_max{}":                                                  3,
		"store_operation_duration_seconds{op=get}":                                 1,
		"store_size_bytes{part=lsm}":                                               4096,
		"store_size_bytes{part=vlog}":                                              8192,
		"memory_reserved_bytes{use=serve}":                                         2000,
		"memory_reserved_peak_bytes{use=serve}":                                    3000,
		"memory_refused_total{use=frame}":                                          1,
		"catalog_records{model=entry}":                                             48210,
		"catalog_tombstones{}":                                                     9,
		"catalog_files{device=NAS0-0000}":                                          100,
		"catalog_file_bytes{device=NAS0-0000}":                                     1 << 30,
		"catalog_query_duration_seconds{op=find}":                                  1,
		"scan_files_total{result=added}":                                           5,
		"scan_duration_seconds{}":                                                  1,
		"scan_last_completed_timestamp_seconds{location=l1}":                       at,
		"scan_hashed_files_total{result=hashed}":                                   1,
		"scan_hashed_bytes_total{}":                                                4096,
		"scan_hash_backlog_files{}":                                                7,
		"scan_backlog_files{}":                                                     6,
		"scan_watch_active{location=l1}":                                           1,
		"scan_watch_overflows_total{}":                                             1,
		"catalog_digest_checks_total{device=NAS0-0000,result=mismatch}":            1,
		"catalog_diverged{device=NAS0-0000}":                                       1,
		"events_logged_total{category=network,severity=info}":                      1,
		"events_dropped_total{reason=queue_full}":                                  14,
		"events_queue_depth{}":                                                     1,
		"events_stored{}":                                                          5,
		"events_stored_bytes{}":                                                    500,
		"events_oldest_timestamp_seconds{}":                                        at,
		"http_requests_total{code=200,route=GET /v1/status}":                       1,
		"http_request_duration_seconds{route=GET /v1/status}":                      1,
		"build_info{goversion=" + goVersion + ",revision=abc,version=1.2.3}":       1,
		"metrics_label_overflow_total{metric=peerdex_sync_changes_received_total}": 0,
	} {
		got, ok := after[name]
		if !ok || got != want {
			t.Errorf("%s = %v (exists: %v), want %v", name, got, ok, want)
		}
	}
	moved := map[string]bool{}
	for name, v := range after {
		if old, ok := before[name]; !ok || old != v {
			moved[name[:strings.Index(name, "{")]] = true
		}
	}
	for _, f := range families {
		name := strings.TrimPrefix(f.name, "peerdex_")
		if !moved[name] && name != "build_info" && name != "metrics_label_overflow_total" {
			t.Errorf("%s did not move", name)
		}
	}
}

// A nil *Metrics takes every call.
func TestNilCountsNothing(t *testing.T) {
	everything(nil, "NAS0-0000", epoch)
	var m *Metrics
	m.DeviceForgotten("x")
	if m.Registry() != nil || !reflect.DeepEqual(m.Snapshot(epoch), Snapshot{}) {
		t.Error("nil metrics have numbers")
	}
	// Registry, Snapshot and DeviceForgotten besides those in everything: a new method belongs there.
	if n := reflect.TypeFor[*Metrics]().NumMethod(); n != 69 {
		t.Errorf("%d methods", n)
	}
}

func TestFreshNode(t *testing.T) {
	m, _ := newMetrics(t)
	s := m.Snapshot(epoch.Add(time.Minute))
	if s.State.Current != "uninitialized" || s.State.Uptime.Duration() != time.Minute {
		t.Errorf("state %+v", s.State)
	}
	if s.Operations.Received.Total != 0 || *s.Operations.Buffered != 0 || s.Errors.Counts.Total != 0 {
		t.Errorf("a fresh node counted: %+v", s.Operations)
	}
}

// From the moment a device is known all its series exist, at zero; once forgotten none does, and what it
// counted stays in the totals.
func TestDeviceSeries(t *testing.T) {
	m, c := newMetrics(t)
	const id = "NAS0-0000"
	m.DeviceKnown(id, "nas", "linux", "0.1")
	of := func(device string) map[string]float64 {
		out := map[string]float64{}
		for name, v := range series(t, m) {
			if strings.Contains(name, "device="+device) {
				out[name] = v
			}
		}
		return out
	}
	fresh := of(id)
	for name, v := range fresh {
		zero := strings.HasPrefix(name, "device_info{") || strings.HasPrefix(name, "device_connection_state{device="+id+",state=disconnected")
		if (v != 0) != zero {
			t.Errorf("%s = %v for a device just known", name, v)
		}
	}
	everything(m, id, c.t)
	m.DeviceKnown(id, "attic", "linux", "0.1") // renamed
	if used := of(id); len(used) != len(fresh) {
		t.Errorf("%d series at first, %d after use", len(fresh), len(used))
	}
	m.DeviceForgotten(id)
	if gone := of(id); len(gone) != 0 {
		t.Errorf("left over: %v", gone)
	}
	s := m.Snapshot(c.t)
	if s.Operations.Received.Total != 10 || s.Operations.Processed.Total != 9 || *s.Operations.Buffered != 1 {
		t.Errorf("totals after forgetting: %+v", s.Operations)
	}
	m.ChangesProcessed(id, "dropped", 1) // late
	if s := m.Snapshot(c.t); *s.Operations.Buffered != 0 {
		t.Errorf("buffered %d after the last change was processed", *s.Operations.Buffered)
	}
}

func TestLabelCap(t *testing.T) {
	m, c := newMetrics(t)
	for i := range 100 {
		var d record.DeviceID
		d[0] = byte(i)
		everything(m, d.Short(), c.t)
		m.ScanDone(fmt.Sprintf("location %d", i), time.Second, c.t)
		m.WatchActive(fmt.Sprintf("location %d", i), true)
		m.HTTPRequest(fmt.Sprintf("GET /%d", i), 200+i, time.Second)
		m.RecordsSynced(fmt.Sprintf("model %d", i), "insert", 1, c.t)
		m.StoreOp(fmt.Sprintf("op %d", i), 1)
		m.Query(fmt.Sprintf("op %d", i), 1)
		m.StrategySelected(fmt.Sprintf("strategy %d", i))
	}
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	n, devices := 0, map[string]bool{}
	for _, f := range families {
		for _, s := range f.Metric {
			for _, l := range s.Label {
				if l.GetName() == "device" {
					devices[l.GetValue()] = true
				}
			}
			if s.Histogram != nil {
				n += len(s.Histogram.Bucket) + 3 // the bucket of all, sum, count
				continue
			}
			n++
		}
	}
	t.Logf("%d series", n)
	if n >= 5500 {
		t.Errorf("%d series, limit 5,500", n)
	}
	if len(devices) != MaxDevices+2 || !devices[other] { // this device and _other
		t.Errorf("%d device labels", len(devices))
	}
	s := m.Snapshot(c.t)
	if got := s.Observer.LabelOverflow.By["peerdex_device_info"]; got != 36 {
		t.Errorf("%d devices folded, want 36", got)
	}
	if got := s.Observer.LabelOverflow.By["peerdex_sync_changes_received_total"]; got != 36 {
		t.Errorf("%d receptions folded, want 36", got)
	}
	if s.Operations.Received.Total != 1000 || *s.Operations.Buffered != 100 {
		t.Errorf("received %d, buffered %d; want 1000, 100", s.Operations.Received.Total, *s.Operations.Buffered)
	}
	all := series(t, m)
	if all["devices_tracked{}"] != 100 || all["devices_connected{}"] != 100 {
		t.Errorf("tracked %v, connected %v", all["devices_tracked{}"], all["devices_connected{}"])
	}
	for _, d := range s.Devices {
		if d.ID != other && !d.Own {
			m.DeviceForgotten(d.ID)
		}
	}
	var late record.DeviceID
	late[0] = 99
	m.DeviceKnown(late.Short(), "late", "", "") // there is room now
	if got := m.Snapshot(c.t).Filter(late.Short(), ""); len(got.Devices) != 1 || !got.Devices[0].Online {
		t.Errorf("a folded device did not get series of its own: %+v", got.Devices)
	}
}

// Text from elsewhere never breaks a scrape.
func TestHostileLabels(t *testing.T) {
	m, c := newMetrics(t)
	bad := "\xff\x00\n\"" + strings.Repeat("é", 1000)
	m.DeviceKnown("NAS0-0000", bad, bad, bad)
	m.Error(bad, bad, bad, c.t)
	m.StateEntered("ready", bad, c.t)
	m.RecordsSynced(bad, bad, 1, c.t)
	m.RecordsSynced(bad, bad, 1, c.t)
	m.StoreOp(bad, 1)
	m.ScanDone(bad, 1, c.t)
	m.HTTPRequest(bad, 200, 1)
	m.EventLogged(bad, bad)
	for name := range series(t, m) {
		if len(name) > 400 {
			t.Errorf("series name of %d bytes", len(name))
		}
	}
	if e := m.Snapshot(c.t).Errors; e.Counts.By["internal"] != 1 || len(e.Recent[0].Message) > maxText {
		t.Errorf("%+v", e)
	}
}

// Time in state adds up to the uptime to the nanosecond, whatever the clock does, and every transition
// is counted.
func TestTimeInStateAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &fakeClock{epoch}
		m := New(Config{Now: c.now})
		latest, moves, current := epoch, 0, "uninitialized"
		for range rapid.IntRange(0, 250).Draw(t, "steps") {
			c.t = c.t.Add(time.Duration(rapid.Int64Range(-5e9, 60e9).Draw(t, "step")))
			if to := rapid.SampledFrom(states[:]).Draw(t, "state"); to != current {
				current = to
				moves++
				if c.t.After(latest) {
					latest = c.t
				}
			}
			m.StateEntered(current, "because", c.t)
		}
		c.t = c.t.Add(time.Duration(rapid.Int64Range(-60e9, 60e9).Draw(t, "last step")))
		s := m.Snapshot(c.t).State
		var sum Seconds
		for state, spent := range s.TimeIn {
			if sum += spent; spent < 0 {
				t.Fatalf("%v in %s", spent.Duration(), state)
			}
		}
		if c.t.After(latest) {
			latest = c.t
		}
		if want := Seconds(latest.Sub(epoch)); s.Uptime != want || sum != want {
			t.Fatalf("uptime %v, sum of states %v, want %v", s.Uptime.Duration(), sum.Duration(), want.Duration())
		}
		if s.Current != current || int(s.Transitions) != moves || len(s.History) != min(moves, KeptTransitions) {
			t.Fatalf("state %s after %d transitions (%d kept), want %s after %d", s.Current, s.Transitions, len(s.History), current, moves)
		}
		for i := 1; i < len(s.History); i++ {
			if s.History[i].From != s.History[i-1].To {
				t.Fatalf("history has a hole at %d: %+v", i, s.History)
			}
		}
	})
}

func TestHistogramIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := New(Config{})
		values := rapid.SliceOfN(rapid.Int64Range(0, 1<<44), 1, 300).Draw(t, "values")
		var sum int64
		for _, v := range values {
			m.Applied(time.Duration(v))
			sum += v
		}
		slices.Sort(values)
		d := m.Snapshot(epoch).Performance.Apply
		if int(d.Count) != len(values) || int64(d.Sum) != sum || int64(d.Min) != values[0] || int64(d.Max) != values[len(values)-1] {
			t.Fatalf("%+v for %v", d, values)
		}
		for q, got := range map[float64]Seconds{.5: d.P50, .95: d.P95, .99: d.P99} {
			rank := max(int(q*float64(len(values))+0.999999), 1)
			if want := values[rank-1]; float64(got) < float64(want)*(1-1./16)-1 || float64(got) > float64(want)*(1+1./16)+1 {
				t.Fatalf("quantile %v is %d, want %d within a sixteenth", q, got, want)
			}
		}
	})
}

func TestBatchSizes(t *testing.T) {
	m, _ := newMetrics(t)
	for _, n := range []int{1, 160, 1, 40, 1000} {
		m.BroadcastSent("state", n)
	}
	b := m.Snapshot(epoch).Operations.Broadcasts
	if b.Total != 5 || b.Batches != 3 || b.BatchRecords.Count != 3 || b.BatchRecords.Sum != 1200 ||
		b.BatchRecords.Min != 40 || b.BatchRecords.Max != 1000 || b.BatchRecords.Avg != 400 {
		t.Errorf("%+v", b)
	}
}

// Snapshots and scrapes taken in the midst of it all add up, each for itself.
func TestSumsHoldAtEveryMoment(t *testing.T) {
	m := New(Config{})
	const workers, each = 8, 2000
	ids := []string{"AAAA-0000", "BBBB-0000", "CCCC-0000", "stranger"}
	for _, id := range ids[:3] {
		m.DeviceKnown(id, id, "", "")
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range each {
				id := ids[r.IntN(len(ids))]
				m.ChangesReceived(id, sources[r.IntN(len(sources))], 3)
				m.ChangesProcessed(id, outcomes[r.IntN(len(outcomes))], 2)
				m.ChangesProcessed(id, "applied", 1)
				m.BytesSent(id, 10)
				m.Applied(time.Duration(i))
				if i%500 == 499 && w == 0 {
					m.DeviceForgotten(ids[0])
					m.DeviceKnown(ids[0], "again", "", "")
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		s := m.Snapshot(time.Now())
		if int64(s.Operations.Received.Total) != int64(s.Operations.Processed.Total)+*s.Operations.Buffered || *s.Operations.Buffered < 0 {
			t.Fatalf("received %d, processed %d, buffered %d", s.Operations.Received.Total, s.Operations.Processed.Total, *s.Operations.Buffered)
		}
		var received, processed, buffered float64
		for name, v := range series(t, m) {
			switch {
			case strings.HasPrefix(name, "sync_changes_received_total{"):
				received += v
			case strings.HasPrefix(name, "sync_changes_processed_total{"):
				processed += v
			case strings.HasPrefix(name, "sync_buffered_changes{"):
				buffered = v
			}
		}
		if received != processed+buffered {
			t.Fatalf("scrape: received %v, processed %v, buffered %v", received, processed, buffered)
		}
	}
	s := m.Snapshot(time.Now())
	if n := uint64(workers * each * 3); s.Operations.Received.Total != n || s.Operations.Processed.Total != n || *s.Operations.Buffered != 0 {
		t.Errorf("in the end %+v, want %d", s.Operations, n)
	}
	if *s.Volume.SentBytes != workers*each*10 || s.Performance.Apply.Count != workers*each {
		t.Errorf("sent %d, applied %d", *s.Volume.SentBytes, s.Performance.Apply.Count)
	}
}

func TestErrorsAreARing(t *testing.T) {
	m, _ := newMetrics(t)
	for i := range 250 {
		m.Error("apply", "", fmt.Sprint(i), epoch.Add(time.Duration(i)))
	}
	e := m.Snapshot(epoch).Errors
	if e.Counts.Total != 250 || e.Counts.By["apply"] != 250 || len(e.Recent) != KeptErrors {
		t.Fatalf("%+v, %d kept", e.Counts, len(e.Recent))
	}
	for i, entry := range e.Recent {
		if entry.Message != fmt.Sprint(150+i) {
			t.Fatalf("entry %d is %q", i, entry.Message)
		}
	}
}

func TestFilter(t *testing.T) {
	m, c := newMetrics(t)
	everything(m, "NAS0-0000", c.t)
	everything(m, "DESK-0000", c.t)
	m.ChangesReceived("DESK-0000", "backfill", 5)
	m.Error("protocol", "DESK-0000", "bad frame", c.t)
	m.RecordsSynced("member", "update", 3, c.t)
	m.DeviceKnown("OWN0-0000", "laptop", "linux", "1.2.3")
	whole := m.Snapshot(c.t)
	text, _ := json.Marshal(whole)

	nas, desk, own := whole.Filter("NAS0-0000", ""), whole.Filter("DESK-0000", ""), whole.Filter("OWN0-0000", "")
	if nas.Operations.Received.Total != 10 || desk.Operations.Received.Total != 15 || *desk.Operations.Buffered != 6 {
		t.Errorf("received %+v and %+v", nas.Operations.Received, desk.Operations.Received)
	}
	if nas.State != nil || nas.Operations.Broadcasts != nil || nas.Performance.Apply != nil {
		t.Error("what is not known per device is there")
	}
	if len(nas.Errors.Recent) != 1 || nas.Errors.Counts.Total != 1 || desk.Errors.Counts.By["protocol"] != 1 || desk.Errors.Counts.Total != 2 {
		t.Errorf("errors %+v and %+v", nas.Errors, desk.Errors)
	}
	if sum := nas.Operations.Received.Total + desk.Operations.Received.Total + own.Operations.Received.Total; sum != whole.Operations.Received.Total {
		t.Errorf("devices add up to %d, want %d", sum, whole.Operations.Received.Total)
	}
	if got := whole.Filter("nobody", ""); len(got.Devices) != 0 || got.Operations.Received.Total != 0 {
		t.Errorf("%+v", got)
	}
	entry, member := whole.Filter("", "entry"), whole.Filter("", "member")
	if entry.Volume.Records.Total != 14 || member.Volume.Records.Total != 3 || whole.Volume.Records.Total != 17 {
		t.Errorf("records %d + %d of %d", entry.Volume.Records.Total, member.Volume.Records.Total, whole.Volume.Records.Total)
	}
	for _, s := range []Snapshot{whole, nas, desk, own, entry} {
		if s.Device != "OWN0-0000" || s.DeviceName != "laptop" {
			t.Errorf("of %s, %q", s.Device, s.DeviceName)
		}
	}
	if again, _ := json.Marshal(whole); string(again) != string(text) {
		t.Error("filtering changed the snapshot")
	}
}

// The JSON of a snapshot reads back as the same snapshot, so a client in another process sees the truth.
func TestSnapshotJSON(t *testing.T) {
	m, c := newMetrics(t)
	c.t = c.t.Add(1234567891)
	everything(m, "NAS0-0000", c.t)
	want := m.Snapshot(c.t)
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Snapshot
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, key := range []string{`"state":`, `"operations":`, `"data_volume":`, `"performance":`, `"errors":`, `"uptime_seconds":1.234567891`} {
		if !strings.Contains(string(text), key) {
			t.Errorf("no %s in %s", key, text)
		}
	}
}

func TestSeconds(t *testing.T) {
	for s, want := range map[Seconds]string{
		0: "0", 1: "0.000000001", -1: "-0.000000001", 1e9: "1", -15e8: "-1.5", 12345678901: "12.345678901",
	} {
		got, err := s.MarshalJSON()
		if err != nil || string(got) != want {
			t.Errorf("%d is %s, want %s (%v)", int64(s), got, want, err)
		}
		var back Seconds
		if err := back.UnmarshalJSON(got); err != nil || back != s {
			t.Errorf("%s reads as %d, want %d (%v)", got, int64(back), int64(s), err)
		}
	}
	var s Seconds
	for _, bad := range []string{`"1"`, `null`, `1e300`} {
		if s.UnmarshalJSON([]byte(bad)) == nil {
			t.Errorf("%s passed", bad)
		}
	}
}

func BenchmarkHot(b *testing.B) {
	m := New(Config{})
	m.DeviceKnown("NAS0-0000", "nas", "linux", "0.1")
	for name, fn := range map[string]func(){
		"BytesSent":        func() { m.BytesSent("NAS0-0000", 1000) },
		"BytesReceived":    func() { m.BytesReceived("NAS0-0000", 1000) },
		"Uncompressed":     func() { m.Uncompressed("in", 1000) },
		"ChangesReceived":  func() { m.ChangesReceived("NAS0-0000", "live", 1) },
		"ChangesProcessed": func() { m.ChangesProcessed("NAS0-0000", "applied", 1) },
		"RecordsSynced":    func() { m.RecordsSynced("entry", "insert", 1, epoch) },
		"Propagated":       func() { m.Propagated("live", time.Millisecond) },
		"StoreOp":          func() { m.StoreOp("get", time.Millisecond) },
		"ScanFiles":        func() { m.ScanFiles("unchanged", 1) },
		"LastSeen":         func() { m.LastSeen("NAS0-0000", epoch) },
		"Lag":              func() { m.Lag("NAS0-0000", 1, 2) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				fn()
			}
		})
	}
}

func TestHotMethodsDoNotAllocate(t *testing.T) {
	m := New(Config{})
	m.DeviceKnown("NAS0-0000", "nas", "linux", "0.1")
	hot := func() {
		m.BytesSent("NAS0-0000", 1000)
		m.BytesReceived("NAS0-0000", 1000)
		m.Uncompressed("in", 1000)
		m.ChangesReceived("NAS0-0000", "live", 1)
		m.ChangesProcessed("NAS0-0000", "applied", 1)
		m.RecordsSynced("entry", "insert", 1, epoch)
		m.Propagated("live", time.Millisecond)
		m.StoreOp("get", time.Millisecond)
		m.ScanFiles("unchanged", 1)
		m.LastSeen("NAS0-0000", epoch)
		m.Lag("NAS0-0000", 1, 2)
		m.EventLogged("network", "info")
		m.HTTPRequest("GET /", 200, time.Millisecond)
	}
	hot()
	if n := testing.AllocsPerRun(100, hot); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
