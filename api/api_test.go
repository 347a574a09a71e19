package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"peerdex/eventlog"
	"peerdex/metrics"
	"peerdex/node"
)

// scripted answers what the tests here ask.
type scripted struct {
	Backend
	find func(context.Context, func(node.Entry) error) (node.FindResult, error)
	list func(node.ListQuery)

	refused func(string) // nil: nobody listens
}

func (s scripted) Refused(route string, code node.Code) {
	if s.refused != nil {
		s.refused(route + " " + string(code))
	}
}

func (s scripted) Status(context.Context) (node.Status, error) {
	return node.Status{PID: 7, Now: time.Now(), Started: time.Now()}, nil
}

func (s scripted) Devices(context.Context) ([]node.DeviceView, error) {
	return []node.DeviceView{{ID: "12D3A", Short: "AAAA-AAAA", Name: "laptop", Self: true}}, nil
}

func (s scripted) Find(ctx context.Context, _ node.FindQuery, fn func(node.Entry) error) (node.FindResult, error) {
	return s.find(ctx, fn)
}

func (s scripted) List(_ context.Context, q node.ListQuery) (node.Listing, error) {
	s.list(q)
	return node.Listing{Path: q.Path}, nil
}

// counted keeps the routes and codes that were counted.
type counted struct {
	mu  sync.Mutex // guards got
	got []string
}

func (c *counted) HTTPRequest(route string, code int, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, fmt.Sprint(route, " ", code))
}

var _ Requests = (*metrics.Metrics)(nil)

// serve runs a server on a socket and returns the socket and what ends it.
func serve(t *testing.T, s Server) (socket string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "sub", "peer.sock")
	if s.Listener, err = Listen(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return socket, stop
}

func TestGuards(t *testing.T) {
	c, refused := &counted{}, &counted{}
	note := func(what string) {
		refused.mu.Lock()
		defer refused.mu.Unlock()
		refused.got = append(refused.got, what)
	}
	socket, _ := serve(t, Server{Backend: scripted{refused: note}, Requests: c})
	client := NewClient(socket)
	defer client.Close()
	for _, x := range []struct {
		method, path, header, value, body string
		status                            int
		code                              node.Code
	}{
		{"GET", "/v1/status", "", "", "", 200, ""},
		{"GET", "/v1/status", "Origin", "http://localhost", "", 403, node.CodeNotAllowed},
		{"GET", "/v1/status", "Referer", "http://localhost/", "", 403, node.CodeNotAllowed},
		{"GET", "/v1/status", "Sec-Fetch-Site", "none", "", 403, node.CodeNotAllowed},
		{"POST", "/v1/stop", "Content-Type", "text/plain", "{}", 400, node.CodeUsage},
		{"POST", "/v1/sync/pause", "Content-Type", "application/json", `{"For":`, 400, node.CodeUsage},
		{"POST", "/v1/sync/pause", "Content-Type", "application/json", `{"until":1}`, 400, node.CodeUsage},
		{"POST", "/v1/sync/pause", "Content-Type", "application/json", `{} {}`, 400, node.CodeUsage},
		{"POST", "/v1/invites", "Content-Type", "application/json", `"` + strings.Repeat("x", 2<<20) + `"`, 400, node.CodeUsage},
		{"GET", "/v1/secret/of/mia", "", "", "", 404, node.CodeNotFound},
		{"POST", "/v1/status", "Content-Type", "application/json", "{}", 404, node.CodeNotFound},
		{"GET", "/v1/entries?limit=99999999", "", "", "", 400, node.CodeUsage},
		{"GET", "/v1/entries?path_b64=%25", "", "", "", 400, node.CodeUsage},
		{"GET", "/v1/find?sort=colour", "", "", "", 400, node.CodeUsage},
	} {
		req, err := http.NewRequest(x.method, "http://peer"+x.path, strings.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		if x.header != "" {
			req.Header.Set(x.header, x.value)
		}
		resp, err := client.http.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", x.method, x.path, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != x.status {
			t.Errorf("%s %s (%s): status %d, want %d", x.method, x.path, x.header, resp.StatusCode, x.status)
		}
		var doc ErrorDocument
		if x.code != "" && (json.Unmarshal(body, &doc) != nil || doc.Error == nil || doc.Error.Code != x.code) {
			t.Errorf("%s %s: %s", x.method, x.path, body)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.got) != 14 || c.got[0] != "GET /v1/status 200" || c.got[9] != "/ 404" {
		t.Errorf("counted %q", c.got)
	}
	refused.mu.Lock()
	defer refused.mu.Unlock()
	if len(refused.got) != 13 || refused.got[0] != "GET /v1/status not_allowed" || refused.got[12] != "GET /v1/find usage" {
		t.Errorf("refused %q", refused.got)
	}
	for _, route := range append(c.got, refused.got...) {
		if strings.Contains(route, "mia") {
			t.Errorf("a path became a label: %s", route)
		}
	}
}

func TestListen(t *testing.T) {
	socket, stop := serve(t, Server{Backend: scripted{}})
	for path, want := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v (%v), want %v", path, info.Mode(), err, want)
		}
	}
	_, err := Listen(t.Context(), socket)
	var p *node.Problem
	if !errors.As(err, &p) || p.Code != node.CodeAlreadyRunning || p.Details != (Running{7, p.Details.(Running).Started}) {
		t.Errorf("second listen: %v", err)
	}
	stop()
	l, err := Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	// a holder of the socket that does not answer is not taken for dead
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Listen(ctx, socket); AsProblem(err).Code != node.CodeAlreadyRunning {
		t.Errorf("listen beside a silent one: %v", err)
	}
	l.Close()
	os.Chmod(filepath.Dir(socket), 0o755)
	if _, err := Listen(t.Context(), socket); AsProblem(err).Code != node.CodeHomeUnsafe {
		t.Errorf("listen in an open directory: %v", err)
	}
}

// What a stream sends arrives in order; a stream that breaks says so, and one that is cut is noticed.
func TestStream(t *testing.T) {
	s := &scripted{}
	socket, _ := serve(t, Server{Backend: s})
	c := NewClient(socket)
	defer c.Close()
	const n = 5000
	s.find = func(_ context.Context, fn func(node.Entry) error) (node.FindResult, error) {
		for i := range n {
			if err := fn(node.Entry{Name: fmt.Sprintf("%d\xff", i), Size: uint64(i)}); err != nil {
				return node.FindResult{}, err
			}
		}
		return node.FindResult{Found: n}, nil
	}
	next := 0
	res, err := c.Find(t.Context(), node.FindQuery{Text: "x"}, func(e node.Entry) error {
		if e.Name != fmt.Sprintf("%d\xff", next) || e.Size != uint64(next) {
			return fmt.Errorf("entry %d is %q", next, e.Name)
		}
		next++
		return nil
	})
	if err != nil || res.Found != n || next != n {
		t.Errorf("%d of %d entries, %+v, %v", next, n, res, err)
	}

	// the caller has enough: the backend's context ends
	enough := errors.New("enough")
	ended := make(chan struct{})
	refused := make(chan string, 2)
	s.refused = func(what string) { refused <- what }
	s.find = func(ctx context.Context, fn func(node.Entry) error) (node.FindResult, error) {
		defer close(ended)
		for {
			if err := fn(node.Entry{Name: "x"}); err != nil {
				return node.FindResult{}, err
			}
		}
	}
	if _, err := c.Find(t.Context(), node.FindQuery{Text: "x"}, func(node.Entry) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v, want %v", err, enough)
	}
	<-ended

	s.find = func(_ context.Context, fn func(node.Entry) error) (node.FindResult, error) {
		for range n {
			if err := fn(node.Entry{Name: "x"}); err != nil {
				return node.FindResult{}, err
			}
		}
		return node.FindResult{}, &node.Problem{Code: node.CodeIntegrity, Message: "broken"}
	}
	if _, err := c.Find(t.Context(), node.FindQuery{Text: "x"}, func(node.Entry) error { return nil }); AsProblem(err).Code != node.CodeIntegrity {
		t.Errorf("a late error: %v", err)
	}
	if what := <-refused; what != "GET /v1/find integrity" { // the first: to have enough is not to be refused
		t.Errorf("noted as %q", what)
	}
}

// A request that goes on when the server is told to stop has its context ended, and Run waits for it.
func TestStop(t *testing.T) {
	s := &scripted{}
	socket, stop := serve(t, Server{Backend: s})
	c := NewClient(socket)
	defer c.Close()
	began, ended := make(chan struct{}), false
	s.find = func(ctx context.Context, _ func(node.Entry) error) (node.FindResult, error) {
		close(began)
		<-ctx.Done()
		ended = true
		return node.FindResult{}, ctx.Err()
	}
	answer := make(chan error, 1)
	go func() {
		_, err := c.Find(context.Background(), node.FindQuery{Text: "x"}, func(node.Entry) error { return nil })
		answer <- err
	}()
	<-began
	stop()
	if !ended {
		t.Error("Run returned before the request had ended")
	}
	if err := <-answer; AsProblem(err).Code != node.CodeInterrupted {
		t.Errorf("the client got %v", err)
	}
	if _, err := c.Status(t.Context()); AsProblem(err).Code != node.CodeNoDaemon {
		t.Errorf("after the stop: %v", err)
	}
}

// Paths that are no UTF-8 reach the backend as they are.
func TestRawPath(t *testing.T) {
	s := &scripted{}
	socket, _ := serve(t, Server{Backend: s})
	c := NewClient(socket)
	defer c.Close()
	var got node.ListQuery
	s.list = func(q node.ListQuery) { got = q }
	for _, path := range []string{"/a/\xff\xfe", "/ü #?&=%/x", "/plain"} {
		v, err := c.List(t.Context(), node.ListQuery{Path: path, After: "\x80"})
		if err != nil || got.Path != path || got.After != "\x80" || v.Path != path || got.Device != "12D3A" {
			t.Errorf("%q arrived as %+v, came back as %q, %v", path, got, v.Path, err)
		}
	}
}

func TestOtherUser(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, known, err := peerUser(a); known || err != nil {
		t.Errorf("a pipe has a user: %v", err)
	}
	socket, _ := serve(t, Server{Backend: scripted{}})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if uid, known, err := peerUser(conn); err != nil || known && uid != os.Getuid() {
		t.Errorf("user %d (%v), want %d", uid, err, os.Getuid())
	}
}

func TestResolve(t *testing.T) {
	devices := []node.DeviceView{
		{ID: "12D3KooWA", Short: "7KQ2-XMDL", Name: "laptop"},
		{ID: "12D3KooWB", Short: "7KZZ-0000", Name: "nas"},
		{ID: "12D3KooWC", Short: "3F9D-PQ7A", Name: "nas-old"},
	}
	for ref, want := range map[string]string{
		"laptop": "laptop", "LAP": "laptop", "nas": "nas", "nas-": "nas-old", "7kq2": "laptop", "7KZZ0000": "nas",
		"7KZZ-0000": "nas", "12D3KooWC": "nas-old", "3": "nas-old",
		"na": "ambiguous", "7K": "ambiguous", "12D3": "ambiguous", "": "unknown_device", "attic": "unknown_device",
	} {
		d, err := ResolveDevice(devices, ref)
		got := d.Name
		if err != nil {
			got = string(AsProblem(err).Code)
		}
		if got != want {
			t.Errorf("%q is %s, want %s", ref, got, want)
		}
	}
	// Names that somebody made to be taken for another device, or that are equal to people.
	odd := []node.DeviceView{
		{ID: "12D3KooWA", Short: "7KQ2-XMDL", Name: "nas"},
		{ID: "12D3KooWB", Short: "7KZZ-0000", Name: "7kq2xmdl"},
		{ID: "12D3KooWC", Short: "3F9D-PQ7A", Name: "12D3KooWA"},
		{ID: "12D3KooWD", Short: "9999-0000", Name: "NAS"},
		{ID: "12D3KooWE", Short: "8888-0000", Name: "7KQ2"},
		{ID: "12D3KooWF", Short: "5555-0000", Name: "e\u0301cole"},
	}
	for ref, want := range map[string]string{
		"7KQ2-XMDL": "12D3KooWA", "12D3KooWA": "12D3KooWA", "7kq2": "12D3KooWE", "7kz": "12D3KooWB", "\u00c9COLE": "12D3KooWF",
	} {
		if d, err := ResolveDevice(odd, ref); err != nil || d.ID != want {
			t.Errorf("%q is %s, %v, want %s", ref, d.ID, err, want)
		}
	}
	if _, err := ResolveDevice(odd, "Nas"); err == nil || !strings.Contains(AsProblem(err).Message, "nas (7KQ2-XMDL), NAS (9999-0000)") || !strings.Contains(AsProblem(err).Try, "7KQ2-XMDL or 9999-0000") {
		t.Errorf("two of one name: %v", err)
	}
	locations := []node.LocationView{
		{ID: "aa11", Name: "photos", DeviceName: "laptop", Self: true, Path: "/p"},
		{ID: "bb22", Name: "photos", DeviceName: "nas", Path: "/srv/photos"},
		{ID: "bc33", Name: "films", DeviceName: "nas", Path: "/srv/films"},
	}
	for ref, want := range map[string]string{
		"photos": "aa11", "nas:photos": "bb22", "/srv/photos": "bb22", "/p": "aa11", "fil": "bc33", "bb": "bb22",
		"b": "ambiguous", "": "unknown_location", "x": "unknown_location",
	} {
		l, err := ResolveLocation(locations, ref)
		got := l.ID
		if err != nil {
			got = string(AsProblem(err).Code)
		}
		if got != want {
			t.Errorf("%q is %s, want %s", ref, got, want)
		}
	}
	for typed, want := range map[string]string{"stauts": "status", "fnid": "find", "x": "", "jion": "join"} {
		if got := Nearest(typed, []string{"start", "stop", "status", "find", "join", "ls"}); got != want {
			t.Errorf("near %q is %q, want %q", typed, got, want)
		}
	}
}

func TestDocument(t *testing.T) {
	for _, v := range []any{7, []int{1}, "x", nil} {
		if _, err := Document("peer.x/v1", v); err == nil {
			t.Errorf("%v became a document", v)
		}
	}
	b, err := Document("peer.x/v1", struct{}{})
	if err != nil || string(b) != `{"schema":"peer.x/v1"}` {
		t.Errorf("%s, %v", b, err)
	}
	b, err = Line("peer.x/v1", "entry", devices{})
	if err != nil || !bytes.Equal(b, []byte("{\"schema\":\"peer.x/v1\",\"type\":\"entry\",\"devices\":[]}\n")) {
		t.Errorf("%s, %v", b, err)
	}
}

// A daemon that took the request and is silent does not hold the client for ever.
func TestSilentDaemon(t *testing.T) {
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := NewClient(filepath.Join(dir, "s"))
	defer c.Close()
	c.patience, c.slow = 20*time.Millisecond, 20*time.Millisecond
	for name, ask := range map[string]func(context.Context) error{
		"status": func(ctx context.Context) error { _, err := c.Status(ctx); return err },
		"now":    func(ctx context.Context) error { _, err := c.SyncNow(ctx, "", nil); return err },
		"remove": func(ctx context.Context) error { _, err := c.RemoveLocation(ctx, "x"); return err },
		"add":    func(ctx context.Context) error { _, err := c.AddLocation(ctx, node.AddRequest{}, nil); return err },
		"find": func(ctx context.Context) error {
			_, err := c.Find(ctx, node.FindQuery{}, func(node.Entry) error { return nil })
			return err
		},
		"follow": func(ctx context.Context) error {
			_, err := c.Events(ctx, EventQuery{Follow: true}, func(eventlog.Event) error { return nil })
			return err
		},
	} {
		if p := AsProblem(ask(t.Context())); p.Code != node.CodeNoDaemon || p.Message != "the daemon does not answer" || p.Cause == "" || p.Try == "" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond) // the caller's own end stays its own
	defer cancel()
	if _, err := c.Devices(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestListenNoPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Listen(t.Context(), filepath.Join(file, "d", "s"))
	if p := AsProblem(err); p.Code != node.CodeHomeUnsafe || p.Cause == "" || p.Try == "" {
		t.Errorf("%+v", p)
	}
}
