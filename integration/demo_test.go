package integration

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Ctrl-C in the middle of a demo ends it with exit code 130 and leaves nothing on disk.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	tmp := tempDir(t)
	cmd := exec.Command(peerBinary(t), "demo")
	cmd.Env = []string{"HOME=" + tmp, "TMPDIR=" + tmp, "LANG=C.UTF-8"}
	out := newTranscript()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the code says all
		close(ended)
	}()
	if !out.await("each device starts", ended, time.After(patience)) {
		t.Errorf("the demo says %s", out)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-ended
		t.Error("the demo goes on")
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 || strings.Contains(out.String(), "error") {
		t.Errorf("exit %d: %s", code, out)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left on disk: %v, %v", left, err)
	}
}
