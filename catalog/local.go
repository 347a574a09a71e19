package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// facts are what this device notes beside an entry to know the thing again after a rename while it was
// not looking. They are hints: an entry without them, or with wrong ones, is known by its name.
type facts struct {
	ino uint64 // 0: unknown
	dev uint64 // the device number, if foreign
	// foreign: on another file system than the folder itself. Device numbers change from mount to mount,
	// so the common case does not depend on them.
	foreign bool
}

// localVersion begins every encoding of facts.
const localVersion = 1

const localForeign = 1

var errLocal = errors.New("local facts are cut short or not canonical")

// append writes version, flags, inode, and what the flags announce; numbers as uvarints; at most 22 bytes.
func (f facts) append(b []byte) []byte {
	var flags byte
	if f.foreign {
		flags |= localForeign
	}
	b = append(b, localVersion, flags)
	b = binary.AppendUvarint(b, f.ino)
	if f.foreign {
		b = binary.AppendUvarint(b, f.dev)
	}
	return b
}

// decodeFacts reads what append wrote. Nothing at all, as after the feed came back from another device,
// and the facts of another version are no facts.
func decodeFacts(b []byte) (f facts, err error) {
	if len(b) == 0 || b[0] != localVersion {
		return f, nil
	}
	if len(b) < 2 {
		return f, errLocal
	}
	flags, rest := b[1], b[2:]
	next := func() (v uint64) {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			err = errLocal
			return 0
		}
		rest = rest[n:]
		return v
	}
	f.ino = next()
	if f.foreign = flags&localForeign != 0; f.foreign {
		f.dev = next()
	}
	if err != nil {
		return facts{}, err
	}
	if again := f.append(nil); string(again) != string(b) {
		return facts{}, fmt.Errorf("%w: %x", errLocal, b)
	}
	return f, nil
}
