package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncsMapped says that making a file durable covers what was written to it as memory, however it was opened:
// Linux marks such pages dirty as they are written, and msync(2) itself does no more than this.
const syncsMapped = true

// syncData makes the bytes of a file durable, and of what the system keeps about it as much as finds them again.
func syncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
