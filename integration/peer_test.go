package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// build is a program under test, called peer, alone in its directory. It is made once per run of the tests.
type build struct {
	tags string
	once sync.Once
	dir  string
	err  error
}

var (
	product build
	// dying is the product with named points at which it can be made to die.
	dying = build{tags: "failpoint"}
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	for _, b := range []*build{&product, &dying} {
		if b.dir != "" {
			if err := os.RemoveAll(b.dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = max(code, 1)
			}
		}
	}
	os.Exit(code)
}

// peerBinary returns the path of the program under test.
func peerBinary(t testing.TB) string {
	t.Helper()
	return product.binary(t)
}

func (b *build) binary(t testing.TB) string {
	t.Helper()
	name := "peer"
	if runtime.GOOS == "windows" {
		name = "peer.exe"
	}
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "peer"); b.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-tags", b.tags, "-o", filepath.Join(b.dir, name), "./cmd/peer")
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			b.err = errors.Join(err, errors.New(string(out)))
		}
	})
	if b.err != nil {
		t.Fatalf("build peer: %v", b.err)
	}
	return filepath.Join(b.dir, name)
}

// transcript is what a process has written so far; it can be waited on.
type transcript struct {
	mu    sync.Mutex // guards the fields below
	text  strings.Builder
	moved chan struct{} // closed, and made anew, whenever something is written
}

func newTranscript() *transcript { return &transcript{moved: make(chan struct{})} }

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.moved)
	s.moved = make(chan struct{})
	return s.text.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until the transcript contains text; false if the process is done, or the deadline passes,
// without it.
func (s *transcript) await(text string, done <-chan struct{}, deadline <-chan time.Time) bool {
	for {
		s.mu.Lock()
		found, moved := strings.Contains(s.text.String(), text), s.moved
		s.mu.Unlock()
		if found {
			return true
		}
		select {
		case <-moved:
		case <-done:
			return strings.Contains(s.String(), text)
		case <-deadline:
			return false
		}
	}
}
