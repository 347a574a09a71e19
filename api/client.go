package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"
	"unicode/utf8"

	"peerdex/metrics"
	"peerdex/node"
)

// Client asks the daemon behind a socket. Its errors are *node.Problem; node.CodeNoDaemon when nobody
// answers there.
type Client struct {
	socket   string
	http     *http.Client
	patience time.Duration // with what is answered from memory, and with the silence of a stream
	slow     time.Duration // with what is answered at the end of some work
}

const (
	patience = 10 * time.Second // much more than a busy daemon needs for what it knows, and than beatEvery
	slow     = 30 * time.Second // more than a round of sync may take, and much more than to drop a location
)

// NewClient returns a client; it connects when it is first used.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConns: 2}}, patience: patience, slow: slow}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) do(ctx context.Context, method, path string, q url.Values, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		r = bytes.NewReader(b)
	}
	target := url.URL{Scheme: "http", Host: "peer", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), r)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.noAnswer(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var doc ErrorDocument
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&doc); err != nil || doc.Error == nil {
		return nil, &node.Problem{Code: node.CodeInternal, Message: "the daemon's answer is not understood",
			Cause: "it answered " + resp.Status, Try: "peer version, and the version of the daemon in peer status"}
	}
	return nil, doc.Error
}

func (c *Client) noAnswer(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fs.ErrPermission):
		return &node.Problem{
			Code:    node.CodeNotAllowed,
			Message: "the control socket is closed to this user",
			Cause:   c.socket + " belongs to another user",
			Try:     "run the command as the user that started the daemon",
		}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, syscall.ENOTSOCK):
		return &node.Problem{
			Code:    node.CodeNoDaemon,
			Message: "no daemon is running here",
			Cause:   "nothing answers on " + c.socket,
			Try:     "start one: peer start ~/Pictures",
		}
	}
	return &node.Problem{Code: node.CodeInternal, Message: "the daemon does not answer", Cause: err.Error(), Try: "peer stop, then peer start"}
}

func (c *Client) get(ctx context.Context, method, path string, q url.Values, body, v any) error {
	resp, err := c.do(ctx, method, path, q, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return cut(ctx, err)
	}
	return nil
}

// soon is get for what the daemon answers at once, unless it hangs.
func (c *Client) soon(ctx context.Context, method, path string, q url.Values, body, v any) error {
	return c.within(ctx, c.patience, method, path, q, body, v)
}

// within is get for what the daemon answers within d, unless it hangs.
func (c *Client) within(ctx context.Context, d time.Duration, method, path string, q url.Values, body, v any) error {
	short, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := c.get(short, method, path, q, body, v)
	if err == nil || ctx.Err() != nil || short.Err() == nil {
		return err
	}
	return c.silent(d)
}

func (c *Client) silent(d time.Duration) error {
	return &node.Problem{
		Code:    node.CodeNoDaemon,
		Message: "the daemon does not answer",
		Cause:   fmt.Sprintf("it took the request on %s and was silent for %v", c.socket, d),
		Try:     "try again; if it stays silent, end its process and run peer start",
	}
}

// cut is the error for an answer that ended early.
func cut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &node.Problem{Code: node.CodeInternal, Message: "the daemon's answer was cut", Cause: err.Error(), Try: "peer status"}
}

// stream reads lines until the one that ends them: line gets those of progress, entry and event; the
// result is decoded into result. An error of line ends the request and is returned. The work may take as
// long as it likes: the daemon sends an empty line now and then, and is given up when none comes.
func (c *Client) stream(ctx context.Context, method, path string, q url.Values, body any, line func([]byte) error, result any) error {
	heard, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(c.patience, func() { cancel(errSilent) })
	defer silence.Stop()
	err := c.lines(heard, method, path, q, body, func(b []byte) error {
		defer silence.Reset(c.patience)
		silence.Stop() // a reader of the answer that takes its time is not the daemon's silence
		return line(b)
	}, func() { silence.Reset(c.patience) }, result)
	if err != nil && context.Cause(heard) == errSilent {
		return c.silent(c.patience)
	}
	return err
}

// errSilent ends a stream of a daemon that says nothing any more.
var errSilent = errors.New("silent")

// lines is stream without the watch over silence; alive is called for each empty line.
func (c *Client) lines(ctx context.Context, method, path string, q url.Values, body any, line func([]byte) error, alive func(), result any) error {
	resp, err := c.do(ctx, method, path, q, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		b, err := r.ReadBytes('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return cut(ctx, err)
		}
		if len(b) == 1 {
			alive()
			continue
		}
		switch typeOf(b) {
		case "":
			return cut(ctx, fmt.Errorf("a line of no type: %.80q", b))
		case typeError:
			var doc ErrorDocument
			if err := json.Unmarshal(b, &doc); err != nil || doc.Error == nil {
				return cut(ctx, fmt.Errorf("an error that is not understood: %.80q", b))
			}
			return doc.Error
		case typeResult:
			if err := json.Unmarshal(b, result); err != nil {
				return cut(ctx, err)
			}
			return nil
		}
		if err := line(b); err != nil {
			return err
		}
	}
}

// decoded makes a line function of fn.
func decoded[T any](fn func(T) error) func([]byte) error {
	return func(b []byte) error {
		var v T
		if err := unmarshal(b, &v); err != nil {
			return fmt.Errorf("decode a line of the daemon's answer: %w", err)
		}
		return fn(v)
	}
}

func told[T any](fn func(T)) func([]byte) error {
	return decoded(func(v T) error {
		if fn != nil {
			fn(v)
		}
		return nil
	})
}

// Status is Backend.Status.
func (c *Client) Status(ctx context.Context) (v node.Status, err error) {
	err = c.soon(ctx, http.MethodGet, "/v1/status", nil, nil, &v)
	return v, err
}

// Devices is Backend.Devices.
func (c *Client) Devices(ctx context.Context) ([]node.DeviceView, error) {
	var v devices
	err := c.soon(ctx, http.MethodGet, "/v1/devices", nil, nil, &v)
	return v.Devices, err
}

// Locations is Backend.Locations.
func (c *Client) Locations(ctx context.Context) ([]node.LocationView, error) {
	var v locations
	err := c.soon(ctx, http.MethodGet, "/v1/locations", nil, nil, &v)
	return v.Locations, err
}

// AddLocation is Backend.AddLocation; progress may be nil.
func (c *Client) AddLocation(ctx context.Context, req node.AddRequest, progress func(node.ScanProgress)) (v node.ScanView, err error) {
	err = c.stream(ctx, http.MethodPost, "/v1/locations", nil, req, told(progress), &v)
	return v, err
}

// RemoveLocation is Backend.RemoveLocation for whatever name or prefix ResolveLocation takes.
func (c *Client) RemoveLocation(ctx context.Context, location string) (v node.LocationView, err error) {
	err = c.within(ctx, c.slow, http.MethodPost, "/v1/locations/remove", nil, placeOf(location), &v)
	return v, err
}

// SetHashing is Backend.SetHashing for whatever name or prefix ResolveLocation takes.
func (c *Client) SetHashing(ctx context.Context, location, policy string) (v node.LocationView, err error) {
	err = c.get(ctx, http.MethodPost, "/v1/locations/set", nil, setting{place: placeOf(location), Hash: policy}, &v)
	return v, err
}

// SetFetch is Backend.SetFetch for whatever name or prefix ResolveLocation takes.
func (c *Client) SetFetch(ctx context.Context, location string, policy node.Fetch) (v node.LocationView, err error) {
	err = c.within(ctx, c.slow, http.MethodPost, "/v1/locations/set", nil, setting{place: placeOf(location), Fetch: policy}, &v)
	return v, err
}

// Rescan is Backend.Rescan for whatever name or prefix ResolveLocation takes; progress may be nil.
func (c *Client) Rescan(ctx context.Context, location string, progress func(node.ScanProgress)) (v node.ScanView, err error) {
	err = c.stream(ctx, http.MethodPost, "/v1/locations/rescan", nil, placeOf(location), told(progress), &v)
	return v, err
}

func setText(q url.Values, name, value string) {
	if utf8.ValidString(value) {
		q.Set(name, value)
	} else {
		q.Set(name+"_b64", base64.StdEncoding.EncodeToString([]byte(value)))
	}
}

// List is Backend.List; the device is whatever ResolveDevice takes, or empty for this one.
func (c *Client) List(ctx context.Context, req node.ListQuery) (v node.Listing, err error) {
	q := url.Values{"device": {req.Device}, "limit": {strconv.Itoa(req.Limit)}}
	setText(q, "path", req.Path)
	setText(q, "after", req.After)
	err = c.within(ctx, c.slow, http.MethodGet, "/v1/entries", q, nil, &v)
	return v, err
}

// Invite is Backend.Invite.
func (c *Client) Invite(ctx context.Context, req node.InviteRequest) (v node.InviteView, err error) {
	err = c.soon(ctx, http.MethodPost, "/v1/invites", nil, req, &v)
	return v, err
}

// Join is Backend.Join; it returns the last progress.
func (c *Client) Join(ctx context.Context, req node.JoinRequest, progress func(node.JoinProgress)) (v node.JoinProgress, err error) {
	err = c.stream(ctx, http.MethodPost, "/v1/join", nil, req, told(progress), &v)
	return v, err
}

// Stop is Backend.Stop.
func (c *Client) Stop(ctx context.Context) (v node.StopResult, err error) {
	err = c.soon(ctx, http.MethodPost, "/v1/stop", nil, struct{}{}, &v)
	return v, err
}

// SyncStatus is Backend.SyncStatus.
func (c *Client) SyncStatus(ctx context.Context) (v node.SyncStatus, err error) {
	err = c.soon(ctx, http.MethodGet, "/v1/sync", nil, nil, &v)
	return v, err
}

// Pause is Backend.Pause; the device is whatever ResolveDevice takes.
func (c *Client) Pause(ctx context.Context, device string, d time.Duration) (v node.PauseView, err error) {
	err = c.soon(ctx, http.MethodPost, "/v1/sync/pause", nil, pauseRequest{metrics.Seconds(d), device}, &v)
	return v, err
}

// Resume is Backend.Resume; the device is whatever ResolveDevice takes.
func (c *Client) Resume(ctx context.Context, device string) (v node.PauseView, err error) {
	err = c.soon(ctx, http.MethodPost, "/v1/sync/resume", nil, ref{Device: device}, &v)
	return v, err
}

// SyncNow is Backend.SyncNow; the device is whatever ResolveDevice takes. progress may be nil.
func (c *Client) SyncNow(ctx context.Context, device string, progress func(node.Progress)) (v node.NowView, err error) {
	err = c.stream(ctx, http.MethodPost, "/v1/sync/now", nil, ref{Device: device}, told(progress), &v)
	return v, err
}

// Metrics is Backend.Metrics, of one device (whatever ResolveDevice takes) and one model; "" means all.
func (c *Client) Metrics(ctx context.Context, device, model string) (v metrics.Snapshot, err error) {
	err = c.soon(ctx, http.MethodGet, "/v1/metrics", url.Values{"device": {device}, "model": {model}}, nil, &v)
	return v, err
}
