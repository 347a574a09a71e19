package member

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"slices"

	"peerdex/record"
)

// MaxCerts is how many devices a library can have; one certificate is kept for each.
const MaxCerts = 256

// Reason says why a certificate does not count. The set of reasons is closed.
type Reason string

const (
	WrongLibrary  Reason = "wrong_library"  // of another library
	UnknownRole   Reason = "unknown_role"   // of a newer version, or none at all
	UnknownIssuer Reason = "unknown_issuer" // neither the root nor a device that the root made admin
	NotByRoot     Reason = "not_by_root"    // an admin's certificate that an admin issued
	BadSignature  Reason = "bad_signature"  // its issuer did not sign it
	TooMany       Reason = "too_many"       // beyond MaxCerts devices
)

// Rejection is a certificate that does not count.
type Rejection struct {
	Cert   Cert
	Reason Reason
}

// Set is who belongs to a library. The zero Set has no members.
type Set struct {
	certs []Cert // one for each member, ordered by subject

	// Rejected are the certificates that do not count, each once, ordered by their bytes.
	Rejected []Rejection
}

// Evaluate makes the member set of the library whose root public key is root. A certificate counts if
// the root key signed it, or if its role is Member and a device signed it that the root made Admin. The
// order of certs and repetitions among them make no difference, and no clock is asked. It verifies at
// most one signature for each of certs, and none of those issued by strangers.
func Evaluate(root ed25519.PublicKey, certs []Cert) Set {
	certs = slices.Clone(certs)
	slices.SortFunc(certs, Cert.compare)
	certs = slices.CompactFunc(certs, func(a, b Cert) bool { return a == b })

	var (
		s       Set
		library = LibraryOf(root)
		best    = map[record.DeviceID]Cert{}
		later   []Cert // not by the root: their issuers are known only after the first pass
	)
	reject := func(c Cert, why Reason) { s.Rejected = append(s.Rejected, Rejection{c, why}) }
	accept := func(c Cert) {
		if c.Verify() != nil {
			reject(c, BadSignature)
		} else if held, ok := best[c.Subject]; !ok || prefer(c, held, root) {
			best[c.Subject] = c
		}
	}
	for _, c := range certs {
		switch {
		case c.Library != library:
			reject(c, WrongLibrary)
		case c.Role != Member && c.Role != Admin:
			reject(c, UnknownRole)
		case bytes.Equal(c.Issuer[:], root):
			accept(c)
		default:
			later = append(later, c)
		}
	}
	admins := map[[32]byte]bool{}
	for d, c := range best {
		if c.Role == Admin {
			admins[d] = true
		}
	}
	for _, c := range later {
		switch {
		case !admins[c.Issuer]:
			reject(c, UnknownIssuer)
		case c.Role != Member:
			reject(c, NotByRoot)
		default:
			accept(c)
		}
	}
	for _, c := range best {
		s.certs = append(s.certs, c)
	}
	// Admins before the members they may have certified, then who came first: no newcomer displaces a
	// device that belonged before.
	slices.SortFunc(s.certs, func(a, b Cert) int {
		return cmp.Or(cmp.Compare(b.Role, a.Role), cmp.Compare(a.Stamp, b.Stamp), bytes.Compare(a.Subject[:], b.Subject[:]))
	})
	if len(s.certs) > MaxCerts {
		for _, c := range s.certs[MaxCerts:] {
			reject(c, TooMany)
		}
		s.certs = slices.Clip(s.certs[:MaxCerts])
	}
	slices.SortFunc(s.certs, func(a, b Cert) int { return bytes.Compare(a.Subject[:], b.Subject[:]) })
	slices.SortFunc(s.Rejected, func(a, b Rejection) int { return a.Cert.compare(b.Cert) })
	return s
}

// prefer reports whether c stands for its subject better than o: the higher role, then the root's word,
// then the older stamp, then the lesser bytes.
func prefer(c, o Cert, root ed25519.PublicKey) bool {
	byRoot := func(c Cert) int {
		if bytes.Equal(c.Issuer[:], root) {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(o.Role, c.Role), byRoot(c)-byRoot(o), cmp.Compare(c.Stamp, o.Stamp), c.compare(o)) < 0
}

// Role returns the role of a device; zero if it does not belong.
func (s Set) Role(d record.DeviceID) Role {
	if i, ok := slices.BinarySearchFunc(s.certs, d, func(c Cert, d record.DeviceID) int { return bytes.Compare(c.Subject[:], d[:]) }); ok {
		return s.certs[i].Role
	}
	return 0
}

// Members returns the devices that belong, admins included, in the order of their ids.
func (s Set) Members() []record.DeviceID {
	out := make([]record.DeviceID, len(s.certs))
	for i, c := range s.certs {
		out[i] = c.Subject
	}
	return out
}

// Certs returns at most MaxCerts certificates that give the same set again: one for each member, ordered
// by subject.
func (s Set) Certs() []Cert { return slices.Clone(s.certs) }

// Equal reports whether both sets have the same members by the same certificates; what was rejected does
// not matter.
func (s Set) Equal(o Set) bool { return slices.Equal(s.certs, o.certs) }
