package protocol

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
)

// Secret is the one-time secret of an invite.
type Secret [16]byte

// InviteID names an invite to the device that made it; it says nothing about the secret.
type InviteID [16]byte

// crockford is Crockford's base 32 (crockford.com/base32.html), in lower case.
const crockford = "0123456789abcdefghjkmnpqrstvwxyz"

const (
	secretGroup = 4
	secretChars = 28 // 128 bits of secret, 12 bits of check
)

// ErrSecret is returned, wrapped with the reason, for text that cannot be a secret.
var ErrSecret = errors.New("not an invite secret")

// NewSecret returns a random secret.
func NewSecret() (s Secret) {
	rand.Read(s[:]) // never fails (crypto/rand since Go 1.24)
	return s
}

// IsZero reports whether s is no secret.
func (s Secret) IsZero() bool { return s == Secret{} }

// Invite returns the id of the invite with this secret: the first half of a SHA-256.
func (s Secret) Invite() (id InviteID) {
	sum := sha256.Sum256(append([]byte("peerdex invite 1\x00"), s[:]...))
	copy(id[:], sum[:])
	return id
}

// secretBits returns the 140 bits that are written: the secret, then the first 12 bits of a SHA-256 over
// it, so that a slip of the pen is told from a wrong invite.
func (s Secret) secretBits() (out [18]byte) {
	copy(out[:], s[:])
	sum := sha256.Sum256(append([]byte("peerdex secret check 1\x00"), s[:]...))
	out[16], out[17] = sum[0], sum[1]&0xf0
	return out
}

// Text writes the secret as seven groups of four characters in Crockford's base 32, such as
// "xxxx-xxxx-xxxx-xxxx-xxxx-xxxx-xxxx". Show it only to the person it is for.
func (s Secret) Text() string {
	bits := s.secretBits()
	out := make([]byte, 0, secretChars+secretChars/secretGroup-1)
	for i := range secretChars {
		if i > 0 && i%secretGroup == 0 {
			out = append(out, '-')
		}
		out = append(out, crockford[fiveBits(&bits, i)])
	}
	return string(out)
}

// String hides the secret from logs and %v.
func (s Secret) String() string { return "secret of invite " + fmt.Sprintf("%x", s.Invite())[:8] }

// fiveBits returns the i-th group of five bits.
func fiveBits(b *[18]byte, i int) byte {
	at := 5 * i
	v := uint16(b[at/8]) << 8
	if at/8+1 < len(b) {
		v |= uint16(b[at/8+1])
	}
	return byte(v >> (11 - at%8) & 31)
}

// ParseSecret reads what Text wrote, in either case, with or without '-' and spaces, with 'o' for zero
// and 'i' or 'l' for one. It returns ErrSecret with the reason, never the text itself.
func ParseSecret(text string) (s Secret, err error) {
	var (
		bits [18]byte
		n    int
	)
	for _, c := range strings.ToLower(text) {
		switch c {
		case '-', ' ', '\t', '\n', '\r':
			continue
		case 'o':
			c = '0'
		case 'i', 'l':
			c = '1'
		}
		v := strings.IndexRune(crockford, c)
		if v < 0 {
			return s, fmt.Errorf("%w: character %d is %q", ErrSecret, n+1, c)
		}
		if n == secretChars {
			return s, fmt.Errorf("%w: more than %d characters", ErrSecret, secretChars)
		}
		at := 5 * n
		w := uint16(v) << (11 - at%8)
		bits[at/8] |= byte(w >> 8)
		if at/8+1 < len(bits) {
			bits[at/8+1] |= byte(w)
		}
		n++
	}
	if n != secretChars {
		return s, fmt.Errorf("%w: %d characters, want %d", ErrSecret, n, secretChars)
	}
	copy(s[:], bits[:])
	if s.secretBits() != bits {
		return Secret{}, fmt.Errorf("%w: mistyped, its check does not match", ErrSecret)
	}
	return s, nil
}
