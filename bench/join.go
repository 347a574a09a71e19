package main

import (
	"context"
	"fmt"

	"peerdex/node"
)

const (
	pipeTimes = 2       // at most as long as the raw pipe
	crdtTimes = 1 / 2.5 // and as the comparison at its best
)

// join measures how a device that holds nothing joins a library by snapshot, beside the raw pipe between the same
// store and an empty folder.
func (b *bench) join(ctx context.Context) error {
	var piped []moved
	var took, used, wire, donor, taker []float64
	for i := range b.runs {
		note("join: run %d of %d", i+1, b.runs)
		l, err := b.library(ctx, b.entries, 0, uint64(100+i))
		if err != nil {
			return err
		}
		m, err := b.pipe(ctx, l.serves)
		if err != nil {
			return err
		}
		piped = append(piped, m)
		j, err := l.join(ctx)
		if err != nil {
			return err
		}
		if err := j.bySnapshot(ctx); err != nil {
			return err
		}
		peaks, err := j.peaks()
		if err != nil {
			return err
		}
		took, used, wire = append(took, j.took.Seconds()), append(used, j.used.Seconds()), append(wire, float64(j.bytes)/(1<<20))
		donor, taker = append(donor, peaks[0]), append(taker, peaks[1])
		if err := j.stop(ctx); err != nil {
			return err
		}
		if err := l.remove(); err != nil {
			return err
		}
	}
	share := float64(b.entries) / bulkEntries
	b.joins = took
	pipe := column(piped, func(m moved) float64 { return m.marks[0] })
	b.table.add(figure{what: fmt.Sprintf("a device that holds nothing joins %d entries by snapshot, until they are found", b.entries), unit: "s", got: took, peer: "raw pipe of the same rows", of: pipe, bar: pipeTimes})
	b.table.add(figure{what: "CPU time of both devices", unit: "s", got: used, peer: "raw pipe", of: column(piped, func(m moved) float64 { return m.cpu })})
	b.table.add(figure{what: "all bytes of that", unit: "MiB", got: wire, bar: wireBar * share})
	b.table.add(figure{what: "peak memory of the device that serves them", unit: "MiB", got: donor, bar: memoryBar})
	b.table.add(figure{what: "peak memory of the device that takes them", unit: "MiB", got: taker, bar: memoryBar})
	return nil
}

// bySnapshot fails unless the second device came into step by one snapshot.
func (j joined) bySnapshot(ctx context.Context) error {
	m, err := j.z.client.Metrics(ctx, "", "")
	if n := m.Operations.Strategies[node.StrategySnapshot]; err == nil && n != 1 {
		err = fmt.Errorf("%s took %d snapshots", j.z.name, n)
	}
	return err
}
