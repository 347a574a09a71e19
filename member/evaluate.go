package member

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"slices"

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
//   - What an admin signed counts, if it adds a member or removes a device that the root did not make
//     admin. An admin is a device that the root made one and did not remove; that it left takes nothing
//     from what it signed.
//   - A device that was removed is out, whatever else is said of it, before or after.
//   - A device that was added is in, unless it has signed a Lapse that is as new as the newest add.
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
	e.admins, e.dismissed = map[[32]byte]bool{}, map[[32]byte]bool{}
	for d, s := range e.of {
		e.admins[d], e.dismissed[d] = s.add.Kind == AddAdmin, s.out != Cert{}
	}
	rest = e.pass(rest, e.byAdmin)
	e.pass(rest, e.byItself)
	return e.set()
}

// evaluation is a set in the making.
type evaluation struct {
	root      ed25519.PublicKey
	library   [32]byte
	of        map[record.DeviceID]*standing
	admins    map[[32]byte]bool // made so by the root
	dismissed map[[32]byte]bool // removed by the root
	rejected  []Rejection
}

// standing is what counts of one device. A zero Cert is none.
type standing struct {
	add    Cert // the best: highest role, the root's word before others', the oldest
	newest Cert // of the adds
	lapse  Cert // the newest
	out    Cert // the best Revoke or Forget: the root's word before others', the oldest
	forget Cert // the best Forget
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
	case e.dismissed[c.Issuer]:
		return false, RevokedIssuer
	case !e.admins[c.Issuer]:
		return false, UnknownIssuer
	case c.Kind == AddAdmin, c.Kind.Removes() && e.admins[c.Subject]:
		return false, NotByRoot
	}
	return true, ""
}

func (e *evaluation) byItself(c Cert) (bool, Reason) {
	if s := e.of[c.Subject]; s == nil || s.add == (Cert{}) {
		return false, NotAdded
	}
	return true, ""
}

// take notes a certificate that counts.
func (e *evaluation) take(c Cert) {
	s := e.of[c.Subject]
	if s == nil {
		s = &standing{}
		e.of[c.Subject] = s
	}
	better := func(held *Cert, order ...int) {
		if *held == (Cert{}) || cmp.Or(append(order, c.compare(*held))...) < 0 {
			*held = c
		}
	}
	older := func(held Cert) int { return cmp.Compare(c.Stamp, held.Stamp) }
	switch {
	case c.Kind.Adds():
		better(&s.add, cmp.Compare(s.add.Kind, c.Kind), e.rank(c)-e.rank(s.add), older(s.add))
		better(&s.newest, -older(s.newest))
	case c.Kind == Lapse:
		better(&s.lapse, -older(s.lapse))
	default:
		better(&s.out, e.rank(c)-e.rank(s.out), older(s.out))
		if c.Kind == Forget {
			better(&s.forget, e.rank(c)-e.rank(s.forget), older(s.forget))
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
	return s.out == Cert{} && s.add != Cert{} && (s.lapse == Cert{} || s.newest.Stamp > s.lapse.Stamp)
}

// set bounds what counts. Of members the admins stay first, then who came first: no newcomer displaces a
// device that belonged before. Of those that are out, admins stay first, then who had belonged.
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
		return cmp.Or(cmp.Compare(b.add.Kind, a.add.Kind), cmp.Compare(a.add.Stamp, b.add.Stamp), a.add.compare(b.add))
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
	keep(in, MaxMembers, func(s *standing) Cert { return s.add })
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
	d := Departure{Device: c.Subject, Kind: c.Kind, By: c.Issuer, Stamp: c.Stamp}
	if c.Kind == Lapse {
		d.Role = s.add.Kind.role()
	}
	return d
}
