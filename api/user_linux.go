package api

import (
	"fmt"
	"net"
	"syscall"
)

// peerUser returns the user at the other end of a Unix socket (unix(7), SO_PEERCRED).
func peerUser(c net.Conn) (uid int, known bool, err error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, false, nil
	}
	rc, err := u.SyscallConn()
	if err != nil {
		return 0, false, fmt.Errorf("ask who connects: %w", err)
	}
	var (
		cred *syscall.Ucred
		in   error
	)
	if err := rc.Control(func(fd uintptr) {
		cred, in = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, false, fmt.Errorf("ask who connects: %w", err)
	}
	if in != nil {
		return 0, false, fmt.Errorf("ask who connects: %w", in)
	}
	return int(cred.Uid), true, nil
}
