// Command crdt is the peer that the join of a library is compared with: go-ds-crdt on Badger, its blocks carried
// by ipfs-lite, as a program that bench runs twice. It is a module of its own, so that nothing else needs what
// it needs.
//
//	crdt fill -dir DIR -batch N < ENTRIES     makes a replica of what it reads
//	crdt hold -dir DIR -listen MULTIADDR      serves a replica: prints its address and its heads
//	crdt join -dir DIR -entries N ADDR HEAD…  joins it with a fresh replica: prints what it has reached
//
// hold and join end when their standard input does.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	ipfslite "github.com/hsanjuan/ipfs-lite"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	badger4 "github.com/ipfs/go-ds-badger4"
	crdt "github.com/ipfs/go-ds-crdt"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crdt:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("fill, hold or join?")
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := fs.String("dir", "", "folder of the replica")
	batch := fs.Int("batch", 0, "keys in a batch, which is one block")
	listen := fs.String("listen", "", "multiaddr to listen on")
	entries := fs.Int64("entries", 0, "keys to wait for")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "fill":
		return fill(ctx, *dir, *batch)
	case "hold":
		return hold(ctx, *dir, *listen)
	case "join":
		if fs.NArg() < 2 {
			return errors.New("join whom, at which heads?")
		}
		return join(ctx, *dir, *entries, fs.Arg(0), fs.Args()[1:])
	}
	return fmt.Errorf("there is no %q", args[0])
}

// maxDelta lets a batch be as large as a block may: the default of 1 MiB ends it earlier, at about 5,000 keys.
const maxDelta = 2 << 20

// replica is a go-ds-crdt datastore with what it stands on.
type replica struct {
	*crdt.Datastore
	disk *badger4.Datastore
	host host.Host // nil: offline
	stop context.CancelFunc
}

// open opens or makes the replica in dir. Without a host it is offline. news is how it hears of heads; nil: not
// at all. put is called with every key that becomes part of it.
func open(ctx context.Context, dir string, h host.Host, news crdt.Broadcaster, put func(datastore.Key, []byte)) (*replica, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	disk, err := badger4.NewDatastore(dir, nil)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	lite, err := ipfslite.New(ctx, disk, nil, h, nil, &ipfslite.Config{Offline: h == nil, ReprovideInterval: -1})
	if err != nil {
		stop()
		return nil, errors.Join(err, disk.Close())
	}
	opt := crdt.DefaultOptions()
	opt.MaxBatchDeltaSize, opt.PutHook = maxDelta, put
	set, err := crdt.New(disk, datastore.NewKey("crdt"), lite, news, opt)
	if err != nil {
		stop()
		return nil, errors.Join(err, disk.Close())
	}
	return &replica{Datastore: set, disk: disk, host: h, stop: stop}, nil
}

func (r *replica) close() error {
	err := r.Close()
	r.stop()
	if r.host != nil {
		err = errors.Join(err, r.host.Close())
	}
	return errors.Join(err, r.disk.Close())
}

// fill puts the entries read from standard input into a replica, so many a batch.
func fill(ctx context.Context, dir string, batch int) (err error) {
	r, err := open(ctx, dir, nil, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	b, err := r.Batch(ctx)
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for n := 1; ; n++ {
		key, value, err := readEntry(in)
		if errors.Is(err, io.EOF) {
			return errors.Join(b.Commit(ctx), r.Sync(ctx, datastore.NewKey("/")))
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", n, err)
		}
		if err := b.Put(ctx, key, value); err != nil {
			return err
		}
		if n%batch != 0 {
			continue
		}
		if err := b.Commit(ctx); err != nil {
			return err
		}
	}
}

// hold serves the replica in dir.
func hold(ctx context.Context, dir, listen string) (err error) {
	h, err := libp2p.New(libp2p.ListenAddrStrings(listen), libp2p.DisableRelay())
	if err != nil {
		return err
	}
	r, err := open(ctx, dir, h, nil, nil)
	if err != nil {
		return errors.Join(err, h.Close())
	}
	defer func() { err = errors.Join(err, r.close()) }()
	fmt.Printf("%s/p2p/%s", listen, h.ID())
	for _, c := range r.InternalStats(ctx).Heads {
		fmt.Printf(" %s", c)
	}
	fmt.Println()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// join makes a fresh replica in dir of what is served at address under the given heads. It prints "readable" as
// soon as every key can be read, "synced" when that is on disk, and "checked" when all have been.
func join(ctx context.Context, dir string, entries int64, address string, heads []string) (err error) {
	donor, err := peer.AddrInfoFromString(address)
	if err != nil {
		return err
	}
	payload, err := announcement(heads)
	if err != nil {
		return err
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		return err
	}
	var (
		have atomic.Int64
		all  = make(chan datastore.Key, 1)
		news = &told{payload: payload, ready: make(chan struct{})}
	)
	r, err := open(ctx, dir, h, news, func(k datastore.Key, _ []byte) {
		if have.Add(1) == entries {
			all <- k
		}
	})
	if err != nil {
		return errors.Join(err, h.Close())
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := h.Connect(ctx, *donor); err != nil {
		return err
	}
	close(news.ready)
	last := <-all
	for { // the hook comes just before the batch with this key is committed
		there, err := r.Has(ctx, last)
		if err != nil {
			return err
		}
		if there {
			break
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Println("readable")
	if err := r.Sync(ctx, datastore.NewKey("/")); err != nil {
		return err
	}
	fmt.Println("synced")
	found, err := r.Query(ctx, query.Query{})
	if err != nil {
		return err
	}
	var n int64
	for e := range found.Next() {
		if e.Error != nil {
			return e.Error
		}
		n++
	}
	if n != entries {
		return fmt.Errorf("%d of %d keys can be read", n, entries)
	}
	fmt.Println("checked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
