package metrics

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Seconds is a duration that JSON holds as a number of seconds, exact to the nanosecond.
type Seconds time.Duration

// Duration returns s as Go counts it.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// MarshalJSON writes a decimal number.
func (s Seconds) MarshalJSON() ([]byte, error) {
	whole, part := int64(s)/1e9, int64(s)%1e9
	var b []byte
	if s < 0 {
		b, whole, part = append(b, '-'), -whole, -part
	}
	b = strconv.AppendInt(b, whole, 10)
	if part != 0 {
		b = fmt.Appendf(b, ".%09d", part)
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return b, nil
}

// UnmarshalJSON reads a decimal number, to the nanosecond as far as a float64 is that exact.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.Abs(f) > math.MaxInt64/1e9 {
		return fmt.Errorf("seconds %q: want a number", b)
	}
	*s = Seconds(math.Round(f * 1e9))
	return nil
}
