package main

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"peerdex/internal/english"
	"peerdex/node"
)

// size writes bytes in SI units.
func size(n uint64) string { return humanize.Bytes(n) }

// span writes a duration for people, with at most two units.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + span(-d)
	case d == 0:
		return "0 s"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		if s := int(d.Seconds()) % 60; s != 0 {
			return fmt.Sprintf("%dm %ds", int(d.Minutes()), s)
		}
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour && d%time.Hour < time.Minute:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// ago writes how long t lies back in one unit; "never" for the zero time.
func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d d ago", int(d.Hours()/24))
}

// fresh says how fresh a fact about a device is: it is known to be current, or was at asOf.
func fresh(now time.Time, current bool, asOf time.Time) string {
	switch {
	case current:
		return "now"
	case asOf.IsZero():
		return "as of never"
	}
	return "as of " + ago(now, asOf)
}

// marked is text about a device with the way in which it is out, if it is.
func marked(text, gone string) string {
	if gone == "" {
		return text
	}
	return text + ", " + escape(gone)
}

// seen says when a device was last heard, for a column that says so in its head.
func seen(now time.Time, d node.DeviceView) string {
	if d.Self || d.Online {
		return "now"
	}
	return ago(now, d.Seen)
}

func orUnknown(n *uint64) string {
	if n == nil {
		return "unknown"
	}
	return english.Count(*n)
}

// stateWord writes a node's state as people read it.
func stateWord(state string) string {
	switch state {
	case node.StateUninitialized:
		return "Not yet synced"
	case node.StateBackfilling:
		return "Backfilling"
	case node.StateCatchingUp:
		return "Catching up"
	case node.StateReady:
		return "Ready"
	case node.StatePaused:
		return "Paused"
	}
	return escape(state)
}

func stateMark(state string) mark {
	switch state {
	case node.StateReady:
		return good
	case node.StatePaused, node.StateUninitialized:
		return away
	}
	return busy
}

func linkMark(link string) mark {
	switch link {
	case node.LinkConnected:
		return good
	case node.LinkDisconnected:
		return away
	}
	return busy
}

// date writes the day of t, or a dash for the zero time.
func (a *app) date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(a.zone).Format("2006-01-02")
}

// clock writes a moment with its zone's offset.
func (a *app) clock(t time.Time) string { return t.In(a.zone).Format("2006-01-02 15:04:05 -07:00") }
