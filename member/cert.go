// Package member says who belongs to a library: certificates, their canonical bytes and signatures, and
// the pure rule that makes a member set of whatever certificates a device happens to hold.
package member

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/record"
)

// Role is what a device may do in a library. The zero Role is that of a stranger.
type Role uint8

// Roles are part of the encoding. Append only.
const (
	Member Role = 1 // reads everything, owns feeds, writes shared edits
	Admin  Role = 2 // a member that may certify members; only the root key makes one
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

// Cert says that its issuer takes a device into a library.
type Cert struct {
	Library feed.LibraryID
	Subject record.DeviceID
	Role    Role
	Issuer  [32]byte  // Ed25519 public key: the library's root, or the device id of an admin
	Stamp   hlc.Stamp // when it was signed
	Sig     [ed25519.SignatureSize]byte
}

// Size is the length of an encoded certificate in bytes.
const Size = len(feed.LibraryID{}) + len(record.DeviceID{}) + 1 + 32 + hlc.Size + ed25519.SignatureSize

const certDomain = "peerdex certificate 1\x00" // keeps a certificate's signature from meaning anything else

// ErrInvalid is returned, wrapped with the reason, for bytes or a register that hold no certificate, and
// for a certificate of a role unknown here or one its issuer did not sign.
var ErrInvalid = errors.New("invalid certificate")

// LibraryOf returns the library whose root key has the public key root: its SHA-256.
func LibraryOf(root ed25519.PublicKey) feed.LibraryID { return sha256.Sum256(root) }

func (c Cert) unsigned(b []byte) []byte {
	b = append(b, c.Library[:]...)
	b = append(b, c.Subject[:]...)
	b = append(b, byte(c.Role))
	b = append(b, c.Issuer[:]...)
	return c.Stamp.Append(b)
}

// Append adds the certificate's Size bytes to b.
func (c Cert) Append(b []byte) []byte { return append(c.unsigned(b), c.Sig[:]...) }

// Parse reads what Append wrote; it does not verify. It returns ErrInvalid for any other length.
func Parse(b []byte) (c Cert, err error) {
	if len(b) != Size {
		return c, fmt.Errorf("%w: %d bytes, want %d", ErrInvalid, len(b), Size)
	}
	next := func(n int) []byte { out := b[:n]; b = b[n:]; return out }
	copy(c.Library[:], next(len(c.Library)))
	copy(c.Subject[:], next(len(c.Subject)))
	c.Role = Role(next(1)[0])
	copy(c.Issuer[:], next(len(c.Issuer)))
	c.Stamp = hlc.Stamp(binary.BigEndian.Uint64(next(hlc.Size)))
	copy(c.Sig[:], next(len(c.Sig)))
	return c, nil
}

// Sign returns c issued and signed by key: the library's root key, or an admin's device key.
func (c Cert) Sign(key ed25519.PrivateKey) Cert {
	copy(c.Issuer[:], key.Public().(ed25519.PublicKey))
	copy(c.Sig[:], ed25519.Sign(key, c.unsigned([]byte(certDomain))))
	return c
}

// Verify returns ErrInvalid unless the issuer signed c and its role is known. Whether that issuer had the
// right to is for Evaluate.
func (c Cert) Verify() error {
	if c.Role != Member && c.Role != Admin {
		return fmt.Errorf("%w: %v", ErrInvalid, c.Role)
	}
	if !ed25519.Verify(c.Issuer[:], c.unsigned([]byte(certDomain)), c.Sig[:]) {
		return fmt.Errorf("%w: not signed by its issuer", ErrInvalid)
	}
	return nil
}

func (c Cert) compare(o Cert) int { return bytes.Compare(c.Append(nil), o.Append(nil)) }

func field(issuer [32]byte) string { return record.FieldCert + "/" + hex.EncodeToString(issuer[:]) }

// Register returns the register that carries c in a device feed; author and stamp are for the store to
// fill in.
func (c Cert) Register() record.Register {
	return record.Register{Entity: record.Member(c.Subject), Field: field(c.Issuer), Value: c.Append(nil)}
}

// FromRegister returns the certificate that r carries; it does not verify. It returns ErrInvalid if r
// carries none, or one of another subject or issuer than its key says.
//
// Every member may write such a register, so the winner of the merge may be rubbish that somebody wrote
// over a certificate: Evaluate should see the registers of all device feeds, not the winners alone.
func FromRegister(r record.Register) (Cert, error) {
	c, err := Parse(r.Value)
	if err != nil {
		return Cert{}, err
	}
	if r.Entity != record.Member(c.Subject) || r.Field != field(c.Issuer) {
		return Cert{}, fmt.Errorf("%w: of another subject or issuer than its register", ErrInvalid)
	}
	return c, nil
}
