package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// reconnect starts two stopped peers on new ports and puts proxies at the old ones, where each believes
// the other to be: all that they say to each other goes through. meanwhile is called once A is up and B is
// not.
func (b *bench) reconnect(ctx context.Context, a, z *daemon, meanwhile func(*daemon) error) (*daemon, *daemon, between, error) {
	fail := func(err error) (*daemon, *daemon, between, error) { return nil, nil, nil, err }
	newA, err := freePort()
	if err != nil {
		return fail(err)
	}
	up, err := b.start(ctx, a.name, a.home, newA)
	if err != nil {
		return fail(err)
	}
	if err := meanwhile(up); err != nil {
		return fail(err)
	}
	newZ, err := freePort()
	if err != nil {
		return fail(err)
	}
	var way between
	for _, p := range [][2]int{{a.port, newA}, {z.port, newZ}} {
		p, err := newProxy(p[0], p[1])
		if err != nil {
			return fail(err)
		}
		way = append(way, p)
	}
	back, err := b.start(ctx, z.name, z.home, newZ)
	if err != nil {
		return fail(err)
	}
	if err := inStep(ctx, up, back); err != nil {
		return fail(err)
	}
	if way.conns() == 0 {
		return fail(fmt.Errorf("the peers did not meet through the proxies"))
	}
	return up, back, way, nil
}

// idling watches two nodes that are in step and have nothing to say.
func (b *bench) idling(ctx context.Context) error {
	a, z, err := b.twoInStep(ctx, 1000)
	if err != nil {
		return err
	}
	var cpuA, cpuZ, messages, bytes []float64
	for i := range b.runs {
		note("idle: run %d of %d", i+1, b.runs)
		if err := stopAll(ctx, z, a); err != nil {
			return err
		}
		var way between
		a, z, way, err = b.reconnect(ctx, a, z, scanIsDone(ctx))
		if err != nil {
			return err
		}
		time.Sleep(3 * time.Second) // what a reconnect leaves behind
		var used [2]time.Duration
		for k, d := range []*daemon{a, z} {
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
		for k, d := range []*daemon{a, z} {
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
	return stopAll(ctx, a, z)
}

// scanIsDone waits for the scan that every start begins with.
func scanIsDone(ctx context.Context) func(*daemon) error {
	return func(d *daemon) error {
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
}

// catchUp counts what goes over the wire when B was away while A changed: nothing, one file, a thousand.
func (b *bench) catchUp(ctx context.Context) error {
	a, z, err := b.twoInStep(ctx, b.files)
	if err != nil {
		return err
	}
	dir := filepath.Join(a.home, "..", "shared")
	device, err := a.self(ctx)
	if err != nil {
		return err
	}
	serial := 0
	counts := map[int][]float64{}
	var live []float64
	for i := range b.runs {
		for _, changes := range []int{0, 1, 1000} {
			note("catchup: run %d of %d, %d changes", i+1, b.runs, changes)
			if err := stopAll(ctx, z, a); err != nil {
				return err
			}
			last := ""
			var way between
			a, z, way, err = b.reconnect(ctx, a, z, func(d *daemon) error {
				if err := scanIsDone(ctx)(d); err != nil || changes == 0 {
					return err
				}
				for range changes {
					serial++
					last = filepath.Join(dir, fmt.Sprintf("while-you-were-away-%06d.txt", serial))
					if err := os.WriteFile(last, []byte("x"), 0o644); err != nil {
						return err
					}
				}
				for k := serial - changes + 1; k <= serial; k++ {
					path := filepath.Join(dir, fmt.Sprintf("while-you-were-away-%06d.txt", k))
					if err := d.await(ctx, 5*time.Millisecond, "it shows "+path, func() (bool, error) { return d.shows(ctx, device, path) }); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			if last != "" {
				if err := z.await(ctx, 5*time.Millisecond, "it shows "+last, func() (bool, error) { return z.shows(ctx, device, last) }); err != nil {
					return err
				}
			}
			counts[changes] = append(counts[changes], float64(way.quiet(time.Second))/1024)
			if changes == 0 { // a change while both are there
				before := way.bytes()
				serial++
				path := filepath.Join(dir, fmt.Sprintf("while-you-were-here-%06d.txt", serial))
				if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
					return err
				}
				if err := z.await(ctx, 5*time.Millisecond, "it shows "+path, func() (bool, error) { return z.shows(ctx, device, path) }); err != nil {
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
	return stopAll(ctx, a, z)
}
