package store

import (
	"time"

	"peerdex/hlc"
	"peerdex/record"
)

// Edition says which registers a scan of winners saw, so that what was made of it can be kept until they
// change. The zero Edition is never current.
type Edition struct {
	kinds []record.EntityKind
	sum   uint64
	at    time.Time // by the wall clock, which may step back
	until time.Time // when a register that lies in the future will be believed; zero: there is none
}

// Winners calls fn with the winner of each field of each entity of some kinds, kind by kind in order of
// their keys. What it saw is told by the Edition it returns.
func (s *Store) Winners(fn func(record.Register) error, kinds ...record.EntityKind) (Edition, error) {
	now := s.cfg.Now().Round(0)
	e := Edition{kinds: kinds, sum: s.changesOf(kinds), at: now} // before the first is read
	for _, kind := range kinds {
		err := s.registers([]byte{byte(kind)}, func(same []record.Register) error {
			for _, r := range same {
				if at := believed(r.Stamp); at.After(now) && (e.until.IsZero() || at.Before(e.until)) {
					e.until = at
				}
			}
			won, ok := record.Merge(now, same...)
			if !ok {
				return nil
			}
			return fn(won)
		})
		if err != nil {
			return Edition{}, err
		}
	}
	return e, nil
}

// believed returns the moment from which record.Merge lets a stamp win.
func believed(s hlc.Stamp) time.Time {
	at := s.Time()
	if s.Counter() > 0 {
		at = at.Add(time.Millisecond)
	}
	return at.Add(-hlc.MaxDrift)
}

// Current reports whether Winners would see today what it saw when it returned e.
func (s *Store) Current(e Edition) bool {
	now := s.cfg.Now().Round(0)
	return len(e.kinds) > 0 && e.sum == s.changesOf(e.kinds) && !now.Before(e.at) && (e.until.IsZero() || now.Before(e.until))
}

// anyKind stands for every kind where a whole device feed went.
const anyKind record.EntityKind = 0

// changesOf counts the transactions that changed registers of some kinds.
func (s *Store) changesOf(kinds []record.EntityKind) (sum uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum = s.edited[anyKind]
	for _, k := range kinds {
		sum += s.edited[k]
	}
	return sum
}
