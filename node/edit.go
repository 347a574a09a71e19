package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"peerdex/catalog"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/internal/english"
	"peerdex/record"
	"peerdex/store"
)

// maxTargets bounds what one edit is about: each takes a record in this device's feed for good.
const maxTargets = 200_000

// reachWait is how long an edit waits until connected devices have it: several times what a push takes. A
// device that has paused sync on its side is waited for in vain.
const reachWait = 500 * time.Millisecond

// mayEdit blocks until shared edits may be made, or says why they may not. A device whose clock is far off
// must not make any: its edits would win over later ones of others, or be believed by nobody.
func (n *Node) mayEdit(ctx context.Context) error {
	if err := n.awaitAsked(ctx); err != nil {
		return err
	}
	if n.store.Frozen() {
		return spaceProblem(store.ErrFrozen)
	}
	if err := n.store.Room(); err != nil {
		return spaceProblem(err)
	}
	if off, bad := implausible(n.clockOffsets()); bad {
		return &Problem{Code: CodeClock, Message: "nothing can be edited: this device's clock is wrong",
			Cause: fmt.Sprintf("it is %v %s those of the devices connected now; at most %v are allowed", off.Abs().Round(time.Second), sideOf(off), hlc.MaxDrift),
			Try:   "timedatectl set-ntp true, or set the clock by hand"}
	}
	return nil
}

// clockOffsets returns how far the clocks of connected devices are ahead of this one's.
func (n *Node) clockOffsets() (out []time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if p.session != nil && p.rtt > 0 {
			out = append(out, p.offset)
		}
	}
	return out
}

// implausible reports whether the median of offsets of others' clocks is farther off than hlc.MaxDrift. Of two
// in the middle the one counts that is nearer to zero.
func implausible(offsets []time.Duration) (median time.Duration, bad bool) {
	if len(offsets) == 0 {
		return 0, false
	}
	offsets = slices.Sorted(slices.Values(offsets))
	median = offsets[len(offsets)/2]
	if other := offsets[(len(offsets)-1)/2]; other.Abs() < median.Abs() {
		median = other
	}
	return median, median.Abs() > hlc.MaxDrift
}

func sideOf(offset time.Duration) string {
	if offset > 0 {
		return "behind"
	}
	return "ahead of"
}

// target is one thing that an edit is about.
type target struct {
	entity record.Entity
	at     feed.ID
	entry  record.EntryID
	hash   record.Hash
}

// resolve finds what an edit is about: every one of them, each once. left names the locations that a query was not put
// to, because their entries are not kept here.
func (n *Node) resolve(ctx context.Context, t Targets) (out []target, left []string, err error) {
	items, left, err := n.items(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	seen := map[record.Entity]bool{}
	for _, it := range items {
		one, err := n.targetOf(ctx, it, t.Content)
		if err != nil {
			return nil, nil, err
		}
		if !seen[one.entity] {
			seen[one.entity] = true
			out = append(out, one)
		}
	}
	return out, left, nil
}

// items returns what targets name, all of it but for what left names.
func (n *Node) items(ctx context.Context, t Targets) (out []catalog.Item, left []string, err error) {
	switch {
	case t.Query != "" && len(t.Paths) > 0:
		return nil, nil, &Problem{Code: CodeUsage, Message: "both paths and a query are named to edit", Cause: "it is one or the other", Try: "leave out one of them"}
	case t.Query != "":
		return n.queried(ctx, t)
	case len(t.Paths) == 0:
		return nil, nil, &Problem{Code: CodeUsage, Message: "nothing is named to edit", Cause: "a path is needed, or a query", Try: "peer ls"}
	case len(t.Paths) > maxTargets:
		return nil, nil, tooMany(fmt.Sprint(len(t.Paths)))
	}
	out, err = n.resolvePaths(ctx, t.Paths)
	return out, nil, err
}

// queried returns what a query finds: more than nothing.
func (n *Node) queried(ctx context.Context, t Targets) (out []catalog.Item, left []string, err error) {
	m, err := n.catalog.Marks()
	if err != nil {
		return nil, nil, err
	}
	o, err := n.findOptions(ctx, FindQuery{Text: t.Query, Names: t.Names}, m, time.Now())
	if err != nil {
		return nil, nil, err
	}
	if left, err = n.unsearched(o); err != nil {
		return nil, nil, err
	}
	err = n.catalog.Find(ctx, o, func(items []catalog.Item) error {
		if out = append(out, items...); len(out) > maxTargets {
			return tooMany("more than " + fmt.Sprint(maxTargets))
		}
		return nil
	})
	if err == nil && len(out) == 0 {
		p := &Problem{Code: CodeNotFound, Message: fmt.Sprintf("nothing is found by %q", t.Query), Cause: "no file or folder of any device fits", Try: "peer find WORD"}
		if len(left) > 0 {
			p.Cause = "no file or folder fits that is kept on this device; left out, because lazy: " + strings.Join(left, ", ")
			p.Try = "peer locations set " + left[0] + " --fetch eager"
		}
		err = p
	}
	return out, left, err
}

func tooMany(what string) error {
	return &Problem{Code: CodeUsage, Message: what + " files are too many for one edit",
		Cause: "at most " + english.Count(maxTargets) + " are edited at once", Try: "name fewer of them"}
}

// resolvePath finds what lies at one path.
func (n *Node) resolvePath(ctx context.Context, p PathRef) (catalog.Item, error) {
	all, err := n.resolvePaths(ctx, []PathRef{p})
	if err != nil {
		return catalog.Item{}, err
	}
	return all[0], nil
}

// resolvePaths finds what lies at some paths, all of them.
func (n *Node) resolvePaths(ctx context.Context, paths []PathRef) ([]catalog.Item, error) {
	refs := make([]catalog.Ref, len(paths))
	for i, p := range paths {
		refs[i] = catalog.Ref{Device: n.self, Path: p.Path}
		if p.Device != "" {
			var err error
			if refs[i].Device, err = deviceOf(p.Device); err != nil {
				return nil, err
			}
		}
	}
	all, err := n.catalog.ResolveAll(ctx, refs)
	if err != nil {
		return nil, err
	}
	items := make([]catalog.Item, len(all))
	for i, r := range all {
		if errors.Is(r.Err, catalog.ErrNotFound) {
			return nil, n.unresolved(paths[i], refs[i].Device, r.Location)
		}
		if r.Err != nil {
			return nil, r.Err
		}
		items[i] = r.Item
	}
	return items, nil
}

// unresolved says why a path leads to nothing here.
func (n *Node) unresolved(p PathRef, d record.DeviceID, l catalog.Location) error {
	if l, _, lazy, err := n.lazyAt(p); err == nil && lazy {
		name := n.nameLocked(d) + ":" + l.Name
		return &Problem{Code: CodeConflict, Message: fmt.Sprintf("%q cannot be edited from here", p.Path),
			Cause: name + " is lazy: its entries are not kept on this device", Try: "peer locations set " + name + " --fetch eager"}
	}
	return notListed(p.Path, l)
}

// notListed says why a path leads to nothing: it is in no location, or not listed by the one it is in.
func notListed(path string, l catalog.Location) error {
	p := &Problem{Code: CodeNotFound, Message: fmt.Sprintf("nothing is catalogued at %q", path),
		Cause: "no location of the device holds that path", Try: "peer locations"}
	if !l.ID.IsZero() {
		p.Cause = fmt.Sprintf("location %q is indexed, and lists nothing there: it is not on the disk, is ignored, or was not looked at yet", l.Name)
		p.Try = "peer locations show " + l.Name
	}
	return p
}

// targetOf returns what of an item is edited: the entry, or its content. A file of this device whose content is
// not known is read.
func (n *Node) targetOf(ctx context.Context, it catalog.Item, content bool) (target, error) {
	t := target{at: it.Location.Feed(), entry: it.File.ID, hash: it.File.Hash}
	if t.entry == (record.EntryID{}) {
		return t, &Problem{Code: CodeUsage, Message: fmt.Sprintf("%q is a location as a whole", it.Path),
			Cause: "tags and notes are put on the files and folders in it", Try: "peer ls " + it.Path}
	}
	if !content {
		t.entity = record.Entry(t.at.Device, t.at.Location, t.entry)
		return t, nil
	}
	if it.File.Kind != record.Regular {
		return t, &Problem{Code: CodeUsage, Message: fmt.Sprintf("%q has no content to edit", it.Path),
			Cause: fmt.Sprintf("it is a %v, and only a file has one", it.File.Kind), Try: "leave out --content"}
	}
	if it.File.Size == 0 {
		return t, &Problem{Code: CodeUsage, Message: fmt.Sprintf("%q has no content to edit", it.Path), Cause: "it is empty", Try: "leave out --content"}
	}
	if t.hash.IsZero() && t.at.Device != n.self {
		return t, &Problem{Code: CodeConflict, Message: fmt.Sprintf("the content of %q is not known", it.Path),
			Cause: "its device has not read it: no other file of that size is known",
			Try:   "run the command on that device, which then reads it; or leave out --content"}
	}
	if t.hash.IsZero() {
		var err error
		if t.hash, err = n.indexer.HashNow(ctx, it.Location.ID, t.entry); err != nil {
			return t, unreadProblem(it.Path, err)
		}
	}
	t.entity = record.Content(t.hash)
	return t, nil
}

func unreadProblem(path string, err error) error {
	if known := spaceProblem(err); known != err || errors.Is(err, context.Canceled) {
		return known
	}
	p := &Problem{Code: CodeConflict, Message: fmt.Sprintf("the content of %q cannot be read", path), Cause: err.Error(), Try: "leave out --content"}
	if errors.Is(err, catalog.ErrChanging) {
		p.Cause, p.Try = "it changes while it is read", "try again when it is at rest"
	}
	return p
}

// commit writes registers, makes them durable, counts them, and waits a while until connected devices have
// them. n.editing is held by whoever decided what to write.
func (n *Node) commit(regs []record.Register, outcomes map[string]int) (EditView, error) {
	v := EditView{Now: time.Now(), Written: []WrittenView{}, Reached: []string{}, Pending: []string{}, Away: []string{}}
	out, err := n.store.Edit(regs)
	models, whole := map[string]int{}, map[record.Entity]bool{}
	for _, reg := range out.Written {
		models[reg.Model()]++
		if reg.Entity.Kind != record.TagEntity {
			whole[reg.Entity] = true
		}
		if len(v.Written) < maxWritten {
			v.Written = append(v.Written, WrittenView{Entity: reg.Entity.String(), Field: reg.Field, Stamp: reg.Stamp.String()})
		}
	}
	v.Changed = uint64(len(whole))
	if len(out.Written) > 0 {
		n.events.AddBatch(eventlog.Tally{Type: eventlog.TagsChanged{}.Type(), Reason: "edited here", Models: models, Outcomes: outcomes})
		n.countConflicts(out.Conflicts)
		for _, d := range conflictEvents(out.Conflicts) {
			n.events.Add(d)
		}
	}
	if err != nil {
		return v, n.editProblem(err)
	}
	return v, n.store.Sync()
}

func (n *Node) editProblem(err error) error {
	if errors.Is(err, store.ErrAhead) {
		return &Problem{Code: CodeClock, Message: "nothing can be edited: this device's clock was ahead",
			Cause: fmt.Sprintf("it was %v later than it is now, and what is edited now would be believed by nobody until then", n.clock.Drift().Round(time.Second)),
			Try:   "set the clock if it is wrong now; else wait, or edit on another device"}
	}
	return spaceProblem(err)
}

// awaitReach waits until every connected device holds this device's feed as it is now, and tells who does.
func (n *Node) awaitReach(ctx context.Context, v *EditView) {
	st, _ := n.store.State(feed.ID{Device: n.self})
	if st.Settled == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	for n.sortReach(*st.Settled, v); len(v.Pending) > 0 && wait(ctx, progressTick/10); {
		n.sortReach(*st.Settled, v)
	}
}

// sortReach sorts the other devices by whether they hold a head of this device's feed.
func (n *Node) sortReach(h feed.Head, v *EditView) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v.Reached, v.Pending, v.Away = []string{}, []string{}, []string{}
	for d, p := range n.peers {
		if n.set.Role(d) == 0 {
			continue
		}
		at := uint64(0)
		if info := p.heads[h.Feed]; info.Settled != nil {
			at = info.Settled.Seq
		}
		if p.session != nil {
			if held, ok := p.session.sender.Held(h.Feed); ok {
				at = max(at, held.Seq)
			}
		}
		switch {
		case at >= h.Seq:
			v.Reached = append(v.Reached, n.nameOf(d))
		case p.session != nil && !n.pausedFor(d):
			v.Pending = append(v.Pending, n.nameOf(d))
		default:
			v.Away = append(v.Away, n.nameOf(d))
		}
	}
	slices.Sort(v.Reached)
	slices.Sort(v.Pending)
	slices.Sort(v.Away)
}
