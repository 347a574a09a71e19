package node

import (
	"slices"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
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
}

// noteSnapshotOffered logs of which feeds a session is: those wanted that the donor offers. Of others it did not know
// when it made its snapshot: they come by pages.
func (n *Node) noteSnapshotOffered(p *pulling, m snapshot.Manifest) {
	offered := map[feed.ID]snapshot.Feed{}
	var begin []eventlog.Detail
	for _, f := range m.Feeds {
		if slices.Contains(p.feeds, f.Head.Feed) {
			offered[f.Head.Feed] = f
			begin = append(begin, p.begun(f.Head.Feed))
		}
	}
	n.mu.Lock()
	p.snapshot.offered = offered
	n.mu.Unlock()
	n.noteBegun(begin, p.about())
}

func (p *pulling) begun(id feed.ID) eventlog.Detail {
	return eventlog.BackfillSessionStarted{Feed: id.String(), Candidates: p.candidates, Chosen: p.donor.Short(), Strategy: StrategySnapshot}
}

func (n *Node) noteSnapshotProgress(p *pulling, now snapshot.Progress) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.metrics.ChangesReceived(p.donor.Short(), p.kind, int(now.Records-p.progress.records))
	if now.Phase == snapshot.Loading && now.Records > p.progress.records {
		p.snapshot.chunks++
	}
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
		records, f := int64(l.Head.Count), p.snapshot.offered[l.Head.Feed]
		d := eventlog.BackfillSessionCompleted{
			Feed: l.Head.Feed.String(), Records: records, PerModel: map[string]int64{"entry": records}, Chunks: int64(len(f.Chunks)),
		}
		for _, c := range f.Chunks {
			d.Bytes += int64(c.Size)
		}
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
	n.noteNotLoaded(p, out, err)
}

// noteNotLoaded logs the end of a session for each feed that it did not bring.
func (n *Node) noteNotLoaded(p *pulling, out snapshot.Taken, err error) {
	failed := eventlog.BackfillSessionFailed{Resumable: true, AtChunk: p.snapshot.chunks}
	switch {
	case err != nil:
		failed.ReasonCode, failed.Message = snapshotReason(err), err.Error()
	default:
		failed.ReasonCode, failed.Message = snapshotReason(store.ErrHeld), "it came by another way meanwhile, or is coming"
	}
	for _, id := range p.feeds {
		_, told := p.snapshot.offered[id]
		if loaded := slices.ContainsFunc(out.Loaded, func(l store.Loaded) bool { return l.Head.Feed == id }); loaded || p.snapshot.offered != nil && !told {
			continue
		}
		if !told {
			n.events.Add(p.begun(id), p.about()...)
		}
		failed.Feed = id.String()
		if st, _ := n.store.State(id); err == nil && st.Settled != nil {
			n.events.Add(eventlog.BackfillSessionCompleted{Feed: failed.Feed, PerModel: map[string]int64{}}, p.about()...)
		} else {
			n.events.Add(failed, p.about()...)
		}
	}
}
