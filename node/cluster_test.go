package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Started once per process by libraries and never ended.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

// patience is how long a test waits for what must happen; nothing is ever so slow.
const patience = 20 * time.Second

// running is a node that runs.
type running struct {
	*Node
	tb    testing.TB
	ended chan error // capacity 1: what Run returned
	stop  func()
}

func loopback() []multiaddr.Multiaddr {
	return []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}
}

func locationFeed(owner record.DeviceID, l record.LocationID) feed.ID {
	return feed.ID{Device: owner, Location: l}
}

// ports are the addresses of homes that ran before.
var ports sync.Map

// start opens and runs the node of a home folder, on loopback.
func start(tb testing.TB, home, name string) *running {
	tb.Helper()
	return startAs(tb, Config{Home: home, Name: name})
}

// startOn is start with a store that is opened by open.
func startOn(tb testing.TB, home, name string, open func(string, store.Config) (*store.Store, error)) *running {
	tb.Helper()
	return startAs(tb, Config{Home: home, Name: name, openStore: open})
}

// startBy is start for a device whose wall clock shows what now returns.
func startBy(tb testing.TB, home, name string, now func() time.Time) *running {
	tb.Helper()
	return startAs(tb, Config{Home: home, Name: name, Now: now})
}

func startAs(tb testing.TB, cfg Config) *running {
	tb.Helper()
	addr := loopback()[0]
	if at, ok := ports.Load(cfg.Home); ok { // where others remember it
		addr = at.(multiaddr.Multiaddr)
	}
	cfg.Version, cfg.Listen = "test", []multiaddr.Multiaddr{addr}
	n, err := Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ports.Store(cfg.Home, n.host.Addrs()[0])
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Node: n, tb: tb, ended: make(chan error, 1)}
	go func() { r.ended <- n.Run(ctx) }()
	stopped := false
	r.stop = func() {
		tb.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-r.ended; err != nil {
			tb.Errorf("%s ended with %v", cfg.Name, err)
		}
		if err := n.Close(); err != nil {
			tb.Errorf("%s closed with %v", cfg.Name, err)
		}
	}
	tb.Cleanup(r.stop)
	return r
}

// await waits for a condition.
func await(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			tb.Fatalf("never came: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// index adds a folder and waits until it is scanned.
func (r *running) index(folder string) record.LocationID {
	r.tb.Helper()
	v, err := r.AddLocation(r.tb.Context(), AddRequest{Path: folder}, func(ScanProgress) {})
	if err != nil {
		r.tb.Fatal(err)
	}
	id, err := hex.DecodeString(v.Location.ID)
	if err != nil {
		r.tb.Fatal(err)
	}
	return record.LocationID(id)
}

// invite returns what another device needs to join.
func (r *running) invite(uses int) JoinRequest {
	r.tb.Helper()
	v, err := r.Invite(r.tb.Context(), InviteRequest{Uses: uses})
	if err != nil {
		r.tb.Fatal(err)
	}
	j, err := protocol.ParseJoin(v.Line)
	if err != nil {
		r.tb.Fatal(err)
	}
	return JoinRequest{Addrs: v.Addrs, Secret: j.Secret.Text()}
}

func (r *running) joins(o *running) {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(r.tb.Context(), patience)
	defer cancel()
	if err := r.Join(ctx, o.invite(1), func(JoinProgress) {}); err != nil {
		for _, n := range []*running{r, o} {
			n.mu.Lock()
			for _, p := range n.peers {
				r.tb.Logf("%s: link %+v, session %v, told %v, shunned %v, published %v", n.label, p.link, p.session != nil, p.told, p.shunned, p.published)
			}
			n.mu.Unlock()
			for _, e := range n.logged() {
				r.tb.Logf("%s: %s %s %s", n.name(), e.Timestamp.Format("05.000"), e.Type, e.Details)
			}
		}
		r.tb.Fatal(err)
	}
}

// inStep reports whether both hold the same heads of every feed either follows.
func inStep(nodes ...*running) func() bool {
	return func() bool {
		for _, a := range nodes {
			for _, b := range nodes {
				a.mu.Lock()
				follow := make([]feed.ID, 0, len(a.follow))
				for id := range a.follow {
					follow = append(follow, id)
				}
				a.mu.Unlock()
				for _, id := range follow {
					x, _ := a.store.State(id)
					y, _ := b.store.State(id)
					if x.Settled == nil || y.Settled == nil || *x.Settled != *y.Settled {
						return false
					}
				}
			}
		}
		return true
	}
}

// events returns the events of some types, oldest first, with their details.
func (r *running) logged(types ...eventlog.Type) []eventlog.Event {
	r.tb.Helper()
	r.Node.events.Flush()
	all, _, err := r.Node.events.Query(eventlog.Query{Types: types, Limit: eventlog.MaxLimit})
	if err != nil {
		r.tb.Fatal(err)
	}
	return all
}

func (r *running) awaitEvent(d eventlog.Detail) eventlog.Event {
	r.tb.Helper()
	var all []eventlog.Event
	await(r.tb, "event "+string(d.Type()), func() bool { all = r.logged(d.Type()); return len(all) > 0 })
	if err := json.Unmarshal(all[0].Details, &d); err != nil && !json.Valid(all[0].Details) {
		r.tb.Fatal(err)
	}
	return all[0]
}

// names returns every live name of a location, sorted.
func (r *running) names(owner record.DeviceID, l record.LocationID) []string {
	var out []string
	id := feed.ID{Device: owner, Location: l}
	if _, ok := r.store.State(id); !ok {
		return nil
	}
	if err := r.store.Entries(id, func(row store.Row) error {
		if rec, err := record.Decode(row.Key, row.Record); err == nil && !record.IsTombstone(row.Record) {
			out = append(out, rec.(record.File).Name)
		}
		return nil
	}); err != nil && !errors.Is(err, store.ErrUnknownFeed) {
		r.tb.Error(err)
	}
	slices.Sort(out)
	return out
}

// touch makes a file in a folder.
func touch(tb testing.TB, folder, name string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(name), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// copyTree copies a folder as a backup program would, file by file.
func copyTree(tb testing.TB, from, to string) {
	tb.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		tb.Fatalf("copy: %v: %s", err, out)
	}
}

func connected(a, b *running) func() bool {
	return func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		p := a.peers[b.self]
		return p != nil && p.session != nil && p.told
	}
}

func pair(tb testing.TB) (a, b *running, home, folder string, loc record.LocationID) {
	tb.Helper()
	home, folder = filepath.Join(tb.TempDir(), "a"), tb.TempDir()
	touch(tb, folder, "one")
	a = start(tb, home, "a")
	loc = a.index(folder)
	b = start(tb, filepath.Join(tb.TempDir(), "b"), "b")
	b.joins(a)
	await(tb, "both in step", inStep(a, b))
	return a, b, home, folder, loc
}

func replace(tb testing.TB, dir, by string) {
	tb.Helper()
	if err := os.RemoveAll(dir); err != nil {
		tb.Fatal(err)
	}
	if by != "" {
		copyTree(tb, by, dir)
	}
}

// A's store is put back to what it was before two files came, or deleted, while its key and marker stay. It
// asks B first, takes back its feeds before it writes to them, and B follows without a mismatch.
func TestStoreRolledBack(t *testing.T) {
	for _, wiped := range []bool{false, true} {
		t.Run(map[bool]string{false: "restored", true: "wiped"}[wiped], func(t *testing.T) {
			a, b, home, folder, loc := pair(t)
			self := a.self
			a.stop()
			old := filepath.Join(t.TempDir(), "old")
			copyTree(t, filepath.Join(home, "store"), old)
			a = start(t, home, "renamed")
			touch(t, folder, "two")
			second := t.TempDir()
			touch(t, second, "three")
			more := a.index(second)
			await(t, "the second file at B", func() bool { return slices.Contains(b.names(self, loc), "two") })
			await(t, "both in step", inStep(a, b))
			before, _ := b.store.State(feed.ID{Device: self})
			a.stop()
			if wiped {
				old = ""
			}
			replace(t, filepath.Join(home, "store"), old)

			a = start(t, home, "")
			if !a.store.RolledBack() {
				t.Fatal("the store does not know that it is older than its marker")
			}
			defer func() {
				if t.Failed() {
					for _, n := range []*running{a, b} {
						for _, st := range n.store.States() {
							t.Logf("%s %v settled %+v floor %d best %d count %d", n.name(), st.Feed, st.Settled != nil, st.Floor.Seq, st.Best.Seq, st.Count)
						}
						for _, e := range n.logged() {
							t.Logf("%s %s %s %s", n.name(), e.Timestamp.Format("05.000"), e.Type, e.Details)
						}
					}
				}
			}()
			await(t, "A in step with B again", func() bool {
				return slices.Equal(a.names(self, loc), []string{"one", "two"}) && slices.Equal(a.names(self, more), []string{"three"}) && inStep(a, b)()
			})
			var d eventlog.FeedRolledBack
			for _, e := range a.logged(d.Type()) {
				if err := json.Unmarshal(e.Details, &d); err != nil {
					t.Fatal(err)
				}
				if d.Feed == (feed.ID{Device: self}).String() && d.Method != "absorb" {
					t.Errorf("the device feed was taken back by a %s", d.Method)
				}
			}
			if d.Feed == "" {
				t.Error("no event feed_rolled_back")
			}
			after, _ := b.store.State(feed.ID{Device: self})
			if after.Settled.Seq <= before.Settled.Seq {
				t.Errorf("A signed at %d, not above %d", after.Settled.Seq, before.Settled.Seq)
			}
			for _, e := range b.logged(eventlog.FeedRescued{}.Type(), eventlog.ReconcileSessionStarted{}.Type()) {
				t.Errorf("B had to mend %s: %s", e.Type, e.Details)
			}
			if r, ok, err := a.store.Register(record.Device(self), record.FieldName); err != nil || !ok || string(r.Value) != "renamed" {
				t.Errorf("A is called %q, %v", r.Value, err)
			}
			a.stop()
			if a = start(t, home, ""); a.store.RolledBack() {
				t.Error("rolled back still")
			}
		})
	}
}

// A location is removed. At the next start nothing is missed.
func TestRemovedLocationIsNotARollback(t *testing.T) {
	a, b, home, _, loc := pair(t)
	if _, err := a.RemoveLocation(t.Context(), loc.String()); err != nil {
		t.Fatal(err)
	}
	await(t, "B forgets the location", func() bool {
		_, held := b.store.State(feed.ID{Device: a.self, Location: loc})
		return !held && !b.follows(feed.ID{Device: a.self, Location: loc})
	})
	a.stop()
	if a = start(t, home, "a"); a.store.RolledBack() {
		t.Error("the store takes itself for rolled back")
	}
	await(t, "both in step", inStep(a, b))
}

// The whole home is copied while nobody runs, and both copies run. One sees that the other signs onto its
// own process, freezes and says so; it still starts, and goes on talking and following.
func TestClone(t *testing.T) {
	a, b, home, folder, loc := pair(t)
	self := a.self
	a.stop()
	clone := filepath.Join(t.TempDir(), "clone")
	copyTree(t, home, clone)
	a = start(t, home, "first")
	c := start(t, clone, "second")
	touch(t, folder, "two")
	await(t, "one of them freezes", func() bool { return a.store.Frozen() || c.store.Frozen() })
	frozen, where := a, home
	if c.store.Frozen() {
		frozen, where = c, clone
	}
	e := frozen.awaitEvent(&eventlog.FeedCloned{})
	if e.PeerDeviceID == "" {
		t.Errorf("who showed it is missing: %+v", e)
	}
	other := t.TempDir()
	touch(t, other, "of b")
	l := b.index(other)
	await(t, "the frozen one hears of B's file", func() bool { return slices.Equal(frozen.names(b.self, l), []string{"of b"}) })
	s, err := frozen.Status(t.Context())
	if err != nil || len(s.Attention) == 0 || s.Attention[0].Severity != "problem" {
		t.Errorf("attention %+v, %v", s.Attention, err)
	}
	frozen.stop()
	again := start(t, where, "third") // another name: what it may not write must not keep it from starting
	if !again.store.Frozen() {
		t.Error("thawed by a restart")
	}
	await(t, "the frozen one is connected again", connected(again, b))
	touch(t, other, "more")
	await(t, "the frozen one follows", func() bool { return slices.Equal(again.names(b.self, l), []string{"more", "of b"}) })
	_, _ = self, loc

	// B's name goes back in time. The frozen one may not write it again, as others would: it puts it aside.
	name, ok, err := again.store.Register(record.Device(b.self), record.FieldName)
	if err != nil || !ok {
		t.Fatal(err)
	}
	older := name
	older.Value, older.Stamp = []byte("older"), name.Stamp-1<<20
	if ack, err := again.receiver.Receive(b.self, b.pushOf(older)); err != nil || ack.Outcome != protocol.Applied {
		t.Fatalf("%+v, %v", ack, err)
	}
	var put eventlog.EntriesSetAside
	if e := again.awaitEvent(put); json.Unmarshal(e.Details, &put) != nil || put.Entries != 1 || put.Feed != (feed.ID{Device: b.self}).String() || e.PeerDeviceID != idText(b.self) {
		t.Errorf("%+v", e)
	}
	if aside, err := again.store.SetAside(); err != nil || len(aside) != 1 || !slices.Equal(aside[0].Append(nil), name.Append(nil)) {
		t.Errorf("put aside: %+v, %v", aside, err)
	}
}

// pushOf makes the batch that puts an older register into the node's device feed, which no store of this
// version would write: as an owner may send that was restored from a backup.
func (r *running) pushOf(older record.Register) *protocol.StateBatch {
	r.tb.Helper()
	v, err := r.store.Serve(feed.ID{Device: r.self})
	if err != nil {
		r.tb.Fatal(err)
	}
	defer v.Close()
	prev := *v.State.Settled
	entry := feed.Entry{Key: older.Key(), Seq: prev.Seq + 1, Record: older.Append(nil)}
	refs := []feed.Ref{}
	err = v.After(0, func(e feed.Entry) error {
		if !bytes.Equal(e.Key, entry.Key) {
			refs = append(refs, feed.Ref{Seq: e.Seq, Digest: e.Digest()})
		}
		return nil
	})
	if err != nil {
		r.tb.Fatal(err)
	}
	refs = append(refs, feed.Ref{Seq: entry.Seq, Digest: entry.Digest()})
	next := prev
	next.Seq, next.Count, next.Root = entry.Seq, uint64(len(refs)), feed.DefaultShape.Root(refs, entry.Seq)
	return &protocol.StateBatch{Session: protocol.NewSessionID(), Prev: prev, Entries: []feed.Entry{entry}, Next: next.Sign(r.key)}
}
