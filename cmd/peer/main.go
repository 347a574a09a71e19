// Command peer knows which file lies on which of a person's devices, and keeps their catalogues in step.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

// gcPercent keeps garbage below a third of the heap. Nearly all that lives there, the store's tables in
// memory, its block cache and the tree of an indexed folder, holds no pointers, so that collecting more
// often costs next to nothing: a first scan of 100,000 files takes as long as at the usual 100 and leaves
// 40 MB less. GOGC in the environment wins.
const gcPercent = 35

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(run())
}

func run() int {
	restrictNewFiles()
	log.SetOutput(io.Discard) // where libraries write that know nothing of PEER_LOG
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		env:        os.Getenv,
		now:        time.Now,
		zone:       time.Local,
		outWidth:   terminalWidth(os.Stdout),
		errWidth:   terminalWidth(os.Stderr),
		inTerminal: terminalWidth(os.Stdin) > 0,
		open:       openNode,
	}
	return a.main(ctx, os.Args[1:])
}
