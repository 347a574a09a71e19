//go:build unix

package catalog

import (
	"errors"
	"syscall"
)

// watchCause names why an error of a watch means that more will fail, or "" if it concerns one directory.
func watchCause(err error) string {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return "limit"
		}
	}
	if errors.Is(err, syscall.ENOSYS) {
		return "unsupported"
	}
	return ""
}
