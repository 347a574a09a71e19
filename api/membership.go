package api

import (
	"context"
	"net/http"

	"peerdex/node"
)

// Membership is the part of a Backend that says who belongs.
type Membership interface {
	// Requests returns the devices that ask to join without a secret, the first to come first.
	Requests(ctx context.Context) ([]node.RequestView, error)
	// Approve lets one of them in, or refuses it; request is the digits it shows, or its name.
	Approve(ctx context.Context, request string, refuse bool) (node.RequestView, error)
	// Remove revokes a device or forgets it, and returns when that is durable and who is connected has
	// heard of it, or some seconds later.
	Remove(ctx context.Context, req node.RemoveRequest) (node.RemoveView, error)
	// Rename gives this device another name.
	Rename(ctx context.Context, name string) (node.RenameView, error)
	// Leave takes this device out of its library into one of its own.
	Leave(ctx context.Context, dryRun bool) (node.LeaveView, error)
}

// membershipRoutes are the routes of Membership.
func (s Server) membershipRoutes() map[string]handler {
	return map[string]handler{
		"GET /v1/devices/requests": func(w http.ResponseWriter, r *http.Request) error {
			v, err := s.Backend.Requests(r.Context())
			return answer(w, SchemaRequests, requests{v}, err)
		},
		"POST /v1/devices/approve": s.approve,
		"POST /v1/devices/remove":  s.removeDevice,
		"POST /v1/devices/rename":  s.rename,
		"POST /v1/leave":           s.leave,
	}
}

type requests struct {
	Requests []node.RequestView `json:"requests"`
}

// decision is the body of an approval.
type decision struct {
	Request string `json:"request"`
	Refuse  bool   `json:"refuse,omitempty"`
}

func (s Server) approve(w http.ResponseWriter, r *http.Request) error {
	var req decision
	if err := readBody(r, &req); err != nil {
		return err
	}
	v, err := s.Backend.Approve(r.Context(), req.Request, req.Refuse)
	return answer(w, SchemaRequest, v, err)
}

func (s Server) removeDevice(w http.ResponseWriter, r *http.Request) error {
	var req node.RemoveRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	id, err := s.device(r.Context(), req.Device)
	if err != nil {
		return err
	}
	if id == "" {
		return usage("the request is not understood", "it names no device", "peer devices revoke DEVICE")
	}
	req.Device = id
	if err := unhurried(w); err != nil {
		return err
	}
	v, err := s.Backend.Remove(r.Context(), req)
	return answer(w, SchemaRemoval, v, err)
}

// renaming is the body of a renaming. A device may be named for people's sake: it must be this one.
type renaming struct {
	Device string `json:"device,omitempty"`
	Name   string `json:"name"`
}

func (s Server) rename(w http.ResponseWriter, r *http.Request) error {
	var req renaming
	if err := readBody(r, &req); err != nil {
		return err
	}
	id, err := s.device(r.Context(), req.Device)
	if err != nil {
		return err
	}
	if self, err := s.self(r.Context()); err != nil {
		return err
	} else if id != "" && id != self {
		return &node.Problem{Code: node.CodeConflict, Message: "device \"" + req.Device + "\" is not this one",
			Cause: "a device is renamed by itself alone", Try: "run `peer devices rename` there"}
	}
	v, err := s.Backend.Rename(r.Context(), req.Name)
	return answer(w, SchemaRenaming, v, err)
}

// trial is the body of what can be tried without effect.
type trial struct {
	DryRun bool `json:"dry_run,omitempty"`
}

func (s Server) leave(w http.ResponseWriter, r *http.Request) error {
	var req trial
	if err := readBody(r, &req); err != nil {
		return err
	}
	if err := unhurried(w); err != nil {
		return err
	}
	v, err := s.Backend.Leave(r.Context(), req.DryRun)
	return answer(w, SchemaLeaving, v, err)
}

// Requests is Backend.Requests.
func (c *Client) Requests(ctx context.Context) ([]node.RequestView, error) {
	var v requests
	err := c.soon(ctx, http.MethodGet, "/v1/devices/requests", nil, nil, &v)
	return v.Requests, err
}

// Approve is Backend.Approve.
func (c *Client) Approve(ctx context.Context, request string, refuse bool) (v node.RequestView, err error) {
	err = c.get(ctx, http.MethodPost, "/v1/devices/approve", nil, decision{request, refuse}, &v)
	return v, err
}

// Remove is Backend.Remove; the device is whatever ResolveDevice takes.
func (c *Client) Remove(ctx context.Context, req node.RemoveRequest) (v node.RemoveView, err error) {
	err = c.get(ctx, http.MethodPost, "/v1/devices/remove", nil, req, &v)
	return v, err
}

// Rename is Backend.Rename; device, if it is not empty, must name this one.
func (c *Client) Rename(ctx context.Context, device, name string) (v node.RenameView, err error) {
	err = c.get(ctx, http.MethodPost, "/v1/devices/rename", nil, renaming{device, name}, &v)
	return v, err
}

// Leave is Backend.Leave.
func (c *Client) Leave(ctx context.Context, dryRun bool) (v node.LeaveView, err error) {
	err = c.get(ctx, http.MethodPost, "/v1/leave", nil, trial{dryRun}, &v)
	return v, err
}
