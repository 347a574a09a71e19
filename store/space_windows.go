package store

import (
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

// freeSpace returns the bytes this user may still write where dir is.
func freeSpace(dir string) (uint64, error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	err = windows.GetDiskFreeSpaceEx(p, &free, nil, nil)
	return free, err
}

// taken returns the bytes a file takes on disk, for a log more than what is in it.
func taken(f fs.FileInfo) int64 { return f.Size() }

// sameDisk reports whether two folders, named in full, are on one volume.
func sameDisk(a, b string) (bool, error) {
	return strings.EqualFold(filepath.VolumeName(a), filepath.VolumeName(b)), nil
}
