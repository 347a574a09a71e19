package integration

import (
	"sync"
	"syscall"
	"testing"

	"peerdex/node"
)

// The daemon is stopped as by a debugger: it has the socket, and says nothing. Commands that may work for
// hours do not wait for it as long.
func TestSilentDaemon(t *testing.T) {
	t.Parallel()
	dir, more := tempDir(t), tempDir(t)
	a := newPeer(t, "alpha")
	line := newPeer(t, "beta").start("").Invite.Line
	a.start("", dir)
	a.signal(syscall.SIGSTOP)
	var commands sync.WaitGroup
	for _, args := range [][]string{{"status"}, {"find", "x"}, {"add", more}, {"locations", "rescan", dir}, {"join", line}, {"sync", "events", "-f"}} {
		commands.Go(func() {
			if code, p := a.problem(args...); code != 3 || p.Code != node.CodeNoDaemon || p.Message != "the daemon does not answer" {
				t.Errorf("%q: exit %d, %+v", args, code, p)
			}
		})
	}
	commands.Wait()
	a.signal(syscall.SIGCONT)
	inStep(t, a)
}
