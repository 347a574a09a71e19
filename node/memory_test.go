package node

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"peerdex/backfill"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/metrics"
	"peerdex/protocol"
	"peerdex/snapshot"
)

// reserved is what the resource manager counts of a use.
func (r *running) reserved(use protocol.Use) (bytes int64) {
	r.tb.Helper()
	err := r.host.Network().ResourceManager().ViewService(string(use), func(s network.ServiceScope) error {
		bytes = s.Stat().Memory
		return nil
	})
	if err != nil {
		r.tb.Fatal(err)
	}
	return bytes
}

func (r *running) memory(use protocol.Use) metrics.Memory {
	return r.metrics.Snapshot(time.Now()).Performance.Memory[string(use)]
}

// fillUp takes all memory of a use.
func (r *running) fillUp(use protocol.Use) (release func()) {
	r.tb.Helper()
	release, err := r.reserve(use, int(use.Cap()))
	if err != nil {
		r.tb.Fatal(err)
	}
	return release
}

// fillUpRest takes what memory of a use is left.
func (r *running) fillUpRest(use protocol.Use) (release func()) {
	r.tb.Helper()
	release, err := r.reserve(use, int(use.Cap()-r.reserved(use)))
	if err != nil {
		r.tb.Fatal(err)
	}
	return release
}

// wentWithout returns the uses that events say there was no memory left for.
func (r *running) wentWithout() (uses []string) {
	for _, e := range r.logged(eventlog.MemoryRefused{}.Type()) {
		var d eventlog.MemoryRefused
		if err := json.Unmarshal(e.Details, &d); err != nil {
			r.tb.Fatal(err)
		}
		uses = append(uses, d.Use)
	}
	slices.Sort(uses)
	return slices.Compact(uses)
}

// What is under way is reserved with the resource manager, each under its name and to the byte, and none of it
// stays reserved.
func TestMemoryIsGivenBack(t *testing.T) {
	t.Parallel()
	const files = defaultBulk + 100
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	b := start(t, filepath.Join(t.TempDir(), "b"), "b")
	b.joins(a)
	if _, err := b.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	loc := a.index(many(t, files))
	await(t, "word of all files", b.toldOf(a, loc, files))
	if _, err := b.Resume(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	await(t, "the snapshot", func() bool { return len(b.names(a.self, loc)) == files && inStep(a, b)() })
	if got := b.memory(protocol.UseSnapshot); got.Most != snapshot.TakeMemory || got.Refused != 0 {
		t.Errorf("to take a snapshot %+v was reserved, want %d", got, snapshot.TakeMemory)
	}
	if got := a.memory(protocol.UseSnapshot); got.Most != snapshot.MakeMemory || got.Refused != 0 {
		t.Errorf("to make one %+v was reserved, want %d", got, snapshot.MakeMemory)
	}
	if got := a.memory(protocol.UseServe).Most; got < min(backfill.ServeMemory, snapshot.ServeMemory) {
		t.Errorf("to serve %d bytes were reserved", got)
	}
	for _, r := range []*running{a, b} {
		for _, use := range []protocol.Use{protocol.UseApply, protocol.UseServe, protocol.UseSnapshot} {
			await(t, fmt.Sprintf("%s gives back what was reserved to %s", r.name(), use), func() bool {
				return r.reserved(use) == 0 && r.memory(use).Bytes == 0
			})
		}
	}
}

// Where a use has no memory left, nothing of it begins, people are told, and it comes another way or later.
func TestNoMemory(t *testing.T) {
	t.Parallel()
	const files = defaultBulk + 100
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	c.joins(a)
	b := start(t, filepath.Join(t.TempDir(), "b"), "b")
	b.joins(a)
	await(t, "b knows c", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		p := b.peers[c.self]
		return p != nil && p.session != nil
	})
	if _, err := b.Pause(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	folder := many(t, files)
	loc := a.index(folder)
	id := locationFeed(a.self, loc)
	await(t, "c has it all", func() bool { return len(c.names(a.self, loc)) == files && inStep(a, c)() })
	await(t, "word of all files from both", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return settledAt(b.peers[a.self], id) == files && settledAt(b.peers[c.self], id) == files
	})

	freeA, freeB := a.fillUp(protocol.UseServe), b.fillUp(protocol.UseSnapshot)
	path := filepath.Join(t.TempDir(), "library")
	if _, err := a.ExportSnapshot(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	_, err := b.ImportSnapshot(t.Context(), path, func(Progress) {})
	wantProblem(t, "import", err, CodeConflict)
	_, err = b.ExportSnapshot(t.Context(), path+"2")
	wantProblem(t, "export", err, CodeConflict)
	if _, err := b.Resume(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	await(t, "pages from the donor that has memory", func() bool { return len(b.names(a.self, loc)) == files })
	if uses := b.wentWithout(); !slices.Equal(uses, []string{"snapshot"}) || b.memory(protocol.UseSnapshot).Refused < 2 {
		t.Errorf("b went without %v, %+v", uses, b.memory(protocol.UseSnapshot))
	}
	for _, d := range b.metrics.Snapshot(time.Now()).Devices {
		if d.ID == c.self.Short() && d.Errors.Total != 0 {
			t.Errorf("c is blamed: %+v", d.Errors)
		}
	}
	freeB()

	// Only a has what comes now, and no memory to serve or to push it until later.
	c.stop()
	touch(t, folder, "late")
	await(t, "a says that it has none", func() bool { return slices.Equal(a.wentWithout(), []string{"serve"}) })
	if st, _ := b.store.State(id); st.Settled == nil || st.Settled.Count != files {
		t.Errorf("b is at %+v", st.Settled)
	}
	freeA()
	await(t, "the rest", inStep(a, b))

	a.blame(b.self, fmt.Errorf("receive: %w", &protocol.MemoryError{Use: protocol.UseFrame, Bytes: 1 << 20}))
	await(t, "a frame without memory is told of", func() bool { return slices.Contains(a.wentWithout(), "frame") })
	if a.memory(protocol.UseFrame).Refused != 1 {
		t.Errorf("counted %+v", a.memory(protocol.UseFrame))
	}
}

// settledAt is how many entries a peer says it is settled with.
func settledAt(p *peer, id feed.ID) uint64 {
	if p == nil || p.heads[id].Settled == nil {
		return 0
	}
	return p.heads[id].Settled.Count
}
