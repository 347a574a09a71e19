package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"peerdex/api"
	"peerdex/node"
)

// output is a writer that several goroutines may use.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// running is a start that goes on.
type running struct {
	out, err output
	exit     chan int
	cancel   func() // what SIGINT and SIGTERM do
}

func (b *bench) start(args ...string) *running {
	b.t.Helper()
	r := &running{exit: make(chan int, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	a := b.app(nil, nil)
	a.out, a.err = &r.out, &r.err
	r.cancel = cancel
	go func() { r.exit <- a.main(ctx, append([]string{"start"}, args...)) }()
	b.t.Cleanup(cancel)
	return r
}

// wait waits until text stands on stdout.
func (r *running) wait(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(r.out.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %q, stderr %q", text, r.out.String(), r.err.String())
		}
	}
}

func (r *running) code(t *testing.T) int {
	t.Helper()
	select {
	case code := <-r.exit:
		return code
	case <-time.After(10 * time.Second):
		t.Fatal("start did not end")
		return -1
	}
}

// starter is a bench whose start opens the fake; got is what it was opened with.
func starter(t *testing.T) (b *bench, got *nodeConfig) {
	b = newHome(t)
	got = new(nodeConfig)
	b.open = func(_ context.Context, cfg nodeConfig) (daemon, error) {
		*got = cfg
		return b.fake, nil
	}
	return b, got
}

const lastLine = "Runs until Ctrl-C"

func TestStart(t *testing.T) {
	b, cfg := starter(t)
	dir := t.TempDir()
	r := b.start(dir, "--name", "studio", "--listen", "/ip4/127.0.0.1/tcp/0", "--pubsub", "off", "--mdns", "off", "--rescan", "5m", "--push", "50", "--bulk", "500", "--snapshot", "900")
	r.wait(t, lastLine)
	golden(t, "start.txt", strings.ReplaceAll(r.out.String(), dir, "DIR"))
	if cfg.Home != b.home || cfg.Name != "studio" || cfg.Pubsub || cfg.MDNS || cfg.Rescan != 5*time.Minute || cfg.Thresholds != (node.Thresholds{Push: 50, Bulk: 500, Snapshot: 900}) || len(cfg.Listen) != 1 || cfg.Version != version {
		t.Errorf("opened with %+v", *cfg)
	}
	for path, want := range map[string]fs.FileMode{b.home: 0o700 | fs.ModeDir, filepath.Join(b.home, "peer.sock"): 0o600 | fs.ModeSocket} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}

	// a second start is refused, and the first goes on
	if code, _, stderr := b.run("start", dir); code != 7 || !strings.Contains(stderr, "peer add "+dir) {
		t.Errorf("second start: exit %d, %q", code, stderr)
	}
	if code, _, _ := b.run("status"); code != 0 {
		t.Error("the first start no longer answers")
	}

	r.cancel()
	if code := r.code(t); code != 0 {
		t.Errorf("exit %d after a signal: %s", code, r.err.String())
	}
	if want := "add " + dir + " as  without  hash \ninvite\nended\nclosed"; b.fake.log() != want {
		t.Errorf("the node did %q, want %q", b.fake.log(), want)
	}
	if _, err := os.Lstat(filepath.Join(b.home, "peer.sock")); err == nil {
		t.Error("the socket was left behind")
	}
}

// A member that is no admin may not invite others. It starts all the same, without a join line: starting it
// a second time once ended with exit 4.
func TestStartWithoutInvite(t *testing.T) {
	b, _ := starter(t)
	b.open = func(context.Context, nodeConfig) (daemon, error) { return member{b.fake}, nil }
	r := b.start()
	r.wait(t, lastLine)
	if strings.Contains(r.out.String(), "join") {
		t.Errorf("printed %q", r.out.String())
	}
	r.cancel()
	if code := r.code(t); code != 0 {
		t.Errorf("exit %d: %s", code, r.err.String())
	}
}

// member is a fake whose device is no admin.
type member struct{ *fake }

func (member) Invite(context.Context, node.InviteRequest) (node.InviteView, error) {
	return node.InviteView{}, &node.Problem{Code: node.CodeNotAllowed, Message: "cannot invite: this device is not an admin of the library"}
}

// A folder that is indexed already is not added again, and one around it is refused.
func TestStartKnownFolder(t *testing.T) {
	dir := t.TempDir()
	b, _ := starter(t)
	known := &knowing{fake: b.fake, path: dir}
	b.open = func(context.Context, nodeConfig) (daemon, error) { return known, nil }
	r := b.start(dir)
	r.wait(t, lastLine)
	r.cancel()
	if r.code(t); strings.Contains(b.fake.log(), "add") {
		t.Errorf("added again: %s", b.fake.log())
	}
	r = b.start(filepath.Dir(dir))
	if code := r.code(t); code != 7 || !strings.Contains(r.err.String(), "overlaps") || strings.Contains(b.fake.log(), "add") {
		t.Errorf("exit %d, %s, %s", code, r.err.String(), b.fake.log())
	}
}

// knowing has one location.
type knowing struct {
	*fake
	path string
}

func (k *knowing) Locations(context.Context) ([]node.LocationView, error) {
	return []node.LocationView{{Self: true, Path: k.path, Files: 3, State: "watching"}}, nil
}

func TestStartJoin(t *testing.T) {
	b, _ := starter(t)
	b.in = "peer join '" + goodAddr + "#k7f3-9qxe'\n"
	r := b.start("--join", "-")
	r.wait(t, "in step with nas")
	r.cancel()
	if code := r.code(t); code != 0 {
		t.Errorf("exit %d: %s", code, r.err.String())
	}
	if want := "join " + goodAddr + " secret k7f3-9qxe\nended\nclosed"; b.fake.log() != want {
		t.Errorf("the node did %q, want %q", b.fake.log(), want)
	}
	if out := r.out.String(); strings.Contains(out, "#") || strings.Index(out, "joined the library of nas") > strings.Index(out, lastLine) {
		t.Errorf("%s", out)
	}
}

// A start tells who joins while it runs, not who did before, and not that it joined itself.
func TestStartTellsJoins(t *testing.T) {
	b, _ := starter(t)
	go b.fake.join(atticID, "before")
	for len(b.fake.wake) == 0 {
		time.Sleep(time.Millisecond)
	}
	r := b.start()
	r.wait(t, lastLine)
	b.fake.join(laptopID, "itself")
	b.fake.join(nasID, "nas\x1b[2J")
	b.fake.join(nanoID, "nanopi")
	r.wait(t, "nanopi joined\n")
	r.cancel()
	r.code(t)
	if _, told, _ := strings.Cut(r.out.String(), "closes.\n"); told != "nas\\x1b[2J joined\nnanopi joined\n" {
		t.Errorf("told %q", told)
	}
}

// The same command line a second time just starts, and while that runs does not tell to join either.
func TestStartJoinedAlready(t *testing.T) {
	b, _ := starter(t)
	line := "/ip4/192.168.1.20/udp/4001/quic-v1/p2p/" + memberID + "#k7f3-9qxe"
	b.open = func(context.Context, nodeConfig) (daemon, error) { return joined{b.fake}, nil }
	r := b.start("--join", line)
	r.wait(t, lastLine)
	if !strings.Contains(r.err.String(), "studio is in this library already") || strings.Contains(b.fake.log(), "join") {
		t.Errorf("%q, %s", r.err.String(), b.fake.log())
	}
	if code, _, stderr := b.run("start", "--join", line); code != 7 || !strings.Contains(stderr, "try:   peer status") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	r.cancel()
	if code := r.code(t); code != 0 {
		t.Errorf("exit %d: %s", code, r.err.String())
	}
}

const memberID = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"

// joined is a fake with the device that goodAddr leads to.
type joined struct{ *fake }

func (j joined) Devices(ctx context.Context) ([]node.DeviceView, error) {
	list, err := j.fake.Devices(ctx)
	return append(list, node.DeviceView{ID: memberID, Name: "studio"}), err
}

func (j joined) Status(ctx context.Context) (node.Status, error) {
	st, err := j.fake.Status(ctx)
	st.Devices, _ = j.Devices(ctx)
	return st, err
}

// `peer ls` of a path through a symbolic link finds the folder as it is known.
func TestLsThroughLink(t *testing.T) {
	b := newBench(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "missing-link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := b.run("ls", link)
	if log := b.fake.log(); code != 0 || !strings.HasPrefix(log, "list "+laptopID+" "+link+"\nlist "+laptopID+" "+dir) {
		t.Errorf("exit %d, %s, %s", code, stderr, log)
	}
}

// A join that is refused ends the start, before a folder was added.
func TestStartJoinRefused(t *testing.T) {
	b, _ := starter(t)
	b.fake.problem = &node.Problem{Code: node.CodeInviteExpired, Message: "the invite expired 3 min ago", Cause: "c", Try: "on laptop run `peer invite`"}
	r := b.start(t.TempDir(), "--join", goodAddr+"#k7f3-9qxe")
	if code := r.code(t); code != 4 || !strings.Contains(r.err.String(), "expired 3 min ago") || r.out.String() != "" {
		t.Errorf("exit %d, %q, %q", code, r.err.String(), r.out.String())
	}
	if strings.Contains(b.fake.log(), "add") {
		t.Errorf("the node did %s", b.fake.log())
	}
}

func TestStartJSON(t *testing.T) {
	b, _ := starter(t)
	r := b.start("--json")
	r.wait(t, "\n}\n")
	r.cancel()
	r.code(t)
	if doc := one(t, r.out.String()); doc["schema"] != "peer.start/v1" || doc["invite"] == nil {
		t.Errorf("%v", doc)
	}
}

// The socket of a process that died is replaced.
func TestStaleSocket(t *testing.T) {
	b, _ := starter(t)
	path := filepath.Join(b.home, "peer.sock")
	l, err := api.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	saved := path + ".saved" // closing removes the socket, death does not
	if err := os.Rename(path, saved); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.Rename(saved, path); err != nil {
		t.Fatal(err)
	}
	if code, _, _ := b.run("status"); code != 3 {
		t.Errorf("status with a dead daemon: exit %d", code)
	}
	r := b.start()
	r.wait(t, lastLine)
	if code, _, _ := b.run("status"); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestStop(t *testing.T) {
	b := newBench(t)
	code, out, stderr := b.run("stop")
	if code != 0 || out != "stopped (pid 1073741824), ran 2h 34m\n" || stderr != "" {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	b = newBench(t)
	b.fake.stopped = func() {} // never
	code, _, stderr = b.run("stop", "--timeout", "1s")
	if code != 7 || !strings.Contains(stderr, "has not ended within 1.0 s") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// Where things lie, by environment.
func TestPaths(t *testing.T) {
	for name, c := range map[string]struct {
		env          map[string]string
		flag         string
		home, socket string
	}{
		"XDG":       {env: map[string]string{"HOME": "/h", "XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": "/run/user/7"}, home: "/d/peer", socket: "/run/user/7/peer/peer.sock"},
		"defaults":  {env: map[string]string{"HOME": "/h"}, home: "/h/.local/share/peer", socket: "/h/.local/share/peer/peer.sock"},
		"relative":  {env: map[string]string{"HOME": "/h", "XDG_DATA_HOME": "d", "XDG_RUNTIME_DIR": "r"}, home: "/h/.local/share/peer", socket: "/h/.local/share/peer/peer.sock"},
		"PEER_HOME": {env: map[string]string{"HOME": "/h", "PEER_HOME": "/p", "XDG_RUNTIME_DIR": "/run/user/7"}, home: "/p", socket: "/p/peer.sock"},
		"--home":    {env: map[string]string{"PEER_HOME": "/p"}, flag: "/f", home: "/f", socket: "/f/peer.sock"},
		"socket":    {env: map[string]string{"PEER_HOME": "/p", "PEER_SOCKET": "/s/x"}, home: "/p", socket: "/s/x"},
	} {
		a := &app{env: func(k string) string { return c.env[k] }, home: c.flag}
		p, err := a.paths()
		if err != nil || p.home != c.home || p.socket != c.socket {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	a := &app{env: func(string) string { return "" }}
	if _, err := a.paths(); api.AsProblem(err).Code != node.CodeUsage {
		t.Errorf("without HOME: %v", err)
	}
}

// What was called off because the daemon ends is no failure; what failed beside it is.
func TestApartFromStop(t *testing.T) {
	failed := errors.New("disk on fire")
	stopped := fmt.Errorf("serve: %w", context.Canceled)
	for _, c := range []struct{ err, want error }{
		{nil, nil},
		{stopped, nil},
		{errors.Join(stopped, nil, errors.Join(context.Canceled)), nil},
		{failed, failed},
		{errors.Join(stopped, errors.Join(failed)), failed},
	} {
		if got := apartFromStop(c.err); (got == nil) != (c.want == nil) || c.want != nil && !errors.Is(got, c.want) {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
