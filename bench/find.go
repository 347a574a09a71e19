package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"peerdex/catalog"
	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/node"
	"peerdex/record"
	"peerdex/store"
)

// devicesSearched is how many devices the entries belong to.
const devicesSearched = 4

// search measures searches and listings by the command line, with a daemon that holds the catalogues of four
// devices, beside grep over a file of the same names; and what the names cost in memory.
func (b *bench) search(ctx context.Context) error {
	home, owners, err := b.household(ctx)
	if err != nil {
		return err
	}
	names, folder, each, err := b.stock(home, owners)
	if err != nil {
		return err
	}
	flush()
	var first, plain, counted, list, bare []float64
	for i := range b.runs {
		note("find: run %d of %d", i+1, b.runs)
		began := time.Now()
		port, err := freePort()
		if err != nil {
			return err
		}
		d, err := b.start(ctx, "searching", home, port)
		if err != nil {
			return err
		}
		if _, err := b.command(ctx, d, "find", "-q", "0"); err != nil {
			return err
		}
		first = append(first, 1000*time.Since(began).Seconds())
		r := rand.New(rand.NewPCG(7, uint64(i)))
		var ours, theirs, ls, start []float64
		for range b.searches {
			word := fmt.Sprintf("%03x", r.IntN(1<<12)) // in the running number at the end of a name
			took, err := b.command(ctx, d, "find", word)
			if err != nil {
				return err
			}
			ours = append(ours, 1000*took.Seconds())
			if took, err = grep(ctx, word, names); err != nil {
				return err
			}
			theirs = append(theirs, 1000*took.Seconds())
			if took, err = b.command(ctx, d, "ls", "-l", folder); err != nil {
				return err
			}
			ls = append(ls, 1000*took.Seconds())
			if took, err = b.command(ctx, d, "version"); err != nil {
				return err
			}
			start = append(start, 1000*took.Seconds())
		}
		plain, counted = append(plain, quantile(ours, 0.95)), append(counted, quantile(theirs, 0.95))
		list, bare = append(list, quantile(ls, 0.95)), append(bare, median(start))
		if err := d.stop(ctx); err != nil {
			return err
		}
	}
	of := fmt.Sprintf("%d entries of %d devices", b.entries, devicesSearched)
	b.table.add(figure{what: "find of a substring among " + of + ", whole command `peer find`, p95 of " + fmt.Sprint(b.searches), unit: "ms", got: plain, bar: 100, strict: true})
	b.table.add(figure{what: "p95 beside counting the same names in a file", unit: "ms", got: plain, peer: "grep -ci", of: counted})
	b.table.add(figure{what: "memory of the names searched, an entry", unit: "bytes", got: each, bar: 80, strict: true})
	b.table.add(figure{what: "ls -l of a folder of 100, whole command, p95", unit: "ms", got: list, bar: 30, strict: true})
	b.table.add(figure{what: "of each of these the start of a process, `peer version`", unit: "ms", got: bare})
	b.table.add(figure{what: "start of the daemon to the first answer of find, which waits for all names", unit: "ms", got: first})
	return nil
}

// grep counts the names that hold word, as a person with a list of them would.
func grep(ctx context.Context, word, names string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "grep", "-ci", "--", word, names)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("grep -ci %s: %w\n%s", word, err, out)
	}
	return time.Since(start), nil
}

// owner is a device whose feeds are made here instead of by a daemon.
type owner struct {
	home string
	key  ed25519.PrivateKey
	id   record.DeviceID
}

// household makes a library of one device and the owners of what it will hold, and returns when no daemon runs
// any more.
func (b *bench) household(ctx context.Context) (home string, owners []owner, err error) {
	begin := func(name string) (*daemon, error) {
		home, err := b.fresh("home-")
		if err != nil {
			return nil, err
		}
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		return b.start(ctx, name, home, port)
	}
	a, err := begin("searching")
	if err != nil {
		return "", nil, err
	}
	for i := range devicesSearched {
		d, err := begin(fmt.Sprintf("owner%d", i+1))
		if err != nil {
			return "", nil, err
		}
		inv, err := a.client.Invite(ctx, node.InviteRequest{})
		if err != nil {
			return "", nil, err
		}
		req, err := node.ParseJoinLine(inv.Line)
		if err != nil {
			return "", nil, err
		}
		if _, err := d.client.Join(ctx, req, nil); err != nil {
			return "", nil, err
		}
		if err := d.stop(ctx); err != nil {
			return "", nil, err
		}
		o, err := readOwner(d.home)
		if err != nil {
			return "", nil, err
		}
		owners = append(owners, o)
	}
	return a.home, owners, a.stop(ctx)
}

func readOwner(home string) (o owner, err error) {
	text, err := os.ReadFile(filepath.Join(home, "identity.key"))
	if err != nil {
		return o, err
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return o, err
	}
	o.home, o.key = home, ed25519.NewKeyFromSeed(seed)
	o.id = record.DeviceID(o.key.Public().(ed25519.PublicKey))
	return o, nil
}

// open opens the store of a home whose daemon does not run.
func (o owner) open() (*store.Store, error) {
	text, err := os.ReadFile(filepath.Join(o.home, "library.json"))
	if err != nil {
		return nil, err
	}
	var lib struct {
		ID string `json:"library"`
	}
	if err := json.Unmarshal(text, &lib); err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(lib.ID)
	if err != nil {
		return nil, err
	}
	clock := hlc.NewClock(time.Now, hlc.At(time.Now()), func(hlc.Stamp) error { return nil })
	return store.Open(filepath.Join(o.home, "store"), store.Config{
		Device: o.id, Library: feed.LibraryID(id), Boot: 1, Clock: clock.Now,
		Sign: func(h feed.Head) feed.Head { return h.Sign(o.key) },
	})
}

// stock puts the owners' entries into the store of home, as if they had come over the network. It returns a file
// of all names, the path of one folder, and what the names cost in memory, in bytes an entry.
func (b *bench) stock(home string, owners []owner) (names, folder string, each []float64, err error) {
	self, err := readOwner(home)
	if err != nil {
		return "", "", nil, err
	}
	s, err := self.open()
	if err != nil {
		return "", "", nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var (
		heads []feed.Head
		all   [][]feed.Entry
		list  bytes.Buffer
	)
	for i, o := range owners {
		location := record.LocationID{byte(i + 1)}
		own, err := o.open()
		if err != nil {
			return "", "", nil, err
		}
		err = o.declare(own, location, fmt.Sprintf("/srv/%d", i+1))
		if err == nil {
			err = bring(own, s, feed.ID{Device: o.id})
		}
		if err := errors.Join(err, own.Close()); err != nil {
			return "", "", nil, err
		}
		entries := catalogue(b.entries/len(owners), uint64(i+1), &list)
		head, err := headOf(s.Library(), feed.ID{Device: o.id, Location: location}, entries)
		if err != nil {
			return "", "", nil, err
		}
		heads = append(heads, head.Sign(o.key))
		all = append(all, entries)
	}
	l, err := s.Load(heads, 0)
	if err != nil {
		return "", "", nil, err
	}
	for i, h := range heads {
		if err := l.Add(h.Feed, all[i]); err != nil {
			return "", "", nil, errors.Join(err, l.Close())
		}
	}
	if _, err := l.Install(nil, nil); err != nil {
		return "", "", nil, errors.Join(err, l.Close())
	}
	if err := errors.Join(l.Close(), s.Sync()); err != nil {
		return "", "", nil, err
	}
	all = nil
	for range b.runs {
		cost, err := b.heapOfNames(s)
		if err != nil {
			return "", "", nil, err
		}
		each = append(each, cost)
	}
	names = filepath.Join(b.dir, "names")
	return names, "owner1:/srv/1/" + fullFolder, each, os.WriteFile(names, list.Bytes(), 0o600)
}

// headOf returns the head, not yet signed, of a feed that holds entries.
func headOf(library feed.LibraryID, id feed.ID, entries []feed.Entry) (feed.Head, error) {
	tree := feed.NewBuilder(feed.DefaultShape, nil)
	for _, e := range entries {
		if err := tree.Add(feed.Ref{Seq: e.Seq, Digest: e.Digest()}); err != nil {
			return feed.Head{}, err
		}
	}
	top := entries[len(entries)-1].Seq
	root, _, err := tree.Finish(top)
	return feed.Head{Library: library, Feed: id, Seq: top, Count: uint64(len(entries)), Root: root, Boot: 1, Stamp: hlc.At(time.Now())}, err
}

// declare makes a location of o's, whose store own is.
func (o owner) declare(own *store.Store, location record.LocationID, path string) error {
	e := record.Location(o.id, location)
	return own.SetRegisters(record.Register{Entity: e, Field: record.FieldName, Value: []byte(filepath.Base(path))},
		record.Register{Entity: e, Field: record.FieldPath, Value: []byte(path)}, record.Register{Entity: e, Field: record.FieldExists, Value: []byte{1}})
}

// fullFolder is a folder of a hundred files at the top of each location.
const fullFolder = "one of a hundred"

// catalogue returns the entries of a location as the first scan of makeTree's folders would write them, and
// adds their names to list, one a line.
func catalogue(entries int, seed uint64, list *bytes.Buffer) []feed.Entry {
	r := rand.New(rand.NewPCG(seed, 1))
	ends := []string{".jpg", ".txt", ".pdf", ".mp4", ".go", ".tar.gz"}
	type dir struct {
		id    record.EntryID
		depth int
	}
	dirs := []dir{{}}
	out := make([]feed.Entry, 0, entries)
	add := func(f record.File) record.EntryID {
		for i := range f.ID {
			f.ID[i] = byte(r.Uint32())
		}
		out = append(out, feed.Entry{Key: f.Key(), Seq: uint64(len(out) + 1), Record: f.Append(nil)})
		list.WriteString(f.Name)
		list.WriteByte('\n')
		return f.ID
	}
	full := add(record.File{Kind: record.Directory, Mode: 0o755, Name: fullFolder})
	for i := range entries - 1 {
		f := record.File{Kind: record.Regular, Mode: 0o644, Size: r.Uint64N(10_000_000), ModTime: time.Now().UnixNano() - r.Int64N(1e17)}
		up := dirs[int(float64(len(dirs))*r.Float64()*r.Float64())]
		switch {
		case i < 100:
			up.id = full
		case i%20 == 0 && up.depth < 7:
			f = record.File{Kind: record.Directory, Mode: 0o755}
		}
		f.Parent = up.id
		if f.Kind == record.Directory {
			f.Name = name(r, i, "")
			dirs = append(dirs, dir{add(f), up.depth + 1})
			continue
		}
		f.Name = name(r, i, ends[r.IntN(len(ends))])
		add(f)
	}
	return out
}

// heapOfNames returns how much heap, in bytes an entry, is free again when a catalogue lets go of its names.
func (b *bench) heapOfNames(s *store.Store) (float64, error) {
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what finalizers held
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	c := catalog.New(s)
	load, err := c.Follow()
	if err != nil {
		return 0, err
	}
	if err := load(context.Background()); err != nil {
		return 0, err
	}
	load = nil
	with := heap()
	runtime.KeepAlive(c)
	past, err := s.Follow(nobody{}) // so that the store lets go of it
	if err != nil {
		return 0, err
	}
	past.Close()
	return (with - heap()) / float64(b.entries), nil
}

// nobody follows a store without keeping anything.
type nobody struct{}

func (nobody) Begin([]feed.ID)               {}
func (nobody) Changed([]store.FileChange)    {}
func (nobody) Dropped(feed.ID)               {}
func (nobody) Fresh() store.Fresh            { return nobody{} }
func (nobody) Put(record.File)               {}
func (nobody) Replaced(feed.ID, store.Fresh) {}
