package record

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"peerdex/hlc"
	"peerdex/internal/mutant"
)

// EntityKind says what a register is about.
type EntityKind uint8

// Entity kinds are part of the encoding. Append only.
const (
	DeviceEntity   EntityKind = 1 // id: DeviceID
	LocationEntity EntityKind = 2 // id: DeviceID of the owner, LocationID
	MemberEntity   EntityKind = 3 // id: DeviceID; values are certificates
	TagEntity      EntityKind = 4 // id: TagID
	EntryEntity    EntityKind = 5 // id: DeviceID of the owner, LocationID, EntryID; its tags and note go where it goes
	ContentEntity  EntityKind = 6 // id: Hash; its tags and note are those of every file with that content
)

// Fields of the entities above. A name once used keeps its meaning.
const (
	FieldName    = "name"    // of a device or tag: UTF-8 for people; of a location: that, or the bytes of its folder's name
	FieldSystem  = "system"  // of a device: operating system
	FieldVersion = "version" // of a device: version of its peer
	FieldAddrs   = "addrs"   // of a device: where it listens, multiaddrs separated by newlines
	FieldPath    = "path"    // of a location: the folder, as the file system has it
	FieldExists  = "exists"  // of anything: one byte, 1 or 0
	FieldCert    = "cert"    // of a member: prefix; the issuer's key in hex follows after a '/'; so of the next three
	FieldRevoke  = "revoke"
	FieldLapse   = "lapse"
	FieldForget  = "forget"
	FieldInto    = "into" // of a tag: the TagID it was merged into, 16 bytes
	FieldTag     = "tag"  // of an entry or content: prefix; the TagID in hex follows after a '/'; one byte, 1 or 0
	FieldNote    = "note" // of an entry or content: UTF-8; empty: none
)

// Entity is the thing a register is about.
type Entity struct {
	Kind EntityKind
	ID   string // raw bytes
}

// String names the entity by its kind and id, in hexadecimal: an ID holds no text of anybody's.
func (e Entity) String() string {
	kind, ok := kindNames[e.Kind]
	if !ok {
		kind = fmt.Sprintf("kind %d", uint8(e.Kind))
	}
	return fmt.Sprintf("%s %x", kind, e.ID)
}

var kindNames = map[EntityKind]string{
	DeviceEntity: "device", LocationEntity: "location", MemberEntity: "member", TagEntity: "tag", EntryEntity: "entry", ContentEntity: "content",
}

// Device returns the entity of a device.
func Device(d DeviceID) Entity { return Entity{DeviceEntity, string(d[:])} }

// Location returns the entity of a location of owner.
func Location(owner DeviceID, l LocationID) Entity {
	return Entity{LocationEntity, string(owner[:]) + string(l[:])}
}

// Member returns the entity that holds the certificates of d.
func Member(d DeviceID) Entity { return Entity{MemberEntity, string(d[:])} }

// Tag returns the entity of a tag.
func Tag(t TagID) Entity { return Entity{TagEntity, string(t[:])} }

// Entry returns the entity of an entry of a location of owner.
func Entry(owner DeviceID, l LocationID, e EntryID) Entity {
	return Entity{EntryEntity, string(owner[:]) + string(l[:]) + string(e[:])}
}

// Content returns the entity of whatever has a content.
func Content(h Hash) Entity { return Entity{ContentEntity, string(h[:])} }

// TagField returns the field of an entry or content that says whether it has tag t.
func TagField(t TagID) string { return FieldTag + "/" + t.String() }

// sizes are those of the IDs of each kind of entity, in bytes.
var sizes = map[EntityKind]int{
	DeviceEntity:   len(DeviceID{}),
	LocationEntity: len(DeviceID{}) + len(LocationID{}),
	MemberEntity:   len(DeviceID{}),
	TagEntity:      len(TagID{}),
	EntryEntity:    len(DeviceID{}) + len(LocationID{}) + len(EntryID{}),
	ContentEntity:  len(Hash{}),
}

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

// Entry returns what an EntryEntity is made of.
func (e Entity) Entry() (owner DeviceID, l LocationID, entry EntryID) {
	rest := e.ID[copy(owner[:], e.ID):]
	copy(entry[:], rest[copy(l[:], rest):])
	return owner, l, entry
}

// KeyPrefix returns what the keys of all registers of e begin with.
func (e Entity) KeyPrefix() []byte {
	return append([]byte{byte(e.Kind), byte(len(e.ID))}, e.ID...)
}

// Register is one field of one entity as one device wrote it. What a person sees is the winner among
// the registers of all device feeds.
//
// Prev takes no part in the merge. It tells an edit of what its author saw from one made at the same time
// as another (Concurrent).
type Register struct {
	Entity Entity
	Field  string
	Author DeviceID
	Stamp  hlc.Stamp
	Prev   hlc.Stamp // the newest of another device that the author had seen there; 0: none
	Value  []byte
}

// ErrNotOwner is returned for a register of an owned entity that somebody else wrote.
var ErrNotOwner = errors.New("written by a device that does not own it")

// Key: entity kind, length of the entity id, the id, the field.
func (r Register) Key() []byte { return append(r.Entity.KeyPrefix(), r.Field...) }

// Append: model, author, stamp, value with its length; then Prev, if there is one.
func (r Register) Append(b []byte) []byte {
	b = append(b, modelRegister)
	b = append(b, r.Author[:]...)
	b = r.Stamp.Append(b)
	b = appendString(b, r.Value)
	if r.Prev == 0 {
		return b
	}
	return r.Prev.Append(b)
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
	case TagEntity:
		return "tag"
	case EntryEntity, ContentEntity:
		if strings.HasPrefix(r.Field, FieldTag+"/") {
			return "tagging"
		} else if r.Field == FieldNote {
			return "note"
		}
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
	case r.Prev != 0 && r.Prev >= r.Stamp:
		return invalid("replaces a value that is not older")
	case len(r.Value) > MaxValue:
		return invalid("value of %d bytes, limit %d", len(r.Value), MaxValue)
	case sizes[r.Entity.Kind] != 0 && len(r.Entity.ID) != sizes[r.Entity.Kind]:
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
	case mutant.Is("tie_unbroken"):
		return 0
	}
	if c := bytes.Compare(r.Author[:], o.Author[:]); c != 0 {
		return c
	}
	a, b := sha256.Sum256(r.Value), sha256.Sum256(o.Value)
	return bytes.Compare(a[:], b[:])
}

// Concurrent reports whether r and o are edits of one field by two devices of which neither had seen the
// other's: a conflict, if their values differ.
func (r Register) Concurrent(o Register) bool {
	if r.Author == o.Author {
		return false
	}
	if r.Stamp < o.Stamp {
		r, o = o, r
	}
	return r.Prev < o.Stamp
}

// Believed reports whether r may win at now: its stamp is not more than hlc.MaxDrift ahead of that, or only
// its owner may write what it is about and there is nobody to wrong.
func (r Register) Believed(now time.Time) bool {
	_, owned := r.Entity.Owner()
	return owned || r.Stamp <= hlc.At(now.Add(hlc.MaxDrift)) || mutant.Is("future_wins")
}

// Outranks reports whether r stands before o, a register of the same field, at now: as one that is believed
// before one that is not, else as the greater. Where there is room for one of them, it is r that stays.
func (r Register) Outranks(o Register, now time.Time) bool {
	if is := r.Believed(now); is != o.Believed(now) && !mutant.Is("future_displaces") {
		return is
	}
	return r.Compare(o) > 0
}

// Merge returns the register of one entity and field that everybody sees: the greatest that is believed at
// now. It is the only merge rule; the order of regs and repetitions among them do not matter. It returns
// false if none is believed yet.
func Merge(now time.Time, regs ...Register) (won Register, ok bool) {
	for _, r := range regs {
		if r.Believed(now) && (!ok || r.Compare(won) > 0 || mutant.Is("merge_arrival")) {
			won, ok = r, true
		}
	}
	return won, ok
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
	if len(d.b) > 0 {
		if prev := d.bytes(hlc.Size); prev != nil {
			r.Prev = hlc.FromBytes(prev)
		}
	}
	return r, d.end()
}
