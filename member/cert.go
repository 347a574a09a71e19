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

// Kind is what a certificate says of its subject.
type Kind uint8

// Kinds are part of the encoding. Append only.
const (
	AddMember Kind = 1 // it belongs
	AddAdmin  Kind = 2 // it belongs, and may add members and remove those that are no admins; only the root says so
	Revoke    Kind = 3 // it is out, and its key never returns
	Lapse     Kind = 4 // it has left: signed by itself, undone by a newer add
	Forget    Kind = 5 // as Revoke, and nobody keeps its feeds
)

func (k Kind) String() string {
	switch k {
	case AddMember:
		return "add member"
	case AddAdmin:
		return "add admin"
	case Revoke:
		return "revoke"
	case Lapse:
		return "lapse"
	case Forget:
		return "forget"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Adds reports whether a certificate of this kind takes its subject in.
func (k Kind) Adds() bool { return k == AddMember || k == AddAdmin }

// Removes reports whether a certificate of this kind puts its subject out for good.
func (k Kind) Removes() bool { return k == Revoke || k == Forget }

// Cert says that its issuer takes a device into a library or puts it out, or that a device leaves.
type Cert struct {
	Library feed.LibraryID
	Subject record.DeviceID
	Kind    Kind
	Issuer  [32]byte  // Ed25519 public key: the library's root, the device id of an admin, of a Lapse the subject
	Stamp   hlc.Stamp // when it was signed
	Sig     [ed25519.SignatureSize]byte
}

// Size is the length of an encoded certificate in bytes.
const Size = len(feed.LibraryID{}) + len(record.DeviceID{}) + 1 + 32 + hlc.Size + ed25519.SignatureSize

const certDomain = "peerdex certificate 1\x00" // keeps a certificate's signature from meaning anything else

// ErrInvalid is returned, wrapped with the reason, for bytes or a register that hold no certificate, and
// for a certificate of a kind unknown here or one its issuer did not sign.
var ErrInvalid = errors.New("invalid certificate")

// LibraryOf returns the library whose root key has the public key root: its SHA-256.
func LibraryOf(root ed25519.PublicKey) feed.LibraryID { return sha256.Sum256(root) }

func (c Cert) unsigned(b []byte) []byte {
	b = append(b, c.Library[:]...)
	b = append(b, c.Subject[:]...)
	b = append(b, byte(c.Kind))
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
	c.Kind = Kind(next(1)[0])
	copy(c.Issuer[:], next(len(c.Issuer)))
	c.Stamp = hlc.Stamp(binary.BigEndian.Uint64(next(hlc.Size)))
	copy(c.Sig[:], next(len(c.Sig)))
	return c, nil
}

// Sign returns c issued and signed by key: the library's root key, an admin's device key, or, of a Lapse,
// the subject's own.
func (c Cert) Sign(key ed25519.PrivateKey) Cert {
	copy(c.Issuer[:], key.Public().(ed25519.PublicKey))
	copy(c.Sig[:], ed25519.Sign(key, c.unsigned([]byte(certDomain))))
	return c
}

// Verify returns ErrInvalid unless the issuer signed c and its kind is known. Whether that issuer had the
// right to is for Evaluate.
func (c Cert) Verify() error {
	if !c.Kind.Adds() && !c.Kind.Removes() && c.Kind != Lapse {
		return fmt.Errorf("%w: %v", ErrInvalid, c.Kind)
	}
	if !ed25519.Verify(c.Issuer[:], c.unsigned([]byte(certDomain)), c.Sig[:]) {
		return fmt.Errorf("%w: not signed by its issuer", ErrInvalid)
	}
	return nil
}

func (c Cert) compare(o Cert) int { return bytes.Compare(c.Append(nil), o.Append(nil)) }

// field is the register of the subject that holds c. Each kind has its own, so that no word of an issuer
// takes the place of another: a removal would vanish under a later add.
func (c Cert) field() string {
	prefix := record.FieldCert
	switch c.Kind {
	case Revoke:
		prefix = record.FieldRevoke
	case Lapse:
		prefix = record.FieldLapse
	case Forget:
		prefix = record.FieldForget
	}
	return prefix + "/" + hex.EncodeToString(c.Issuer[:])
}

// Register returns the register that carries c in a device feed; author and stamp are for the store to
// fill in.
func (c Cert) Register() record.Register {
	return record.Register{Entity: record.Member(c.Subject), Field: c.field(), Value: c.Append(nil)}
}

// FromRegister returns the certificate that r carries; it does not verify. It returns ErrInvalid if r
// carries none, or one of another subject, kind or issuer than its key says.
//
// Every member may write such a register, so the winner of the merge may be rubbish that somebody wrote
// over a certificate: Evaluate should see the registers of all device feeds, not the winners alone.
func FromRegister(r record.Register) (Cert, error) {
	c, err := Parse(r.Value)
	if err != nil {
		return Cert{}, err
	}
	if r.Entity != record.Member(c.Subject) || r.Field != c.field() {
		return Cert{}, fmt.Errorf("%w: of another subject, kind or issuer than its register", ErrInvalid)
	}
	return c, nil
}
