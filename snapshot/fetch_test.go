package snapshot

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
	"peerdex/record"
	"peerdex/store"
)

// server returns what hands out d's snapshots, and counts the chunks it sent.
func (p *party) server(tb testing.TB) (s *Server, sent *int) {
	tb.Helper()
	sent = new(int)
	s = &Server{
		Store: p.Store, Dir: filepath.Join(tb.TempDir(), "out"), Author: p.author, Pick: all, Now: time.Now,
		Admit:  func(record.DeviceID) error { return nil },
		Served: func(_ protocol.SessionID, _ record.DeviceID, chunks int, _ int64) { *sent += chunks },
	}
	tb.Cleanup(func() {
		if err := s.Clear(); err != nil {
			tb.Error(err)
		}
	})
	return s, sent
}

// cutStream breaks after so many bytes were written.
type cutStream struct {
	*protocoltest.Stream
	left int
}

func (s *cutStream) Write(b []byte) (int, error) {
	if s.left -= len(b); s.left < 0 {
		s.Reset(protocol.CodeShutdown)
	}
	return s.Stream.Write(b)
}

// fetch takes a snapshot over a stream in memory that serve answers; cut, if positive, is how many bytes come
// before it breaks.
func (p *party) fetch(f *Fetcher, donor *party, serve func(context.Context, *protocol.Conn) error, cut int) (Taken, error) {
	a, b := protocoltest.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var s protocol.Stream = b
		if cut > 0 {
			s = &cutStream{b, cut}
		}
		conn := protocol.NewConn(s, protocol.ConnConfig{Device: p.id, Protocol: protocol.SnapshotProtocol})
		conn.End(serve(context.Background(), conn))
	}()
	conn := protocol.NewConn(a, protocol.ConnConfig{Device: donor.id, Protocol: protocol.SnapshotProtocol})
	out, err := f.Run(context.Background(), conn, protocol.NewSessionID(), p.taker(), func(Manifest) {})
	conn.End(err)
	<-ended
	return out, err
}

// kept returns the names of the chunks that f keeps.
func kept(tb testing.TB, f *Fetcher) (names []string) {
	tb.Helper()
	all, err := os.ReadDir(f.Dir)
	if err != nil {
		tb.Fatal(err)
	}
	for _, n := range all {
		if filepath.Ext(n.Name()) == "" {
			names = append(names, n.Name())
		}
	}
	return names
}

// A snapshot comes over a stream; one that was cut goes on with the chunks that are lacking, from the same donor
// started anew or from another that holds the same; and what was kept for that is then gone.
func TestFetch(t *testing.T) {
	d, second, a := newDonor(t), newParty(t, 7), newParty(t, 1)
	_, chunks, _, _ := d.export(t).Manifest.Totals()
	came := map[bool]int{}
	f := &Fetcher{Dir: filepath.Join(t.TempDir(), "in"), Came: func(n int, kept bool) { came[kept] += n }}
	first, sent := d.server(t)
	var told []Progress
	first.Progress = func(_ protocol.SessionID, to record.DeviceID, now Progress) {
		if to != a.id && to != second.id {
			t.Errorf("hands out to %v", to)
		}
		told = append(told, now)
	}
	if _, err := a.fetch(f, d, first.Serve, 500<<10); !errors.Is(err, protocol.CodeShutdown) {
		t.Fatalf("a fetch that was cut gives %v", err)
	}
	have := len(kept(t, f))
	if have == 0 || have >= chunks || !f.Kept() || len(a.States()) != 0 {
		t.Fatalf("%d of %d chunks kept, %d feeds", have, chunks, len(a.States()))
	}
	if _, err := second.fetch(&Fetcher{Dir: filepath.Join(t.TempDir(), "in")}, d, first.Serve, 0); err != nil {
		t.Fatal(err)
	}
	second.same(t, d)
	entries, _, _, size := d.export(t).Manifest.Totals()
	whole := told[len(told)-1]
	if want := (Progress{Phase: Loading, Records: entries, Total: entries, Bytes: size, Of: size}); told[0] != (Progress{Phase: Preparing}) || whole != want {
		t.Errorf("told %+v at first and %+v at last, want %+v", told[0], whole, want)
	}
	if n := len(told) - chunks; told[n-1] != (Progress{Phase: Loading, Total: entries, Of: size}) {
		t.Errorf("before the first of all chunks told %+v", told[n-1])
	}
	other, sentByOther := second.server(t)
	out, err := a.fetch(f, second, other.Serve, 0)
	if err != nil || len(out.Loaded) != 3 {
		t.Fatalf("went on with another donor: %+v, %v", out, err)
	}
	a.same(t, d)
	if *sentByOther != chunks-have || *sent < chunks+have {
		t.Errorf("of %d chunks %d were kept, then %d sent; the first donor sent %d", chunks, have, *sentByOther, *sent)
	}
	if came[false] != chunks || came[true] != have {
		t.Errorf("told of %d chunks that came and %d that were kept; want %d and %d", came[false], came[true], chunks, have)
	}
	if _, err := os.Stat(f.Dir); !errors.Is(err, os.ErrNotExist) || f.Kept() {
		t.Errorf("chunks that are of no more use: %v", err)
	}
	if _, err := a.fetch(f, second, other.Serve, 0); !errors.Is(err, store.ErrHeld) {
		t.Errorf("the same again gives %v", err)
	}
}

// A disk that has no room for what comes is no fault of the donor's, and what is there is kept.
func TestFetchOntoFullDisk(t *testing.T) {
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip(err)
	}
	d, a := newDonor(t), newParty(t, 1)
	s, _ := d.server(t)
	f := &Fetcher{Dir: filepath.Join(t.TempDir(), "in")}
	if _, err := a.fetch(f, d, s.Serve, 500<<10); !errors.Is(err, protocol.CodeShutdown) {
		t.Fatal(err)
	}
	have := kept(t, f)
	f.Came = func(int, bool) { // before the first comes
		for _, feed := range d.export(t).Manifest.Feeds {
			for _, c := range feed.Chunks {
				if err := os.Symlink(full, filepath.Join(f.Dir, hex.EncodeToString(c.Sum[:])+".part")); err != nil {
					t.Error(err)
				}
			}
		}
	}
	_, err := a.fetch(f, d, s.Serve, 0)
	if fault, accused := errors.AsType[*protocol.Error](err); !errors.Is(err, syscall.ENOSPC) || accused {
		t.Errorf("a full disk is told as %v, %v", err, fault)
	}
	if now := kept(t, f); !slices.Equal(now, have) || len(a.States()) != 0 {
		t.Errorf("kept %d chunks, then %d; %d feeds", len(have), len(now), len(a.States()))
	}
}

// What was kept and has rotted since is asked for again.
func TestFetchOverDamagedChunks(t *testing.T) {
	d, a := newDonor(t), newParty(t, 1)
	s, _ := d.server(t)
	f := &Fetcher{Dir: filepath.Join(t.TempDir(), "in")}
	if _, err := a.fetch(f, d, s.Serve, 500<<10); err == nil {
		t.Fatal("was not cut")
	}
	for _, n := range kept(t, f) {
		path := filepath.Join(f.Dir, n)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, info.Size()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for try := 0; ; try++ {
		_, err := a.fetch(f, d, s.Serve, 0)
		if err == nil {
			break
		}
		if try == 9 {
			t.Fatal(err)
		}
	}
	a.same(t, d)
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.Tidy(time.Now().Add(stale - time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.Dir); err != nil {
		t.Errorf("chunks were removed too early: %v", err)
	}
	if err := f.Tidy(time.Now().Add(stale + time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stale chunks are kept: %v", err)
	}
}

// All who ask within Keep read one file; afterwards a new one is made, and the old goes with its last reader.
func TestServerShares(t *testing.T) {
	d := newDonor(t)
	s, _ := d.server(t)
	now := time.Now()
	s.Now = func() time.Time { return now }
	ctx := context.Background()
	open := func() *shared {
		f, err := s.open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	files := func(want int) {
		t.Helper()
		if names, err := os.ReadDir(s.Dir); err != nil || len(names) != want {
			t.Errorf("%d files, want %d, %v", len(names), want, err)
		}
	}
	one := open()
	now = now.Add(Keep - 1)
	if two := open(); two != one {
		t.Error("another file within the time")
	}
	s.Tidy()
	files(1)
	now = now.Add(1)
	three := open()
	if three == one {
		t.Error("the same file after its time")
	}
	files(2)
	s.release(one)
	files(2)
	if _, err := one.Chunk(0); err != nil {
		t.Errorf("a reader of the old file: %v", err)
	}
	s.release(one)
	files(1)
	s.release(three)
	files(1)
	now = now.Add(Keep)
	s.Tidy()
	files(0)
	open()
	if err := s.Clear(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// Whatever else than a snapshot a donor answers with, nothing is taken, and it is accused of what is its fault.
func TestFetchFromAnyone(t *testing.T) {
	d, a := newDonor(t), newParty(t, 1)
	f := d.export(t)
	refused := new(RefusedError)
	script := func(answers ...protocol.Message) func(context.Context, *protocol.Conn) error {
		return func(_ context.Context, c *protocol.Conn) error {
			for _, m := range answers {
				if _, err := c.Recv(); err != nil {
					return err
				}
				if err := errors.Join(c.Send(m), c.Flush()); err != nil {
					return err
				}
			}
			if _, err := c.Recv(); !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		}
	}
	offer := &protocol.SnapshotManifest{Manifest: f.Manifest.Append(nil)}
	lie := f.Manifest
	lie.Donor = a.id
	newer := f.Manifest.Append(nil)
	newer[0]++
	last, err := f.Chunk(1)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		serve func(context.Context, *protocol.Conn) error
		is    func(error) bool
	}{
		"refused":           {script(&protocol.Refused{Code: protocol.CodeBusy}), func(err error) bool { return errors.As(err, &refused) && refused.Code == protocol.CodeBusy }},
		"no manifest":       {script(&protocol.SnapshotManifest{Manifest: []byte{1, 2}}), func(err error) bool { return errors.Is(err, protocol.CodeMalformed) }},
		"of another device": {script(&protocol.SnapshotManifest{Manifest: lie.sign(a.author().Sign).Append(nil)}), func(err error) bool { return errors.Is(err, protocol.CodeMismatch) }},
		"newer":             {script(&protocol.SnapshotManifest{Manifest: newer}), func(err error) bool { return errors.Is(err, ErrNewer) }},
		"a chunk first":     {script(&protocol.Chunk{Bytes: last}), func(err error) bool { return errors.Is(err, protocol.CodeUnexpected) }},
		"another chunk":     {script(offer, &protocol.Chunk{Number: 1, Bytes: last}), func(err error) bool { return errors.Is(err, protocol.CodeMismatch) }},
		"a false chunk":     {script(offer, &protocol.Chunk{Number: 0, Bytes: last}), func(err error) bool { return errors.Is(err, protocol.CodeMismatch) }},
		"two manifests":     {script(offer, offer), func(err error) bool { return errors.Is(err, protocol.CodeUnexpected) }},
		"nothing":           {func(context.Context, *protocol.Conn) error { return nil }, func(err error) bool { return errors.Is(err, protocol.CodeLost) }},
	} {
		if _, err := a.fetch(&Fetcher{Dir: filepath.Join(t.TempDir(), "in")}, d, c.serve, 0); !c.is(err) {
			t.Errorf("%s gives %v", what, err)
		}
		if len(a.States()) != 0 {
			t.Errorf("%s: the store has changed", what)
		}
	}

	s, _ := d.server(t)
	ask := func(ms ...protocol.Message) error {
		a, b := protocoltest.Pipe()
		ended := make(chan error, 1)
		go func() {
			conn := protocol.NewConn(b, protocol.ConnConfig{})
			err := s.Serve(context.Background(), conn)
			conn.End(err)
			ended <- err
		}()
		conn := protocol.NewConn(a, protocol.ConnConfig{})
		for _, m := range ms {
			if err := conn.Send(m); err != nil {
				t.Error(err)
			}
		}
		_ = conn.CloseWrite()
		for {
			if _, err := conn.Recv(); err != nil {
				break
			}
		}
		return <-ended
	}
	open := &protocol.OpenSnapshot{Session: protocol.NewSessionID()}
	for what, c := range map[string]struct {
		ask  []protocol.Message
		want error
	}{
		"nothing":              {nil, nil},
		"chunks unopened":      {[]protocol.Message{&protocol.GetChunks{Runs: []protocol.Run{{First: 0, Count: 1}}}}, protocol.CodeUnexpected},
		"opened twice":         {[]protocol.Message{open, open}, protocol.CodeUnexpected},
		"a chunk that is none": {[]protocol.Message{open, &protocol.GetChunks{Runs: []protocol.Run{{First: 5000, Count: 1}}}}, protocol.CodeMalformed},
		"only the manifest":    {[]protocol.Message{open}, nil},
	} {
		if err := ask(c.ask...); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("asked %s: %v", what, err)
		}
	}
	s.Admit = func(record.DeviceID) error { return protocol.CodePaused }
	if _, err := a.fetch(&Fetcher{Dir: filepath.Join(t.TempDir(), "in")}, d, s.Serve, 0); !errors.As(err, &refused) || refused.Code != protocol.CodePaused {
		t.Errorf("not admitted: %v", err)
	}
}
