// Command bench measures the figures that peerdex promises, with the real peer binary, real folders and
// real sockets on loopback. Each figure stands beside a peer or a limit measured in the same run.
//
//	cd bench && go run .
//
// prints a Markdown table and exits 1 if a bar is missed. Everything it writes lies below one temporary
// directory, which is removed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is what all figures share.
type bench struct {
	dir      string // temporary
	peer     string // the binary under test
	runs     int
	files    int
	samples  int
	edits    int
	entries  int
	searches int
	idle     time.Duration
	joins    []float64 // seconds of each run of the figure join
	table    table
	cleanup  []*daemon
}

// figures in the order they are measured.
var figures = []struct {
	name string
	run  func(*bench, context.Context) error
	long bool // minutes: measured only if asked for
}{
	{"index", (*bench).index, false},
	{"latency", (*bench).latency, false},
	{"catchup", (*bench).catchUp, false},
	{"tags", (*bench).tags, false},
	{"idle", (*bench).idling, false},
	{"pair", (*bench).pairing, false},
	{"find", (*bench).search, false},
	{"bulk", (*bench).bulk, false},
	{"join", (*bench).join, false},
	{"delete", (*bench).deletion, false},
	{"crdt", (*bench).crdt, true},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == pipeEnd {
		if err := runPipeEnd(ctx, os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	missed, err := run(ctx)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case missed:
		os.Exit(1)
	}
}

func run(ctx context.Context) (missed bool, err error) {
	b := &bench{}
	var names, quick []string
	for _, f := range figures {
		names = append(names, f.name)
		if !f.long {
			quick = append(quick, f.name)
		}
	}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := fs.String("only", strings.Join(quick, ","), "figures to measure; there are "+strings.Join(names, ", "))
	report := fs.Bool("report", false, "exit 0 even if a bar is missed")
	base := fs.String("dir", "", "where the temporary directory is made (default: the system's)")
	limit := fs.Duration("limit", 30*time.Minute, "give up after so long")
	fs.IntVar(&b.runs, "runs", 3, "times each figure is measured")
	fs.IntVar(&b.files, "files", 100_000, "files to index")
	fs.IntVar(&b.entries, "entries", 1_000_000, "entries to search, and to move")
	fs.IntVar(&b.searches, "searches", 40, "searches per run")
	fs.IntVar(&b.samples, "samples", 200, "changes per run of the latency figure")
	fs.IntVar(&b.edits, "edits", 10_000, "tag edits per device of the tags figure")
	fs.DurationVar(&b.idle, "idle", time.Minute, "how long two idle nodes are watched")
	if err := fs.Parse(os.Args[1:]); err != nil {
		return false, err
	}
	for _, name := range strings.Split(*only, ",") {
		if !slices.Contains(names, name) {
			return false, fmt.Errorf("-only: no figure %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if b.dir, err = os.MkdirTemp(*base, "peerdex-bench-"); err != nil {
		return false, err
	}
	defer func() {
		for _, d := range b.cleanup {
			d.kill()
		}
		err = errors.Join(err, os.RemoveAll(b.dir))
	}()
	if err := b.build(ctx); err != nil {
		return false, err
	}
	for _, f := range figures {
		if !slices.Contains(strings.Split(*only, ","), f.name) {
			continue
		}
		if err := f.run(b, ctx); err != nil {
			return false, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	fmt.Println(machine(b.dir))
	fmt.Println()
	fmt.Print(b.table.markdown())
	return b.table.missed() && !*report, nil
}

func (b *bench) build(ctx context.Context) error {
	b.peer = filepath.Join(b.dir, "peer")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", b.peer, "./cmd/peer")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build peer: %w\n%s", err, out)
	}
	return nil
}

// note tells on stderr how far the run is.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
