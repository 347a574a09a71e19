package catalog

import (
	"context"
	"fmt"
	"slices"

	"peerdex/record"
)

// Remove ends a location: one register says that it exists no more, and everybody drops its feed. The
// folder is not touched. It returns a *Refusal with ErrUnknown for what is no location of this device; on
// any other error the location is indexed as before.
func (ix *Indexer) Remove(ctx context.Context, id record.LocationID) error {
	ix.change.Lock()
	defer ix.change.Unlock()
	own, err := ix.own()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(own, func(l Location) bool { return l.ID == id })
	if at < 0 {
		return &Refusal{Path: id.String(), Err: ErrUnknown}
	}
	return ix.remove(ctx, own[at])
}

// remove ends an own location; ix.change is held.
func (ix *Indexer) remove(ctx context.Context, o Location) error {
	ix.mu.Lock()
	l := ix.locations[o.ID]
	ix.mu.Unlock()
	err := ix.halt(ctx, l) // nothing may be written to its feed after the register
	if err == nil {
		err = ix.feeds.SetRegisters(record.Register{Entity: o.entity(), Field: record.FieldExists, Value: []byte{0}})
	}
	if err == nil {
		err = ix.feeds.Sync()
	}
	if err != nil {
		if l != nil {
			ix.mu.Lock()
			ix.start(o, l.done)
			ix.mu.Unlock()
		}
		return fmt.Errorf("remove location %q: %w", o.Name, err)
	}
	ix.forget(o, l)
	return nil
}

// halt stops a location and waits until it has. It stays among the locations.
func (ix *Indexer) halt(ctx context.Context, l *location) error {
	if l == nil {
		return nil
	}
	l.cancel()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget lets go of a location that exists no more and has stopped, and tells so.
func (ix *Indexer) forget(o Location, l *location) {
	files := 0
	if l != nil {
		files = l.Status().Files
	}
	ix.mu.Lock()
	delete(ix.locations, o.ID)
	ix.mu.Unlock()
	ix.cfg.Metrics.LocationGone(o.ID.String())
	ix.cfg.Events.LocationRemoved(o.ID, o.Name, files)
}
