package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"peerdex/node"
)

func (s Server) find(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	limit, err := number(q, "limit", 0)
	if err != nil {
		return err
	}
	req := node.FindQuery{Text: q.Get("text"), Tag: q["tag"], Sort: q.Get("sort"), Reverse: q.Get("reverse") == "yes", Limit: limit}
	if _, ok := node.Sorts[req.Sort]; !ok && req.Sort != "" {
		return usage(fmt.Sprintf("cannot sort by %q", req.Sort),
			"it is one of "+strings.Join(slices.Sorted(maps.Keys(node.Sorts)), ", "), "--sort name")
	}
	if req.Names, err = s.devicesIn(r.Context(), req.Text); err != nil {
		return err
	}
	for _, ref := range q["device"] {
		id, err := s.device(r.Context(), ref)
		if err != nil {
			return err
		}
		req.Device = append(req.Device, id)
	}
	st, err := newStream(w, SchemaFind)
	defer st.stop()
	if err != nil {
		return err
	}
	v, err := s.Backend.Find(r.Context(), req, func(e node.Entry) error { return st.send(typeEntry, e, false) })
	return st.end(v, err)
}

// devicesIn returns the peer IDs of the devices that a query names.
func (s Server) devicesIn(ctx context.Context, text string) (map[string]string, error) {
	parsed, err := node.ParseQuery(text, time.Now())
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, t := range parsed.Terms() {
		if t.Key != "on" {
			continue
		}
		for _, name := range t.Values {
			if out[name], err = s.device(ctx, name); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Find is Backend.Find; devices are whatever ResolveDevice takes.
func (c *Client) Find(ctx context.Context, req node.FindQuery, fn func(node.Entry) error) (v node.FindResult, err error) {
	q := url.Values{"text": {req.Text}, "sort": {req.Sort}, "limit": {strconv.Itoa(req.Limit)}, "device": req.Device, "tag": req.Tag}
	if req.Reverse {
		q.Set("reverse", "yes")
	}
	err = c.stream(ctx, http.MethodGet, "/v1/find", q, nil, decoded(fn), &v)
	return v, err
}

// whereQuery reads what a question about one entry or content names.
func (s Server) whereQuery(r *http.Request) (req node.WhereQuery, err error) {
	q := r.URL.Query()
	if req.Path, err = text(q, "path"); err != nil {
		return req, err
	}
	req.Hash, req.Entry = q.Get("hash"), q.Get("entry")
	if req.Device, err = s.device(r.Context(), q.Get("device")); err == nil && req.Device == "" {
		req.Device, err = s.self(r.Context())
	}
	return req, err
}

func (s Server) where(w http.ResponseWriter, r *http.Request) error {
	req, err := s.whereQuery(r)
	if err != nil {
		return err
	}
	if err := unhurried(w); err != nil { // other devices may be asked
		return err
	}
	v, err := s.Backend.Where(r.Context(), req)
	return answer(w, SchemaWhere, v, err)
}

func (s Server) info(w http.ResponseWriter, r *http.Request) error {
	req, err := s.whereQuery(r)
	if err != nil {
		return err
	}
	if err := unhurried(w); err != nil {
		return err
	}
	v, err := s.Backend.Info(r.Context(), req)
	return answer(w, SchemaInfo, v, err)
}

// Where is Backend.Where; the device is whatever ResolveDevice takes, or empty for this one.
func (c *Client) Where(ctx context.Context, req node.WhereQuery) (v node.Whereabouts, err error) {
	err = c.within(ctx, c.slow, http.MethodGet, "/v1/where", whereValues(req), nil, &v)
	return v, err
}

// Info is Backend.Info; the device is whatever ResolveDevice takes, or empty for this one.
func (c *Client) Info(ctx context.Context, req node.WhereQuery) (v node.Info, err error) {
	err = c.within(ctx, c.slow, http.MethodGet, "/v1/info", whereValues(req), nil, &v)
	return v, err
}

func whereValues(req node.WhereQuery) url.Values {
	q := url.Values{"device": {req.Device}, "hash": {req.Hash}, "entry": {req.Entry}}
	setText(q, "path", req.Path)
	return q
}
