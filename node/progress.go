package node

import (
	"time"

	"peerdex/eventlog"
	"peerdex/metrics"
	"peerdex/snapshot"
)

// Phases of a transfer. Closed set.
const (
	PhasePreparing  = string(snapshot.Preparing) // the donor makes the snapshot
	PhaseVerifying  = string(snapshot.Verifying) // of a file: all of it is read, and nothing taken
	PhaseComparing  = "comparing"                // two trees
	PhaseLoading    = string(snapshot.Loading)   // entries come, are verified and put in
	PhaseInstalling = string(snapshot.Installing)
	PhaseApplying   = string(snapshot.Applying)
	PhaseDone       = "done" // in events only: what is over is shown nowhere
)

// Progress says how far a transfer is.
type Progress struct {
	Phase      string  `json:"phase,omitempty"` // one of the Phase constants
	Done       uint64  `json:"done"`            // entries that have come
	Total      uint64  `json:"total"`           // those and what is still to come, at most; 0: unknown
	Bytes      uint64  `json:"bytes"`           // that have come
	TotalBytes uint64  `json:"total_bytes"`     // 0: unknown
	Rate       float64 `json:"records_per_second"`
	ETASeconds float64 `json:"eta_seconds"` // until all entries have come; 0: unknown, or they have
}

// tellEvery is how often a transfer that takes long is told of, however little has come.
const tellEvery = 30 * time.Second

// progress is how far a transfer is, as a function of what was told of it and when. It is not safe for concurrent
// use.
type progress struct {
	phase             string
	records, left     uint64
	bytes, totalBytes uint64
	pace              metrics.Pace

	began  time.Time
	told   time.Time // zero: not yet
	phased string    // the phase told last
	tenths uint64    // of all entries, as told last
}

func newProgress(phase string, left uint64, now time.Time) progress {
	p := progress{phase: phase, left: left, began: now}
	p.pace.Mark(now, 0)
	return p
}

// at sets how much has come and how much is still to come at most.
func (p *progress) at(records, left, bytes uint64, now time.Time) {
	p.records, p.left, p.bytes = records, left, bytes
	p.pace.Mark(now, records)
}

// snapshot takes how far a snapshot is.
func (p *progress) snapshot(s snapshot.Progress, now time.Time) {
	if string(s.Phase) != p.phase {
		p.records = s.Records // what is loaded was counted once before if it was verified
	}
	p.enter(string(s.Phase), now)
	p.totalBytes = uint64(s.Of)
	p.at(s.Records, s.Total-min(s.Records, s.Total), uint64(s.Bytes), now)
}

// expect notes that so many entries more are to come.
func (p *progress) expect(entries uint64, now time.Time) {
	p.at(p.records, p.left+entries, p.bytes, now)
}

// pass notes that entries have come.
func (p *progress) pass(entries, bytes int, now time.Time) {
	p.at(p.records+uint64(entries), p.left-min(p.left, uint64(entries)), p.bytes+uint64(bytes), now)
}

// enter begins a phase. The rate is that of the phase.
func (p *progress) enter(phase string, now time.Time) {
	if p.phase != phase {
		p.phase, p.pace = phase, metrics.Pace{}
		p.pace.Mark(now, p.records)
	}
}

func (p *progress) ratio() float64 {
	if p.records+p.left == 0 {
		return 0
	}
	return float64(p.records) / float64(p.records+p.left)
}

func (p *progress) view(now time.Time) Progress {
	v := Progress{Phase: p.phase, Done: p.records, Total: p.records + p.left, Bytes: p.bytes, TotalBytes: p.totalBytes}
	v.Rate = p.pace.Rate(now)
	v.ETASeconds = metrics.Left(p.left, v.Rate).Seconds()
	return v
}

// due reports whether it is time to tell how far it is, which is taken for done: of more than much entries in each
// phase and at each tenth, of others if they take long.
func (p *progress) due(much uint64, now time.Time) bool {
	tenths := uint64(p.ratio() * 10)
	switch {
	case p.records+p.left > much && (p.phase != p.phased || tenths > p.tenths):
	case now.Sub(p.told) >= tellEvery && now.Sub(p.began) >= tellEvery:
	default:
		return false
	}
	p.told, p.phased, p.tenths = now, p.phase, tenths
	return true
}

// over is a transfer that has come to its end, with the rate of the whole of it.
func (p *progress) over(now time.Time) Progress {
	v := Progress{Phase: PhaseDone, Done: p.records, Total: p.records, Bytes: p.bytes, TotalBytes: p.bytes}
	if took := now.Sub(p.began).Seconds(); took > 0 {
		v.Rate = float64(p.records) / took
	}
	return v
}

// sum adds up transfers that go on side by side; the phase is that of the one with most to come.
func sum(all []Progress) (out Progress) {
	most := uint64(0)
	for _, p := range all {
		if left := p.Total - p.Done; out.Phase == "" || left > most {
			out.Phase, most = p.Phase, left
		}
		out.Done, out.Total, out.Bytes, out.TotalBytes = out.Done+p.Done, out.Total+p.Total, out.Bytes+p.Bytes, out.TotalBytes+p.TotalBytes
		out.Rate += p.Rate
	}
	out.ETASeconds = metrics.Left(out.Total-out.Done, out.Rate).Seconds()
	return out
}

// transferring is how far the pulls are that go on; n.mu is held.
func (n *Node) transferring(now time.Time) (p Progress, any bool) {
	var all []Progress
	for _, p := range n.pulls {
		all = append(all, p.progress.view(now))
	}
	return sum(all), len(all) > 0
}

// event is what tells of a transfer: from another device (in) or to one (out).
func (v Progress) event(direction, strategy string) eventlog.TransferProgress {
	return eventlog.TransferProgress{
		Direction: direction, Strategy: strategy, Phase: v.Phase, Records: int64(v.Done), Total: int64(v.Total),
		Bytes: int64(v.Bytes), TotalBytes: int64(v.TotalBytes), RecordsPerSecond: int64(v.Rate), ETAMS: int64(v.ETASeconds * 1000),
	}
}
