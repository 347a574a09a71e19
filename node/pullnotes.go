package node

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"peerdex/backfill"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/kv"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/snapshot"
	"peerdex/store"
)

// feedPull is one feed of a pull session on its way. Node.mu guards it.
type feedPull struct {
	feed    feed.ID
	kind    string // backfill, catch_up or reconcile
	started time.Time
	models  map[string]int64
	records int64
	pages   int64
	bytes   int64
	removed int64
	leaves  int64 // of a tree diff: those that differed
}

func kindOf(p backfill.Pull) string {
	switch {
	case p.Route.Road == feed.RoadDiff:
		return "reconcile"
	case p.First:
		return "backfill"
	}
	return "catch_up"
}

// pullNotes makes metrics, events and progress of what happens in pulls.
type pullNotes struct{ *Node }

// with calls fn with the session and feed that p is about, under the lock.
func (n pullNotes) with(p backfill.Pull, fn func(*pulling, *feedPull)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.pulls[p.Donor]; s != nil && s.id == p.Session {
		fn(s, &s.now)
	}
}

func (n pullNotes) tally(t eventlog.Type, p backfill.Pull, reason string) eventlog.Tally {
	return eventlog.Tally{Type: t, Peer: idText(p.Donor), Session: eventlog.ID(p.Session), Reason: reason}
}

func (n pullNotes) about(p backfill.Pull) []eventlog.Option {
	return []eventlog.Option{eventlog.Session(p.Session), eventlog.Peer(idText(p.Donor))}
}

func (n pullNotes) Asked(p backfill.Pull, request string) {
	n.events.AddBatch(n.tally(eventlog.BackfillRequestSent{}.Type(), p, request))
}

func (n pullNotes) Chosen(p backfill.Pull) {
	kind := kindOf(p)
	strategy, why, lacks := n.strategyOf(p)
	var candidates []eventlog.Candidate
	n.with(p, func(s *pulling, f *feedPull) {
		*f = feedPull{feed: p.Feed, kind: kind, started: time.Now(), models: map[string]int64{}}
		s.kind, s.strategy, candidates = kind, strategy, s.candidates
		phase := PhaseLoading
		if p.Route.Road == feed.RoadDiff {
			phase = PhaseComparing
		}
		s.reach(p.Feed, lacks, phase, time.Now())
		n.notePull(s, time.Now())
	})
	n.metrics.StrategySelected(strategy)
	n.metrics.SessionStarted(kind)
	id := p.Feed.String()
	var d eventlog.Detail
	switch kind {
	case "backfill":
		d = eventlog.BackfillSessionStarted{Feed: id, Candidates: candidates, Chosen: p.Donor.Short(), Strategy: strategy}
	case "reconcile":
		d = eventlog.ReconcileSessionStarted{Feed: id, Method: "tree_diff", Reason: p.Route.Reason}
	default:
		d = eventlog.CatchUpSessionStarted{Feed: id, Behind: int64(p.Lacks)}
	}
	begin := []eventlog.Detail{d, eventlog.StrategySelected{Feed: id, Strategy: strategy, EntryCount: int64(p.Lacks), Why: why}}
	if p.Route.Reason == "gc" {
		age := time.Duration(0)
		if st, _ := n.store.State(p.Feed); st.Settled != nil {
			age = time.Since(st.Settled.Stamp.Time())
		}
		begin = append(begin, eventlog.WatermarkTooOld{Feed: id, WatermarkAgeDays: int64(age.Hours() / 24), Action: "tree_diff"})
	}
	n.noteBegun(begin, n.about(p))
}

// noteBegun logs the begin of a pull. Not through the queue: the end is written in the transaction that settles, and
// must not come first.
func (n *Node) noteBegun(begin []eventlog.Detail, about []eventlog.Option) {
	err := n.store.Update(func(tx kv.Tx) error {
		for _, d := range begin {
			if err := n.events.AddTx(tx, d, about...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		n.log.Warn("begin of a pull not logged", "err", err)
		n.metrics.EventDropped("store_error", len(begin))
	}
}

// strategyOf names the way in which a pull brings what is lacking, says why that, and by which road, and how much
// it is at most.
func (n pullNotes) strategyOf(p backfill.Pull) (name, why string, lacks uint64) {
	st, _ := n.store.State(p.Feed)
	lacks = lackingOf(st, p.Head)
	name, why = strategy(lacks, n.cfg.Thresholds, false)
	why = fmt.Sprintf("%s; %s: %s", why, p.Route.Road, p.Route.Reason)
	n.with(p, func(s *pulling, _ *feedPull) { why += s.instead })
	return name, why, lacks
}

// Compared knows better what is lacking than the heads did.
func (n pullNotes) Compared(p backfill.Pull, lack, _, leaves int) {
	n.with(p, func(s *pulling, f *feedPull) {
		f.leaves = int64(leaves)
		s.reach(p.Feed, uint64(lack), PhaseLoading, time.Now())
		n.notePull(s, time.Now())
	})
}

func (n pullNotes) Received(p backfill.Pull, entries, bytes int, d time.Duration) {
	n.metrics.ChangesReceived(p.Donor.Short(), kindOf(p), entries)
	n.metrics.PageFetched(d)
	n.with(p, func(s *pulling, f *feedPull) {
		f.pages++
		f.bytes += int64(bytes)
		s.come(entries, bytes, time.Now())
		n.notePull(s, time.Now())
	})
}

// notePull tells how far a pull is, where that is due; n.mu is held.
func (n *Node) notePull(p *pulling, now time.Time) {
	n.metrics.Progress(p.donor.Short(), p.progress.ratio())
	if p.progress.due(n.cfg.Thresholds.Bulk, now) {
		n.events.Add(p.progress.view(now).event("in", p.strategy), p.about()...)
	}
}

// notePullOver tells of the end of a pull that was told of. Of one that failed nothing is left to tell but that.
func (n *Node) notePullOver(p *pulling, err error, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.metrics.Progress(p.donor.Short(), 0)
		return
	}
	n.metrics.Progress(p.donor.Short(), 1)
	if !p.progress.told.IsZero() {
		n.events.Add(p.progress.over(now).event("in", p.strategy), p.about()...)
	}
}

func (n pullNotes) Committing(tx kv.Tx, p backfill.Pull, settling bool, res *store.Result) error {
	if err := n.committing(tx, p.Feed, res, n.about(p)); err != nil {
		return err
	}
	if !settling {
		return nil
	}
	if st, _ := n.store.State(p.Feed); p.Head.Compare(st.Floor) < 0 { // rule 17: nothing else may settle below
		gone := eventlog.FeedOrphaned{Feed: p.Feed.String(), FloorSeq: st.Floor.Seq, SettledSeq: p.Head.Seq, Reason: orphanReason}
		if err := n.events.AddTx(tx, gone, n.about(p)...); err != nil {
			return err
		}
	}
	var f feedPull
	n.with(p, func(_ *pulling, now *feedPull) { f = *now })
	fresh := int64(res.Applied + res.Superseded + res.Rejected)
	models := map[string]int64{}
	for m, c := range f.models {
		models[m] = c
	}
	for op, c := range res.Ops {
		models[op.Model] += int64(c)
	}
	id := p.Feed.String()
	var d eventlog.Detail
	switch kindOf(p) {
	case "backfill":
		d = eventlog.BackfillSessionCompleted{Feed: id, Records: f.records + fresh, PerModel: models, Pages: f.pages, Bytes: f.bytes}
	case "reconcile":
		d = eventlog.ReconcileSessionCompleted{Feed: id, Method: "tree_diff", Ranges: f.leaves, FoundMissingIn: f.records + fresh, FoundMissingOut: f.removed + int64(res.Removed)}
	default:
		d = eventlog.CatchUpSessionCompleted{Feed: id, Behind: int64(p.Lacks), Applied: f.records + fresh}
	}
	options := append(n.about(p), eventlog.Records(int(f.records+fresh)), eventlog.Took(time.Since(f.started)))
	return n.events.AddTx(tx, d, options...)
}

func (n pullNotes) Applied(p backfill.Pull, res store.Result, d time.Duration) {
	now, source := time.Now(), kindOf(p)
	n.processed(p.Donor, p.Feed, res, source, d, now, eventlog.ID(p.Session))
	n.with(p, func(_ *pulling, f *feedPull) {
		f.records += int64(res.Applied + res.Superseded + res.Rejected)
		f.removed += int64(res.Removed)
		for op, c := range res.Ops {
			f.models[op.Model] += int64(c)
		}
	})
	if res.State.Settled != nil {
		n.propagated(source, res.State.Settled.Stamp, p.Feed.Device, now)
		n.noteConverged(p.Feed, *res.State.Settled)
	}
}

func (n pullNotes) Absorbed(p backfill.Pull, entries int, to feed.Head) {
	n.metrics.ChangesProcessed(p.Donor.Short(), "applied", entries)
	n.noteRolledBack(p.Donor, p.Session, p.Feed, entries, p.Head, to)
}

func (n pullNotes) Dropped(p backfill.Pull, entries int) {
	n.metrics.ChangesProcessed(p.Donor.Short(), "dropped", entries)
}

func (n pullNotes) Ended(p backfill.Pull, err error) {
	kind := kindOf(p)
	var f feedPull
	n.with(p, func(_ *pulling, now *feedPull) { f = *now })
	result := "completed"
	if err != nil {
		result = "failed"
		if code := protocol.CodeOf(err); code == protocol.CodeShutdown {
			result = "aborted"
		}
	}
	n.metrics.SessionEnded(kind, result, time.Since(f.started))
	if err == nil {
		return
	}
	id, code := p.Feed.String(), reasonCode(err)
	var d eventlog.Detail
	switch kind {
	case "backfill":
		d = eventlog.BackfillSessionFailed{Feed: id, ReasonCode: code, Message: err.Error(), AtPage: f.pages, Resumable: true}
	case "reconcile":
		d = eventlog.ReconcileSessionFailed{Feed: id, Method: "tree_diff", ReasonCode: code, Message: err.Error()}
	default:
		d = eventlog.CatchUpSessionFailed{Feed: id, ReasonCode: code, Message: err.Error()}
	}
	n.events.Add(d, n.about(p)...)
}

// reasonCode names why a pull ended early, from a closed list.
func reasonCode(err error) string {
	switch {
	case errors.Is(err, store.ErrMismatch):
		return "delta_mismatch"
	case errors.Is(err, store.ErrStale):
		return "moved_on"
	case diskFull(err):
		return "disk_full"
	}
	return protocol.CodeOf(err).Label()
}

// ownFault reports whether it is this device's own store or disk that ended a pull.
func ownFault(err error) bool {
	if err == nil || errors.Is(err, store.ErrMismatch) || errors.Is(err, snapshot.ErrNewer) {
		return false
	}
	var fault *protocol.Error
	return diskFull(err) || !errors.As(err, &fault) && protocol.CodeOf(err) == protocol.CodeInternal
}

// diskFull reports whether err says that this device's disk has no room.
func diskFull(err error) bool {
	return errors.Is(err, store.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// noteApplyFailed says that this device's own store did not take what a peer served.
func (n *Node) noteApplyFailed(from record.DeviceID, err error) {
	if diskFull(err) || errors.Is(err, kv.ErrClosed) {
		n.noteStoreError("apply", err)
		return
	}
	n.events.Add(eventlog.ApplyFailed{Op: "apply", Code: reasonCode(err), Message: err.Error()}, eventlog.Peer(idText(from)))
	n.metrics.Error("apply", from.Short(), err.Error(), time.Now())
}

// noteStoreError says that the disk failed, or is full.
func (n *Node) noteStoreError(op string, err error) {
	n.events.Add(eventlog.StoreError{Op: op, Code: reasonCode(err), Message: err.Error()})
	n.metrics.Error("database", "", err.Error(), time.Now())
}

// Serving notes that another device asked for entries.
func (n pullNotes) Serving(session protocol.SessionID, to record.DeviceID, entries uint64) {
	n.hands(handKey{to, StrategyPages}, session, func(p *progress, now time.Time) { p.expect(entries, now) })
}

func (n pullNotes) Served(session protocol.SessionID, to record.DeviceID, id feed.ID, request string, entries, bytes int) {
	t := eventlog.Tally{Type: eventlog.BackfillRequestReceived{}.Type(), Peer: idText(to), Session: eventlog.ID(session), Reason: request}
	if request == "delta" || request == "fetch" {
		n.hands(handKey{to, StrategyPages}, session, func(p *progress, now time.Time) { p.pass(entries, bytes, now) })
	}
	if entries > 0 || request == "delta" || request == "fetch" {
		t.Type = eventlog.BackfillResponseSent{}.Type()
		t.Bytes = bytes
		t.Models = map[string]int{modelOf(id): entries}
	}
	n.events.AddBatch(t)
}

// modelOf names what a feed mostly holds, for counting what is sent without decoding it.
func modelOf(id feed.ID) string {
	if id.IsDevice() {
		return "register"
	}
	return "entry"
}

// processed counts what became of entries that were applied, whatever road they came by.
func (n *Node) processed(from record.DeviceID, id feed.ID, res store.Result, source string, d time.Duration, now time.Time, session eventlog.ID) {
	who := from.Short()
	outcomes := map[string]int{}
	for outcome, count := range map[string]int{
		"applied": res.Applied, "duplicate": res.Duplicate, "superseded": res.Superseded, "rejected": res.Rejected,
	} {
		if count > 0 {
			n.metrics.ChangesProcessed(who, outcome, count)
			outcomes[outcome] = count
		}
	}
	models := map[string]int{}
	for op, count := range res.Ops {
		n.metrics.RecordsSynced(op.Model, op.Op, count, now)
		models[op.Model] += count
	}
	n.metrics.Applied(d)
	n.countConflicts(res.Conflicts)
	if len(outcomes) > 0 || len(models) > 0 {
		n.events.AddBatch(eventlog.Tally{
			Type: eventlog.BatchIngestion{}.Type(), Peer: idText(from), Session: session, Reason: source,
			Models: models, Outcomes: outcomes, Took: d,
		})
	}
	if res.Rejected > 0 {
		n.noteRejects(from, id, res)
	}
}

// noteRejects names records that this version does not accept: they are kept and relayed, not shown.
func (n *Node) noteRejects(from record.DeviceID, id feed.ID, res store.Result) {
	byReason := map[string]*eventlog.ChangeRejected{}
	for _, r := range res.Rejects {
		e := byReason[r.Reason]
		if e == nil {
			e = &eventlog.ChangeRejected{Feed: id.String(), Reason: r.Reason, By: n.self.Short()}
			byReason[r.Reason] = e
		}
		e.Count++
		e.Changes = append(e.Changes, feedPlace(id, r.Seq))
	}
	left := res.Rejected - len(res.Rejects)
	for reason, e := range byReason {
		e.Count += int64(left) // beyond the first few the reasons are not kept apart
		n.metrics.ChangesRejected(reason, int(e.Count))
		left = 0
		n.events.Add(*e, eventlog.Peer(idText(from)))
	}
}

// committing logs, in the transaction that did it, registers that were written again or put aside (rules 13, 14),
// and conflicts.
func (n *Node) committing(tx kv.Tx, id feed.ID, res *store.Result, about []eventlog.Option) error {
	var out []eventlog.Detail
	if res.Rescued > 0 {
		out = append(out, eventlog.FeedRescued{Feed: id.String(), Registers: int64(res.Rescued)})
	}
	if res.Aside > 0 {
		out = append(out, eventlog.EntriesSetAside{Feed: id.String(), Entries: int64(res.Aside)})
	}
	for _, d := range append(out, conflictEvents(res.Conflicts)...) {
		if err := n.events.AddTx(tx, d, about...); err != nil {
			return err
		}
	}
	return nil
}
