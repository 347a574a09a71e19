package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"peerdex/feed"
	"peerdex/internal/failpoint"
	"peerdex/internal/mutant"
	"peerdex/kv"
	"peerdex/record"
)

// LoadOverhead is how many bytes of disk an entry takes, beyond its own, while it is loaded: its keys, its place in the tree,
// and what is sorted once more until it is in order.
const LoadOverhead = 200

// LoadMemory is how many bytes a Load takes at most, besides those of the store: of each family that is sorted the rows
// held and as much again about them, of each that is being written a table twice and what is gathered for it.
const LoadMemory = sortedFamilies*2*sortBytes + openFamilies*(2*lastTable+bulkBuffer+bulkBuffer/4)

const (
	sortedFamilies = 1 // keys
	openFamilies   = 4 // those that come in order, and one that is merged
)

var (
	// ErrHeld is returned by Load when all that is offered is held already.
	ErrHeld = errors.New("nothing in it is new here")
	// ErrLoading is returned by Load while another Load of this store goes on.
	ErrLoading = errors.New("the store is being loaded already")
)

// Load is location feeds of other devices on their way into fresh files, together with everything the store
// holds. The store goes on beside it, reading and writing; nothing of the Load shows until Install has
// verified every feed and put the fresh files in the place of the old. Device feeds go through Apply: they are
// small, and registers may clash with others, have to be rescued, or change the membership. One goroutine
// uses it.
type Load struct {
	s       *Store
	eng     kv.Replaceable
	fresh   kv.Fresh
	sorted  map[byte]*sorter // families whose rows do not come in order
	tx      *tx              // puts rows into fresh and sorted
	feeds   []*arrival       // those taken, in order
	at      int              // the one that is coming
	gone    map[num]bool     // numbers of feeds that are replaced whole: their rows are left behind
	release []func()         // of the claims

	limit int // of the sorters; at most sortBytes
}

// arrival is one feed that is being loaded.
type arrival struct {
	row    *row // under a number of its own
	head   feed.Head
	tree   *feed.Builder
	last   uint64 // seq of the last entry
	loaded Loaded
	files  Fresh // what the follower will know of it; nil: there is none

	own     bool // of a Fill: this device's, whose head is signed at the end
	dropped bool // since the Load began
}

// Loaded is what came of one feed.
type Loaded struct {
	Head     feed.Head
	Counts   Counts
	Rejected int      // entries that this version shows to nobody
	Rejects  []Reject // the first few
}

// Load begins to load feeds at the given heads; their entries come feed by feed in the order of the heads. Taken
// are the location feeds of other devices that a head brings further, whole: what was held of them is left
// behind. Takes tells which. They are claimed until Close (rule 7). Load returns feed.ErrSignature for a head that
// is not its owner's, ErrHeld, ErrLoading, and ErrNoSpace unless room bytes are free besides what the store
// takes itself. Close it.
func (s *Store) Load(heads []feed.Head, room uint64) (*Load, error) {
	for _, h := range heads {
		if err := s.Check(h); err != nil {
			return nil, err
		}
	}
	l, err := s.newLoad(room)
	if err != nil {
		return nil, err
	}
	l.choose(heads)
	if err := l.begin(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// newLoad returns a Load of nothing yet, if there is room and no other. Close it.
func (s *Store) newLoad(room uint64) (*Load, error) {
	e, ok := s.eng.(kv.Replaceable)
	if !ok {
		return nil, errors.New("load: this kind of store cannot be replaced")
	}
	if err := s.RoomToLoad(room); err != nil {
		return nil, err
	}
	if !s.startLoading() {
		return nil, ErrLoading
	}
	l := &Load{s: s, eng: e, sorted: map[byte]*sorter{}, gone: map[num]bool{}, release: []func(){s.stopLoading}, limit: sortBytes}
	if room > 0 {
		l.limit = int(min(sortBytes, room)) // no row of an index is counted in less
	}
	l.tx = &tx{s: s, kv: sink{l: l}, loading: true}
	return l, nil
}

func (s *Store) startLoading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loading {
		return false
	}
	s.loading, s.lost = true, map[feed.ID]bool{}
	return true
}

func (s *Store) stopLoading() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loading, s.lost = false, nil
}

// choose takes the feeds that a head brings further, and claims them.
func (l *Load) choose(heads []feed.Head) {
	for _, h := range heads {
		if h.Feed.Device == l.s.cfg.Device || h.Feed.IsDevice() {
			continue
		}
		release, ok := l.s.Claim(h.Feed)
		if !ok {
			continue
		}
		if st, _ := l.s.State(h.Feed); maySettle(st, h, false) != nil {
			release()
			continue
		}
		l.release = append(l.release, release)
		l.feeds = append(l.feeds, &arrival{head: h, loaded: Loaded{Head: h}})
	}
}

func (l *Load) begin() error {
	if len(l.feeds) == 0 {
		return ErrHeld
	}
	if err := l.number(); err != nil {
		return err
	}
	var err error
	if l.fresh, err = l.eng.Fresh(); err != nil {
		return err
	}
	for _, family := range inOrder {
		if err := l.copy(family); err != nil {
			return err
		}
	}
	return nil
}

// number gives the feeds numbers above all that are in use, in the order of their coming, so that their rows
// follow those of the store. Nothing of that is written but to the fresh files.
func (l *Load) number() error {
	l.s.writing.Lock() // nobody is about to take a number
	defer l.s.writing.Unlock()
	return l.s.eng.View(func(r kv.Reader) error {
		last, err := lastNum(r)
		if err != nil {
			return err
		}
		for _, a := range l.feeds {
			last++
			a.row = &row{num: last, state: feed.State{Feed: a.head.Feed}}
			a.tree = feed.NewBuilder(l.s.cfg.Shape, &nodes{w: l.tx.kv, shape: l.s.cfg.Shape, row: a.row})
			if l.s.follower != nil {
				a.files = l.s.follower.Fresh()
			}
			if old, err := l.s.numOf(a.head.Feed); err == nil {
				l.gone[old] = true
			}
		}
		l.s.topNum = last
		return nil
	})
}

// inOrder are the families whose rows come in their order, behind those that the store holds.
var inOrder = []byte{famEntry, famTomb, famTree}

// sink is where the rows of loaded entries go.
type sink struct {
	kv.Tx // only Set is ever called
	l     *Load
}

func (k sink) Set(key, value []byte) error {
	if slices.Contains(inOrder, key[0]) {
		return k.l.fresh.Rows(key[0]).Put(key, value)
	}
	return k.l.sorter(key[0]).add(key, value)
}

func (l *Load) sorter(family byte) *sorter {
	s, ok := l.sorted[family]
	if !ok {
		s = &sorter{dir: l.fresh.Dir(), family: family, limit: l.limit}
		l.sorted[family] = s
	}
	return s
}

// Takes reports whether the entries of a feed are wanted.
func (l *Load) Takes(id feed.ID) bool {
	return slices.ContainsFunc(l.feeds, func(a *arrival) bool { return a.head.Feed == id })
}

// Add puts in the next entries of a feed that the Load takes. It returns ErrMismatch as soon as it is known
// that the entries do not add up to the head. The slices are free again when it returns.
func (l *Load) Add(id feed.ID, entries []feed.Entry) error {
	for ; l.at < len(l.feeds) && l.feeds[l.at].head.Feed != id; l.at++ {
		if err := l.verify(l.feeds[l.at]); err != nil {
			return err
		}
	}
	if l.at == len(l.feeds) {
		return fmt.Errorf("load feed %v: not taken, or out of turn: %w", id, ErrMismatch)
	}
	a := l.feeds[l.at]
	for _, e := range entries {
		if e.Seq <= a.last || e.Seq > a.head.Seq || len(e.Key) == 0 || len(e.Key) > record.MaxKey || len(e.Record) == 0 || len(e.Record) > record.MaxRecord {
			return fmt.Errorf("load feed %v: entry at %d: %w", id, e.Seq, ErrMismatch)
		}
		a.last = e.Seq
		if err := l.add(a, e); err != nil {
			return fmt.Errorf("load feed %v: %w", id, err)
		}
	}
	return nil
}

func (l *Load) add(a *arrival, e feed.Entry) error {
	rec, err := accept(a.head.Feed, e.Key, e.Record)
	if err != nil {
		rec = nil
		a.loaded.Rejected++
		if len(a.loaded.Rejects) < maxRejects {
			a.loaded.Rejects = append(a.loaded.Rejects, Reject{bytes.Clone(e.Key), e.Seq, rejectReason(err)})
		}
	}
	if err := l.tx.keep(a.row, e, rec, nil); err != nil {
		return err
	}
	if f, ok := rec.(record.File); ok && a.files != nil {
		a.files.Put(f)
	}
	return a.tree.Add(feed.Ref{Seq: e.Seq, Digest: e.Digest()})
}

// verify settles a feed whose entries are all there.
func (l *Load) verify(a *arrival) error {
	root, height, err := a.tree.Finish(a.head.Seq)
	if err != nil {
		return fmt.Errorf("load feed %v: %w", a.head.Feed, err)
	}
	if a.own {
		a.head.Root, a.head.Count = root, a.tree.Count()
	} else if (root != a.head.Root || a.tree.Count() != a.head.Count) && !mutant.Is("load_skip_root") {
		return fmt.Errorf("load feed %v: %w", a.head.Feed, ErrMismatch)
	}
	a.row.height = height
	return nil
}

// copy writes a family as the store holds it.
func (l *Load) copy(family byte) error {
	out := l.fresh.Rows(family)
	return l.fresh.Held().Scan([]byte{family}, nil, func(k, v []byte) error {
		if l.left(k) {
			return nil
		}
		return out.Put(k, v)
	})
}

// left reports whether a row is one of a feed that is replaced.
func (l *Load) left(key []byte) bool {
	n, ok := numIn(key)
	return ok && l.gone[n]
}

// merge writes a family as the store holds it with what was loaded.
func (l *Load) merge(family byte) (err error) {
	s := l.sorter(family)
	rows, err := s.rows()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.close()) }()
	out := l.fresh.Rows(family)
	until := func(end []byte) error { // writes what was loaded below end
		for {
			k, v, ok := rows.row()
			if !ok || end != nil && bytes.Compare(k, end) >= 0 {
				return nil
			}
			if err := out.Put(k, v); err != nil {
				return err
			}
			if err := rows.drop(); err != nil {
				return err
			}
		}
	}
	err = l.fresh.Held().Scan([]byte{family}, nil, func(k, v []byte) error {
		if l.left(k) {
			return nil
		}
		if err := until(k); err != nil {
			return err
		}
		return out.Put(k, v)
	})
	if err == nil {
		err = until(nil)
	}
	if errors.Is(err, kv.ErrOrder) {
		return fmt.Errorf("one key stands for two entries: %w", ErrMismatch) // nothing else makes a row twice
	}
	return errors.Join(err, out.End())
}

// finish writes all that did not come in order.
func (l *Load) finish() error {
	for ; l.at < len(l.feeds) && !mutant.Is("switch_unverified"); l.at++ {
		if err := l.verify(l.feeds[l.at]); err != nil {
			return err
		}
	}
	for _, family := range inOrder {
		if err := l.fresh.Rows(family).End(); err != nil {
			return err
		}
	}
	for family := 0; family <= 0xFF; family++ {
		if f := byte(family); !slices.Contains(inOrder, f) {
			if err := l.merge(f); err != nil {
				return err
			}
			if err := l.sorted[f].free(); err != nil {
				return err
			}
		}
	}
	return l.fresh.Finish()
}

// Install verifies what has come, finishes the fresh files, and puts them in the place of the old ones, which
// are removed once nobody reads them any more. admit returns the generation of the membership under which
// whoever sent it is a member; it is asked again if that has changed by the last moment. nil: nobody sent it.
// within, if set, is called last in the transaction that does it: event rows and the like (rule 5). Unless
// Install returns nil, the store is as it was; ErrMismatch says that the entries do not add up, ErrStale that
// the feeds or the library have moved on. It blocks; others write meanwhile, but for the last moment. Close the
// Load all the same.
func (l *Load) Install(admit func() (generation uint64, err error), within func(kv.Tx, []Loaded) error) ([]Loaded, error) {
	failpoint.At(failpoint.C12)
	if err := l.finish(); err != nil {
		return nil, err
	}
	for range 10 { // times, while so much is written that it pays to do it before others must wait
		rows, err := l.catchUp()
		if err != nil {
			return nil, err
		}
		if rows < 1000 {
			break
		}
	}
	defer l.s.soil() // whatever came of the switch, the next Sync tells
	for {
		var admitted uint64
		if admit != nil {
			var err error
			if admitted, err = admit(); err != nil {
				return nil, err
			}
		}
		if out, err := l.replace(admitted, within); !errors.Is(err, ErrGeneration) {
			return out, err
		}
	}
}

// replace is the last moment, in which nobody else writes.
func (l *Load) replace(admitted uint64, within func(kv.Tx, []Loaded) error) (out []Loaded, err error) {
	l.s.writing.Lock()
	defer l.s.writing.Unlock()
	if err := l.tx.admitted(admitted); err != nil {
		return nil, err
	}
	if mutant.Is("retire_first") {
		l.fresh.Retire()
	}
	err = l.fresh.Switch(func() error {
		if _, err := l.catchUp(); err != nil {
			return err
		}
		if out, err = l.commit(within); err != nil || mutant.Is("switch_volatile") {
			return err
		}
		return l.fresh.Sync()
	})
	if err != nil {
		return nil, err
	}
	l.show()
	return out, nil
}

// catchUp takes over what was written since the Load began.
func (l *Load) catchUp() (rows int, err error) {
	if mutant.Is("left_behind") {
		return 0, nil
	}
	return l.fresh.CatchUp(l.left)
}

// commit settles the feeds in the fresh content; nobody writes to the store.
func (l *Load) commit(within func(kv.Tx, []Loaded) error) (out []Loaded, err error) {
	library := l.s.Library()
	l.s.mu.Lock()
	for _, a := range l.feeds {
		now, ok := l.s.rows[a.head.Feed]
		a.dropped = !ok && l.s.lost[a.head.Feed]
		switch {
		case a.dropped:
			continue
		case a.own && l.s.frozen:
			err = ErrFrozen
		case a.own && ok:
			err = ErrStale
		case a.own:
			a.head.Library = library
			a.head = l.s.cfg.Sign(a.head)
		case a.head.Library != library || ok && maySettle(now.state, a.head, false) != nil:
			err = ErrStale
		}
		if ok {
			a.row.state.Best = now.state.Best
		}
		a.row.settle(a.head)
		a.loaded.Counts = a.row.counts
		out = append(out, a.loaded)
	}
	l.s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return out, l.fresh.Update(func(tx kv.Tx) error {
		last, err := lastNum(tx)
		if err != nil {
			return err
		}
		if err := setLastNum(tx, max(last, l.feeds[len(l.feeds)-1].row.num)); err != nil {
			return err
		}
		for _, a := range l.feeds {
			key, value := feedKey(a.head.Feed), a.row.encode()
			if a.dropped {
				key, value = a.row.num.key(famDropped, 0), nil
			}
			if err := tx.Set(key, value); err != nil {
				return err
			}
		}
		if within == nil {
			return nil
		}
		return within(tx, out)
	})
}

// show goes on with the fresh content: everybody who looks from now on sees what was loaded.
func (l *Load) show() {
	l.fresh.Retire()
	l.s.unseen = nil // it knows nothing of what was loaded
	for _, a := range l.feeds {
		if !a.dropped && a.files != nil {
			l.s.follower.Replaced(a.head.Feed, a.files)
		}
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for _, a := range l.feeds {
		if !a.dropped {
			l.s.rows[a.head.Feed] = a.row
		}
	}
	l.s.commits++
}

// Close gives back what the Load has taken. What was not installed is removed, and is as if it had never been.
func (l *Load) Close() (err error) {
	if l.fresh != nil {
		err = l.fresh.Close()
	}
	for _, release := range l.release {
		release()
	}
	l.fresh, l.release = nil, nil
	return err
}
