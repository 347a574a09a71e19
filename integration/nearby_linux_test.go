package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mdnsSockets returns how many sockets a process has on the port of mDNS, 5353.
func mdnsSockets(t *testing.T, pid int) (n int) {
	t.Helper()
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{}
	for _, fd := range open {
		if to, err := os.Readlink(fd); err == nil { // others are closed meanwhile
			own[to] = true
		}
	}
	for _, table := range []string{"udp", "udp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue // a kernel without IPv6
		}
		for _, line := range strings.Split(string(text), "\n") {
			f := strings.Fields(line)
			if len(f) > 9 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", 5353)) && own["socket:["+f[9]+"]"] {
				n++
			}
		}
	}
	return n
}

// With --mdns off no socket is opened that hears the local network; with it on there is one.
func TestMDNSOff(t *testing.T) {
	t.Parallel()
	everywhere := []string{"--listen", "/ip4/0.0.0.0/tcp/0", "--mdns"} // on loopback alone nothing is announced
	on, off := newPeer(t, "on", slices.Concat(everywhere, []string{"on"})...), newPeer(t, "off", slices.Concat(everywhere, []string{"off"})...)
	off.start("")
	pid := off.status().PID
	if onMulticast(t) {
		on.start("")
		eventually(t, "a socket for mDNS", func() string {
			if mdnsSockets(t, on.status().PID) == 0 {
				return "none"
			}
			return ""
		})
	}
	if n := mdnsSockets(t, pid); n != 0 {
		t.Errorf("%d sockets for mDNS", n)
	}
}
