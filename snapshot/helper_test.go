package snapshot

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/record"
	"peerdex/store"
)

var library = feed.LibraryID{1}

// party is a device with a store.
type party struct {
	*store.Store
	id  record.DeviceID
	key ed25519.PrivateKey
	now func() (hlc.Stamp, error)
}

func newParty(tb testing.TB, n byte) *party {
	tb.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	p := &party{key: ed25519.NewKeyFromSeed(seed)}
	p.id = record.DeviceID(p.key.Public().(ed25519.PublicKey))
	var tick atomic.Uint64
	p.now = func() (hlc.Stamp, error) { return hlc.At(time.Now()) + hlc.Stamp(tick.Add(1)), nil }
	var err error
	p.Store, err = store.Open(tb.TempDir(), store.Config{
		Device: p.id, Library: library, Boot: uint64(n),
		Clock: p.now,
		Sign:  func(h feed.Head) feed.Head { return h.Sign(p.key) },
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Error(err)
		}
	})
	return p
}

func (p *party) location(n byte) feed.ID {
	return feed.ID{Device: p.id, Location: record.LocationID{n}}
}

// fill commits files with random ids.
func (p *party) fill(tb testing.TB, id feed.ID, from, n int) {
	tb.Helper()
	r := rand.New(rand.NewPCG(uint64(from), uint64(n)))
	puts := make([]store.Put, n)
	var parent record.EntryID
	for i := range puts {
		f := record.File{Kind: record.Regular, Parent: parent, Size: r.Uint64N(1 << 20), Name: fmt.Sprint("file ", from+i)}
		binary.BigEndian.PutUint64(f.ID[:], r.Uint64())
		binary.BigEndian.PutUint64(f.ID[8:], uint64(from+i+1))
		if i%20 == 0 {
			f.Kind, f.Size, f.Parent, parent = record.Directory, 0, record.EntryID{}, f.ID
		}
		puts[i] = store.Put{Record: f, New: true, Local: []byte("mine alone")}
	}
	if _, err := p.Commit(id, puts); err != nil {
		tb.Fatal(err)
	}
}

func (p *party) edit(tb testing.TB, e record.Entity, field, value string) {
	tb.Helper()
	if err := p.SetRegisters(record.Register{Entity: e, Field: field, Value: []byte(value)}); err != nil {
		tb.Fatal(err)
	}
}

func (p *party) author() Author {
	return Author{Library: library, Device: p.id, Sign: func(b []byte) []byte { return ed25519.Sign(p.key, b) }}
}

func all(feed.ID) bool { return true }

// export makes a snapshot of all that p holds.
func (p *party) export(tb testing.TB) *File {
	tb.Helper()
	pin, err := p.Pin(all)
	if err != nil {
		tb.Fatal(err)
	}
	defer pin.Close()
	path := filepath.Join(tb.TempDir(), "library.peerdex")
	m, err := Export(context.Background(), path, pin, p.author(), hlc.At(time.Now()))
	if err != nil {
		tb.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := f.Close(); err != nil {
			tb.Error(err)
		}
	})
	if string(f.Manifest.Append(nil)) != string(m.Append(nil)) {
		tb.Fatal("the file holds another manifest than was written")
	}
	return f
}

func (p *party) taker() *Taker {
	return &Taker{Store: p.Store, Library: library, Shape: feed.DefaultShape, Wants: all, Progress: func(Progress) {}}
}

// tampered is a source that does something else with each chunk.
type tampered struct {
	*File
	chunk func(i int) ([]byte, error)
}

func (s tampered) Chunk(i int) ([]byte, error) { return s.chunk(i) }

// same fails unless p is settled on every feed of want exactly as want is, entry for entry.
func (p *party) same(tb testing.TB, want *party) {
	tb.Helper()
	for _, st := range want.States() {
		got, _ := p.State(st.Feed)
		if got.Settled == nil || *got.Settled != *st.Settled || p.Counts(st.Feed) != want.Counts(st.Feed) {
			tb.Errorf("feed %v: %+v, want %+v", st.Feed, got.Settled, st.Settled)
			continue
		}
		if a, b := p.dump(tb, st.Feed), want.dump(tb, st.Feed); a != b {
			tb.Errorf("feed %v holds other entries", st.Feed)
		}
	}
}

func (p *party) dump(tb testing.TB, id feed.ID) string {
	tb.Helper()
	var out strings.Builder
	err := p.Entries(id, func(r store.Row) error {
		fmt.Fprintf(&out, "%d %x %x\n", r.Seq, r.Key, r.Record)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out.String()
}
