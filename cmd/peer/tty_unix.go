//go:build unix

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminalWidth returns the columns of the terminal that f is, 80 if it does not say, or 0 if f is none.
func terminalWidth(f *os.File) int {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return 0
	case ws.Col == 0:
		return 80
	}
	return int(ws.Col)
}

// restrictNewFiles keeps whatever this process creates from other users.
func restrictNewFiles() { syscall.Umask(0o077) }

// alive reports whether a process of that id exists.
func alive(pid int) bool { return syscall.Kill(pid, 0) != syscall.ESRCH }
