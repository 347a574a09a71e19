package member

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"slices"

	"peerdex/hlc"
	"peerdex/internal/mutant"
	"peerdex/record"
)

// Bounds of a set. MaxCerts is what they come to: at most three certificates are kept of a member and two
// of a device that is out.
const (
	MaxMembers = 256
	MaxGone    = 256
	MaxCerts   = 3*MaxMembers + 2*MaxGone
)

// Reason says why a certificate does not count. The set of reasons is closed.
type Reason string

const (
	WrongLibrary  Reason = "wrong_library"  // of another library
	UnknownKind   Reason = "unknown_kind"   // of a newer version, or none at all
	UnknownIssuer Reason = "unknown_issuer" // neither the root nor a device that the root made admin
	RevokedIssuer Reason = "revoked_issuer" // an admin that the root has removed
	LapsedIssuer  Reason = "lapsed_issuer"  // signed by an admin after it had left
	NotByRoot     Reason = "not_by_root"    // an admin is made, or removed, by the root alone
	NotItself     Reason = "not_itself"     // a device leaves by its own word alone
	NotAdded      Reason = "not_added"      // a device that nobody took in cannot leave
	BadSignature  Reason = "bad_signature"  // its issuer did not sign it
	TooMany       Reason = "too_many"       // beyond MaxMembers or MaxGone devices
)

// Rejection is a certificate that does not count.
type Rejection struct {
	Cert   Cert
	Reason Reason
}

// Evaluate makes the member set of the library whose root public key is root:
//
//   - What the root signed counts.
//   - What an admin signed counts, if it adds a member or removes a device that the root never made
//     admin. An admin is a device that the root made one and did not remove. That it left takes nothing
//     from what it signed before; what it signs afterwards counts again once the root makes it an admin
//     again.
//   - A device that was removed is out, whatever else is said of it, before or after.
//   - A device that was added is in. Once it has signed a Lapse, adds that are newer count for it alone: it
//     is out without one, and an admin only if the root says so again.
//   - Nothing else counts: of what a mere member signs, its own Lapse alone.
//
// The order of certs and repetitions among them make no difference, and no clock is asked. At most one
// signature is verified for each of certs, and none of those issued by strangers.
func Evaluate(root ed25519.PublicKey, certs []Cert) Set {
	certs = slices.Clone(certs)
	slices.SortFunc(certs, Cert.compare)
	certs = slices.CompactFunc(certs, func(a, b Cert) bool { return a == b })

	e := evaluation{root: root, library: LibraryOf(root), of: map[record.DeviceID]*standing{}}
	rest := e.pass(certs, e.byRoot)
	rest = e.pass(rest, e.byItself) // the admins' leaving says what of theirs counts
	e.admins = map[[32]byte]authority{}
	for d, s := range e.of {
		s.settle(e.better)
		if s.add.Kind == AddAdmin {
			e.admins[d] = authority{dismissed: s.out != Cert{}, lapsed: s.current.Kind != AddAdmin, left: s.lapse.Stamp}
		}
	}
	rest = e.pass(rest, e.byAdmin)
	for _, c := range e.pass(rest, e.byItself) {
		e.rejected = append(e.rejected, Rejection{c, NotAdded})
	}
	for _, s := range e.of {
		s.settle(e.better)
	}
	return e.set()
}

// evaluation is a set in the making.
type evaluation struct {
	root     ed25519.PublicKey
	library  [32]byte
	of       map[record.DeviceID]*standing
	admins   map[[32]byte]authority // of whom the root ever made admin
	rejected []Rejection
}

// authority is what the word of a device is worth that the root made admin.
type authority struct {
	dismissed bool      // the root removed it: nothing
	lapsed    bool      // it left, and the root did not make it admin again: what it signed up to left
	left      hlc.Stamp // when
}

// standing is what counts of one device. A zero Cert is none. The best add is that of the highest role, then
// the root's before others', then the oldest.
type standing struct {
	adds    []Cert
	add     Cert // the best of all
	current Cert // the best of those newer than lapse
	lapse   Cert // the newest
	out     Cert // the best Revoke or Forget: the root's word before others', the oldest
	forget  Cert // the best Forget
}

// settle picks the best of the adds taken so far.
func (s *standing) settle(better func(held *Cert, c Cert)) {
	s.add, s.current = Cert{}, Cert{}
	for _, c := range s.adds {
		better(&s.add, c)
		if s.lapse == (Cert{}) || c.Stamp > s.lapse.Stamp {
			better(&s.current, c)
		}
	}
}

// better puts c in held's place if it is the better certificate of the two; only kinds of one sort are compared.
func (e *evaluation) better(held *Cert, c Cert) {
	role := cmp.Compare(held.Kind.role(), c.Kind.role())
	if *held == (Cert{}) || cmp.Or(role, e.rank(c)-e.rank(*held), cmp.Compare(c.Stamp, held.Stamp), c.compare(*held)) < 0 {
		*held = c
	}
}

// pass lets say judge each certificate: it counts, or is rejected for a reason, or is left for later.
func (e *evaluation) pass(certs []Cert, say func(Cert) (counts bool, why Reason)) (later []Cert) {
	for _, c := range certs {
		counts, why := say(c)
		if counts && c.Verify() != nil {
			why = BadSignature
		}
		switch {
		case why != "":
			e.rejected = append(e.rejected, Rejection{c, why})
		case counts:
			e.take(c)
		default:
			later = append(later, c)
		}
	}
	return later
}

func (e *evaluation) byRoot(c Cert) (bool, Reason) {
	switch {
	case c.Library != e.library:
		return false, WrongLibrary
	case !c.Kind.Adds() && !c.Kind.Removes() && c.Kind != Lapse:
		return false, UnknownKind
	case c.Kind == Lapse && c.Issuer != c.Subject:
		return false, NotItself
	}
	return bytes.Equal(c.Issuer[:], e.root) && c.Kind != Lapse, ""
}

func (e *evaluation) byAdmin(c Cert) (bool, Reason) {
	switch {
	case c.Kind == Lapse:
		return false, ""
	}
	by, admin := e.admins[c.Issuer]
	_, protected := e.admins[c.Subject]
	switch {
	case !admin:
		return false, UnknownIssuer
	case by.dismissed && !mutant.Is("dismissed_counts"):
		return false, RevokedIssuer
	case by.lapsed && c.Stamp > by.left && !mutant.Is("lapsed_counts"):
		return false, LapsedIssuer
	case c.Kind == AddAdmin, c.Kind.Removes() && protected && !mutant.Is("admin_removes_admin"):
		return false, NotByRoot
	}
	return true, ""
}

// byItself lets a device leave that was added as far as is known by now.
func (e *evaluation) byItself(c Cert) (bool, Reason) {
	s := e.of[c.Subject]
	return c.Kind == Lapse && s != nil && len(s.adds) > 0, ""
}

// take notes a certificate that counts.
func (e *evaluation) take(c Cert) {
	s := e.of[c.Subject]
	if s == nil {
		s = &standing{}
		e.of[c.Subject] = s
	}
	switch {
	case c.Kind.Adds():
		s.adds = append(s.adds, c)
	case c.Kind == Lapse:
		if s.lapse == (Cert{}) || cmp.Or(cmp.Compare(s.lapse.Stamp, c.Stamp), c.compare(s.lapse)) < 0 {
			s.lapse = c
		}
	default:
		e.better(&s.out, c)
		if c.Kind == Forget {
			e.better(&s.forget, c)
		}
	}
}

// rank puts the root's word before everybody else's.
func (e *evaluation) rank(c Cert) int {
	if bytes.Equal(c.Issuer[:], e.root) {
		return 0
	}
	return 1
}

func (s *standing) belongs() bool {
	out := s.out != Cert{} && !(mutant.Is("removal_loses") && s.current.Stamp > s.out.Stamp)
	return !out && s.current != Cert{}
}

// set bounds what counts. Of members those stay first that the root ever made admin, then who came first: no
// newcomer displaces a device that belonged before. Of those that are out, admins stay first, then who had belonged.
func (e *evaluation) set() Set {
	var in, gone []*standing
	for _, s := range e.of {
		if s.belongs() {
			in = append(in, s)
		} else {
			gone = append(gone, s)
		}
	}
	slices.SortFunc(in, func(a, b *standing) int {
		return cmp.Or(cmp.Compare(b.add.Kind, a.add.Kind), cmp.Compare(a.current.Stamp, b.current.Stamp), a.current.compare(b.current))
	})
	slices.SortFunc(gone, func(a, b *standing) int {
		return cmp.Or(cmp.Compare(b.add.Kind, a.add.Kind), e.rank(a.why())-e.rank(b.why()), cmp.Compare(a.why().Stamp, b.why().Stamp), a.why().compare(b.why()))
	})
	out := Set{Rejected: e.rejected}
	keep := func(all []*standing, most int, why func(*standing) Cert) {
		for i, s := range all {
			if i < most {
				out.keep(s)
			} else {
				out.Rejected = append(out.Rejected, Rejection{why(s), TooMany})
			}
		}
	}
	keep(in, MaxMembers, func(s *standing) Cert { return s.current })
	keep(gone, MaxGone, (*standing).why)
	out.order()
	return out
}

// why is the certificate that puts a device out.
func (s *standing) why() Cert {
	switch {
	case s.forget != Cert{}:
		return s.forget
	case s.out != Cert{}:
		return s.out
	}
	return s.lapse
}

// departed says how a device left; it must have.
func (s *standing) departed() Departure {
	c := s.why()
	d := Departure{Device: c.Subject, Kind: c.Kind, By: c.Issuer, Stamp: c.Stamp, Added: s.add.Stamp}
	if c.Kind == Lapse {
		d.Role = s.add.Kind.role()
	}
	return d
}
