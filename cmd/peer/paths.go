package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"peerdex/api"
	"peerdex/node"
)

// paths are the places on disk. All of a node lies below home; the socket does too where the system has
// no directory for such things or a home was named.
type paths struct {
	home   string
	socket string
}

func (a *app) paths() (paths, error) {
	var p paths
	named := a.home
	if named == "" {
		named = a.env("PEER_HOME")
	}
	switch user := a.env("HOME"); {
	case named != "":
		abs, err := filepath.Abs(named)
		if err != nil {
			return p, fmt.Errorf("make %s absolute: %w", named, err)
		}
		p = paths{abs, filepath.Join(abs, "peer.sock")}
	case runtime.GOOS == "windows" && a.env("LOCALAPPDATA") != "":
		p.home = filepath.Join(a.env("LOCALAPPDATA"), "peer")
		p.socket = filepath.Join(p.home, "peer.sock")
	case runtime.GOOS == "darwin" && user != "":
		p.home = filepath.Join(user, "Library", "Application Support", "peer")
		p.socket = filepath.Join(p.home, "peer.sock")
	default:
		data := a.env("XDG_DATA_HOME")
		if !filepath.IsAbs(data) { // the specification: relative paths are ignored
			if user == "" {
				return p, &node.Problem{Code: node.CodeUsage, Message: "there is no place for the data of this node",
					Cause: "neither PEER_HOME nor XDG_DATA_HOME nor HOME is set", Try: "--home DIR"}
			}
			data = filepath.Join(user, ".local", "share")
		}
		p.home = filepath.Join(data, "peer")
		p.socket = filepath.Join(p.home, "peer.sock")
		if run := a.env("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
			p.socket = filepath.Join(run, "peer", "peer.sock")
		}
	}
	if s := a.env("PEER_SOCKET"); s != "" {
		abs, err := filepath.Abs(s)
		if err != nil {
			return p, fmt.Errorf("make %s absolute: %w", s, err)
		}
		p.socket = abs
	}
	return p, nil
}

// prepareHome makes the home directory, or insists that an existing one is this user's alone and can be written.
func prepareHome(home string) error {
	if _, err := os.Lstat(home); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(home, 0o700); err != nil {
			return &node.Problem{Code: node.CodeConflict, Message: "cannot make the data directory " + home, Cause: reason(err), Try: "--home with a directory that can be made"}
		}
	}
	if err := api.CheckPrivate(home); err != nil {
		return err
	}
	f, err := os.CreateTemp(home, ".peer-start-*")
	if err != nil {
		return &node.Problem{Code: node.CodeHomeUnsafe, Message: home + " cannot be written", Cause: reason(err), Try: "chmod 700 " + home + ", or --home with a directory that can be written"}
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return fmt.Errorf("try to write in %s: %w", home, err)
	}
	return nil
}

// folder returns the absolute path of a folder to index, with the links of its parents resolved so that
// one folder has one path. It returns a *node.Problem if there is no folder at path.
func folder(path string) (string, error) {
	if path == "" { // a variable that is not set must not mean the directory we are in
		return "", usage("the folder has an empty name", "an empty argument is not the current directory", "peer add .")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("make %s absolute: %w", path, err)
	}
	whole, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", &node.Problem{Code: node.CodeFolderMissing, Message: "there is no folder " + abs,
			Cause: reason(err), Try: "name a folder that exists: peer add ~/Pictures"}
	}
	info, err := os.Stat(whole)
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", whole, err)
	}
	if !info.IsDir() {
		return "", &node.Problem{Code: node.CodeNotFolder, Message: abs + " is not a folder",
			Cause: "only folders are indexed", Try: "peer add " + filepath.Dir(abs)}
	}
	return whole, nil
}

// reason is the system's word for an error, without the operation and the path.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// inside reports whether path is dir or lies below it.
func inside(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// shorten writes a path of this device with ~ for the user's home.
func (a *app) shorten(path string) string {
	user := a.env("HOME")
	if user == "" || user == "/" || !inside(path, user) {
		return path
	}
	if path == user {
		return "~"
	}
	return "~" + strings.TrimPrefix(path, strings.TrimSuffix(user, "/"))
}
