package integration

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/metrics"
	"peerdex/node"
)

// The tests of this package start real programs on real sockets and disks, and kill some of them.

// patience is how long a condition may take to come true; on a quiet machine all do within a second or
// two. It bounds a hang, it asserts no speed.
const patience = 2 * time.Minute

// eventually waits until holds returns "", which otherwise says what is missing.
func eventually(t testing.TB, what string, holds func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		missing := holds()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %s", what, patience, missing)
		}
		<-time.After(pause)
	}
}

// tempDir returns a directory with a path short enough for a socket in it.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "px")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// peer is one device: a home directory and, while it runs, a process.
type peer struct {
	t      testing.TB
	name   string
	home   string
	flags  []string // of every start
	dies   string   // where its next process is to die, as package failpoint names it; empty: nowhere
	client *api.Client

	cmd    *exec.Cmd // nil while it does not run
	exited chan struct{}
	code   int // exit code, once exited
	stderr *lockedBuffer
	lines  []string // what every process of it wrote to stderr
}

// lockedBuffer is a bytes.Buffer that may be read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// local are the flags of a peer that listens on TCP and QUIC of the loopback interface.
var local = []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"}

// newPeer returns a device that does not run yet. flags are given at every start; without --listen among
// them it listens on loopback.
func newPeer(t testing.TB, name string, flags ...string) *peer {
	t.Helper()
	if flags = slices.Clone(flags); !slices.Contains(flags, "--listen") {
		flags = slices.Concat(local, flags)
	}
	p := &peer{t: t, name: name, home: tempDir(t), flags: flags}
	p.client = api.NewClient(filepath.Join(p.home, "peer.sock"))
	t.Cleanup(func() {
		if t.Failed() {
			p.dump()
		}
		p.end()
		p.client.Close()
	})
	return p
}

// dump logs all that is known of the peer: for tests that have failed.
func (p *peer) dump() {
	var b strings.Builder
	fmt.Fprintf(&b, "=== %s: %s\n", p.name, p.home)
	if p.cmd != nil {
		p.lines = append(p.lines, p.stderr.String())
	}
	fmt.Fprintf(&b, "%s", strings.Join(p.lines, "--- next process\n"))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if st, err := p.client.Status(ctx); err == nil {
		text, _ := json.MarshalIndent(st, "", " ")
		fmt.Fprintf(&b, "\n%s\n", text)
	}
	_, err := p.client.Events(ctx, api.EventQuery{}, func(e eventlog.Event) error {
		fmt.Fprintf(&b, "%s %s %s %s\n", e.Timestamp.Format("15:04:05.000"), e.Type, e.Summary, e.Details)
		return nil
	})
	if err != nil {
		fmt.Fprintf(&b, "events: %v\n", err)
	}
	p.t.Log(b.String())
}

// started is what a start prints.
type started struct {
	Status    node.Status         `json:"status"`
	Locations []node.LocationView `json:"locations"`
	Invite    *node.InviteView    `json:"invite"`
}

// start runs the device with args (folders, --join -) and stdin, and returns once it has indexed its
// folders and, if it joins, is a member.
func (p *peer) start(stdin string, args ...string) started {
	p.t.Helper()
	out, err := p.tryStart(stdin, args...)
	if err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	return out
}

// join starts the device as one that joins with line.
func (p *peer) join(line string, folders ...string) started {
	p.t.Helper()
	return p.start(line, append([]string{"--join", "-"}, folders...)...)
}

func (p *peer) tryStart(stdin string, args ...string) (out started, err error) {
	p.t.Helper()
	if p.cmd != nil {
		p.t.Fatalf("%s runs already", p.name)
	}
	all := slices.Concat([]string{"start", "--home", p.home, "--json", "--name", p.name}, p.flags, args)
	binary := &product
	if p.dies != "" {
		binary = &dying
	}
	cmd := exec.Command(binary.binary(p.t), all...)
	cmd.Env = append(p.env(), "PEER_FAILPOINT="+p.dies)
	cmd.Stdin = strings.NewReader(stdin)
	p.stderr = &lockedBuffer{}
	cmd.Stderr = p.stderr
	read, write, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Stdout = write
	if err := cmd.Start(); err != nil {
		p.t.Fatal(errors.Join(err, read.Close(), write.Close()))
	}
	if err := write.Close(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.exited = cmd, make(chan struct{})
	exited := p.exited
	go func() {
		_ = cmd.Wait() // the code says all
		p.code = cmd.ProcessState.ExitCode()
		close(exited)
	}()
	if err = json.NewDecoder(read).Decode(&out); err == nil {
		p.keepPorts(out.Status)
	}
	go func() { // until the process ends
		_, _ = io.Copy(io.Discard, read)
		_ = read.Close()
	}()
	if err != nil {
		p.wait()
		return out, fmt.Errorf("exit %d: %s", p.code, p.lines[len(p.lines)-1])
	}
	return out, nil
}

// keepPorts makes later starts listen where this one does, as a device does that nobody told where to listen:
// two that both come back elsewhere could not find each other.
func (p *peer) keepPorts(st node.Status) {
	for i, f := range p.flags {
		if base, ok := strings.CutSuffix(f, "/tcp/0"); ok {
			p.flags[i] = base + "/tcp/" + port(st, "/tcp/")
		} else if base, ok := strings.CutSuffix(f, "/udp/0/quic-v1"); ok {
			p.flags[i] = base + "/udp/" + port(st, "/udp/") + "/quic-v1"
		}
	}
}

// port returns the port that a device listens on by TCP or UDP.
func port(st node.Status, network string) string {
	for _, a := range st.Listen {
		if _, rest, ok := strings.Cut(a, network); ok {
			number, _, _ := strings.Cut(rest, "/")
			return number
		}
	}
	return "0"
}

func (p *peer) env() []string {
	return []string{"HOME=" + p.home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "PEER_LOG=info", "TZ=UTC", "LANG=C.UTF-8"}
}

// wait blocks until the process has ended.
func (p *peer) wait() {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Errorf("%s has not ended within %v", p.name, patience)
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	p.lines = append(p.lines, p.stderr.String())
	p.cmd = nil
	p.client.Close()
}

// kill ends the process as a power cut would (kill -9).
func (p *peer) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	p.wait()
}

func (p *peer) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// stop ends the process in order; it must exit with 0.
func (p *peer) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.wait()
	if p.code != 0 {
		p.t.Fatalf("%s: exit %d after SIGTERM\n%s", p.name, p.code, p.lines[len(p.lines)-1])
	}
}

// end makes sure that nothing runs any more, however the test ended.
func (p *peer) end() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.wait()
}

// answer is what a command ended with.
type answer struct {
	code           int
	stdout, stderr string
}

// run runs a command on the device's home.
func (p *peer) run(args ...string) answer {
	p.t.Helper()
	cmd := exec.Command(peerBinary(p.t), append(args, "--home", p.home)...)
	cmd.Env = p.env()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() < 0 {
		p.t.Fatalf("peer %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return answer{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// ask runs a command that must succeed and decodes the document it prints.
func (p *peer) ask(v any, args ...string) {
	p.t.Helper()
	a := p.run(append(args, "--json")...)
	if a.code != 0 {
		p.t.Fatalf("%s: peer %s: exit %d\n%s", p.name, strings.Join(args, " "), a.code, a.stderr)
	}
	if err := json.Unmarshal([]byte(a.stdout), v); err != nil {
		p.t.Fatalf("%s: peer %s: %v\n%s", p.name, strings.Join(args, " "), err, a.stdout)
	}
}

// problem runs a command that must fail and returns its exit code and what it says.
func (p *peer) problem(args ...string) (int, node.Problem) {
	p.t.Helper()
	a := p.run(append(args, "--json")...)
	return a.code, problemIn(p.t, a)
}

func problemIn(t testing.TB, a answer) node.Problem {
	t.Helper()
	var doc struct {
		Schema string       `json:"schema"`
		Error  node.Problem `json:"error"`
	}
	line := strings.TrimSpace(a.stderr)
	if i := strings.LastIndex(line, "\n"); i >= 0 {
		line = line[i+1:]
	}
	if err := json.Unmarshal([]byte(line), &doc); err != nil || doc.Schema != api.SchemaError || a.stdout != "" {
		t.Fatalf("exit %d, stdout %q, stderr %q: not an error document", a.code, a.stdout, a.stderr)
	}
	return doc.Error
}

// invite returns a line that lets one device join.
func (p *peer) invite(args ...string) string {
	p.t.Helper()
	var v node.InviteView
	p.ask(&v, append([]string{"invite"}, args...)...)
	return v.Line
}

// viewer is what a device tells about itself: a process through its socket, or a node in this process.
type viewer interface {
	Status(context.Context) (node.Status, error)
	Locations(context.Context) ([]node.LocationView, error)
	Find(context.Context, node.FindQuery, func(node.Entry) error) (node.FindResult, error)
}

func (p *peer) status() node.Status {
	p.t.Helper()
	st, err := p.client.Status(p.t.Context())
	if err != nil {
		p.t.Fatalf("status of %s: %v", p.name, err)
	}
	return st
}

func (p *peer) metrics() metrics.Snapshot {
	p.t.Helper()
	m, err := p.client.Metrics(p.t.Context(), "", "")
	if err != nil {
		p.t.Fatalf("metrics of %s: %v", p.name, err)
	}
	return m
}

// events returns the events of a device that q asks for.
func (p *peer) events(q api.EventQuery) (out []eventlog.Event) {
	p.t.Helper()
	_, err := p.client.Events(p.t.Context(), q, func(e eventlog.Event) error {
		out = append(out, e)
		return nil
	})
	if err != nil {
		p.t.Fatalf("events of %s: %v", p.name, err)
	}
	return out
}

// detail decodes the details of an event.
func detail[D eventlog.Detail](t testing.TB, e eventlog.Event) (d D) {
	t.Helper()
	if err := json.Unmarshal(e.Details, &d); err != nil || e.Type != d.Type() {
		t.Fatalf("details of %s: %v: %s", e.Type, err, e.Details)
	}
	return d
}

// other returns what p shows of the device called name.
func (p *peer) other(name string) (node.DeviceView, bool) {
	p.t.Helper()
	for _, d := range p.status().Devices {
		if d.Name == name && !d.Self {
			return d, true
		}
	}
	return node.DeviceView{}, false
}

// add indexes a folder of a running device.
func (p *peer) add(folder string, args ...string) node.ScanView {
	p.t.Helper()
	var v node.ScanView
	p.ask(&v, append([]string{"add", folder}, args...)...)
	return v
}

// row is one entry of the catalogue, all of it that is the same on every device.
type row struct {
	Device, Location, ID, Kind, Path, Name, Target string
	Size                                           uint64
	Mode                                           uint32
	Modified                                       int64
}

func (r row) String() string {
	return fmt.Sprintf("%q %s %d %o %d of %.8s in %.8s, id %.8s", r.Path, r.Kind, r.Size, r.Mode, r.Modified, r.Device[len(r.Device)-8:], r.Location, r.ID)
}

// place is one location, all of it that is the same on every device.
type place struct {
	ID, Device, Name, Path string
	Files, Dirs, Bytes     uint64
}

// catalogue is a full dump of what a device shows.
type catalogue struct {
	places []place
	rows   []row
	hashes map[string]string // of contents, by the entry's id: they come later than the rest
}

func dumpOf(t testing.TB, v viewer) (c catalogue) {
	t.Helper()
	locations, err := v.Locations(t.Context())
	if err != nil {
		t.Fatalf("locations: %v", err)
	}
	for _, l := range locations {
		c.places = append(c.places, place{l.ID, l.Device, l.Name, l.Path, l.Files, l.Dirs, l.Bytes})
	}
	slices.SortFunc(c.places, func(a, b place) int { return cmp.Compare(a.ID, b.ID) })
	c.hashes = map[string]string{}
	_, err = v.Find(t.Context(), node.FindQuery{}, func(e node.Entry) error {
		if e.Hash != "" {
			c.hashes[e.ID] = e.Hash
		}
		r := row{Device: e.Device, Location: e.Location, ID: e.ID, Kind: e.Kind, Path: e.Path, Name: e.Name, Target: e.Target, Size: e.Size, Mode: e.Mode}
		if !e.Modified.IsZero() {
			r.Modified = e.Modified.UnixNano()
		}
		c.rows = append(c.rows, r)
		return nil
	})
	if err != nil {
		t.Fatalf("find: %v", err)
	}
	slices.SortFunc(c.rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Location, b.Location), cmp.Compare(a.ID, b.ID))
	})
	return c
}

func (p *peer) dumpCatalogue() catalogue {
	p.t.Helper()
	return dumpOf(p.t, p.client)
}

// diff says where two catalogues differ, or "".
func (c catalogue) diff(o catalogue) string {
	if !slices.Equal(c.places, o.places) {
		return fmt.Sprintf("locations differ: %v and %v", c.places, o.places)
	}
	if slices.Equal(c.rows, o.rows) {
		return ""
	}
	missing := func(a, b []row) (out []row) {
		has := map[row]bool{}
		for _, r := range b {
			has[r] = true
		}
		for _, r := range a {
			if !has[r] {
				out = append(out, r)
			}
		}
		return out
	}
	first, second := missing(c.rows, o.rows), missing(o.rows, c.rows)
	return fmt.Sprintf("%d and %d rows; only the first has %d: %v; only the second has %d: %v", len(c.rows), len(o.rows),
		len(first), first[:min(3, len(first))], len(second), second[:min(3, len(second))])
}

// inStep waits until each of the peers is ready, knows of no change that it or another lacks, and all show
// the same catalogue, which it returns.
func inStep(t testing.TB, peers ...*peer) (c catalogue) {
	t.Helper()
	eventually(t, "in step", func() string {
		var first node.Status
		for i, p := range peers {
			st, err := p.client.Status(t.Context())
			if err != nil {
				return fmt.Sprintf("%s: %v", p.name, err)
			}
			if i == 0 {
				first = st
			}
			if st.State != node.StateReady {
				return fmt.Sprintf("%s is %s: %s", p.name, st.State, st.Reason)
			}
			if st.Files != first.Files || st.Dirs != first.Dirs || st.Bytes != first.Bytes || len(st.Devices) != len(first.Devices) {
				return fmt.Sprintf("%s counts %d files, %d folders, %d bytes of %d devices; %s %d, %d, %d of %d", p.name, st.Files, st.Dirs, st.Bytes, len(st.Devices),
					peers[0].name, first.Files, first.Dirs, first.Bytes, len(first.Devices))
			}
			for _, d := range st.Devices {
				if d.Self || !slices.ContainsFunc(peers, func(o *peer) bool { return o.name == d.Name }) {
					continue
				}
				if d.WeLack == nil || *d.WeLack != 0 || d.ItLacks == nil || *d.ItLacks != 0 || d.Link != node.LinkConnected {
					return fmt.Sprintf("%s and %s are not in step: %s", p.name, d.Name, d.Link)
				}
			}
		}
		c = peers[0].dumpCatalogue()
		for _, p := range peers[1:] {
			other := p.dumpCatalogue()
			if d := c.diff(other); d != "" {
				return fmt.Sprintf("%s and %s: %s", peers[0].name, p.name, d)
			}
			if !maps.Equal(c.hashes, other.hashes) {
				return fmt.Sprintf("%s knows %d hashes, %s %d", peers[0].name, len(c.hashes), p.name, len(other.hashes))
			}
		}
		return ""
	})
	return c
}

// two starts two devices, the second of which has joined the first, each with the folders given.
func two(t testing.TB, foldersA, foldersB []string, flags ...string) (a, b *peer) {
	t.Helper()
	a, b = newPeer(t, "alpha", flags...), newPeer(t, "beta", flags...)
	line := a.start("", foldersA...).Invite.Line
	b.join(line, foldersB...)
	return a, b
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// transportOf returns tcp or quic-v1.
func transportOf(addr string) string {
	if strings.Contains(addr, "/quic-v1") {
		return "quic-v1"
	}
	return "tcp"
}
