package node

import (
	"time"

	"peerdex/eventlog"
	"peerdex/kv"
	"peerdex/snapshot"
	"peerdex/store"
)

// Metrics, events and progress of snapshots.

func (p *pulling) about() []eventlog.Option {
	return []eventlog.Option{eventlog.Session(p.id), eventlog.Peer(idText(p.donor))}
}

func (n *Node) noteSnapshotChosen(p *pulling) {
	n.metrics.StrategySelected(StrategySnapshot)
	n.metrics.SessionStarted(p.kind)
	n.mu.Lock()
	lacks := p.progress.left
	n.notePull(p, time.Now())
	n.mu.Unlock()
	n.events.Add(eventlog.StrategySelected{Feed: StrategySnapshot, Strategy: StrategySnapshot, EntryCount: int64(lacks), Why: p.snapshot.why}, p.about()...)
	for _, id := range p.feeds {
		n.events.Add(eventlog.BackfillSessionStarted{Feed: id.String(), Candidates: p.candidates, Chosen: p.donor.Short(), Strategy: StrategySnapshot}, p.about()...)
	}
}

func (n *Node) noteSnapshotProgress(p *pulling, now snapshot.Progress) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.metrics.ChangesReceived(p.donor.Short(), p.kind, int(now.Records-p.progress.records))
	p.progress.snapshot(now, time.Now())
	n.notePull(p, time.Now())
}

func (n *Node) noteChunks(chunks int, kept bool) {
	source := "peer"
	if kept {
		source = "kept"
	}
	n.metrics.Chunks(source, chunks)
}

// noteLoaded logs what a snapshot brought, in the transaction that shows it.
func (n *Node) noteLoaded(tx kv.Tx, p *pulling, loaded []store.Loaded) error {
	for _, l := range loaded {
		records := int64(l.Head.Count)
		d := eventlog.BackfillSessionCompleted{Feed: l.Head.Feed.String(), Records: records, PerModel: map[string]int64{"entry": records}}
		options := append(p.about(), eventlog.Records(int(records)), eventlog.Took(time.Since(p.started)))
		if err := n.events.AddTx(tx, d, options...); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) noteSnapshotEnded(p *pulling, out snapshot.Taken, err error, took time.Duration) {
	result := "completed"
	switch {
	case err != nil && snapshot.Broke(err):
		result = "aborted"
	case err != nil:
		result = "failed"
	}
	n.metrics.SessionEnded(p.kind, result, took)
	now := time.Now()
	n.mu.Lock()
	dropped := p.progress.records // of what came, whatever is not in loaded feeds
	n.mu.Unlock()
	for _, l := range out.Loaded {
		dropped -= min(dropped, l.Head.Count)
		st, _ := n.store.State(l.Head.Feed)
		res := store.Result{
			Applied: int(l.Head.Count) - l.Rejected, Rejected: l.Rejected, Rejects: l.Rejects, Counts: l.Counts, State: st,
			Ops: map[store.Op]int{},
		}
		for op, count := range map[string]uint64{"insert": l.Counts.Files + l.Counts.Dirs, "delete": l.Counts.Tombstones} {
			if count > 0 {
				res.Ops[store.Op{Model: "entry", Op: op}] = int(count)
			}
		}
		n.processed(p.donor, l.Head.Feed, res, p.kind, took, now, eventlog.ID(p.id))
		n.propagated(p.kind, l.Head.Stamp, l.Head.Feed.Device, now)
		n.noteConverged(l.Head.Feed, l.Head)
	}
	n.metrics.ChangesProcessed(p.donor.Short(), "dropped", int(dropped))
	if err == nil {
		return
	}
	for _, id := range p.feeds {
		n.events.Add(eventlog.BackfillSessionFailed{Feed: id.String(), ReasonCode: snapshotReason(err), Message: err.Error(), Resumable: true}, p.about()...)
	}
}
