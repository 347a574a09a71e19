package api

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerdex/node"
)

// The tests of this file run on a clock of their own.

// slate is a ResponseWriter that remembers what was written.
type slate struct {
	strings.Builder
	header http.Header
}

func (s *slate) Header() http.Header                { return s.header }
func (s *slate) WriteHeader(int)                    {}
func (s *slate) Flush()                             {}
func (s *slate) SetReadDeadline(t time.Time) error  { return nil }
func (s *slate) SetWriteDeadline(t time.Time) error { return nil }

// A stream says every few seconds that it is alive, until it has ended. An error that comes at once has a
// status of its own; after that it is a line.
func TestBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slate{header: http.Header{}}
		s, err := newStream(w, SchemaScan)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(beatEvery / 2)
		if err := s.send(typeProgress, node.ScanProgress{Seen: 1}, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(beatEvery - 1)
		synctest.Wait()
		line := w.String()
		if strings.Count(line, "\n") != 1 {
			t.Errorf("before it was silent for so long: %q", line)
		}
		time.Sleep(2*beatEvery + 2)
		synctest.Wait()
		if w.String() != line+"\n\n\n" {
			t.Errorf("%q", w.String())
		}
		if err := s.end(nil, errors.New("ill")); err != nil || !strings.Contains(w.String(), `"type":"error"`) {
			t.Errorf("%v, %q", err, w.String())
		}
		s.stop()
		end := w.String()
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.String() != end {
			t.Errorf("after the end: %q", strings.TrimPrefix(w.String(), end))
		}

		w = &slate{header: http.Header{}}
		if s, err = newStream(w, SchemaScan); err != nil {
			t.Fatal(err)
		}
		ill := errors.New("ill")
		if err := s.end(nil, ill); err != ill {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		s.stop()
		if w.String() != "" {
			t.Errorf("before the error's own status: %q", w.String())
		}
	})
}

// Work may take hours as long as the daemon is alive. When it falls silent, in the middle of an answer too,
// it is given up.
func TestSilence(t *testing.T) {
	for _, dies := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			c := NewClient("nowhere")
			c.http.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil }, DisableKeepAlives: true}
			go func() {
				if _, err := http.ReadRequest(bufio.NewReader(theirs)); err != nil {
					return
				}
				_, _ = theirs.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"))
				for range 1000 {
					time.Sleep(beatEvery)
					_, _ = theirs.Write([]byte("\n"))
				}
				if dies {
					return
				}
				_, _ = theirs.Write([]byte(`{"schema":"peer.scan/v1","type":"result","added":7}` + "\n"))
				theirs.Close()
			}()
			began := time.Now()
			v, err := c.AddLocation(t.Context(), node.AddRequest{Path: "/x"}, nil)
			took := time.Since(began)
			if dies {
				if p := AsProblem(err); p.Code != node.CodeNoDaemon || took != 1000*beatEvery+patience {
					t.Errorf("after %v: %+v", took, p)
				}
			} else if err != nil || v.Added != 7 || took != 1000*beatEvery {
				t.Errorf("after %v: %+v, %v", took, v, err)
			}
		})
	}
}
