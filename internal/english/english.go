// Package english writes numbers into sentences.
package english

import (
	"math"
	"strconv"

	"github.com/dustin/go-humanize"
)

type integer interface {
	~int | ~int64 | ~uint32 | ~uint64
}

// Count writes a number with separators of thousands.
func Count[N integer](n N) string {
	if n > 0 && uint64(n) > 1<<62 {
		return strconv.FormatUint(uint64(n), 10)
	}
	return humanize.Comma(int64(n))
}

// Tenths writes a number with one digit behind the point. There is no zero below zero.
func Tenths(x float64) string {
	if x = math.Round(x*10) / 10; x == 0 {
		x = 0
	}
	return strconv.FormatFloat(x, 'f', 1, 64)
}

// Plural writes a number and what there is of it: "1 entry", "12,006 entries".
func Plural[N integer](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(n) + " " + many
}
