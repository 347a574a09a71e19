//go:build unix

package store

import (
	"errors"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// freeSpace returns the bytes an unprivileged process may still write where dir is.
func freeSpace(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return uint64(s.Bavail) * uint64(s.Bsize), nil
}

// taken returns the bytes a file takes on disk: Badger makes its logs larger than what is in them.
func taken(f fs.FileInfo) int64 {
	if s, ok := f.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return f.Size()
}

// sameDisk reports whether two folders are on one file system.
func sameDisk(a, b string) (bool, error) {
	var x, y unix.Stat_t
	err := errors.Join(unix.Stat(a, &x), unix.Stat(b, &y))
	return x.Dev == y.Dev, err
}
