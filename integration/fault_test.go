package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"peerdex/api"
	"peerdex/backfill"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/node"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// N8: a node that was ready is restarted: it is ready again, and no record comes a second time.
func TestN8RestartTransfersNothing(t *testing.T) {
	t.Parallel()
	dirA, dirB := tempDir(t), tempDir(t)
	fill(t, dirA, 2000)
	fill(t, dirB, 300)
	a, b := two(t, []string{dirA}, []string{dirB})
	want := inStep(t, a, b)
	for i, end := range []func(){b.stop, b.kill} {
		end()
		b.start("")
		if d := want.diff(inStep(t, a, b)); d != "" {
			t.Errorf("after restart %d: %s", i, d)
		}
		if n, by := b.received(); n != 0 {
			t.Errorf("restart %d cost %d records: %v", i, n, by)
		}
		m := b.metrics()
		if *m.Operations.Pages != 0 || *m.Volume.ReceivedBytes > 16<<10 {
			t.Errorf("restart %d cost %d pages, %d bytes", i, *m.Operations.Pages, *m.Volume.ReceivedBytes)
		}
		if n := m.Catalog.Scan.Files.By["added"] + m.Catalog.Scan.Files.By["changed"] + m.Catalog.Scan.Files.By["removed"]; n != 0 {
			t.Errorf("restart %d found %d files changed", i, n)
		}
	}
	wantEqualOnDisk(t, a, b)
}

// N9: what changed while two devices were apart is there when they meet again, and what changes then comes
// by a push, without a question.
func TestN9Reconnect(t *testing.T) {
	t.Parallel()
	dirA, dirB := tempDir(t), tempDir(t)
	fill(t, dirA, 300)
	a, b := two(t, []string{dirA}, []string{dirB})
	inStep(t, a, b)

	b.stop()
	write(t, filepath.Join(dirA, "while apart"), "1")
	write(t, filepath.Join(dirB, "found at the start"), "12")
	b.start("")
	same(t, 303+2, a.client, b.client)
	inStep(t, a, b)
	total, before := b.received()
	if total != 1 {
		t.Errorf("one change was missed, %d came: %v", total, before)
	}

	b.signal(syscall.SIGSTOP) // as a laptop whose lid is closed
	write(t, filepath.Join(dirA, "while asleep"), "123")
	eventually(t, "alpha has it", func() string {
		if a.dumpCatalogue().find(filepath.Join(dirA, "while asleep")) == nil {
			return "not yet"
		}
		return ""
	})
	b.signal(syscall.SIGCONT)
	same(t, 303+3, a.client, b.client)

	inStep(t, a, b)
	total, before = b.received()
	write(t, filepath.Join(dirA, "live"), "1234")
	same(t, 303+4, a.client, b.client)
	now, after := b.received()
	if now != total+1 || after["live"] != before["live"]+1 {
		t.Errorf("one live change: %v, then %v", before, after)
	}
	inStep(t, a, b)
	wantEqualOnDisk(t, a, b)
}

// N10: a device shows more feeds than are remembered of one, and then those that matter: that is counted and logged,
// and when it next tells all its heads, they are fetched.
func TestN10QueueOfHintsOverflows(t *testing.T) {
	t.Parallel()
	a := newPeer(t, "alpha")
	r := joined(t, a.start(""), a.invite())
	st := r.open(hlc.NewClock(time.Now, hlc.At(time.Now()), func(hlc.Stamp) error { return nil }))
	r.serve(protocol.BackfillProtocol, (&backfill.Server{Store: st, Notes: unheard{}}).Serve)
	place := record.LocationID{9}
	err := st.SetRegisters(
		record.Register{Entity: record.Location(r.device, place), Field: record.FieldPath, Value: []byte("/far")},
		record.Register{Entity: record.Location(r.device, place), Field: record.FieldExists, Value: []byte{1}},
	)
	if err == nil {
		_, err = st.Commit(feed.ID{Device: r.device, Location: place}, []store.Put{{Record: record.File{ID: record.EntryID{1}, Kind: record.Regular, Name: "file"}}})
	}
	if err := errors.Join(err, st.Sync()); err != nil {
		t.Fatal(err)
	}
	conn, err := r.greet(r.hello())
	if err != nil {
		t.Fatal(err)
	}
	tell := func(m *protocol.Heads) {
		t.Helper()
		if err := errors.Join(conn.Send(m), conn.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 { // as many as are remembered
		m := &protocol.Heads{}
		for j := range protocol.MaxHeads {
			id := feed.ID{Device: r.device, Location: record.LocationID{0xee, byte(i), byte(j >> 8), byte(j)}}
			m.Heads = append(m.Heads, protocol.HeadInfo{Best: feed.Head{Library: r.welcome.Library, Feed: id, Seq: 1, Count: 1}})
		}
		tell(m)
	}
	all := &protocol.Heads{}
	for _, s := range st.States() {
		all.Heads = append(all.Heads, protocol.HeadInfo{Settled: s.Settled, Best: *s.Settled})
	}
	tell(all)
	eventually(t, "the overflow is counted and logged", func() string {
		logged := int64(0)
		for _, e := range a.events(api.EventQuery{Types: []string{"buffer_overflow"}}) {
			logged += detail[eventlog.BufferOverflow](t, e).DroppedCount
		}
		if n := *a.metrics().Operations.HintsDropped; n != uint64(len(all.Heads)) || logged != int64(n) {
			return fmt.Sprintf("%d counted, %d logged, want %d", n, logged, len(all.Heads))
		}
		return ""
	})
	if got := a.dumpCatalogue(); len(got.rows) != 0 || *a.metrics().Operations.Pages != 0 {
		t.Errorf("what was dropped has come: %v", got.rows)
	}
	all.Full = true
	tell(all)
	r.awaitSettled(t, a, "/far/file")
}

// N17: the receiver of a first sync of 20,000 files is killed at moments drawn from a seed, and so is the
// sender. Whatever is on the disk of the killed receiver, it would serve nothing that is not exactly what
// the owner signed; and in the end both are equal.
func TestN17KilledDuringFirstSync(t *testing.T) {
	t.Parallel()
	if half := killDuringFirstSync(t, 12, "--bulk", "1000000"); half == 0 { // by pages
		t.Error("no kill hit a transfer")
	}
}

// The same where the first sync is a snapshot: of that the store holds nothing until it holds all.
func TestN17KilledDuringSnapshot(t *testing.T) {
	t.Parallel()
	killDuringFirstSync(t, 6)
}

// killDuringFirstSync starts the receiver with flags and returns how many kills left part of a feed on its disk.
func killDuringFirstSync(t *testing.T, kills int, flags ...string) (half int) {
	t.Helper()
	seed := uint64(1)
	if text := os.Getenv("KILL_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(seed, 17))
	t.Logf("KILL_SEED=%d", seed)
	dirs := []string{tempDir(t), tempDir(t)}
	for _, dir := range dirs {
		fill(t, dir, 10_000)
	}
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	line := a.start("", dirs...).Invite.Line
	b.join(line, flags...)
	senders := 0
	for i := range kills {
		condition := random.IntN(5)
		total := uint64(1 + random.IntN(4000))
		reached := func() bool { // the moment to kill at
			switch condition {
			case 0:
				return true // as soon as it answers
			case 1:
				d, ok := b.other("alpha")
				return ok && d.Link != node.LinkDisconnected
			}
			n, _ := b.received()
			return n >= total
		}
		eventually(t, fmt.Sprintf("moment %d", i), func() string {
			if st := b.status(); reached() || st.State == node.StateReady && st.Files == 20_000 {
				return ""
			}
			return "not yet"
		})
		if i%4 == 3 { // its sender too
			a.kill()
			senders++
		}
		b.kill()
		f := openHome(t, b.home)
		f.wantWhole(t)
		if slices.ContainsFunc(f.States(), func(st feed.State) bool { return st.Settled == nil && st.Count > 0 }) {
			half++
		}
		f.close(t)
		if a.cmd == nil {
			a.start("")
		}
		b.start("", flags...)
	}
	t.Logf("%d kills, %d of them with part of a feed on disk; the sender %d times", kills, half, senders)
	c := inStep(t, a, b)
	for _, dir := range dirs {
		c.wantOnDisk(t, dir)
	}
	wantEqualOnDisk(t, a, b)
	return half
}

// raw is a record of no model that this version knows, or one that breaks its own rules.
type raw struct{ key, bytes []byte }

func (r raw) Key() []byte            { return r.key }
func (r raw) Append(b []byte) []byte { return append(b, r.bytes...) }
func (raw) Validate() error          { return nil }
func (raw) Model() string            { return "other" }

// N18: the owner has signed one record that is malformed. It is refused and named in the event log, once;
// everything else arrives, on a third device too, and goes on arriving.
func TestN18OneMalformedRecord(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	fill(t, dir, 500)
	a, b := two(t, nil, nil)
	inStep(t, a, b)
	a.add(dir)
	inStep(t, a, b)
	a.stop()
	f := openHome(t, a.home)
	// a file whose name is a path: the bytes of a good one with a slash in the name
	bad := record.File{ID: record.EntryID{1, 2, 3}, Kind: record.Regular, Name: "etc/passwd", Mode: 0o644}
	var location feed.ID
	for _, st := range f.States() {
		if st.Feed.Device == f.device && !st.Feed.IsDevice() {
			location = st.Feed
		}
	}
	head := commitRaw(t, f, location, raw{bad.Key(), bad.Append(nil)})
	f.close(t)
	a.start("")
	write(t, filepath.Join(dir, "after"), "1")
	same(t, 505+1, a.client, b.client).wantOnDisk(t, dir)
	inStep(t, a, b)
	rejected := b.events(api.EventQuery{Types: []string{"change_rejected"}})
	want := fmt.Sprintf("%v@%d", location, head.Seq)
	if len(rejected) != 1 {
		t.Errorf("%d events name the record", len(rejected))
	} else if d := detail[eventlog.ChangeRejected](t, rejected[0]); d.Count != 1 || len(d.Changes) != 1 || d.Changes[0] != want || d.Feed != location.String() {
		t.Errorf("the event says %+v, want %s", d, want)
	}
	m := b.metrics().Operations
	if m.Processed.By["rejected"] != 1 || m.Rejections.Total != 1 {
		t.Errorf("rejected: %v, %v", m.Processed.By, m.Rejections.By)
	}
	c := newPeer(t, "gamma") // gets it from whom it likes: both relay it as it is
	c.join(a.invite())
	same(t, 506, a.client, b.client, c.client)
	inStep(t, a, b, c)
	wantEqualOnDisk(t, a, b, c)
}

// commitRaw signs a record that the store would not let its own device write.
func commitRaw(t testing.TB, f *files, id feed.ID, r raw) feed.Head {
	t.Helper()
	head, err := f.Commit(id, []store.Put{{Record: r}})
	if err := errors.Join(err, f.Sync()); err != nil {
		t.Fatal(err)
	}
	return head
}

// N19: a paired device that is away, even one that accepts connections and never answers, delays nobody.
func TestN19AwayDelaysNobody(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	fill(t, dir, 200)
	a, b := two(t, []string{dir}, nil)
	c := newPeer(t, "gamma")
	c.join(a.invite())
	inStep(t, a, b, c)
	c.signal(syscall.SIGSTOP)
	for i := range 20 {
		name := filepath.Join(dir, fmt.Sprintf("change %d", i))
		write(t, name, "x")
		eventually(t, "a change reaches beta", func() string {
			if b.dumpCatalogue().find(name) == nil {
				return name
			}
			return ""
		})
	}
	if d, ok := a.other("gamma"); !ok || d.ItLacks == nil || *d.ItLacks == 0 {
		t.Errorf("alpha shows gamma as %+v", d)
	}
	if held := a.metrics().Performance.Memory["serve"].Bytes; held > 16<<10 {
		t.Errorf("%d bytes are reserved for a device that is stopped: more than the push it was sent", held)
	}
	c.signal(syscall.SIGCONT)
	same(t, 202+20, a.client, b.client, c.client)
	inStep(t, a, b, c)
	wantEqualOnDisk(t, a, b, c)
}

// Everybody who holds a lazy location is stopped, as laptops whose lids are closed. Whoever asks is told at once what is
// known on this device, and of the location that nobody gave a sign of life, not that they shut down; and as soon as
// one goes on, it answers.
func TestAskedWhileAllAreStopped(t *testing.T) {
	t.Parallel()
	dir, own := tempDir(t), tempDir(t)
	write(t, filepath.Join(dir, "file of alpha"), "1")
	write(t, filepath.Join(own, "file of beta"), "2")
	a, b := two(t, []string{dir}, []string{own})
	c := newPeer(t, "gamma")
	c.join(a.invite())
	inStep(t, a, b, c)
	eventually(t, "beta and gamma have met", func() string {
		if d, ok := b.other("gamma"); !ok || !d.Online {
			return fmt.Sprintf("%+v", d)
		}
		return ""
	})
	where := "alpha:" + filepath.Base(dir)
	b.ask(&node.LocationView{}, "locations", "set", where, "--fetch", "lazy")
	var found struct {
		Entries []node.Entry
		node.FindResult
	}
	eventually(t, "beta can ask both", func() string {
		if d, _ := b.other("gamma"); d.WeLack == nil || *d.WeLack != 0 {
			return fmt.Sprintf("%+v", d)
		}
		return ""
	})
	a.signal(syscall.SIGSTOP)
	c.signal(syscall.SIGSTOP)
	eventually(t, "nobody answers", func() string { // a signal may take its time
		got := b.run("find", "file of", "--json")
		if err := json.Unmarshal([]byte(got.stdout), &found); err != nil || got.code != 6 {
			return fmt.Sprintf("exit %d, %v: %s", got.code, err, got.stdout)
		}
		return ""
	})
	a.signal(syscall.SIGCONT)
	if len(found.Entries) != 1 || found.Entries[0].Name != "file of beta" || !found.Partial || len(found.Asked) != 1 {
		t.Fatalf("found %+v", found)
	}
	const want = "alpha: no sign of life within 2 s; gamma: no sign of life within 2 s"
	if found.Asked[0].Problem != want {
		t.Errorf("told %q, want %q", found.Asked[0].Problem, want)
	}
	var whole node.FindResult
	b.ask(&whole, "find", "file of")
	if whole.Found != 2 || whole.Partial || whole.Asked[0].ViaName != "alpha" {
		t.Errorf("with alpha back: %+v", whole)
	}
	c.signal(syscall.SIGCONT)
}
