//go:build unix && !linux

package catalog

import (
	"io/fs"
	"syscall"
)

func identify(info fs.FileInfo) identity {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return identity{uint64(st.Dev), uint64(st.Ino)}
	}
	return identity{}
}
