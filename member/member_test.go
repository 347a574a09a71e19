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

func issue(by, subject byte, role Role, stamp hlc.Stamp) Cert {
	return Cert{Library: LibraryOf(root), Subject: device(subject), Role: role, Stamp: stamp}.Sign(key(by))
}

func goldenCerts() []Cert {
	return []Cert{issue(rootKey, 1, Admin, 0x0102030405060708), issue(1, 2, Member, 1)}
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
		s := Evaluate(root, append(goldenCerts(), c))
		if s.Role(device(1)) != Admin || s.Role(device(2)) != Member {
			t.Errorf("%x changes who belongs", b)
		}
	})
}

func TestEvaluate(t *testing.T) {
	admin, member := issue(rootKey, 1, Admin, 5), issue(rootKey, 2, Member, 6)
	other := Cert{Library: LibraryOf(public(key(201))), Subject: device(3), Role: Admin}.Sign(key(201))
	foreign := Cert{Library: LibraryOf(public(key(201))), Subject: device(3), Role: Member}.Sign(key(rootKey))
	forged := issue(9, 3, Member, 1)
	forged.Issuer = [32]byte(root)
	none, newer := issue(rootKey, 3, 0, 1), issue(rootKey, 3, 3, 1)
	for _, c := range []struct {
		name     string
		certs    []Cert
		members  string // device numbers and roles
		kept     int
		rejected []Reason
	}{
		{"nobody", nil, "", 0, nil},
		{"by the root", []Cert{admin, member}, "1 admin, 2 member", 2, nil},
		{"by an admin", []Cert{admin, issue(1, 3, Member, 7)}, "1 admin, 3 member", 2, nil},
		{"by an admin that is not one here", []Cert{issue(1, 3, Member, 7)}, "", 0, []Reason{UnknownIssuer}},
		{"by a member", []Cert{member, issue(2, 3, Member, 7)}, "2 member", 1, []Reason{UnknownIssuer}},
		{"an admin by an admin", []Cert{admin, issue(1, 3, Admin, 7)}, "1 admin", 1, []Reason{NotByRoot}},
		{"by an admin's admin", []Cert{admin, issue(1, 3, Admin, 7), issue(3, 4, Member, 8)}, "1 admin", 1, []Reason{NotByRoot, UnknownIssuer}},
		{"by itself", []Cert{issue(3, 3, Admin, 1), issue(3, 3, Member, 1)}, "", 0, []Reason{UnknownIssuer, UnknownIssuer}},
		{"an admin about itself", []Cert{admin, issue(1, 1, Member, 9)}, "1 admin", 1, nil},
		{"of another library", []Cert{member, other, foreign}, "2 member", 1, []Reason{WrongLibrary, WrongLibrary}},
		{"forged", []Cert{member, forged}, "2 member", 1, []Reason{BadSignature}},
		{"of no role and of a newer one", []Cert{none, newer}, "", 0, []Reason{UnknownRole, UnknownRole}},
		{"a forged admin's members", []Cert{forged, issue(3, 4, Member, 1)}, "", 0, []Reason{BadSignature, UnknownIssuer}},
		{"raised to admin", []Cert{issue(rootKey, 1, Member, 1), admin}, "1 admin", 1, nil},
		{"by the root and by an admin", []Cert{admin, member, issue(1, 2, Member, 1)}, "1 admin, 2 member", 2, nil},
		{"twice", []Cert{member, member, admin, member}, "1 admin, 2 member", 2, nil},
	} {
		s := Evaluate(root, c.certs)
		var members []string
		for n := range byte(10) {
			if r := s.Role(device(n)); r != 0 {
				members = append(members, fmt.Sprintf("%d %v", n, r))
			}
		}
		if got := strings.Join(members, ", "); got != c.members {
			t.Errorf("%s: members %s, want %s", c.name, got, c.members)
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
	both := Evaluate(root, []Cert{admin, member, issue(1, 2, Member, 1)}).Certs()
	if !slices.Contains(both, member) {
		t.Errorf("the root's word is not the one that is kept: %+v", both)
	}
}

// pool is every certificate that five keys, the root and another library's root can make of each other,
// some forged, with few stamps.
func pool() (out []Cert) {
	for _, by := range []byte{rootKey, 201, 1, 2, 3} {
		for subject := byte(1); subject <= 4; subject++ {
			for _, role := range []Role{0, Member, Admin, 3} {
				c := issue(by, subject, role, hlc.Stamp(subject)%3)
				out = append(out, c)
				if subject == 2 {
					c.Sig[3] ^= 1
					out = append(out, c)
				}
				if subject == 3 {
					c.Library = feed.LibraryID{1}
					out = append(out, c.Sign(key(by)))
				}
			}
		}
	}
	return out
}

// Any order and any repetition give the same set; its certificates alone give it again; nobody is in it
// whom the rule, said once more, does not let in.
func TestEvaluateLaws(t *testing.T) {
	all := pool()
	rapid.Check(t, func(t *rapid.T) {
		certs := rapid.SliceOfN(rapid.SampledFrom(all), 0, 25).Draw(t, "certs")
		s := Evaluate(root, certs)
		again := append(rapid.Permutation(certs).Draw(t, "order"), certs[:len(certs)/2]...)
		if o := Evaluate(root, again); !o.Equal(s) || !slices.Equal(o.Rejected, s.Rejected) || !slices.Equal(o.Members(), s.Members()) {
			t.Fatalf("another order gives %+v, not %+v", o, s)
		}
		if o := Evaluate(root, s.Certs()); !o.Equal(s) || len(o.Rejected) != 0 || len(s.Certs()) != len(s.Members()) {
			t.Fatalf("%+v alone give %+v", s.Certs(), o)
		}

		admin := map[record.DeviceID]bool{}
		want := map[record.DeviceID]Role{}
		sound := func(c Cert) bool { return c.Library == LibraryOf(root) && c.Verify() == nil }
		for _, c := range certs {
			if sound(c) && c.Issuer == [32]byte(root) {
				want[c.Subject] = max(want[c.Subject], c.Role)
				admin[c.Subject] = admin[c.Subject] || c.Role == Admin
			}
		}
		for _, c := range certs {
			if sound(c) && admin[c.Issuer] && c.Role == Member {
				want[c.Subject] = max(want[c.Subject], Member)
			}
		}
		if len(want) != len(s.Members()) || !slices.IsSortedFunc(s.Members(), func(a, b record.DeviceID) int { return bytes.Compare(a[:], b[:]) }) {
			t.Fatalf("members %v, want %v", s.Members(), want)
		}
		for d, r := range want {
			if s.Role(d) != r {
				t.Fatalf("%s is %v, want %v", d.Short(), s.Role(d), r)
			}
		}
		for _, r := range s.Rejected {
			if sound(r.Cert) && (r.Cert.Issuer == [32]byte(root) || admin[r.Cert.Issuer] && r.Cert.Role == Member) {
				t.Fatalf("rejected as %s: %+v", r.Reason, r.Cert)
			}
		}
	})
}

// More devices than a library can have: the first by their stamps stay, whatever the order, and the
// admins before all.
func TestBounded(t *testing.T) {
	var certs []Cert
	subject := func(i int) (d record.DeviceID) { d[0], d[1], d[2] = byte(i), byte(i>>8), 1; return d }
	for i := range MaxCerts + 10 {
		certs = append(certs, Cert{Library: LibraryOf(root), Subject: subject(i), Role: Member, Stamp: hlc.Stamp(1000 - i)}.Sign(key(1)))
	}
	certs = append(certs, issue(rootKey, 1, Admin, 5000))
	s := Evaluate(root, certs)
	slices.Reverse(certs)
	if o := Evaluate(root, certs); !o.Equal(s) || !slices.Equal(o.Rejected, s.Rejected) {
		t.Error("another order gives another set")
	}
	if len(s.Certs()) != MaxCerts || len(s.Members()) != MaxCerts || s.Role(device(1)) != Admin {
		t.Errorf("%d certificates, admin is %v", len(s.Certs()), s.Role(device(1)))
	}
	for i := range MaxCerts + 10 {
		if want := i >= 11; (s.Role(subject(i)) == Member) != want { // the newest stamps have the lowest numbers
			t.Errorf("device %d belongs: %v, want %v", i, !want, want)
		}
	}
	if len(s.Rejected) != 11 || s.Rejected[0].Reason != TooMany {
		t.Errorf("%d rejected", len(s.Rejected))
	}
}

func TestSet(t *testing.T) {
	a := Evaluate(root, []Cert{issue(rootKey, 1, Member, 1)})
	b := Evaluate(root, []Cert{issue(rootKey, 1, Admin, 1)})
	if !a.Equal(a) || a.Equal(b) || a.Equal(Set{}) || !(Set{}).Equal(Evaluate(root, nil)) {
		t.Error("sets compare wrongly")
	}
	if (Set{}).Role(device(1)) != 0 || len((Set{}).Members()) != 0 {
		t.Error("the zero set has members")
	}
	a.Certs()[0].Role = Admin
	a.Members()[0] = record.DeviceID{}
	if a.Role(device(1)) != Member {
		t.Error("a caller can change the set")
	}
	if got := fmt.Sprint(Role(0), Member, Admin, Role(7)); got != "stranger member admin role 7" {
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
	for name, change := range map[string]func(*record.Register){
		"another subject": func(r *record.Register) { r.Entity = record.Member(device(3)) },
		"another entity":  func(r *record.Register) { r.Entity = record.Device(device(2)) },
		"another issuer":  func(r *record.Register) { r.Field = field([32]byte(device(3))) },
		"another field":   func(r *record.Register) { r.Field = record.FieldName },
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
