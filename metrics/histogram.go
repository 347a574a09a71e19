package metrics

import (
	"math/bits"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of the classic buckets, in the unit of the metric.
var (
	latencyBounds     = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}
	propagationBounds = []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 600, 3600}
	longBounds        = []float64{.1, .5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400}
	sizeBounds        = []float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000, 10000}
)

// fine buckets: eight to each power of two, so a quantile is off by at most a sixteenth.
const (
	fineBits    = 3
	fineBuckets = 64 << fineBits
)

// histogram keeps what a Prometheus histogram does and, besides, exact count, sum, minimum and maximum
// in whole units, and finer buckets for quantiles. Values are nanoseconds or records.
type histogram struct {
	prom  prometheus.Histogram
	scale float64 // units of a value per unit of the metric

	count    uint64
	sum      int64
	min, max int64
	fine     [fineBuckets]uint64
}

// newHistogram makes one series of a family; unit is how many of the values' units make one of the
// metric's.
func newHistogram(f family, labels []string, unit time.Duration, bounds []float64) *histogram {
	constant := prometheus.Labels{}
	for i, name := range f.labels {
		constant[name] = labels[i]
	}
	return &histogram{
		scale: float64(unit),
		prom: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                            f.name,
			Help:                            f.help,
			ConstLabels:                     constant,
			Buckets:                         bounds,
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}),
	}
}

// observe counts one value; a negative one, which only a clock that was set back can cause, as zero.
func (h *histogram) observe(v int64) {
	v = max(v, 0)
	if h.count == 0 || v < h.min {
		h.min = v
	}
	h.max = max(h.max, v)
	h.count++
	h.sum += v
	h.fine[fineIndex(uint64(v))]++
	h.prom.Observe(float64(v) / h.scale)
}

func fineIndex(v uint64) int {
	if v < 1<<fineBits {
		return int(v)
	}
	exponent := bits.Len64(v) - 1 - fineBits
	return (exponent+1)<<fineBits | int(v>>exponent)&(1<<fineBits-1)
}

// fineMiddle returns the middle of the values with index i.
func fineMiddle(i int) int64 {
	if i < 1<<fineBits {
		return int64(i)
	}
	exponent := i>>fineBits - 1
	low := int64(1<<fineBits|i&(1<<fineBits-1)) << exponent
	return low + (int64(1)<<exponent-1)/2
}

// quantile estimates the value that a share q of all values does not exceed.
func (h *histogram) quantile(q float64) int64 {
	if h.count == 0 {
		return 0
	}
	rank := max(uint64(q*float64(h.count)+0.999999), 1) // the rank-th smallest
	var seen uint64
	for i, n := range h.fine {
		if seen += n; seen >= rank {
			return min(max(fineMiddle(i), h.min), h.max)
		}
	}
	return h.max
}

// Durations sums up how long something took. Count, Sum, Min and Max are exact; the quantiles are
// estimates within a sixteenth. All are zero while Count is.
type Durations struct {
	Count uint64  `json:"count"`
	Sum   Seconds `json:"sum_seconds"`
	Min   Seconds `json:"min_seconds"`
	Max   Seconds `json:"max_seconds"`
	Avg   Seconds `json:"avg_seconds"`
	P50   Seconds `json:"p50_seconds"`
	P95   Seconds `json:"p95_seconds"`
	P99   Seconds `json:"p99_seconds"`
}

// Sizes sums up how many records something had, as Durations does.
type Sizes struct {
	Count uint64  `json:"count"`
	Sum   int64   `json:"sum"`
	Min   int64   `json:"min"`
	Max   int64   `json:"max"`
	Avg   float64 `json:"avg"`
	P50   int64   `json:"p50"`
	P95   int64   `json:"p95"`
	P99   int64   `json:"p99"`
}

func (h *histogram) durations() Durations {
	d := Durations{
		Count: h.count, Sum: Seconds(h.sum), Min: Seconds(h.min), Max: Seconds(h.max),
		P50: Seconds(h.quantile(.5)), P95: Seconds(h.quantile(.95)), P99: Seconds(h.quantile(.99)),
	}
	if h.count > 0 {
		d.Avg = Seconds(h.sum / int64(h.count))
	}
	return d
}

func (h *histogram) sizes() Sizes {
	s := Sizes{
		Count: h.count, Sum: h.sum, Min: h.min, Max: h.max,
		P50: h.quantile(.5), P95: h.quantile(.95), P99: h.quantile(.99),
	}
	if h.count > 0 {
		s.Avg = float64(h.sum) / float64(h.count)
	}
	return s
}
