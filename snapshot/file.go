package snapshot

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/store"
)

// A file is fileHead, the chunks one behind the other, the manifest, its length (4 bytes), and fileTail.
const (
	fileHead = "peerdex snapshot\r\n\x1a" // spoilt where line ends are changed
	fileTail = "end of snapshot\n"
)

// entrySize is how many bytes an entry takes in a file: 50 to 60 where names are of usual length.
const entrySize = 64

// Room returns store.ErrNoSpace unless the disk on which the folder dir lies has room for a snapshot of feeds at these
// heads: so much as it usually takes, since that is known for sure only once it is made.
func Room(s *store.Store, dir string, heads []feed.Head) error {
	bytes := uint64(MaxManifest)
	for _, h := range heads {
		bytes += h.Count * entrySize
	}
	return s.RoomIn(dir, bytes)
}

// partSuffix is behind the name of a file that is being exported.
const partSuffix = ".peerdex-part"

// Export writes a snapshot of pinned feeds to a new file, for this user alone; Room is for the caller to ask. It blocks
// until the file is durable, and has its name only then. It returns fs.ErrExist, wrapped, if there is a file of that
// name. What it wrote before it failed is removed; what it left when it was killed, by the next export to that name.
func Export(ctx context.Context, path string, pin *store.Pinned, by Author, now hlc.Stamp) (m Manifest, err error) {
	part := path + partSuffix
	if err := errors.Join(vacant(path), removeLeft(part)); err != nil {
		return m, err
	}
	var written os.FileInfo
	m, err = create(part, func(f *os.File) (Manifest, error) {
		m, err := export(ctx, f, pin, by, now, MaxChunk)
		if err == nil {
			written, err = f.Stat()
		}
		return m, errors.Join(err, f.Sync())
	})
	if err != nil {
		return m, err
	}
	if at, err := os.Lstat(part); err != nil || !os.SameFile(at, written) {
		return m, fmt.Errorf("make snapshot: another export to %s began: %w", path, fs.ErrExist)
	}
	if err := vacant(path); err != nil {
		return m, errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, path); err != nil {
		return m, errors.Join(fmt.Errorf("name snapshot: %w", err), os.Remove(part))
	}
	return m, store.SyncDir(filepath.Dir(path))
}

// vacant returns fs.ErrExist, wrapped, if there is something at path.
func vacant(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("make snapshot %s: %w", path, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make snapshot: %w", err)
	}
	return nil
}

// removeLeft removes the file at path, if there is one.
func removeLeft(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make snapshot: %w", err)
	}
	return nil
}

// create makes a new file and removes it if write fails.
func create(path string, write func(*os.File) (Manifest, error)) (m Manifest, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return m, fmt.Errorf("make snapshot: %w", err)
	}
	m, err = write(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return m, errors.Join(err, os.Remove(path))
	}
	return m, nil
}

func export(ctx context.Context, f *os.File, pin *store.Pinned, by Author, now hlc.Stamp, limit int) (Manifest, error) {
	w := bufio.NewWriterSize(f, limit)
	w.WriteString(fileHead)
	m, err := write(ctx, w, pin, by, now, limit)
	if err != nil {
		return m, err
	}
	b := m.Append(nil)
	b = binary.BigEndian.AppendUint32(b, uint32(len(b)))
	w.Write(append(b, fileTail...))
	if err := w.Flush(); err != nil { // the first error of all writes
		return m, fmt.Errorf("write snapshot: %w", err)
	}
	return m, nil
}

// File is a snapshot in a file.
type File struct {
	Manifest Manifest
	f        *os.File
	at       []int64 // of each chunk
	chunks   []Chunk
}

// OpenFile opens what Export wrote. It returns ErrCorrupt or ErrNewer for anything else. Close it.
func OpenFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	s := &File{f: f}
	if err := s.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshot %s: %w", path, err), f.Close())
	}
	return s, nil
}

func (s *File) read() error {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return corrupt("not a file")
	}
	const tail = 4 + len(fileTail)
	size := info.Size()
	if size < int64(len(fileHead)+tail) {
		return corrupt("%d bytes", size)
	}
	head, end := make([]byte, len(fileHead)), make([]byte, tail)
	if _, err := s.f.ReadAt(head, 0); err != nil {
		return err
	}
	if _, err := s.f.ReadAt(end, size-int64(tail)); err != nil {
		return err
	}
	if string(head) != fileHead || string(end[4:]) != fileTail {
		return corrupt("not a snapshot, or not all of one")
	}
	n := int64(binary.BigEndian.Uint32(end))
	if n > MaxManifest || n > size-int64(len(fileHead)+tail) {
		return corrupt("manifest of %d bytes in a file of %d", n, size)
	}
	b := make([]byte, n)
	if _, err := s.f.ReadAt(b, size-int64(tail)-n); err != nil {
		return err
	}
	if s.Manifest, err = Parse(b); err != nil {
		return err
	}
	at := int64(len(fileHead))
	for _, f := range s.Manifest.Feeds {
		for _, c := range f.Chunks {
			s.at, s.chunks = append(s.at, at), append(s.chunks, c)
			at += int64(c.Size)
		}
	}
	if at != size-int64(tail)-n {
		return corrupt("chunks of %d bytes in a file of %d", at, size)
	}
	return nil
}

// Want makes a File a Source.
func (s *File) Want([]int) error { return nil }

// Chunk reads a chunk. It may be called by several goroutines.
func (s *File) Chunk(i int) ([]byte, error) {
	b := make([]byte, s.chunks[i].Size)
	if _, err := s.f.ReadAt(b, s.at[i]); errors.Is(err, io.EOF) {
		return nil, corrupt("cut short")
	} else if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return b, nil
}

// Close closes the file.
func (s *File) Close() error { return s.f.Close() }
