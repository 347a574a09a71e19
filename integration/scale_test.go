package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/metrics"
	"peerdex/node"
	"peerdex/protocol"
	"peerdex/snapshot"
)

// Scenarios of a large library. They share one, since to make it is most of the work: SCALE says how many
// files it has.
//
//	SCALE=1000000 go test ./integration -run TestScale -v -timeout 60m

// scale is how many files a large library has.
func scale(t testing.TB) int {
	t.Helper()
	text := os.Getenv("SCALE")
	if text == "" {
		return 50_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 50_000 {
		t.Fatalf("SCALE=%q is no number from 50000", text)
	}
	return n
}

// quickDir returns a directory for very many files, in memory where the system has a place for that: ext4 takes a
// minute to make as many as were removed a moment ago.
func quickDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "px")
	if err != nil {
		return tempDir(t)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// tcp are the flags of a device that a proxy can stand in front of.
var tcp = []string{"--listen", "/ip4/127.0.0.1/tcp/0"}

// large is a library of many files: alpha has indexed them, beta holds the same.
type large struct {
	t    *testing.T
	dir  string // alpha's folder
	a, b *peer
	x    *proxy // between alpha and beta

	count  uint64         // entries in the folder
	head   feed.Head      // of its feed, while transfers are broken off
	size   int64          // of its chunks in a snapshot
	chunks map[string]int // how many a snapshot has of each feed
}

func TestScale(t *testing.T) {
	t.Parallel()
	l := &large{t: t}
	l.indexedWithPeersLive(scale(t))
	l.changedDuringCatchUp()
	l.exported()
	for _, road := range []string{node.StrategyBulk, node.StrategySnapshot} {
		l.cut(road)
		l.donorKilled(road)
		l.receiverKilled(road)
	}
	l.queueOverflows()
	inStep(t, l.a, l.b).wantOnDisk(t, l.dir)
	for _, p := range []*peer{l.a, l.b} {
		wantBalanced(t, p)
	}
	wantEqualOnDisk(t, l.a, l.b)
}

// N21: alpha indexes many files while beta is connected and both go on changing other folders: nothing is lost,
// nothing comes twice, and both say what happened.
func (l *large) indexedWithPeersLive(n int) {
	t := l.t
	t.Helper()
	l.dir = quickDir(t)
	fill(t, l.dir, n)
	small := []string{tempDir(t), tempDir(t)}
	for _, dir := range small {
		fill(t, dir, 10)
	}
	l.a, l.b = newPeer(t, "alpha", tcp...), newPeer(t, "beta", tcp...)
	line := l.a.start("", small[0]).Invite.Line
	l.x = newProxy(t, l.a)
	l.b.join(l.x.line(line), small[1])
	inStep(t, l.a, l.b)

	scanned := make(chan answer, 1)
	go func() { scanned <- l.a.run("add", l.dir, "--json") }()
	for i := 0; len(scanned) == 0; i++ {
		for _, dir := range small {
			write(t, filepath.Join(dir, fmt.Sprint("live ", i)), "")
		}
		same := func(where string, p *peer) {
			eventually(t, "a change while alpha scans, on "+p.name, func() string {
				if got := p.found("path:" + where + ` "live ` + fmt.Sprint(i) + `"`); len(got) != 1 {
					return fmt.Sprint(got)
				}
				return ""
			})
		}
		same(small[0], l.b)
		same(small[1], l.a)
	}
	if r := <-scanned; r.code != 0 {
		t.Fatalf("add: exit %d: %s", r.code, r.stderr)
	}
	l.count = uint64(n + n/100)
	l.settled(l.b)

	var announced eventlog.BulkIndexAnnounced
	es := l.a.events(api.EventQuery{Types: []string{string(announced.Type())}})
	if len(es) != 1 {
		t.Fatalf("%d large scans are announced", len(es))
	}
	if announced = detail[eventlog.BulkIndexAnnounced](t, es[0]); announced.EntryCount != int64(l.count) || announced.Told != 1 {
		t.Errorf("announced: %+v, want %d entries", announced, l.count)
	}
	es = l.b.events(api.EventQuery{Types: []string{string(eventlog.BulkIndexDecided{}.Type())}})
	if len(es) != 1 {
		t.Fatalf("%d large scans are decided on", len(es))
	}
	if d := detail[eventlog.BulkIndexDecided](t, es[0]); d.EntryCount != int64(l.count) || d.Decision != node.DecideFetch && d.Decision != node.DecideInStep {
		t.Errorf("decided: %+v", d)
	}
	for _, p := range []*peer{l.a, l.b} {
		m := p.metrics()
		if m.Errors.Counts.Total != 0 || m.Operations.FailedBroadcasts.Total != 0 {
			t.Errorf("%s: errors %v %v, failed broadcasts %v", p.name, m.Errors.Counts.By, m.Errors.Recent, m.Operations.FailedBroadcasts.By)
		}
		if bad := p.events(api.EventQuery{MinSeverity: "warning"}); len(bad) != 0 {
			t.Errorf("%s: %s %s", p.name, bad[0].Type, bad[0].Summary)
		}
		wantBalanced(t, p)
	}
	m := l.b.metrics()
	t.Logf("indexed with beta live: received %v, processed %v, chunks %v, roads %v", m.Operations.Received.By, m.Operations.Processed.By, m.Operations.Chunks.By, m.Operations.Strategies)
}

// exported notes the chunks that a snapshot of the folder has.
func (l *large) exported() {
	l.t.Helper()
	path := filepath.Join(tempDir(l.t), "library")
	l.a.ask(&node.SnapshotView{}, "snapshot", "export", path)
	f, err := snapshot.OpenFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	id := l.a.folderOf(l.a, l.dir).ID
	l.chunks = map[string]int{}
	for _, part := range f.Manifest.Feeds {
		l.chunks[part.Head.Feed.String()] = len(part.Chunks)
		if part.Head.Feed.Location.String() != id {
			continue
		}
		l.head = part.Head
		for _, c := range part.Chunks {
			l.size += int64(c.Size)
		}
		if len(part.Chunks) < 3 {
			l.t.Fatalf("%d chunks: nothing can be cut in the middle", len(part.Chunks))
		}
	}
}

// settled waits until a device holds all of alpha's folder, and no less of anything else.
func (l *large) settled(p *peer) {
	l.t.Helper()
	eventually(l.t, p.name+" holds all", func() string {
		st, err := p.client.Status(l.t.Context())
		if err != nil {
			return err.Error()
		}
		if st.State != node.StateReady {
			return fmt.Sprintf("%s: %s", st.State, st.Reason)
		}
		if at := p.folderOf(l.a, l.dir); at.Files+at.Dirs != l.count {
			return fmt.Sprintf("%d entries of %d", at.Files+at.Dirs, l.count)
		}
		return ""
	})
}

// folderOf returns what a device shows of a folder of another.
func (p *peer) folderOf(owner *peer, dir string) node.LocationView {
	p.t.Helper()
	all, err := p.client.Locations(p.t.Context())
	if err != nil {
		return node.LocationView{}
	}
	for _, v := range all {
		if v.DeviceName == owner.name && v.Path == dir {
			return v
		}
	}
	return node.LocationView{}
}

// joiner starts a device that is to get everything by a road, and returns when a part has come and the rest is
// held back by the proxy through which it speaks to alpha. Meanwhile beta stands still, so that alpha is asked.
func (l *large) joiner(name, road string) (*peer, *proxy) {
	t := l.t
	t.Helper()
	flags := tcp
	if road == node.StrategyBulk {
		flags = slices.Concat(tcp, []string{"--bulk", "1000000000"})
	}
	l.b.signal(syscall.SIGSTOP)
	c, x := newPeer(t, name+" by "+road, flags...), newProxy(t, l.a)
	x.hold(l.size / 2)
	c.join(x.line(l.a.invite()))
	eventually(t, c.name+" has a part", func() string {
		if n := c.parts(road); n == 0 || !x.holding() {
			return fmt.Sprintf("%d parts; held: %v", n, x.holding())
		}
		return ""
	})
	if got := c.folderOf(l.a, l.dir); got.Files+got.Dirs == l.count || c.status().State == node.StateReady {
		t.Fatalf("%s was not held in the middle", c.name)
	}
	return c, x
}

// parts returns how many pages or chunks have come.
func (p *peer) parts(road string) uint64 {
	p.t.Helper()
	m := p.metrics().Operations
	if road == node.StrategySnapshot {
		return m.Chunks.By["peer"]
	}
	return m.Received.Total / protocol.MaxEntries
}

// arrived ends the way of a joiner that held so many chunks when it was started: it holds what alpha does, byte for
// byte; its books are complete; and since it was started at most one page or chunk has come twice.
func (l *large) arrived(c *peer, road string, held int) metrics.Snapshot {
	t := l.t
	t.Helper()
	l.settled(c)
	m := c.metrics()
	o := m.Operations
	if *o.Buffered != 0 {
		t.Errorf("%s: %d changes are neither applied nor dropped", c.name, *o.Buffered)
	}
	wantBalanced(t, c)
	again := o.Processed.By["dropped"] + o.Processed.By["duplicate"] + o.Processed.By["superseded"]
	t.Logf("%s: received %v, processed %v, chunks %v", c.name, o.Received.By, o.Processed.By, o.Chunks.By)
	if road == node.StrategySnapshot {
		wanted := map[string]int{}
		for _, d := range c.begun() {
			if d.Strategy == road {
				wanted[d.Feed] = l.chunks[d.Feed]
			}
		}
		most := 1
		for _, n := range wanted {
			most += n
		}
		if got := int(o.Chunks.By["peer"]) + held; got < l.chunks[l.head.Feed.String()] || got > most {
			t.Errorf("%s: %d chunks came and %d were there, of %v", c.name, o.Chunks.By["peer"], held, wanted)
		}
		if o.Chunks.By["kept"] == 0 {
			t.Errorf("%s began anew", c.name)
		}
	} else if again > protocol.MaxEntries {
		t.Errorf("%s: %d entries came again", c.name, again)
	}
	c.stop()
	f := openHome(t, c.home)
	defer f.close(t)
	f.wantWhole(t)
	if st, _ := f.State(l.head.Feed); st.Settled == nil || *st.Settled != l.head || st.Count != l.head.Count {
		t.Errorf("%s holds %+v, want %s", c.name, st, headText(l.head))
	}
	return m
}

// begun returns which sessions a device began for feeds that it did not hold.
func (p *peer) begun() (out []eventlog.BackfillSessionStarted) {
	for _, e := range p.events(api.EventQuery{Types: []string{string(eventlog.BackfillSessionStarted{}.Type())}}) {
		out = append(out, detail[eventlog.BackfillSessionStarted](p.t, e))
	}
	return out
}

// donors returns which devices the folder was fetched from, in order.
func (l *large) donors(c *peer) (out []string) {
	for _, d := range c.begun() {
		if d.Feed == l.head.Feed.String() {
			out = append(out, d.Chosen)
		}
	}
	return out
}

// N15: the connection is cut in mid-transfer: the same donor goes on where it was.
func (l *large) cut(road string) {
	l.t.Helper()
	c, x := l.joiner("cut", road)
	x.cut()
	l.settled(c)
	donors := l.donors(c)
	l.b.signal(syscall.SIGCONT)
	if a := l.a.known("alpha").Short; !slices.Equal(donors, []string{a, a}) {
		l.t.Errorf("%s: asked %v", c.name, donors)
	}
	l.arrived(c, road, 0)
}

// N16: the donor is killed in mid-transfer: the next best, who is no owner, goes on where it was.
func (l *large) donorKilled(road string) {
	l.t.Helper()
	c, x := l.joiner("bereft", road)
	ids := []string{l.a.known("alpha").Short, l.a.known("beta").Short}
	l.b.signal(syscall.SIGCONT)
	eventually(l.t, c.name+" has met beta", func() string {
		if d, ok := c.other("beta"); !ok || d.Link == node.LinkDisconnected || d.WeLack == nil || *d.WeLack == 0 {
			return fmt.Sprintf("%+v", d)
		}
		return ""
	})
	l.a.kill()
	x.open() // what was under way comes, as from any dead process
	l.settled(c)
	if donors := l.donors(c); !slices.Equal(donors, ids) {
		l.t.Errorf("%s: asked %v, want %v", c.name, donors, ids)
	}
	l.arrived(c, road, 0)
	l.a.start("")
	l.settled(l.b)
}

// N17: the receiver is killed in mid-transfer. What is on its disk would be served to nobody unless it is
// whole, and does not come again.
func (l *large) receiverKilled(road string) {
	l.t.Helper()
	t := l.t
	c, x := l.joiner("killed", road)
	c.kill()
	x.open()
	f := openHome(t, c.home)
	f.wantWhole(t)
	st, _ := f.State(l.head.Feed)
	f.close(t)
	chunks, err := filepath.Glob(filepath.Join(c.home, "snapshot", "in", "*"))
	if err != nil {
		t.Fatal(err)
	}
	chunks = slices.DeleteFunc(chunks, func(name string) bool { return filepath.Ext(name) != "" })
	c.start("")
	l.settled(c)
	l.b.signal(syscall.SIGCONT)
	m := l.arrived(c, road, len(chunks))
	switch written := m.Volume.Records.By["entry"]; {
	case road == node.StrategySnapshot && (st.Count != 0 || m.Operations.Chunks.By["kept"] != uint64(len(chunks))):
		t.Errorf("%s: the store held %d entries; %d chunks were kept, of which it used %v", c.name, st.Count, len(chunks), m.Operations.Chunks.By)
	case road == node.StrategyBulk && (st.Settled != nil || st.Count == 0):
		t.Errorf("%s: not killed in the middle: %+v", c.name, st)
	case road == node.StrategyBulk && st.Count+written < l.head.Count:
		t.Errorf("%s: %d entries were there, %d came, of %d", c.name, st.Count, written, l.head.Count)
	}
}

// N11: changes that are made while beta catches up are there afterwards, of the folder that comes and of others.
func (l *large) changedDuringCatchUp() {
	t := l.t
	t.Helper()
	l.b.ask(&node.PauseView{}, "sync", "pause")
	more := scale(t) / 5
	fill(t, filepath.Join(l.dir, "more"), more)
	l.count += uint64(more + more/100 + 1)
	l.settled(l.a)
	l.x.hold(64 << 10)
	l.b.ask(&node.PauseView{}, "sync", "resume")
	eventually(t, "the catch-up is held", func() string {
		if l.x.holding() {
			return ""
		}
		return "not yet"
	})
	if st := l.b.status(); st.State != node.StateCatchingUp {
		t.Fatalf("beta is %s: %s", st.State, st.Reason)
	}
	at := func(name string) string { return filepath.Join(l.dir, name) }
	write(t, at("made meanwhile"), "1")
	if err := errors.Join(os.Rename(at("d000"), at("renamed")), os.RemoveAll(at("d001"))); err != nil {
		t.Fatal(err)
	}
	l.a.edit("tag", "add", "meanwhile", at("d002"))
	l.count -= 100
	l.settled(l.a)
	if st := l.b.status(); st.State != node.StateCatchingUp {
		t.Errorf("beta is %s: %s", st.State, st.Reason)
	}
	l.x.open()
	l.settled(l.b)
	awaitTags(t, "a tag added meanwhile", "alpha", l.dir, map[string]string{"d002": "meanwhile"}, l.b)
	for name, n := range map[string]int{"made meanwhile": 1, "renamed/f00042": 1, "d000/f00042": 0, "d001/f00142": 0} {
		if got := l.b.found(fmt.Sprintf("path:%q %q", filepath.Dir(at(name)), filepath.Base(name))); len(got) != n {
			t.Errorf("beta finds %s as %v", name, got)
		}
	}
}

// N10: more changes at once than the system's queue holds: that is counted and told, the folder is read again,
// and nothing is lost on either device.
func (l *large) queueOverflows() {
	t := l.t
	t.Helper()
	l.a.signal(syscall.SIGSTOP)
	at := func(folder int, name string) string { return filepath.Join(l.dir, fmt.Sprintf("d%03d", folder), name) }
	made := maxQueued(t) + 4096
	for i := range made {
		write(t, at(2+i%400, fmt.Sprintf("g%05d", i)), "")
	}
	for i := range 50 {
		if err := os.Remove(at(2, fmt.Sprintf("f%05d", 200+i))); err != nil {
			t.Fatal(err)
		}
	}
	l.count += uint64(made - 50)
	l.a.signal(syscall.SIGCONT)
	l.settled(l.a)
	l.settled(l.b)
	if n := l.a.metrics().Catalog.Scan.WatchOverflows; n == 0 {
		t.Error("the overflow was not counted")
	}
	eventually(t, "it is told", func() string {
		lost := l.a.events(api.EventQuery{Types: []string{string(eventlog.WatchDegraded{}.Type())}})
		found := l.a.events(api.EventQuery{Types: []string{string(eventlog.WatchRecovered{}.Type())}})
		if len(lost) == 0 || len(found) != len(lost) {
			return fmt.Sprintf("%d times lost, %d recovered", len(lost), len(found))
		}
		return ""
	})
}
