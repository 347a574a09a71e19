package metrics

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// family is a metric: its name, help and labels.
type family struct {
	name, help string
	labels     []string
	desc       *prometheus.Desc
}

// families is every metric there is, in the order of declaration.
var families []family

func declare(name, help string, labels ...string) family {
	name = "peerdex_" + name
	f := family{name, help, labels, prometheus.NewDesc(name, help, labels, nil)}
	families = append(families, f)
	return f
}

var (
	buildInfo  = declare("build_info", "Always 1. Version and source revision of the program, version of Go.", "version", "revision", "goversion")
	deviceInfo = declare("device_info", "Always 1. Maps the short id of a device to its name, operating system and program version.", "device", "name", "os", "version")

	syncState        = declare("sync_state", "1 for the state the node is in, 0 for the others.", "state")
	stateEntered     = declare("sync_state_entered_timestamp_seconds", "When the current state was entered.")
	stateSeconds     = declare("sync_state_seconds_total", "Time spent in each state, the running one included.", "state")
	stateTransitions = declare("sync_state_transitions_total", "Transitions between states.", "from", "to")

	broadcastsSent    = declare("sync_broadcasts_sent_total", "Pushes handed to the network.", "kind")
	batchesSent       = declare("sync_broadcast_batches_sent_total", "Pushes that carried more than one record.")
	batchRecords      = declare("sync_broadcast_batch_records", "Records per batch.")
	broadcastFailures = declare("sync_broadcast_failures_total", "Pushes that were not delivered, or whose content a device refused.", "device", "reason")
	changesReceived   = declare("sync_changes_received_total", "Changes off the wire, before duplicates are known.", "device", "source")
	changesProcessed  = declare("sync_changes_processed_total", "What became of received changes, one outcome for each.", "device", "outcome")
	rejectionsTotal   = declare("sync_rejections_total", "Why changes were rejected.", "reason")
	bufferedChanges   = declare("sync_buffered_changes", "Changes received and not processed yet.")
	bufferDropped     = declare("sync_buffer_dropped_total", "Hints dropped because their queue was full; each costs a pull.")
	stuckChanges      = declare("sync_stuck_changes", "Changes waiting for a missing parent.")
	missingParents    = declare("sync_missing_parents", "Distinct missing parents that changes wait for.")
	sessionsActive    = declare("sync_sessions_active", "Open sessions.", "kind")
	sessionsTotal     = declare("sync_sessions_total", "Sessions that ended.", "kind", "result")
	sessionTime       = declare("sync_session_duration_seconds", "Length of sessions.", "kind")
	pagesTotal        = declare("sync_backfill_pages_total", "Pages fetched.")
	chunksTotal       = declare("sync_snapshot_chunks_total", "Chunks of snapshots: from a peer, or kept from a transfer that broke off.", "source")
	progressRatio     = declare("sync_backfill_progress_ratio", "Progress of the current backfill from the device; after it 1 if it completed, else 0.", "device")
	retryDepth        = declare("sync_retry_queue_depth", "Things waiting for a retry.")
	retriesTotal      = declare("sync_retries_total", "Retries.", "result")
	strategiesTotal   = declare("sync_strategy_selected_total", "Ways chosen to come into step.", "strategy")
	bulkTotal         = declare("sync_bulk_decisions_total", "What was decided when a device announced a large scan.", "decision")
	lookupsTotal      = declare("sync_lookups_total", "Questions about locations whose entries the asking device does not keep.", "direction", "result")

	recordsSynced     = declare("sync_records_synced_total", "Records written by sync.", "model", "op")
	sentBytes         = declare("sync_sent_bytes_total", "Bytes written to streams, after compression.", "device")
	receivedBytes     = declare("sync_received_bytes_total", "Bytes read from streams, before decompression.", "device")
	uncompressedBytes = declare("sync_uncompressed_bytes_total", "Payload before compression.", "direction")
	lastSync          = declare("sync_last_sync_timestamp_seconds", "Last completed exchange with the device.", "device")
	modelLastSync     = declare("sync_model_last_sync_timestamp_seconds", "When a record of the model was last written by sync.", "model")
	lastSeen          = declare("device_last_seen_timestamp_seconds", "Last authenticated contact with the device.", "device")
	deviceOnline      = declare("device_online", "1 while at least one live connection to the device exists.", "device")

	broadcastTime   = declare("sync_broadcast_duration_seconds", "From sending a push to its answer.")
	applyTime       = declare("sync_apply_duration_seconds", "Store transaction of one applied batch.")
	pageTime        = declare("sync_backfill_request_duration_seconds", "Round trip of one page.")
	watermarkTime   = declare("sync_watermark_timestamp_seconds", "Up to when the changes of the device are held.", "device", "kind")
	lagChanges      = declare("sync_lag_changes", "Distance of heads: in, they have and we lack; out, the reverse.", "device", "direction")
	propagationTime = declare("sync_propagation_seconds", "From the commit at the origin to visible here.", "source")
	deviceRTT       = declare("device_rtt_seconds", "Smoothed round trip to the device.", "device")
	clockDrift      = declare("clock_hlc_drift_seconds", "Hybrid time minus wall clock.")
	clockLogical    = declare("clock_hlc_logical_max", "Largest logical part of hybrid time seen.")
	clockOffset     = declare("clock_device_offset_seconds", "Wall clock of the device minus ours.", "device")
	storeTime       = declare("store_operation_duration_seconds", "Operations of the store.", "op")
	storeSize       = declare("store_size_bytes", "Size of the store on disk.", "part")
	memoryReserved  = declare("memory_reserved_bytes", "Memory reserved of the cap of each use.", "use")
	memoryMost      = declare("memory_reserved_peak_bytes", "The most memory that was reserved at a time for each use.", "use")
	memoryRefused   = declare("memory_refused_total", "What was not begun or ended for want of memory.", "use")

	errorsTotal    = declare("sync_errors_total", "Errors by kind.", "kind")
	conflictsTotal = declare("sync_conflicts_total", "Conflicts by how they were settled.", "resolution")

	connectionState     = declare("device_connection_state", "1 for the connection state of the device, 0 for the others.", "device", "state")
	connectionCode      = declare("device_connection_state_code", "0 disconnected, 1 connecting, 2 syncing, 3 connected.", "device")
	consecutiveFailures = declare("device_consecutive_failures", "Failed attempts to connect since the last success.", "device")
	connectionAttempts  = declare("device_connection_attempts_total", "Attempts to connect.", "device", "result")
	addressesLearned    = declare("device_addresses_learned_total", "Addresses of the device that were new: announced on the local network, or in its own record.", "device", "source")
	strangersSeen       = declare("discovery_strangers_total", "Announcements on the local network by devices that are no members.")
	joinsTotal          = declare("device_joins_total", "Devices that asked to join this one's library, by what became of it.", "result")
	departuresTotal     = declare("device_departures_total", "Devices that this one has seen go out of the library.", "how")
	streamsRefused      = declare("streams_refused_total", "Streams turned away when they opened.", "reason")
	devicesTracked      = declare("devices_tracked", "Other devices of the library.")
	devicesConnected    = declare("devices_connected", "Other devices connected now.")

	catalogRecords    = declare("catalog_records", "Live records.", "model")
	catalogTombstones = declare("catalog_tombstones", "Deletion markers kept.")
	catalogFiles      = declare("catalog_files", "Files catalogued.", "device")
	catalogFileBytes  = declare("catalog_file_bytes", "Total size of the files catalogued.", "device")
	digestChecks      = declare("catalog_digest_checks_total", "Comparisons of catalogues at equal heads.", "device", "result")
	catalogDiverged   = declare("catalog_diverged", "1 if the last comparable digest of the device differed.", "device")
	queryTime         = declare("catalog_query_duration_seconds", "Questions to the catalogue.", "op")

	scanFiles      = declare("scan_files_total", "Files that scans and watches looked at.", "result")
	hashedFiles    = declare("scan_hashed_files_total", "Files that were read to hash their contents.", "result")
	hashedBytes    = declare("scan_hashed_bytes_total", "Bytes read to hash contents.")
	hashBacklog    = declare("scan_hash_backlog_files", "Files whose contents are still to be read.")
	scanTime       = declare("scan_duration_seconds", "One pass over one location.")
	scanBacklog    = declare("scan_backlog_files", "Files noticed and not catalogued yet.")
	scanCompleted  = declare("scan_last_completed_timestamp_seconds", "End of the last whole pass over the location.", "location")
	watchActive    = declare("scan_watch_active", "1 while the location is watched, 0 while it is only scanned.", "location")
	watchOverflows = declare("scan_watch_overflows_total", "Overflows of the kernel's queue, each of which forces a scan.")

	eventsLogged  = declare("events_logged_total", "Events written.", "category", "severity")
	eventsDropped = declare("events_dropped_total", "Events not written.", "reason")
	eventQueue    = declare("events_queue_depth", "Events waiting to be written.")
	eventsStored  = declare("events_stored", "Events on disk.")
	eventBytes    = declare("events_stored_bytes", "Size of the events on disk.")
	eventsOldest  = declare("events_oldest_timestamp_seconds", "Time of the oldest event on disk.")

	labelOverflow = declare("metrics_label_overflow_total", "Values folded into the label value _other by a cap.", "metric")
	httpRequests  = declare("http_requests_total", "Answers of the local interface.", "route", "code")
	httpTime      = declare("http_request_duration_seconds", "Time to answer.", "route")
)

// Places in cappedFamilies.
const (
	foldDevice = iota
	foldFailures
	foldReceived
	foldProcessed
	foldSentBytes
	foldReceivedBytes
	foldAttempts
	foldAddresses
	foldDigests
	foldRecords
	foldModelRecords
	foldStrategies
	foldStoreOps
	foldQueries
	foldScans
	foldWatches
	foldRoutes
	foldFamilies
)

// cappedFamilies is where a cap can be hit.
var cappedFamilies = [foldFamilies]family{
	foldDevice: deviceInfo, foldFailures: broadcastFailures, foldReceived: changesReceived,
	foldProcessed: changesProcessed, foldSentBytes: sentBytes, foldReceivedBytes: receivedBytes,
	foldAttempts: connectionAttempts, foldAddresses: addressesLearned, foldDigests: digestChecks, foldRecords: recordsSynced,
	foldModelRecords: catalogRecords, foldStrategies: strategiesTotal, foldStoreOps: storeTime,
	foldQueries: queryTime, foldScans: scanCompleted, foldWatches: watchActive, foldRoutes: httpRequests,
}

// collector shows Metrics to a registry.
type collector struct{ m *Metrics }

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc
	}
}

// Collect gathers under the lock and sends after it, so that no slow reader holds up the node.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, metric := range c.m.gather(c.m.cfg.Now()) {
		ch <- metric
	}
}

// sink gathers series.
type sink struct{ out []prometheus.Metric }

func (s *sink) gauge(f family, v float64, labels ...string) {
	s.out = append(s.out, prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, v, labels...))
}

func (s *sink) counter(f family, v uint64, labels ...string) {
	s.out = append(s.out, prometheus.MustNewConstMetric(f.desc, prometheus.CounterValue, float64(v), labels...))
}

// counters adds one series per value of list, and one for "_other" if it counted anything. labels come
// before the value.
func (s *sink) counters(f family, list []string, n []uint64, labels ...string) {
	for i, v := range n {
		switch {
		case i < len(list):
			s.counter(f, v, append(labels, list[i])...)
		case v > 0:
			s.counter(f, v, append(labels, other)...)
		}
	}
}

func (s *sink) moment(f family, t time.Time, labels ...string) { s.gauge(f, unix(t), labels...) }

func (s *sink) histogram(h *histogram) { s.out = append(s.out, h.prom) }

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

func is(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (m *Metrics) gather(now time.Time) []prometheus.Metric {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &sink{}
	s.gauge(buildInfo, 1, m.infoText[0], m.infoText[1], goVersion)
	m.gatherState(s, m.state.tick(now))
	m.gatherSync(s)
	m.gatherLocal(s)
	m.gatherObserver(s)
	for _, id := range slices.Sorted(maps.Keys(m.devices)) {
		d := m.devices[id]
		s.gauge(deviceInfo, 1, id, d.name, d.os, d.version)
		s.gauge(catalogFiles, float64(d.files), id)
		s.gauge(catalogFileBytes, float64(d.fileBytes), id)
		if !d.own || total(d.received[:])+total(d.processed[:]) > 0 {
			d.gatherCounters(s, id)
		}
		if !d.own {
			d.gatherPresent(s, id)
		}
	}
	if m.rest != nil {
		m.rest.gatherCounters(s, other)
	}
	return s.out
}

func (m *Metrics) gatherState(s *sink, now time.Time) {
	st := &m.state
	for i, name := range withOther(states[:]) {
		if spent := st.in(i, now); i < len(states) || spent > 0 {
			s.gauge(syncState, is(i == st.current), name)
			s.out = append(s.out, prometheus.MustNewConstMetric(stateSeconds.desc, prometheus.CounterValue, spent.Seconds(), name))
		}
		for j, to := range withOther(states[:]) {
			if st.moves[i][j] > 0 {
				s.counter(stateTransitions, st.moves[i][j], name, to)
			}
		}
	}
	s.moment(stateEntered, st.entered)
}

func (m *Metrics) gatherSync(s *sink) {
	s.counters(broadcastsSent, broadcastKinds[:], m.broadcasts[:])
	s.counter(batchesSent, m.batches)
	s.histogram(m.batchSizes)
	s.histogram(m.broadcast)
	s.counters(rejectionsTotal, rejectionReasons[:], m.rejections[:])
	s.gauge(bufferedChanges, float64(m.buffered()))
	s.counter(bufferDropped, m.hintsDropped)
	s.counter(strangersSeen, m.strangers)
	s.counters(joinsTotal, joinResults[:], m.joins[:])
	s.counters(departuresTotal, departures[:], m.departed[:])
	s.counters(streamsRefused, streamRefusals[:], m.refused[:])
	s.gauge(stuckChanges, float64(m.stuckChanges))
	s.gauge(missingParents, float64(m.missingParents))
	for i, kind := range withOther(sessionKinds[:]) {
		if i == len(sessionKinds) && m.sessionsActive[i] == 0 && m.sessionLength[i].count == 0 {
			continue
		}
		s.gauge(sessionsActive, float64(m.sessionsActive[i]), kind)
		s.counters(sessionsTotal, sessionResults[:], m.sessions[i][:], kind)
		s.histogram(m.sessionLength[i])
	}
	s.counter(pagesTotal, m.pages)
	s.counters(chunksTotal, chunkSources[:], m.chunks[:])
	s.histogram(m.pageTime)
	s.gauge(retryDepth, float64(m.retryQueue))
	s.counters(retriesTotal, retryResults[:], m.retries[:])
	s.counters(bulkTotal, bulkDecisions[:], m.bulk[:])
	for i, direction := range directions {
		s.counters(lookupsTotal, lookupResults[:], m.lookups[i][:], direction)
	}
	for _, name := range m.strategies.sorted() {
		s.counter(strategiesTotal, *m.strategies.values[name], name)
	}
	for _, name := range m.models.sorted() {
		t := m.models.values[name]
		s.counters(recordsSynced, operations[:], t.ops[:], name)
		s.moment(modelLastSync, t.lastSync, name)
		s.gauge(catalogRecords, float64(t.records), name)
	}
	s.counters(uncompressedBytes, directions[:], m.uncompressed[:])
	s.histogram(m.apply)
	for i, h := range m.propagated {
		if i < len(sources) || h.count > 0 {
			s.histogram(h)
		}
	}
	s.counters(errorsTotal, errorKinds[:], m.errors[:])
	s.counters(conflictsTotal, resolutions[:], m.conflicts[:])
	s.gauge(devicesTracked, float64(m.tracked()+len(m.folded)))
	s.gauge(devicesConnected, float64(m.connected()))
}

func (m *Metrics) gatherLocal(s *sink) {
	s.gauge(clockDrift, m.drift.Seconds())
	s.gauge(clockLogical, float64(m.logicalMax))
	for _, op := range m.storeOps.sorted() {
		s.histogram(m.storeOps.values[op])
	}
	for i, part := range storeParts {
		s.gauge(storeSize, float64(m.storeSize[i]), part)
	}
	for i, use := range memoryUses {
		s.gauge(memoryReserved, float64(m.memory[i]), use)
		s.gauge(memoryMost, float64(m.memoryMost[i]), use)
	}
	s.counters(memoryRefused, memoryRefusals[:], m.memoryRefused[:])
	s.gauge(catalogTombstones, float64(m.tombstones))
	for _, op := range m.queries.sorted() {
		s.histogram(m.queries.values[op])
	}
	s.counters(scanFiles, scanResults[:], m.scanned[:])
	s.counters(hashedFiles, hashResults[:], m.hashed[:])
	s.counter(hashedBytes, m.hashedBytes)
	s.gauge(hashBacklog, float64(m.hashBacklog))
	s.histogram(m.scanTime)
	s.gauge(scanBacklog, float64(m.scanBacklog))
	for _, id := range m.locations.sorted() {
		l := m.locations.values[id]
		s.moment(scanCompleted, l.lastScan, id)
		s.gauge(watchActive, is(l.watched), id)
	}
	s.counter(watchOverflows, m.overflows)
}

func (m *Metrics) gatherObserver(s *sink) {
	for i, category := range withOther(categories[:]) {
		for j, severity := range withOther(severities[:]) {
			if n := m.eventsLogged[i][j]; n > 0 || i < len(categories) && j < len(severities) {
				s.counter(eventsLogged, n, category, severity)
			}
		}
	}
	s.counters(eventsDropped, dropReasons[:], m.eventsDropped[:])
	s.gauge(eventQueue, float64(m.eventQueue))
	s.gauge(eventsStored, float64(m.eventsStored))
	s.gauge(eventBytes, float64(m.eventBytes))
	s.moment(eventsOldest, m.eventsOldest)
	for i, f := range cappedFamilies {
		s.counter(labelOverflow, m.overflow[i], f.name)
	}
	for _, pattern := range m.routes.sorted() {
		r := m.routes.values[pattern]
		s.histogram(r.time)
		for _, code := range slices.Sorted(maps.Keys(r.codes)) {
			name := strconv.Itoa(code)
			if code == 0 {
				name = other
			}
			s.counter(httpRequests, r.codes[code], pattern, name)
		}
	}
}

func (d *device) gatherCounters(s *sink, id string) {
	s.counters(broadcastFailures, failureReasons[:], d.failures[:], id)
	s.counters(changesReceived, sources[:], d.received[:], id)
	s.counters(changesProcessed, outcomes[:], d.processed[:], id)
	s.counters(connectionAttempts, attemptResults[:], d.attempts[:], id)
	s.counters(addressesLearned, addressSources[:], d.learned[:], id)
	s.counters(digestChecks, digestResults[:], d.digests[:], id)
	s.counter(sentBytes, d.bytesOut, id)
	s.counter(receivedBytes, d.bytesIn, id)
}

func (d *device) gatherPresent(s *sink, id string) {
	s.moment(lastSync, d.lastSync, id)
	s.moment(lastSeen, d.lastSeen, id)
	s.gauge(deviceOnline, is(d.online), id)
	s.gauge(progressRatio, d.progress, id)
	for i, name := range connections {
		s.gauge(connectionState, is(i == d.connection), id, name)
	}
	s.gauge(connectionCode, float64(d.connection), id)
	s.gauge(consecutiveFailures, float64(d.failing), id)
	s.gauge(deviceRTT, d.rtt.Seconds(), id)
	s.gauge(clockOffset, d.offset.Seconds(), id)
	s.gauge(lagChanges, float64(d.lagIn), id, "in")
	s.gauge(lagChanges, float64(d.lagOut), id, "out")
	for i, kind := range watermarks {
		s.moment(watermarkTime, d.watermark[i], id, kind)
	}
	s.gauge(catalogDiverged, is(d.diverged), id)
}

// buffered returns received less processed.
func (m *Metrics) buffered() int64 {
	var n int64
	for _, d := range m.allDevices() {
		n += d.buffered()
	}
	return n
}

func (d *device) buffered() int64 { return int64(total(d.received[:])) - int64(total(d.processed[:])) }

func (m *Metrics) allDevices() map[string]*device {
	all := maps.Clone(m.devices)
	if m.rest != nil {
		all[other] = m.rest
	}
	return all
}

func (m *Metrics) connected() (n int) {
	for _, d := range m.devices {
		n += int(is(d.online && !d.own))
	}
	for _, d := range m.folded {
		n += int(is(d.online))
	}
	return n
}

func total(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}
