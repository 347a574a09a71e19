package api

import (
	"context"
	"net/http"

	"peerdex/node"
)

// Snapshots is the part of a Backend that moves the library by disk. Paths are full, and the daemon's.
type Snapshots interface {
	// ExportSnapshot writes what this device holds to a new file, and returns when it is durable.
	ExportSnapshot(ctx context.Context, path string) (node.SnapshotView, error)
	// ImportSnapshot takes in from a file what this device lacks; progress is called now and then from one
	// goroutine. If ctx ends first nothing was taken, or all.
	ImportSnapshot(ctx context.Context, path string, progress func(node.Progress)) (node.SnapshotView, error)
}

// file is what a snapshot goes to or comes from.
type file struct {
	Path string `json:"path"`
}

// snapshotRoutes are the routes of Snapshots.
func (s Server) snapshotRoutes() map[string]handler {
	return map[string]handler{
		"POST /v1/snapshot/export": func(w http.ResponseWriter, r *http.Request) error {
			var req file
			if err := readBody(r, &req); err != nil {
				return err
			}
			return progress(w, SchemaSnapshot, func(func(struct{})) (any, error) {
				return s.Backend.ExportSnapshot(r.Context(), req.Path)
			})
		},
		"POST /v1/snapshot/import": func(w http.ResponseWriter, r *http.Request) error {
			var req file
			if err := readBody(r, &req); err != nil {
				return err
			}
			return progress(w, SchemaSnapshot, func(fn func(node.Progress)) (any, error) {
				return s.Backend.ImportSnapshot(r.Context(), req.Path, fn)
			})
		},
	}
}

// ExportSnapshot is Snapshots.ExportSnapshot.
func (c *Client) ExportSnapshot(ctx context.Context, path string) (v node.SnapshotView, err error) {
	err = c.stream(ctx, http.MethodPost, "/v1/snapshot/export", nil, file{path}, told[struct{}](nil), &v)
	return v, err
}

// ImportSnapshot is Snapshots.ImportSnapshot; progress may be nil.
func (c *Client) ImportSnapshot(ctx context.Context, path string, progress func(node.Progress)) (v node.SnapshotView, err error) {
	err = c.stream(ctx, http.MethodPost, "/v1/snapshot/import", nil, file{path}, told(progress), &v)
	return v, err
}
