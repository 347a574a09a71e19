package metrics

import "time"

// device is what is counted for one device.
type device struct {
	name, os, version string
	own               bool // this device: only its catalogue and its name are of interest

	received  [len(sources) + 1]uint64
	processed [len(outcomes) + 1]uint64
	failures  [len(failureReasons)]uint64
	attempts  [len(attemptResults)]uint64
	learned   [len(addressSources) + 1]uint64
	digests   [len(digestResults) + 1]uint64
	errors    [len(errorKinds)]uint64
	bytesOut  uint64
	bytesIn   uint64

	online     bool
	connection int
	failing    int
	rtt        time.Duration
	offset     time.Duration
	lagIn      uint64
	lagOut     uint64
	progress   float64
	diverged   bool
	lastSync   time.Time
	lastSeen   time.Time
	watermark  [len(watermarks)]time.Time
	files      int
	fileBytes  int64
}

// device returns where to count for a device, and whether it has series of its own. id "" is nobody's:
// nil.
func (m *Metrics) device(id string, family int) (*device, bool) {
	if d, ok := m.devices[id]; ok {
		return d, true
	}
	if id == "" {
		return nil, false
	}
	if _, ok := m.folded[id]; ok && family >= 0 {
		m.overflow[family]++
	}
	return m.others(), false
}

func (m *Metrics) others() *device {
	if m.rest == nil {
		m.rest = &device{}
	}
	return m.rest
}

// DeviceKnown makes every series of a device exist, at zero if it is new. device is its short id; name,
// os and version may change. At most MaxDevices other devices have series of their own.
func (m *Metrics) DeviceKnown(id, name, os, version string) {
	if m == nil || id == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.devices[id]
	if d == nil {
		if m.tracked() >= MaxDevices {
			if m.folded[id] == nil {
				m.folded[id] = &device{}
				m.overflow[foldDevice]++
			}
			return
		}
		d = &device{}
		if old := m.folded[id]; old != nil {
			d.online = old.online
			delete(m.folded, id)
		}
		m.devices[id] = d
	}
	d.name, d.os, d.version = label(name), label(os), label(version)
}

// tracked returns how many other devices have series of their own.
func (m *Metrics) tracked() int {
	if m.devices[m.cfg.Device] != nil {
		return len(m.devices) - 1
	}
	return len(m.devices)
}

// DeviceForgotten removes the series of a device. What it counted stays in the totals, under "_other".
func (m *Metrics) DeviceForgotten(id string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.folded, id)
	d := m.devices[id]
	if d == nil || d.own {
		return
	}
	delete(m.devices, id)
	rest := m.others()
	add(rest.received[:], d.received[:])
	add(rest.processed[:], d.processed[:])
	add(rest.failures[:], d.failures[:])
	add(rest.attempts[:], d.attempts[:])
	add(rest.learned[:], d.learned[:])
	add(rest.digests[:], d.digests[:])
	add(rest.errors[:], d.errors[:])
	rest.bytesOut += d.bytesOut
	rest.bytesIn += d.bytesIn
}

func add(to, from []uint64) {
	for i, n := range from {
		to[i] += n
	}
}

// count runs fn on where to count for a device.
func (m *Metrics) count(id string, family int, fn func(*device)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, _ := m.device(id, family); d != nil {
		fn(d)
	}
}

// note runs fn on a device that has series of its own, and on no other: a present value of several
// devices together would mean nothing.
func (m *Metrics) note(id string, fn func(*device)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, own := m.device(id, -1); own {
		fn(d)
	}
}

// BytesSent counts n bytes written to a stream with the device, after compression.
func (m *Metrics) BytesSent(id string, n int) {
	if m != nil && n > 0 {
		m.count(id, foldSentBytes, func(d *device) { d.bytesOut += uint64(n) })
	}
}

// BytesReceived counts n bytes read from a stream with the device, before decompression.
func (m *Metrics) BytesReceived(id string, n int) {
	if m != nil && n > 0 {
		m.count(id, foldReceivedBytes, func(d *device) { d.bytesIn += uint64(n) })
	}
}

// LastSync notes a completed exchange with the device.
func (m *Metrics) LastSync(id string, now time.Time) {
	if m != nil {
		m.note(id, func(d *device) { d.lastSync = now })
	}
}

// LastSeen notes an authenticated contact with the device.
func (m *Metrics) LastSeen(id string, now time.Time) {
	if m != nil {
		m.note(id, func(d *device) { d.lastSeen = now })
	}
}

// Online says whether at least one live connection to the device exists.
func (m *Metrics) Online(id string, on bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, own := m.device(id, -1); own {
		d.online = on
	} else if d := m.folded[id]; d != nil {
		d.online = on
	}
}

// ConnectionState sets the state of the device: disconnected, connecting, syncing or connected.
func (m *Metrics) ConnectionState(id, state string) {
	if m != nil {
		m.note(id, func(d *device) { d.connection = indexOr(connections[:], state, 0) })
	}
}

// ConnectionAttempt counts one attempt to connect: success, timeout, refused, unauthorized, no_address,
// rate_limited or error.
func (m *Metrics) ConnectionAttempt(id, result string) {
	if m != nil {
		m.count(id, foldAttempts, func(d *device) {
			d.attempts[indexOr(attemptResults[:], result, len(attemptResults)-1)]++
		})
	}
}

// AddressesLearned counts n addresses of the device that were not known: mdns, as it announced them on the
// local network, or record, as its own feed tells them.
func (m *Metrics) AddressesLearned(id, source string, n int) {
	if m != nil && n > 0 {
		m.count(id, foldAddresses, func(d *device) { d.learned[index(addressSources[:], source)] += uint64(n) })
	}
}

// StrangerSeen counts an announcement on the local network of a device that is no member.
func (m *Metrics) StrangerSeen() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.strangers++
}

// ConsecutiveFailures sets how many attempts to connect failed since the last success.
func (m *Metrics) ConsecutiveFailures(id string, n int) {
	if m != nil {
		m.note(id, func(d *device) { d.failing = n })
	}
}

// RTT sets the smoothed round trip to the device.
func (m *Metrics) RTT(id string, rtt time.Duration) {
	if m != nil {
		m.note(id, func(d *device) { d.rtt = rtt })
	}
}

// ClockOffset sets how far the device's wall clock is ahead of ours; negative when behind.
func (m *Metrics) ClockOffset(id string, offset time.Duration) {
	if m != nil {
		m.note(id, func(d *device) { d.offset = offset })
	}
}

// Lag sets the distance of heads in changes: in, what the device has and we lack; out, the reverse.
func (m *Metrics) Lag(id string, in, out uint64) {
	if m != nil {
		m.note(id, func(d *device) { d.lagIn, d.lagOut = in, out })
	}
}

// Watermark sets up to when we hold the device's changes; kind is state or shared.
func (m *Metrics) Watermark(id, kind string, t time.Time) {
	if i := index(watermarks[:], kind); m != nil && i < len(watermarks) {
		m.note(id, func(d *device) { d.watermark[i] = t })
	}
}

// Progress sets how much of the current backfill from the device is done, 0 to 1.
func (m *Metrics) Progress(id string, ratio float64) {
	if m != nil {
		m.note(id, func(d *device) { d.progress = min(max(ratio, 0), 1) })
	}
}

// DigestCheck counts a comparison of catalogues at equal heads: match, mismatch or incomparable. The
// first two decide whether the device counts as diverged.
func (m *Metrics) DigestCheck(id, result string) {
	if m == nil {
		return
	}
	m.count(id, foldDigests, func(d *device) {
		i := index(digestResults[:], result)
		d.digests[i]++
		if i < 2 && d != m.rest {
			d.diverged = i == 1
		}
	})
}

// CatalogFiles sets how many files of a device, this one included, are catalogued, and their size.
func (m *Metrics) CatalogFiles(id string, files int, bytes int64) {
	if m != nil {
		m.note(id, func(d *device) { d.files, d.fileBytes = files, bytes })
	}
}
