package catalog

import (
	"errors"
	"io/fs"
)

// watchCause names why an error of a watch means that more will fail, or "" if it concerns one directory.
func watchCause(err error) string {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return ""
	}
	return "unsupported"
}
