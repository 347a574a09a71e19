package feed

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"peerdex/record"
)

func testKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

// goldenHead is the head of testdata/head.golden, not yet signed.
func goldenHead() Head {
	h := Head{
		Seq: 0x0102030405060708, GC: 0x1112131415, Count: 0x2122232425,
		Boot: 0x3132333435363738, Onto: 0x4142434445464748, Stamp: 0x5152535455565758,
	}
	copy(h.Feed.Device[:], testKey().Public().(ed25519.PublicKey))
	for i := range h.Library {
		h.Library[i], h.Root[i] = byte(0x60+i), byte(0x90+i)
	}
	for i := range h.Feed.Location {
		h.Feed.Location[i] = byte(0xC0 + i)
	}
	return h
}

func TestHeadGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/head.golden")
	if err != nil {
		t.Fatal(err)
	}
	h := goldenHead().Sign(testKey())
	if got := hex.EncodeToString(h.Append(nil)); got != strings.TrimSpace(string(text)) {
		t.Errorf("head is encoded as\n%s, want\n%s", got, text)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != HeadSize {
		t.Errorf("head of %d bytes, HeadSize %d", len(b), HeadSize)
	}
	got, err := ParseHead(b)
	if err != nil || got != h {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if err := got.Verify(); err != nil {
		t.Errorf("verify: %v", err)
	}
	if got.Owner() != got.Feed.Device {
		t.Errorf("owner %v", got.Owner())
	}
}

// Every bit is covered by the signature.
func TestHeadTamper(t *testing.T) {
	whole := goldenHead().Sign(testKey()).Append(nil)
	for i := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			h, err := ParseHead(b)
			if err != nil {
				t.Fatalf("byte %d: %v", i, err)
			}
			if err := h.Verify(); !errors.Is(err, ErrSignature) {
				t.Errorf("bit %d of byte %d changed: verify gives %v", bit, i, err)
			}
		}
	}
	for n := range whole {
		if h, err := ParseHead(whole[:n]); err == nil {
			t.Errorf("%d bytes were read as %+v", n, h)
		}
	}
	if h, err := ParseHead(append(whole, 0)); err == nil {
		t.Errorf("a byte too many was read as %+v", h)
	}
}

// A signature does not make a head that no live set can have.
func TestHeadImpossible(t *testing.T) {
	for name, change := range map[string]func(*Head){
		"signed genesis":          func(h *Head) { h.Seq, h.GC, h.Count, h.Root = 0, 0, 0, Hash{} },
		"seq 0 with a root":       func(h *Head) { h.Seq, h.GC, h.Count = 0, 0, 0 },
		"gc beyond seq":           func(h *Head) { h.GC = h.Seq + 1 },
		"more entries than seqs":  func(h *Head) { h.Count = h.Seq + 1 },
		"a root over nothing":     func(h *Head) { h.Count = 0 },
		"entries below no root":   func(h *Head) { h.Root = Hash{} },
		"another device's key":    func(h *Head) { h.Feed.Device[0]++ },
		"without a device's key":  func(h *Head) { h.Feed.Device = record.DeviceID{} },
		"unsigned genesis":        func(h *Head) { *h = Head{Library: h.Library, Feed: h.Feed} },
		"zero head of no library": func(h *Head) { *h = Head{} },
	} {
		h := goldenHead()
		change(&h)
		sig := h.Sign(testKey())
		if name == "unsigned genesis" || name == "zero head of no library" {
			sig = h
		}
		if err := sig.Verify(); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := goldenHead()
	empty.Count, empty.Root = 0, Hash{}
	if err := empty.Sign(testKey()).Verify(); err != nil {
		t.Errorf("everything collected: %v", err)
	}
	bare := goldenHead() // a signature over the same bytes without the domain is none
	copy(bare.Sig[:], ed25519.Sign(testKey(), bare.unsigned(nil)))
	if err := bare.Verify(); !errors.Is(err, ErrSignature) {
		t.Errorf("signed without the domain: %v", err)
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add(goldenHead().Sign(testKey()).Append(nil))
	f.Add([]byte{})
	f.Add(make([]byte, HeadSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHead(b)
		if (err == nil) != (len(b) == HeadSize) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		if err == nil && !bytes.Equal(h.Append(nil), b) {
			t.Errorf("%x came back as %x", b, h.Append(nil))
		}
		h.Verify()
	})
}

// drawHead draws from so few values that equal and forked heads are common. It is possible: gc and
// count are at most seq, and genesis is genesis.
func drawHead(t *rapid.T) Head {
	h := Head{Seq: rapid.Uint64Range(0, 6).Draw(t, "seq")}
	if h.Seq == 0 {
		return h
	}
	h.GC = rapid.Uint64Range(0, h.Seq).Draw(t, "gc")
	h.Root = Hash{byte(rapid.IntRange(0, 2).Draw(t, "root"))}
	if h.Root != (Hash{}) {
		h.Count = 1
	}
	h.Boot, h.Onto = rapid.Uint64Range(1, 3).Draw(t, "boot"), rapid.Uint64Range(0, 3).Draw(t, "onto")
	return h
}

// Rule 4.
func TestHeadOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawHead(t), drawHead(t), drawHead(t)
		if sgn(a.Compare(b)) != -sgn(b.Compare(a)) {
			t.Fatalf("%+v and %+v: %d and %d", a, b, a.Compare(b), b.Compare(a))
		}
		if a.Same(b) != (a.Seq == b.Seq && a.Root == b.Root && a.GC == b.GC) {
			t.Fatalf("%+v and %+v are the same: %v", a, b, a.Same(b))
		}
		if a.Forks(b) != (a.Seq == b.Seq && a.Root != b.Root) || a.IsGenesis() != (a.Seq == 0) {
			t.Fatalf("%+v and %+v fork: %v", a, b, a.Forks(b))
		}
		if a.Compare(b) > 0 && b.Compare(c) > 0 && a.Compare(c) <= 0 {
			t.Fatalf("%+v > %+v > %+v", a, b, c)
		}
		if a.Seq > b.Seq && a.Compare(b) <= 0 {
			t.Fatalf("a higher seq comes first: %+v, %+v", a, b)
		}
	})
}

func sgn(n int) int { return min(1, max(-1, n)) }
