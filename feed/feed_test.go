package feed

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"peerdex/record"
)

// goldenEntry is entry i of the golden files.
func goldenEntry(i uint64) Entry {
	key := make([]byte, 16)
	binary.BigEndian.PutUint64(key[8:], i)
	rec := fmt.Appendf(nil, "\x01record %d", i)
	if i%7 == 0 {
		rec = []byte{2}
	}
	return Entry{Key: key, Seq: i, Record: rec}
}

func TestDigestGolden(t *testing.T) {
	if got := goldenEntry(5).Digest(); hex.EncodeToString(got[:]) != "3fd7969f188ac0e07879e3fc088d0f6c" {
		t.Errorf("digest %x", got)
	}
}

// Two entries that differ anywhere have different digests, also where the bytes in a row are the same.
func TestDigestSeparates(t *testing.T) {
	long := Entry{Key: make([]byte, record.MaxKey), Seq: 1, Record: make([]byte, record.MaxRecord)}
	entries := []Entry{
		{Key: []byte("ab"), Seq: 1, Record: []byte("c")},
		{Key: []byte("a"), Seq: 1, Record: []byte("bc")},
		{Key: []byte("ab"), Seq: 2, Record: []byte("c")},
		{Key: []byte("ab"), Seq: 1, Record: []byte("d")},
		{Key: []byte("ab"), Seq: 1},
		{Seq: 1},
		long,
		{Key: long.Key[1:], Seq: 1, Record: long.Record},
	}
	seen := map[Digest]int{}
	for i, e := range entries {
		if j, ok := seen[e.Digest()]; ok {
			t.Errorf("entries %d and %d have one digest", i, j)
		}
		seen[e.Digest()] = i
	}
}

func TestID(t *testing.T) {
	draw := rapid.Custom(func(t *rapid.T) (id ID) {
		id.Device[rapid.IntRange(0, 31).Draw(t, "device byte")] = rapid.Byte().Draw(t, "device")
		id.Location[rapid.IntRange(0, 15).Draw(t, "location byte")] = rapid.Byte().Draw(t, "location")
		return id
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		enc := a.Append([]byte{9})
		if len(enc) != 1+IDSize || ParseID(enc[1:]) != a {
			t.Fatalf("%v came back as %v", a, ParseID(enc[1:]))
		}
		if c := a.Compare(b); (c == 0) != (a == b) || (c < 0) != (bytes.Compare(a.Append(nil), b.Append(nil)) < 0) || (c > 0) != (b.Compare(a) < 0) {
			t.Fatalf("%v and %v compare as %d", a, b, c)
		}
		if a.IsDevice() != a.Location.IsZero() {
			t.Fatalf("%v is a device feed: %v", a, a.IsDevice())
		}
	})
	for n := range IDSize {
		id := ParseID(append(bytes.Repeat([]byte{1}, n), make([]byte, IDSize-n)...))
		if got := id.Append(nil); bytes.Count(got, []byte{1}) != n {
			t.Errorf("%d bytes of an id became %x", n, got)
		}
	}
	d := record.DeviceID{7}
	if got, want := (ID{Device: d}).String(), d.Short(); got != want {
		t.Errorf("device feed is written %q, want %q", got, want)
	}
	if got, want := (ID{Device: d, Location: record.LocationID{0xAB, 1}}).String(), d.Short()+"/ab010000"; got != want {
		t.Errorf("location feed is written %q, want %q", got, want)
	}
}
