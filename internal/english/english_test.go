package english

import (
	"math"
	"testing"
)

func TestPlural(t *testing.T) {
	for want, got := range map[string]string{
		"0 entries":                  Plural(0, "entry", "entries"),
		"1 entry":                    Plural(uint64(1), "entry", "entries"),
		"2 entries":                  Plural(int64(2), "entry", "entries"),
		"999":                        Count(999),
		"1,000":                      Count(1000),
		"12,006 entries":             Plural(12006, "entry", "entries"),
		"-12,006":                    Count(-12006),
		"18446744073709551615 files": Plural(uint64(math.MaxUint64), "file", "files"),
		"-9,223,372,036,854,775,808": Count(int64(math.MinInt64)),
		"4,611,686,018,427,387,904":  Count(uint64(1 << 62)),
		"0.0":                        Tenths(-0.04),
		"-0.1":                       Tenths(-0.06),
		"145.2":                      Tenths(145.15),
		"1 folder waits":             Plural(1, "folder waits", "folders wait"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
