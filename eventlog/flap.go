package eventlog

import "time"

// A peer that connects more than three times in ten minutes is flapping: that connect is logged with
// their number, and what follows is held back for ten minutes and then said once.
const (
	flapWindow   = 10 * time.Minute
	flapConnects = 3
	maxFlaps     = 1024 // peers followed; there are at most as many as members
)

// flap is what one peer did lately.
type flap struct {
	connects []time.Time // within flapWindow, at most flapConnects+1
	flapping bool
	until    time.Time // when to look again

	held      int64 // connects held back
	connected PeerConnected
	event     Event  // the last connect held back
	after     *Event // the disconnect after it, held back too
}

// flapping reports whether e is held back; the event that starts flapping it writes itself.
func (l *Log) flapping(d Detail, e Event) bool {
	connected, up := d.(PeerConnected)
	_, down := d.(PeerDisconnected)
	if !up && !down || e.PeerDeviceID == "" {
		return false
	}
	now := time.Now()
	l.mu.Lock()
	f := l.flaps[e.PeerDeviceID]
	if f == nil {
		if !up || len(l.flaps) >= maxFlaps {
			l.mu.Unlock()
			return false
		}
		f = &flap{}
		l.flaps[e.PeerDeviceID] = f
		l.wake() // there is a window to be closed
	}
	switch {
	case down && f.flapping:
		f.after = &e
		l.mu.Unlock()
		return true
	case down:
		l.mu.Unlock()
		return false
	case f.flapping:
		f.held++
		f.connected, f.event, f.after = connected, e, nil
		l.mu.Unlock()
		return true
	}
	for len(f.connects) > 0 && now.Sub(f.connects[0]) >= flapWindow {
		f.connects = f.connects[1:]
	}
	f.connects = append(f.connects, now)
	f.until = now.Add(flapWindow)
	n := len(f.connects)
	if n > flapConnects {
		f.flapping = true
	}
	l.mu.Unlock()
	if n <= flapConnects {
		return false
	}
	connected.Flaps = int64(n)
	l.describe(&e, connected)
	l.happens(e)
	return true
}

// closeFlaps says what was held back of peers whose window is over; of all if now is zero.
func (l *Log) closeFlaps(now time.Time) {
	var over []*flap
	l.mu.Lock()
	for peer, f := range l.flaps {
		if !now.IsZero() && f.until.After(now) {
			continue
		}
		if f.held > 0 || f.after != nil {
			over = append(over, f)
		}
		delete(l.flaps, peer)
		if f.held > 0 && !now.IsZero() { // it may go on
			l.flaps[peer] = &flap{flapping: true, until: now.Add(flapWindow)}
		}
	}
	l.mu.Unlock()
	for _, f := range over {
		if f.held > 0 {
			f.connected.Flaps = f.held
			l.describe(&f.event, f.connected)
			l.enqueue(f.event)
		}
		if f.after != nil {
			l.enqueue(*f.after)
		}
	}
}
