package snapshot

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/store"
)

// Taker brings snapshots into a store. Its fields are set once.
type Taker struct {
	Store   *store.Store
	Library feed.LibraryID
	Shape   feed.Shape // of the library's trees
	// Wants reports whether a feed is to be taken if it brings this device further.
	Wants func(feed.ID) bool
	// Admit returns the generation of the membership under which the donor is a member, or why it is none; nil
	// for a snapshot that nobody sends.
	Admit func() (generation uint64, err error)
	// Within, if set, is called in the transaction that shows loaded location feeds: event rows and the like.
	Within func(kv.Tx, []store.Loaded) error
	// Applied, if set, is called in each transaction that brings a device feed further.
	Applied func(tx kv.Tx, settling bool, res *store.Result) error
	// Committed, if set, is told of each of those transactions when it is through.
	Committed func(store.Result)
	// Serial makes Take do one thing after another on the goroutine that calls it: no chunk is received or
	// unpacked while another is put in.
	Serial bool
	// Progress is told how far it is, after each chunk and when the phase changes; it must not block.
	Progress func(Progress)
}

// Phase says what is being done.
type Phase string

// Phases follow one another in this order.
const (
	Preparing  Phase = "preparing"  // the donor makes the file; not of one that is here
	Verifying  Phase = "verifying"  // all of a file is read, and nothing taken: what Verify does
	Loading    Phase = "loading"    // chunks come, are verified and put in
	Installing Phase = "installing" // all are here; indexes are written and the files switched
	Applying   Phase = "applying"   // device feeds
)

// Progress is how far a snapshot has been taken, or handed out.
type Progress struct {
	Phase   Phase
	Records uint64 // entries put in, or sent
	Total   uint64 // entries that are wanted
	Bytes   int64  // of their chunks
	Of      int64  // bytes of all chunks that are wanted
}

// Taken is what came of a snapshot.
type Taken struct {
	Loaded  []store.Loaded // location feeds
	Applied []feed.Head    // device feeds
}

// buffers is how many chunks wait decompressed or are being put in; as many wait compressed.
const buffers = 3

// TakeMemory is how many bytes Take and Verify take besides what comes in on the stream: chunks under way, the manifest
// as read, and what the store needs to load.
const TakeMemory = 2*buffers*MaxChunk + 2*MaxManifest + store.LoadMemory

// plan is what is wanted of a snapshot.
type plan struct {
	load    *store.Load // nil: no location feed
	feeds   []wanted
	entries uint64
	size    int64
}

type wanted struct {
	Feed
	first int // number of its first chunk in the whole snapshot
}

// Source is where the chunks of a snapshot come from. They go by their numbers in the whole snapshot.
type Source interface {
	// Want announces the chunks that will be asked for, in order.
	Want(numbers []int) error
	// Chunk returns a chunk, verified or not. Those of device feeds are asked for a second time after all others.
	Chunk(i int) ([]byte, error)
}

// Verify reads all of a snapshot and returns nil only if every feed in it is what its owner signed, and the disk has
// room for as much of it as Wants may ask for. It changes nothing. Errors are those of Take but for store.ErrHeld.
func (t *Taker) Verify(ctx context.Context, m Manifest, from Source) error {
	if m.Library != t.Library {
		return ErrLibrary
	}
	var (
		p     plan
		room  uint64
		first int
	)
	for _, f := range m.Feeds {
		if err := t.Store.Check(f.Head); err != nil {
			return err
		}
		if st, _ := t.Store.State(f.Head.Feed); t.loads(f) && st.DecideRoute(f.Head, false).Road != feed.RoadNone {
			room += f.room()
		}
		p.add(f, first)
		first += len(f.Chunks)
	}
	if room > 0 {
		if err := t.Store.RoomToLoad(room); err != nil {
			return err
		}
	}
	done := Progress{Phase: Verifying, Total: p.entries, Of: p.size}
	t.Progress(done)
	return t.put(ctx, p, from, &done)
}

// entryRaw is about how many bytes an entry takes decompressed, where names are of usual length.
const entryRaw = 160

// RoomToTake returns store.ErrNoSpace, in a *store.SpaceError, unless the disk has room to take a snapshot of so many
// entries into s: so much as it usually takes, since that is known for sure only once a donor has offered one.
func RoomToTake(s *store.Store, entries uint64) error {
	return s.RoomToLoad(entries * (entrySize + entryRaw + store.LoadOverhead))
}

// loads reports whether a feed is one to load, if it brings this device further.
func (t *Taker) loads(f Feed) bool {
	return f.Head.Feed.Device != t.Store.Device() && !f.Head.Feed.IsDevice() && t.Wants(f.Head.Feed)
}

// room is how many bytes of disk it takes to load f.
func (f Feed) room() (bytes uint64) {
	for _, c := range f.Chunks {
		bytes += uint64(c.Raw + c.Size + c.Entries*store.LoadOverhead)
	}
	return bytes
}

// Take brings in what a snapshot has that the store lacks. Location feeds are loaded into fresh files and show all
// at once, after every feed wanted has been verified; then device feeds are brought further through
// store.Apply. Until then the store is as it was, whatever the error: ErrCorrupt, ErrLibrary, store.ErrMismatch,
// feed.ErrSignature, store.ErrNoSpace, store.ErrHeld if there is nothing to take, that of the source, or
// of ctx.
func (t *Taker) Take(ctx context.Context, m Manifest, from Source) (out Taken, err error) {
	p, err := t.plan(m)
	if err != nil {
		return out, err
	}
	if p.load != nil {
		defer func() { err = errors.Join(err, p.load.Close()) }()
	}
	if err := from.Want(p.numbers()); err != nil {
		return out, err
	}
	done := Progress{Phase: Loading, Total: p.entries, Of: p.size}
	t.Progress(done)
	if err := t.put(ctx, p, from, &done); err != nil {
		return out, err
	}
	if p.load != nil {
		done.Phase = Installing
		t.Progress(done)
		if out.Loaded, err = p.load.Install(t.Admit, t.Within); err != nil {
			return out, err
		}
	}
	done.Phase = Applying
	t.Progress(done)
	for _, f := range p.feeds {
		if f.Head.Feed.IsDevice() {
			settled, err := t.apply(f, from)
			if err != nil {
				return out, err
			}
			if settled {
				out.Applied = append(out.Applied, f.Head)
			}
		}
	}
	return out, nil
}

// plan finds out what of a snapshot brings the store further, and begins to load it.
func (t *Taker) plan(m Manifest) (p plan, err error) {
	if m.Library != t.Library {
		return p, ErrLibrary
	}
	var (
		heads []feed.Head
		found []wanted
		room  uint64
		first int
	)
	for _, f := range m.Feeds {
		f, at := f, first
		first += len(f.Chunks)
		if f.Head.Feed.Device == t.Store.Device() || !t.Wants(f.Head.Feed) {
			continue
		}
		if f.Head.Feed.IsDevice() {
			if err := t.Store.Check(f.Head); err != nil {
				return p, err
			}
			if st, _ := t.Store.State(f.Head.Feed); st.DecideRoute(f.Head, false).Road != feed.RoadDelta {
				continue
			}
		} else {
			heads = append(heads, f.Head)
			room += f.room()
		}
		found = append(found, wanted{f, at})
	}
	if len(heads) > 0 {
		if p.load, err = t.Store.Load(heads, room); err != nil && !errors.Is(err, store.ErrHeld) {
			return p, err
		}
	}
	for _, f := range found {
		if f.Head.Feed.IsDevice() || p.load != nil && p.load.Takes(f.Head.Feed) {
			p.add(f.Feed, f.first)
		}
	}
	if len(p.feeds) == 0 {
		return p, store.ErrHeld
	}
	return p, nil
}

// add wants a feed whose first chunk has that number.
func (p *plan) add(f Feed, first int) {
	p.feeds = append(p.feeds, wanted{f, first})
	p.entries += f.Head.Count
	for _, c := range f.Chunks {
		p.size += int64(c.Size)
	}
}

// numbers returns which chunks are wanted, in order.
func (p plan) numbers() (out []int) {
	for _, f := range p.feeds {
		for k := range f.Chunks {
			out = append(out, f.first+k)
		}
	}
	return out
}

// each calls fn for the chunks wanted, in order, until it returns an error.
func (p plan) each(fn func(received) error) error {
	for i, f := range p.feeds {
		for k, c := range f.Chunks {
			if err := fn(received{feed: i, number: f.first + k, chunk: c}); err != nil {
				return err
			}
		}
	}
	return nil
}

// received is a chunk on its way to where it is decompressed.
type received struct {
	feed, number int
	chunk        Chunk
	bytes        []byte
}

// page is a chunk on its way from where it is decompressed to where it is put in.
type page struct {
	feed    int
	chunk   Chunk
	buf     []byte
	entries []feed.Entry
}

func (pg *page) unpack(r received) (err error) {
	pg.feed, pg.chunk = r.feed, r.chunk
	pg.buf, pg.entries, err = unpack(r.bytes, r.chunk, pg.buf, pg.entries)
	return err
}

// put verifies all that is wanted and loads the location feeds.
func (t *Taker) put(ctx context.Context, p plan, from Source, done *Progress) error {
	v := verifier{t: t, p: p}
	one := func(pg *page) error {
		if err := v.add(pg); err != nil {
			return err
		}
		done.Records += uint64(len(pg.entries))
		done.Bytes += int64(pg.chunk.Size)
		t.Progress(*done)
		return nil
	}
	all := ahead
	if t.Serial {
		all = inTurn
	}
	if err := all(ctx, p, from, one); err != nil {
		return err
	}
	return v.finish(len(p.feeds))
}

// inTurn gets each chunk wanted, and puts it in.
func inTurn(ctx context.Context, p plan, from Source, put func(*page) error) error {
	pg := new(page)
	return p.each(func(r received) (err error) {
		if r.bytes, err = from.Chunk(r.number); err != nil {
			return err
		}
		if err := pg.unpack(r); err != nil {
			return err
		}
		return errors.Join(put(pg), ctx.Err())
	})
}

// ahead gets and unpacks chunks while those before are put in.
func ahead(ctx context.Context, p plan, from Source, put func(*page) error) error {
	g, ctx := errgroup.WithContext(ctx)
	got := make(chan received, buffers-1)
	ready := make(chan *page, buffers)
	free := make(chan *page, buffers)
	for range buffers {
		free <- new(page)
	}
	g.Go(func() error {
		defer close(got)
		return p.each(func(r received) (err error) {
			if r.bytes, err = from.Chunk(r.number); err != nil {
				return err
			}
			select {
			case got <- r:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	g.Go(func() error {
		defer close(ready)
		for r := range got {
			var pg *page
			select {
			case pg = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := pg.unpack(r); err != nil {
				return err
			}
			ready <- pg // there is room: no more pages than that exist
		}
		return nil
	})
	g.Go(func() error {
		for pg := range ready {
			if err := put(pg); err != nil {
				return err
			}
			free <- pg
		}
		return ctx.Err()
	})
	return g.Wait()
}

// verifier puts entries in, feed by feed: those of device feeds, and where nothing is loaded all, nowhere.
type verifier struct {
	t    *Taker
	p    plan
	at   int           // of the feed that is coming
	tree *feed.Builder // of a feed that is not loaded
	last uint64
}

func (v *verifier) add(pg *page) error {
	if err := v.finish(pg.feed); err != nil {
		return err
	}
	id := v.p.feeds[v.at].Head.Feed
	if v.loaded(id) {
		return v.p.load.Add(id, pg.entries)
	}
	if v.tree == nil {
		v.tree, v.last = feed.NewBuilder(v.t.Shape, nil), 0
	}
	for _, e := range pg.entries {
		if e.Seq <= v.last {
			return fmt.Errorf("feed %v: entry at %d: %w", id, e.Seq, store.ErrMismatch)
		}
		v.last = e.Seq
		if err := v.tree.Add(feed.Ref{Seq: e.Seq, Digest: e.Digest()}); err != nil {
			return err
		}
	}
	return nil
}

// loaded reports whether the entries of a feed go to the Load, which verifies them.
func (v *verifier) loaded(id feed.ID) bool { return v.p.load != nil && !id.IsDevice() }

// finish verifies the feeds before feed i that are not loaded.
func (v *verifier) finish(i int) error {
	for ; v.at < i; v.at++ {
		h := v.p.feeds[v.at].Head
		if v.loaded(h.Feed) {
			continue
		}
		if v.tree == nil {
			v.tree = feed.NewBuilder(v.t.Shape, nil)
		}
		root, _, err := v.tree.Finish(h.Seq)
		if err != nil {
			return err
		}
		if root != h.Root || v.tree.Count() != h.Count {
			return fmt.Errorf("feed %v: %w", h.Feed, store.ErrMismatch)
		}
		v.tree = nil
	}
	return nil
}

// applyEntries is how many entries of a device feed one transaction takes; it is divided where they are large.
const applyEntries = 4000

// apply brings a device feed further, as a delta does; false if somebody else has meanwhile.
func (t *Taker) apply(f wanted, from Source) (settled bool, err error) {
	id := f.Head.Feed
	release, ok := t.Store.Claim(id)
	if !ok {
		return false, nil
	}
	defer release()
	st, _ := t.Store.State(id)
	route := st.DecideRoute(f.Head, false)
	if route.Road != feed.RoadDelta {
		return false, nil
	}
	var held []feed.Entry
	for k, c := range f.Chunks {
		b, err := from.Chunk(f.first + k)
		if err != nil {
			return false, err
		}
		_, entries, err := unpack(b, c, nil, nil)
		if err != nil {
			return false, err
		}
		for _, e := range entries {
			if e.Seq > route.From {
				held = append(held, e)
			}
		}
		for len(held) > applyEntries {
			if err := t.change(f.Head, held[:applyEntries], false); err != nil {
				return false, err
			}
			held = held[applyEntries:]
		}
	}
	return true, t.change(f.Head, held, true)
}

// change applies entries that come next in a delta to head h; the last settle it.
func (t *Taker) change(h feed.Head, entries []feed.Entry, last bool) error {
	c := store.Change{Feed: h.Feed, Entries: entries}
	if last {
		c.Settle = &h
	} else {
		c.Cursor = &feed.Cursor{Seq: entries[len(entries)-1].Seq, GC: h.GC, High: h.Seq}
	}
	if t.Applied != nil {
		c.Within = func(tx kv.Tx, res *store.Result) error { return t.Applied(tx, last, res) }
	}
	for {
		if t.Admit != nil {
			var err error
			if c.Admitted, err = t.Admit(); err != nil {
				return err
			}
		}
		res, err := t.Store.Apply(c)
		switch {
		case err == nil && t.Committed != nil:
			t.Committed(res)
		case errors.Is(err, store.ErrGeneration):
			continue
		case errors.Is(err, kv.ErrTooBig) && len(entries) > 1:
			n := len(entries) / 2
			if err := t.change(h, entries[:n], false); err != nil {
				return err
			}
			return t.change(h, entries[n:], last)
		}
		return err
	}
}
