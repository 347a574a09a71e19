package metrics

// JoinAnswered counts a device that asked to join: joined, or the label of the code it was refused with.
func (m *Metrics) JoinAnswered(result string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joins[indexOr(joinResults[:], result, len(joinResults)-1)]++
}

// DeviceDeparted counts a device that is out of the library: revoked, left or forgotten.
func (m *Metrics) DeviceDeparted(how string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := index(departures[:], how); i < len(departures) {
		m.departed[i]++
	}
}

// StreamRefused counts a stream that was turned away when it opened, by the label of the code: not_member,
// revoked, busy or other.
func (m *Metrics) StreamRefused(reason string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused[indexOr(streamRefusals[:], reason, len(streamRefusals)-1)]++
}
