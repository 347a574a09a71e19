package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// Keep is how long a snapshot is handed out: who takes it comes the rest of the way by what has changed since.
const Keep = 10 * time.Minute

// ServeMemory is how many bytes Serve takes for its stream: a chunk as read, as sent, and the manifest.
const ServeMemory = 2*MaxChunk + MaxManifest

// Server hands out snapshots. Those who ask within Keep get the same, from one file, so that however many and slow
// they are, the store is read once and pinned no longer than that takes. Its fields are set once.
type Server struct {
	Store  *store.Store
	Dir    string        // for the file; made when it is needed
	Author func() Author // for the library as it is now
	Pick   func(feed.ID) bool
	Admit  func(record.DeviceID) error // asked at every OpenSnapshot: an error refuses, with its code
	Served func(session protocol.SessionID, to record.DeviceID, chunks int, bytes int64)
	Chunk  int // most bytes of entries in a chunk; 0 means MaxChunk
	Now    func() time.Time
	// Reserve takes the memory that making a file needs, until release is called. Its error refuses, with CodeBusy;
	// nil: there is always memory.
	Reserve func(bytes int) (release func(), err error)
	// Progress, if set, is told how far a transfer is, as soon as a snapshot is asked for and after each chunk; it
	// must not block.
	Progress func(session protocol.SessionID, to record.DeviceID, now Progress)

	making sync.Mutex // held while a file is made
	mu     sync.Mutex // guards what follows; taken after making
	now    *shared    // nil: none
	serial int        // of the files made
}

// shared is a file that several may read.
type shared struct {
	*File
	path    string
	made    time.Time
	library feed.LibraryID
	readers int
	retired bool // to be removed by its last reader
}

// Serve answers one stream until the other side closes it. It blocks.
func (s *Server) Serve(ctx context.Context, conn *protocol.Conn) error {
	m, err := conn.Recv()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	open, ok := m.(*protocol.OpenSnapshot)
	if !ok {
		return protocol.Unexpected(m)
	}
	if err := s.Admit(conn.Device()); err != nil {
		return conn.Send(&protocol.Refused{Code: protocol.CodeOf(err)})
	}
	o := &outgoing{Server: s, conn: conn, session: open.Session, now: Progress{Phase: Preparing}}
	o.tell()
	f, err := s.open(ctx)
	if errors.Is(err, store.ErrNoSpace) || errors.Is(err, ErrTooLarge) || errors.Is(err, protocol.CodeBusy) {
		return conn.Send(&protocol.Refused{Code: protocol.CodeBusy})
	}
	if err != nil {
		return err
	}
	defer s.release(f)
	if err := conn.Send(&protocol.SnapshotManifest{Manifest: f.Manifest.Append(nil)}); err != nil {
		return err
	}
	for {
		if err := conn.Flush(); err != nil {
			return err
		}
		m, err := conn.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		get, ok := m.(*protocol.GetChunks)
		if !ok {
			return protocol.Unexpected(m)
		}
		if err := o.send(f, get); err != nil {
			return err
		}
	}
}

// outgoing is a snapshot on its way out.
type outgoing struct {
	*Server
	conn    *protocol.Conn
	session protocol.SessionID
	now     Progress
}

func (o *outgoing) tell() {
	if o.Progress != nil {
		o.Progress(o.session, o.conn.Device(), o.now)
	}
}

// send sends the chunks asked for, as fast as they are taken.
func (o *outgoing) send(f *shared, get *protocol.GetChunks) error {
	chunks, bytes := 0, int64(0)
	defer func() { o.Served(o.session, o.conn.Device(), chunks, bytes) }()
	o.now.Phase = Loading
	for _, run := range get.Runs {
		for i := run.First; i < run.First+run.Count && int(i) < len(f.at); i++ {
			c := f.chunks[i]
			o.now.Total += uint64(c.Entries)
			o.now.Of += int64(c.Size)
		}
	}
	o.tell()
	for _, run := range get.Runs {
		for i := run.First; i < run.First+run.Count; i++ {
			if int(i) >= len(f.at) {
				return &protocol.Error{Code: protocol.CodeMalformed, Detail: fmt.Sprintf("chunk %d of %d", i, len(f.at))}
			}
			b, err := f.Chunk(int(i))
			if err != nil {
				return err
			}
			if err := o.conn.Send(&protocol.Chunk{Number: i, Bytes: b}); err != nil {
				return err
			}
			chunks++
			bytes += int64(len(b))
			o.now.Records += uint64(f.chunks[i].Entries)
			o.now.Bytes += int64(len(b))
			o.tell()
		}
	}
	return nil
}

// open returns the present snapshot, making one if it is too old or of another library.
func (s *Server) open(ctx context.Context) (*shared, error) {
	s.making.Lock()
	defer s.making.Unlock()
	by := s.Author()
	s.mu.Lock()
	if f := s.now; f != nil && f.library == by.Library && s.Now().Before(f.made.Add(Keep)) {
		f.readers++
		s.mu.Unlock()
		return f, nil
	}
	s.serial++
	path := filepath.Join(s.Dir, fmt.Sprintf("out-%d", s.serial))
	s.mu.Unlock()
	f, err := s.make(ctx, path, by)
	if err != nil {
		return nil, fmt.Errorf("make snapshot: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retire()
	s.now = f
	f.readers++
	return f, nil
}

func (s *Server) make(ctx context.Context, path string, by Author) (*shared, error) {
	if s.Reserve != nil {
		release, err := s.Reserve(MakeMemory)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	pin, err := s.Store.Pin(s.Pick)
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	if err := Room(s.Store, s.Dir, pin.Heads); err != nil {
		return nil, err
	}
	made := s.Now()
	_, err = create(path, func(f *os.File) (Manifest, error) { // which no power cut need leave whole
		return export(ctx, f, pin, by, hlc.At(made), cmp.Or(s.Chunk, MaxChunk))
	})
	if err != nil {
		return nil, err
	}
	f, err := OpenFile(path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return &shared{File: f, path: path, made: made, library: by.Library}, nil
}

// release ends one reading.
func (s *Server) release(f *shared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.readers--
	f.remove()
}

// retire lets go of the present snapshot; s.mu is held.
func (s *Server) retire() {
	if s.now != nil {
		s.now.retired = true
		s.now.remove()
		s.now = nil
	}
}

// remove removes the file if nobody is to read it; what cannot be removed is in the way of nothing.
func (f *shared) remove() {
	if f.retired && f.readers == 0 {
		_ = f.Close()
		_ = os.Remove(f.path)
	}
}

// Tidy removes a snapshot that is too old to be handed out.
func (s *Server) Tidy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil && !s.Now().Before(s.now.made.Add(Keep)) {
		s.retire()
	}
}

// Clear removes the present snapshot, and what a process before this one left. No stream is served.
func (s *Server) Clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retire()
	return os.RemoveAll(s.Dir)
}
