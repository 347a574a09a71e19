// Package api is how other processes of the same user talk to a node: HTTP over a Unix socket, JSON
// documents tagged with a schema, streams of one JSON object per line. There is no TCP listener.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"sync"
	"time"

	"peerdex/node"
)

// Limits of the server. Requests are small; answers to find and events may be long and are streamed.
const (
	maxBody      = 1 << 20
	maxHeader    = 16 << 10
	writeTimeout = 30 * time.Second // a reader that takes nothing for so long is cut off
)

// Server answers on a socket.
type Server struct {
	Listener net.Listener // from Listen; Run closes it
	Backend  Backend
	Requests Requests     // nil counts nothing
	Log      *slog.Logger // nil discards
}

// Requests counts answered requests; *metrics.Metrics does.
type Requests interface {
	HTTPRequest(route string, code int, d time.Duration)
}

// Run answers until ctx ends. Requests still running then have their contexts ended and two seconds to
// come to an end; after that their connections are closed. It returns nil unless the listener failed.
func (s Server) Run(ctx context.Context) error {
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return inner },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	ctx, ended := context.WithCancel(ctx) // by the caller, or by a listener that failed
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		cancel()
		grace, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer done()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	}()
	err := srv.Serve(s.Listener)
	told := ctx.Err() != nil
	ended()
	<-stopped
	if told {
		return nil
	}
	return fmt.Errorf("serve the control socket: %w", err)
}

// Handler returns the routes with their guards.
func (s Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range s.routes() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				writeError(w, err)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &node.Problem{Code: node.CodeNotFound, Message: fmt.Sprintf("the API has no %s %q", r.Method, r.URL.Path)})
	})
	return s.count(mux)
}

// count guards every request and counts it under the pattern of its route: never under a name from outside.
func (s Server) count(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		_, pattern := mux.Handler(r)
		rec := &recorder{ResponseWriter: w, code: http.StatusOK}
		defer func() {
			if s.Requests != nil {
				s.Requests.HTTPRequest(pattern, rec.code, time.Since(begin))
			}
			if rec.refused != "" {
				s.Backend.Refused(pattern, rec.refused)
			}
		}()
		rec.Header().Set("Cache-Control", "no-store")
		rec.Header().Set("X-Content-Type-Options", "nosniff")
		if err := guard(r); err != nil {
			writeError(rec, err)
			return
		}
		r.Body = http.MaxBytesReader(rec, r.Body, maxBody)
		mux.ServeHTTP(rec, r)
	})
}

// guard refuses what only a browser would send: no web page has business with this socket, however it
// got hold of it.
func guard(r *http.Request) error {
	for _, h := range []string{"Origin", "Referer", "Sec-Fetch-Site"} {
		if r.Header.Get(h) != "" {
			return &node.Problem{Code: node.CodeNotAllowed, Message: "requests of web pages are refused", Cause: "the request carries " + h}
		}
	}
	if r.Method != http.MethodPost {
		return nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &node.Problem{Code: node.CodeUsage, Message: "the request is not understood", Cause: "a request that changes something must be application/json"}
	}
	return nil
}

// recorder remembers the status for the metrics, the code of a problem that was answered, and that an answer
// has begun: what fails after that, as when the client has gone, cannot change the status any more.
type recorder struct {
	http.ResponseWriter
	code    int
	refused node.Code
	begun   bool
}

func (r *recorder) WriteHeader(code int) {
	if r.begun {
		return
	}
	r.code, r.begun = code, true
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.begun = true
	return r.ResponseWriter.Write(b)
}

// refuse remembers p as the answer to the request that w belongs to. What was broken off, or failed because
// the client went away or of a fault here, is not refused.
func refuse(w http.ResponseWriter, p *node.Problem) {
	if r, ok := w.(*recorder); ok && p.Code != node.CodeInterrupted && p.Code != node.CodeInternal {
		r.refused = p.Code
	}
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// readBody decodes the request into v; fields unknown here are an error, so that an older node does not
// silently do less than it was asked.
func readBody(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		_, err = d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.Join(errors.New("more than one JSON value"), err)
	}
	return &node.Problem{Code: node.CodeUsage, Message: "the request is not understood", Cause: err.Error()}
}

// unhurried lifts the deadline of reading the request from a request that has been read: the answer may
// take longer than that.
func unhurried(w http.ResponseWriter) error {
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("lift the read deadline: %w", err)
	}
	return nil
}

func writeDocument(w http.ResponseWriter, schema string, v any) error {
	b, err := Document(schema, v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n')) // a client that went away misses nothing
	return nil
}

func writeError(w http.ResponseWriter, err error) {
	p := AsProblem(err)
	refuse(w, p)
	b, err := Document(SchemaError, ErrorDocument{p})
	if err != nil { // details that do not marshal
		b, _ = Document(SchemaError, ErrorDocument{&node.Problem{Code: node.CodeInternal, Message: err.Error()}})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.Code.Status())
	w.Write(append(b, '\n'))
}

// stream writes lines, and an empty one after beatEvery of silence: whoever waits knows that the daemon is
// alive, however long the work takes. Nothing is sent before that, so that an early error has its own
// status. Whoever makes a stream calls stop.
type stream struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	schema string
	beat   *time.Timer

	mu    sync.Mutex // guards all below, and the writing: a beat comes from elsewhere
	over  bool       // stopped
	begun bool
	buf   bytes.Buffer
	flush time.Time // of the last flush
}

// beatEvery is how long a stream may be silent.
const beatEvery = 3 * time.Second

func newStream(w http.ResponseWriter, schema string) (*stream, error) {
	s := &stream{w: w, rc: http.NewResponseController(w), schema: schema}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beat = time.AfterFunc(beatEvery, s.pulse)
	return s, unhurried(w)
}

func (s *stream) pulse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if s.buf.Len() == 0 {
		s.buf.WriteByte('\n')
	}
	_ = s.push() // a client that went away ends the work by itself
}

// stop ends the beats. Nothing is written after it has returned.
func (s *stream) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.beat.Stop()
}

// send queues a line; lines leave when 64 KiB are full or, if now, at once.
func (s *stream) send(kind string, v any, now bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	line, err := Line(s.schema, kind, v)
	if err != nil {
		return err
	}
	s.buf.Write(line)
	if !now && s.buf.Len() < 64<<10 && time.Since(s.flush) < 100*time.Millisecond {
		return nil
	}
	return s.push()
}

// push sends what is queued; s.mu is held.
func (s *stream) push() error {
	s.beat.Reset(beatEvery)
	if !s.begun {
		s.w.Header().Set("Content-Type", "application/x-ndjson")
		s.begun = true
	}
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("set the write deadline: %w", err)
	}
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	s.buf.Reset()
	s.flush = time.Now()
	if err := s.rc.Flush(); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// end closes the stream with its result, or with the error as a line of its own if lines have been sent.
func (s *stream) end(v any, err error) error {
	if err == nil {
		return s.send(typeResult, v, true)
	}
	s.mu.Lock()
	s.schema, s.over = SchemaError, true // no beat between here and the error's own status
	begun := s.begun
	s.mu.Unlock()
	if !begun {
		return err
	}
	p := AsProblem(err)
	refuse(s.w, p)
	return s.send(typeError, ErrorDocument{p}, true)
}

// Types of the lines of a stream. A stream without a last line of typeResult or typeError was cut.
const (
	typeProgress = "progress"
	typeEntry    = "entry"
	typeEvent    = "event"
	typeResult   = "result"
	typeError    = "error"
)
