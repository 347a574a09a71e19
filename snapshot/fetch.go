package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"peerdex/feed"
	"peerdex/internal/failpoint"
	"peerdex/internal/mutant"
	"peerdex/protocol"
	"peerdex/store"
)

// Fetcher takes snapshots from other devices. Chunks that have come are kept until a snapshot was taken whole: what
// was cut off goes on with the chunks still lacking, with the same donor or another. Its fields are set once.
type Fetcher struct {
	Dir  string                      // for the chunks; made when they come, removed when they are of no more use
	Came func(chunks int, kept bool) // told of chunks that are here: they were kept, or came just now; nil: nobody
}

// RefusedError is a donor's answer that it has no snapshot to give.
type RefusedError struct{ Code protocol.Code }

func (e *RefusedError) Error() string { return "donor refuses: " + e.Code.Error() }
func (e *RefusedError) Unwrap() error { return e.Code }

// Run asks the donor behind conn for a snapshot and takes it. It blocks. The caller owns the stream, and resets it
// when ctx ends. Errors are those of Take, of the stream, *RefusedError, and *protocol.Error that accuses a
// donor whose snapshot is not what it says. began is told what the donor offers.
func (f *Fetcher) Run(ctx context.Context, conn *protocol.Conn, session protocol.SessionID, take *Taker, began func(Manifest)) (Taken, error) {
	if err := errors.Join(conn.Send(&protocol.OpenSnapshot{Session: session}), conn.Flush()); err != nil {
		return Taken{}, err
	}
	m, err := manifest(conn)
	if err != nil {
		return Taken{}, err
	}
	began(m)
	src := &remote{conn: conn, dir: f.Dir, came: f.Came}
	if src.came == nil {
		src.came = func(int, bool) {}
	}
	for _, f := range m.Feeds {
		src.chunks = append(src.chunks, f.Chunks...)
	}
	out, err := take.Take(ctx, m, src)
	useless := accuses(err)
	if err == nil || useless || errors.Is(err, store.ErrHeld) {
		if rerr := os.RemoveAll(f.Dir); err == nil {
			err = rerr
		}
	}
	if useless {
		err = &protocol.Error{Code: protocol.CodeMismatch, Detail: err.Error()}
	}
	return out, err
}

// accuses reports whether err says that the donor's snapshot is not what it should be.
func accuses(err error) bool {
	for _, fault := range []error{ErrCorrupt, ErrLibrary, store.ErrMismatch, feed.ErrSignature} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

// next receives what is due from the donor.
func next(conn *protocol.Conn) (protocol.Message, error) {
	m, err := conn.Recv()
	if errors.Is(err, io.EOF) {
		err = &protocol.Error{Code: protocol.CodeLost, Detail: "the donor closed the stream where an answer was due"}
	}
	return m, err
}

// manifest receives what the donor offers.
func manifest(conn *protocol.Conn) (Manifest, error) {
	m, err := next(conn)
	if err != nil {
		return Manifest{}, err
	}
	switch m := m.(type) {
	case *protocol.Refused:
		return Manifest{}, &RefusedError{m.Code}
	case *protocol.SnapshotManifest:
		out, err := Parse(m.Manifest)
		if errors.Is(err, ErrCorrupt) {
			err = &protocol.Error{Code: protocol.CodeMalformed, Detail: err.Error()}
		}
		if err == nil && out.Donor != conn.Device() {
			err = &protocol.Error{Code: protocol.CodeMismatch, Detail: fmt.Sprintf("snapshot of %v", out.Donor.Short())}
		}
		return out, err
	}
	return Manifest{}, protocol.Unexpected(m)
}

// remote is a Source at the other end of a stream. What has come lies in dir, each chunk in a file named by its sum.
type remote struct {
	conn    *protocol.Conn
	dir     string
	chunks  []Chunk
	lacking []int // asked for and not here yet
	came    func(chunks int, kept bool)
}

func (r *remote) path(i int) string {
	return filepath.Join(r.dir, hex.EncodeToString(r.chunks[i].Sum[:]))
}

// Want asks the donor for the chunks that are not here.
func (r *remote) Want(numbers []int) error {
	if err := r.forget(numbers); err != nil {
		return err
	}
	var runs []protocol.Run
	for _, i := range numbers {
		if b, err := os.ReadFile(r.path(i)); err == nil && sha256.Sum256(b) == r.chunks[i].Sum && !mutant.Is("resume_forgotten") {
			continue // it may have been cut short by a power cut
		}
		r.lacking = append(r.lacking, i)
		if n := len(runs); n > 0 && int(runs[n-1].First+runs[n-1].Count) == i {
			runs[n-1].Count++
		} else {
			runs = append(runs, protocol.Run{First: uint32(i), Count: 1})
		}
	}
	for some := range slices.Chunk(runs, protocol.MaxRuns) {
		if err := r.conn.Send(&protocol.GetChunks{Runs: some}); err != nil {
			return err
		}
	}
	r.came(len(numbers)-len(r.lacking), true)
	return errors.Join(os.MkdirAll(r.dir, 0o700), r.conn.CloseWrite())
}

// forget removes what is kept of other snapshots, so that donors who offer one after another fill no disk.
func (r *remote) forget(numbers []int) error {
	wanted := map[string]bool{}
	for _, i := range numbers {
		wanted[filepath.Base(r.path(i))] = true
	}
	names, err := os.ReadDir(r.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range names {
		if !wanted[e.Name()] && !mutant.Is("chunks_pile_up") {
			err = errors.Join(err, os.Remove(filepath.Join(r.dir, e.Name())))
		}
	}
	return err
}

// Chunk receives the next chunk, or reads one that is here.
func (r *remote) Chunk(i int) ([]byte, error) {
	if len(r.lacking) == 0 || r.lacking[0] != i {
		b, err := os.ReadFile(r.path(i))
		if err == nil && sha256.Sum256(b) != r.chunks[i].Sum { // since it was looked at: it is asked for next time
			return nil, errors.Join(fmt.Errorf("chunk %d kept from before is damaged", i), os.Remove(r.path(i)))
		}
		return b, err
	}
	m, err := next(r.conn)
	if err != nil {
		return nil, err
	}
	c, ok := m.(*protocol.Chunk)
	if !ok {
		return nil, protocol.Unexpected(m)
	}
	if int(c.Number) != i || sha256.Sum256(c.Bytes) != r.chunks[i].Sum && !mutant.Is("chunk_unchecked") {
		return nil, corrupt("chunk %d is not the one asked for", c.Number)
	}
	r.lacking = r.lacking[1:]
	return c.Bytes, r.keep(i, c.Bytes)
}

func (r *remote) keep(i int, b []byte) error {
	tmp := r.path(i) + ".part"
	err := os.WriteFile(tmp, b, 0o600)
	failpoint.At(failpoint.C11)
	if err == nil {
		err = os.Rename(tmp, r.path(i))
	}
	if err != nil {
		return fmt.Errorf("keep chunk: %w", err)
	}
	r.came(1, false)
	return nil
}

// Kept reports whether chunks are kept of a snapshot that broke off.
func (f *Fetcher) Kept() bool {
	names, err := os.ReadDir(f.Dir)
	return err == nil && slices.ContainsFunc(names, func(e os.DirEntry) bool { return filepath.Ext(e.Name()) == "" })
}

// Forget removes what is kept. No Run goes on.
func (f *Fetcher) Forget() error { return os.RemoveAll(f.Dir) }

// stale is how long chunks are kept for a transfer that does not go on.
const stale = 24 * time.Hour

// Tidy removes chunks that nobody came back for.
func (f *Fetcher) Tidy(now time.Time) error {
	info, err := os.Stat(f.Dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && now.Before(info.ModTime().Add(stale)) {
		return nil
	}
	return errors.Join(err, os.RemoveAll(f.Dir))
}
