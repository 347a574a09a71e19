package main

import (
	"context"
	"fmt"
	"time"

	"peerdex/node"
)

// pathsAtOnce is how many paths one request names: the daemon takes 1 MiB.
const pathsAtOnce = 2500

// tags measures two devices that each put a tag on every file while sync was paused on both: from the moment
// that it goes on until either holds what the other wrote.
func (b *bench) tags(ctx context.Context) error {
	var edit, step []float64
	for i := range b.runs {
		note("tags: run %d of %d", i+1, b.runs)
		p, err := b.twoInStep(ctx, b.edits)
		if err != nil {
			return err
		}
		paths, err := p.paths(ctx, b.edits)
		if err != nil {
			return err
		}
		for _, d := range []*daemon{p.a, p.z} {
			if _, err := d.client.Pause(ctx, "", 0); err != nil {
				return err
			}
		}
		for _, d := range []*daemon{p.a, p.z} {
			start := time.Now()
			for from := 0; from < len(paths); from += pathsAtOnce {
				part := node.Targets{Paths: paths[from:min(from+pathsAtOnce, len(paths))]}
				v, err := d.client.ChangeTags(ctx, node.TagRequest{Tags: []string{"by " + d.name}, Targets: part})
				if err != nil {
					return err
				}
				if int(v.Changed) != len(part.Paths) || len(v.Reached) > 0 {
					return fmt.Errorf("%s tagged %d of %d files, and %v have heard of it", d.name, v.Changed, len(part.Paths), v.Reached)
				}
			}
			edit = append(edit, ms(time.Since(start)))
		}
		if _, err := p.a.client.Resume(ctx, ""); err != nil {
			return err
		}
		start := time.Now()
		if _, err := p.z.client.Resume(ctx, ""); err != nil {
			return err
		}
		if err := inStep(ctx, p.a, p.z); err != nil {
			return err
		}
		step = append(step, ms(time.Since(start)))
		for _, d := range []*daemon{p.a, p.z} {
			tags, err := d.client.Tags(ctx, true)
			if err != nil {
				return err
			}
			shown := map[string]uint64{}
			for _, t := range tags {
				shown[t.Name] = *t.Entries
			}
			if n := uint64(len(paths)); shown["by a"] != n || shown["by b"] != n {
				return fmt.Errorf("%s shows %v, not %d of each", d.name, shown, n)
			}
		}
		if err := p.stop(ctx); err != nil {
			return err
		}
	}
	n := fmt.Sprintf("%d tag edits on each of two devices apart", b.edits)
	b.table.add(figure{what: n + ", then joined: in step", unit: "ms", got: step, bar: 2000, strict: true})
	b.table.add(figure{what: "the edits themselves, on one of them, durable", unit: "ms", got: edit})
	return nil
}

// paths returns the files of the shared folder.
func (p pairing) paths(ctx context.Context, want int) (out []node.PathRef, err error) {
	_, err = p.a.client.Find(ctx, node.FindQuery{}, func(e node.Entry) error {
		if e.Kind == "file" {
			out = append(out, node.PathRef{Device: p.device, Path: e.Path})
		}
		return nil
	})
	if err == nil && len(out) != want {
		err = fmt.Errorf("the catalogue has %d files, not %d", len(out), want)
	}
	return out, err
}
