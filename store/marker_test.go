package store

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"peerdex/feed"
	"peerdex/kv"
	"peerdex/kv/memory"
)

// slate is a Marker in memory.
type slate struct {
	st    MarkerState
	saves int
	fails error
}

func (m *slate) Load() (MarkerState, error) { return m.st, nil }
func (m *slate) Save(st MarkerState) error {
	if m.fails != nil {
		return m.fails
	}
	m.st = MarkerState{Instance: st.Instance, Seqs: maps.Clone(st.Seqs)}
	m.saves++
	return nil
}

// onMemory opens a device's store on an engine in memory.
func onMemory(tb testing.TB, n byte, eng *memory.Engine, m Marker) *device {
	tb.Helper()
	id, key := newKey(n)
	cfg := config(n, key)
	cfg.Marker = m
	s, err := New(eng, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return &device{s, id, key}
}

// The marker follows what is durable, tells an older store and another one, and what is signed next goes
// above it.
func TestMarkerTellsARollback(t *testing.T) {
	m := &slate{}
	eng := memory.New(memory.Config{})
	a := onMemory(t, 1, eng, m)
	id := feed.ID{Device: a.id, Location: location(1)}
	if a.RolledBack() {
		t.Error("a new store is rolled back")
	}
	a.commit(t, id, file(1, "one"))
	if m.saves != 0 {
		t.Error("marked before it was durable")
	}
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	backup := eng.Backup()
	last := a.commit(t, id, file(2, "two"), file(3, "three"))
	if m.st.Seqs[id] != 1 {
		t.Errorf("marked %d before it was durable", m.st.Seqs[id])
	}
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	if m.st.Seqs[id] != last.Seq || m.saves != 2 {
		t.Errorf("marked %d in %d writes", m.st.Seqs[id], m.saves)
	}
	if err := a.Sync(); err != nil || m.saves != 2 {
		t.Errorf("marked again with nothing new: %v, %d", err, m.saves)
	}
	if a = onMemory(t, 1, eng.Crash(0), m); a.RolledBack() {
		t.Error("the same store is rolled back")
	}
	for name, eng := range map[string]*memory.Engine{"restored": memory.Restore(memory.Config{}, backup), "wiped": memory.New(memory.Config{})} {
		was := m.st
		a := onMemory(t, 1, eng, m)
		if !a.RolledBack() {
			t.Errorf("a %s store is not rolled back", name)
		}
		if h := a.commit(t, id, file(9, "nine")); h.Seq <= last.Seq {
			t.Errorf("%s: signed at %d, the marker says %d", name, h.Seq, last.Seq)
		}
		m.st = was
	}
}

// A location that was removed leaves the marker too: at the next start its feed is not missed, and a device
// that added and removed hundreds of locations does not run out of room.
func TestMarkerForgetsDroppedFeeds(t *testing.T) {
	m := &slate{}
	eng := memory.New(memory.Config{})
	a := onMemory(t, 1, eng, m)
	keep, drop := feed.ID{Device: a.id, Location: location(1)}, feed.ID{Device: a.id, Location: location(2)}
	a.commit(t, keep, file(1, "one"))
	a.commit(t, drop, file(1, "one"))
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := a.Drop(drop); err != nil {
		t.Fatal(err)
	}
	if _, marked := m.st.Seqs[drop]; !marked {
		t.Error("forgotten before that was durable")
	}
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	if len(m.st.Seqs) != 1 || m.st.Seqs[keep] != 1 {
		t.Errorf("the marker holds %v", m.st.Seqs)
	}
	a = onMemory(t, 1, eng.Crash(0), m)
	if a.RolledBack() {
		t.Error("rolled back for a feed that was dropped")
	}
	if _, known := a.State(drop); known {
		t.Error("the dropped feed is known")
	}

	// A feed known from the marker alone can be given up as well.
	m.st.Seqs[drop] = 7
	if a = onMemory(t, 1, memory.New(memory.Config{}), m); !a.RolledBack() {
		t.Error("not rolled back")
	}
	if err := a.Drop(drop); !errors.Is(err, ErrUnknownFeed) {
		t.Errorf("dropping it gives %v", err)
	}
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, marked := m.st.Seqs[drop]; marked || m.st.Seqs[keep] != 1 {
		t.Errorf("the marker holds %v", m.st.Seqs)
	}
}

// A marker that cannot be written fails the Sync, and the next Sync tries again.
func TestMarkerThatFails(t *testing.T) {
	m := &slate{fails: errors.New("no room")}
	a := onMemory(t, 1, memory.New(memory.Config{}), m)
	id := feed.ID{Device: a.id, Location: location(1)}
	wake, cancel := a.Watch()
	defer cancel()
	a.commit(t, id, file(1, "one"))
	if err := a.Sync(); !errors.Is(err, m.fails) {
		t.Fatalf("sync gives %v", err)
	}
	select {
	case <-wake:
		t.Error("told of before it was marked")
	default:
	}
	m.fails = nil
	if err := a.Sync(); err != nil || m.st.Seqs[id] != 1 {
		t.Fatalf("%v, marked %v", err, m.st.Seqs)
	}
	<-wake
}

// The file gives back the newer whole slot, whatever a cut left of the other.
func TestMarkerFileSurvivesATornSlot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "marker")
	open := func() *MarkerFile {
		t.Helper()
		m, err := OpenMarker(path)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	state := func(seq uint64) MarkerState {
		return MarkerState{Instance: "x", Seqs: map[feed.ID]uint64{{Location: location(1)}: seq, {Location: location(2)}: 7}}
	}
	equal := func(a, b MarkerState) bool { return a.Instance == b.Instance && maps.Equal(a.Seqs, b.Seqs) }
	m := open()
	if st, err := m.Load(); err != nil || st.Instance != "" || len(st.Seqs) != 0 {
		t.Fatalf("a new marker holds %+v, %v", st, err)
	}
	for seq := uint64(1); seq <= 2; seq++ {
		if err := m.Save(state(seq)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The second Save wrote the first slot. However much of it arrived, the marker is at 2 or still at 1.
	size := len(encodeMarker(2, state(2)))
	for cut := 0; cut <= size; cut++ {
		torn := bytes.Clone(whole)
		for i := cut; i < size; i++ {
			torn[i] ^= 0x55
		}
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		m := open()
		got, err := m.Load()
		want := state(1)
		if cut == size {
			want = state(2)
		}
		if err != nil || !equal(got, want) {
			t.Fatalf("cut at %d of %d: %+v, %v", cut, size, got, err)
		}
		if err := m.Save(state(3)); err != nil { // into the torn one, never the whole one
			t.Fatal(err)
		}
		m.Close()
		m = open()
		if got, err := m.Load(); err != nil || !equal(got, state(3)) {
			t.Fatalf("saved after a cut at %d: %+v, %v", cut, got, err)
		}
		m.Close()
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xFF}, 2*markerSlot), 0o600); err != nil {
		t.Fatal(err)
	}
	m = open()
	defer m.Close()
	if st, err := m.Load(); err != nil || st.Instance != "" {
		t.Fatalf("both slots broken: %+v, %v", st, err)
	}
	for n := 0; ; n++ {
		st := state(1)
		for i := range n * 100 {
			id := feed.ID{Location: location(3)}
			id.Device[0], id.Device[1] = byte(i), byte(i>>8)
			st.Seqs[id] = 1
		}
		if err := m.Save(st); err != nil {
			if n < 5 {
				t.Errorf("no room for %d feeds: %v", n*100, err)
			}
			break
		}
	}
}

func FuzzMarker(f *testing.F) {
	st := MarkerState{Instance: "x", Seqs: map[feed.ID]uint64{{Location: location(1)}: 5}}
	f.Add(encodeMarker(3, st))
	f.Fuzz(func(t *testing.T, b []byte) {
		turn, st, ok := decodeMarker(b)
		if !ok {
			return
		}
		turn2, again, ok := decodeMarker(encodeMarker(turn, st))
		if !ok || turn2 != turn || again.Instance != st.Instance || !maps.Equal(again.Seqs, st.Seqs) {
			t.Fatalf("%+v became %+v", st, again)
		}
	})
}

// keysOf counts what the engine holds, by family.
func keysOf(tb rapid.TB, s *Store) map[byte]int {
	tb.Helper()
	out := map[byte]int{}
	err := s.View(func(r kv.Reader) error {
		for f := byte('a'); f <= 'z'; f++ {
			if err := r.ScanKeys([]byte{f}, nil, func([]byte) error { out[f]++; return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}
