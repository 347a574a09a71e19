// Package record says what is replicated: the models, their one canonical encoding (on disk and on the
// wire), the limits they are checked against, and the one merge rule for registers.
//
// A record is the value of a feed's entry; the entry's key is half of it: the EntryID of a File or a
// Tombstone, the entity and field of a Register. The first byte of a record is its model number.
// Unknown models are kept and relayed byte for byte, and shown to nobody.
package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits on what a record may hold. A record beyond them is refused by its author and by everybody else.
const (
	MaxKey    = 160      // bytes of an entry's key
	MaxRecord = 64 << 10 // bytes of a record
	MaxName   = 1024     // bytes of a name (255 on Linux; 255 UTF-16 units elsewhere)
	MaxTarget = 4096     // bytes of a link's target
	MaxEntity = 64       // bytes of an entity's id
	MaxField  = 80       // bytes of a field's name
	MaxValue  = 4096     // bytes of a register's value
	MaxLabel  = 100      // bytes of a tag's name
)

// Model numbers are the format. Append only; never renumber or reuse.
const (
	modelFile      = 1
	modelTombstone = 2
	modelRegister  = 3
)

var (
	// ErrUnknownModel is returned for a model of a newer version; keep the bytes.
	ErrUnknownModel = errors.New("unknown record model")
	// ErrInvalid is returned, wrapped with the reason, for bytes that are no canonical record within the limits.
	ErrInvalid = errors.New("invalid record")
)

// Record is one of File, Tombstone and Register.
type Record interface {
	// Key returns the key of the entry that holds the record.
	Key() []byte
	// Append adds the canonical bytes to b.
	Append(b []byte) []byte
	// Validate returns ErrInvalid with the reason if the record is beyond a limit.
	Validate() error
	// Model names the record for people and metrics: entry, device, location, member, tag, tagging, note or
	// other.
	Model() string
}

// Kind says what a File is.
type Kind uint8

// Kinds are part of the encoding. Append only.
const (
	Regular Kind = iota + 1
	Directory
	Symlink
	Special // socket, pipe or device node: listed, nothing more
)

func (k Kind) String() string {
	switch k {
	case Regular:
		return "file"
	case Directory:
		return "dir"
	case Symlink:
		return "link"
	case Special:
		return "special"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// File is what is known of one file, directory or link. Its path is the chain of its parents' names.
type File struct {
	ID      EntryID
	Parent  EntryID // zero: directly in the location
	Kind    Kind
	Mode    uint32 // permission bits, 0 to 07777
	Size    uint64 // bytes; 0 unless Regular
	ModTime int64  // Unix nanoseconds, clamped to int64; 0 for Directory, whose time says nothing of its own
	Name    string // bytes as the file system has them, UTF-8 or not; no '/' and no NUL
	Target  string // of a Symlink, as stored, never followed
	Hash    Hash   // of a Regular file's content; zero: not read, or not since it changed
}

// Tombstone says that the entry of its key is gone.
type Tombstone struct{ ID EntryID }

func (f File) Key() []byte      { return f.ID[:] }
func (t Tombstone) Key() []byte { return t.ID[:] }
func (File) Model() string      { return "entry" }
func (Tombstone) Model() string { return "entry" }

// Append: model, kind, parent, mode, size, zig-zag mtime, name, target; numbers as uvarints, strings
// with their length before them; then the 32 bytes of the hash, if there is one.
func (f File) Append(b []byte) []byte {
	b = append(b, modelFile, byte(f.Kind))
	b = append(b, f.Parent[:]...)
	b = binary.AppendUvarint(b, uint64(f.Mode))
	b = binary.AppendUvarint(b, f.Size)
	b = binary.AppendVarint(b, f.ModTime)
	b = appendString(b, f.Name)
	b = appendString(b, f.Target)
	if f.Hash.IsZero() {
		return b
	}
	return append(b, f.Hash[:]...)
}

func (t Tombstone) Append(b []byte) []byte { return append(b, modelTombstone) }

func (f File) Validate() error {
	switch {
	case f.ID == EntryID{}:
		return invalid("entry id is zero")
	case f.ID == f.Parent:
		return invalid("entry is its own parent")
	case f.Kind < Regular || f.Kind > Special:
		return invalid("%v", f.Kind)
	case f.Mode > 0o7777:
		return invalid("mode %o", f.Mode)
	case f.Size > 1<<62:
		return invalid("size %d", f.Size)
	case f.Kind != Regular && f.Size != 0:
		return invalid("%v with a size", f.Kind)
	case f.Kind != Symlink && f.Target != "":
		return invalid("%v with a target", f.Kind)
	case f.Kind != Regular && !f.Hash.IsZero():
		return invalid("%v with a hash", f.Kind)
	case len(f.Target) > MaxTarget:
		return invalid("target of %d bytes, limit %d", len(f.Target), MaxTarget)
	}
	return ValidName(f.Name)
}

func (t Tombstone) Validate() error {
	if t.ID == (EntryID{}) {
		return invalid("entry id is zero")
	}
	return nil
}

// ValidName returns ErrInvalid for what no file system would hand out as one name.
func ValidName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return invalid("name %q", name)
	case len(name) > MaxName:
		return invalid("name of %d bytes, limit %d", len(name), MaxName)
	}
	for i := range len(name) {
		if name[i] == 0 || name[i] == '/' {
			return invalid("name %q holds %q", name, name[i])
		}
	}
	return nil
}

// IsTombstone reports whether rec is a tombstone, by its model number alone.
func IsTombstone(rec []byte) bool { return len(rec) == 1 && rec[0] == modelTombstone }

// IsRegister reports whether rec is a register, by its model number alone.
func IsRegister(rec []byte) bool { return len(rec) > 0 && rec[0] == modelRegister }

// Decode reads the record of an entry and checks it. Only canonical bytes pass: encoding the result
// gives rec again. It returns ErrUnknownModel or ErrInvalid.
func Decode(key, rec []byte) (Record, error) {
	if len(rec) == 0 {
		return nil, invalid("empty")
	}
	if len(key) > MaxKey || len(rec) > MaxRecord {
		return nil, invalid("key of %d and record of %d bytes, limits %d and %d", len(key), len(rec), MaxKey, MaxRecord)
	}
	var (
		r   Record
		err error
	)
	switch rec[0] {
	case modelFile:
		r, err = decodeFile(key, rec)
	case modelTombstone:
		var t Tombstone
		if len(key) != len(t.ID) {
			return nil, invalid("entry key of %d bytes", len(key))
		}
		copy(t.ID[:], key)
		r = t
	case modelRegister:
		r, err = decodeRegister(key, rec)
	default:
		return nil, fmt.Errorf("%w %d", ErrUnknownModel, rec[0])
	}
	if err != nil {
		return nil, err
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	var buf [256]byte
	if !bytes.Equal(r.Append(buf[:0]), rec) {
		return nil, invalid("not canonical")
	}
	return r, nil
}

func decodeFile(key, rec []byte) (Record, error) {
	var f File
	if len(key) != len(f.ID) {
		return nil, invalid("entry key of %d bytes", len(key))
	}
	copy(f.ID[:], key)
	d := decoder{b: rec[1:]}
	f.Kind = Kind(d.byte())
	copy(f.Parent[:], d.bytes(len(f.Parent)))
	mode := d.uvarint()
	f.Mode = uint32(min(mode, 1<<31))
	f.Size = d.uvarint()
	f.ModTime = d.varint()
	f.Name = string(d.string(MaxName))
	f.Target = string(d.string(MaxTarget))
	if len(d.b) > 0 {
		copy(f.Hash[:], d.bytes(len(f.Hash)))
	}
	return f, d.end()
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

func appendString[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads fields until one is missing; then everything is zero and end says so.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) bytes(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad = true
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.bytes(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.bytes(n)
	return v
}

func (d *decoder) string(limit int) []byte {
	n := d.uvarint()
	if n > uint64(limit) {
		d.bad = true
		return nil
	}
	return d.bytes(int(n))
}

func (d *decoder) end() error {
	if d.bad {
		return invalid("truncated or beyond a limit")
	}
	if len(d.b) > 0 {
		return invalid("%d bytes too many", len(d.b))
	}
	return nil
}
