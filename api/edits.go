package api

import (
	"context"
	"net/http"
	"net/url"

	"peerdex/node"
)

type tags struct {
	Tags []node.TagView `json:"tags"`
}

func (s Server) tags(w http.ResponseWriter, r *http.Request) error {
	v, err := s.Backend.Tags(r.Context(), r.URL.Query().Get("counts") != "no")
	return answer(w, SchemaTags, tags{v}, err)
}

func (s Server) changeTags(w http.ResponseWriter, r *http.Request) error {
	var req node.TagRequest
	if err := s.readEdit(w, r, &req, &req.Targets); err != nil {
		return err
	}
	v, err := s.Backend.ChangeTags(r.Context(), req)
	return answer(w, SchemaEdit, v, err)
}

func (s Server) setNote(w http.ResponseWriter, r *http.Request) error {
	var req node.NoteRequest
	if err := s.readEdit(w, r, &req, &req.Targets); err != nil {
		return err
	}
	v, err := s.Backend.SetNote(r.Context(), req)
	return answer(w, SchemaEdit, v, err)
}

// readEdit reads a request that holds targets and puts ids in place of the devices named in them. It may take
// long to answer.
func (s Server) readEdit(w http.ResponseWriter, r *http.Request, req any, targets *node.Targets) error {
	if err := readBody(r, req); err != nil {
		return err
	}
	known := map[string]string{}
	for i, p := range targets.Paths {
		id, ok := known[p.Device]
		if !ok {
			var err error
			if id, err = s.device(r.Context(), p.Device); err != nil {
				return err
			}
			known[p.Device] = id
		}
		targets.Paths[i].Device = id
	}
	var err error
	if targets.Names, err = s.devicesIn(r.Context(), targets.Query); err != nil {
		return err
	}
	return unhurried(w)
}

func (s Server) renameTag(w http.ResponseWriter, r *http.Request) error {
	var req node.RenameRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	v, err := s.Backend.RenameTag(r.Context(), req)
	return answer(w, SchemaEdit, v, err)
}

// deleteRequest is the body of a deletion.
type deleteRequest struct {
	Tag string `json:"tag"`
}

func (s Server) deleteTag(w http.ResponseWriter, r *http.Request) error {
	var req deleteRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	v, err := s.Backend.DeleteTag(r.Context(), req.Tag)
	return answer(w, SchemaEdit, v, err)
}

func (s Server) note(w http.ResponseWriter, r *http.Request) error {
	var (
		q   = r.URL.Query()
		p   node.PathRef
		err error
	)
	if p.Path, err = text(q, "path"); err != nil {
		return err
	}
	if p.Device, err = s.device(r.Context(), q.Get("device")); err != nil {
		return err
	}
	v, err := s.Backend.Note(r.Context(), p)
	return answer(w, SchemaNote, v, err)
}

// Tags is Backend.Tags.
func (c *Client) Tags(ctx context.Context, counted bool) ([]node.TagView, error) {
	var (
		q url.Values
		v tags
	)
	if !counted {
		q = url.Values{"counts": {"no"}}
	}
	err := c.get(ctx, http.MethodGet, "/v1/tags", q, nil, &v)
	return v.Tags, err
}

// ChangeTags is Backend.ChangeTags; devices are whatever ResolveDevice takes.
func (c *Client) ChangeTags(ctx context.Context, req node.TagRequest) (v node.EditView, err error) {
	err = c.get(ctx, http.MethodPost, "/v1/tags/change", nil, req, &v)
	return v, err
}

// RenameTag is Backend.RenameTag.
func (c *Client) RenameTag(ctx context.Context, req node.RenameRequest) (v node.EditView, err error) {
	err = c.get(ctx, http.MethodPost, "/v1/tags/rename", nil, req, &v)
	return v, err
}

// DeleteTag is Backend.DeleteTag.
func (c *Client) DeleteTag(ctx context.Context, tag string) (v node.EditView, err error) {
	err = c.get(ctx, http.MethodPost, "/v1/tags/delete", nil, deleteRequest{tag}, &v)
	return v, err
}

// SetNote is Backend.SetNote; devices are whatever ResolveDevice takes.
func (c *Client) SetNote(ctx context.Context, req node.NoteRequest) (v node.EditView, err error) {
	err = c.get(ctx, http.MethodPost, "/v1/notes", nil, req, &v)
	return v, err
}

// Note is Backend.Note; the device is whatever ResolveDevice takes, or empty for this one.
func (c *Client) Note(ctx context.Context, p node.PathRef) (v node.NoteView, err error) {
	q := url.Values{"device": {p.Device}}
	setText(q, "path", p.Path)
	err = c.soon(ctx, http.MethodGet, "/v1/notes", q, nil, &v)
	return v, err
}
