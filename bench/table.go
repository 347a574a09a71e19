package main

import (
	"fmt"
	"slices"
	"strings"
)

// figure is one line of the table: what was measured in each run, beside what it is compared with.
type figure struct {
	what   string
	unit   string    // of got and of
	got    []float64 // one a run
	peer   string    // what it is compared with; empty: the bar alone
	of     []float64 // what that took in the same run; nil if the bar is absolute
	bar    float64   // at most so much: of the ratio if there is a peer, else of got; 0: told, not judged
	strict bool      // below the bar, not at it
}

type table struct{ rows []figure }

func (t *table) add(f figure) { t.rows = append(t.rows, f) }

// judged returns what the bar is held against: the median of the ratios of the runs, or of the values.
func (f figure) judged() float64 {
	if f.of == nil {
		return median(f.got)
	}
	return median(ratios(f.got, f.of))
}

func (f figure) missed() bool {
	return f.bar > 0 && (f.judged() > f.bar || f.strict && f.judged() == f.bar)
}

func (t *table) missed() bool { return slices.ContainsFunc(t.rows, figure.missed) }

func (t *table) markdown() string {
	var b strings.Builder
	b.WriteString("| what | median (min to max) | beside | ratio | bar | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, f := range t.rows {
		beside, ratio, bar, verdict := "", "", "", ""
		if f.of != nil {
			beside = fmt.Sprintf("%s: %s", f.peer, spread(f.of, f.unit))
			ratio = fmt.Sprintf("%s (%s to %s)", short(f.judged()), short(slices.Min(ratios(f.got, f.of))), short(slices.Max(ratios(f.got, f.of))))
		} else if f.bar > 0 {
			beside, ratio = "the bar", short(f.judged()/f.bar)
		}
		if f.bar > 0 {
			word := "at most"
			if f.strict {
				word = "below"
			}
			if f.of != nil {
				bar = fmt.Sprintf("%s %s times", word, short(f.bar))
			} else {
				bar = fmt.Sprintf("%s %s %s", word, short(f.bar), f.unit)
			}
			verdict = "met"
			if f.missed() {
				verdict = "**missed**"
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", f.what, spread(f.got, f.unit), beside, ratio, bar, verdict)
	}
	return b.String()
}

func spread(v []float64, unit string) string {
	return fmt.Sprintf("%s %s (%s to %s)", short(median(v)), unit, short(slices.Min(v)), short(slices.Max(v)))
}

// short writes three digits that matter.
func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func ratios(got, of []float64) []float64 {
	out := make([]float64, len(got))
	for i := range got {
		out[i] = got[i] / of[i]
	}
	return out
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile returns the value that a share q of v does not exceed; of an even number's middle, the upper.
func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}
