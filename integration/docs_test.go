//go:build linux

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Deadlines of the documentation's commands.
const (
	blockTimeout = 3 * time.Minute // one block; some compile
	upTimeout    = 2 * time.Minute // from starting a node to its being up; go run compiles first
	stepTimeout  = 2 * time.Minute
)

// TestDocs runs every sh block of the documentation as it stands, by the rules in CONTRIBUTING.md, and
// looks for the files that it links to.
func TestDocs(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md"))
	before := entriesOf(t, root)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(root, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range linksTo.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: link: %v", rel, err)
			}
		}
		blocks, err := shellBlocks(string(text))
		if err != nil {
			t.Errorf("%s: %v", rel, err)
			continue
		}
		if len(blocks) == 0 {
			continue
		}
		t.Run(rel, func(t *testing.T) {
			r := newDocReader(t, root)
			for _, b := range blocks {
				r.run(t, b)
				if t.Failed() {
					t.Fatalf("%s:%d: this block does not work", rel, b.line)
				}
			}
		})
	}
	if after := entriesOf(t, root); !slices.Equal(before, after) {
		t.Errorf("the blocks leave something in the repository: before %q, after %q", before, after)
	}
}

func entriesOf(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// docBlock is the content of one sh block.
type docBlock struct {
	line  int // of its first line in the page, from 1
	lines []string
}

// shellBlocks returns the sh blocks of a page. Every fenced block must say what it is.
func shellBlocks(text string) (out []docBlock, err error) {
	open, kind := false, ""
	for i, line := range strings.Split(text, "\n") {
		rest, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && !open:
			open, kind = true, rest
			if kind != "sh" && kind != "text" {
				return nil, fmt.Errorf("line %d: a block is sh or text, not %q", i+1, kind)
			}
			if kind == "sh" {
				out = append(out, docBlock{line: i + 2})
			}
		case fence:
			open = false
		case open && kind == "sh":
			out[len(out)-1].lines = append(out[len(out)-1].lines, line)
		}
	}
	if open {
		return nil, errors.New("the last block has no end")
	}
	return out, nil
}

// docReader follows one page on two devices.
type docReader struct {
	root    string
	devices [2]*docDevice
	join    string // the line printed last
}

// docDevice is a home directory and the node that runs there.
type docDevice struct {
	env  []string
	node *docNode // nil: none
}

// docNode is a node that a line of the page started.
type docNode struct {
	line string
	cmd  *exec.Cmd
	out  *transcript
	done chan struct{} // closed when it has ended
	err  error         // of its end; valid once done is closed
}

func newDocReader(t *testing.T, root string) *docReader {
	t.Helper()
	bin := filepath.Dir(peerBinary(t))
	dir, err := os.MkdirTemp("", "docs") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	r := &docReader{root: root}
	t.Cleanup(func() {
		for _, d := range r.devices {
			if d != nil && d.node != nil {
				d.node.end(t)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for i := range r.devices {
		home := filepath.Join(dir, fmt.Sprint(i+1))
		runtime := filepath.Join(home, ".run")
		for name, size := range map[string]int{
			"Pictures/2024/beach.jpg": 3000, "Pictures/2024/IMG_2041.jpg": 4000,
			"Documents/tax/tax-return-2023.pdf": 1200, "Documents/letter.txt": 80,
		} {
			path := filepath.Join(home, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, make([]byte, size), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(runtime, 0o700); err != nil {
			t.Fatal(err)
		}
		r.devices[i] = &docDevice{env: docEnvironment(t, map[string]string{
			"HOME": home, "XDG_RUNTIME_DIR": runtime, "PATH": bin + string(filepath.ListSeparator) + os.Getenv("PATH"),
			"GOBIN": filepath.Join(dir, "gobin"), "LANG": "C.UTF-8", "TERM": "dumb",
		})}
	}
	return r
}

// docEnvironment is the test's own without what steers peer, and with Go's caches where they are.
func docEnvironment(t *testing.T, set map[string]string) (out []string) {
	t.Helper()
	names := []string{"GOCACHE", "GOMODCACHE", "GOPATH"}
	list, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	for i, value := range strings.Split(strings.TrimSpace(string(list)), "\n") {
		set[names[i]] = value
	}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if _, ours := set[name]; !ours && !strings.HasPrefix(name, "PEER_") && !strings.HasPrefix(name, "XDG_") && !strings.HasPrefix(name, "SIM_") {
			out = append(out, kv)
		}
	}
	for name, value := range set {
		out = append(out, name+"="+value)
	}
	return out
}

var (
	onDevice   = regexp.MustCompile(`# device ([12])\b`)
	linksTo    = regexp.MustCompile(`\]\(([^):#]+)\)`) // files of the repository
	startsNode = regexp.MustCompile(`^(go run \./cmd/peer|peer) (.* )?start( |$)`)
	printsLine = regexp.MustCompile(`(?m)(/ip[46]/\S+/p2p/\w+#[0-9a-z-]+)`)
)

// placeholder stands for a join line.
const placeholder = "'<addr>#<secret>'"

// within runs the tests that this one is part of, so it is not run again: .ci/run must do it.
var within = []string{"go test ./...", ".ci/run"}

func (r *docReader) run(t *testing.T, b docBlock) {
	t.Helper()
	r.settle(t)
	var script []string
	on := r.devices[0]
	flush := func() {
		if len(script) > 0 {
			r.script(t, on, strings.Join(script, "\n"))
		}
		script = nil
	}
	for _, line := range b.lines {
		to := r.devices[0]
		if m := onDevice.FindStringSubmatch(line); m != nil {
			to = r.devices[m[1][0]-'1']
		}
		if to != on {
			flush()
			on = to
		}
		if strings.Contains(line, placeholder) {
			flush()
			if r.join == "" {
				t.Fatalf("no join line was printed before %q", line)
			}
			line = strings.ReplaceAll(line, placeholder, "'"+r.join+"'")
		}
		switch command := strings.TrimSpace(line); {
		case slices.Contains(within, command):
			r.partOfCI(t, command)
		case startsNode.MatchString(command):
			flush()
			r.start(t, to, command)
		default:
			script = append(script, line)
		}
		if t.Failed() {
			return
		}
	}
	flush()
}

// partOfCI checks a command that runs all tests: it is the script itself, or a line of it.
func (r *docReader) partOfCI(t *testing.T, command string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.root, ".ci", "run"))
	if err != nil {
		t.Error(err)
	} else if command != ".ci/run" && !strings.Contains(string(text), command) {
		t.Errorf(".ci/run does not run %q", command)
	}
	if out, err := exec.Command("bash", "-n", filepath.Join(r.root, ".ci", "run")).CombinedOutput(); err != nil {
		t.Errorf(".ci/run: %v\n%s", err, out)
	}
}

// script runs lines in a shell; they fail as soon as one does.
func (r *docReader) script(t *testing.T, d *docDevice, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), blockTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-euc", text)
	cmd.Dir, cmd.Env = r.root, d.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s\n--- says\n%s%s", err, text, out, r.logs())
		return
	}
	if m := printsLine.FindSubmatch(out); m != nil {
		r.join = string(m[1])
	}
}

// start runs a line that starts a node, until it is up, and in step with the library it joins.
func (r *docReader) start(t *testing.T, d *docDevice, line string) {
	t.Helper()
	if d.node != nil {
		t.Errorf("%q: a node runs there already", line)
		return
	}
	n := &docNode{line: line, cmd: exec.Command("sh", "-euc", line), out: newTranscript(), done: make(chan struct{})}
	n.cmd.Dir, n.cmd.Env = r.root, d.env
	n.cmd.Stdout, n.cmd.Stderr = n.out, n.out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	d.node = n
	go func() {
		n.err = n.cmd.Wait()
		close(n.done)
	}()
	up := []string{"Runs until"}
	if strings.Contains(line, "--join") {
		up = append(up, "in step with")
	}
	deadline := time.After(upTimeout)
	for _, text := range up {
		if !n.out.await(text, n.done, deadline) {
			t.Errorf("%q does not come to say %q:\n%s", line, text, n.out)
			return
		}
	}
	if m := printsLine.FindStringSubmatch(n.out.String()); m != nil && !strings.Contains(line, "--join") {
		r.join = m[1]
	}
}

// end stops a node as Ctrl-C does.
func (n *docNode) end(t *testing.T) {
	select {
	case <-n.done:
		return
	default:
	}
	_ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGINT) // it may end by itself at this moment
	select {
	case <-n.done:
	case <-time.After(stepTimeout):
		t.Errorf("%q does not end:\n%s", n.line, n.out)
		_ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL)
		<-n.done
	}
}

// settle waits until the nodes that run are in step with each other, and takes note of those that ended.
func (r *docReader) settle(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(stepTimeout)
	for {
		wait := r.unsettled(t)
		if wait == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in step: %s%s", wait, r.logs())
		}
	}
}

// unsettled says what is still to come, or nothing.
func (r *docReader) unsettled(t *testing.T) string {
	t.Helper()
	var up []*docDevice
	for _, d := range r.devices {
		if d.node == nil {
			continue
		}
		select {
		case <-d.node.done:
			if d.node.err != nil {
				t.Fatalf("%q ended: %v\n%s", d.node.line, d.node.err, d.node.out)
			}
			d.node = nil
		default:
			up = append(up, d)
		}
	}
	for _, d := range up {
		cmd := exec.Command(peerBinary(t), "status", "--json")
		cmd.Env = d.env
		out, err := cmd.Output()
		if err != nil {
			return fmt.Sprintf("%q: status: %v", d.node.line, err) // ending, or ended already
		}
		var st struct {
			State, Reason string
			Devices       []struct {
				Name, Link string
				Self       bool
				WeLack     *uint64 `json:"we_lack"`
				ItLacks    *uint64 `json:"it_lacks"`
			}
		}
		if err := json.Unmarshal(out, &st); err != nil {
			t.Fatalf("status of %q: %v\n%s", d.node.line, err, out)
		}
		connected := 0
		for _, o := range st.Devices {
			if !o.Self && o.Link == "connected" && o.WeLack != nil && *o.WeLack == 0 && o.ItLacks != nil && *o.ItLacks == 0 {
				connected++
			}
		}
		if st.State != "ready" || connected < len(up)-1 {
			return fmt.Sprintf("%q is %s (%s), in step with %d of %d", d.node.line, st.State, st.Reason, connected, len(up)-1)
		}
	}
	return ""
}

// logs is what the nodes have said, for a failure.
func (r *docReader) logs() string {
	var b strings.Builder
	for i, d := range r.devices {
		if d.node != nil {
			fmt.Fprintf(&b, "\n--- device %d says\n%s", i+1, d.node.out)
		}
	}
	return b.String()
}

func TestShellBlocks(t *testing.T) {
	got, err := shellBlocks("a\n```sh\none\ntwo\n```\nb\n```text\nno\n```\n  ```sh\nthree\n  ```\n")
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(got); text != "[{3 [one two]} {11 [three]}]" {
		t.Errorf("blocks are %s", text)
	}
	for _, bad := range []string{"```\nx\n```\n", "```bash\nx\n```\n", "```sh\nx\n"} {
		if _, err := shellBlocks(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
