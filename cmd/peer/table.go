package main

import (
	"strings"
)

// table lines up rows of printed (escaped) cells. Rows never wrap: on a terminal cells are
// shortened in their middles, those of the column shrink first, until they fit, elsewhere nothing is shortened.
type table struct {
	right  map[int]bool // columns with numbers, set against their right edge
	shrink int          // the column that gives way; -1: none
	rows   [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// lines returns the rows, indented by two spaces, for a terminal of that width; 0: no limit.
func (t *table) lines(width int, ellipsis string) string {
	var widths []int
	for _, r := range t.rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], columns(c))
		}
	}
	total := 2
	for _, w := range widths {
		total += w + 2
	}
	if over := total - 2 - width; width > 0 && over > 0 {
		t.narrow(widths, over)
	}
	var b strings.Builder
	for _, r := range t.rows {
		line := "  "
		for i, c := range r {
			c = middle(c, widths[i], ellipsis)
			pad := strings.Repeat(" ", max(0, widths[i]-columns(c)))
			if t.right[i] {
				line += pad + c + "  "
			} else {
				line += c + pad + "  "
			}
		}
		b.WriteString(strings.TrimRight(line, " "))
		b.WriteByte('\n')
	}
	return b.String()
}

// narrow takes over columns from the widths: from shrink down to 16, then from whatever is widest.
func (t *table) narrow(widths []int, over int) {
	const enough, least = 16, 4
	if t.shrink >= 0 && t.shrink < len(widths) {
		take := min(over, max(0, widths[t.shrink]-enough))
		widths[t.shrink] -= take
		over -= take
	}
	for ; over > 0; over-- {
		widest := 0
		for i, w := range widths {
			if w > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= least {
			return
		}
		widths[widest]--
	}
}

// render returns the table for the output as it is.
func (a *app) render(t *table) string {
	width, ellipsis := a.outWidth, "…"
	if a.wide {
		width = 0
	}
	if !a.unicode() {
		ellipsis = "..."
	}
	return t.lines(width, ellipsis)
}
