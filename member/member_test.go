package member

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/record"
)

// key returns the n-th of the test's key pairs.
func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func device(n byte) (d record.DeviceID) { copy(d[:], public(key(n))); return d }

const rootKey = 200

var root = public(key(rootKey))

func issue(by, subject byte, kind Kind, stamp hlc.Stamp) Cert {
	return Cert{Library: LibraryOf(root), Subject: device(subject), Kind: kind, Stamp: stamp}.Sign(key(by))
}

func goldenCerts() []Cert {
	return []Cert{
		issue(rootKey, 1, AddAdmin, 0x0102030405060708), issue(1, 2, AddMember, 1),
		issue(1, 2, Revoke, 2), issue(2, 2, Lapse, 3), issue(rootKey, 1, Forget, 4),
	}
}

func TestGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/certs.golden")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	certs := goldenCerts()
	if len(lines) != len(certs) {
		t.Fatalf("%d lines for %d certificates", len(lines), len(certs))
	}
	for i, c := range certs {
		if got := hex.EncodeToString(c.Append(nil)); got != lines[i] {
			t.Errorf("certificate %d is encoded as\n%s, want\n%s", i, got, lines[i])
		}
		b, err := hex.DecodeString(lines[i])
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(b)
		if err != nil || got != c || len(b) != Size {
			t.Errorf("certificate %d of %d bytes is decoded as %+v, %v", i, len(b), got, err)
		}
		if err := got.Verify(); err != nil {
			t.Errorf("certificate %d: %v", i, err)
		}
	}
	if got := hex.EncodeToString(func() []byte { l := LibraryOf(root); return l[:] }()); !strings.HasPrefix(lines[0], got) {
		t.Errorf("library %s", got)
	}
}

func TestTruncation(t *testing.T) {
	whole := goldenCerts()[0].Append(nil)
	for n := range whole {
		if c, err := Parse(whole[:n]); !errors.Is(err, ErrInvalid) || c != (Cert{}) {
			t.Errorf("%d bytes were read as %+v, %v", n, c, err)
		}
	}
	if c, err := Parse(append(whole, 0)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a byte too many was read as %+v, %v", c, err)
	}
}

// Every bit of a certificate is covered by its signature, and a tampered one makes no member.
func TestTamper(t *testing.T) {
	whole := goldenCerts()[0].Append(nil)
	for i := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			c, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Verify(); !errors.Is(err, ErrInvalid) {
				t.Errorf("bit %d of byte %d changed: %v", bit, i, err)
			}
			if s := Evaluate(root, []Cert{c}); len(s.Members()) != 0 || len(s.Rejected) != 1 {
				t.Errorf("bit %d of byte %d changed: members %v", bit, i, s.Members())
			}
		}
	}
	bare := goldenCerts()[0]
	copy(bare.Sig[:], ed25519.Sign(key(rootKey), bare.unsigned(nil)))
	if err := bare.Verify(); !errors.Is(err, ErrInvalid) {
		t.Errorf("signed without the domain: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range goldenCerts() {
		f.Add(c.Append(nil))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || len(b) == Size {
				t.Errorf("%d bytes: %v", len(b), err)
			}
			return
		}
		if !bytes.Equal(c.Append(nil), b) {
			t.Errorf("%x came back as %x", b, c.Append(nil))
		}
		c.Verify()
		if slices.Contains(goldenCerts(), c) {
			return
		}
		s := Evaluate(root, append(goldenCerts()[:2], c))
		if s.Role(device(1)) != Admin || s.Role(device(2)) != Member {
			t.Errorf("%x changes who belongs", b)
		}
	})
}

func TestEvaluate(t *testing.T) {
	admin, member := issue(rootKey, 1, AddAdmin, 5), issue(rootKey, 2, AddMember, 6)
	second := issue(rootKey, 4, AddAdmin, 5)
	other := Cert{Library: LibraryOf(public(key(201))), Subject: device(3), Kind: AddAdmin}.Sign(key(201))
	foreign := Cert{Library: LibraryOf(public(key(201))), Subject: device(3), Kind: AddMember}.Sign(key(rootKey))
	forged := issue(9, 3, AddMember, 1)
	forged.Issuer = [32]byte(root)
	slander := issue(9, 2, Revoke, 1)
	slander.Issuer = [32]byte(root)
	none, newer := issue(rootKey, 3, 0, 1), issue(rootKey, 3, 6, 1)
	for _, c := range []struct {
		name     string
		certs    []Cert
		want     string // device numbers, their roles, or how they are out
		kept     int
		rejected []Reason
	}{
		{"nobody", nil, "", 0, nil},
		{"by the root", []Cert{admin, member}, "1 admin, 2 member", 2, nil},
		{"by an admin", []Cert{admin, issue(1, 3, AddMember, 7)}, "1 admin, 3 member", 2, nil},
		{"by an admin that is not one here", []Cert{issue(1, 3, AddMember, 7)}, "", 0, []Reason{UnknownIssuer}},
		{"by a member", []Cert{member, issue(2, 3, AddMember, 7)}, "2 member", 1, []Reason{UnknownIssuer}},
		{"an admin by an admin", []Cert{admin, issue(1, 3, AddAdmin, 7)}, "1 admin", 1, []Reason{NotByRoot}},
		{"by an admin's admin", []Cert{admin, issue(1, 3, AddAdmin, 7), issue(3, 4, AddMember, 8)}, "1 admin", 1, []Reason{NotByRoot, UnknownIssuer}},
		{"by itself", []Cert{issue(3, 3, AddAdmin, 1), issue(3, 3, AddMember, 1)}, "", 0, []Reason{UnknownIssuer, UnknownIssuer}},
		{"an admin about itself", []Cert{admin, issue(1, 1, AddMember, 9)}, "1 admin", 1, nil},
		{"of another library", []Cert{member, other, foreign}, "2 member", 1, []Reason{WrongLibrary, WrongLibrary}},
		{"forged", []Cert{member, forged}, "2 member", 1, []Reason{BadSignature}},
		{"of no kind and of a newer one", []Cert{none, newer}, "", 0, []Reason{UnknownKind, UnknownKind}},
		{"a forged admin's members", []Cert{forged, issue(3, 4, AddMember, 1)}, "", 0, []Reason{BadSignature, UnknownIssuer}},
		{"raised to admin", []Cert{issue(rootKey, 1, AddMember, 1), admin}, "1 admin", 1, nil},
		{"by the root and by an admin", []Cert{admin, member, issue(1, 2, AddMember, 1)}, "1 admin, 2 member", 2, nil},
		{"twice", []Cert{member, member, admin, member}, "1 admin, 2 member", 2, nil},

		{"revoked by the root", []Cert{admin, member, issue(rootKey, 2, Revoke, 7)}, "1 admin, 2 revoke", 2, nil},
		{"revoked by an admin", []Cert{admin, member, issue(1, 2, Revoke, 7)}, "1 admin, 2 revoke", 2, nil},
		{"revoked before it was added", []Cert{admin, member, issue(1, 2, Revoke, 3)}, "1 admin, 2 revoke", 2, nil},
		{"added again", []Cert{admin, member, issue(1, 2, Revoke, 7), issue(1, 2, AddMember, 9), issue(rootKey, 2, AddMember, 9)}, "1 admin, 2 revoke", 2, nil},
		{"never added", []Cert{admin, issue(1, 2, Revoke, 7)}, "1 admin, 2 revoke", 2, nil},
		{"an admin by the root", []Cert{admin, issue(rootKey, 1, Revoke, 1)}, "1 revoke", 1, nil},
		{"an admin by an admin", []Cert{admin, second, issue(4, 1, Revoke, 9)}, "1 admin, 4 admin", 2, []Reason{NotByRoot}},
		{"two admins each other", []Cert{admin, second, issue(4, 1, Revoke, 9), issue(1, 4, Forget, 8)}, "1 admin, 4 admin", 2, []Reason{NotByRoot, NotByRoot}},
		{"an admin itself", []Cert{admin, issue(1, 1, Revoke, 9)}, "1 admin", 1, []Reason{NotByRoot}},
		{"by a member", []Cert{admin, member, issue(2, 1, Revoke, 9), issue(2, 3, Revoke, 9)}, "1 admin, 2 member", 2, []Reason{UnknownIssuer, UnknownIssuer}},
		{"by a stranger", []Cert{admin, member, issue(7, 2, Forget, 9)}, "1 admin, 2 member", 2, []Reason{UnknownIssuer}},
		{"forged removal", []Cert{admin, member, slander}, "1 admin, 2 member", 2, []Reason{BadSignature}},
		{"forgotten", []Cert{admin, member, issue(1, 2, Forget, 7)}, "1 admin, 2 forget", 2, nil},
		{"revoked, then forgotten", []Cert{admin, member, issue(rootKey, 2, Revoke, 7), issue(1, 2, Forget, 8)}, "1 admin, 2 forget", 3, nil},
		{"what a revoked admin said", []Cert{admin, issue(1, 3, AddMember, 2), issue(1, 2, Revoke, 2), member, issue(rootKey, 1, Revoke, 7)},
			"1 revoke, 2 member", 2, []Reason{RevokedIssuer, RevokedIssuer}},
		{"said again by the root", []Cert{admin, issue(1, 3, AddMember, 2), issue(rootKey, 3, AddMember, 2), issue(rootKey, 1, Revoke, 7)},
			"1 revoke, 3 member", 2, []Reason{RevokedIssuer}},

		{"left", []Cert{admin, member, issue(2, 2, Lapse, 7)}, "1 admin, 2 lapse", 3, nil},
		{"left and came back", []Cert{admin, member, issue(2, 2, Lapse, 7), issue(1, 2, AddMember, 8)}, "1 admin, 2 member", 4, nil},
		{"left at the moment it came back", []Cert{admin, member, issue(2, 2, Lapse, 8), issue(1, 2, AddMember, 8)}, "1 admin, 2 lapse", 3, nil},
		{"left twice", []Cert{admin, member, issue(2, 2, Lapse, 9), issue(2, 2, Lapse, 7), issue(1, 2, AddMember, 8)}, "1 admin, 2 lapse", 3, nil},
		{"left and revoked", []Cert{admin, member, issue(2, 2, Lapse, 9), issue(1, 2, Revoke, 3)}, "1 admin, 2 revoke", 2, nil},
		{"said to have left", []Cert{admin, member, issue(1, 2, Lapse, 9), issue(rootKey, 2, Lapse, 9)}, "1 admin, 2 member", 2, []Reason{NotItself, NotItself}},
		{"a stranger left", []Cert{admin, issue(7, 7, Lapse, 9)}, "1 admin", 1, []Reason{NotAdded}},
		{"the root left", []Cert{admin, issue(rootKey, rootKey, Lapse, 9)}, "1 admin", 1, []Reason{NotAdded}},
		{"an admin left", []Cert{admin, issue(1, 3, AddMember, 2), issue(1, 2, Revoke, 7), issue(1, 1, Lapse, 7)}, "1 lapse, 2 revoke, 3 member", 4, nil},
		{"an admin left and signed on", []Cert{admin, member, issue(1, 1, Lapse, 7), issue(1, 2, Revoke, 9), issue(1, 1, AddMember, 9)}, "1 lapse, 2 member", 3, []Reason{LapsedIssuer, LapsedIssuer}},
		{"an admin left and came back", []Cert{admin, second, issue(1, 3, AddMember, 2), issue(1, 1, Lapse, 7), issue(4, 1, AddMember, 8), issue(1, 2, AddMember, 9)},
			"1 member, 3 member, 4 admin", 5, []Reason{LapsedIssuer}},
		{"an admin left and came back by the root's word", []Cert{admin, issue(1, 1, Lapse, 7), issue(rootKey, 1, AddMember, 9)}, "1 member", 3, nil},
		{"an admin left and was made one again", []Cert{admin, issue(1, 1, Lapse, 7), issue(rootKey, 1, AddAdmin, 9), issue(1, 2, AddMember, 8)}, "1 admin, 2 member", 4, nil},
		{"an admin twice, before it left", []Cert{admin, issue(rootKey, 1, AddAdmin, 6), issue(1, 1, Lapse, 7)}, "1 lapse", 2, nil},
		{"an admin that came back as a member, by an admin", []Cert{admin, second, issue(1, 1, Lapse, 7), issue(4, 1, AddMember, 8), issue(4, 1, Revoke, 9)}, "1 member, 4 admin", 4, []Reason{NotByRoot}},
		{"an admin that left, by an admin", []Cert{admin, second, issue(1, 1, Lapse, 7), issue(4, 1, Revoke, 8)}, "1 lapse, 4 admin", 3, []Reason{NotByRoot}},
	} {
		s := Evaluate(root, c.certs)
		var standing []string
		for n := range byte(10) {
			r := s.Role(device(n))
			gone, out := s.Removed(device(n))
			switch {
			case r != 0 && out:
				t.Errorf("%s: %d is in and out", c.name, n)
			case r != 0:
				standing = append(standing, fmt.Sprintf("%d %v", n, r))
			case out:
				standing = append(standing, fmt.Sprintf("%d %v", n, gone.Kind))
			}
		}
		if got := strings.Join(standing, ", "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		var reasons []Reason
		for _, r := range s.Rejected {
			reasons = append(reasons, r.Reason)
		}
		slices.Sort(reasons)
		slices.Sort(c.rejected)
		if len(s.Certs()) != c.kept || !slices.Equal(reasons, c.rejected) {
			t.Errorf("%s: %d certificates kept and rejected %v, want %d and %v", c.name, len(s.Certs()), reasons, c.kept, c.rejected)
		}
	}
	if s := Evaluate(nil, []Cert{admin, {}}); len(s.Members()) != 0 {
		t.Errorf("without a root key: members %v", s.Members())
	}
	both := Evaluate(root, []Cert{admin, member, issue(1, 2, AddMember, 1)}).Certs()
	if !slices.Contains(both, member) {
		t.Errorf("the root's word is not the one that is kept: %+v", both)
	}
	left, _ := Evaluate(root, []Cert{admin, issue(1, 1, Lapse, 7)}).Removed(device(1))
	if want := (Departure{device(1), Lapse, Admin, [32]byte(device(1)), 7, 5}); left != want {
		t.Errorf("left as %+v, want %+v", left, want)
	}
	gone, ok := Evaluate(root, []Cert{admin, member, issue(1, 2, Revoke, 3), issue(rootKey, 2, Revoke, 7)}).Removed(device(2))
	if want := (Departure{device(2), Revoke, 0, [32]byte(root), 7, 6}); !ok || gone != want {
		t.Errorf("removed as %+v, want %+v", gone, want)
	}
}

// pool is every certificate that five keys, the root and another library's root can make of each other,
// some forged, with few stamps.
func pool() (out []Cert) {
	for _, by := range []byte{rootKey, 201, 1, 2, 3} {
		for subject := byte(1); subject <= 4; subject++ {
			for kind := range Kind(7) {
				for stamp := range hlc.Stamp(3) {
					c := issue(by, subject, kind, stamp)
					out = append(out, c)
					if subject == 2 && stamp == 1 {
						c.Sig[3] ^= 1
						out = append(out, c)
					}
					if subject == 3 && stamp == 1 {
						c.Library = feed.LibraryID{1}
						out = append(out, c.Sign(key(by)))
					}
				}
			}
		}
	}
	return out
}

// rule is the rule of Evaluate said once more, one question at a time, of certificates that are sound.
type rule []Cert

func ruleOf(certs []Cert) (out rule) {
	for _, c := range certs {
		if c.Library == LibraryOf(root) && c.Verify() == nil {
			out = append(out, c)
		}
	}
	return out
}

func (all rule) said(by [32]byte, kind Kind, of record.DeviceID) (stamps []hlc.Stamp) {
	for _, c := range all {
		if c.Issuer == by && c.Kind == kind && c.Subject == of {
			stamps = append(stamps, c.Stamp)
		}
	}
	return stamps
}

// before reports whether a certificate that by signed at stamp is from a time when it had authority: any, for
// the root and for an admin that never left or was made one again.
func (all rule) before(by [32]byte, stamp hlc.Stamp) bool {
	lapses := all.said(by, Lapse, by)
	if by == [32]byte(root) || len(lapses) == 0 {
		return true
	}
	left := slices.Max(lapses)
	return stamp <= left || slices.ContainsFunc(all.said([32]byte(root), AddAdmin, by), func(s hlc.Stamp) bool { return s > left })
}

func (all rule) ever(by [32]byte, of record.DeviceID, kinds ...Kind) bool {
	return slices.ContainsFunc(kinds, func(k Kind) bool { return len(all.said(by, k, of)) > 0 })
}

// issuers are the root and the admins.
func (all rule) issuers() (out [][32]byte) {
	out = append(out, [32]byte(root))
	for n := range byte(10) {
		if d := device(n); all.ever([32]byte(root), d, AddAdmin) && !all.ever([32]byte(root), d, Revoke, Forget) {
			out = append(out, d)
		}
	}
	return out
}

func (all rule) standing(d record.DeviceID) string {
	var removed, forgotten bool
	var adds, admin []hlc.Stamp
	for _, by := range all.issuers() {
		counted := func(kind Kind) []hlc.Stamp {
			return slices.DeleteFunc(all.said(by, kind, d), func(s hlc.Stamp) bool { return !all.before(by, s) })
		}
		if by == [32]byte(root) || !all.ever([32]byte(root), d, AddAdmin) {
			revoke, forget := counted(Revoke), counted(Forget)
			removed = removed || len(revoke)+len(forget) > 0
			forgotten = forgotten || len(forget) > 0
		}
		adds = append(adds, counted(AddMember)...)
	}
	admin = all.said([32]byte(root), AddAdmin, d)
	adds = append(adds, admin...)
	lapses := all.said(d, Lapse, d)
	old := func(s hlc.Stamp) bool { return len(lapses) > 0 && s <= slices.Max(lapses) }
	switch {
	case forgotten:
		return "forget"
	case removed:
		return "revoke"
	case len(adds) == 0:
		return ""
	case !slices.ContainsFunc(adds, func(s hlc.Stamp) bool { return !old(s) }):
		return "lapse"
	case slices.ContainsFunc(admin, func(s hlc.Stamp) bool { return !old(s) }):
		return "admin"
	}
	return "member"
}

func standingIn(s Set, d record.DeviceID) string {
	if r := s.Role(d); r != 0 {
		return r.String()
	}
	if g, ok := s.Removed(d); ok {
		return g.Kind.String()
	}
	return ""
}

// undated leaves out when devices were added: the certificates kept of those put out do not say it.
func undated(all []Departure) []Departure {
	for i := range all {
		all[i].Added = 0
	}
	return all
}

// Any order and any repetition give the same set; its certificates alone give it again; everybody stands
// in it as the rule, said once more, would have it.
func TestEvaluateLaws(t *testing.T) {
	all := pool()
	rapid.Check(t, func(t *rapid.T) {
		certs := rapid.SliceOfN(rapid.SampledFrom(all), 0, 40).Draw(t, "certs")
		s := Evaluate(root, certs)
		again := append(rapid.Permutation(certs).Draw(t, "order"), certs[:len(certs)/2]...)
		if o := Evaluate(root, again); !o.Equal(s) || !slices.Equal(o.Rejected, s.Rejected) || !slices.Equal(o.Members(), s.Members()) || !slices.Equal(o.Gone(), s.Gone()) {
			t.Fatalf("another order gives %+v, not %+v", o, s)
		}
		if o := Evaluate(root, s.Certs()); !o.Equal(s) || len(o.Rejected) != 0 || !slices.Equal(o.Members(), s.Members()) || !slices.Equal(undated(o.Gone()), undated(s.Gone())) {
			t.Fatalf("%+v alone give %+v, not %+v", s.Certs(), o, s)
		}
		want := ruleOf(certs)
		belong := 0
		for n := range byte(10) {
			st := want.standing(device(n))
			if got := standingIn(s, device(n)); got != st {
				t.Fatalf("device %d is %q, want %q", n, got, st)
			}
			if st == "admin" || st == "member" {
				belong++
			}
		}
		if len(s.Members()) != belong || !slices.IsSortedFunc(s.Members(), func(a, b record.DeviceID) int { return bytes.Compare(a[:], b[:]) }) {
			t.Fatalf("%d members, want %d", len(s.Members()), belong)
		}
		rest := slices.DeleteFunc(slices.Clone(certs), func(c Cert) bool {
			return slices.ContainsFunc(s.Rejected, func(r Rejection) bool { return r.Cert == c })
		})
		if o := Evaluate(root, rest); !o.Equal(s) || len(o.Rejected) != 0 {
			t.Fatalf("something of %+v counts", s.Rejected)
		}
	})
}

// What only members and strangers sign makes no difference to anybody else, however much of it there is.
func TestMembersSignNothing(t *testing.T) {
	certs := []Cert{issue(rootKey, 1, AddAdmin, 1), issue(1, 2, AddMember, 1), issue(1, 3, AddMember, 1)}
	want := Evaluate(root, certs)
	for n := range 500 {
		c := Cert{Library: LibraryOf(root), Subject: record.DeviceID{byte(n), byte(n >> 8), 1}, Kind: Kind(n%5 + 1)}
		certs = append(certs, c.Sign(key(2)))
		if k := Kind(n%5 + 1); k != Lapse {
			certs = append(certs, issue(2, 3, k, hlc.Stamp(n)), issue(2, 1, k, hlc.Stamp(n)))
		}
	}
	if s := Evaluate(root, certs); !s.Equal(want) || !slices.Equal(s.Gone(), want.Gone()) {
		t.Errorf("members %v, gone %v", s.Members(), s.Gone())
	}
	for n := range 500 {
		certs = append(certs, issue(2, 2, Lapse, hlc.Stamp(n+2)))
	}
	s := Evaluate(root, certs)
	if gone, ok := s.Removed(device(2)); !ok || gone.Stamp != 501 || len(s.Certs()) != len(want.Certs())+1 {
		t.Errorf("left as %+v, with %d certificates kept", gone, len(s.Certs()))
	}
}

// More devices than a library can have: the first by their stamps stay, whatever the order, and the
// admins before all.
func TestBounded(t *testing.T) {
	var certs []Cert
	subject := func(i int) (d record.DeviceID) { d[0], d[1], d[2] = byte(i), byte(i>>8), 1; return d }
	for i := range MaxMembers + 10 {
		certs = append(certs, Cert{Library: LibraryOf(root), Subject: subject(i), Kind: AddMember, Stamp: hlc.Stamp(1000 - i)}.Sign(key(1)))
	}
	certs = append(certs, issue(rootKey, 1, AddAdmin, 5000))
	s := Evaluate(root, certs)
	slices.Reverse(certs)
	if o := Evaluate(root, certs); !o.Equal(s) || !slices.Equal(o.Rejected, s.Rejected) {
		t.Error("another order gives another set")
	}
	if len(s.Certs()) != MaxMembers || len(s.Members()) != MaxMembers || s.Role(device(1)) != Admin {
		t.Errorf("%d certificates, admin is %v", len(s.Certs()), s.Role(device(1)))
	}
	for i := range MaxMembers + 10 {
		if want := i >= 11; (s.Role(subject(i)) == Member) != want { // the newest stamps have the lowest numbers
			t.Errorf("device %d belongs: %v, want %v", i, !want, want)
		}
	}
	if len(s.Rejected) != 11 || s.Rejected[0].Reason != TooMany {
		t.Errorf("%d rejected", len(s.Rejected))
	}
}

// More devices put out than are remembered: none of them belongs, and those stay that were admins, then
// whom the root put out, then who went first.
func TestRemovalsBounded(t *testing.T) {
	certs := []Cert{issue(rootKey, 1, AddAdmin, 1), issue(rootKey, 2, AddAdmin, 1), issue(rootKey, 2, Revoke, 9000), issue(rootKey, 3, AddMember, 1), issue(rootKey, 3, Revoke, 9000)}
	subject := func(i int) (d record.DeviceID) { d[0], d[1], d[2] = byte(i), byte(i>>8), 1; return d }
	for i := range MaxGone + 10 {
		c := Cert{Library: LibraryOf(root), Subject: subject(i), Kind: AddMember, Stamp: hlc.Stamp(i)}.Sign(key(1))
		certs = append(certs, c)
		c.Kind, c.Stamp = Revoke, hlc.Stamp(i+1)
		certs = append(certs, c.Sign(key(1)))
	}
	s := Evaluate(root, certs)
	slices.Reverse(certs)
	if o := Evaluate(root, certs); !o.Equal(s) || !slices.Equal(o.Rejected, s.Rejected) {
		t.Error("another order gives another set")
	}
	if len(s.Members()) != 1 || len(s.Gone()) != MaxGone || len(s.Certs()) != MaxGone+1 || len(s.Rejected) != 12 || s.Rejected[0].Reason != TooMany {
		t.Errorf("%d members, %d gone, %d certificates, %d rejected", len(s.Members()), len(s.Gone()), len(s.Certs()), len(s.Rejected))
	}
	for i := range MaxGone + 10 {
		if _, out := s.Removed(subject(i)); out != (i < MaxGone-2) {
			t.Errorf("device %d is remembered: %v", i, out)
		}
	}
	for n := byte(2); n <= 3; n++ {
		if _, out := s.Removed(device(n)); !out {
			t.Errorf("device %d is not remembered", n)
		}
	}
}

func TestSet(t *testing.T) {
	a := Evaluate(root, []Cert{issue(rootKey, 1, AddMember, 1), issue(rootKey, 2, Revoke, 1)})
	b := Evaluate(root, []Cert{issue(rootKey, 1, AddAdmin, 1), issue(rootKey, 2, Revoke, 1)})
	if !a.Equal(a) || a.Equal(b) || a.Equal(Set{}) || !(Set{}).Equal(Evaluate(root, nil)) {
		t.Error("sets compare wrongly")
	}
	if _, out := (Set{}).Removed(device(1)); out || (Set{}).Role(device(1)) != 0 || len((Set{}).Members()) != 0 || len((Set{}).Gone()) != 0 {
		t.Error("the zero set has devices")
	}
	if a.Added(device(1)) != 1 || a.Added(device(2)) != 0 {
		t.Errorf("added at %v and %v", a.Added(device(1)), a.Added(device(2)))
	}
	c := Evaluate(root, []Cert{issue(rootKey, 1, AddAdmin, 1), issue(1, 1, Lapse, 2), issue(rootKey, 1, AddMember, 3), issue(rootKey, 2, AddAdmin, 1), issue(2, 2, Lapse, 2), issue(rootKey, 3, AddMember, 1)})
	if !c.RootOnly(device(1)) || !c.RootOnly(device(2)) || c.RootOnly(device(3)) || c.RootOnly(device(4)) {
		t.Error("it is forgotten whom the root once made admin")
	}
	a.Certs()[0].Kind = Forget
	a.Members()[0], a.Gone()[0].Kind = record.DeviceID{}, Forget
	if gone, _ := a.Removed(device(2)); a.Role(device(1)) != Member || gone.Kind != Revoke {
		t.Error("a caller can change the set")
	}
	if got := fmt.Sprint(Role(0), Member, Admin, Role(7), AddMember, AddAdmin, Revoke, Lapse, Forget, Kind(6)); got != "stranger member admin role 7 add member add admin revoke lapse forget kind 6" {
		t.Error(got)
	}
}

func TestRegister(t *testing.T) {
	c := goldenCerts()[1]
	r := c.Register()
	r.Author, r.Stamp = device(5), 7
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	if want := "cert/" + hex.EncodeToString(public(key(1))); r.Field != want || r.Entity != record.Member(device(2)) {
		t.Errorf("register of %+v is %s of %v", c, r.Field, r.Entity)
	}
	decoded, err := record.Decode(r.Key(), r.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := FromRegister(decoded.(record.Register)); err != nil || got != c {
		t.Errorf("came back as %+v, %v", got, err)
	}
	for kind, prefix := range map[Kind]string{AddAdmin: "cert/", Revoke: "revoke/", Lapse: "lapse/", Forget: "forget/"} {
		k := issue(1, 2, kind, 9)
		if got := k.Register().Field; got != prefix+hex.EncodeToString(public(key(1))) {
			t.Errorf("%v is kept in field %s", kind, got)
		}
		if back, err := FromRegister(k.Register()); err != nil || back != k {
			t.Errorf("%v came back as %+v, %v", kind, back, err)
		}
	}
	for name, change := range map[string]func(*record.Register){
		"another subject": func(r *record.Register) { r.Entity = record.Member(device(3)) },
		"another entity":  func(r *record.Register) { r.Entity = record.Device(device(2)) },
		"another issuer":  func(r *record.Register) { r.Field = issue(3, 2, AddMember, 1).field() },
		"another field":   func(r *record.Register) { r.Field = record.FieldName },
		"another kind":    func(r *record.Register) { r.Field = strings.Replace(r.Field, "cert/", "revoke/", 1) },
		"no value":        func(r *record.Register) { r.Value = nil },
		"rubbish":         func(r *record.Register) { r.Value = []byte("rubbish") },
	} {
		bad := r
		change(&bad)
		if got, err := FromRegister(bad); !errors.Is(err, ErrInvalid) || got != (Cert{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
