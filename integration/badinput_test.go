package integration

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	corepeer "github.com/libp2p/go-libp2p/core/peer"

	"peerdex/kv"
	"peerdex/node"
)

// wantProblem fails unless a command ends with this exit code and code, says what failed, why and what to
// do, on stderr alone, with and without --json.
func (p *peer) wantProblem(t *testing.T, exit int, code node.Code, args ...string) node.Problem {
	t.Helper()
	got, problem := p.problem(args...)
	if got != exit || problem.Code != code || problem.Message == "" || problem.Cause == "" || problem.Try == "" {
		t.Errorf("peer %s: exit %d, %+v; want exit %d, %s, in three parts", strings.Join(args, " "), got, problem, exit, code)
	}
	plain := p.run(args...)
	if plain.code != exit || plain.stdout != "" {
		t.Errorf("peer %s: exit %d, stdout %q", strings.Join(args, " "), plain.code, plain.stdout)
	}
	for _, part := range []string{"error: ", "cause: ", "try: "} {
		if !strings.Contains(plain.stderr, part) {
			t.Errorf("peer %s: no %q in %q", strings.Join(args, " "), part, plain.stderr)
		}
	}
	return problem
}

// Every line of bad input against running daemons: its exit code, three parts, and nothing is changed.
func TestBadInput(t *testing.T) {
	t.Parallel()
	dir, other := tempDir(t), tempDir(t)
	write(t, filepath.Join(dir, "sub", "file"), "x")
	a, b := two(t, []string{dir}, []string{other})
	twin := newPeer(t, "beton") // so that "be" is ambiguous
	twin.join(a.invite())
	twins := []string{filepath.Join(tempDir(t), "twin"), filepath.Join(tempDir(t), "twig")}
	for _, d := range twins {
		write(t, filepath.Join(d, "f"), "x")
		a.add(d)
	}
	for _, tag := range []string{"beach", "lake"} {
		a.edit("tag", "add", tag, filepath.Join(dir, "sub", "file"))
	}
	inStep(t, a, b, twin)
	state := func() string {
		c := a.dumpCatalogue()
		st := a.status()
		var devices []string
		for _, d := range st.Devices {
			devices = append(devices, d.ID+d.Name)
		}
		slices.Sort(devices)
		return fmt.Sprint(c.places, c.rows, devices, st.State, st.Library, a.tags())
	}
	before := state()
	missing, file := filepath.Join(dir, "missing"), filepath.Join(dir, "sub", "file")
	peerID := unknownPeer(t)
	for _, c := range []struct {
		exit int
		code node.Code
		args []string
	}{
		// unknown or ambiguous names
		{5, node.CodeUnknownDevice, []string{"find", "x", "--on", "nobody"}},
		{5, node.CodeUnknownDevice, []string{"ls", "nobody:/x"}},
		{5, node.CodeUnknownDevice, []string{"sync", "pause", "--device", "nobody"}},
		{5, node.CodeUnknownDevice, []string{"sync", "events", "--peer", "nobody"}},
		{5, node.CodeUnknownDevice, []string{"sync", "metrics", "--device", "nobody"}},
		{2, node.CodeAmbiguous, []string{"find", "x", "--on", "be"}},
		{2, node.CodeAmbiguous, []string{"sync", "now", "--device", "be"}},
		{5, node.CodeUnknownLocation, []string{"locations", "show", "nowhere"}},
		{5, node.CodeUnknownLocation, []string{"locations", "remove", "nowhere"}},
		{2, node.CodeAmbiguous, []string{"locations", "remove", "twi"}},
		{5, node.CodeNotFound, []string{"ls", missing}},
		{7, node.CodeConflict, []string{"locations", "remove", "beta:" + filepath.Base(other)}},
		// tags and notes
		{5, node.CodeNotFound, []string{"tag", "add", "new", missing}},
		{5, node.CodeNotFound, []string{"tag", "remove", "lake", missing}},
		{5, node.CodeNotFound, []string{"note", missing, "text"}},
		{5, node.CodeUnknownTag, []string{"tag", "remove", "nosuch", file}},
		{7, node.CodeConflict, []string{"tag", "rename", "lake", "Beach"}},
		{7, node.CodeConflict, []string{"tag", "rename", "later", "soon"}},
		{2, node.CodeUsage, []string{"tag", "add", "new", "--query", ""}},
		{2, node.CodeUsage, []string{"tag", "rename", "lake", "k\xff"}},
		{2, node.CodeUsage, []string{"note", file, "\xff\xfe"}},
		{2, node.CodeUsage, []string{"devices", "rename", "d\xff"}},
		// bad times and numbers
		{2, node.CodeBadTime, []string{"sync", "events", "--since", "1 hour before"}},
		{2, node.CodeBadTime, []string{"sync", "events", "--until", "yesterweek"}},
		{2, node.CodeUsage, []string{"sync", "events", "--since", "1h", "--until", "2h"}},
		{2, node.CodeUsage, []string{"sync", "pause", "--for", "soon"}},
		{2, node.CodeUsage, []string{"find", "x", "--sort", "colour"}},
		{2, node.CodeUsage, []string{"invite", "--uses", "0"}},
		{2, node.CodeUsage, []string{"fnid", "x"}},
		// bad addresses
		{2, node.CodeBadAddress, []string{"join", "192.168.1.20:4001"}},
		{2, node.CodeBadAddress, []string{"join", "/ip4/127.0.0.1/tcp/4001#k7f3"}},
		{2, node.CodeBadAddress, []string{"join", "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWnonsense#k7f3"}},
		// folders
		{5, node.CodeFolderMissing, []string{"add", missing}},
		{2, node.CodeNotFolder, []string{"add", file}},
		{7, node.CodeFolderOverlap, []string{"add", filepath.Join(dir, "sub")}},
		{7, node.CodeFolderOverlap, []string{"add", filepath.Dir(twins[0])}},
		{7, node.CodeFolderOverlap, []string{"add", dir}},
		{7, node.CodeFolderOverlap, []string{"add", a.home}},
		// a second process on one home
		{7, node.CodeAlreadyRunning, []string{"start"}},
		{7, node.CodeAlreadyRunning, []string{"start", other}},
		// this device is in a library with others
		{7, node.CodeConflict, []string{"join", "/ip4/127.0.0.1/tcp/4001/p2p/" + peerID + "#" + secretOf(a.invite())}},
	} {
		t.Run(strings.Join(c.args[:min(len(c.args), 3)], " "), func(t *testing.T) {
			a.wantProblem(t, c.exit, c.code, c.args...)
		})
	}
	if after := state(); after != before {
		t.Errorf("something was changed:\n%s\n%s", before, after)
	}
}

func secretOf(line string) string {
	_, secret, _ := strings.Cut(line, "#")
	return secret
}

// unknownPeer returns the peer ID of a device that nobody knows.
func unknownPeer(t testing.TB) string {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := corepeer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// Invites that are wrong, used up or expired, and addresses nobody answers at: by a running daemon's join,
// and by start --join. The device stays what it was, and can still join with a good line.
func TestBadInvites(t *testing.T) {
	t.Parallel()
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	first := a.start("")
	own := b.start("").Status.Library
	line := a.invite()
	at, _, _ := strings.Cut(line, "#")
	good := a.invite()

	wrong := at + "#" + otherSecret(t, b)
	b.wantProblem(t, 4, node.CodeInviteWrong, "join", wrong)

	guest := newRogue(t, first)
	if err := guest.pair(line); err != nil { // somebody else was faster
		t.Fatal(err)
	}
	b.wantProblem(t, 4, node.CodeInviteUsed, "join", line)

	var short node.InviteView
	a.ask(&short, "invite", "--ttl", "1s")
	eventually(t, "the invite expires", func() string {
		if time.Now().Before(short.Expires) {
			return "not yet"
		}
		return ""
	})
	b.wantProblem(t, 4, node.CodeInviteExpired, "join", short.Line)

	// every address with its result
	nobody := unknownPeer(t)
	closed := []string{closedPort(t), closedPort(t)}
	unreachable := fmt.Sprintf("/ip4/127.0.0.1/tcp/%s/p2p/%s,/ip4/127.0.0.1/tcp/%s/p2p/%s#%s", closed[0], nobody, closed[1], nobody, secretOf(good))
	problem := b.wantProblem(t, 8, node.CodeUnreachable, "join", unreachable)
	var tried []node.AddressResult
	text, err := json.Marshal(problem.Details)
	if err == nil {
		err = json.Unmarshal(text, &tried)
	}
	if err != nil || len(tried) != 2 || tried[0].Result != "connection refused" || tried[1].Result != "connection refused" {
		t.Errorf("tried %s", text)
	}
	for _, port := range closed {
		if !strings.Contains(string(text), "/tcp/"+port) {
			t.Errorf("port %s is not among %s", port, text)
		}
	}

	if st := b.status(); st.Library != own || len(st.Devices) != 1 {
		t.Errorf("after all that the device is in %s with %d devices", st.Library, len(st.Devices))
	}
	for _, c := range []struct {
		exit int
		code node.Code
		line string
	}{{4, node.CodeInviteWrong, wrong}, {8, node.CodeUnreachable, unreachable}, {2, node.CodeBadAddress, "nonsense"}} {
		fresh := newPeer(t, "fresh")
		fresh.wantProblem(t, c.exit, c.code, "start", "--join", c.line, "--listen", "/ip4/127.0.0.1/tcp/0")
		if st := fresh.join(a.invite()).Status; st.Library != first.Status.Library { // on the home that the first try made
			t.Errorf("after %s a good line does not help: %+v", c.code, st)
		}
	}
	b.ask(&node.JoinProgress{}, "join", good)
	if st := b.status(); st.Library != first.Status.Library {
		t.Error("the good line did not help")
	}
}

// otherSecret returns a secret that only p knows.
func otherSecret(t testing.TB, p *peer) string {
	t.Helper()
	return secretOf(p.invite())
}

// closedPort returns a port that nobody listens on.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}

// Starts that cannot be: nothing is left that was not there before.
func TestBadStarts(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	write(t, filepath.Join(dir, "sub", "file"), "x")
	p := newPeer(t, "alpha")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, taken, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		exit int
		code node.Code
		args []string
	}{
		{5, node.CodeFolderMissing, []string{filepath.Join(dir, "missing")}},
		{2, node.CodeNotFolder, []string{filepath.Join(dir, "sub", "file")}},
		{7, node.CodeFolderOverlap, []string{dir, filepath.Join(dir, "sub")}},
		{2, node.CodeBadAddress, []string{"--listen", "127.0.0.1:4001"}},
		{2, node.CodeUsage, []string{"--pubsub", "maybe"}},
		{2, node.CodeUsage, []string{"--rescan", "often"}},
	} {
		p.wantProblem(t, c.exit, c.code, append([]string{"start"}, c.args...)...)
	}
	left, err := os.ReadDir(p.home)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	p.wantProblem(t, 7, node.CodePortInUse, "start", "--listen", "/ip4/127.0.0.1/tcp/"+taken)
	for _, args := range [][]string{{"status"}, {"find", "x"}, {"add", dir}, {"stop"}, {"sync", "status"}, {"invite"}, {"devices"}} {
		p.wantProblem(t, 3, node.CodeNoDaemon, args...)
	}

	p.start("", dir)
	p.stop()
	before := treeOf(t, p.home)
	f := openHome(t, p.home)
	setSchema(t, f, 99)
	f.close(t)
	p.wantProblem(t, 7, node.CodeNewerSchema, "start", "--listen", "/ip4/127.0.0.1/tcp/0")
	if after := treeOf(t, p.home); !slices.Equal(before, after) {
		t.Errorf("the home of a newer version was changed: %v, then %v", before, after)
	}

	if err := os.Chmod(p.home, 0o755); err != nil {
		t.Fatal(err)
	}
	p.wantProblem(t, 7, node.CodeHomeUnsafe, "start")
}

// setSchema writes the version of the layout that a store has, as a newer program would.
func setSchema(t testing.TB, f *files, version uint32) {
	t.Helper()
	err := f.Update(func(tx kv.Tx) error {
		return tx.Set([]byte("aschema"), binary.BigEndian.AppendUint32(nil, version))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// treeOf returns the names below a home, without those of the database's own files.
func treeOf(t testing.TB, home string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "store" {
			return filepath.SkipDir
		}
		if err == nil && !d.IsDir() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out = append(out, fmt.Sprintf("%s %x", filepath.Base(path), b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
