package catalog

import (
	"errors"
	"io"
	"io/fs"
	"math"

	"peerdex/record"
)

// found is one entry as it lies on disk.
type found struct {
	name   string
	target string // of a Symlink
	size   uint64
	mtime  int64 // Unix nanoseconds; 0 of a Directory
	id     identity
	mode   uint16
	kind   record.Kind
	pseudo bool  // a Directory of a file system that holds no files: listed, not entered
	err    error // why nothing else is known; fs.ErrNotExist if it is gone
}

// wanted filters entries before they are looked at closely. isDir is only a hint while sure is false.
type wanted func(name string, isDir, sure bool) bool

// disk is how an indexer sees the file system; tests put faults before the real one. Nothing is written
// and no link is followed.
type disk interface {
	// stat returns what lies at path: a link there itself.
	stat(path string) found
	// list appends to out what lies in the directory, or only the given names if there are any: those that
	// are gone come with fs.ErrNotExist. If something else lies at its path by now, nothing is listed and
	// the error is fs.ErrNotExist. On an error out holds what was read before it.
	list(dir place, names []string, keep wanted, out []found) ([]found, error)
	// read returns up to limit bytes of a regular file that is no link.
	read(path string, limit int64) ([]byte, error)
	// open opens a regular file for reading, by its path below a folder: no link on that path is followed.
	open(folder, rel string) (content, error)
	// remote names the network file system that path lies on, whose changes elsewhere no watch reports;
	// "" if it is none.
	remote(path string) string
}

// content is an open file.
type content interface {
	io.ReadCloser
	// stat returns what the open file is by now, whatever lies at its path.
	stat() found
}

// place is a directory to be listed.
type place struct {
	path string
	id   identity // what must lie there
}

// gone reports whether an error of disk says that there is nothing.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDirectory) }

// nanos turns seconds and nanoseconds into nanoseconds, clamped to what 64 bits hold (years 1677 to 2262).
func nanos(sec, nsec int64) int64 {
	const limit = math.MaxInt64 / int64(1e9)
	switch {
	case sec >= limit:
		return math.MaxInt64
	case sec <= -limit:
		return math.MinInt64
	}
	return sec*1e9 + nsec
}
