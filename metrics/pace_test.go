package metrics

import (
	"testing"
	"time"
)

// A rate is that of the last ten seconds: right from the first marks on, after a change of speed, after a rest, and
// where little comes at a time. While nothing comes it falls.
func TestPace(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	var p Pace
	rate := func(now, want float64) {
		t.Helper()
		if got := p.Rate(at(now)); got < want*.999 || got > want*1.001 {
			t.Errorf("after %v s the rate is %v, want %v", now, got, want)
		}
	}
	rate(0, 0)
	p.Mark(at(0), 500) // what was there before
	rate(3, 0)
	for i := 1; i <= 2000; i++ { // 100 a second, told each 10 ms
		p.Mark(at(float64(i)/100), 500+uint64(i))
		if i == 1 {
			rate(.01, 100)
		}
	}
	rate(20, 100)
	if n := len(p.marks); n > int(paceSpan/paceStep)+2 {
		t.Errorf("%d marks are kept", n)
	}
	for i := 1; i <= 2000; i++ { // 10 times as fast
		p.Mark(at(20+float64(i)/100), 2500+10*uint64(i))
	}
	rate(40, 1000)
	rate(45, 5000./10) // half of the last ten seconds nothing came
	rate(60, 500/20.5)
	p.Mark(at(100), 22_500+600) // goes on: the rest is no part of it for long
	rate(100, 600./60)
	p.Mark(at(105), 22_500+3600)
	rate(105, (3600-550)/10.)
	p.Mark(at(111), 22_500+7200)
	rate(111, (7200-(600+3000./5))/10)
	var slow Pace
	for i := range uint64(4) { // a page in half a minute
		slow.Mark(at(float64(30*i)), 1000*i)
	}
	for now, want := range map[float64]float64{90: 1000. / 30, 105: 1000. / 45} {
		if got := slow.Rate(at(now)); got < want*.999 || got > want*1.001 {
			t.Errorf("slow, after %v s the rate is %v, want %v", now, got, want)
		}
	}
}

func TestLeft(t *testing.T) {
	for _, c := range []struct {
		left uint64
		rate float64
		want time.Duration
	}{
		{0, 10, 0}, {10, 0, 0}, {100, 10, 10 * time.Second}, {1, 4, 250 * time.Millisecond}, {1 << 63, 1e-9, maxLeft},
	} {
		if got := Left(c.left, c.rate); got != c.want {
			t.Errorf("%d left at %v: %v, want %v", c.left, c.rate, got, c.want)
		}
	}
}
