package eventlog

import (
	"fmt"
	"time"

	"peerdex/hlc"
	"peerdex/kv"
)

// Retention is how long events are kept, by severity. Zero means the default.
type Retention struct {
	Debug   time.Duration // 0 means 3 days
	Info    time.Duration // 0 means 7 days
	Warning time.Duration // 0 means 90 days
	Error   time.Duration // 0 means 90 days
}

const day = 24 * time.Hour

func (r Retention) withDefaults() Retention {
	for _, d := range []struct {
		at       *time.Duration
		standard time.Duration
	}{{&r.Debug, 3 * day}, {&r.Info, 7 * day}, {&r.Warning, 90 * day}, {&r.Error, 90 * day}} {
		if *d.at == 0 {
			*d.at = d.standard
		}
	}
	return r
}

func (r Retention) of(rank int) time.Duration {
	return [...]time.Duration{r.Debug, r.Info, r.Warning, r.Error}[rank]
}

// pruneBatch is how many events one transaction removes.
const pruneBatch = 256

// prune removes what is too old, and then, the least severe first and of those the oldest, what is
// beyond the size; that goes a sixteenth further, so that it need not be done again at once.
func (l *Log) prune() error {
	byAge, bySize := pruned{}, pruned{}
	defer func() {
		l.report(byAge, "age")
		l.report(bySize, "size")
	}()
	now := l.cfg.Now()
	for rank := range Severities {
		cutoff := hlc.At(now.Add(-l.cfg.Keep.of(rank)))
		if err := l.pruneWhile(&byAge, func(m meta) (int, hlc.Stamp, bool) { return rank, cutoff, true }); err != nil {
			return fmt.Errorf("prune events by age: %w", err)
		}
	}
	over := false
	err := l.pruneWhile(&bySize, func(m meta) (int, hlc.Stamp, bool) {
		_, bytes := m.total()
		if limit := l.cfg.MaxBytes; bytes > limit || over && bytes > limit-limit/16 {
			over = true
			for rank, n := range m.count {
				if n > 0 {
					return rank, ^hlc.Stamp(0), true
				}
			}
		}
		return 0, 0, false
	})
	if err != nil {
		return fmt.Errorf("prune events by size: %w", err)
	}
	return l.refresh()
}

// pruned is what was removed.
type pruned struct {
	perSeverity [4]int64
	first, last uint64
}

func (l *Log) report(p pruned, reason string) {
	d := EventsPruned{Reason: reason, PerSeverity: map[string]int64{}, FirstSeq: p.first, LastSeq: p.last}
	for rank, n := range p.perSeverity {
		if n > 0 {
			d.PerSeverity[string(Severities[rank])] = n
			d.Count += n
		}
	}
	if d.Count > 0 {
		l.Add(d)
	}
}

// pruneWhile removes events one batch at a time. choose says, given what is stored, of which severity and
// before which stamp.
func (l *Log) pruneWhile(p *pruned, choose func(meta) (rank int, before hlc.Stamp, more bool)) error {
	for more := true; more; {
		removed := *p
		err := l.disk.Update(func(tx kv.Tx) error {
			removed, more = *p, false
			m, err := readMeta(tx)
			if err != nil {
				return err
			}
			rank, before, ok := choose(m)
			if !ok {
				return nil
			}
			oldest, err := oldestOf(tx, rank, before)
			if err != nil || len(oldest) == 0 {
				return err
			}
			for _, at := range oldest {
				e, err := l.read(tx, at)
				if err != nil {
					return err
				}
				if err := remove(tx, &m, e); err != nil {
					return err
				}
				removed.count(e)
				if _, _, still := choose(m); !still {
					break
				}
			}
			more = true
			return tx.Set(metaKey, m.encode())
		})
		if err != nil {
			return err
		}
		*p = removed
	}
	return nil
}

func (p *pruned) count(e Event) {
	p.perSeverity[e.Severity.rank()]++
	if p.first == 0 || e.Seq < p.first {
		p.first = e.Seq
	}
	p.last = max(p.last, e.Seq)
}

// oldestOf returns up to pruneBatch positions of a severity before a stamp.
func oldestOf(r kv.Reader, rank int, before hlc.Stamp) (out []Position, err error) {
	err = r.ScanKeys(severityPrefix(rank), nil, func(key []byte) error {
		at := positionOf(key)
		if at.HLC >= before || len(out) == pruneBatch {
			return kv.Stop
		}
		out = append(out, at)
		return nil
	})
	return out, err
}
