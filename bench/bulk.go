package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"peerdex/catalog"
	"peerdex/feed"
	"peerdex/node"
	"peerdex/record"
	"peerdex/store"
)

// What the bulk roads may take for bulkEntries entries. Of more or fewer, what grows with them is held
// against as much more or less.
const (
	bulkEntries = 1_000_000
	commitBar   = bulkEntries / 200_000 // seconds
	pagesBar    = 15                    // seconds
	wireBar     = 75                    // MiB
	memoryBar   = 700                   // MiB
	fewEntries  = bulkEntries / 100     // beside which the cost of an entry is held
	catchUpOf   = 10_000                // changes
	diffOf      = 100                   // differences
)

// bulk measures the roads by which many entries travel. A device that is away has made them: its feeds are
// written by the store's own code into the homes of two others, one of which then serves what the other lacks.
func (b *bench) bulk(ctx context.Context) error {
	var commit, pages, wire, caught, caughtWire, diffed, diffWire, restart, donor, taker []float64
	var fewCommit, fewPages, fewCPU, manyCommit, manyPages, manyCPU, size []float64
	for i := range b.runs {
		note("bulk: run %d of %d", i+1, b.runs)
		few, err := b.library(ctx, min(fewEntries, b.entries), min(fewEntries, b.entries)/10, uint64(2*i))
		if err != nil {
			return err
		}
		less, err := few.join(ctx)
		if err != nil {
			return err
		}
		if err := less.stop(ctx); err != nil {
			return err
		}
		fewCommit = append(fewCommit, few.commit.Seconds()*1e6/float64(few.entries))
		fewPages = append(fewPages, less.took.Seconds()*1e6/float64(few.entries))
		fewCPU = append(fewCPU, less.used.Seconds()*1e6/float64(few.entries))

		l, err := b.library(ctx, b.entries, b.entries/10, uint64(2*i+1))
		if err != nil {
			return err
		}
		commit, size = append(commit, l.commit.Seconds()), append(size, l.size)
		manyCommit = append(manyCommit, l.commit.Seconds()*1e6/float64(l.entries))
		whole, err := l.join(ctx)
		if err != nil {
			return err
		}
		peaks, err := whole.peaks()
		if err != nil {
			return err
		}
		donor, taker = append(donor, peaks[0]), append(taker, peaks[1])
		pages, wire = append(pages, whole.took.Seconds()), append(wire, float64(whole.bytes)/(1<<20))
		manyPages = append(manyPages, whole.took.Seconds()*1e6/float64(l.entries))
		manyCPU = append(manyCPU, whole.used.Seconds()*1e6/float64(l.entries))
		if err := whole.stop(ctx); err != nil {
			return err
		}

		if err := l.change(catchUpOf, false); err != nil {
			return err
		}
		delta, err := l.join(ctx)
		if err != nil {
			return err
		}
		caught, caughtWire = append(caught, delta.took.Seconds()), append(caughtWire, float64(delta.bytes)/(1<<20))
		if err := delta.stop(ctx); err != nil {
			return err
		}

		if err := l.change(diffOf, true); err != nil {
			return err
		}
		diff, err := l.join(ctx)
		if err != nil {
			return err
		}
		diffed, diffWire = append(diffed, diff.took.Seconds()), append(diffWire, float64(diff.bytes)/(1<<20))
		took, err := diff.restart(ctx)
		if err != nil {
			return err
		}
		restart = append(restart, took.Seconds())
		if err := diff.stop(ctx); err != nil {
			return err
		}
		if err := errors.Join(few.remove(), l.remove()); err != nil {
			return err
		}
	}
	share := float64(b.entries) / bulkEntries
	of := fmt.Sprintf("%d entries of %.0f bytes", b.entries, median(size))
	among := fmt.Sprintf(" among %d", b.entries)
	b.table.add(figure{what: "local commit of " + of + ", durable", unit: "s", got: commit, bar: commitBar * share})
	b.table.add(figure{what: of + " by pages into a store that is not empty, until they are found", unit: "s", got: pages, bar: pagesBar * share})
	b.table.add(figure{what: "all bytes of that", unit: "MiB", got: wire, bar: wireBar * share})
	b.table.add(figure{what: "peak memory of the device that serves them", unit: "MiB", got: donor, bar: memoryBar})
	b.table.add(figure{what: "peak memory of the device that takes them", unit: "MiB", got: taker, bar: memoryBar})
	b.table.add(figure{what: fmt.Sprintf("catch-up of %d changes", catchUpOf) + among, unit: "s", got: caught, bar: 1})
	b.table.add(figure{what: "all bytes of that", unit: "MiB", got: caughtWire, bar: 2})
	b.table.add(figure{what: fmt.Sprintf("tree diff of %d scattered differences", diffOf) + among, unit: "s", got: diffed, bar: 0.5})
	b.table.add(figure{what: "all bytes of that", unit: "MiB", got: diffWire, bar: 0.7})
	b.table.add(figure{what: "start of the daemon until it is ready" + among, unit: "s", got: restart, bar: 2})
	peer := fmt.Sprintf("of %d", min(fewEntries, b.entries))
	b.table.add(figure{what: "an entry of the local commit", unit: "µs", got: manyCommit, peer: peer, of: fewCommit, bar: 4.0 / 3, strict: true})
	b.table.add(figure{what: "an entry by pages", unit: "µs", got: manyPages, peer: peer, of: fewPages, bar: 4.0 / 3, strict: true})
	b.table.add(figure{what: "the same in CPU time of both devices", unit: "µs", got: manyCPU, peer: peer, of: fewCPU})
	return nil
}

// library is three devices: one serves, one lacks, and one that is away has written what it is about.
type library struct {
	b             *bench
	entries       int
	serves, lacks *daemon // not running
	away          owner
	feed          feed.ID
	files         []record.File
	newest        string // name of the file written last
	missing       uint64 // seqs that the one lacks and the other serves
	commit        time.Duration
	size          float64 // bytes of key and record, on average
}

// library makes the homes. The device that serves holds all entries, and it and the one that lacks them held
// of another location.
func (b *bench) library(ctx context.Context, entries, held int, seed uint64) (*library, error) {
	all, err := b.three(ctx)
	if err != nil {
		return nil, err
	}
	l := &library{b: b, entries: entries, serves: all[0], lacks: all[1], missing: uint64(entries)}
	if l.away, err = readOwner(all[2].home); err != nil {
		return nil, err
	}
	l.feed = feed.ID{Device: l.away.id, Location: record.LocationID{1}}
	other := feed.ID{Device: l.away.id, Location: record.LocationID{2}}
	l.files = randomFiles(entries, seed)
	l.newest = l.files[entries-1].Name
	for _, f := range l.files {
		l.size += float64(len(f.Key())+len(f.Append(nil))) / float64(entries)
	}
	own, err := l.away.open()
	if err != nil {
		return nil, err
	}
	defer own.Close() // again does nothing
	if l.commit, err = scan(ctx, own, l.feed, l.files); err != nil {
		return nil, err
	}
	if _, err := scan(ctx, own, other, randomFiles(held, seed+1<<32)); err != nil {
		return nil, err
	}
	for i, id := range []feed.ID{l.feed, other} {
		if err := l.away.declare(own, id.Location, fmt.Sprintf("/srv/%d", i+1)); err != nil {
			return nil, err
		}
	}
	both := []feed.ID{{Device: l.away.id}, other}
	if held == 0 {
		both = both[:1]
	}
	err = into(l.serves, func(s *store.Store) error { return bring(own, s, append(both, l.feed)...) })
	if err == nil {
		err = into(l.lacks, func(s *store.Store) error { return bring(own, s, both...) })
	}
	return l, errors.Join(err, own.Close())
}

// remove frees the disk of the devices, none of which runs.
func (l *library) remove() error {
	return errors.Join(os.RemoveAll(l.serves.home), os.RemoveAll(l.lacks.home), os.RemoveAll(l.away.home))
}

// three makes a library of three devices that know each other, and ends them.
func (b *bench) three(ctx context.Context) (all [3]*daemon, err error) {
	for i, name := range []string{"serves", "lacks", "away"} {
		home, err := b.fresh("home-")
		if err != nil {
			return all, err
		}
		port, err := freePort()
		if err != nil {
			return all, err
		}
		if all[i], err = b.start(ctx, name, home, port); err != nil {
			return all, err
		}
		if i == 0 {
			continue
		}
		if err := pair(ctx, all[0], all[i], all[1:i]...); err != nil {
			return all, err
		}
	}
	return all, errors.Join(all[2].stop(ctx), all[1].stop(ctx), all[0].stop(ctx))
}

// into opens the store of a daemon that does not run, for as long as do takes.
func into(d *daemon, do func(*store.Store) error) error {
	o, err := readOwner(d.home)
	if err != nil {
		return err
	}
	s, err := o.open()
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Sync(), s.Close())
}

// scan commits new files as an indexer does, in its batches, with the names followed and the log made durable
// beside it as in the daemon, and returns how long it took until all was durable.
func scan(ctx context.Context, s *store.Store, id feed.ID, files []record.File) (time.Duration, error) {
	names := catalog.New(s)
	load, err := names.Follow()
	if err != nil {
		return 0, err
	}
	if err := load(ctx); err != nil {
		return 0, err
	}
	done, synced := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-s.Dirty():
			case <-done:
				synced <- nil
				return
			}
			if err := s.Sync(); err != nil {
				synced <- err
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	const batch = 2000
	facts := make([]byte, 10)
	start := time.Now()
	w := catalog.NewWriter(s, id)
	for at := 0; at < len(files) && err == nil; at += batch {
		puts := make([]store.Put, 0, batch)
		for _, f := range files[at:min(at+batch, len(files))] {
			puts = append(puts, store.Put{Record: f, Local: facts, New: true})
		}
		err = w.Write(puts)
	}
	err = errors.Join(err, w.Hurry(), w.Close())
	close(done)
	err = errors.Join(err, <-synced, s.Sync())
	return time.Since(start), err
}

// bring takes what from holds of the feeds into to, by the door that all entries come in by.
func bring(from, to *store.Store, feeds ...feed.ID) error {
	for _, id := range feeds {
		if err := bringFeed(from, to, id); err != nil {
			return err
		}
	}
	return nil
}

func bringFeed(from, to *store.Store, id feed.ID) error {
	v, err := from.Serve(id)
	if err != nil {
		return err
	}
	defer v.Close()
	head := *v.State.Settled
	if _, err := to.Observe([]feed.Head{head}, 0); err != nil {
		return err
	}
	at := uint64(0)
	if st, _ := to.State(id); st.Settled != nil {
		at = st.Settled.Seq
	}
	const page = 500 // changes all over touch as many leaves, which a transaction must hold
	c := store.Change{Feed: id}
	err = v.After(at, func(e feed.Entry) error {
		if len(c.Entries) == page {
			c.Cursor = &feed.Cursor{Seq: c.Entries[page-1].Seq, GC: head.GC, High: head.Seq}
			if _, err := to.Apply(c); err != nil {
				return err
			}
			c = store.Change{Feed: id}
		}
		c.Entries = append(c.Entries, e)
		return nil
	})
	if err != nil {
		return err
	}
	c.Settle = &head
	_, err = to.Apply(c)
	return err
}

// change renames some of the files, all over, at the device that is away and brings that to the one that
// serves. collected says that the owner has dropped what led there, so that whoever lacks it compares trees.
func (l *library) change(n int, collected bool) error {
	own, err := l.away.open()
	if err != nil {
		return err
	}
	defer own.Close()
	r := rand.New(rand.NewPCG(uint64(n), 2))
	n = min(n, l.entries)
	puts := make([]store.Put, 0, n)
	for _, i := range r.Perm(l.entries)[:n] {
		f := &l.files[i]
		f.Name = fmt.Sprintf("renamed_%06x_%s", i, f.Name[:min(len(f.Name), 20)])
		l.newest = f.Name
		puts = append(puts, store.Put{Record: *f})
	}
	l.missing = uint64(n)
	head, err := own.Commit(l.feed, puts)
	if err == nil && collected {
		_, err = own.Collect(l.feed, head.Seq)
	}
	if err != nil {
		return err
	}
	return into(l.serves, func(s *store.Store) error { return bring(own, s, l.feed) })
}

// joined is both devices once the one lacks nothing that the other has.
type joined struct {
	pairing
	b     *bench
	took  time.Duration // from when sync was let go
	used  time.Duration // CPU time of both meanwhile
	bytes int64         // both ways, TCP payload
	way   between
}

// join starts both devices, with sync paused where entries are lacking until they have met, and measures from
// when it goes on until nothing is lacking and the file written last is found.
func (l *library) join(ctx context.Context) (j joined, err error) {
	flush()
	j.b = l.b
	old := [2]int{l.serves.port, l.lacks.port}
	var ports [2]int
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return j, err
		}
	}
	if j.z, err = l.b.start(ctx, "lacks", l.lacks.home, ports[1]); err != nil {
		return j, err
	}
	if _, err := j.z.client.Pause(ctx, "", 0); err != nil {
		return j, err
	}
	for i := range ports {
		p, err := newProxy(old[i], ports[i])
		if err != nil {
			return j, err
		}
		j.way = append(j.way, p)
	}
	if j.a, err = l.b.start(ctx, "serves", l.serves.home, ports[0]); err != nil {
		return j, err
	}
	l.serves, l.lacks = j.a, j.z
	if err := j.lacking(ctx, "it has heard what it lacks", func(n uint64) bool { return n >= l.missing }); err != nil {
		return j, err
	}
	if err := l.found(ctx, j.a); err != nil {
		return j, err
	}
	if n, err := l.find(ctx, j.z); err != nil || n != 0 { // and so that the names of both are in memory
		return j, errors.Join(err, fmt.Errorf("%d files are there before they have come", n))
	}
	before := j.way.quiet(300 * time.Millisecond)
	idle, err := j.cpu()
	if err != nil {
		return j, err
	}
	start := time.Now()
	if _, err := j.z.client.Resume(ctx, ""); err != nil {
		return j, err
	}
	if err := j.lacking(ctx, "it lacks nothing", func(n uint64) bool { return n == 0 }); err != nil {
		return j, err
	}
	if err := l.found(ctx, j.z); err != nil {
		return j, err
	}
	j.took = time.Since(start)
	if j.used, err = j.cpu(); err != nil {
		return j, err
	}
	j.used -= idle
	j.bytes = j.way.quiet(time.Second) - before
	if j.way.conns() == 0 {
		return j, errors.New("the peers did not meet through the proxies")
	}
	return j, nil
}

// cpu returns what CPU time both have used so far.
func (j joined) cpu() (time.Duration, error) {
	a, err := cpu(j.a.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	z, err := cpu(j.z.cmd.Process.Pid)
	return a + z, err
}

// peaks returns the most memory that either has held, in MiB.
func (j joined) peaks() (out [2]float64, err error) {
	for i, d := range []*daemon{j.a, j.z} {
		_, peak, err := memory(d.cmd.Process.Pid)
		if err != nil {
			return out, err
		}
		out[i] = float64(peak) / (1 << 20)
	}
	return out, nil
}

func (j joined) stop(ctx context.Context) error {
	defer j.way.Close()
	return j.pairing.stop(ctx)
}

// lacking waits until what the second lacks of the first fits.
func (j joined) lacking(ctx context.Context, what string, fits func(uint64) bool) error {
	return j.z.await(ctx, 5*time.Millisecond, what, func() (bool, error) {
		st, err := j.z.client.Status(ctx)
		for _, v := range st.Devices {
			if v.Name == "serves" && v.WeLack != nil {
				return fits(*v.WeLack), err
			}
		}
		return false, err
	})
}

// found fails unless a device finds the file that was written last.
func (l *library) found(ctx context.Context, d *daemon) error {
	n, err := l.find(ctx, d)
	if err == nil && n != 1 {
		err = fmt.Errorf("%s finds %q %d times", d.name, l.newest, n)
	}
	return err
}

// find returns how many files have the name of the one written last.
func (l *library) find(ctx context.Context, d *daemon) (uint64, error) {
	found, err := d.client.Find(ctx, node.FindQuery{Text: l.newest}, func(node.Entry) error { return nil })
	return found.Found, err
}

// restart ends the second and returns how long it takes from its start until it is ready.
func (j *joined) restart(ctx context.Context) (took time.Duration, err error) {
	if err := j.z.stop(ctx); err != nil {
		return 0, err
	}
	start := time.Now()
	if j.z, err = j.b.start(ctx, j.z.name, j.z.home, j.z.port); err != nil {
		return 0, err
	}
	err = j.z.await(ctx, 5*time.Millisecond, "it is ready", func() (bool, error) {
		st, err := j.z.client.Status(ctx)
		return st.State == node.StateReady, err
	})
	return time.Since(start), err
}

// randomFiles makes files with random IDs and hashes in the order in which a scan writes them: folder by folder,
// about twenty in each, up to eight deep.
func randomFiles(n int, seed uint64) []record.File {
	r := rand.New(rand.NewPCG(seed, 3))
	fill := func(b []byte) {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
	type dir struct {
		id    record.EntryID
		depth int
	}
	dirs, in, out := []dir{{}}, dir{}, make([]record.File, n)
	for i := range out {
		f := &out[i]
		fill(f.ID[:])
		f.Name = name(r, i, ".jpg")
		if i%20 == 0 {
			for in = dirs[r.IntN(len(dirs))]; in.depth == 7; in = dirs[r.IntN(len(dirs))] {
			}
			f.Parent, f.Kind, f.Mode = in.id, record.Directory, 0o755
			in = dir{f.ID, in.depth + 1}
			dirs = append(dirs, in)
			continue
		}
		f.Parent, f.Kind, f.Mode = in.id, record.Regular, 0o644
		f.Size, f.ModTime = r.Uint64N(10_000_000), 1_700_000_000_000_000_000+r.Int64N(1e17)
		fill(f.Hash[:])
	}
	return out
}
