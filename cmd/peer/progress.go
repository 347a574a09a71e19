package main

import (
	"fmt"
	"strings"
	"time"
)

// meter shows how far long work is, on stderr: one line redrawn on a terminal, else a line now and then.
// It shows nothing with --json.
type meter struct {
	a     *app
	label string // "catalogue"
	unit  string // "names"; one of them is without the s
	began time.Time
	first uint64 // done at the first update: what was there before does not count for the rate
	shown time.Time
	open  bool // a line on the terminal waits for its end
}

func (a *app) meter(label, unit string) *meter { return &meter{a: a, label: label, unit: unit} }

const (
	redraw = 100 * time.Millisecond // on a terminal
	reline = 5 * time.Second        // elsewhere
	cells  = 20
)

// update shows done of total; total 0 means unknown.
func (m *meter) update(done, total uint64) {
	if m.a.json {
		return
	}
	now := m.a.now()
	every := reline
	if m.a.errWidth > 0 {
		every = redraw
	}
	if m.began.IsZero() {
		m.began, m.first = now, done
	} else if now.Sub(m.shown) < every && (total == 0 || done < total) {
		return
	}
	m.shown = now
	line := m.line(now, done, total)
	if m.a.errWidth == 0 {
		fmt.Fprintln(m.a.err, line)
		return
	}
	fmt.Fprintf(m.a.err, "\r\x1b[K%s", middle(line, m.a.errWidth-1, "..."))
	m.open = true
}

func (m *meter) line(now time.Time, done, total uint64) string {
	rate := 0.0
	if took := now.Sub(m.began).Seconds(); took > 0 && done > m.first {
		rate = float64(done-m.first) / took
	}
	var b strings.Builder
	b.WriteString(m.label)
	b.WriteString(" ")
	one := strings.TrimSuffix(m.unit, "s")
	if total == 0 {
		b.WriteString(plural(done, one, m.unit))
	} else {
		if m.a.errWidth > 0 {
			b.WriteString(" " + m.a.bar(done, total) + "  ")
		}
		fmt.Fprintf(&b, "%s of %s", count(done), plural(total, one, m.unit))
	}
	if rate >= 1 {
		fmt.Fprintf(&b, "%s%s/s", m.a.sep(), count(uint64(rate)))
		if total > done {
			left := time.Duration(float64(total-done) / rate * float64(time.Second))
			fmt.Fprintf(&b, "%s%s left", m.a.sep(), span(max(left.Round(time.Second), time.Second)))
		}
	}
	return b.String()
}

// done ends the line.
func (m *meter) done() {
	if m.open {
		fmt.Fprint(m.a.err, "\r\x1b[K")
		m.open = false
	}
}

// bar draws a part of a whole; it is full only when done is total.
func (a *app) bar(done, total uint64) string {
	full := 0
	if total > 0 {
		full = int(float64(min(done, total)) / float64(total) * cells)
	}
	on, off := "█", "░"
	if !a.unicode() {
		on, off = "#", "-"
	}
	return strings.Repeat(on, full) + strings.Repeat(off, cells-full)
}
