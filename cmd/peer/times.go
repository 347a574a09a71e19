package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"peerdex/node"
)

// maxSpan keeps spans of time and what is computed from them within what the types hold.
const maxSpan = 100 * 365 * 24 * time.Hour

// parseTime reads a moment in any of the forms that --since and --until take:
//
//	2025-10-23T10:00:00Z   2025-10-23 10:00:00   2025-10-23 10:00   2025-10-23   10:00:00   10:00
//	now   today   yesterday   start
//	1 hour ago   90 min ago   1h30m ago   2h   -2h   7d   2w
//	@1761213600
//
// Forms without a zone are in zone; a time without a day is of today. started gives the moment that the
// daemon began, for "start". It returns a *node.Problem with node.CodeBadTime for anything else.
func parseTime(flag, text string, now time.Time, zone *time.Location, started func() (time.Time, error)) (time.Time, error) {
	now = now.In(zone)
	t := strings.TrimSpace(text)
	if at, err := time.Parse(time.RFC3339Nano, t); err == nil {
		return at, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, t, zone); err == nil {
			return at, nil
		}
	}
	y, m, d := now.Date()
	for _, layout := range []string{"15:04:05", "15:04"} {
		if at, err := time.ParseInLocation(layout, t, zone); err == nil {
			return time.Date(y, m, d, at.Hour(), at.Minute(), at.Second(), 0, zone), nil
		}
	}
	switch word := strings.ToLower(t); word {
	case "now":
		return now, nil
	case "today":
		return time.Date(y, m, d, 0, 0, 0, 0, zone), nil
	case "yesterday":
		return time.Date(y, m, d-1, 0, 0, 0, 0, zone), nil
	case "start":
		return started()
	default:
		if rest, ok := strings.CutPrefix(word, "@"); ok {
			if sec, err := strconv.ParseInt(rest, 10, 64); err == nil && sec >= 0 && sec < 1<<33 && rest[0] != '+' {
				return time.Unix(sec, 0).In(zone), nil
			}
			break
		}
		rest, isAgo := strings.CutSuffix(word, " ago")
		if !isAgo {
			rest = strings.TrimPrefix(rest, "-")
		}
		if back, ok := parseSpan(rest); ok {
			return now.Add(-back), nil
		}
	}
	return time.Time{}, &node.Problem{
		Code:    node.CodeBadTime,
		Message: fmt.Sprintf("%q is not a time", text),
		Cause:   flag + " takes a date, a time, or how long ago",
		Try:     fmt.Sprintf("%[1]s '1 hour ago'   %[1]s '2025-10-23 10:00:00'   %[1]s 2h", flag),
	}
}

var spanUnits = map[string]time.Duration{
	"s": time.Second, "sec": time.Second, "secs": time.Second, "second": time.Second, "seconds": time.Second,
	"m": time.Minute, "min": time.Minute, "mins": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hrs": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
	"w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
}

// parseSpan reads whole numbers with units, such as "2h", "1h30m", "90 min" and "1 day 2 hours", up to a
// hundred years.
func parseSpan(text string) (time.Duration, bool) {
	d, err := readSpan(text)
	return d, err == nil
}

var (
	errNoSpan   = errors.New("not a span of time")
	errLongSpan = errors.New("a span of time of more than 100 years")
)

// readSpan is parseSpan that tells what is too long from what is no span.
func readSpan(text string) (time.Duration, error) {
	var (
		total time.Duration
		long  bool
	)
	rest := strings.TrimSpace(text)
	if rest == "" {
		return 0, errNoSpan
	}
	for rest != "" {
		digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if digits <= 0 {
			return 0, errNoSpan
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 32)
		long = long || err != nil // digits alone can only be too many
		rest = strings.TrimLeft(rest[digits:], " ")
		letters := strings.IndexFunc(rest, func(r rune) bool { return !unicode.IsLetter(r) })
		if letters < 0 {
			letters = len(rest)
		}
		unit, ok := spanUnits[rest[:letters]]
		if !ok {
			return 0, errNoSpan
		}
		if long = long || time.Duration(n) > (maxSpan-total)/unit; !long {
			total += time.Duration(n) * unit
		}
		rest = strings.TrimLeft(rest[letters:], " ")
	}
	if long {
		return 0, errLongSpan
	}
	return total, nil
}

// spanFlag is a flag that takes what parseSpan reads.
type spanFlag struct{ d *time.Duration }

func (f spanFlag) String() string {
	if f.d == nil || *f.d == 0 {
		return ""
	}
	return f.d.String()
}

func (f spanFlag) Type() string { return "duration" }

func (f spanFlag) Set(text string) error {
	d, err := readSpan(strings.ToLower(text))
	switch {
	case errors.Is(err, errLongSpan):
		return fmt.Errorf("%q is too long: the most is 100 years", text)
	case err != nil:
		return fmt.Errorf("%q is not a span of time such as 10m, 2h or 7d", text)
	case d == 0:
		return fmt.Errorf("%q is too short: the least is 1s", text)
	}
	*f.d = d
	return nil
}
