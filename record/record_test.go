package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"peerdex/hlc"
)

var (
	testID     = EntryID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	testParent = EntryID{0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90}
)

func testDevice() (d DeviceID) {
	for i := range d {
		d[i] = byte(0xD0 + i%16)
	}
	return d
}

func testLocation() (l LocationID) {
	for i := range l {
		l[i] = byte(0xE0 + i)
	}
	return l
}

// vectors are the records of testdata/records.golden, in its order.
func vectors() []Record {
	d := testDevice()
	return []Record{
		File{ID: testID, Parent: testParent, Kind: Regular, Mode: 0o644, Size: 1234567, ModTime: 1_800_000_000_123_456_789, Name: "photo.jpg"},
		File{ID: testID, Kind: Regular, Name: "a"},
		File{ID: testID, Kind: Regular, Mode: 0o7777, Size: 1 << 62, ModTime: -1, Name: "b"},
		File{ID: testID, Kind: Directory, Mode: 0o755, Name: "Ünïcødé"},
		File{ID: testID, Parent: testParent, Kind: Symlink, Mode: 0o777, ModTime: math.MinInt64, Name: "link", Target: "../\xff\x00/etc/passwd"},
		File{ID: testID, Parent: testParent, Kind: Special, Mode: 0o600, ModTime: math.MaxInt64, Name: "sock"},
		File{ID: testID, Parent: testParent, Kind: Regular, Mode: 0o644, Name: "\x1b[31m<script>\n\r\t\xe2\x80\xae\xff\xfe\"'`$(x)"},
		File{ID: testID, Parent: testParent, Kind: Regular, Mode: 0o644, Name: strings.Repeat("\xff", 255)},
		Tombstone{ID: testID},
		Register{Entity: Device(d), Field: FieldName, Author: d, Stamp: 0x0123456789abcdef, Value: []byte("Büro")},
		Register{Entity: Location(d, testLocation()), Field: FieldExists, Author: d, Stamp: 1, Value: []byte{1}},
		Register{Entity: Member(d), Field: FieldCert + "/" + strings.Repeat("ab", 32), Stamp: math.MaxUint64, Value: make([]byte, 200)},
		Register{Entity: Entity{Kind: 200, ID: "\x07"}, Field: "field of a newer version", Author: d},
		File{ID: testID, Kind: Regular, Mode: 0o644, Size: 3, Name: "hashed", Hash: Hash{1, 31: 2}},
		Register{Entity: Tag(TagID(testID)), Field: FieldName, Author: d, Stamp: 9, Value: []byte("Urlaub")},
		Register{Entity: Entry(d, testLocation(), testID), Field: TagField(TagID(testParent)), Author: d, Stamp: 9, Prev: 8, Value: []byte{1}},
		Register{Entity: Content(Hash{1, 31: 2}), Field: FieldNote, Author: d, Stamp: math.MaxUint64, Prev: 1 << 40, Value: []byte("the good one")},
	}
}

type golden struct {
	name     string
	key, rec []byte
}

func readGolden(t testing.TB) (out []golden) {
	t.Helper()
	text, err := os.ReadFile("testdata/records.golden")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		key, err1 := hex.DecodeString(f[1])
		rec, err2 := hex.DecodeString(f[2])
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		out = append(out, golden{f[0], key, rec})
	}
	return out
}

func TestGolden(t *testing.T) {
	rows, records := readGolden(t), vectors()
	if len(rows) != len(records) {
		t.Fatalf("%d rows for %d records", len(rows), len(records))
	}
	for i, g := range rows {
		r := records[i]
		if !bytes.Equal(r.Key(), g.key) || !bytes.Equal(r.Append(nil), g.rec) {
			t.Errorf("%s is encoded as\n%x %x, want\n%x %x", g.name, r.Key(), r.Append(nil), g.key, g.rec)
		}
		if got, err := Decode(g.key, g.rec); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s is decoded as %#v, %v", g.name, got, err)
		}
		if b := r.Append([]byte("before")); !bytes.Equal(b, append([]byte("before"), g.rec...)) {
			t.Errorf("%s is not appended to what was there: %x", g.name, b)
		}
		if _, ok := r.(Tombstone); ok != IsTombstone(g.rec) {
			t.Errorf("%s: IsTombstone is %v", g.name, !ok)
		}
		if _, ok := r.(Register); ok != IsRegister(g.rec) {
			t.Errorf("%s: IsRegister is %v", g.name, !ok)
		}
	}
	if IsTombstone(nil) || IsRegister(nil) || IsTombstone([]byte{modelTombstone, 0}) {
		t.Error("what is no record has a model")
	}
}

// optional is how many bytes at the end of a golden record may be left out: it is another record then.
var optional = map[string]int{"file-hashed": len(Hash{}), "tagging": hlc.Size, "note": hlc.Size}

func TestTruncation(t *testing.T) {
	for _, g := range readGolden(t) {
		for n := range g.rec {
			r, err := Decode(g.key, g.rec[:n])
			if last, ok := optional[g.name]; ok && n == len(g.rec)-last && err == nil && bytes.Equal(r.Append(nil), g.rec[:n]) {
				continue
			}
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s cut to %d bytes is %#v, %v", g.name, n, r, err)
			}
		}
		if r, err := Decode(g.key, append(bytes.Clone(g.rec), 0)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s with a byte more is %#v, %v", g.name, r, err)
		}
		for n := range g.key { // a shorter key is a shorter field, or none
			r, err := Decode(g.key[:n], g.rec)
			if err == nil && !bytes.Equal(r.Key(), g.key[:n]) || err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNotOwner) {
				t.Errorf("%s with its key cut to %d bytes is %#v, %v", g.name, n, r, err)
			}
		}
	}
}

// Every byte of every record means something: changed, it gives another record or none.
func TestTamper(t *testing.T) {
	for _, g := range readGolden(t) {
		was, err := Decode(g.key, g.rec)
		if err != nil {
			t.Fatal(err)
		}
		for i := range g.rec {
			b := bytes.Clone(g.rec)
			b[i] ^= 1
			if r, err := Decode(g.key, b); err == nil && reflect.DeepEqual(r, was) {
				t.Errorf("%s does not depend on byte %d", g.name, i)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, g := range readGolden(f) {
		f.Add(g.key, g.rec)
	}
	f.Add([]byte{3, 255}, []byte{modelRegister})
	f.Add(testID[:], append([]byte{modelFile, 1}, bytes.Repeat([]byte{0xFF}, 40)...))
	f.Fuzz(func(t *testing.T, key, rec []byte) {
		r, err := Decode(key, rec)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnknownModel) && !errors.Is(err, ErrNotOwner) {
				t.Errorf("unexpected error %v", err)
			}
			return
		}
		if !bytes.Equal(r.Key(), key) || !bytes.Equal(r.Append(nil), rec) {
			t.Errorf("%x %x is not canonical: %#v", key, rec, r)
		}
		if err := r.Validate(); err != nil {
			t.Errorf("decoded an invalid record: %v", err)
		}
		if len(rec) > MaxRecord || len(key) > MaxKey {
			t.Errorf("decoded a record of %d bytes with a key of %d", len(rec), len(key))
		}
	})
}

func TestLimits(t *testing.T) {
	d := testDevice()
	file := func(change func(*File)) Record {
		f := File{ID: testID, Kind: Regular, Name: "a"}
		change(&f)
		return f
	}
	reg := func(change func(*Register)) Record {
		r := Register{Entity: Entity{9, "id"}, Field: "f", Author: d}
		change(&r)
		return r
	}
	for _, c := range []struct {
		name string
		rec  Record
		want error
	}{
		{"longest name", file(func(f *File) { f.Name = strings.Repeat("n", MaxName) }), nil},
		{"name too long", file(func(f *File) { f.Name = strings.Repeat("n", MaxName+1) }), ErrInvalid},
		{"no name", file(func(f *File) { f.Name = "" }), ErrInvalid},
		{"dot", file(func(f *File) { f.Name = "." }), ErrInvalid},
		{"dot dot", file(func(f *File) { f.Name = ".." }), ErrInvalid},
		{"three dots", file(func(f *File) { f.Name = "..." }), nil},
		{"slash", file(func(f *File) { f.Name = "../x" }), ErrInvalid},
		{"NUL", file(func(f *File) { f.Name = "a\x00b" }), ErrInvalid},
		{"backslash", file(func(f *File) { f.Name = `a\b` }), nil},
		{"no id", file(func(f *File) { f.ID = EntryID{} }), ErrInvalid},
		{"own parent", file(func(f *File) { f.Parent = f.ID }), ErrInvalid},
		{"no kind", file(func(f *File) { f.Kind = 0 }), ErrInvalid},
		{"kind beyond", file(func(f *File) { f.Kind = Special + 1 }), ErrInvalid},
		{"mode", file(func(f *File) { f.Mode = 0o7777 }), nil},
		{"mode beyond", file(func(f *File) { f.Mode = 0o10000 }), ErrInvalid},
		{"largest", file(func(f *File) { f.Size = 1 << 62 }), nil},
		{"size beyond", file(func(f *File) { f.Size = 1<<62 + 1 }), ErrInvalid},
		{"size 2^63", file(func(f *File) { f.Size = 1 << 63 }), ErrInvalid},
		{"directory with a size", file(func(f *File) { f.Kind, f.Size = Directory, 1 }), ErrInvalid},
		{"directory with a target", file(func(f *File) { f.Kind, f.Target = Directory, "x" }), ErrInvalid},
		{"longest target", file(func(f *File) { f.Kind, f.Target = Symlink, strings.Repeat("t", MaxTarget) }), nil},
		{"target too long", file(func(f *File) { f.Kind, f.Target = Symlink, strings.Repeat("t", MaxTarget+1) }), ErrInvalid},
		{"time before 1970", file(func(f *File) { f.ModTime = math.MinInt64 }), nil},
		{"hash", file(func(f *File) { f.Hash = Hash{1} }), nil},
		{"directory with a hash", file(func(f *File) { f.Kind, f.Hash = Directory, Hash{1} }), ErrInvalid},
		{"tombstone", Tombstone{ID: testID}, nil},
		{"tombstone of nothing", Tombstone{}, ErrInvalid},
		{"longest entity", reg(func(r *Register) { r.Entity.ID = strings.Repeat("e", MaxEntity) }), nil},
		{"entity too long", reg(func(r *Register) { r.Entity.ID = strings.Repeat("e", MaxEntity+1) }), ErrInvalid},
		{"entity far too long", reg(func(r *Register) { r.Entity.ID = strings.Repeat("e", 300) }), ErrInvalid},
		{"no entity", reg(func(r *Register) { r.Entity.ID = "" }), ErrInvalid},
		{"longest field", reg(func(r *Register) { r.Field = strings.Repeat("f", MaxField) }), nil},
		{"field too long", reg(func(r *Register) { r.Field = strings.Repeat("f", MaxField+1) }), ErrInvalid},
		{"no field", reg(func(r *Register) { r.Field = "" }), ErrInvalid},
		{"longest value", reg(func(r *Register) { r.Value = make([]byte, MaxValue) }), nil},
		{"value too long", reg(func(r *Register) { r.Value = make([]byte, MaxValue+1) }), ErrInvalid},
		{"longest key", reg(func(r *Register) {
			r.Entity.ID, r.Field = strings.Repeat("e", MaxEntity), strings.Repeat("f", MaxField)
		}), nil},
		{"replaces an older", reg(func(r *Register) { r.Stamp, r.Prev = 2, 1 }), nil},
		{"replaces itself", reg(func(r *Register) { r.Stamp, r.Prev = 2, 2 }), ErrInvalid},
		{"tag id too short", reg(func(r *Register) { r.Entity = Entity{TagEntity, "tag"} }), ErrInvalid},
		{"entry id too short", reg(func(r *Register) { r.Entity = Entity{EntryEntity, string(d[:])} }), ErrInvalid},
		{"entry by anybody", reg(func(r *Register) { r.Entity = Entry(DeviceID{1}, testLocation(), testID) }), nil},
		{"content id too short", reg(func(r *Register) { r.Entity = Entity{ContentEntity, "hash"} }), ErrInvalid},
		{"device by itself", reg(func(r *Register) { r.Entity = Device(d) }), nil},
		{"device by another", reg(func(r *Register) { r.Entity, r.Author = Device(d), DeviceID{1} }), ErrNotOwner},
		{"location by its owner", reg(func(r *Register) { r.Entity = Location(d, testLocation()) }), nil},
		{"location by another", reg(func(r *Register) { r.Entity, r.Author = Location(d, testLocation()), DeviceID{1} }), ErrNotOwner},
		{"member by another", reg(func(r *Register) { r.Entity, r.Author = Member(d), DeviceID{1} }), nil},
		{"device id too short", reg(func(r *Register) { r.Entity = Entity{DeviceEntity, string(d[:31])} }), ErrInvalid},
		{"device id too long", reg(func(r *Register) { r.Entity = Entity{DeviceEntity, string(d[:]) + "x"} }), ErrInvalid},
		{"location id too short", reg(func(r *Register) { r.Entity = Entity{LocationEntity, string(d[:])} }), ErrInvalid},
		{"member id too short", reg(func(r *Register) { r.Entity = Entity{MemberEntity, "m"} }), ErrInvalid},
	} {
		if err := c.rec.Validate(); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: validated with %v, want %v", c.name, err, c.want)
		}
		r, err := Decode(c.rec.Key(), c.rec.Append(nil)) // nobody believes an author who did not check
		switch {
		case c.want == nil && (err != nil || !bytes.Equal(r.Append(nil), c.rec.Append(nil))):
			t.Errorf("%s: decoded as %#v, %v", c.name, r, err)
		case c.want != nil && err == nil:
			t.Errorf("%s: decoded as %#v", c.name, r)
		}
		if c.want == nil && (len(c.rec.Key()) > MaxKey || len(c.rec.Append(nil)) > MaxRecord) {
			t.Errorf("%s: key of %d and record of %d bytes", c.name, len(c.rec.Key()), len(c.rec.Append(nil)))
		}
	}
	if _, err := Decode(make([]byte, MaxKey+1), []byte{77}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a key that is too long: %v", err)
	}
	if _, err := Decode(testID[:], append([]byte{77}, make([]byte, MaxRecord)...)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a record that is too long: %v", err)
	}
	if _, err := Decode(testID[:], []byte{77, 1, 2}); !errors.Is(err, ErrUnknownModel) {
		t.Errorf("a model of a newer version: %v", err)
	}
}

// A length that promises gigabytes is refused before anything of that size is made.
func TestNoAllocationForPromises(t *testing.T) {
	rec := append([]byte{modelFile, byte(Regular)}, make([]byte, 16+3)...)
	rec = append(rec, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01)
	if n := testing.AllocsPerRun(10, func() { Decode(testID[:], rec) }); n > 10 {
		t.Errorf("%v allocations", n)
	}
	if _, err := Decode(testID[:], rec); !errors.Is(err, ErrInvalid) {
		t.Errorf("decoded with %v", err)
	}
}

// Numbers have one encoding: a uvarint with a needless byte is refused.
func TestNotCanonical(t *testing.T) {
	f := File{ID: testID, Kind: Regular, Mode: 5, Name: "a"}
	rec := f.Append(nil)
	at := 2 + len(f.Parent)
	long := append(append(bytes.Clone(rec[:at]), 0x85, 0x00), rec[at+1:]...)
	if r, err := Decode(testID[:], long); !errors.Is(err, ErrInvalid) {
		t.Errorf("a long uvarint was read as %#v, %v", r, err)
	}
	mode := append(append(bytes.Clone(rec[:at]), 0x85, 0x80, 0x80, 0x80, 0x80, 0x20), rec[at+1:]...) // 5 + 2^40: must not wrap
	if r, err := Decode(testID[:], mode); !errors.Is(err, ErrInvalid) {
		t.Errorf("a mode beyond 32 bits was read as %#v, %v", r, err)
	}
}

// Names are bytes: whatever a file system hands out comes back unchanged.
func TestNamesSurvive(t *testing.T) {
	names := []string{"\xff\xfe", "\x01\x1b[2J", "\n", " ", "a\u202Eb", "CON", strings.Repeat("é", 127) + "x", "\xed\xa0\x80", `C:\x`}
	for b := 1; b < 256; b++ {
		if b != '/' {
			names = append(names, "x"+string([]byte{byte(b)}))
		}
	}
	for _, name := range names {
		f := File{ID: testID, Kind: Symlink, Name: name, Target: name}
		r, err := Decode(f.Key(), f.Append(nil))
		if err != nil || r != Record(f) {
			t.Errorf("name %q came back as %#v, %v", name, r, err)
		}
	}
}

func TestEntities(t *testing.T) {
	d, l := testDevice(), testLocation()
	if got, ok := Location(d, l).LocationID(); !ok || got != l {
		t.Errorf("location is %v, %v", got, ok)
	}
	if _, ok := Device(d).LocationID(); ok {
		t.Error("a device is a location")
	}
	for _, c := range []struct {
		e     Entity
		owned bool
	}{{Device(d), true}, {Location(d, l), true}, {Member(d), false}, {Entity{77, string(d[:])}, false}, {Entity{DeviceEntity, "short"}, false}} {
		if got, ok := c.e.Owner(); ok != c.owned || ok && got != d {
			t.Errorf("owner of kind %d is %v, %v", c.e.Kind, got, ok)
		}
	}
	// no entity's keys are among those of another
	for _, a := range []Entity{Device(d), Member(d), Location(d, l), {9, "a"}, {9, "ab"}} {
		for _, b := range []Entity{Device(d), Member(d), Location(d, l), {9, "a"}, {9, "ab"}} {
			key := Register{Entity: b, Field: "bname"}.Key()
			if bytes.HasPrefix(key, a.KeyPrefix()) != (a == b) {
				t.Errorf("key %x and prefix %x", key, a.KeyPrefix())
			}
		}
	}
}

func TestIDs(t *testing.T) {
	d, l := testDevice(), testLocation()
	if got, want := d.Short(), "1HJ6-3M8Y"; got != want {
		t.Errorf("short id %s, want %s", got, want)
	}
	e := EntryID(l)
	if got, err := ParseEntryID(e.String()); err != nil || got != e {
		t.Errorf("%v came back as %v, %v", e, got, err)
	}
	for _, text := range []string{"", "e0", e.String() + "00", strings.Repeat("x", 32), e.String()[1:]} {
		if _, err := ParseEntryID(text); err == nil {
			t.Errorf("%q was read as an entry id", text)
		}
	}
	if (DeviceID{}).Short() == d.Short() || l.IsZero() || !(LocationID{}).IsZero() {
		t.Error("zero ids")
	}
}

func TestModels(t *testing.T) {
	d := testDevice()
	for want, r := range map[string]Record{
		"entry": File{}, "device": Register{Entity: Device(d)}, "location": Register{Entity: Location(d, testLocation())},
		"member": Register{Entity: Member(d)}, "other": Register{Entity: Entity{Kind: 99}},
		"tag": Register{Entity: Tag(TagID{1})}, "note": Register{Entity: Content(Hash{1}), Field: FieldNote},
		"tagging": Register{Entity: Entry(d, testLocation(), testID), Field: TagField(TagID{1})},
	} {
		if got := r.Model(); got != want {
			t.Errorf("%#v is a %s, want %s", r, got, want)
		}
	}
	if got := fmt.Sprint(Regular, Directory, Symlink, Special, Kind(9)); got != "file dir link special kind 9" {
		t.Errorf("kinds are %s", got)
	}
	if hlc.Size != 8 {
		t.Error("a register's stamp is 8 bytes")
	}
}
