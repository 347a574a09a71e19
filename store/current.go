package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"peerdex/internal/failpoint"
)

// The store's folder holds Badger's files themselves until a Load replaces them. From then on they are in a
// folder within it, which the file CURRENT names; each Load makes the next.
const currentFile = "CURRENT"

// current returns the name of the folder within root that holds the files; empty: root itself does.
func current(root string) (string, error) {
	b, err := os.ReadFile(filepath.Join(root, currentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read which files are in use: %w", err)
	}
	name := strings.TrimSuffix(string(b), "\n")
	if !numbered.MatchString(name) {
		return "", fmt.Errorf("%w: %s names %q", ErrDamaged, filepath.Join(root, currentFile), name)
	}
	if _, err := os.Stat(filepath.Join(root, name)); err != nil { // Badger would make it
		return "", fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return name, nil
}

var (
	numbered = regexp.MustCompile(`^[0-9]{6,18}$`)
	badgers  = regexp.MustCompile(`^(MANIFEST|MANIFEST-REWRITE|KEYREGISTRY|REWRITE-KEYREGISTRY|DISCARD|LOCK|[0-9]+\.(sst|mem|vlog))$`)
)

// after returns the name of the folder that comes after the one called name.
func after(name string) string {
	n, _ := strconv.ParseUint(name, 10, 64) // 0 for none
	return fmt.Sprintf("%06d", n+1)
}

// setCurrent makes name the folder in use, durably: until the rename it is the one before.
func setCurrent(root, name string) error {
	return Replace(filepath.Join(root, currentFile), []byte(name+"\n"))
}

// removeLeftovers removes what name replaced, and what a Load left that did not come through.
func removeLeftovers(root, name string) error {
	names, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	var errs []error
	if name != "" {
		errs = append(errs, removeFiles(root, root))
	}
	for _, e := range names {
		if n := e.Name(); n != name && numbered.MatchString(n) || strings.HasPrefix(n, currentFile+".") {
			errs = append(errs, os.RemoveAll(filepath.Join(root, n)))
		}
	}
	return errors.Join(errs...)
}

// removeFiles removes Badger's files from dir, which is root or a folder within it.
func removeFiles(root, dir string) error {
	if dir != root {
		return os.RemoveAll(dir)
	}
	names, err := os.ReadDir(root)
	errs := []error{err}
	for _, e := range names {
		if badgers.MatchString(e.Name()) {
			errs = append(errs, os.Remove(filepath.Join(root, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Replace writes a file durably, for this user alone: whole or not at all.
func Replace(path string, data []byte) (err error) {
	dir, name := filepath.Dir(path), filepath.Base(path)
	tmp, err := os.CreateTemp(dir, name+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(tmp.Name())))
		}
	}()
	if err = tmp.Chmod(0o600); err != nil {
		return errors.Join(err, tmp.Close())
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	if name == currentFile {
		failpoint.At(failpoint.C14)
	}
	return SyncDir(dir)
}

// SyncDir makes a rename in dir, or what was made or removed there, durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || runtime.GOOS == "windows" {
		err = nil // Windows has no such call, and no need
	}
	return errors.Join(err, d.Close())
}
