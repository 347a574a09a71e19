package main

import (
	"context"
	"time"

	"peerdex/api"
)

// minInterval keeps --watch from becoming a load of its own.
const minInterval = 100 * time.Millisecond

// show prints what fetch returns: as text or as the document of schema, once or, with watch, until the
// command is interrupted. Watching redraws a terminal, appends blocks elsewhere, and with --json writes
// one object per line.
func show[T any](ctx context.Context, a *app, schema, kind string, watch bool, interval time.Duration,
	fetch func(context.Context) (T, error), text func(T) string) error {
	for first := true; ; first = false {
		v, err := fetch(ctx)
		if err != nil {
			return err
		}
		switch {
		case a.json && !watch:
			return a.document(schema, v)
		case a.json:
			line, err := api.Line(schema, kind, v)
			if err != nil {
				return err
			}
			if err := a.write(line); err != nil {
				return err
			}
		default:
			before := ""
			if watch && a.outWidth > 0 {
				before = "\x1b[H\x1b[2J"
			} else if !first {
				before = "\n"
			}
			if err := a.write([]byte(before + text(v))); err != nil {
				return err
			}
		}
		if !watch {
			return nil
		}
		select {
		case <-ctx.Done():
			return interrupted()
		case <-time.After(max(interval, minInterval)):
		}
	}
}
