package catalog

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

var someFacts = []facts{{}, {ino: 1}, {ino: 1<<64 - 1}, {ino: 300, foreign: true}, {ino: 300, dev: 1<<64 - 1, foreign: true}}

func TestFactsGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/facts-v1.golden")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(golden))
	if len(lines) != len(someFacts) {
		t.Fatalf("%d lines for %d facts", len(lines), len(someFacts))
	}
	for i, f := range someFacts {
		b := f.append(nil)
		if hex.EncodeToString(b) != lines[i] {
			t.Errorf("%+v is %x, golden %s", f, b, lines[i])
		}
		got, err := decodeFacts(b)
		if err != nil || got != f {
			t.Errorf("%+v came back as %+v, %v", f, got, err)
		}
		for cut := 1; cut < len(b); cut++ {
			if _, err := decodeFacts(b[:cut]); err == nil {
				t.Errorf("%x is taken for facts", b[:cut])
			}
		}
		if _, err := decodeFacts(append(b, 0)); err == nil {
			t.Errorf("%x and a byte more are taken for facts", b)
		}
	}
	if f, err := decodeFacts(nil); err != nil || f != (facts{}) {
		t.Errorf("nothing gives %+v, %v", f, err)
	}
	if f, err := decodeFacts([]byte{localVersion + 1, 7, 7}); err != nil || f != (facts{}) {
		t.Errorf("another version gives %+v, %v", f, err)
	}
}

func FuzzFacts(f *testing.F) {
	for _, x := range someFacts {
		f.Add(x.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := decodeFacts(b)
		if err == nil && len(b) > 0 && b[0] == localVersion && string(x.append(nil)) != string(b) {
			t.Fatalf("%x decodes to %+v, which is %x", b, x, x.append(nil))
		}
	})
}
