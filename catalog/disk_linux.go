package catalog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"peerdex/record"
)

const errNotDirectory = unix.ENOTDIR

// realDisk asks the kernel relative to an open directory, so that no path is built or walked per file.
type realDisk struct{}

// dirents are what directories are read into: 32 KiB is about 800 names.
var dirents = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

func (realDisk) stat(path string) found {
	var (
		st unix.Stat_t
		f  = found{name: path}
	)
	if err := retry(func() error { return unix.Fstatat(unix.AT_FDCWD, path, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		f.err = &fs.PathError{Op: "stat", Path: path, Err: err}
		return f
	}
	f.fill(&st)
	return f
}

func (f *found) fill(st *unix.Stat_t) {
	f.id = identity{uint64(st.Dev), st.Ino}
	f.mode = uint16(st.Mode & 0o7777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f.kind, f.size = record.Regular, uint64(max(st.Size, 0))
	case unix.S_IFDIR:
		f.kind = record.Directory
		return
	case unix.S_IFLNK:
		f.kind = record.Symlink
	default:
		f.kind = record.Special
	}
	f.mtime = nanos(int64(st.Mtim.Sec), int64(st.Mtim.Nsec))
}

// retry repeats a call that a signal interrupted, as network file systems may.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func (d realDisk) list(dir place, names []string, keep wanted, out []found) (_ []found, err error) {
	var fd int
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOFOLLOW
	if len(names) > 0 { // nothing is read: search permission is enough
		flags |= unix.O_PATH
	}
	if err := retry(func() (err error) { fd, err = unix.Open(dir.path, flags, 0); return err }); err != nil {
		return out, &fs.PathError{Op: "open", Path: dir.path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return out, &fs.PathError{Op: "stat", Path: dir.path, Err: err}
	}
	if (identity{uint64(st.Dev), st.Ino}) != dir.id { // somebody put something else, even a link, on the way
		return out, &fs.PathError{Op: "open", Path: dir.path, Err: unix.ENOENT}
	}
	dev := dir.id.dev
	for _, name := range names {
		if f, ok := d.entry(fd, dev, name, keep, false, false); ok {
			out = append(out, f)
		}
	}
	if len(names) > 0 {
		return out, nil
	}
	buf := *dirents.Get().(*[]byte)
	defer dirents.Put(&buf)
	for {
		var n int
		if err := retry(func() (err error) { n, err = unix.ReadDirent(fd, buf); return err }); err != nil {
			return out, &fs.PathError{Op: "read", Path: dir.path, Err: err}
		}
		if n == 0 {
			return out, nil
		}
		out = d.entries(fd, dev, buf[:n], keep, out)
	}
}

// entries looks at each name that the kernel wrote into buf.
func (d realDisk) entries(fd int, dev uint64, buf []byte, keep wanted, out []found) []found {
	const (
		reclen = unsafe.Offsetof(unix.Dirent{}.Reclen)
		kind   = unsafe.Offsetof(unix.Dirent{}.Type)
		name   = unsafe.Offsetof(unix.Dirent{}.Name)
	)
	text := string(buf) // the names of a whole buffer share one allocation
	for len(buf) > 0 {
		size := int(binary.NativeEndian.Uint16(buf[reclen:]))
		end := int(name) + max(bytes.IndexByte(buf[name:size], 0), 0)
		one, isDir, sure := text[name:end], buf[kind] == unix.DT_DIR, buf[kind] != unix.DT_UNKNOWN
		buf, text = buf[size:], text[size:]
		if one == "." || one == ".." || one == "" {
			continue
		}
		if f, ok := d.entry(fd, dev, one, keep, isDir, sure); ok {
			out = append(out, f)
		}
	}
	return out
}

func (realDisk) entry(fd int, dev uint64, name string, keep wanted, isDir, sure bool) (found, bool) {
	f := found{name: name}
	if sure && !keep(name, isDir, true) {
		return f, false
	}
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		f.err = err
		return f, sure || keep(name, isDir, false)
	}
	f.fill(&st)
	if !sure && !keep(name, f.kind == record.Directory, true) {
		return f, false
	}
	switch {
	case f.kind == record.Symlink:
		var buf [record.MaxTarget + 1]byte
		var n int
		if err := retry(func() (err error) { n, err = unix.Readlinkat(fd, name, buf[:]); return err }); err != nil {
			f.err = err
			return f, true
		}
		f.target = string(buf[:n])
	case f.kind == record.Directory && f.id.dev != dev:
		f.pseudo = pseudo(fd, name)
	}
	return f, true
}

// pseudo reports whether the directory is the top of a file system that the kernel makes up.
func pseudo(at int, name string) bool {
	var fd int
	if err := retry(func() (err error) {
		fd, err = unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	}); err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEVPTS_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC,
		unix.PSTOREFS_MAGIC, unix.BPF_FS_MAGIC, unix.EFIVARFS_MAGIC, unix.SELINUX_MAGIC, unix.NSFS_MAGIC,
		unix.BINFMTFS_MAGIC, unix.AUTOFS_SUPER_MAGIC, unix.RDTGROUP_SUPER_MAGIC, unix.HUGETLBFS_MAGIC,
		0x62656570 /* configfs */, 0x65735543 /* fusectl */, 0x19800202 /* mqueue */, 0x67596969 /* rpc_pipefs */ :
		return true
	}
	return false
}

func (realDisk) remote(path string) string {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return ""
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC:
		return "smb"
	case unix.V9FS_MAGIC:
		return "9p"
	case unix.CEPH_SUPER_MAGIC:
		return "ceph"
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return "afs"
	}
	return ""
}

func (realDisk) read(path string, limit int64) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// opened is an open file.
type opened struct{ *os.File }

func (f opened) stat() (out found) {
	var st unix.Stat_t
	if out.err = retry(func() error { return unix.Fstat(int(f.Fd()), &st) }); out.err == nil {
		out.fill(&st)
	}
	return out
}

func (realDisk) open(folder, rel string) (content, error) {
	path := inside(folder, rel)
	fail := func(err error) error { return &fs.PathError{Op: "open", Path: path, Err: err} }
	dir, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fail(err)
	}
	defer unix.Close(dir)
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOATIME,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	var fd int
	try := func() error {
		return retry(func() (err error) { fd, err = unix.Openat2(dir, rel, &how); return err })
	}
	if err = try(); err == unix.EPERM { // the time of reading is the owner's to keep as it is
		how.Flags &^= unix.O_NOATIME
		err = try()
	}
	if err == unix.ENOSYS { // before Linux 5.6
		err = retry(func() (err error) { fd, err = unix.Openat(dir, rel, int(how.Flags), 0); return err })
	}
	if err != nil {
		return nil, fail(err)
	}
	return opened{os.NewFile(uintptr(fd), path)}, nil
}
