package api

import (
	"context"
	"net/http"
	"net/url"

	"peerdex/node"
)

func (s Server) syncPlan(w http.ResponseWriter, r *http.Request) error {
	id, err := s.other(r.Context(), r.URL.Query().Get("device"))
	if err != nil {
		return err
	}
	v, err := s.Backend.SyncPlan(r.Context(), id)
	return answer(w, SchemaSyncPlan, v, err)
}

// SyncPlan is Backend.SyncPlan; the device is whatever ResolveDevice takes, or empty for all.
func (c *Client) SyncPlan(ctx context.Context, device string) (v node.PlanView, err error) {
	err = c.soon(ctx, http.MethodGet, "/v1/sync/plan", url.Values{"device": {device}}, nil, &v)
	return v, err
}
