package protocol

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"peerdex/feed"
	"peerdex/query"
	"peerdex/record"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testHead(seq uint64) feed.Head {
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	key := ed25519.NewKeyFromSeed(seed)
	h := feed.Head{Seq: seq, GC: 2, Count: seq - 1, Boot: 0x1122334455667788, Onto: 9, Stamp: 0xABCDEF}
	copy(h.Library[:], bytes.Repeat([]byte{1}, 32))
	copy(h.Feed.Device[:], key.Public().(ed25519.PublicKey))
	copy(h.Feed.Location[:], bytes.Repeat([]byte{3}, 16))
	copy(h.Root[:], bytes.Repeat([]byte{4}, 32))
	return h.Sign(key)
}

func testEntries() []feed.Entry {
	return []feed.Entry{
		{Key: []byte("k1"), Seq: 3, Record: []byte{2}},
		{Key: bytes.Repeat([]byte{0xEE}, record.MaxKey), Seq: 4, Record: []byte("a record\x00\xff")},
		{Key: []byte{0}, Seq: 1 << 60, Record: bytes.Repeat([]byte{5}, 300)},
	}
}

func testHello() Hello {
	return Hello{
		Library: testHead(5).Library, Session: SessionID{1, 2, 3}, MinVersion: 1, MaxVersion: 3,
		Capabilities: []string{"alpha", "beta"}, Name: "Büro", OS: "linux", AppVersion: "0.1.0",
		Boot: 42, HLC: 77, ActiveSyncs: 2, Certs: [][]byte{[]byte("cert one"), []byte("cert two")},
		Compression: []Compression{S2, Zstd},
	}
}

// messages holds at least one of every type, by golden file name.
func messages() map[string]Message {
	settled, best := testHead(5), testHead(9)
	return map[string]Message{
		"hello":          func() Message { h := testHello(); return &h }(),
		"hello_ack":      &HelloAck{testHello()},
		"ping":           &Ping{T1: 1761213600123456789},
		"pong":           &Pong{T1: 1761213600123456789, T2: 1, T3: 1<<62 - 1},
		"heads":          &Heads{Full: true, ActiveSyncs: 3, Heads: []HeadInfo{{Best: best}, {Settled: &settled, Best: best}, {Settled: &best, Best: best}}},
		"heads_none":     &Heads{},
		"heads_declined": &Heads{Heads: []HeadInfo{{Best: best, Declines: true}, {Settled: &settled, Best: best, Declines: true}, {Settled: &best, Best: best, Declines: true}}},
		"bye":            &Bye{Reason: CodeShutdown},
		"bulk_index":     &BulkIndexComplete{Head: best, Entries: best.Count, Bytes: 150 * best.Count, Time: 1761213600123456789},
		"lookup":         &Lookup{Session: SessionID{9}, Feed: best.Feed, Path: "2019/sum\xffmer", Itself: true, After: "beach", Limit: MaxEntries},
		"search":         &Search{Session: SessionID{9}, Feed: best.Feed, Query: query.BySize(1000).Append(nil), Order: OrderPath, Reverse: true, Limit: MaxHits},
		"found":          &Found{Head: best, More: true, Last: true, Hits: []Hit{{Folder: "2019/sum\xffmer", Key: []byte("k"), Record: []byte{2}}, {Lost: true, Key: []byte("l"), Record: []byte{3}}}},
		"found_itself":   &Found{Head: best, Itself: true, Last: true, Hits: []Hit{{Key: []byte("k"), Record: []byte{2}}}},
		"found_absent":   &Found{Head: best, Absent: true, Last: true},
		"refused":        &Refused{Code: CodeNotSettled},
		"state_batch":    &StateBatch{Session: SessionID{9}, Prev: settled, Entries: testEntries(), Next: best},
		"state_batch_0":  &StateBatch{Session: SessionID{9}, Entries: testEntries()[:1], Next: best},
		"ack":            &Ack{Feed: best.Feed, Head: best, Outcome: Applied},
		"ack_unsettled":  &Ack{Feed: best.Feed, Outcome: Unsettled},
		"open":           &Open{Session: SessionID{9}, Feed: best.Feed},
		"opened":         &Opened{Head: best},
		"delta":          &Delta{After: 12345},
		"page":           &Page{Entries: testEntries(), Last: true},
		"page_none":      &Page{Last: true},
		"nodes":          &Nodes{Level: 2, Indexes: []uint64{0, 5, 1 << 40}},
		"nodes_reply":    &NodesReply{Children: [][]feed.Hash{{{1}, {}, {3}}, nil, {{4}}}},
		"leaves":         &Leaves{Indexes: []uint64{0, 1, 1 << 50}},
		"leaves_reply":   &LeavesReply{Leaves: [][]byte{bytes.Repeat([]byte{6}, 2*leafEntry), nil}},
		"fetch":          &Fetch{Seqs: []uint64{1, 7, 1 << 63}},
		"open_snapshot":  &OpenSnapshot{Session: SessionID{9}},
		"manifest":       &SnapshotManifest{Manifest: []byte("manifest")},
		"get_chunks":     &GetChunks{Runs: []Run{{0, 7}, {9, 1 << 20}}},
		"chunk":          &Chunk{Number: 300, Bytes: []byte("chunk")},
		"pair_hello":     &PairHello{Invite: InviteID{1}, Nonce: Nonce{2}},
		"pair_challenge": &PairChallenge{Nonce: Nonce{3}},
		"pair_proof":     &PairProof{MAC: MAC{4}, Name: "n", OS: "linux", AppVersion: "1"},
		"pair_request":   &PairRequest{Commitment: Commitment{8}, Name: "n", OS: "o", AppVersion: "v"},
		"pair_reveal":    &PairReveal{Nonce: Nonce{9}},
		"pair_welcome":   &PairWelcome{MAC: MAC{5}, Library: feed.LibraryID{6}, RootKey: [32]byte{7}, Certs: [][]byte{[]byte("c")}, Name: "n", OS: "o", AppVersion: "v", JoinerName: "j"},
	}
}

func TestMessagesHaveUniqueNumbers(t *testing.T) {
	seen := map[uint8]bool{}
	for _, m := range messages() {
		s := specs[m.number()]
		if s.make == nil || reflect.TypeOf(s.make()) != reflect.TypeOf(m) {
			t.Errorf("%T: number %d makes a %T", m, m.number(), s.make())
		}
		seen[m.number()] = true
	}
	for n, s := range specs {
		if s.make != nil && !seen[uint8(n)] {
			t.Errorf("%s has no test message", s.name)
		}
	}
}

func TestMessageRoundTripAndGolden(t *testing.T) {
	for name, m := range messages() {
		b, err := Encode(m)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		file := filepath.Join("testdata", "v1", name+".hex")
		text := fmt.Sprintf("%d\n%s\n", m.number(), hex.EncodeToString(b))
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(want) != text {
			t.Errorf("%s: encoding differs from %s", name, file)
		}
		// What version 1 wrote must be read for ever.
		num, golden := 0, ""
		if _, err := fmt.Sscanf(string(want), "%d\n%s", &num, &golden); err != nil && golden != "" {
			t.Fatal(err)
		}
		raw, err := hex.DecodeString(golden)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(uint8(num), raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(back, m) {
			t.Errorf("%s: got %+v, want %+v", name, back, m)
		}
	}
}

func TestMessagesCutShort(t *testing.T) {
	for name, m := range messages() {
		b, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		for n := range b {
			got, err := Decode(m.number(), bytes.Clone(b[:n]))
			if err == nil {
				if !specs[m.number()].bulk {
					continue // a protobuf message may end between two fields
				}
				t.Errorf("%s cut to %d of %d bytes reads as %+v", name, n, len(b), got)
				continue
			}
			if c := CodeOf(err); c != CodeMalformed && c != CodeTooLarge {
				t.Errorf("%s cut to %d bytes: %v", name, n, err)
			}
		}
		if specs[m.number()].bulk {
			if _, err := Decode(m.number(), append(bytes.Clone(b), 0)); !errors.Is(err, CodeMalformed) {
				t.Errorf("%s with a byte too many: %v", name, err)
			}
		}
	}
}

// Fields that later versions add must not disturb this one.
func TestControlMessagesSkipUnknownFields(t *testing.T) {
	for name, m := range messages() {
		if specs[m.number()].bulk {
			continue
		}
		b, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, 0xA2, 0x06, 3, 'n', 'e', 'w') // field 100, bytes
		back, err := Decode(m.number(), b)
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("%s: got %+v, %v", name, back, err)
		}
	}
}

func TestLimits(t *testing.T) {
	best := testHead(9)
	many := func(n int) (out []feed.Entry) {
		for i := range n {
			out = append(out, feed.Entry{Key: []byte{1}, Seq: uint64(i + 1), Record: []byte{2}})
		}
		return out
	}
	big := func(n, size int) (out []feed.Entry) {
		for i := range n {
			out = append(out, feed.Entry{Key: []byte{1}, Seq: uint64(i + 1), Record: make([]byte, size)})
		}
		return out
	}
	hello := func(change func(*Hello)) Message {
		h := testHello()
		change(&h)
		return &h
	}
	other := testHead(5)
	other.Feed.Location[0]++
	forged := best
	forged.GC = forged.Seq + 1
	certs := func(n int) [][]byte { return make([][]byte, n) }
	for _, tc := range []struct {
		name string
		m    Message
		want Code // 0: allowed
	}{
		{"1,000 entries", &Page{Entries: many(MaxEntries)}, 0},
		{"1,001 entries", &Page{Entries: many(MaxEntries + 1)}, CodeTooLarge},
		{"a full page", &Page{Entries: big(15, record.MaxRecord)}, 0},
		{"more than a page", &Page{Entries: big(16, record.MaxRecord)}, CodeTooLarge},
		{"more than a batch", &StateBatch{Next: best, Entries: big(16, record.MaxRecord)}, CodeTooLarge},
		{"no key", &Page{Entries: []feed.Entry{{Seq: 1, Record: []byte{1}}}}, CodeTooLarge},
		{"long key", &Page{Entries: []feed.Entry{{Seq: 1, Key: make([]byte, record.MaxKey+1), Record: []byte{1}}}}, CodeTooLarge},
		{"no record", &Page{Entries: []feed.Entry{{Seq: 1, Key: []byte{1}}}}, CodeTooLarge},
		{"long record", &Page{Entries: big(1, record.MaxRecord+1)}, CodeTooLarge},
		{"seq 0", &Page{Entries: []feed.Entry{{Key: []byte{1}, Record: []byte{1}}}}, CodeMalformed},
		{"seqs fall", &Page{Entries: []feed.Entry{{Seq: 2, Key: []byte{1}, Record: []byte{1}}, {Seq: 2, Key: []byte{2}, Record: []byte{1}}}}, CodeMalformed},
		{"batch to genesis", &StateBatch{}, CodeMalformed},
		{"batch to a forged head", &StateBatch{Next: forged}, CodeMalformed},
		{"batch between feeds", &StateBatch{Prev: other, Next: best}, CodeMalformed},
		{"heads of two feeds", &Heads{Heads: []HeadInfo{{Settled: &other, Best: best}}}, CodeMalformed},
		{"genesis as a head", &Heads{Heads: []HeadInfo{{}}}, CodeMalformed},
		{"2,000 heads", &Heads{Heads: func() (out []HeadInfo) {
			for range MaxHeads {
				out = append(out, HeadInfo{Settled: &best, Best: testHeadCached})
			}
			return out
		}()}, 0},
		{"bulk index of a device feed", &BulkIndexComplete{Head: func() feed.Head { h := best; h.Feed.Location = record.LocationID{}; return h }(), Entries: 1}, CodeMalformed},
		{"bulk index of nothing", &BulkIndexComplete{Head: best}, CodeMalformed},
		{"bulk index of more than there is", &BulkIndexComplete{Head: best, Entries: best.Count + 1}, CodeMalformed},
		{"bulk index at no time", &BulkIndexComplete{Head: best, Entries: 1, Time: -1}, CodeMalformed},
		{"lookup without session", &Lookup{Feed: best.Feed, Limit: 1}, CodeMalformed},
		{"lookup of nothing", &Lookup{Session: SessionID{1}, Feed: best.Feed}, CodeMalformed},
		{"lookup of 1,001", &Lookup{Session: SessionID{1}, Feed: best.Feed, Limit: MaxEntries + 1}, CodeTooLarge},
		{"lookup in a device feed", &Lookup{Session: SessionID{1}, Feed: feed.ID{Device: best.Feed.Device}, Limit: 1}, CodeMalformed},
		{"lookup of the longest path", &Lookup{Session: SessionID{1}, Feed: best.Feed, Path: strings.Repeat("x", MaxPath), After: strings.Repeat("x", record.MaxName), Limit: 1}, 0},
		{"lookup of a longer path", &Lookup{Session: SessionID{1}, Feed: best.Feed, Path: strings.Repeat("x", MaxPath+1), Limit: 1}, CodeTooLarge},
		{"lookup after a long name", &Lookup{Session: SessionID{1}, Feed: best.Feed, After: strings.Repeat("x", record.MaxName+1), Limit: 1}, CodeTooLarge},
		{"search without session", &Search{Feed: best.Feed, Query: []byte{0}, Limit: 1}, CodeMalformed},
		{"search without a query", &Search{Session: SessionID{1}, Feed: best.Feed, Limit: 1}, CodeMalformed},
		{"search in a device feed", &Search{Session: SessionID{1}, Feed: feed.ID{Device: best.Feed.Device}, Query: []byte{0}, Limit: 1}, CodeMalformed},
		{"search by what is no query", &Search{Session: SessionID{1}, Feed: best.Feed, Query: []byte{0, 99}, Limit: 1}, CodeMalformed},
		{"search by too much", &Search{Session: SessionID{1}, Feed: best.Feed, Query: make([]byte, query.MaxEncoded+1), Limit: 1}, CodeTooLarge},
		{"search for 10,001", &Search{Session: SessionID{1}, Feed: best.Feed, Query: []byte{0}, Limit: MaxHits + 1}, CodeTooLarge},
		{"search in an unknown order", &Search{Session: SessionID{1}, Feed: best.Feed, Query: []byte{0}, Order: orders, Limit: 1}, CodeMalformed},
		{"found at genesis", &Found{}, CodeMalformed},
		{"found and absent", &Found{Head: best, Absent: true, Hits: []Hit{{Key: []byte{1}, Record: []byte{1}}}}, CodeMalformed},
		{"found itself, and nothing", &Found{Head: best, Itself: true}, CodeMalformed},
		{"1,000 hits", &Found{Head: best, Hits: repeat(Hit{Key: []byte{1}, Record: []byte{1}}, MaxEntries)}, 0},
		{"1,001 hits", &Found{Head: best, Hits: repeat(Hit{Key: []byte{1}, Record: []byte{1}}, MaxEntries+1)}, CodeTooLarge},
		{"more hits than a page", &Found{Head: best, Hits: repeat(Hit{Key: []byte{1}, Record: make([]byte, record.MaxRecord)}, 16)}, CodeTooLarge},
		{"hit in a long path", &Found{Head: best, Hits: []Hit{{Folder: strings.Repeat("x", MaxPath+1), Key: []byte{1}, Record: []byte{1}}}}, CodeTooLarge},
		{"hit in no path", &Found{Head: best, Hits: []Hit{{Folder: "a\x00b", Key: []byte{1}, Record: []byte{1}}}}, CodeMalformed},
		{"hit without a key", &Found{Head: best, Hits: []Hit{{Record: []byte{1}}}}, CodeTooLarge},
		{"hit without a record", &Found{Head: best, Hits: []Hit{{Key: []byte{1}}}}, CodeTooLarge},
		{"2,001 heads", &Heads{Heads: make([]HeadInfo, MaxHeads+1)}, CodeTooLarge},
		{"ack of another feed", &Ack{Feed: other.Feed, Head: best, Outcome: Applied}, CodeMalformed},
		{"ack without outcome", &Ack{Feed: best.Feed, Head: best}, CodeMalformed},
		{"refused without code", &Refused{}, CodeMalformed},
		{"open without session", &Open{Feed: best.Feed}, CodeMalformed},
		{"opened at genesis", &Opened{}, CodeMalformed},
		{"level 0", &Nodes{Indexes: []uint64{1}}, CodeMalformed},
		{"level 64", &Nodes{Level: MaxLevel + 1, Indexes: []uint64{1}}, CodeMalformed},
		{"no indexes", &Nodes{Level: 1}, CodeMalformed},
		{"1,000 indexes", &Nodes{Level: 1, Indexes: numbers(MaxNodes)}, 0},
		{"1,001 indexes", &Nodes{Level: 1, Indexes: numbers(MaxNodes + 1)}, CodeTooLarge},
		{"200 leaves", &Leaves{Indexes: numbers(MaxLeaves)}, 0},
		{"201 leaves", &Leaves{Indexes: numbers(MaxLeaves + 1)}, CodeTooLarge},
		{"1,000 seqs", &Fetch{Seqs: numbers(MaxEntries)}, 0},
		{"1,001 seqs", &Fetch{Seqs: numbers(MaxEntries + 1)}, CodeTooLarge},
		{"fetch of seq 0", &Fetch{Seqs: []uint64{0}}, CodeMalformed},
		{"snapshot without session", &OpenSnapshot{}, CodeMalformed},
		{"a full manifest", &SnapshotManifest{Manifest: make([]byte, MaxManifest)}, 0},
		{"more than a manifest", &SnapshotManifest{Manifest: make([]byte, MaxManifest+1)}, CodeTooLarge},
		{"a full chunk", &Chunk{Number: 1<<32 - 1, Bytes: make([]byte, MaxChunk)}, 0},
		{"more than a chunk", &Chunk{Bytes: make([]byte, MaxChunk+1)}, CodeTooLarge},
		{"1,000 runs", &GetChunks{Runs: repeat(Run{1, 1}, MaxRuns)}, 0},
		{"1,001 runs", &GetChunks{Runs: repeat(Run{1, 1}, MaxRuns+1)}, CodeTooLarge},
		{"no runs", &GetChunks{}, CodeMalformed},
		{"a run of nothing", &GetChunks{Runs: []Run{{1, 0}}}, CodeMalformed},
		{"a run beyond the end", &GetChunks{Runs: []Run{{1<<32 - 1, 2}}}, CodeMalformed},
		{"all nodes", &NodesReply{Children: repeat(make([]feed.Hash, MaxChildren), MaxNodes)}, 0},
		{"17 children", &NodesReply{Children: [][]feed.Hash{make([]feed.Hash, MaxChildren+1)}}, CodeTooLarge},
		{"too many nodes", &NodesReply{Children: make([][]feed.Hash, MaxNodes+1)}, CodeTooLarge},
		{"all leaves", &LeavesReply{Leaves: repeat(make([]byte, MaxLeaf), MaxLeaves)}, 0},
		{"long leaf", &LeavesReply{Leaves: [][]byte{make([]byte, MaxLeaf+leafEntry)}}, CodeTooLarge},
		{"odd leaf", &LeavesReply{Leaves: [][]byte{make([]byte, leafEntry+1)}}, CodeMalformed},
		{"too many leaves", &LeavesReply{Leaves: make([][]byte, MaxLeaves+1)}, CodeTooLarge},
		{"hello without session", hello(func(h *Hello) { h.Session = SessionID{} }), CodeMalformed},
		{"hello without versions", hello(func(h *Hello) { h.MinVersion = 0 }), CodeMalformed},
		{"hello with no window", hello(func(h *Hello) { h.MinVersion = 4 }), CodeMalformed},
		{"33 capabilities", hello(func(h *Hello) { h.Capabilities = make([]string, MaxCapabilities+1) }), CodeTooLarge},
		{"9 compressions", hello(func(h *Hello) { h.Compression = make([]Compression, MaxCompressions+1) }), CodeTooLarge},
		{"long name", hello(func(h *Hello) { h.Name = strings.Repeat("x", MaxText+1) }), CodeTooLarge},
		{"name not UTF-8", hello(func(h *Hello) { h.Name = "\xff" }), CodeMalformed},
		{"as many certs as may be", hello(func(h *Hello) { h.Certs = repeat(make([]byte, MaxCert), MaxCerts) }), 0},
		{"a cert too many", hello(func(h *Hello) { h.Certs = certs(MaxCerts + 1) }), CodeTooLarge},
		{"long cert", hello(func(h *Hello) { h.Certs = [][]byte{make([]byte, MaxCert+1)} }), CodeTooLarge},
		{"welcome with a cert too many", &PairWelcome{Certs: certs(MaxCerts + 1)}, CodeTooLarge},
		{"time before 1970", &Ping{T1: -1}, CodeMalformed},
		{"time too far", &Pong{T2: 1 << 62}, CodeMalformed},
	} {
		b, err := Encode(tc.m)
		if got := CodeOf(err); got != tc.want {
			t.Errorf("send %s: %v, want %v", tc.name, err, tc.want)
		}
		if err == nil {
			if _, err := Decode(tc.m.number(), b); err != nil {
				t.Errorf("receive %s: %v", tc.name, err)
			}
			continue
		}
		// A sender that does not check must be refused all the same.
		func() {
			defer func() { _ = recover() }() // the encoder may rely on the check
			b, err = tc.m.append(nil)
		}()
		if err != nil || b == nil {
			continue
		}
		if got := CodeOf(second(Decode(tc.m.number(), b))); got != CodeMalformed && got != CodeTooLarge {
			t.Errorf("receive %s: code %v", tc.name, got)
		}
	}
}

var testHeadCached = testHead(12)

func second[A any](_ A, err error) error { return err }

func numbers(n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = 1<<63 + uint64(i)
	}
	return out
}

func repeat[T any](v T, n int) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// A count must be believed only as far as bytes follow it.
func TestCountsDoNotAllocate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		number uint8
		b      []byte
		want   Code
	}{
		{"page of 1,000 in 3 bytes", numPage, []byte{0, 0xE8, 0x07}, CodeMalformed},
		{"page of 2^40", numPage, []byte{0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20}, CodeTooLarge},
		{"heads of 2,000 in 4 bytes", numHeads, []byte{0, 0, 0xD0, 0x0F}, CodeMalformed},
		{"nodes of 1,000 in 2 bytes", numNodesReply, []byte{0xE8, 0x07}, CodeMalformed},
		{"1,000 hits in 3 bytes", numFound, append(testHeadCached.Append([]byte{0}), 0xE8, 0x07, 0), CodeMalformed},
		{"hits of 2^40", numFound, append(testHeadCached.Append([]byte{0}), 0x80, 0x80, 0x80, 0x80, 0x80, 0x20), CodeTooLarge},
		{"heads of kind 3", numHeads, append([]byte{0, 0, 1, 3}, make([]byte, 300)...), CodeMalformed},
		{"leaf of 2^32", numLeavesReply, []byte{1, 0x80, 0x80, 0x80, 0x80, 0x10}, CodeTooLarge},
		{"unknown flags", numPage, []byte{2, 0}, CodeMalformed},
		{"seq overflows", numPage, append(append([]byte{0, 2}, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 1, 1, 1, 1), 1, 1, 1, 1, 1), CodeMalformed},
		{"unknown number", 15, nil, CodeUnknownType},
		{"number beyond the table", 200, nil, CodeUnknownType},
		{"frame beyond its limit", numPing, make([]byte, maxControl+1), CodeTooLarge},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(tc.number, tc.b)
		runtime.ReadMemStats(&after)
		if CodeOf(err) != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 16<<10 {
			t.Errorf("%s: %d bytes allocated", tc.name, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		b, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.number(), b)
	}
	f.Fuzz(func(t *testing.T, number uint8, b []byte) {
		m, err := Decode(number, bytes.Clone(b))
		if err != nil {
			if c := CodeOf(err); c == CodeInternal {
				t.Fatalf("no code: %v", err)
			}
			return
		}
		again, err := Encode(m)
		if err != nil {
			t.Fatalf("%+v was read but cannot be written: %v", m, err)
		}
		back, err := Decode(number, again)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if !reflect.DeepEqual(back, m) {
			once, _ := Encode(back)
			if !bytes.Equal(once, again) { // nil and empty slices are the same message
				t.Fatalf("got %+v, want %+v", back, m)
			}
		}
	})
}
