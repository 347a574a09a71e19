package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"peerdex/metrics"
	"peerdex/node"
)

type handler func(w http.ResponseWriter, r *http.Request) error

// Limits on what a request may ask.
const (
	maxListLimit = 10_000
	maxTTL       = 24 * time.Hour
	maxUses      = 100
)

// routes is the API. GET changes nothing.
func (s Server) routes() map[string]handler {
	all := map[string]handler{
		"GET /v1/status": func(w http.ResponseWriter, r *http.Request) error {
			v, err := s.Backend.Status(r.Context())
			return answer(w, SchemaStatus, v, err)
		},
		"GET /v1/devices": func(w http.ResponseWriter, r *http.Request) error {
			v, err := s.Backend.Devices(r.Context())
			return answer(w, SchemaDevices, devices{v}, err)
		},
		"GET /v1/locations": func(w http.ResponseWriter, r *http.Request) error {
			v, err := s.Backend.Locations(r.Context())
			return answer(w, SchemaLocations, locations{v}, err)
		},
		"POST /v1/locations":        s.addLocation,
		"POST /v1/locations/remove": s.removeLocation,
		"POST /v1/locations/set":    s.setLocation,
		"POST /v1/locations/rescan": s.rescan,
		"GET /v1/entries":           s.list,
		"GET /v1/find":              s.find,
		"GET /v1/tags":              s.tags,
		"POST /v1/tags/change":      s.changeTags,
		"POST /v1/tags/rename":      s.renameTag,
		"POST /v1/tags/delete":      s.deleteTag,
		"GET /v1/notes":             s.note,
		"POST /v1/notes":            s.setNote,
		"GET /v1/where":             s.where,
		"GET /v1/info":              s.info,
		"POST /v1/invites":          s.invite,
		"POST /v1/join":             s.join,
		"POST /v1/stop": func(w http.ResponseWriter, r *http.Request) error {
			v, err := s.Backend.Stop(r.Context())
			return answer(w, SchemaStop, v, err)
		},
		"GET /v1/sync": func(w http.ResponseWriter, r *http.Request) error {
			v, err := s.Backend.SyncStatus(r.Context())
			return answer(w, SchemaSyncStatus, v, err)
		},
		"POST /v1/sync/pause":  s.pause,
		"POST /v1/sync/resume": s.resume,
		"POST /v1/sync/now":    s.syncNow,
		"GET /v1/sync/plan":    s.syncPlan,
		"GET /v1/metrics":      s.metrics,
		"GET /v1/events":       s.events,
	}
	maps.Copy(all, s.membershipRoutes())
	maps.Copy(all, s.snapshotRoutes())
	return all
}

func answer(w http.ResponseWriter, schema string, v any, err error) error {
	if err != nil {
		return err
	}
	return writeDocument(w, schema, v)
}

func usage(message, cause, try string) error {
	return &node.Problem{Code: node.CodeUsage, Message: message, Cause: cause, Try: try}
}

// device returns the peer ID of the device that ref names; "" for "".
func (s Server) device(ctx context.Context, ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	list, err := s.Backend.Devices(ctx)
	if err != nil {
		return "", err
	}
	d, err := ResolveDevice(list, ref)
	return d.ID, err
}

// anyLocation returns the location of any device that ref names.
func (s Server) anyLocation(ctx context.Context, ref string) (node.LocationView, error) {
	list, err := s.Backend.Locations(ctx)
	if err != nil {
		return node.LocationView{}, err
	}
	return ResolveLocation(list, ref)
}

// location returns the id of this device's location that ref names.
func (s Server) location(ctx context.Context, ref string) (string, error) {
	l, err := s.anyLocation(ctx, ref)
	if err != nil {
		return "", err
	}
	if !l.Self {
		return "", &node.Problem{
			Code:    node.CodeConflict,
			Message: fmt.Sprintf("location %q belongs to %s", l.Name, l.DeviceName),
			Cause:   "a folder is indexed, and changed, by its own device alone",
			Try:     fmt.Sprintf("run the command on %s", l.DeviceName),
		}
	}
	return l.ID, nil
}

func (s Server) addLocation(w http.ResponseWriter, r *http.Request) error {
	var req node.AddRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	return progress(w, SchemaScan, func(fn func(node.ScanProgress)) (any, error) {
		return s.Backend.AddLocation(r.Context(), req, fn)
	})
}

// ref names a device.
type ref struct {
	Device string `json:"device,omitempty"`
}

// place names a location, whose name may be any bytes.
type place struct {
	Location    string `json:"location,omitempty"`
	LocationB64 []byte `json:"location_b64,omitempty"` // instead, where JSON would not carry the name
}

func placeOf(location string) place {
	if utf8.ValidString(location) {
		return place{Location: location}
	}
	return place{LocationB64: []byte(location)}
}

func (p place) name() string {
	if p.LocationB64 != nil {
		return string(p.LocationB64)
	}
	return p.Location
}

func (s Server) removeLocation(w http.ResponseWriter, r *http.Request) error {
	var req place
	if err := readBody(r, &req); err != nil {
		return err
	}
	id, err := s.location(r.Context(), req.name())
	if err != nil {
		return err
	}
	v, err := s.Backend.RemoveLocation(r.Context(), id)
	return answer(w, SchemaLocation, v, err)
}

func (s Server) rescan(w http.ResponseWriter, r *http.Request) error {
	var req place
	if err := readBody(r, &req); err != nil {
		return err
	}
	id, err := s.location(r.Context(), req.name())
	if err != nil {
		return err
	}
	return progress(w, SchemaScan, func(fn func(node.ScanProgress)) (any, error) {
		return s.Backend.Rescan(r.Context(), id, fn)
	})
}

// progress streams what work reports, then its result. A client that goes away ends the request's
// context; what cannot be sent is not an error of the work.
func progress[P any](w http.ResponseWriter, schema string, work func(func(P)) (any, error)) error {
	st, err := newStream(w, schema)
	defer st.stop()
	if err != nil {
		return err
	}
	var gone error
	v, err := work(func(p P) {
		if gone == nil {
			gone = st.send(typeProgress, p, true)
		}
	})
	if gone != nil {
		return nil
	}
	return st.end(v, err)
}

// text returns a query parameter, or the bytes of its base64 form NAME_b64 if that is given.
func text(q url.Values, name string) (string, error) {
	b64 := q.Get(name + "_b64")
	if b64 == "" {
		return q.Get(name), nil
	}
	b, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		return "", usage("the request is not understood", name+"_b64 is not base64", "")
	}
	return string(b), nil
}

func number(q url.Values, name string, most int) (int, error) {
	v := q.Get(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || most > 0 && n > most {
		return 0, usage("the request is not understood", fmt.Sprintf("%s %q is not a number from 0 to %d", name, v, most), "")
	}
	return n, nil
}

func (s Server) list(w http.ResponseWriter, r *http.Request) error {
	var (
		q    = r.URL.Query()
		req  node.ListQuery
		errs [5]error
	)
	req.Path, errs[0] = text(q, "path")
	req.After, errs[1] = text(q, "after")
	req.Limit, errs[2] = number(q, "limit", maxListLimit)
	req.Device, errs[3] = s.device(r.Context(), q.Get("device"))
	if req.Device == "" && errs[3] == nil {
		req.Device, errs[4] = s.self(r.Context())
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if err := unhurried(w); err != nil { // another device may be asked
		return err
	}
	v, err := s.Backend.List(r.Context(), req)
	return answer(w, SchemaListing, v, err)
}

func (s Server) self(ctx context.Context) (string, error) {
	list, err := s.Backend.Devices(ctx)
	if err != nil {
		return "", err
	}
	for _, d := range list {
		if d.Self {
			return d.ID, nil
		}
	}
	return "", fmt.Errorf("this device is not among its own library's %d", len(list))
}

func (s Server) invite(w http.ResponseWriter, r *http.Request) error {
	var req node.InviteRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	switch {
	case req.TTL < 0 || req.TTL.Duration() > maxTTL:
		return usage(fmt.Sprintf("an invite cannot last %v", req.TTL.Duration()), fmt.Sprintf("it lasts at most %d hours", int(maxTTL.Hours())), "peer invite --ttl 1h")
	case req.Uses < 0 || req.Uses > maxUses:
		return usage(fmt.Sprintf("an invite cannot work %d times", req.Uses), fmt.Sprintf("it works at most %d times", maxUses), "peer invite --uses 5")
	}
	v, err := s.Backend.Invite(r.Context(), req)
	return answer(w, SchemaInvite, v, err)
}

func (s Server) join(w http.ResponseWriter, r *http.Request) error {
	var req node.JoinRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	req, err := node.ParseJoinLine(req.Line())
	if err != nil {
		return err
	}
	var last node.JoinProgress
	return progress(w, SchemaJoin, func(fn func(node.JoinProgress)) (any, error) {
		err := s.Backend.Join(r.Context(), req, func(p node.JoinProgress) {
			last = p
			fn(p)
		})
		return last, err
	})
}

// pauseRequest is the body of a pause.
type pauseRequest struct {
	For    metrics.Seconds `json:"for_seconds,omitempty"`
	Device string          `json:"device,omitempty"`
}

func (s Server) pause(w http.ResponseWriter, r *http.Request) error {
	var req pauseRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	if req.For < 0 {
		return usage(fmt.Sprintf("cannot pause for %v", req.For.Duration()), "that is less than nothing", "peer sync pause --for 2h")
	}
	id, err := s.other(r.Context(), req.Device)
	if err != nil {
		return err
	}
	v, err := s.Backend.Pause(r.Context(), id, req.For.Duration())
	return answer(w, SchemaPause, v, err)
}

// other is device, and refuses this one.
func (s Server) other(ctx context.Context, ref string) (string, error) {
	id, err := s.device(ctx, ref)
	if err != nil || id == "" {
		return "", err
	}
	if self, err := s.self(ctx); err != nil {
		return "", err
	} else if id == self {
		return "", usage(fmt.Sprintf("device %q is this one", ref), "sync is with other devices", "peer devices")
	}
	return id, nil
}

func (s Server) resume(w http.ResponseWriter, r *http.Request) error {
	var req ref
	if err := readBody(r, &req); err != nil {
		return err
	}
	id, err := s.other(r.Context(), req.Device)
	if err != nil {
		return err
	}
	v, err := s.Backend.Resume(r.Context(), id)
	return answer(w, SchemaPause, v, err)
}

func (s Server) syncNow(w http.ResponseWriter, r *http.Request) error {
	var req ref
	if err := readBody(r, &req); err != nil {
		return err
	}
	id, err := s.other(r.Context(), req.Device)
	if err != nil {
		return err
	}
	return progress(w, SchemaSyncNow, func(fn func(node.Progress)) (any, error) { return s.Backend.SyncNow(r.Context(), id, fn) })
}

// models are the names that record.Record.Model returns.
var models = []string{"entry", "device", "location", "member", "tag", "tagging", "note", "other"}

func (s Server) metrics(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	model := q.Get("model")
	if model != "" && !slices.Contains(models, model) {
		return &node.Problem{
			Code:    node.CodeUsage,
			Message: fmt.Sprintf("there is no model %q", model),
			Cause:   "it is one of " + strings.Join(models, ", "),
			Try:     "--model entry",
		}
	}
	short := ""
	if ref := q.Get("device"); ref != "" {
		list, err := s.Backend.Devices(r.Context())
		if err != nil {
			return err
		}
		d, err := ResolveDevice(list, ref)
		if err != nil {
			return err
		}
		short = d.Short
	}
	v, err := s.Backend.Metrics(r.Context())
	return answer(w, SchemaMetrics, v.Filter(short, model), err)
}
