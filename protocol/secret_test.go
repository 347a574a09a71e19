package protocol

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestSecretText(t *testing.T) {
	for _, tc := range []struct {
		secret Secret
		text   string
	}{
		{Secret{}, "0000-0000-0000-0000-0000-0000-0"},
		{Secret{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, "zzzz-zzzz-zzzz-zzzz-zzzz-zzzz-z"},
		{Secret{0: 0x08, 1: 0x42}, "1110-0000-0000-0000-0000-0000-0"},
	} {
		got := tc.secret.Text()
		if !strings.HasPrefix(got, tc.text) || len(got) != 34 {
			t.Errorf("%x is %q, want %q and the check", tc.secret[:], got, tc.text)
		}
	}
	for range 200 {
		s := NewSecret()
		text := s.Text()
		sloppy := strings.NewReplacer("0", "O", "1", "l", "-", " ").Replace(strings.ToUpper(text))
		for _, form := range []string{text, strings.ToUpper(text), strings.ReplaceAll(text, "-", ""), sloppy, " " + text + "\n", strings.ReplaceAll(text, "1", "i")} {
			if got, err := ParseSecret(form); err != nil || got != s {
				t.Fatalf("%q: got %x, %v, want %x", form, got[:], err, s[:])
			}
		}
	}
}

// One wrong character, or two exchanged, is told from a wrong invite nearly always: 1 in 4,096 passes.
func TestMistypedSecret(t *testing.T) {
	tried, passed := 0, 0
	for range 20 {
		s := NewSecret()
		text := strings.ReplaceAll(s.Text(), "-", "")
		for i := range text {
			for _, c := range crockford {
				if byte(c) == text[i] {
					continue
				}
				tried++
				if _, err := ParseSecret(text[:i] + string(c) + text[i+1:]); err == nil {
					passed++
				} else if !errors.Is(err, ErrSecret) || strings.Contains(err.Error(), text) {
					t.Fatal(err)
				}
			}
		}
	}
	if passed*500 > tried {
		t.Errorf("%d of %d slips pass", passed, tried)
	}
	good := NewSecret().Text()
	for _, bad := range []string{"", "x", good[:33], good + "0", "u" + good[1:], "é" + good[1:], good[:10] + "\x00" + good[11:]} {
		if _, err := ParseSecret(bad); !errors.Is(err, ErrSecret) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSecretIsHidden(t *testing.T) {
	s := NewSecret()
	for _, format := range []string{"%v", "%s", "%+v"} {
		if out := fmt.Sprintf(format, s); strings.Contains(out, s.Text()) || strings.Contains(out, fmt.Sprint(s[0], s[1], s[2])) {
			t.Errorf("%s shows it: %s", format, out)
		}
	}
	id := s.Invite()
	if id == (NewSecret()).Invite() || string(id[:]) == string(s[:]) {
		t.Error("invite ids do not follow the secret")
	}
}

// The MAC changes with everything it covers.
func TestPairMACCoversAll(t *testing.T) {
	secret := NewSecret()
	base := handshake{}
	seen := map[MAC]string{base.mac(secret, roleJoiner): "base"}
	for name, m := range map[string]MAC{
		"role":    base.mac(secret, roleInviter),
		"secret":  base.mac(NewSecret(), roleJoiner),
		"invite":  handshake{invite: InviteID{1}}.mac(secret, roleJoiner),
		"joiner":  handshake{joiner: [32]byte{1}}.mac(secret, roleJoiner),
		"inviter": handshake{inviter: [32]byte{1}}.mac(secret, roleJoiner),
		"nonce 1": handshake{joinerNonce: Nonce{1}}.mac(secret, roleJoiner),
		"nonce 2": handshake{inviteNonce: Nonce{1}}.mac(secret, roleJoiner),
	} {
		if other, ok := seen[m]; ok {
			t.Errorf("%s and %s have one MAC", name, other)
		}
		seen[m] = name
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add(NewSecret().Text())
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSecret(text)
		if err != nil {
			return
		}
		if again, err := ParseSecret(s.Text()); err != nil || again != s {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
