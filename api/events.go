package api

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"peerdex/eventlog"
	"peerdex/node"
)

// EventQuery asks for events; every field that is set narrows it.
type EventQuery struct {
	Since, Until time.Time
	Types        []string
	Categories   []string
	Severities   []string
	MinSeverity  string
	Correlation  string // a session id, or at least its first 4 hexadecimal digits
	Peer         string // whatever ResolveDevice takes, or the peer ID of a device that is no longer known
	Model        string
	Grep         string // regular expression on summary, type and details
	Limit        int    // at most so many, the newest ones; 0: all
	Desc         bool   // newest first
	Follow       bool   // then go on with new ones until the context ends; Desc is ignored
}

// EventsResult ends the answer to an EventQuery.
type EventsResult struct {
	Found int  `json:"found"`
	More  bool `json:"more"` // the limit left out older events
}

// MaxEvents is the greatest limit; without one events are sent as they are read, with one they are held
// in memory to be turned around.
const MaxEvents = 1_000_000

// eventPage is how many events are read in one transaction.
const eventPage = 1000

// maxGrep is the length of a regular expression that may be compiled.
const maxGrep = 1024

func (q EventQuery) values() url.Values {
	v := url.Values{
		"type": q.Types, "category": q.Categories, "severity": q.Severities, "min_severity": {q.MinSeverity},
		"correlation": {q.Correlation}, "peer": {q.Peer}, "model": {q.Model}, "grep": {q.Grep}, "limit": {strconv.Itoa(q.Limit)},
		"desc": {strconv.FormatBool(q.Desc)}, "follow": {strconv.FormatBool(q.Follow)},
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() {
		v.Set("until", q.Until.Format(time.RFC3339Nano))
	}
	return v
}

// Events sends q and calls fn for each event, in the order of the log, or the reverse with Desc.
func (c *Client) Events(ctx context.Context, q EventQuery, fn func(eventlog.Event) error) (v EventsResult, err error) {
	err = c.stream(ctx, http.MethodGet, "/v1/events", q.values(), nil, decoded(fn), &v)
	return v, err
}

// eventRequest is a query that was checked.
type eventRequest struct {
	eventlog.Query
	prefix string // of the session id, hexadecimal digits; ""
	limit  int
	desc   bool
	follow bool
}

func (s Server) eventRequest(ctx context.Context, v url.Values) (r eventRequest, err error) {
	for name, at := range map[string]*time.Time{"since": &r.Since, "until": &r.Until} {
		if text := v.Get(name); text != "" {
			if *at, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return r, &node.Problem{Code: node.CodeBadTime, Message: fmt.Sprintf("%q is not a time", text), Cause: name + " is RFC 3339", Try: "--since '1 hour ago'"}
			}
		}
	}
	for _, t := range v["type"] {
		r.Types = append(r.Types, eventlog.Type(t))
	}
	for _, c := range v["category"] {
		r.Categories = append(r.Categories, eventlog.Category(c))
	}
	for _, s := range v["severity"] {
		r.Severities = append(r.Severities, eventlog.Severity(s))
	}
	r.MinSeverity = eventlog.Severity(v.Get("min_severity"))
	r.Model = v.Get("model")
	if err := r.known(); err != nil {
		return r, err
	}
	if text := v.Get("grep"); text != "" {
		if len(text) > maxGrep {
			return r, usage("the expression is too long", fmt.Sprintf("it has %d bytes, more than %d", len(text), maxGrep), "--grep timeout")
		}
		if r.Grep, err = regexp.Compile(text); err != nil {
			return r, usage(fmt.Sprintf("%q is not a regular expression", text), err.Error(), "--grep timeout")
		}
	}
	if r.Correlation, r.prefix, err = session(v.Get("correlation")); err != nil {
		return r, err
	}
	if ref := v.Get("peer"); ref != "" {
		if r.Peer, err = s.device(ctx, ref); err != nil {
			if !strings.HasPrefix(ref, "12D3KooW") || len(ref) < 40 || AsProblem(err).Code != node.CodeUnknownDevice {
				return r, err
			}
			r.Peer = ref
		}
	}
	if r.limit, err = number(v, "limit", MaxEvents); err != nil {
		return r, err
	}
	r.desc, r.follow = v.Get("desc") == "true", v.Get("follow") == "true"
	return r, nil
}

// known refuses words that no event has, with the ones there are.
func (r eventRequest) known() error {
	check := func(what, flag, word string, all []string) error {
		if word == "" || slices.Contains(all, word) {
			return nil
		}
		cause, try := "it is one of "+strings.Join(all, ", "), flag+" "+all[0]
		if near := Nearest(word, all); near != "" {
			cause, try = fmt.Sprintf("the nearest is %q", near), flag+" "+near
		}
		return usage(fmt.Sprintf("there is no %s %q", what, word), cause, try)
	}
	var errs []error
	for _, t := range r.Types {
		errs = append(errs, check("event type", "--event-type", string(t), words(eventlog.Types())))
	}
	for _, c := range r.Categories {
		errs = append(errs, check("category", "--category", string(c), words(eventlog.Categories)))
	}
	for _, s := range r.Severities {
		errs = append(errs, check("severity", "--severity", string(s), words(eventlog.Severities)))
	}
	errs = append(errs, check("severity", "--min-severity", string(r.MinSeverity), words(eventlog.Severities)),
		check("model", "--model", r.Model, models))
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}

// session reads a session id, or the beginning of one.
func session(text string) (id eventlog.ID, prefix string, err error) {
	text = strings.ToLower(strings.TrimPrefix(text, "c:"))
	if text == "" {
		return id, "", nil
	}
	if id, err := eventlog.ParseID(text); err == nil {
		return id, "", nil
	}
	prefix = strings.ReplaceAll(text, "-", "")
	if _, err := hex.DecodeString(prefix + strings.Repeat("0", len(prefix)%2)); err != nil || len(prefix) < 4 || len(prefix) > 32 {
		return id, "", usage(fmt.Sprintf("%q is not a session", text), "it is a UUID, or its first hexadecimal digits, at least 4", "--correlation-id 0199a4d2")
	}
	return id, prefix, nil
}

func (r eventRequest) keep(e eventlog.Event) bool {
	return r.prefix == "" || strings.HasPrefix(hex.EncodeToString(e.CorrelationID[:]), r.prefix)
}

func (s Server) events(w http.ResponseWriter, req *http.Request) error {
	r, err := s.eventRequest(req.Context(), req.URL.Query())
	if err != nil {
		return err
	}
	st, err := newStream(w, SchemaEvent)
	defer st.stop()
	if err != nil {
		return err
	}
	send := func(e eventlog.Event, now bool) error { return st.send(typeEvent, e, now) }
	if r.follow {
		return st.end(EventsResult{}, s.follow(req.Context(), r, send))
	}
	res, err := s.page(req.Context(), r, func(e eventlog.Event) error { return send(e, false) })
	return st.end(res, err)
}

// page calls fn for what r selects.
func (s Server) page(ctx context.Context, r eventRequest, fn func(eventlog.Event) error) (res EventsResult, err error) {
	q := r.Query
	q.Desc = r.desc || r.limit > 0 // the newest are wanted
	var held []eventlog.Event
	err = s.each(ctx, r, q, func(e eventlog.Event) error {
		if r.limit > 0 && res.Found == r.limit {
			res.More = true
			return errEnough
		}
		res.Found++
		if q.Desc == r.desc {
			return fn(e)
		}
		held = append(held, e)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return res, err
	}
	for _, e := range slices.Backward(held) {
		if err := fn(e); err != nil {
			return res, err
		}
	}
	return res, nil
}

// errEnough ends a walk through the log.
var errEnough = errors.New("enough")

// each walks through the log page by page.
func (s Server) each(ctx context.Context, r eventRequest, q eventlog.Query, fn func(eventlog.Event) error) error {
	q.Limit = eventPage
	for {
		events, next, err := s.Backend.Events(ctx, q)
		if errors.Is(err, eventlog.ErrQuery) {
			return usage("the query is not understood", err.Error(), "peer sync events --help")
		}
		if err != nil {
			return err
		}
		for _, e := range events {
			if !r.keep(e) {
				continue
			}
			if err := fn(e); err != nil {
				return err
			}
		}
		if next == (eventlog.Cursor{}) {
			return ctx.Err()
		}
		q.Cursor = next
	}
}

// followTail is how many past events a follower sees first if it does not say since when.
const followTail = 10

// follow sends what r selects and then what is added, until ctx ends. It reads the log, never a queue: a
// slow reader misses nothing.
func (s Server) follow(ctx context.Context, r eventRequest, send func(eventlog.Event, bool) error) error {
	wake, cancel := s.Backend.WatchEvents() // before the first read, so that no event falls between
	defer cancel()
	q := r.Query
	last := func(e eventlog.Event) error {
		q.Cursor = eventlog.After(e)
		return send(e, true)
	}
	tail := r
	tail.desc, tail.limit = false, 0
	if r.Since.IsZero() {
		tail.limit = followTail
	}
	if r.limit > 0 {
		tail.limit = r.limit
	}
	if _, err := s.page(ctx, tail, last); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
		if err := s.each(ctx, r, q, last); err != nil {
			return err
		}
	}
}
