package record

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"peerdex/hlc"
)

// EntityKind says what a register is about.
type EntityKind uint8

// Entity kinds are part of the encoding. Append only.
const (
	DeviceEntity   EntityKind = 1 // id: DeviceID
	LocationEntity EntityKind = 2 // id: DeviceID of the owner, LocationID
	MemberEntity   EntityKind = 3 // id: DeviceID; values are certificates
)

// Fields of the entities above. A name once used keeps its meaning.
const (
	FieldName    = "name"    // of a device or location: UTF-8 for people
	FieldSystem  = "system"  // of a device: operating system
	FieldVersion = "version" // of a device: version of its peer
	FieldAddrs   = "addrs"   // of a device: where it listens, multiaddrs separated by newlines
	FieldPath    = "path"    // of a location: the folder, as the file system has it
	FieldExists  = "exists"  // of anything: one byte, 1 or 0
	FieldCert    = "cert"    // of a member: prefix; the issuer's key in hex follows after a '/'
)

// Entity is the thing a register is about.
type Entity struct {
	Kind EntityKind
	ID   string // raw bytes
}

// Device returns the entity of a device.
func Device(d DeviceID) Entity { return Entity{DeviceEntity, string(d[:])} }

// Location returns the entity of a location of owner.
func Location(owner DeviceID, l LocationID) Entity {
	return Entity{LocationEntity, string(owner[:]) + string(l[:])}
}

// Member returns the entity that holds the certificates of d.
func Member(d DeviceID) Entity { return Entity{MemberEntity, string(d[:])} }

// Owner returns the only device that may write registers of e; false where every device may.
func (e Entity) Owner() (DeviceID, bool) {
	var d DeviceID
	if e.Kind != DeviceEntity && e.Kind != LocationEntity || len(e.ID) < len(d) {
		return d, false
	}
	copy(d[:], e.ID)
	return d, true
}

// LocationID returns the location that e is.
func (e Entity) LocationID() (l LocationID, ok bool) {
	if e.Kind != LocationEntity || len(e.ID) != len(DeviceID{})+len(l) {
		return l, false
	}
	copy(l[:], e.ID[len(DeviceID{}):])
	return l, true
}

// KeyPrefix returns what the keys of all registers of e begin with.
func (e Entity) KeyPrefix() []byte {
	return append([]byte{byte(e.Kind), byte(len(e.ID))}, e.ID...)
}

// Register is one field of one entity as one device wrote it. What a person sees is the winner among
// the registers of all device feeds.
type Register struct {
	Entity Entity
	Field  string
	Author DeviceID
	Stamp  hlc.Stamp
	Value  []byte
}

// ErrNotOwner is returned for a register of an owned entity that somebody else wrote.
var ErrNotOwner = errors.New("written by a device that does not own it")

// Key: entity kind, length of the entity id, the id, the field.
func (r Register) Key() []byte { return append(r.Entity.KeyPrefix(), r.Field...) }

// Append: model, author, stamp, value with its length.
func (r Register) Append(b []byte) []byte {
	b = append(b, modelRegister)
	b = append(b, r.Author[:]...)
	b = r.Stamp.Append(b)
	return appendString(b, r.Value)
}

// Model names the entity's kind.
func (r Register) Model() string {
	switch r.Entity.Kind {
	case DeviceEntity:
		return "device"
	case LocationEntity:
		return "location"
	case MemberEntity:
		return "member"
	}
	return "other"
}

// Validate returns ErrInvalid, or ErrNotOwner when the author may not write the entity.
func (r Register) Validate() error {
	switch {
	case len(r.Entity.ID) == 0 || len(r.Entity.ID) > MaxEntity:
		return invalid("entity id of %d bytes, limit %d", len(r.Entity.ID), MaxEntity)
	case r.Field == "" || len(r.Field) > MaxField:
		return invalid("field of %d bytes", len(r.Field))
	case len(r.Value) > MaxValue:
		return invalid("value of %d bytes, limit %d", len(r.Value), MaxValue)
	case r.Entity.Kind == DeviceEntity && len(r.Entity.ID) != len(DeviceID{}),
		r.Entity.Kind == MemberEntity && len(r.Entity.ID) != len(DeviceID{}),
		r.Entity.Kind == LocationEntity && len(r.Entity.ID) != len(DeviceID{})+len(LocationID{}):
		return invalid("entity id of %d bytes", len(r.Entity.ID))
	}
	if owner, ok := r.Entity.Owner(); ok && owner != r.Author {
		return fmt.Errorf("%w: %v of %s by %s", ErrNotOwner, r.Field, owner.Short(), r.Author.Short())
	}
	return nil
}

// Compare orders registers of one entity and field by (stamp, author, hash of the value): positive if
// r wins over o, 0 only if they are the same.
func (r Register) Compare(o Register) int {
	switch {
	case r.Stamp > o.Stamp:
		return 1
	case r.Stamp < o.Stamp:
		return -1
	}
	if c := bytes.Compare(r.Author[:], o.Author[:]); c != 0 {
		return c
	}
	a, b := sha256.Sum256(r.Value), sha256.Sum256(o.Value)
	return bytes.Compare(a[:], b[:])
}

// Merge returns the register of one entity and field that everybody sees: the greatest whose stamp is
// not more than hlc.MaxDrift ahead of now. It is the only merge rule; the order of regs and repetitions
// among them do not matter. It returns false if none is plausible yet.
func Merge(now time.Time, regs ...Register) (Register, bool) {
	var (
		best  Register
		found bool
		limit = hlc.At(now.Add(hlc.MaxDrift))
	)
	for _, r := range regs {
		if r.Stamp <= limit && (!found || r.Compare(best) > 0) {
			best, found = r, true
		}
	}
	return best, found
}

func decodeRegister(key, rec []byte) (Record, error) {
	if len(key) < 2 || len(key) < 2+int(key[1]) {
		return nil, invalid("register key of %d bytes", len(key))
	}
	n := 2 + int(key[1])
	r := Register{Entity: Entity{EntityKind(key[0]), string(key[2:n])}, Field: string(key[n:])}
	d := decoder{b: rec[1:]}
	copy(r.Author[:], d.bytes(len(r.Author)))
	if stamp := d.bytes(hlc.Size); stamp != nil {
		r.Stamp = hlc.FromBytes(stamp)
	}
	if v := d.string(MaxValue); len(v) > 0 {
		r.Value = bytes.Clone(v)
	}
	return r, d.end()
}
