package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// batches are the sizes of batch, in keys, at which the peer is measured. A batch is a block, blocks are fetched
// one after another, and none may be larger than 2 MiB.
var batches = []int{1000, 5000, 10_000, 15_000}

// crdt measures a fresh replica of go-ds-crdt that joins one which holds the entries of a location: the peer of
// every figure that is about joining a library.
func (b *bench) crdt(ctx context.Context) error {
	program := filepath.Join(b.dir, "crdt")
	build := exec.CommandContext(ctx, "go", "build", "-C", "crdt", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build crdt: %w\n%s", err, out)
	}
	list := filepath.Join(b.dir, "entries")
	if err := writeEntries(list, b.entries); err != nil {
		return err
	}
	var all [][]moved
	for _, batch := range batches {
		donor, err := b.fresh("crdt-")
		if err != nil {
			return err
		}
		note("crdt: writing %d entries in batches of %d", b.entries, batch)
		if err := fillCRDT(ctx, program, donor, list, batch); err != nil {
			return err
		}
		var runs []moved
		for i := range b.runs {
			note("crdt: batches of %d, run %d of %d", batch, i+1, b.runs)
			m, err := b.joinCRDT(ctx, program, donor)
			if err != nil {
				return err
			}
			runs = append(runs, m)
		}
		all = append(all, runs)
		if err := os.RemoveAll(donor); err != nil {
			return err
		}
	}
	readable := func(runs []moved) []float64 { return column(runs, func(m moved) float64 { return m.marks[0] }) }
	best := 0
	for i, runs := range all {
		b.table.add(figure{what: fmt.Sprintf("go-ds-crdt, a fresh replica joins %d keys that were written in batches of %d, until it can read all", b.entries, batches[i]), unit: "s", got: readable(runs)})
		if median(readable(runs)) < median(readable(all[best])) {
			best = i
		}
	}
	b.table.add(figure{what: fmt.Sprintf("the best of these, batches of %d, and all of it on disk", batches[best]), unit: "s", got: column(all[best], func(m moved) float64 { return m.marks[1] })})
	b.table.addMoved(all[best])
	if len(b.joins) == len(all[best]) { // measured in the same run
		b.table.add(figure{what: "join by snapshot beside it", unit: "s", got: b.joins, peer: "go-ds-crdt at its best, until it can read all", of: readable(all[best]), bar: crdtTimes})
	}
	return nil
}

// writeEntries writes a location's entries as crdt reads them.
func writeEntries(path string, n int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	for _, f := range randomFiles(n, 1) {
		rec := f.Append(nil)
		if _, err := w.Write(binary.AppendUvarint(f.Key(), uint64(len(rec)))); err != nil {
			return err
		}
		if _, err := w.Write(rec); err != nil {
			return err
		}
	}
	return w.Flush()
}

func fillCRDT(ctx context.Context, program, dir, list string, batch int) error {
	f, err := os.Open(list)
	if err != nil {
		return err
	}
	defer f.Close() // it was only read
	cmd := exec.CommandContext(ctx, program, "fill", "-dir", dir, "-batch", fmt.Sprint(batch))
	cmd.Stdin = f
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("crdt fill: %w\n%s", err, out)
	}
	return nil
}

// joinCRDT joins the replica in donor with a fresh one; its marks are: readable, synced, checked.
func (b *bench) joinCRDT(ctx context.Context, program, donor string) (m moved, err error) {
	dir, err := b.fresh("crdt-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return move(ctx, func(listen string) *exec.Cmd {
		return exec.CommandContext(ctx, program, "hold", "-dir", donor, "-listen", listen)
	}, func(words []string) *exec.Cmd {
		return exec.CommandContext(ctx, program, append([]string{"join", "-dir", dir, "-entries", fmt.Sprint(b.entries)}, words...)...)
	}, 3)
}
