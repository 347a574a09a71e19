package backfill

import (
	"unsafe"

	"peerdex/feed"
	"peerdex/protocol"
)

// ServeMemory is how many bytes Serve takes for its stream: a page that fills up, the page encoded, and that compressed.
const ServeMemory = 3 * protocol.MaxPage

const (
	holdStep  = protocol.MaxPage                 // bytes reserved at a time
	entrySize = int(unsafe.Sizeof(feed.Entry{})) // of an entry besides its bytes
	refSize   = int(unsafe.Sizeof(feed.Ref{}))   // of what is kept of an entry to compare it
	keySize   = 128                              // of a file's key in a set, filled as little as sets are
)

// hold reserves memory for so many bytes more that a pull keeps while it goes on: what it keeps of a page beyond the
// next, or has found out. The page at hand counts to the stream. The error is that of Puller.Reserve.
func (u *pulling) hold(bytes int) error {
	u.held += bytes
	if u.Reserve == nil || u.held <= u.reserved {
		return nil
	}
	n := (u.held - u.reserved + holdStep - 1) / holdStep * holdStep
	release, err := u.Reserve(n)
	if err != nil {
		return err
	}
	u.reserved += n
	u.release = append(u.release, release)
	return nil
}

// holdEntries is hold for entries.
func (u *pulling) holdEntries(entries []feed.Entry) error {
	bytes := 0
	for _, e := range entries {
		bytes += protocol.EntrySize(e) + entrySize
	}
	return u.hold(bytes)
}

// letGo gives all of it back.
func (u *pulling) letGo() {
	for _, release := range u.release {
		release()
	}
	u.held, u.reserved, u.release = 0, 0, nil
}
