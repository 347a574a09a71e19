package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"peerdex/backfill"
	"peerdex/catalog"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
)

// Asked says what came of asking about a location whose entries are not kept here.
type Asked struct {
	Location   string    `json:"location"` // hex of record.LocationID
	Name       string    `json:"name"`
	Device     string    `json:"device"` // peer ID of the owner
	DeviceName string    `json:"device_name"`
	Via        string    `json:"via,omitempty"` // peer ID of the device that answered; empty: none did
	ViaName    string    `json:"via_name,omitempty"`
	Seq        uint64    `json:"head_seq,omitempty"` // where that device was settled when it began to look
	AsOf       time.Time `json:"as_of,omitzero"`     // when the answer was known to be true: now of the owner's own, else when that head was signed
	More       bool      `json:"more,omitempty"`     // it has more to say than it was asked for
	Cut        bool      `json:"cut,omitempty"`      // More, though nobody asked for so few
	Problem    string    `json:"problem,omitempty"`  // why nobody answered
}

// answer is what came of one question.
type answer struct {
	Asked
	loc    catalog.Location
	items  []catalog.Item
	absent bool // nothing lies there
	itself bool // the one item is what lies there
}

const (
	askSign   = 2 * time.Second  // for a device to give a sign of life once somebody asks
	askWithin = 5 * time.Second  // for one device to answer one question
	askInAll  = 10 * time.Second // for what a person asks, however many devices and locations that is put to
	askAtOnce = 4                // locations

	askAgain     = 50 * time.Millisecond  // when all that are left were busy; doubling up to
	askAgainMost = 800 * time.Millisecond // and then no more
)

// errNoSign ends a question to a device that answers nothing at all.
var errNoSign = &because{protocol.CodeTimeout, fmt.Sprintf("no sign of life within %.0f s", askSign.Seconds())}

// lazyIn returns the locations of those given that are followed by head only.
func (n *Node) lazyIn(all []catalog.Location) (out []catalog.Location) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range all {
		if l.Owner != n.self && n.follow[l.Feed()] && n.fetchOf(l.Feed()) == FetchLazy {
			out = append(out, l)
		}
	}
	return out
}

// holders returns the devices that can be asked about a feed: the newest first, of
// equals the owner, then as donors are elected.
func (n *Node) holders(id feed.ID) []record.DeviceID {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	settled := map[record.DeviceID]feed.Head{}
	var candidates []backfill.Candidate
	st, _ := n.store.State(id)
	for d, p := range n.peers {
		at := p.heads[id].Settled
		if d == id.Device && !st.Best.IsGenesis() && (at == nil || st.Best.Compare(*at) > 0) {
			at = &st.Best // what it signed it holds, though it may not have said so itself yet
		}
		if p.session != nil && at != nil && !n.pausedFor(d) && n.set.Role(d) != 0 {
			settled[d] = *at
			candidates = append(candidates, backfill.Candidate{Device: d, Online: true, Complete: 1, Latency: p.rtt, ActiveSyncs: p.activeSyncs, Failed: p.failedPull})
		}
	}
	var out []record.DeviceID
	for _, c := range backfill.Elect(now, candidates) {
		out = append(out, c.Device)
	}
	slices.SortStableFunc(out, func(a, b record.DeviceID) int {
		if c := settled[b].Compare(settled[a]); c != 0 {
			return c
		}
		switch id.Device {
		case a:
			return -1
		case b:
			return 1
		}
		return 0
	})
	return out
}

// ask puts a question about a lazy location to whoever is settled on it, one device after the other until one
// answers, and those that are busy again. It blocks. If none does, Asked.Problem says why.
func (n *Node) ask(ctx context.Context, l catalog.Location, kind string, question func(protocol.SessionID) protocol.Message) answer {
	return n.askAll(ctx, []catalog.Location{l}, kind, func(_ catalog.Location, s protocol.SessionID) protocol.Message { return question(s) })[0]
}

// askSince is ask for a person who asked when all devices were pinged: whoever has given no sign of life askSign after
// that is not waited for any longer.
func (n *Node) askSince(ctx context.Context, since time.Time, l catalog.Location, kind string, question func(protocol.SessionID) protocol.Message) answer {
	n.mu.Lock()
	a := answer{loc: l, Asked: Asked{Location: l.ID.String(), Name: l.Name, Device: idText(l.Owner), DeviceName: n.nameOf(l.Owner)}}
	n.mu.Unlock()
	var why []string
	left := n.holders(l.Feed())
	for pause := askAgain; ; pause *= 2 {
		var busy []record.DeviceID
		for _, d := range left {
			if ctx.Err() != nil {
				break
			}
			err := n.putTo(ctx, since, d, kind, question, &a)
			switch {
			case err == nil:
				return a
			case protocol.CodeOf(err) == protocol.CodeBusy:
				busy = append(busy, d)
			default:
				why = append(why, n.nameLocked(d)+": "+silence(err))
			}
		}
		if left = busy; len(left) == 0 || pause > askAgainMost || !wait(ctx, pause+rand.N(pause/4)) {
			break
		}
	}
	for _, d := range left {
		why = append(why, n.nameLocked(d)+": "+protocol.CodeBusy.Error())
	}
	a.Problem = strings.Join(why, "; ")
	if len(why) == 0 {
		a.Problem = "no device that holds it is connected"
	}
	return a
}

// putTo asks one device, takes its answer into a, and notes what came of it.
func (n *Node) putTo(ctx context.Context, since time.Time, d record.DeviceID, kind string, question func(protocol.SessionID) protocol.Message, a *answer) error {
	session, start := protocol.NewSessionID(), time.Now()
	err := n.askOne(ctx, since, d, question(session), session, a)
	result := "answered"
	switch refused := (*backfill.RefusedError)(nil); {
	case protocol.CodeOf(err) == protocol.CodeBusy:
		result = "busy"
	case errors.As(err, &refused):
		result = "refused"
	case err != nil:
		result = "failed"
		n.blame(d, err)
	}
	n.metrics.Lookup("out", result)
	n.events.AddBatch(eventlog.Tally{Type: eventlog.LookedUp{}.Type(), Peer: idText(d), Session: eventlog.ID(session), Reason: kind,
		Outcomes: map[string]int{result: 1}, Took: time.Since(start)})
	if err != nil {
		a.items, a.absent, a.itself, a.More = nil, false, false, false
		return err
	}
	if a.Via, a.ViaName = idText(d), n.nameLocked(d); d == a.loc.Owner {
		a.AsOf = time.Now()
	}
	return nil
}

// silence says in a few words why a device did not answer.
func silence(err error) string {
	switch {
	case errors.Is(err, errNoSign):
		return errNoSign.Error()
	case errors.Is(err, protocol.CodeTimeout), errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %.0f s", askWithin.Seconds())
	}
	return protocol.CodeOf(err).Error()
}

// ping makes every device that is connected give a sign of life.
func (n *Node) ping() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if p.session != nil {
			select {
			case p.session.ping <- struct{}{}:
			default: // one is on its way
			}
		}
	}
}

// silent reports whether nothing was heard of a device since a time.
func (n *Node) silent(d record.DeviceID, since time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[d]
	return p == nil || p.seen.Before(since)
}

// askOne puts a question to one device and takes the answer into a.
func (n *Node) askOne(ctx context.Context, since time.Time, d record.DeviceID, question protocol.Message, session protocol.SessionID, a *answer) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	look := func() {
		if n.silent(d, since) {
			leave(errNoSign)
		}
	}
	if left := time.Until(since.Add(askSign)); left > 0 {
		defer time.AfterFunc(left, look).Stop()
	} else {
		look()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	cfg := n.connConfig(d, protocol.LookupProtocol)
	cfg.Session, cfg.FirstByte, cfg.Idle = session, askWithin, askWithin
	conn, err := protocol.Dial(ctx, n.host, d, protocol.LookupProtocol, cfg)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	defer conn.Bind(ctx)()
	if err = n.converse(conn, question, a); err == nil {
		_, _ = conn.Recv() // the end: the next question finds the device done with this one
	}
	conn.End(err)
	return err
}

func (n *Node) converse(conn *protocol.Conn, question protocol.Message, a *answer) error {
	if err := conn.Send(question); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	limit, after := 0, ""
	switch q := question.(type) {
	case *protocol.Lookup:
		limit, after = q.Limit, q.After
	case *protocol.Search:
		limit = protocol.MaxHits // copies do not count
	}
	var head feed.Head
	for hits := 0; ; {
		m, err := conn.Recv()
		if err != nil {
			return err
		}
		if no, ok := m.(*protocol.Refused); ok {
			return &backfill.RefusedError{Code: no.Code}
		}
		f, ok := m.(*protocol.Found)
		if !ok {
			return protocol.Unexpected(m)
		}
		if head == (feed.Head{}) {
			if head = f.Head; head.Feed != a.loc.Feed() {
				return falsely("asked about feed %v, answered about %v", a.loc.Feed(), head.Feed)
			}
			if err := n.store.Check(head); err != nil {
				return &protocol.Error{Code: protocol.CodeMismatch, Detail: err.Error()}
			}
		}
		if hits += len(f.Hits); f.Head != head || hits > limit || len(f.Hits) == 0 && !f.Last {
			return falsely("%d hits, at most %d were asked for, from one head", hits, limit)
		}
		a.absent, a.itself, a.More = f.Absent, f.Itself, f.More
		for _, h := range f.Hits {
			it, ok, err := itemOf(a.loc, h)
			if err != nil {
				return err
			}
			if ok {
				a.items = append(a.items, it)
			}
		}
		if !f.Last {
			continue
		}
		a.Seq, a.AsOf = head.Seq, head.Stamp.Time()
		if q, ok := question.(*protocol.Lookup); ok && !f.Itself {
			return inFolder(a.items, q, after)
		}
		return nil
	}
}

// inFolder checks the names of what was said to lie in a folder, and where it lies.
func inFolder(items []catalog.Item, q *protocol.Lookup, after string) error {
	for i, it := range items {
		if name := it.File.Name; q.Itself || i+1 < len(items) && name >= items[i+1].File.Name || after != "" && name <= after {
			return falsely("what lies in a folder is out of order")
		}
	}
	return nil
}

func falsely(format string, args ...any) error {
	return &protocol.Error{Code: protocol.CodeMalformed, Detail: fmt.Sprintf(format, args...)}
}

// itemOf reads a hit; false if this version does not know its record.
func itemOf(l catalog.Location, h protocol.Hit) (catalog.Item, bool, error) {
	rec, err := record.Decode(h.Key, h.Record)
	f, ok := rec.(record.File)
	if err != nil || !ok || f.Validate() != nil {
		return catalog.Item{}, false, nil
	}
	var folder []string
	if h.Folder != "" {
		folder = strings.Split(h.Folder, "/")
	}
	for _, name := range folder {
		if err := record.ValidName(name); err != nil {
			return catalog.Item{}, false, falsely("%v", err)
		}
	}
	return l.Item(folder, f, h.Lost), true, nil
}

// askAll puts a question about each of some lazy locations, several at once. It blocks.
func (n *Node) askAll(ctx context.Context, locations []catalog.Location, kind string, question func(catalog.Location, protocol.SessionID) protocol.Message) []answer {
	var (
		mu  sync.Mutex // guards out
		out = make([]answer, len(locations))
		g   errgroup.Group
	)
	ctx, cancel := context.WithTimeout(ctx, askInAll)
	defer cancel()
	since := time.Now()
	n.ping()
	g.SetLimit(askAtOnce)
	for i, l := range locations {
		g.Go(func() error {
			a := n.askSince(ctx, since, l, kind, func(s protocol.SessionID) protocol.Message { return question(l, s) })
			mu.Lock()
			defer mu.Unlock()
			out[i] = a
			return nil
		})
	}
	_ = g.Wait() // no question is an error
	return out
}

// viewOf is what the views of all that was answered have in common: as fresh as the answer.
func (n *Node) viewOf(a answer) Entry {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.inLocation(a.loc)
	e.AsOf, e.Via, e.Online = a.AsOf, a.ViaName, e.Online && a.Via == a.Device
	e.Current = e.Online
	return e
}

// unanswered is the problem of a question that nobody answered.
func unanswered(a Asked) error {
	return &Problem{Code: CodeUnreachable, Message: fmt.Sprintf("nobody can be asked about %s:%s, which is not kept on this device", a.DeviceName, a.Name),
		Cause: a.Problem, Try: "wait until a device that holds it is connected, or keep it here: peer locations set " + a.DeviceName + ":" + a.Name + " --fetch eager"}
}

// askedOf are the reports of some answers.
func askedOf(answers []answer) []Asked {
	out := []Asked{}
	for _, a := range answers {
		out = append(out, a.Asked)
	}
	return out
}

// partly reports whether some question was not answered, or not in full.
func partly(asked []Asked) bool {
	return slices.ContainsFunc(asked, func(a Asked) bool { return a.Problem != "" || a.Cut })
}
