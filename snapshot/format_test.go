package snapshot

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"peerdex/feed"
	"peerdex/record"
)

func testKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

// goldenEntries and goldenManifest are what lies in testdata.
func goldenEntries() []feed.Entry {
	return []feed.Entry{
		{Key: []byte("0123456789abcdef"), Seq: 1, Record: []byte{2}},
		{Key: []byte("x"), Seq: 200, Record: bytes.Repeat([]byte("some record "), 30)},
		{Key: bytes.Repeat([]byte{9}, record.MaxKey), Seq: 1 << 40, Record: []byte{0xFF, 1}},
	}
}

func goldenRaw() (raw []byte) {
	last := uint64(0)
	for _, e := range goldenEntries() {
		raw = appendEntry(raw, last, e)
		last = e.Seq
	}
	return raw
}

func goldenManifest() Manifest {
	m := Manifest{Library: feed.LibraryID{1, 2, 3}, Stamp: 0x0102030405060708}
	copy(m.Donor[:], testKey().Public().(ed25519.PublicKey))
	for i := range byte(2) {
		h := feed.Head{Library: m.Library, Seq: 1 << 40, Count: uint64(3 * i), Root: feed.Hash{5}}
		h.Feed.Device, h.Feed.Location = m.Donor, record.LocationID{i}
		f := Feed{Head: h.Sign(testKey())}
		if i > 0 {
			f.Chunks = []Chunk{{Entries: 2, Raw: 410, Size: 90, Sum: Sum{1}}, {Entries: 1, Raw: 170, Size: 170, Sum: Sum{2}}}
		}
		m.Feeds = append(m.Feeds, f)
	}
	return m.sign(func(b []byte) []byte { return ed25519.Sign(testKey(), b) })
}

func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestManifestGolden(t *testing.T) {
	want := golden(t, "manifest.golden")
	if got := goldenManifest().Append(nil); !bytes.Equal(got, want) {
		t.Errorf("manifest is encoded as\n%x, want\n%x", got, want)
	}
	m, err := Parse(want)
	if err != nil || !reflect.DeepEqual(m, goldenManifestParsed()) {
		t.Errorf("decoded %+v, %v", m, err)
	}
	entries, chunks, raw, size := m.Totals()
	if entries != 3 || chunks != 2 || raw != 580 || size != 260 {
		t.Errorf("%d entries, %d chunks, %d bytes, %d compressed", entries, chunks, raw, size)
	}
	for n := range want {
		if _, err := Parse(want[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
		b := bytes.Clone(want)
		b[n] ^= 1
		if _, err := Parse(b); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d changed: %v", n, err)
		}
	}
	newer := bytes.Clone(want)
	newer[0] = Schema + 1
	if _, err := Parse(newer); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer schema gives %v", err)
	}
	if _, err := Parse(append(want, 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte behind the end gives %v", err)
	}
}

func goldenManifestParsed() Manifest {
	m := goldenManifest()
	m.Feeds[0].Chunks = []Chunk{}
	return m
}

// A donor that lies about its chunks is caught before one of them is asked for.
func TestManifestThatLies(t *testing.T) {
	for what, change := range map[string]func(*Manifest){
		"fewer entries than the head says": func(m *Manifest) { m.Feeds[1].Chunks = m.Feeds[1].Chunks[:1] },
		"a chunk of nothing":               func(m *Manifest) { m.Feeds[1].Chunks[0].Entries, m.Feeds[1].Chunks[1].Entries = 0, 3 },
		"a chunk too large":                func(m *Manifest) { m.Feeds[1].Chunks[0].Raw = MaxChunk + 1 },
		"a chunk that would burst":         func(m *Manifest) { m.Feeds[1].Chunks[0].Raw, m.Feeds[1].Chunks[0].Size = MaxChunk, MaxChunk/maxRatio-1 },
		"a chunk that grew":                func(m *Manifest) { m.Feeds[1].Chunks[0].Size = 411 },
		"entries without room":             func(m *Manifest) { m.Feeds[1].Chunks[0].Raw, m.Feeds[1].Chunks[0].Size = 9, 9 },
		"a feed twice":                     func(m *Manifest) { m.Feeds[0] = m.Feeds[1] },
		"feeds out of order":               func(m *Manifest) { m.Feeds[0], m.Feeds[1] = m.Feeds[1], m.Feeds[0] },
		"too many feeds":                   func(m *Manifest) { m.Feeds = make([]Feed, MaxFeeds+1) },
	} {
		m := goldenManifest()
		change(&m)
		m = m.sign(func(b []byte) []byte { return ed25519.Sign(testKey(), b) })
		if _, err := Parse(m.Append(nil)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s gives %v", what, err)
		}
	}
	m := goldenManifest()
	m.Donor[0]++
	if _, err := Parse(m.Append(nil)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another donor gives %v", err)
	}
	if _, err := Parse(make([]byte, MaxManifest+1)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a manifest too large gives %v", err)
	}
}

// The entries of a chunk are written as ever, and a chunk compressed by an older version is read as ever.
func TestChunkGolden(t *testing.T) {
	raw := goldenRaw()
	if want := golden(t, "entries.golden"); !bytes.Equal(raw, want) {
		t.Errorf("entries are encoded as\n%x, want\n%x", raw, want)
	}
	now, c := pack(raw, 3)
	if c.Size >= c.Raw {
		t.Errorf("chunk of %d bytes, %d compressed", c.Raw, c.Size)
	}
	old := golden(t, "chunk.golden")
	for what, b := range map[string][]byte{"now": now, "old": old, "as it is": raw} {
		c := Chunk{Entries: 3, Raw: len(raw), Size: len(b), Sum: sha256.Sum256(b)}
		_, got, err := unpack(b, c, nil, nil)
		if err != nil || !reflect.DeepEqual(got, goldenEntries()) {
			t.Errorf("%s: decoded %v, %v", what, got, err)
		}
	}
	for n := range raw {
		b := raw[:n]
		c := Chunk{Entries: 3, Raw: n, Size: n, Sum: sha256.Sum256(b)}
		if _, _, err := unpack(b, c, nil, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

// What does not shrink, and what would shrink beyond belief, stays as it is; either is read again.
func TestPackKeepsToTheRatio(t *testing.T) {
	noise := sha256.Sum256(nil)
	for what, rec := range map[string][]byte{"noise": noise[:], "nothing": make([]byte, record.MaxRecord)} {
		e := feed.Entry{Key: []byte{1}, Seq: 1, Record: rec}
		raw := appendEntry(nil, 0, e)
		b, c := pack(raw, 1)
		if c.Size != c.Raw || !bytes.Equal(b, raw) {
			t.Errorf("%s: %d bytes become %d", what, c.Raw, c.Size)
		}
		if _, got, err := unpack(b, c, nil, nil); err != nil || !reflect.DeepEqual(got, []feed.Entry{e}) {
			t.Errorf("%s: read %v, %v", what, got, err)
		}
	}
}

// A chunk that would become more than was declared is refused before it does.
func TestChunkThatBursts(t *testing.T) {
	bomb := encoder.EncodeAll(make([]byte, 64<<20), nil)
	for _, raw := range []int{len(bomb) + 1, MaxChunk} {
		c := Chunk{Entries: 1, Raw: raw, Size: len(bomb), Sum: sha256.Sum256(bomb)}
		if _, _, err := unpack(bomb, c, nil, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("declared %d: %v", raw, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(goldenManifest().Append(nil))
	f.Add([]byte{})
	f.Add([]byte{Schema + 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err == nil && !bytes.Equal(m.Append(nil), b) {
			t.Errorf("%x is read as %+v", b, m)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
			t.Errorf("%x gives %v", b, err)
		}
	})
}

func FuzzChunk(f *testing.F) {
	packed, _ := pack(goldenRaw(), 3)
	f.Add(goldenRaw(), 3, len(goldenRaw()))
	f.Add(packed, 3, len(goldenRaw()))
	f.Add([]byte{}, 0, 0)
	f.Fuzz(func(t *testing.T, b []byte, entries, raw int) {
		if entries < 0 || raw < 0 || raw > MaxChunk {
			return
		}
		c := Chunk{Entries: entries, Raw: raw, Size: len(b), Sum: sha256.Sum256(b)}
		buf, got, err := unpack(b, c, nil, nil)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%x gives %v", b, err)
			}
			return
		}
		if cap(buf) > MaxChunk {
			t.Errorf("%d bytes were taken", cap(buf))
		}
		last, again := uint64(0), []byte{}
		for _, e := range got {
			again = appendEntry(again, last, e)
			last = e.Seq
		}
		if c.Raw == c.Size && !bytes.Equal(again, b) {
			t.Errorf("%x is read as %v", b, got)
		}
	})
}
