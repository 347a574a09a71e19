package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"
)

// index measures the first scan of a folder, a rescan with nothing changed, and what the daemon holds in
// memory after both, beside find over the same folder.
func (b *bench) index(ctx context.Context) error {
	dir := filepath.Join(b.dir, "index")
	folders, err := makeTree(dir, b.files, 1)
	if err != nil {
		return err
	}
	flush()
	var find, cold, add, rescan, again, rss, peak []float64
	for i := range b.runs {
		note("index: run %d of %d", i+1, b.runs)
		home, err := b.fresh("home-")
		if err != nil {
			return err
		}
		port, err := freePort()
		if err != nil {
			return err
		}
		d, err := b.start(ctx, "index", home, port)
		if err != nil {
			return err
		}
		if _, err := b.find(ctx, dir); err != nil { // warms the cache for both
			return err
		}
		var best []float64
		for range 3 {
			took, err := b.find(ctx, dir)
			if err != nil {
				return err
			}
			best = append(best, took.Seconds())
		}
		find = append(find, 1000*median(best))
		took, err := b.command(ctx, d, "add", dir, "--hash", "none")
		if err != nil {
			return err
		}
		add = append(add, 1000*took.Seconds())
		scan, err := b.scanned(ctx, d, b.files)
		if err != nil {
			return err
		}
		cold = append(cold, 1000*scan.Seconds())
		now, high, err := memory(d.cmd.Process.Pid)
		if err != nil {
			return err
		}
		rss, peak = append(rss, float64(now)/(1<<20)), append(peak, float64(high)/(1<<20))
		var scans, commands []float64
		for range 3 {
			took, err := b.command(ctx, d, "locations", "rescan", filepath.Base(dir))
			if err != nil {
				return err
			}
			scan, err := b.scanned(ctx, d, b.files)
			if err != nil {
				return err
			}
			commands, scans = append(commands, 1000*took.Seconds()), append(scans, 1000*scan.Seconds())
		}
		rescan, again = append(rescan, median(scans)), append(again, median(commands))
		if err := d.stop(ctx); err != nil {
			return err
		}
	}
	n := fmt.Sprintf("%d files in %d folders", b.files, len(folders))
	b.table.add(figure{what: "first scan of " + n + ", committed and durable", unit: "ms", got: cold, peer: "find", of: find, bar: 5})
	b.table.add(figure{what: "the same, whole command `peer add`", unit: "ms", got: add, peer: "find", of: find, bar: 5})
	b.table.add(figure{what: "rescan, nothing changed", unit: "ms", got: rescan, peer: "find", of: find, bar: 3})
	b.table.add(figure{what: "the same, whole command `peer locations rescan`", unit: "ms", got: again, peer: "find", of: find, bar: 3})
	b.table.add(figure{what: "resident memory after the first scan", unit: "MiB", got: rss, bar: 200, strict: true})
	b.table.add(figure{what: "its peak until then", unit: "MiB", got: peak})
	return nil
}

// find lists the folder as a person without a catalogue would.
func (b *bench) find(ctx context.Context, dir string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "find", dir, "-printf", `%p %s %T@ %i\n`)
	cmd.Stdout = nil // the null device
	cmd.Stderr = io.Discard
	start := time.Now()
	err := cmd.Run()
	return time.Since(start), err
}

// scanned returns how long the daemon's last scan took, and checks that it saw all files.
func (b *bench) scanned(ctx context.Context, d *daemon, files int) (time.Duration, error) {
	all, err := d.client.Locations(ctx)
	if err != nil {
		return 0, err
	}
	if len(all) != 1 || all[0].Files != uint64(files) {
		return 0, fmt.Errorf("the catalogue has %+v, not %d files", all, files)
	}
	return all[0].ScanTook.Duration(), nil
}
