//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"sync/atomic"
)

var passed atomic.Int64 // of the point at which the process is to die

// At kills the process if it is to die here: PEER_FAILPOINT is the point, a colon, and the how many-th passing.
func At(point string) {
	env := os.Getenv("PEER_FAILPOINT")
	if len(env) <= len(point) || env[:len(point)] != point || env != fmt.Sprintf("%s:%d", point, passed.Add(1)) {
		return
	}
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {} // until it is dead
}
