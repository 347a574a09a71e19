package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/internal/english"
	"peerdex/kv"
	"peerdex/metrics"
	"peerdex/protocol"
	"peerdex/snapshot"
	"peerdex/store"
)

// ExportSnapshot writes what this device holds of the library to a new file, and returns when it is durable.
func (n *Node) ExportSnapshot(ctx context.Context, path string) (SnapshotView, error) {
	if err := absolute(path); err != nil {
		return SnapshotView{}, err
	}
	v, err := n.exportSnapshot(ctx, path)
	if err != nil {
		reason := snapshotReason(err)
		err = n.exportProblem(path, err)
		n.events.Add(eventlog.SnapshotExportFailed{File: path, ReasonCode: reason, Message: whyOf(err)})
	}
	return v, err
}

func (n *Node) exportSnapshot(ctx context.Context, path string) (SnapshotView, error) {
	began := time.Now()
	pin, err := n.store.Pin(n.holds)
	if err != nil {
		return SnapshotView{}, err
	}
	defer pin.Close()
	missing, err := n.missing(headsOf(pin.Heads), nil)
	if err != nil {
		return SnapshotView{}, err
	}
	stamp, err := n.clock.Now()
	if err != nil {
		return SnapshotView{}, err
	}
	if err := snapshot.Room(n.store, filepath.Dir(path), pin.Heads); err != nil {
		return SnapshotView{}, err
	}
	release, err := n.reserve(protocol.UseSnapshot, snapshot.MakeMemory)
	if err != nil {
		return SnapshotView{}, err
	}
	defer release()
	defer n.busyWith(path + " is being exported")()
	n.events.Add(eventlog.SnapshotExportStarted{File: path})
	m, err := snapshot.Export(ctx, path, pin, n.author(), stamp)
	if err != nil {
		return SnapshotView{}, err
	}
	v := viewOf(path, m, began)
	v.Missing = missing
	n.events.Add(eventlog.SnapshotExportCompleted{File: path, Feeds: v.Feeds, Bytes: v.Bytes}, eventlog.Records(int(v.Records)), eventlog.Took(time.Since(began)))
	return v, nil
}

// headsOf sorts heads by their feeds.
func headsOf(heads []feed.Head) map[feed.ID]feed.Head {
	out := map[feed.ID]feed.Head{}
	for _, h := range heads {
		out[h.Feed] = h
	}
	return out
}

// missing returns, by device and location, the feeds of others that are followed and of which the newest is not held,
// nor in a file that was imported, if there is one.
func (n *Node) missing(held map[feed.ID]feed.Head, file *snapshot.Manifest) ([]MissingFeed, error) {
	locations, err := n.catalog.Locations()
	if err != nil {
		return nil, err
	}
	names, offered := map[feed.ID]string{}, map[feed.ID]feed.Head{}
	for _, l := range locations {
		names[l.Feed()] = l.Name
	}
	if file != nil {
		for _, f := range file.Feeds {
			offered[f.Head.Feed] = f.Head
		}
	}
	best := map[feed.ID]feed.Head{}
	for _, st := range n.store.States() {
		best[st.Feed] = st.Best
	}
	out := []MissingFeed{}
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range n.follow {
		b, at := best[id], held[id]
		if id.Device == n.self || !b.IsGenesis() && at.Compare(b) >= 0 || b.IsGenesis() && n.maybeEmpty(id, file) {
			continue
		}
		f := MissingFeed{
			Device: idText(id.Device), DeviceName: n.nameOf(id.Device), Name: names[id], Fetch: string(n.fetchOf(id)),
			Behind: !at.IsGenesis(), Lacks: min(b.Seq-min(b.Seq, at.Seq), b.Count),
		}
		if in, ok := offered[id]; ok {
			f.InFile = in.Compare(b) >= 0
		}
		if !id.IsDevice() {
			f.Location = id.Location.String()
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b MissingFeed) int {
		return cmp.Or(cmp.Compare(a.DeviceName, b.DeviceName), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Location, b.Location))
	})
	return out, nil
}

// maybeEmpty reports whether a feed that nobody told a head of here is not to be called missing; n.mu is held. Of a
// location an import tells even so, unless its owner made the file: whoever else made it need not have kept it.
func (n *Node) maybeEmpty(id feed.ID, file *snapshot.Manifest) bool {
	if id.IsDevice() { // of itself every device says something
		return false
	}
	_, current := n.freshness(id)
	return file == nil || file.Donor == id.Device || current
}

// ImportSnapshot takes in from a file what this device lacks, once all of the file was verified: device feeds, then
// the location feeds all at once. Unless it returns nil, or Message says otherwise, nothing of the file was taken.
func (n *Node) ImportSnapshot(ctx context.Context, path string, progress func(Progress)) (SnapshotView, error) {
	if err := absolute(path); err != nil {
		return SnapshotView{}, err
	}
	if err := n.awaitAsked(ctx); err != nil {
		return SnapshotView{}, err
	}
	v, err := n.importSnapshot(ctx, path, progress)
	if err != nil && ctx.Err() == nil {
		reason := snapshotReason(err)
		err = n.importProblem(path, v.Feeds, err)
		n.events.Add(eventlog.SnapshotImportFailed{File: path, ReasonCode: reason, Message: whyOf(err)})
	}
	return v, err
}

func (n *Node) importSnapshot(ctx context.Context, path string, progress func(Progress)) (SnapshotView, error) {
	began := time.Now()
	f, err := snapshot.OpenFile(path)
	if err != nil {
		return SnapshotView{}, err
	}
	defer f.Close()
	release, err := n.reserve(protocol.UseSnapshot, snapshot.TakeMemory)
	if err != nil {
		return SnapshotView{}, err
	}
	defer release()
	defer n.busyWith(path + " is being imported")()
	taker, p := n.taker(), newProgress(PhaseVerifying, 0, began)
	taker.Progress = func(s snapshot.Progress) {
		p.snapshot(s, time.Now())
		progress(p.view(time.Now()))
	}
	v := viewOf(path, f.Manifest, began)
	v.Records, v.Feeds = 0, 0
	count := func(h feed.Head) {
		v.Records += h.Count
		v.Feeds++
	}
	taker.Within = func(tx kv.Tx, loaded []store.Loaded) error {
		for _, l := range loaded {
			count(l.Head)
		}
		return n.events.AddTx(tx, eventlog.SnapshotImportCompleted{File: path, Feeds: v.Feeds}, eventlog.Records(int(v.Records)), eventlog.Took(time.Since(began)))
	}
	taker.Applied = func(tx kv.Tx, _ bool, res *store.Result) error { return n.committing(tx, res.State.Feed, res, nil) }
	taker.Committed = func(res store.Result) { n.countConflicts(res.Conflicts) }
	taker.Wants = func(id feed.ID) bool { return !n.lazy(id) } // who will be a member is not known yet
	if err := taker.Verify(ctx, f.Manifest, f); err != nil {
		return SnapshotView{}, err
	}
	take := func(wants func(feed.ID) bool) (snapshot.Taken, error) {
		taker.Wants = func(id feed.ID) bool { return n.accepts(id) && wants(id) }
		out, err := taker.Take(ctx, f.Manifest, f)
		for _, h := range out.Applied {
			count(h)
		}
		if errors.Is(err, store.ErrHeld) {
			err = nil
		}
		return out, errors.Join(err, n.refresh())
	}
	for more := true; more; { // who is a member is in device feeds: each may make others wanted, and then locations
		out, err := take(feed.ID.IsDevice)
		if err != nil {
			return v, err
		}
		more = len(out.Applied) > 0
	}
	out, err := take(func(id feed.ID) bool { return !id.IsDevice() && !n.lazy(id) })
	if err != nil {
		return v, err
	}
	held := map[feed.ID]feed.Head{}
	for _, st := range n.store.States() {
		if st.Settled != nil {
			held[st.Feed] = *st.Settled
		}
	}
	v.Held = -v.Feeds
	for _, f := range f.Manifest.Feeds {
		if id := f.Head.Feed; id.Device == n.self || held[id].Compare(f.Head) >= 0 {
			v.Held++
		}
	}
	if v.Missing, err = n.missing(held, &f.Manifest); err != nil {
		return v, err
	}
	if len(out.Loaded) == 0 { // else it was told in the transaction that loaded
		n.events.Add(eventlog.SnapshotImportCompleted{File: path, Feeds: v.Feeds}, eventlog.Records(int(v.Records)), eventlog.Took(time.Since(began)))
	}
	n.wake()
	v.Took = metrics.Seconds(time.Since(began))
	return v, n.store.Sync()
}

func viewOf(path string, m snapshot.Manifest, began time.Time) SnapshotView {
	records, _, _, size := m.Totals()
	return SnapshotView{Missing: []MissingFeed{}, File: path, Feeds: len(m.Feeds), Records: records, Bytes: size, Made: m.Stamp.Time(), Donor: idText(m.Donor), Took: metrics.Seconds(time.Since(began))}
}

func absolute(path string) error {
	if !filepath.IsAbs(path) {
		return &Problem{Code: CodeUsage, Message: fmt.Sprintf("%q is not a full path", path)}
	}
	return nil
}

// whyOf is the cause of a problem, or all of another error.
func whyOf(err error) string {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p.Cause
	}
	return err.Error()
}

// snapshotReason names why a snapshot was not taken, or not made.
func snapshotReason(err error) string {
	switch {
	case errors.Is(err, snapshot.ErrLibrary):
		return "library"
	case errors.Is(err, snapshot.ErrNewer):
		return "schema"
	case errors.Is(err, snapshot.ErrCorrupt):
		return "damaged"
	case errors.Is(err, feed.ErrSignature):
		return "signature"
	case errors.Is(err, fs.ErrNotExist):
		return "not_found"
	case errors.Is(err, fs.ErrExist):
		return "exists"
	}
	return reasonCode(err)
}

// busyWith notes what is being done with a file until the function it returns is called.
func (n *Node) busyWith(what string) (done func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.files[what]++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.files[what]--; n.files[what] == 0 {
			delete(n.files, what)
		}
	}
}

// underWay says which snapshots are on their way, for whom there is no room beside them.
func (n *Node) underWay() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := slices.Collect(maps.Keys(n.files))
	for _, p := range n.pulls {
		if p.snapshot != nil {
			out = append(out, "a snapshot is being fetched from "+n.nameOf(p.donor))
		}
	}
	for k := range n.handing {
		if k.strategy == StrategySnapshot {
			out = append(out, "a snapshot is being handed out to "+n.nameOf(k.to))
		}
	}
	slices.Sort(out)
	return cmp.Or(strings.Join(out, "; "), "other snapshots were on their way") + "; there is memory for no more at once"
}

func (n *Node) exportProblem(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrExist):
		return &Problem{Code: CodeConflict, Message: "cannot export to " + path, Cause: "there is a file of that name", Try: "name another file"}
	case errors.Is(err, fs.ErrNotExist):
		return &Problem{Code: CodeFolderMissing, Message: "cannot export to " + path, Cause: err.Error(), Try: "name a file in a folder that exists"}
	case errors.Is(err, protocol.CodeBusy):
		return &Problem{Code: CodeConflict, Message: "cannot export to " + path, Cause: n.underWay(), Try: "wait until that is through, then export again"}
	case errors.Is(err, store.ErrNoSpace), errors.Is(err, syscall.ENOSPC):
		return &Problem{Code: CodeConflict, Message: "cannot export to " + path, Cause: err.Error(), Try: "make room there, or name a file on another disk"}
	case errors.Is(err, fs.ErrPermission):
		return &Problem{Code: CodeNotAllowed, Message: "cannot export to " + path, Cause: err.Error(), Try: "name a file where you may write"}
	case errors.Is(err, snapshot.ErrTooLarge):
		return &Problem{Code: CodeConflict, Message: "cannot export to " + path, Cause: err.Error(), Try: "let the other device fetch from this one"}
	}
	return err
}

// importProblem says why a snapshot was not imported, but for so many device feeds.
func (n *Node) importProblem(path string, feeds int, err error) error {
	p := &Problem{Code: CodeIntegrity, Message: "nothing was imported from " + path, Cause: err.Error()}
	if feeds > 0 {
		p.Message = fmt.Sprintf("no folder was imported from %s, only what %s of themselves", path, english.Plural(feeds, "device says", "devices say"))
	}
	switch {
	case errors.Is(err, snapshot.ErrLibrary):
		p.Code, p.Try = CodeOtherLibrary, "join the library first: peer join, with what `peer invite` prints on one of its devices"
	case errors.Is(err, snapshot.ErrNewer):
		p.Code, p.Try = CodeNewerSchema, "run the newer peer"
	case errors.Is(err, snapshot.ErrCorrupt), errors.Is(err, store.ErrMismatch), errors.Is(err, feed.ErrSignature):
		p.Try = "export it again, and compare the sizes after copying"
	case errors.Is(err, protocol.CodeBusy):
		p.Code, p.Cause, p.Try = CodeConflict, n.underWay(), "wait until that is through, then import again"
	case errors.Is(err, store.ErrLoading):
		p.Code, p.Try = CodeConflict, "wait until that is through, then import again"
		p.Cause = "the store is being loaded already, with another snapshot or with the first scan of a large folder"
	case errors.Is(err, store.ErrNoSpace):
		p.Code, p.Try = CodeConflict, "make room where the home folder is"
	case errors.Is(err, fs.ErrNotExist):
		p.Code, p.Try = CodeNotFound, "ls "+filepath.Dir(path)
	case errors.Is(err, fs.ErrPermission):
		p.Code, p.Try = CodeNotAllowed, "make the file readable for this user"
	default:
		return err
	}
	return p
}
