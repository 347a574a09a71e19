// Package backfill brings feeds into step by asking: delta, tree diff, election of the donor, on both
// sides of the stream. What to ask for is decided in package feed; what arrives goes through
// store.Apply.
package backfill

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"peerdex/feed"
	"peerdex/internal/mutant"
	"peerdex/kv"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// Limits of one request, each a fraction of a frame.
const (
	nodesPerRequest  = 64 // a node's children are at most 512 bytes
	leavesPerRequest = 64 // a leaf is at most 4,352 bytes
	seqsPerRequest   = protocol.MaxEntries
)

// Puller asks a donor for what this device lacks. Its fields are set once.
type Puller struct {
	Store *store.Store
	Shape feed.Shape // of the library's trees
	Boot  uint64     // nonce of this process (rule 16)
	Notes PullNotes
	Now   func() time.Time
	// Rescan is called after an own location feed was absorbed or jumped: entries may have changed
	// without the indexer, which must read them again and compare them with the folder.
	Rescan func(record.LocationID)
	// Admit returns the generation of the membership (store.Store.Generation) under which a donor is a
	// member, or why it is none; nil: everybody is. It is asked when a pull begins, and again when the
	// generation has risen before something of the donor was applied.
	Admit func(record.DeviceID) (generation uint64, err error)
	// Orphaned reports whether a feed may settle below its floor (rule 17); nil: never.
	Orphaned func(feed.ID) bool
	// Reserve takes memory for what a pull holds besides the page at hand, until release is called. Its error ends the
	// pull; nil: there is always memory.
	Reserve func(bytes int) (release func(), err error)
	Limit   int // entries of one Fetch and of one transaction of a tree diff; 0 means protocol.MaxEntries
}

func (p *Puller) limit() int { return cmp.Or(p.Limit, seqsPerRequest) }

// Run pulls the wanted feeds, in order, over one stream. What could not be had of one feed does not keep
// it from the next: refused says why. The caller owns the stream. It blocks until done, the stream fails, or the donor breaks the rules (*protocol.Error).
func (p *Puller) Run(conn *protocol.Conn, session protocol.SessionID, want []feed.ID) (refused map[feed.ID]error, err error) {
	refused = map[feed.ID]error{}
	for _, id := range want {
		err := p.pull(conn, session, id)
		var no *RefusedError
		switch {
		case errors.As(err, &no), errors.Is(err, errBusy), errors.Is(err, errBlocked), errors.Is(err, store.ErrStale):
			refused[id] = err
		case err != nil:
			return refused, fmt.Errorf("pull feed %v: %w", id, err)
		}
	}
	return refused, conn.CloseWrite()
}

var (
	// errBusy: another pull or push holds the feed (rule 7).
	errBusy = errors.New("feed is being written by another session")
	// errBlocked: the donor is behind what was settled here before (rule 18).
	errBlocked = errors.New("donor is below this device's floor")
)

// pulling is one feed on its way.
type pulling struct {
	*Puller
	Pull
	conn    *protocol.Conn
	last    time.Time // when the last frame was asked for or came
	chosen  bool
	pending int // entries received and neither applied nor dropped

	admitted uint64 // generation of the membership under which the donor is a member

	held     int      // bytes, as hold counts them
	reserved int      // at least as many
	release  []func() // of those
}

func (p *Puller) pull(conn *protocol.Conn, session protocol.SessionID, id feed.ID) error {
	u := &pulling{Puller: p, conn: conn, Pull: Pull{Session: session, Donor: conn.Device(), Feed: id}}
	err := u.run()
	u.letGo()
	if u.pending > 0 {
		p.Notes.Dropped(u.Pull, u.pending)
	}
	if u.chosen {
		p.Notes.Ended(u.Pull, err)
	}
	return err
}

func (u *pulling) run() error {
	p, id := u.Puller, u.Feed
	if err := u.admit(); err != nil {
		return err
	}
	if err := u.open(); err != nil {
		return err
	}
	if err := p.Store.Check(u.Head); err != nil { // before anything of it is applied, and whoever owns it
		return forged(err)
	}
	if id.Device == p.Store.Device() {
		return u.own()
	}
	err := u.asMember(func() error {
		_, err := p.Store.Observe([]feed.Head{u.Head}, u.admitted)
		return err
	})
	if err != nil {
		return err
	}
	release, ok := p.Store.Claim(id)
	if !ok {
		return errBusy
	}
	defer release()
	st, _ := p.Store.State(id)
	u.Route = st.DecideRoute(u.Head, p.Orphaned != nil && p.Orphaned(id))
	u.Lacks = u.Head.Seq - min(u.Route.From, u.Head.Seq)
	if u.Route.Road == feed.RoadNone {
		return nil
	}
	u.First = st.Floor.IsGenesis()
	u.choose(u.Route)
	switch u.Route.Road {
	case feed.RoadBlocked:
		return errBlocked
	case feed.RoadDelta:
		err := u.delta(st)
		if !errors.Is(err, store.ErrMismatch) {
			return err
		}
		p.Notes.Dropped(u.Pull, u.pending)
		p.Notes.Ended(u.Pull, err)
		u.pending, u.chosen = 0, false
		if st, _ := p.Store.State(id); st.Settled == nil && !mutant.Is("cursor_kept") { // rule 11
			err := u.asMember(func() error {
				_, err := p.Store.Apply(store.Change{Feed: id, Admitted: u.admitted})
				return err
			})
			if err != nil {
				return err
			}
		}
		u.choose(feed.Route{Road: feed.RoadDiff, Reason: "mismatch"})
	}
	return u.diff()
}

// admit asks whether the donor is a member.
func (u *pulling) admit() (err error) {
	if u.Admit != nil {
		u.admitted, err = u.Admit(u.Donor)
	}
	return err
}

// asMember does something in the name of the donor, which must be a member until it is committed: where
// the membership changes meanwhile, the donor is asked for again (invariant I12).
func (u *pulling) asMember(do func() error) error {
	for {
		err := do()
		if !errors.Is(err, store.ErrGeneration) {
			return err
		}
		if mutant.Is("asked_once") {
			u.admitted = u.Store.Generation()
		} else if err := u.admit(); err != nil {
			return err
		}
	}
}

func (u *pulling) choose(r feed.Route) {
	u.Route, u.chosen = r, true
	u.Notes.Chosen(u.Pull)
}

// open asks the donor for its head of the feed.
func (u *pulling) open() error {
	if err := u.ask(&protocol.Open{Session: u.Session, Feed: u.Feed}, "open"); err != nil {
		return err
	}
	switch m, err := u.conn.Recv(); m := m.(type) {
	case *protocol.Opened:
		if m.Head.Feed != u.Feed {
			return violation(protocol.CodeMalformed, "asked for feed %v, got the head of %v", u.Feed, m.Head.Feed)
		}
		u.Head = m.Head
		return nil
	default:
		return unexpected(m, err)
	}
}

func (u *pulling) ask(m protocol.Message, request string) error {
	if err := u.conn.Send(m); err != nil {
		return err
	}
	if err := u.conn.Flush(); err != nil {
		return err
	}
	u.last = u.Now()
	u.Notes.Asked(u.Pull, request)
	return nil
}

// page receives the next page of entries.
func (u *pulling) page() (*protocol.Page, error) {
	m, err := u.conn.Recv()
	page, ok := m.(*protocol.Page)
	if !ok {
		return nil, unexpected(m, err)
	}
	now := u.Now()
	size := 0
	for _, e := range page.Entries {
		size += protocol.EntrySize(e)
	}
	u.Notes.Received(u.Pull, len(page.Entries), size, now.Sub(u.last))
	u.pending += len(page.Entries)
	u.last = now
	return page, nil
}

// unexpected explains why a message was not the one awaited.
func unexpected(m protocol.Message, err error) error {
	if errors.Is(err, io.EOF) {
		return violation(protocol.CodeLost, "the donor closed the stream where an answer was due")
	}
	if err != nil {
		return err
	}
	if no, ok := m.(*protocol.Refused); ok {
		return &RefusedError{no.Code}
	}
	return protocol.Unexpected(m)
}

// RefusedError is a donor's answer that it will not serve one feed; the stream goes on.
type RefusedError struct{ Code protocol.Code }

func (e *RefusedError) Error() string { return "donor refuses: " + e.Code.Error() }
func (e *RefusedError) Unwrap() error { return e.Code }

// violation accuses the other side of breaking the protocol.
func violation(code protocol.Code, format string, args ...any) error {
	return &protocol.Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// forged accuses the donor if err is that a head is not its owner's; any other error is this side's own.
func forged(err error) error {
	if errors.Is(err, feed.ErrSignature) {
		return violation(protocol.CodeMismatch, "%v", err)
	}
	return err
}

func (u *pulling) apply(c store.Change) error {
	c.Feed = u.Feed
	c.Orphaned = u.Orphaned != nil && u.Orphaned(u.Feed)
	c.Within = func(tx kv.Tx, res *store.Result) error {
		return u.Notes.Committing(tx, u.Pull, c.Settle != nil, res)
	}
	start := u.Now()
	var res store.Result
	err := u.asMember(func() (err error) {
		c.Admitted = u.admitted
		res, err = u.Store.Apply(c)
		return err
	})
	if errors.Is(err, kv.ErrTooBig) {
		switch swept, serr := u.sweep(c); {
		case serr != nil:
			return serr
		case swept:
			return u.apply(c)
		case len(c.Entries)+len(c.Remove) > 1:
			return u.split(c)
		}
	}
	if err != nil {
		return forged(err)
	}
	u.pending -= len(c.Entries)
	u.Notes.Applied(u.Pull, res, u.Now().Sub(start))
	return nil
}

// sweep drops ahead the tombstones that c would drop besides all else; false if there are none.
func (u *pulling) sweep(c store.Change) (swept bool, err error) {
	if c.Settle == nil || c.Settle.GC == 0 {
		return false, nil
	}
	var at *feed.Cursor // before everything in c
	if u.Route.Road == feed.RoadDelta {
		at = u.cursor(c.Settle.Seq-1, 0)
		if len(c.Entries) > 0 {
			at.Seq = c.Entries[0].Seq - 1
		}
	}
	for {
		var n int
		err := u.asMember(func() (err error) {
			n, err = u.Store.Sweep(u.Feed, c.Settle.GC, at, u.admitted)
			return err
		})
		if err != nil || n == 0 {
			return swept, err
		}
		swept = true
	}
}

// split applies a change that one transaction cannot hold in two: the feed is unsettled in between. All is
// put in before anything is taken out (rule 12).
func (u *pulling) split(c store.Change) error {
	first, second := c, c
	first.Settle = nil
	if len(c.Entries) > 0 {
		n := max(1, len(c.Entries)/2)
		first.Entries, first.Remove, second.Entries = c.Entries[:n], nil, c.Entries[n:]
		if u.Route.Road == feed.RoadDelta {
			first.Cursor = u.cursor(c.Entries[n-1].Seq, 0)
		}
	} else {
		n := len(c.Remove) / 2
		first.Remove, second.Remove = c.Remove[:n], c.Remove[n:]
	}
	if err := u.apply(first); err != nil {
		return err
	}
	return u.apply(second)
}

// cursor is where a delta stands after an entry with seq (rule 10).
func (u *pulling) cursor(seq, high uint64) *feed.Cursor {
	return &feed.Cursor{Seq: seq, GC: u.Head.GC, High: max(u.Head.Seq, high)}
}

// holdPages is how many full pages of a device feed are held back until the last has come: registers are
// shown, and rescued under this device's signature, so what a relay made up must not get in even for a
// moment. Five pages are as much as one transaction takes; more is rare, and let in as it comes.
const holdPages = 5

// delta draws every entry after a position; the last page settles the feed, in the same transaction.
func (u *pulling) delta(st feed.State) error {
	if err := u.ask(&protocol.Delta{After: u.Route.From}, "delta"); err != nil {
		return err
	}
	high := uint64(0)
	if st.Cursor != nil {
		high = st.Cursor.High
	}
	var entries []feed.Entry
	for at := u.Route.From; ; {
		page, err := u.page()
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if e.Seq <= at || e.Seq > u.Head.Seq {
				return violation(protocol.CodeMalformed, "entry at %d after %d in a delta up to %d", e.Seq, at, u.Head.Seq)
			}
			at = e.Seq
		}
		entries = append(entries, page.Entries...)
		if page.Last {
			return u.apply(store.Change{Entries: entries, Settle: &u.Head})
		}
		if len(page.Entries) == 0 {
			return violation(protocol.CodeMalformed, "empty page before the last")
		}
		if u.Feed.IsDevice() && len(entries) < holdPages*u.limit() {
			if err := u.holdEntries(page.Entries); err != nil {
				return err
			}
			continue
		}
		if mutant.Is("cursor_before") {
			if err := u.apply(store.Change{Cursor: u.cursor(at, high)}); err != nil {
				return err
			}
		}
		if err := u.apply(store.Change{Entries: entries, Cursor: u.cursor(at, high)}); err != nil {
			return err
		}
		entries = nil
		u.letGo()
	}
}
