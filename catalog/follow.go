package catalog

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"peerdex/record"
)

// pollsPerWatch is how many polls pass before watching is tried again.
const pollsPerWatch = 16

// rewatch makes sure that a full pass watches what it lists, if watching can be had. It returns why not.
func (l *location) rewatch() (cause string) {
	if fs := l.disk.remote(l.folder); fs != "" {
		l.watch.stop()
		return "network_fs:" + fs
	}
	if l.degr {
		if l.polls++; l.polls%pollsPerWatch != 0 {
			return l.why
		}
	}
	if err := l.watch.start(); err != nil {
		return l.cause(err)
	}
	return ""
}

func (l *location) cause(err error) string {
	l.log.Warn("cannot watch every directory", "location", l.name, "error", reason(err))
	return cmp.Or(watchCause(err), "unsupported")
}

// watched notes how a full pass left the watching: well, or not and why.
func (l *location) watched(cause string) {
	l.cfg.Metrics.WatchActive(l.id.String(), cause == "")
	if cause == "" {
		l.show(func(s *Status) { s.Phase, s.Reason = Watching, "" })
		if l.degr {
			l.degr = false
			l.cfg.Events.WatchRecovered(l.id)
		}
		return
	}
	l.watch.stop()
	l.show(func(s *Status) { s.Phase, s.Reason = Polling, cause })
	if !l.degr {
		l.degr, l.why, l.polls = true, cause, 0
		l.cfg.Events.WatchDegraded(l.id, cause)
	}
}

// follow takes in changes until a full pass is due, or asked for by the request it returns.
func (l *location) follow(ctx context.Context) (*request, error) {
	due := time.NewTimer(l.nextScan())
	defer due.Stop()
	told := time.NewTicker(changesWindow)
	defer told.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case r := <-l.ask:
			return &r, nil
		case h := <-l.hashes:
			err := l.learn(h.files)
			h.done <- err
			if err != nil {
				return nil, err
			}
			continue
		case <-due.C:
			return nil, nil
		case <-told.C:
			l.tell()
			continue
		case <-l.watch.wake:
		}
		l.gather(ctx)
		overflow, shaken, failed := l.watch.state()
		if overflow {
			l.cfg.Metrics.WatchOverflow()
			l.cfg.Events.WatchDegraded(l.id, "overflow")
			l.degr = true // told as recovered when the pass that follows has been through
			l.polls = -1
		}
		if overflow || failed != nil {
			return nil, nil
		}
		jobs := l.dirty()
		if shaken {
			if f := l.disk.stat(l.folder); f.err != nil || f.id != l.rootID || l.tree.at(root).flags&flagUnread != 0 {
				return nil, nil
			}
		}
		if len(jobs) == 0 {
			continue
		}
		l.cfg.Events.PassStarted(l.id)
		p := l.newPass()
		err := p.run(ctx, jobs, l.more)
		if err != nil {
			return nil, err
		}
		l.counted(p.counts)
		l.cfg.Events.PassCompleted(l.id, p.counts)
		l.backlog.set(l.id, 0)
	}
}

// nextScan returns how long to wait for the next full pass.
func (l *location) nextScan() time.Duration {
	s := l.Status()
	switch s.Phase {
	case Watching:
		return l.cfg.RescanEvery + time.Duration(rand.Int64N(int64(l.cfg.RescanEvery)/5+1))
	case Polling:
		return max(l.cfg.PollEvery, 20*s.Took) // at most a twentieth of the time is spent looking
	}
	return l.cfg.RetryEvery
}

// gather waits until changes pause for a moment, but not long.
func (l *location) gather(ctx context.Context) {
	end := time.NewTimer(l.cfg.GatherMost)
	defer end.Stop()
	pause := time.NewTimer(l.cfg.Gather)
	defer pause.Stop()
	for {
		select {
		case <-l.watch.wake:
			pause.Reset(l.cfg.Gather)
		case <-pause.C:
			return
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// dirty turns what the watches reported into jobs. If the folder itself was moved or deleted, one is to list
// it, which finds nothing there and asks for a look at the folder.
func (l *location) dirty() (jobs []job) {
	t := l.tree
	for n, d := range l.watch.take() {
		nd := t.at(n)
		if nd.flags&(flagFree|flagLimbo) != 0 || nd.kind != record.Directory {
			continue
		}
		rel, ok := t.rel(n)
		if !ok {
			continue
		}
		j := job{node: n, place: place{l.path(rel), t.identity(nd)}, rel: rel, had: l.rules[n]}
		switch {
		case d.names[IgnoreFile]: // other rules may hold for all that lies below
			j.deep, j.up = true, l.rulesAbove(n)
		case d.all:
			j.up = l.rulesAbove(n)
		default:
			j.up = l.rulesIn(n)
			for name := range d.names {
				j.names = append(j.names, name)
			}
			slices.Sort(j.names)
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// more returns what has become dirty since a pass began. It waits for that as long as for a pause in changes:
// of a move to another directory, word of where something went may come a moment after word that it went.
func (l *location) more(ctx context.Context) []job {
	pause := time.NewTimer(l.cfg.Gather)
	defer pause.Stop()
	for woken := false; ; {
		jobs := l.dirty()
		if len(jobs) == 0 && l.watch.active() {
			select {
			case <-l.watch.wake:
				woken = true
				continue
			case <-pause.C:
				jobs = l.dirty()
			case <-ctx.Done():
			}
		}
		if woken {
			l.watch.signal() // it may have been about more than what is dirty
		}
		return jobs
	}
}
