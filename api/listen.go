package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"peerdex/node"
)

// maxSocketPath is the shortest limit on a socket's path among the systems we run on (macOS: 104 with its NUL).
const maxSocketPath = 103

// Listen opens the socket at path for the user of this process alone: directory 0700, socket 0600, and
// where the system tells who connects, nobody else. The socket of a process that died is replaced. If a
// process still answers there, it returns a *node.Problem with node.CodeAlreadyRunning.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, &node.Problem{
			Code:    node.CodeUsage,
			Message: fmt.Sprintf("the path of the control socket is too long: %s", path),
			Cause:   fmt.Sprintf("it has %d bytes and the system allows %d", len(path), maxSocketPath),
			Try:     "set PEER_SOCKET to a shorter path",
		}
	}
	if err := ownDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); err == nil {
		if err := takeOver(ctx, path); err != nil {
			return nil, err
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, noPlace(path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("close the socket to others: %w", err), l.Close())
	}
	return ownUser{l}, nil
}

// ownDir makes the socket's directory, or insists that nobody else can enter an existing one.
func ownDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return noPlace(dir, err)
	}
	return CheckPrivate(dir)
}

// noPlace is the problem of a directory that takes no socket.
func noPlace(path string, err error) error {
	return &node.Problem{
		Code:    node.CodeHomeUnsafe,
		Message: "cannot make the control socket at " + path,
		Cause:   err.Error(),
		Try:     "make its directory one that you can write to, or set PEER_SOCKET to another path",
	}
}

// CheckPrivate returns a *node.Problem with node.CodeHomeUnsafe if dir is a symlink, no directory, open
// to group or others, or of another user (the last two not on Windows, where a profile is its user's own).
func CheckPrivate(dir string) error {
	unsafe := func(cause, try string) error {
		return &node.Problem{
			Code:    node.CodeHomeUnsafe,
			Message: fmt.Sprintf("%s is not safe to keep a catalogue in", dir),
			Cause:   cause,
			Try:     try,
		}
	}
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("look at %s: %w", dir, err)
	case info.Mode()&fs.ModeSymlink != 0:
		return unsafe("it is a symbolic link", "name the directory it points to")
	case !info.IsDir():
		return unsafe("it is not a directory", "name a directory with --home")
	}
	if !ownedByUs(info) {
		return unsafe("it belongs to another user", "name a directory of your own with --home")
	}
	if openToOthers(info) {
		return unsafe(fmt.Sprintf("other users may open it (mode %04o)", info.Mode().Perm()), "chmod 700 "+dir)
	}
	return nil
}

// takeOver removes the socket that a dead process left behind.
func takeOver(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c := NewClient(path)
	defer c.Close()
	st, err := c.Status(ctx)
	if err == nil {
		return AlreadyRunning(st)
	}
	if p := AsProblem(err); p.Code != node.CodeNoDaemon {
		return &node.Problem{
			Code:    node.CodeAlreadyRunning,
			Message: "another process holds the control socket " + path,
			Cause:   err.Error(),
			Try:     "peer stop",
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket of a process that died: %w", err)
	}
	return nil
}

// Running are the details of node.CodeAlreadyRunning.
type Running struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// AlreadyRunning is the problem of a second start on one home.
func AlreadyRunning(st node.Status) error {
	started := st.Started.Local().Format("15:04")
	if st.Now.Sub(st.Started) > 12*time.Hour {
		started = st.Started.Local().Format("2006-01-02 15:04")
	}
	return &node.Problem{
		Code:    node.CodeAlreadyRunning,
		Message: fmt.Sprintf("already running (pid %d, since %s)", st.PID, started),
		Cause:   "one process at a time can use " + st.Home,
		Try:     "peer status",
		Details: Running{PID: st.PID, Started: st.Started},
	}
}

// ownUser accepts connections of this process's user (and root, who could read our memory anyway) and closes others.
type ownUser struct{ net.Listener }

func (l ownUser) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, known, err := peerUser(c)
		if err == nil && (!known || uid == os.Getuid() || uid == 0) {
			return c, nil
		}
		c.Close()
	}
}
