//go:build !linux

package api

import "net"

// peerUser knows nobody here: the modes of the socket and its directory have to do.
func peerUser(net.Conn) (uid int, known bool, err error) { return 0, false, nil }
