package snapshot

import (
	"context"
	"fmt"
	"testing"
	"time"

	"peerdex/protocol"
	"peerdex/store"
)

func TestDecide(t *testing.T) {
	const from = 10_000
	now := time.Now()
	for _, c := range []struct {
		held, lacks uint64
		kept        bool
		failed      time.Time
		want        bool
	}{
		{0, from, false, time.Time{}, false},
		{0, from + 1, false, time.Time{}, true},
		{from - 1, from + 1, false, time.Time{}, true},
		{from, from + 1, false, time.Time{}, false},
		{from, from + 1, true, time.Time{}, true},
		{0, from, true, time.Time{}, false},
		{from, from + 1, true, now.Add(-Again + 1), false},
		{0, from + 1, false, now.Add(-Again + 1), false},
		{0, from + 1, false, now.Add(-Again), true},
	} {
		if yes, why := Decide(c.held, c.lacks, from, c.kept, Attempts{failed: c.failed}, now); yes != c.want || why == "" {
			t.Errorf("%d held, %d lacking: %v, %s", c.held, c.lacks, yes, why)
		}
	}
}

// What broke off goes on, twice in a row; then, or after any other failure, pages come, and no snapshot for a while.
func TestAttempts(t *testing.T) {
	now := time.Now()
	var a Attempts
	for i, c := range []struct {
		err   error
		pages bool
	}{
		{fmt.Errorf("read: %w", protocol.CodeLost), false},
		{context.Canceled, false},
		{protocol.CodeTimeout, true},
		{&protocol.Error{Code: protocol.CodeShutdown}, false},
		{context.Canceled, false},
		{nil, false},
		{&protocol.Error{Code: protocol.CodeLost}, false},
		{&RefusedError{protocol.CodeBusy}, true},
		{store.ErrMismatch, true},
	} {
		if pages := a.Ended(c.err, now); pages != c.pages {
			t.Errorf("end %d, %v: pages %v", i, c.err, pages)
		}
		if yes, _ := Decide(0, 2, 1, false, a, now); yes && c.pages {
			t.Errorf("after end %d, %v, a snapshot is asked for", i, c.err)
		}
	}
}
