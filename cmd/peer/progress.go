package main

import (
	"fmt"
	"strings"
	"time"

	"peerdex/internal/english"
	"peerdex/metrics"
	"peerdex/node"
)

// meter shows how far long work is, on stderr: one line redrawn on a terminal, else a line now and then.
// It shows nothing with --json.
type meter struct {
	a     *app
	label string // "catalogue"
	unit  string // "names"
	pace  metrics.Pace
	began time.Time
	shown time.Time // zero: nothing yet
	open  bool      // a line on the terminal waits for its end
}

func (a *app) meter(label, unit string) *meter { return &meter{a: a, label: label, unit: unit} }

const (
	redraw = 100 * time.Millisecond // on a terminal
	reline = 5 * time.Second        // elsewhere
	cells  = 20
)

// update shows done of total, where nobody else knows how fast that is; total 0 means unknown.
func (m *meter) update(done, total uint64) {
	now := m.a.now()
	m.pace.Mark(now, done)
	p := node.Progress{Done: done, Total: total, Rate: m.pace.Rate(now)}
	p.ETASeconds = metrics.Left(total-min(done, total), p.Rate).Seconds()
	m.transfer(p)
}

// transfer shows how far something is.
func (m *meter) transfer(p node.Progress) {
	if m.a.json {
		return
	}
	now := m.a.now()
	if m.began.IsZero() {
		m.began = now
	}
	if m.a.errWidth == 0 {
		if now.Sub(m.began) >= reline && now.Sub(m.shown) >= reline {
			m.shown = now
			fmt.Fprintln(m.a.err, m.line(p))
		}
		return
	}
	if now.Sub(m.shown) < redraw && (p.Total == 0 || p.Done < p.Total) {
		return
	}
	m.shown, m.open = now, true
	fmt.Fprintf(m.a.err, "\r\x1b[K%s", middle(m.line(p), m.a.errWidth-1, "..."))
}

// line writes how far something is; where a terminal is narrow, with a shorter bar, and with less behind it.
func (m *meter) line(p node.Progress) string {
	parts := m.a.progress(p, m.unit)
	text := func(cells int) string {
		s := m.label + " "
		if p.Total > 0 && m.a.errWidth > 0 {
			s += " " + m.a.bar(p.Done, p.Total, cells) + "  "
		}
		return s + strings.Join(parts, m.a.sep())
	}
	s := text(cells)
	if m.a.errWidth == 0 || columns(s) < m.a.errWidth {
		return s
	}
	for ; len(parts) > 0; parts = parts[:len(parts)-1] {
		if s = text(cells / 2); columns(s) < m.a.errWidth {
			break
		}
	}
	return s
}

// progress writes how far something is, how fast, how long it will take and what is being done.
func (a *app) progress(p node.Progress, unit string) []string {
	one := strings.TrimSuffix(unit, "s")
	if before, ok := strings.CutSuffix(unit, "ies"); ok {
		one = before + "y"
	}
	parts := []string{english.Plural(p.Done, one, unit)}
	if p.Total > 0 {
		parts[0] = english.Count(p.Done) + " of " + english.Plural(p.Total, one, unit)
	}
	switch {
	case p.TotalBytes > 0:
		parts = append(parts, size(p.Bytes)+" of "+size(p.TotalBytes))
	case p.Bytes > 0:
		parts = append(parts, size(p.Bytes))
	}
	if p.Rate >= 1 {
		parts = append(parts, english.Count(uint64(p.Rate))+"/s")
	}
	if p.ETASeconds > 0 {
		left := time.Duration(p.ETASeconds * float64(time.Second))
		parts = append(parts, span(max(left.Round(time.Second), time.Second))+" left")
	}
	if p.Phase != "" {
		parts = append(parts, escape(p.Phase))
	}
	return parts
}

// done ends the line.
func (m *meter) done() {
	if m.open {
		fmt.Fprint(m.a.err, "\r\x1b[K")
		m.open = false
	}
}

// bar draws a part of a whole in some cells; it is full only when done is total.
func (a *app) bar(done, total uint64, cells int) string {
	full := 0
	if total > 0 {
		full = int(float64(min(done, total)) / float64(total) * float64(cells))
	}
	on, off := "█", "░"
	if !a.unicode() {
		on, off = "#", "-"
	}
	return strings.Repeat(on, full) + strings.Repeat(off, cells-full)
}
