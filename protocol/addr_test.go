package protocol

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"peerdex/record"
)

func newKey(t testing.TB) (ed25519.PrivateKey, record.DeviceID) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, record.DeviceID(pub)
}

func TestPeerID(t *testing.T) {
	key, d := newKey(t)
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.IDFromPrivateKey(priv)
	if err != nil || PeerID(d) != want {
		t.Errorf("got %s, want %s, %v", PeerID(d), want, err)
	}
	if back, err := DeviceOf(want); err != nil || back != d {
		t.Errorf("got %s, %v", back, err)
	}
	for _, kind := range []int{crypto.RSA, crypto.Secp256k1, crypto.ECDSA} {
		_, pub, err := crypto.GenerateKeyPair(kind, 2048)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DeviceOf(id); !errors.Is(err, ErrIdentity) {
			t.Errorf("key type %d: %v", kind, err)
		}
	}
	for _, id := range []peer.ID{"", PeerID(d)[:37], PeerID(d) + "x"} {
		if _, err := DeviceOf(id); !errors.Is(err, ErrIdentity) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestJoinLine(t *testing.T) {
	_, d := newKey(t)
	secret := NewSecret()
	for _, addr := range []string{"/ip4/192.168.1.20/udp/4001/quic-v1", "/ip4/10.0.0.1/tcp/1", "/ip6/2001:db8::1/tcp/4001", "/dns4/nas.example.org/tcp/4001"} {
		for _, s := range []Secret{secret, {}} {
			j := Join{Device: d, Addr: multiaddr.StringCast(addr), Secret: s}
			for _, text := range []string{j.String(), "  " + j.String() + "\n"} {
				got, err := ParseJoin(text)
				if err != nil || got.Device != d || !got.Addr.Equal(j.Addr) || got.Secret != s {
					t.Errorf("%q: got %v, %v", text, got, err)
				}
			}
		}
	}
}

func TestBadJoinLine(t *testing.T) {
	_, d := newKey(t)
	id, secret := PeerID(d).String(), NewSecret().Text()
	_, pub, err := crypto.GenerateKeyPair(crypto.RSA, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsa, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	for text, cause := range map[string]string{
		"":                                       "no address",
		"#" + secret:                             "no address",
		"192.168.1.20:4001#" + secret:            "is not a multiaddr",
		"/ip4/300.1.1.1/tcp/1/p2p/" + id:         "is not a multiaddr",
		"/ip4/1.2.3.4/tcp/1":                     "does not end in /p2p/",
		"/p2p/" + id:                             "but not where",
		"/ip4/1.2.3.4/tcp/1/p2p/xyz":             "is not a multiaddr",
		"/ip4/1.2.3.4/tcp/1/p2p/" + rsa.String(): "not an Ed25519 key",
		"/ip4/1.2.3.4/tcp/1/ws/p2p/" + id:        "neither a TCP nor a QUIC address",
		"/ip4/1.2.3.4/udp/1/p2p/" + id:           "neither a TCP nor a QUIC address",
		"/ip4/1.2.3.4/tcp/1/p2p/" + id + "#":     "0 characters",
		"/ip4/1.2.3.4/tcp/1/p2p/" + id + "#k7f3": "4 characters, want 28",
		"/ip4/1.2.3.4/tcp/1/p2p/" + id + "#" + secret[1:] + "0":   "",
		"/ip4/1.2.3.4/tcp/1/p2p/" + id + "\x1b[2J":                "is not a multiaddr",
		"/ip4/1.2.3.4/tcp/1/p2p/" + id + "/p2p-circuit/p2p/" + id: "neither a TCP nor a QUIC address",
	} {
		_, err := ParseJoin(text)
		e, ok := errors.AsType[*AddrError](err)
		if !ok || e.Problem == "" || e.Try == "" || !strings.Contains(e.Cause, cause) {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if strings.Contains(e.Error(), secret) || strings.ContainsAny(e.Error(), "\x1b\n") {
			t.Errorf("%q: the error shows it: %q", text, e)
		}
	}
}

// What is wrong with an address is said once, and control characters in it are quoted.
func TestParseAddr(t *testing.T) {
	for text, want := range map[string]string{
		"foo":   `"foo" is not a multiaddr: must begin with /`,
		"":      `"" is not a multiaddr: empty multiaddr`,
		"/ip4":  `"/ip4" is not a multiaddr: unexpected end of multiaddr`,
		"/\x1b": `"/\x1b" is not a multiaddr: unknown protocol \x1b`,
	} {
		if _, err := ParseAddr(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParseListen(t *testing.T) {
	for _, text := range []string{"/ip4/0.0.0.0/tcp/4001", "/ip6/::/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"} {
		if a, err := ParseListen(text); err != nil || a.String() != text {
			t.Errorf("%q: %v, %v", text, a, err)
		}
	}
	for _, text := range []string{"", "4001", "/ip4/0.0.0.0", "/dns4/x/tcp/1", "/ip4/1.2.3.4/tcp/1/ws", "/unix/tmp", "/ip4/1.2.3.4/tcp/99999"} {
		if _, err := ParseListen(text); err == nil {
			t.Errorf("%q passes", text)
		} else if _, ok := errors.AsType[*AddrError](err); !ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseJoin(f *testing.F) {
	f.Add("/ip4/192.168.1.20/udp/4001/quic-v1/p2p/12D3KooWBmwkafWE2fqfzS96VoTZgpGp6aAsF4N7unBKSgRSxeT3#" + NewSecret().Text())
	f.Fuzz(func(t *testing.T, text string) {
		j, err := ParseJoin(text)
		if err != nil {
			if _, ok := errors.AsType[*AddrError](err); !ok {
				t.Fatal(err)
			}
			return
		}
		if again, err := ParseJoin(j.String()); err != nil || again.String() != j.String() {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
