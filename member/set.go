package member

import (
	"bytes"
	"fmt"
	"slices"

	"peerdex/hlc"
	"peerdex/record"
)

// Role is what a device may do in a library. The zero Role is that of a stranger.
type Role uint8

const (
	Member Role = 1 // reads everything, owns feeds, writes shared edits
	Admin  Role = 2 // a member that may add members, and remove those that are no admins
)

func (r Role) String() string {
	switch r {
	case 0:
		return "stranger"
	case Member:
		return "member"
	case Admin:
		return "admin"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// role is what a certificate of this kind makes its subject.
func (k Kind) role() Role {
	switch k {
	case AddAdmin:
		return Admin
	case AddMember:
		return Member
	}
	return 0
}

// Departure says how a device that was in a library is out of it.
type Departure struct {
	Device record.DeviceID
	Kind   Kind      // Revoke, Lapse or Forget
	Role   Role      // of a device that has left: the highest it ever had
	By     [32]byte  // who said so: the root key, an admin, of a Lapse the device itself
	Stamp  hlc.Stamp // when
	Added  hlc.Stamp // when it was added, where a certificate is at hand that says so: Certs has none of those put out
}

// Set is who belongs to a library and who is out of it. The zero Set has no members.
type Set struct {
	members []place     // ordered by device
	gone    []Departure // ordered by device
	certs   []Cert      // ordered by their bytes

	// Rejected are the certificates that do not count, each once, ordered by their bytes.
	Rejected []Rejection
}

type place struct {
	device record.DeviceID
	role   Role
	added  hlc.Stamp
	raised bool // the root once made it admin
}

// keep adds a device with the certificates that give its standing again.
func (s *Set) keep(st *standing) {
	switch {
	case st.belongs():
		s.members = append(s.members, place{st.add.Subject, st.current.Kind.role(), st.current.Stamp, st.add.Kind == AddAdmin})
		s.certs = append(s.certs, st.current)
		if st.lapse != (Cert{}) {
			s.certs = append(s.certs, st.lapse, st.add)
		}
	case st.out != Cert{}:
		s.gone = append(s.gone, st.departed())
		s.certs = append(s.certs, st.out)
		if st.forget != (Cert{}) {
			s.certs = append(s.certs, st.forget)
		}
	default:
		s.gone = append(s.gone, st.departed())
		s.certs = append(s.certs, st.add, st.lapse)
	}
}

// order sorts what keep has added.
func (s *Set) order() {
	slices.SortFunc(s.members, func(a, b place) int { return bytes.Compare(a.device[:], b.device[:]) })
	slices.SortFunc(s.gone, func(a, b Departure) int { return bytes.Compare(a.Device[:], b.Device[:]) })
	slices.SortFunc(s.certs, Cert.compare)
	s.certs = slices.Clip(slices.CompactFunc(s.certs, func(a, b Cert) bool { return a == b }))
	slices.SortFunc(s.Rejected, func(a, b Rejection) int { return a.Cert.compare(b.Cert) })
}

// Role returns the role of a device; zero if it does not belong.
func (s Set) Role(d record.DeviceID) Role { return s.place(d).role }

// Added returns when a device was made what it is; zero if it does not belong.
func (s Set) Added(d record.DeviceID) hlc.Stamp { return s.place(d).added }

func (s Set) place(d record.DeviceID) place {
	if i, ok := slices.BinarySearchFunc(s.members, d, func(p place, d record.DeviceID) int { return bytes.Compare(p.device[:], d[:]) }); ok {
		return s.members[i]
	}
	return place{}
}

// RootOnly reports whether a device can be removed by the root alone: it made the device an admin at some
// time, and leaving does not undo that.
func (s Set) RootOnly(d record.DeviceID) bool {
	gone, _ := s.Removed(d)
	return s.place(d).raised || gone.Role == Admin
}

// Members returns the devices that belong, admins included, in the order of their ids.
func (s Set) Members() []record.DeviceID {
	out := make([]record.DeviceID, len(s.members))
	for i, p := range s.members {
		out[i] = p.device
	}
	return out
}

// Removed returns why a device is out; false if it belongs or was never heard of.
func (s Set) Removed(d record.DeviceID) (Departure, bool) {
	if i, ok := slices.BinarySearchFunc(s.gone, d, func(g Departure, d record.DeviceID) int { return bytes.Compare(g.Device[:], d[:]) }); ok {
		return s.gone[i], true
	}
	return Departure{}, false
}

// Gone returns every device that is out, in the order of their ids.
func (s Set) Gone() []Departure { return slices.Clone(s.gone) }

// Certs returns at most MaxCerts certificates that give the same set again, ordered by their bytes: what a
// device keeps and shows others. Removals are among them.
func (s Set) Certs() []Cert { return slices.Clone(s.certs) }

// Equal reports whether both sets have the same members, and the same devices out, by the same
// certificates; what was rejected does not matter.
func (s Set) Equal(o Set) bool { return slices.Equal(s.certs, o.certs) }
