package metrics

import "time"

// stateTimes adds up how long the node was in each state. The parts add up to the uptime exactly: time
// moves only forwards here, whatever the clock does.
type stateTimes struct {
	started  time.Time
	entered  time.Time // the current state
	latest   time.Time // the latest moment seen
	current  int
	reason   string
	spent    [len(states) + 1]time.Duration // without the running one
	moves    [len(states) + 1][len(states) + 1]uint64
	previous ring[Transition]
}

func newStateTimes(now time.Time) stateTimes {
	return stateTimes{started: now, entered: now, latest: now}
}

func (s *stateTimes) tick(now time.Time) time.Time {
	if now.After(s.latest) {
		s.latest = now
	}
	return s.latest
}

// in returns the time spent in state i until now.
func (s *stateTimes) in(i int, now time.Time) time.Duration {
	if i == s.current {
		return s.spent[i] + now.Sub(s.entered)
	}
	return s.spent[i]
}

// StateEntered notes that the node is now in state (uninitialized, backfilling, catching_up, ready,
// paused) and why. Entering the state it is in already changes nothing.
func (m *Metrics) StateEntered(state, reason string, now time.Time) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.state
	to := index(states[:], state)
	if to == s.current {
		return
	}
	now = s.tick(now)
	names := withOther(states[:])
	s.spent[s.current] += now.Sub(s.entered)
	s.moves[s.current][to]++
	s.previous.add(Transition{
		Time: now, From: names[s.current], To: names[to], Reason: clip(reason, maxText),
		After: Seconds(now.Sub(s.entered)),
	}, KeptTransitions)
	s.current, s.entered, s.reason = to, now, clip(reason, maxText)
}
