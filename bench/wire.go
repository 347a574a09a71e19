package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// reconnect stops both peers, starts them on new ports and puts proxies at the old ones, where each
// believes the other to be: all that they say to each other goes through. meanwhile is called while A is
// up, has scanned its folder, and B is not.
func (b *bench) reconnect(ctx context.Context, p *pairing, meanwhile func() error) (way between, err error) {
	if err := p.stop(ctx); err != nil {
		return nil, err
	}
	var ports [2]int
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	old := [2]int{p.a.port, p.z.port}
	if p.a, err = b.start(ctx, p.a.name, p.a.home, ports[0]); err != nil {
		return nil, err
	}
	if err := p.a.watching(ctx); err != nil {
		return nil, err
	}
	if err := meanwhile(); err != nil {
		return nil, err
	}
	for i := range ports {
		x, err := newProxy(old[i], ports[i])
		if err != nil {
			return nil, err
		}
		way = append(way, x)
	}
	if p.z, err = b.start(ctx, p.z.name, p.z.home, ports[1]); err != nil {
		return nil, err
	}
	if err := inStep(ctx, p.a, p.z); err != nil {
		return nil, err
	}
	if way.conns() == 0 {
		return nil, errors.New("the peers did not meet through the proxies")
	}
	return way, nil
}

// idling watches two nodes that are in step and have nothing to say.
func (b *bench) idling(ctx context.Context) error {
	p, err := b.twoInStep(ctx, 1000)
	if err != nil {
		return err
	}
	var cpuA, cpuZ, messages, bytes []float64
	for i := range b.runs {
		note("idle: run %d of %d", i+1, b.runs)
		way, err := b.reconnect(ctx, &p, func() error { return nil })
		if err != nil {
			return err
		}
		time.Sleep(3 * time.Second) // what a reconnect leaves behind
		var used [2]time.Duration
		for k, d := range []*daemon{p.a, p.z} {
			if used[k], err = cpu(d.cmd.Process.Pid); err != nil {
				return err
			}
		}
		reads, size, start := way.reads(), way.bytes(), time.Now()
		select {
		case <-time.After(b.idle):
		case <-ctx.Done():
			return ctx.Err()
		}
		took := time.Since(start)
		for k, d := range []*daemon{p.a, p.z} {
			now, err := cpu(d.cmd.Process.Pid)
			if err != nil {
				return err
			}
			share := 100 * float64(now-used[k]) / float64(took)
			if k == 0 {
				cpuA = append(cpuA, share)
			} else {
				cpuZ = append(cpuZ, share)
			}
		}
		messages = append(messages, float64(way.reads()-reads)/took.Minutes())
		bytes = append(bytes, float64(way.bytes()-size)/1024/took.Minutes())
		way.Close()
	}
	span := fmt.Sprintf("two idle nodes in step, watched for %v", b.idle)
	b.table.add(figure{what: span + ": CPU of A", unit: "% of a core", got: cpuA, bar: 1, strict: true})
	b.table.add(figure{what: "CPU of B", unit: "% of a core", got: cpuZ, bar: 1, strict: true})
	b.table.add(figure{what: "messages between them, both ways", unit: "a minute", got: messages, bar: 100, strict: true})
	b.table.add(figure{what: "bytes between them, both ways", unit: "KiB a minute", got: bytes})
	return p.stop(ctx)
}

// watching waits for the scan that every start begins with.
func (d *daemon) watching(ctx context.Context) error {
	return d.await(ctx, 10*time.Millisecond, "it has scanned", func() (bool, error) {
		all, err := d.client.Locations(ctx)
		if err != nil {
			return false, err
		}
		for _, l := range all {
			if l.Self && l.State != "watching" {
				return false, nil
			}
		}
		return true, nil
	})
}

// catchUp counts what goes over the wire when B was away while A changed: nothing, one file, a thousand
// all over the folder.
func (b *bench) catchUp(ctx context.Context) error {
	p, err := b.twoInStep(ctx, b.files)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(3, 1))
	serial := b.files // so that no name comes twice
	change := func(n int) (paths []string, err error) {
		for range n {
			serial++
			path := filepath.Join(p.folders[r.IntN(len(p.folders))], name(r, serial, ".txt"))
			if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
				return nil, err
			}
			paths = append(paths, path)
		}
		return paths, nil
	}
	counts := map[int][]float64{}
	var live []float64
	for i := range b.runs {
		for _, changes := range []int{0, 1, 1000} {
			note("catchup: run %d of %d, %d changes", i+1, b.runs, changes)
			var paths []string
			way, err := b.reconnect(ctx, &p, func() (err error) {
				if paths, err = change(changes); err != nil {
					return err
				}
				for _, path := range paths {
					if err := p.a.await(ctx, 5*time.Millisecond, "it shows "+path, func() (bool, error) { return p.a.shows(ctx, p.device, path) }); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			for _, path := range paths {
				if err := p.shown(ctx, 5*time.Millisecond, path); err != nil {
					return err
				}
			}
			counts[changes] = append(counts[changes], float64(way.quiet(time.Second))/1024)
			if changes == 0 { // and one change while both are there
				before := way.bytes()
				paths, err := change(1)
				if err != nil {
					return err
				}
				if err := p.shown(ctx, 5*time.Millisecond, paths[0]); err != nil {
					return err
				}
				live = append(live, float64(way.quiet(time.Second)-before)/1024)
			}
			way.Close()
		}
	}
	on := fmt.Sprintf(" on top of %d entries", b.files)
	less := func(n int) (out []float64) {
		for i, v := range counts[n] {
			out = append(out, max(v-counts[0][i], 0))
		}
		return out
	}
	b.table.add(figure{what: "reconnect with nothing to catch up, all bytes", unit: "KiB", got: counts[0]})
	b.table.add(figure{what: "catch-up of 1,000 changes" + on + ", all bytes from the first of the reconnect", unit: "KiB", got: counts[1000], bar: 400, strict: true})
	b.table.add(figure{what: "the same without the reconnect", unit: "KiB", got: less(1000)})
	b.table.add(figure{what: "catch-up of 1 change, all bytes from the first of the reconnect", unit: "KiB", got: counts[1]})
	b.table.add(figure{what: "the same without the reconnect", unit: "KiB", got: less(1), bar: 4, strict: true})
	b.table.add(figure{what: "one change pushed while connected", unit: "KiB", got: live, bar: 4, strict: true})
	return p.stop(ctx)
}
