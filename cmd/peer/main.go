// Command peer knows which file lies on which of a person's devices, and keeps their catalogues in step.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run()) }

func run() int {
	restrictNewFiles()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		env:      os.Getenv,
		now:      time.Now,
		zone:     time.Local,
		outWidth: terminalWidth(os.Stdout),
		errWidth: terminalWidth(os.Stderr),
		open:     openNode,
	}
	return a.main(ctx, os.Args[1:])
}
