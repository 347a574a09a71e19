package query

import (
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// key is what "name:" means.
type key struct {
	name    string
	example string
	list    bool // commas separate values, of which one must fit
	read    func(p *parser, k key, values []value) (expr, error)
}

func keys() []key {
	return []key{
		{"ext", "ext:jpg,png", true, readExt},
		{"size", "size:>10MB   size:1MB..2GB", false, readSize},
		{"path", `path:2019/   path:"My Pictures/"`, false, readPath},
		{"date", "date:2024-04   date:>2024-01-01   date:yesterday", false, readDate},
		{"on", `on:nas   on:"my laptop",nas`, true, readNamed},
		{"tag", `tag:family   tag:"to do",work`, true, readNamed},
		{"hash", "hash:9f2c41d8", true, readHash},
	}
}

// Keys returns the keys of the language, each with its colon.
func Keys() []string {
	var out []string
	for _, k := range keys() {
		out = append(out, k.name+":")
	}
	return out
}

// key reads a key and what follows it.
func (p *parser) key(name string) (expr, error) {
	start := p.at
	p.at += len(name) + 1
	known := keys()
	i := slices.IndexFunc(known, func(k key) bool { return strings.EqualFold(k.name, name) })
	if i < 0 {
		end := p.at
		word := name + ":" + p.bare("")
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
		return nil, p.wrong(start, end, "ext:pdf   "+quoted,
			"there is no key %q; the keys are %s", name+":", strings.Join(Keys(), " "))
	}
	k := known[i]
	values, err := p.values(k.list)
	if err != nil {
		return nil, err
	}
	for _, v := range values {
		if v.text == "" {
			return nil, p.wrong(start, max(v.end, start+len(name)+1), k.example, "%q lacks a value", k.name+":")
		}
	}
	return k.read(p, k, values)
}

func readExt(_ *parser, _ key, values []value) (expr, error) {
	var out ext
	for _, v := range values {
		out = append(out, Fold([]byte{'.'}, []byte(strings.TrimPrefix(v.text, "."))))
	}
	return out, nil
}

func readPath(_ *parser, _ key, values []value) (expr, error) {
	return inPath(Fold(nil, []byte(values[0].text))), nil
}

func readNamed(p *parser, k key, values []value) (expr, error) {
	t := Term{Key: k.name}
	for _, v := range values {
		t.Values = append(t.Values, v.text)
	}
	p.terms = append(p.terms, t)
	return named(len(p.terms) - 1), nil
}

// Least and most digits of a hash.
const (
	minHash = 4
	maxHash = 64
)

func readHash(p *parser, k key, values []value) (expr, error) {
	for i, v := range values {
		text := strings.TrimPrefix(strings.ToLower(v.text), "blake3:")
		if len(text) < minHash || len(text) > maxHash || strings.Trim(text, "0123456789abcdef") != "" {
			return nil, p.wrong(v.at, v.end, k.example, "a hash begins with %d to %d hexadecimal digits", minHash, maxHash)
		}
		values[i].text = text
	}
	return readNamed(p, k, values)
}

// comparison is what may stand between a key and its value.
type comparison struct{ op, from, to string }

// compare splits "A..B", ">A" and the like. Without either, it is "=" and from.
func compare(text string) comparison {
	for _, op := range []string{">=", "<=", ">", "<"} {
		if rest, ok := strings.CutPrefix(text, op); ok {
			return comparison{op: op, from: strings.TrimSpace(rest)}
		}
	}
	if from, to, ok := strings.Cut(text, ".."); ok {
		return comparison{"..", strings.TrimSpace(from), strings.TrimSpace(to)}
	}
	return comparison{op: "=", from: strings.TrimSpace(text)}
}

// badRange returns an error for A..B where B lies before A, or both are missing.
func (p *parser) badRange(k key, v value, c comparison, empty bool) error {
	switch {
	case c.from == "" && c.to == "":
		return p.wrong(v.at, v.end, k.example, `".." lacks a value before or after it`)
	case empty:
		return p.wrong(v.at, v.end, k.example, "this range ends before it begins")
	}
	return nil
}

func readSize(p *parser, k key, values []value) (expr, error) {
	v := values[0]
	c := compare(v.text)
	var bad error
	read := func(text string, open uint64) uint64 {
		if c.op == ".." && text == "" {
			return open
		}
		n, ok := parseSize(text)
		if !ok && bad == nil {
			bad = p.wrong(v.at, v.end, k.example, "%q is no size: a number with B, kB, MB, GB, TB, PB or KiB to PiB", text)
		}
		return n
	}
	out := anySize
	n := read(c.from, 0)
	switch c.op {
	case "=":
		out = sized{n, n}
	case ">=":
		out.least = n
	case "<=":
		out.most = n
	case ">":
		if out.least = n + 1; n == math.MaxUint64 {
			out = sized{1, 0}
		}
	case "<":
		if out.most = n - 1; n == 0 {
			out = sized{1, 0}
		}
	case "..":
		if out = (sized{n, read(c.to, math.MaxUint64)}); bad == nil {
			bad = p.badRange(k, v, c, out.least > out.most)
		}
	}
	return out, bad
}

var units = []struct {
	name  string
	bytes uint64
}{
	{"pib", 1 << 50}, {"tib", 1 << 40}, {"gib", 1 << 30}, {"mib", 1 << 20}, {"kib", 1 << 10},
	{"pb", 1e15}, {"tb", 1e12}, {"gb", 1e9}, {"mb", 1e6}, {"kb", 1e3},
	{"p", 1e15}, {"t", 1e12}, {"g", 1e9}, {"m", 1e6}, {"k", 1e3},
	{"b", 1}, {"", 1},
}

// parseSize reads a number with a unit, such as 10MB or 1.5 GiB, rounded down to whole bytes.
func parseSize(text string) (uint64, bool) {
	text = strings.ToLower(text)
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		whole, part, dot := strings.Cut(strings.TrimSpace(number), ".")
		n, ok := digits(whole, 20)
		if !ok {
			return 0, false
		}
		high, total := bits.Mul64(n, u.bytes)
		if dot {
			f, ok := digits(part, 18)
			if !ok {
				return 0, false
			}
			scale := uint64(1)
			for range part {
				scale *= 10
			}
			h, l := bits.Mul64(f, u.bytes)
			q, _ := bits.Div64(h, l, scale) // f is below scale, so the result is below u.bytes
			var carry uint64
			total, carry = bits.Add64(total, q, 0)
			high += carry
		}
		return total, high == 0
	}
	return 0, false
}

// digits reads a number of one to most decimal digits.
func digits(text string, most int) (n uint64, ok bool) {
	if text == "" || len(text) > most {
		return 0, false
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, false
		}
		high, low := bits.Mul64(n, 10)
		sum, carry := bits.Add64(low, uint64(c-'0'), 0)
		if high+carry > 0 {
			return 0, false
		}
		n = sum
	}
	return n, true
}

func readDate(p *parser, k key, values []value) (expr, error) {
	v := values[0]
	c := compare(v.text)
	var bad error
	read := func(text string) changed {
		if c.op == ".." && text == "" {
			return anyTime
		}
		span, ok := parseDate(text, p.now)
		if !ok && bad == nil {
			bad = p.wrong(v.at, v.end, k.example, "%q is no date: a year, a month, a day, today or yesterday", text)
		}
		return span
	}
	out, span := anyTime, read(c.from)
	switch c.op {
	case "=":
		out = span
	case ">=":
		out.first = span.first
	case "<=":
		out.last = span.last
	case ">":
		if out.first = span.last + 1; span.last == math.MaxInt64 {
			out = changed{1, 0}
		}
	case "<":
		if out.last = span.first - 1; span.first == math.MinInt64 {
			out = changed{1, 0}
		}
	case "..":
		if out = (changed{span.first, read(c.to).last}); bad == nil {
			bad = p.badRange(k, v, c, out.first > out.last)
		}
	}
	return out, bad
}

// parseDate returns the span of a year, a month or a day in now's zone.
func parseDate(text string, now time.Time) (changed, bool) {
	y, m, d := now.Date()
	switch strings.ToLower(text) {
	case "today":
		return spanOf(y, m, d, 0, 0, 1, now.Location()), true
	case "yesterday":
		return spanOf(y, m, d-1, 0, 0, 1, now.Location()), true
	}
	for _, form := range []struct {
		layout              string
		years, months, days int
	}{{"2006", 1, 0, 0}, {"2006-01", 0, 1, 0}, {"2006-01-02", 0, 0, 1}} {
		if at, err := time.Parse(form.layout, text); err == nil {
			y, m, d := at.Date()
			return spanOf(y, m, d, form.years, form.months, form.days, now.Location()), true
		}
	}
	return changed{}, false
}

func spanOf(y int, m time.Month, d, years, months, days int, zone *time.Location) changed {
	first := time.Date(y, m, d, 0, 0, 0, 0, zone)
	after := time.Date(y+years, m+time.Month(months), d+days, 0, 0, 0, 0, zone)
	return changed{nanos(first), nanos(after.Add(-1))}
}

// nanos is t in Unix nanoseconds, or the nearest that an int64 holds.
func nanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case s <= math.MinInt64/int64(time.Second):
		return math.MinInt64
	case s >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	}
	return t.UnixNano()
}
