package metrics

import "time"

// BroadcastSent counts one push frame handed to the network; kind is state or shared. More than one
// record makes it a batch.
func (m *Metrics) BroadcastSent(kind string, records int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broadcasts[index(broadcastKinds[:], kind)]++
	if records > 1 {
		m.batches++
		m.batchSizes.observe(int64(records))
	}
}

// BroadcastFailed counts a push that was not delivered, or whose content the device refused: timeout, reset,
// busy, mismatch, rejected or other. A push that was answered in any other way counts as delivered.
func (m *Metrics) BroadcastFailed(id, reason string) {
	if m != nil {
		m.count(id, foldFailures, func(d *device) {
			d.failures[indexOr(failureReasons[:], reason, len(failureReasons)-1)]++
		})
	}
}

// BroadcastAcked counts a push that was delivered: answered d after it was sent, if only with a word that
// the device pulls instead.
func (m *Metrics) BroadcastAcked(d time.Duration) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broadcast.observe(int64(d))
}

// ChangesReceived counts n changes off the wire, before anything is known of them; source is live,
// catch_up, backfill or reconcile. They are buffered until ChangesProcessed.
func (m *Metrics) ChangesReceived(id, source string, n int) {
	if m != nil && n > 0 {
		m.count(id, foldReceived, func(d *device) { d.received[index(sources[:], source)] += uint64(n) })
	}
}

// ChangesProcessed counts what became of n received changes: applied, duplicate, superseded, rejected or
// dropped. Call it exactly once for each change received.
func (m *Metrics) ChangesProcessed(id, outcome string, n int) {
	if m != nil && n > 0 {
		m.count(id, foldProcessed, func(d *device) { d.processed[index(outcomes[:], outcome)] += uint64(n) })
	}
}

// ChangesRejected counts why n changes were rejected: decode, schema, signature, unauthorized,
// future_clock, missing_parent, too_large or other.
func (m *Metrics) ChangesRejected(reason string, n int) {
	if m == nil || n <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rejections[indexOr(rejectionReasons[:], reason, len(rejectionReasons)-1)] += uint64(n)
}

// RecordsSynced counts n records of a model (record.Record.Model) that sync wrote; op is insert, update
// or delete.
func (m *Metrics) RecordsSynced(name, op string, n int, now time.Time) {
	if m == nil || n <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.model(name, foldRecords)
	t.ops[index(operations[:], op)] += uint64(n)
	t.lastSync = now
}

func (m *Metrics) model(name string, family int) *model {
	t, own := m.models.get(name)
	if !own {
		m.overflow[family]++
	}
	return t
}

// SessionStarted counts a session that is now open; kind is backfill, catch_up or reconcile.
func (m *Metrics) SessionStarted(kind string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessionsActive[index(sessionKinds[:], kind)]++
}

// SessionEnded counts the end of a session after d: completed, failed or aborted.
func (m *Metrics) SessionEnded(kind, result string, d time.Duration) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := index(sessionKinds[:], kind)
	m.sessionsActive[i]--
	m.sessions[i][index(sessionResults[:], result)]++
	m.sessionLength[i].observe(int64(d))
}

// PageFetched counts one page pulled; d is its round trip.
func (m *Metrics) PageFetched(d time.Duration) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pages++
	m.pageTime.observe(int64(d))
}

// Chunks counts n chunks of a snapshot that is being fetched: from a peer, or kept from a transfer that broke off.
func (m *Metrics) Chunks(source string, n int) {
	if m == nil || n <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chunks[index(chunkSources[:], source)] += uint64(n)
}

// StrategySelected counts a choice of road.
func (m *Metrics) StrategySelected(strategy string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, own := m.strategies.get(strategy)
	*n++
	if !own {
		m.overflow[foldStrategies]++
	}
}

// BulkDecided counts the announcement of a large scan: fetch, on_demand, wait, refuse, in_step or ignore.
func (m *Metrics) BulkDecided(decision string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bulk[index(bulkDecisions[:], decision)]++
}

// Lookup counts a question about a location that the asking device keeps no entries of: asked by this device
// (out) or by another (in); answered, put off because much else is asked, refused with another code, or failed.
func (m *Metrics) Lookup(direction, result string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lookups[index(directions[:], direction)][index(lookupResults[:], result)]++
}

// RetryQueued adds delta, which may be negative, to the number of things waiting for a retry.
func (m *Metrics) RetryQueued(delta int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retryQueue += int64(delta)
}

// Retried counts one retry: success or failure.
func (m *Metrics) Retried(result string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retries[index(retryResults[:], result)]++
}

// HintDropped counts a hint that found the bounded queue of hints full; it costs a pull, no data.
func (m *Metrics) HintDropped() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hintsDropped++
}

// StuckChanges sets how many changes wait for how many missing parents.
func (m *Metrics) StuckChanges(changes, parents int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stuckChanges, m.missingParents = changes, parents
}

// Applied counts one applied batch; d is the time of its store transaction.
func (m *Metrics) Applied(d time.Duration) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.apply.observe(int64(d))
}

// Propagated counts a change that became visible here d after its commit at the origin, corrected by the
// clock offset; source as in ChangesReceived.
func (m *Metrics) Propagated(source string, d time.Duration) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.propagated[index(sources[:], source)].observe(int64(d))
}

// Uncompressed counts n bytes of payload before compression; direction is in or out.
func (m *Metrics) Uncompressed(direction string, n int) {
	if m == nil || n <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.uncompressed[index(directions[:], direction)] += uint64(n)
}

// Error counts an error and keeps it among the latest: network, database, apply, validation, protocol,
// auth or internal. device is "" when it is nobody's.
func (m *Metrics) Error(kind, id, message string, now time.Time) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := indexOr(errorKinds[:], kind, len(errorKinds)-1)
	m.errors[i]++
	if d, _ := m.device(id, -1); d != nil {
		d.errors[i]++
	}
	m.recent.add(ErrorEntry{Time: now, Kind: errorKinds[i], Device: label(id), Message: clip(message, maxText)}, KeptErrors)
}

// Conflict counts a conflict and how it was settled: hlc, tiebreak, delete or merge.
func (m *Metrics) Conflict(resolution string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conflicts[index(resolutions[:], resolution)]++
}
