package node

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/network"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/snapshot"
	"peerdex/store"
)

// lies makes r answer every stream of a protocol with bytes, and say no more; or, if dies is positive, break it off once
// so many requests have come, each of which is sent when what is due before has come.
func (r *running) lies(id protocol.ID, b []byte, dies int) {
	r.host.SetStreamHandler(id, func(s network.Stream) {
		requests := 0
		_, err := s.Write(b)
		for request := make([]byte, 1<<10); err == nil && requests < dies; requests++ {
			_, err = s.Read(request)
		}
		if err != nil || dies > 0 {
			_ = s.Reset()
			return
		}
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s)
		_ = s.Close()
	})
}

// onWire is a message as it goes over the wire.
func onWire(tb testing.TB, m protocol.Message) []byte {
	tb.Helper()
	payload, err := protocol.Encode(m)
	if err != nil {
		tb.Fatal(err)
	}
	return rawFrame(protocol.Number(m), 0, payload)
}

func rawFrame(number, flags byte, payload []byte) []byte {
	b := append(binary.AppendUvarint([]byte{number, flags}, uint64(len(payload))), payload...)
	sum := crc32.Checksum(append([]byte{number, flags}, payload...), crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32(b, sum)
}

func appendTo(tb testing.TB, path, text string) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// signed is a manifest with a change, signed by a donor who may lie.
func (r *running) signed(tb testing.TB, m snapshot.Manifest, change func(*snapshot.Manifest)) []byte {
	tb.Helper()
	m, err := snapshot.Parse(m.Append(nil))
	if err != nil {
		tb.Fatal(err)
	}
	change(&m)
	b := m.Append(nil)
	b = b[:len(b)-ed25519.SignatureSize]
	return append(b, ed25519.Sign(r.key, append([]byte("peerdex snapshot 1\x00"), b...))...)
}

// Whatever is wrong with a manifest, a chunk or a page: nothing of it is taken, the store stays in its files and is
// settled where it was, the log says why, and the next donor brings all of it.
func TestBadInput(t *testing.T) {
	t.Parallel()
	const files = 200
	folder := many(t, files)
	a := start(t, filepath.Join(t.TempDir(), "a"), "a")
	loc := a.index(folder)
	id := locationFeed(a.self, loc)
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	c.joins(a)
	b := startAs(t, Config{Home: filepath.Join(t.TempDir(), "b"), Name: "b", Thresholds: Thresholds{Snapshot: files / 2}})
	b.joins(a)
	await(t, "all in step", func() bool { return len(b.names(a.self, loc)) == files && inStep(a, b, c)() })
	stale := a.entriesOf(t, id)
	first, _ := a.store.State(id)
	appendTo(t, filepath.Join(folder, "file 7"), "other") // in one step: one change of the feed, and no more
	await(t, "the change", func() bool {
		st, _ := a.store.State(id)
		return st.Best.Seq > first.Best.Seq && inStep(a, b, c)()
	})
	b.setFetch(a, loc, FetchLazy)

	path := filepath.Join(t.TempDir(), "library")
	if _, err := a.ExportSnapshot(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	file, err := snapshot.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	at, chunks := -1, 0 // of the location in the manifest, and its first chunk
	for i, f := range file.Manifest.Feeds {
		if f.Head.Feed == id {
			at = i
		} else if at < 0 {
			chunks += len(f.Chunks)
		}
	}
	if at < 0 || len(file.Manifest.Feeds[at].Chunks) != 1 {
		t.Fatalf("the location is feed %d, in %d chunks", at, len(file.Manifest.Feeds[at].Chunks))
	}
	good, err := file.Chunk(chunks)
	if err != nil {
		t.Fatal(err)
	}
	head := file.Manifest.Feeds[at].Head
	entries := a.entriesOf(t, id)
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := encoder.EncodeAll(make([]byte, 32<<20), nil)

	whole := file.Manifest.Append(nil)
	manifest := func(b []byte) []byte { return onWire(t, &protocol.SnapshotManifest{Manifest: b}) }
	lie := func(change func(*snapshot.Manifest)) []byte { return manifest(a.signed(t, file.Manifest, change)) }
	chunk := func(b []byte) []byte {
		return append(manifest(whole), onWire(t, &protocol.Chunk{Number: uint32(chunks), Bytes: b})...)
	}
	swapped := func(b []byte, entries, raw int) []byte { // a chunk of its own, which the manifest vouches for
		m := lie(func(m *snapshot.Manifest) {
			m.Feeds[at].Chunks[0] = snapshot.Chunk{Entries: entries, Raw: raw, Size: len(b), Sum: sha256.Sum256(b)}
		})
		return append(m, onWire(t, &protocol.Chunk{Number: uint32(chunks), Bytes: b})...)
	}
	page := func(h feed.Head, entries []feed.Entry) []byte {
		return append(onWire(t, &protocol.Opened{Head: h}), onWire(t, &protocol.Page{Entries: entries, Last: true})...)
	}
	changed := func(change func([]feed.Entry) []feed.Entry) []feed.Entry {
		return change(append([]feed.Entry(nil), entries...))
	}
	otherLibrary := head
	otherLibrary.Library[0]++
	otherLibrary = otherLibrary.Sign(a.key)
	pageNumber := protocol.Number(&protocol.Page{})

	const snapshots, pages = true, false
	for _, row := range []struct {
		what     string
		snapshot bool
		bytes    []byte
		dies     int
		reason   string // of the session that failed; empty: the donor is accused of its head
	}{
		{"manifest: corrupt", snapshots, manifest(append([]byte{whole[0], whole[1] ^ 1}, whole[2:]...)), 0, "malformed"},
		{"manifest: truncated", snapshots, manifest(whole[:len(whole)/2]), 0, "malformed"},
		{"manifest: of another library", snapshots, lie(func(m *snapshot.Manifest) { m.Library[0]++ }), 0, "mismatch"},
		{"manifest: of a newer schema", snapshots, manifest(append([]byte{snapshot.Schema + 1}, whole[1:]...)), 0, "schema"},
		{"manifest: that would burst", snapshots, lie(func(m *snapshot.Manifest) {
			m.Feeds[at].Chunks[0].Raw, m.Feeds[at].Chunks[0].Size = snapshot.MaxChunk, 100
		}), 0, "malformed"},
		{"manifest: lies about counts", snapshots, lie(func(m *snapshot.Manifest) { m.Feeds[at].Chunks[0].Entries-- }), 0, "malformed"},
		{"manifest: a head nobody signed", snapshots, lie(func(m *snapshot.Manifest) { m.Feeds[at].Head.Root[0]++ }), 0, "mismatch"},
		{"manifest: the donor dies", snapshots, manifest(whole)[:100], 1, "lost"},
		{"chunk: corrupt", snapshots, chunk(append([]byte{good[0] ^ 1}, good[1:]...)), 0, "mismatch"},
		{"chunk: truncated", snapshots, chunk(good[:len(good)-1]), 0, "mismatch"},
		{"chunk: of something else", snapshots, swapped(rawChunk(entries[:files-1], entries[0]), files, len(rawChunk(entries[:files-1], entries[0]))), 0, "mismatch"},
		{"chunk: a bomb", snapshots, swapped(bomb, files, min(snapshot.MaxChunk, 100*len(bomb))), 0, "mismatch"},
		{"chunk: lies about counts", snapshots, swapped(rawChunk(entries[:files-1]), files, len(rawChunk(entries[:files-1]))), 0, "mismatch"},
		{"chunk: the donor dies", snapshots, chunk(good)[:len(manifest(whole))+len(good)/2], 2, "lost"},
		{"page: corrupt", pages, page(head, changed(func(e []feed.Entry) []feed.Entry {
			e[7].Record = append(e[7].Record[:len(e[7].Record):len(e[7].Record)], 0)
			return e
		})), 0, "delta_mismatch"},
		{"page: a wrong byte on the way", pages, func() []byte { b := page(head, entries); b[len(b)/2] ^= 1; return b }(), 0, "checksum"},
		{"page: truncated", pages, page(head, entries)[:1000], 0, "malformed"},
		{"page: stale", pages, page(head, stale), 0, "delta_mismatch"},
		{"page: of another library", pages, page(otherLibrary, entries), 0, ""},
		{"page: of a newer version", pages, append(onWire(t, &protocol.Opened{Head: head}), rawFrame(63, 0, []byte{1})...), 0, "unknown_type"},
		{"page: a bomb", pages, append(onWire(t, &protocol.Opened{Head: head}), rawFrame(pageNumber, 1, append(binary.AppendUvarint(nil, 1<<20), bomb...))...), 0, "too_large"},
		{"page: lies about counts", pages, page(head, entries[:files/2]), 0, "delta_mismatch"},
		{"page: the donor dies", pages, page(head, entries)[:1000], 2, "lost"},
	} {
		b.pardons(t, a, id, !row.snapshot)
		if _, err := b.Pause(t.Context(), idText(c.self), 0); err != nil {
			t.Fatal(err)
		}
		refuse := onWire(t, &protocol.Refused{Code: protocol.CodeBusy})
		a.lies(protocol.SnapshotProtocol, refuse, 0)
		a.lies(protocol.BackfillProtocol, refuse, 0)
		if row.snapshot {
			a.lies(protocol.SnapshotProtocol, row.bytes, row.dies)
		} else {
			a.lies(protocol.BackfillProtocol, row.bytes, row.dies)
		}
		before, from, accused := b.holding(), len(b.failures(id)), b.accusations(a)
		b.setFetch(a, loc, FetchEager)
		if row.reason == "" { // before anything of it is fetched
			await(t, row.what+" is told of", func() bool { return b.accusations(a) > accused && len(b.logged(eventlog.ChangeRejected{}.Type())) > 0 })
		} else {
			await(t, row.what+" is told of", func() bool { return len(b.failures(id)) > from })
			if got := b.failures(id)[from]; got.ReasonCode != row.reason || got.Message == "" {
				t.Errorf("%s: told as %+v, want %s", row.what, got, row.reason)
			}
		}
		if after := b.holding(); !maps.Equal(before, after) {
			t.Errorf("%s: the store held %v, now %v", row.what, before, after)
		}
		if _, err := b.Resume(t.Context(), idText(c.self)); err != nil {
			t.Fatal(err)
		}
		await(t, row.what+": the next donor brings it", func() bool { return len(b.names(a.self, loc)) == files })
		if st, _ := b.store.State(id); st.Settled == nil || *st.Settled != head {
			t.Errorf("%s: settled at %+v", row.what, st.Settled)
		}
		b.setFetch(a, loc, FetchLazy)
		await(t, row.what+": given up again", func() bool { return len(b.names(a.self, loc)) == 0 })
	}
}

// accusations is how often r has found what a device sent to be false.
func (r *running) accusations(of *running) (n uint64) {
	for _, d := range r.metrics.Snapshot(time.Now()).Devices {
		if d.ID == of.self.Short() {
			n = d.Errors.By["validation"]
		}
	}
	return n
}

// entriesOf are the entries of a feed.
func (r *running) entriesOf(tb testing.TB, id feed.ID) (out []feed.Entry) {
	tb.Helper()
	view, err := r.store.Serve(id)
	if err != nil {
		tb.Fatal(err)
	}
	defer view.Close()
	err = view.After(0, func(e feed.Entry) error {
		out = append(out, feed.Entry{Key: bytes.Clone(e.Key), Seq: e.Seq, Record: bytes.Clone(e.Record)})
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// rawChunk writes entries as a chunk does that is not compressed; the last may be one that is not theirs.
func rawChunk(entries []feed.Entry, more ...feed.Entry) (b []byte) {
	last := uint64(0)
	for _, e := range append(entries[:len(entries):len(entries)], more...) {
		if e.Seq <= last {
			e.Seq = last + 1
		}
		b = binary.AppendUvarint(b, e.Seq-last)
		b = append(binary.AppendUvarint(b, uint64(len(e.Key))), e.Key...)
		b = append(binary.AppendUvarint(b, uint64(len(e.Record))), e.Record...)
		last = e.Seq
	}
	return b
}

// failures are the first fetches of a feed that failed by what came, in order.
func (r *running) failures(id feed.ID) (out []eventlog.BackfillSessionFailed) {
	for _, e := range r.logged(eventlog.BackfillSessionFailed{}.Type()) {
		var d eventlog.BackfillSessionFailed
		if err := json.Unmarshal(e.Details, &d); err != nil {
			r.tb.Fatal(err)
		}
		if d.Feed == id.String() && d.ReasonCode != "busy" && d.ReasonCode != "shutdown" { // not that it was refused or told to stop
			out = append(out, d)
		}
	}
	return out
}

// pardons forgets what r holds against a donor, and waits until both talk and r knows that it has the feed; pages makes
// r ask for no snapshot of it.
func (r *running) pardons(t *testing.T, donor *running, id feed.ID, pages bool) {
	t.Helper()
	await(t, "they talk again", func() bool {
		r.mu.Lock()
		p := r.peers[donor.self]
		p.faults, p.shunned, p.snapshots, p.failedPull = 0, time.Time{}, snapshot.Attempts{}, time.Time{}
		if pages {
			p.snapshots.Ended(store.ErrHeld, time.Now())
		}
		clear(r.retries)
		info, told := p.heads[id]
		ok := p.session != nil && told && info.Settled != nil && r.pulls[donor.self] == nil
		r.mu.Unlock()
		if !ok {
			r.kickAll()
			donor.kickAll()
		}
		return ok
	})
}
