package metrics

import "time"

// HLC sets how far hybrid time runs ahead of the wall clock and notes a logical part.
func (m *Metrics) HLC(drift time.Duration, counter uint16) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drift, m.logicalMax = drift, max(m.logicalMax, counter)
}

// StoreOp counts one operation of the store: get, put, iterate, commit, gc or a few others.
func (m *Metrics) StoreOp(op string, d time.Duration) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h, own := m.storeOps.get(op)
	h.observe(int64(d))
	if !own {
		m.overflow[foldStoreOps]++
	}
}

// MemoryReserved adds bytes, fewer than none when they are given back, to those reserved for a use: apply, serve or
// snapshot.
func (m *Metrics) MemoryReserved(use string, bytes int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := index(memoryUses[:], use)
	m.memory[i] += int64(bytes)
	m.memoryMost[i] = max(m.memoryMost[i], m.memory[i])
}

// MemoryRefused counts memory that there was none left of, for a use or for a frame.
func (m *Metrics) MemoryRefused(use string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.memoryRefused[index(memoryRefusals[:], use)]++
}

// StoreSize sets the bytes on disk of the tables and of the value log.
func (m *Metrics) StoreSize(lsm, vlog int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.storeSize = [2]int64{lsm, vlog}
}

// CatalogRecords sets the number of live records of a model.
func (m *Metrics) CatalogRecords(name string, n int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.model(name, foldModelRecords).records = n
}

// CatalogTombstones sets how many deletion markers are kept.
func (m *Metrics) CatalogTombstones(n int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tombstones = n
}

// Query counts one question to the catalogue, such as find or ls.
func (m *Metrics) Query(op string, d time.Duration) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h, own := m.queries.get(op)
	h.observe(int64(d))
	if !own {
		m.overflow[foldQueries]++
	}
}

// ScanFiles counts n files that a scan or a watch looked at: added, changed, removed, unchanged, ignored
// or error.
func (m *Metrics) ScanFiles(result string, n int) {
	if m == nil || n <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scanned[index(scanResults[:], result)] += uint64(n)
}

// ScanDone counts one whole pass over a location (record.LocationID.String) that took d and ended now.
func (m *Metrics) ScanDone(id string, d time.Duration, now time.Time) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scanTime.observe(int64(d))
	if l := m.location(id, foldScans); l != nil {
		l.lastScan = now
	}
}

// ScanBacklog sets how many files were noticed and are not catalogued yet.
func (m *Metrics) ScanBacklog(n int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scanBacklog = n
}

// FileHashed counts one file read to hash its content, and the bytes that took: hashed, changed if it was
// another file by then, or unreadable.
func (m *Metrics) FileHashed(result string, bytes int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hashed[index(hashResults[:], result)]++
	m.hashedBytes += uint64(bytes)
}

// HashBacklog sets how many files are still to be read to hash their contents.
func (m *Metrics) HashBacklog(n int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hashBacklog = n
}

// WatchActive says whether a location is watched; false means only scanned from time to time.
func (m *Metrics) WatchActive(id string, on bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.location(id, foldWatches); l != nil {
		l.watched = on
	}
}

// location returns a location with series of its own, or nil: present values of several together would
// mean nothing.
func (m *Metrics) location(id string, family int) *location {
	if l, ok := m.locations.values[id]; ok {
		return l
	}
	if len(m.locations.values) >= MaxLocations {
		m.overflow[family]++
		return nil
	}
	l, _ := m.locations.get(id)
	return l
}

// WatchOverflow counts an overflow of the kernel's queue, which forces a scan.
func (m *Metrics) WatchOverflow() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.overflows++
}

// LocationGone removes the series of a location.
func (m *Metrics) LocationGone(id string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.locations.values, label(id))
}

// EventLogged counts an event written to the event log.
func (m *Metrics) EventLogged(category, severity string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eventsLogged[index(categories[:], category)][index(severities[:], severity)]++
}

// EventDropped counts n events that were not written: queue_full, store_error or encode_error.
func (m *Metrics) EventDropped(reason string, n int) {
	if m == nil || n <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eventsDropped[index(dropReasons[:], reason)] += uint64(n)
}

// EventQueue sets how many events wait to be written.
func (m *Metrics) EventQueue(depth int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eventQueue = depth
}

// EventsStored sets how many events the log holds, their bytes, and the time of the oldest; zero if none.
func (m *Metrics) EventsStored(n int, bytes int64, oldest time.Time) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eventsStored, m.eventBytes, m.eventsOldest = n, bytes, oldest
}

// HTTPRequest counts one answer of the local interface; pattern is the route's pattern, never a path.
func (m *Metrics) HTTPRequest(pattern string, code int, d time.Duration) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r, own := m.routes.get(pattern)
	if !own {
		m.overflow[foldRoutes]++
	}
	if _, ok := r.codes[code]; !ok && len(r.codes) >= MaxCodes {
		m.overflow[foldRoutes]++
		code = 0
	}
	r.codes[code]++
	r.time.observe(int64(d))
}
