package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"peerdex/node"
)

// latency measures from before a file is made on A until a query on B finds it, both idle, beside the
// least that any program with the same promises could take: the kernel's word of the file, one byte over
// loopback and back, and on either side one small write made durable.
func (b *bench) latency(ctx context.Context) error {
	p, err := b.twoInStep(ctx, 1000)
	if err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // what joining leaves behind
	var mid, high, rawMid, rawHigh, query []float64
	for i := range b.runs {
		note("latency: run %d of %d", i+1, b.runs)
		var got, raw, asked []float64
		for k := range b.samples {
			time.Sleep(time.Duration(60+rand.IntN(60)) * time.Millisecond) // idle again
			path := filepath.Join(p.folders[0], fmt.Sprintf("sample-%d-%d.txt", i, k))
			start := time.Now()
			if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
				return err
			}
			if err := p.shown(ctx, time.Millisecond, path); err != nil {
				return err
			}
			got = append(got, ms(time.Since(start)))
			start = time.Now()
			if _, err := p.z.shows(ctx, p.device, path); err != nil {
				return err
			}
			asked = append(asked, ms(time.Since(start)))
		}
		took, err := b.rawLatency(b.samples)
		if err != nil {
			return err
		}
		for _, d := range took {
			raw = append(raw, ms(d))
		}
		note("latency: slowest %.0f ms", slices.Sorted(slices.Values(got))[max(len(got)-8, 0):])
		mid, high = append(mid, quantile(got, 0.5)), append(high, quantile(got, 0.99))
		rawMid, rawHigh = append(rawMid, quantile(raw, 0.5)), append(rawHigh, quantile(raw, 0.99))
		query = append(query, quantile(asked, 0.5))
	}
	n := fmt.Sprintf("%d changes", b.samples)
	b.table.add(figure{what: "change on A to visible on B, p50 of " + n, unit: "ms", got: mid, bar: 30, strict: true})
	b.table.add(figure{what: "the same, p99", unit: "ms", got: high, bar: 150, strict: true})
	b.table.add(figure{what: "p50 beside inotify, a loopback round trip and two fsyncs", unit: "ms", got: mid, peer: "raw p50", of: rawMid})
	b.table.add(figure{what: "p99 beside the same", unit: "ms", got: high, peer: "raw p99", of: rawHigh})
	b.table.add(figure{what: "of it the method's own: one query, besides up to 1 ms between two", unit: "ms", got: query})
	return p.stop(ctx)
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// pairing is two peers in step that share one folder of the first.
type pairing struct {
	a, z    *daemon
	folders []string // of the shared one, itself first
	device  string   // ID of a
}

// twoInStep starts two peers, the first with a folder of so many files.
func (b *bench) twoInStep(ctx context.Context, files int) (p pairing, err error) {
	base, err := b.fresh("two-")
	if err != nil {
		return p, err
	}
	if p.folders, err = makeTree(filepath.Join(base, "shared"), files, 2); err != nil {
		return p, err
	}
	var two [2]*daemon
	for i, name := range []string{"a", "b"} {
		port, err := freePort()
		if err != nil {
			return p, err
		}
		if two[i], err = b.start(ctx, name, filepath.Join(base, name), port); err != nil {
			return p, err
		}
	}
	p.a, p.z = two[0], two[1]
	if p.device, err = p.a.self(ctx); err != nil {
		return p, err
	}
	if _, err := p.a.client.AddLocation(ctx, node.AddRequest{Path: p.folders[0], Hash: "none"}, nil); err != nil {
		return p, err
	}
	return p, pair(ctx, p.a, p.z)
}

// stop ends both, the second first.
func (p pairing) stop(ctx context.Context) error {
	return errors.Join(p.z.stop(ctx), p.a.stop(ctx))
}

// shown waits until the second shows a path of the first.
func (p pairing) shown(ctx context.Context, every time.Duration, path string) error {
	return p.z.await(ctx, every, "it shows "+path, func() (bool, error) { return p.z.shows(ctx, p.device, path) })
}

// rawLatency takes, n times, from before a file is made until somebody who watches the folder has made a
// note of it durable, told somebody else over loopback, and has heard that he has made one too.
func (b *bench) rawLatency(n int) ([]time.Duration, error) {
	base, err := b.fresh("raw-")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(base, "watched")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	events := os.NewFile(uintptr(fd), "inotify") // through the poller, as a Go program would
	defer events.Close()
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_CREATE); err != nil {
		return nil, err
	}
	var notes [2]func() error
	for i := range notes {
		f, err := os.Create(filepath.Join(base, fmt.Sprint("notes-", i)))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		notes[i] = func() error {
			_, err := f.Write(make([]byte, 256))
			return errors.Join(err, f.Sync())
		}
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for one := make([]byte, 1); err == nil; { // until the other side closes
			if _, err = io.ReadFull(c, one); err == nil {
				if err = notes[1](); err == nil {
					_, err = c.Write(one)
				}
			}
		}
	}()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	seen := make(chan error, 1)
	go func() {
		buf, one := make([]byte, 4096), make([]byte, 1)
		for range n {
			_, err := events.Read(buf)
			if err == nil {
				err = notes[0]()
			}
			if err == nil {
				_, err = c.Write(one)
			}
			if err == nil {
				_, err = io.ReadFull(c, one)
			}
			seen <- err
		}
	}()
	var out []time.Duration
	for i := range n {
		time.Sleep(5 * time.Millisecond)
		start := time.Now()
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("x"), 0o644); err != nil {
			return nil, err
		}
		if err := <-seen; err != nil {
			return nil, err
		}
		out = append(out, time.Since(start))
	}
	return out, nil
}
