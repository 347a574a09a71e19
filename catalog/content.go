package catalog

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync"

	"lukechampine.com/blake3"

	"peerdex/record"
)

// ErrChanging is returned for a file that is not what the catalogue says, or not any more once it was read.
var ErrChanging = errors.New("the file is changing")

// version is what a file's content is known by while nobody reads it.
type version struct {
	size  uint64
	mtime int64
}

func versionOf(f record.File) version { return version{f.Size, f.ModTime} }

func (v version) of(f found) bool {
	return f.err == nil && f.kind == record.Regular && f.size == v.size && f.mtime == v.mtime
}

// chunk is how much of a file is read at one time.
const chunk = 256 << 10

// digest returns the hash of the file at rel below folder, and how many bytes it read. The file must be of
// version v before and after that, else the error is ErrChanging. before is called before each chunk.
func digest(ctx context.Context, d disk, folder, rel string, v version, before func(context.Context) error) (sum record.Hash, read int, err error) {
	f, err := d.open(folder, rel)
	if err != nil {
		return sum, 0, err
	}
	defer f.Close()
	was := f.stat()
	if !v.of(was) {
		return sum, 0, ErrChanging
	}
	h := blake3.New(len(sum), nil)
	buf := make([]byte, min(chunk, v.size+1))
	for uint64(read) <= v.size {
		if err := before(ctx); err != nil {
			return sum, read, err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		read += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return sum, read, err
		}
	}
	if is := d.stat(inside(folder, filepath.FromSlash(rel))); uint64(read) != v.size || !v.of(f.stat()) || is.id != was.id {
		return sum, read, ErrChanging
	}
	h.Sum(sum[:0])
	return sum, read, nil
}

// calm is what reading contents waits for: that nothing is scanned.
type calm struct {
	mu    sync.Mutex // guards the fields below
	scans int
	over  chan struct{} // closed when scans comes to 0
}

// disturb begins a scan.
func (c *calm) disturb() (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scans++; c.scans == 1 {
		c.over = make(chan struct{})
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.scans--; c.scans == 0 {
			close(c.over)
		}
	}
}

// wait returns when nothing is scanned, or the error of ctx.
func (c *calm) wait(ctx context.Context) error {
	c.mu.Lock()
	scans, over := c.scans, c.over
	c.mu.Unlock()
	if scans == 0 {
		return ctx.Err()
	}
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
