//go:build !linux

package catalog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"peerdex/record"
)

const errNotDirectory = syscall.ENOTDIR

// realDisk uses what package os offers everywhere.
type realDisk struct{}

func (realDisk) stat(path string) found {
	f := found{name: path}
	info, err := os.Lstat(path)
	if err != nil {
		f.err = err
		return f
	}
	f.fill(info)
	return f
}

func (f *found) fill(info fs.FileInfo) {
	f.id = identify(info)
	mode := info.Mode()
	f.mode = uint16(mode.Perm())
	for bit, flag := range map[fs.FileMode]uint16{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&bit != 0 {
			f.mode |= flag
		}
	}
	switch {
	case mode.IsRegular():
		f.kind, f.size = record.Regular, uint64(max(info.Size(), 0))
	case mode.IsDir():
		f.kind = record.Directory
		return
	case mode&fs.ModeSymlink != 0:
		f.kind = record.Symlink
	default:
		f.kind = record.Special
	}
	f.mtime = nanos(info.ModTime().Unix(), int64(info.ModTime().Nanosecond()))
}

func (d realDisk) list(dir place, names []string, keep wanted, out []found) ([]found, error) {
	look := func(name string, isDir, sure bool) {
		if sure && !keep(name, isDir, true) {
			return
		}
		f := d.stat(filepath.Join(dir.path, name))
		f.name = name
		if f.err == nil && f.kind == record.Symlink {
			f.target, f.err = os.Readlink(filepath.Join(dir.path, name))
		}
		if sure || keep(name, f.kind == record.Directory, f.err == nil) {
			out = append(out, f)
		}
	}
	if here := d.stat(dir.path); here.err != nil {
		return out, here.err
	} else if here.id != dir.id {
		return out, &fs.PathError{Op: "open", Path: dir.path, Err: fs.ErrNotExist}
	}
	if len(names) > 0 {
		for _, name := range names {
			look(name, false, false)
		}
		return out, nil
	}
	entries, err := os.ReadDir(dir.path)
	for _, e := range entries {
		look(e.Name(), e.IsDir(), true)
	}
	return out, err
}

// remote is known on Linux alone.
func (realDisk) remote(string) string { return "" }

func (d realDisk) read(path string, limit int64) ([]byte, error) {
	if f := d.stat(path); f.err != nil || f.kind != record.Regular {
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// opened is an open file.
type opened struct{ *os.File }

func (f opened) stat() (out found) {
	info, err := f.Stat()
	if out.err = err; err == nil {
		out.fill(info)
	}
	return out
}

func (d realDisk) open(folder, rel string) (content, error) {
	path := inside(folder, filepath.FromSlash(rel))
	if f := d.stat(path); f.err != nil {
		return nil, f.err
	} else if f.kind != record.Regular {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return opened{f}, nil
}
