package query

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
)

// What is sent means the same on arrival, whatever the other's zone, and every cut of it is refused.
func TestEncode(t *testing.T) {
	for text, golden := range map[string]string{
		"":                 "00",
		"Beach":            "0004054245414348",
		"beach !(a | b)":   "00010204054245414348030202040141040142",
		"ext:jpg,png":      "000602042e4a5047042e504e47",
		"size:1kB..2kB":    "0007e807d00f",
		"path:2019/":       "000505323031392f",
		"on:nas,attic !x":  "01026f6e02036e61730561747469630102090003040158",
		"date:<1971":       "000880000000000000000070068cfcea5fff",
		"hash:9f2c tag:to": "020468617368010439663263037461670102746f010209000901",
	} {
		q := parse(t, text)
		b := q.Append(nil)
		if got := hex.EncodeToString(b); got != golden {
			t.Errorf("%q: %s, want %s", text, got, golden)
		}
		back, err := Decode(b)
		if err != nil || !reflect.DeepEqual(back, q) {
			t.Errorf("%q came back as %+v, %v", text, back, err)
		}
		for n := range b {
			if cut, err := Decode(b[:n]); err == nil && reflect.DeepEqual(cut, q) {
				t.Errorf("%q cut to %d bytes reads as the whole", text, n)
			}
		}
		if _, err := Decode(append(bytes.Clone(b), 0)); !errors.Is(err, ErrEncoding) {
			t.Errorf("%q with a byte too many: %v", text, err)
		}
	}
}

// Depth and length are bounded, and a term must be one of those named.
func TestDecodeLimits(t *testing.T) {
	deep := append(append([]byte{0}, bytes.Repeat([]byte{nodeNot}, maxNested)...), nodeName, 0)
	if _, err := Decode(deep); err != nil {
		t.Errorf("%d negations: %v", maxNested, err)
	}
	for name, b := range map[string][]byte{
		"a negation too deep":    append(append([]byte{0}, bytes.Repeat([]byte{nodeNot}, maxNested+1)...), nodeName, 0),
		"too long":               append([]byte{0, nodeName}, make([]byte, MaxEncoded)...),
		"term 0 of none":         {0, nodeTerm, 0},
		"a count of 2^40":        {0, nodeAll, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20},
		"more values than bytes": {1, 1, 'x', 9},
		"unknown node":           {0, 99},
		"nothing":                {},
	} {
		if q, err := Decode(b); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %+v, %v", name, q, err)
		}
	}
}

// Where a device is left out, nothing of it need be asked.
func TestPossible(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "beach": true, "on:here": true, "on:there": false, "beach on:there": false, "beach | on:there": true,
		"!on:there": true, "!on:here": false, "!(on:here beach)": true, "!(on:here | beach)": false, "tag:x": true, "!tag:x on:here": true,
		"(on:there | tag:x) on:here": true, "on:here on:there": false,
	} {
		q := parse(t, text)
		got := q.Possible(func(i int) (in, known bool) {
			term := q.Terms()[i]
			return term.Values[0] == "here", term.Key == "on"
		})
		if got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range []string{"", "beach", "a b | !c (d e)", "ext:jpg,png size:>1MB", "date:2024 on:nas tag:x,y hash:9f2c path:a/"} {
		q, err := Parse(text, noon)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(q.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := Decode(b)
		if err != nil {
			return
		}
		again := q.Append(nil)
		back, err := Decode(again)
		if err != nil || !bytes.Equal(back.Append(nil), again) {
			t.Fatalf("%x was read and came back as %+v, %v", b, back, err)
		}
		q.Match(file{path: "/a/beach.jpg", size: 3, modified: noon, in: []int{0}})
	})
}
