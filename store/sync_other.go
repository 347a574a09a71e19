//go:build !linux

package store

import "os"

// syncsMapped says that making a file durable covers what was written to it as memory. It is not known here.
const syncsMapped = false

func syncData(f *os.File) error { return f.Sync() }
