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

// built is the directory of the program under test, made once per run of the tests by peerBinary.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// peerBinary returns the path of the program under test, called peer, alone in its directory.
func peerBinary(t testing.TB) string {
	t.Helper()
	name := "peer"
	if runtime.GOOS == "windows" {
		name = "peer.exe"
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "peer"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(built.dir, name), "./cmd/peer")
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = errors.Join(err, errors.New(string(out)))
		}
	})
	if built.err != nil {
		t.Fatalf("build peer: %v", built.err)
	}
	return filepath.Join(built.dir, name)
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
