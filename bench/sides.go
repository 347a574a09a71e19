package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// side is one of two programs between which a library is moved: it says on standard output, line by line, how
// far it is, and ends when its standard input does.
type side struct {
	cmd    *exec.Cmd
	in     io.Closer
	out    *bufio.Scanner
	stderr bytes.Buffer
}

func begin(cmd *exec.Cmd) (*side, error) {
	s := &side{cmd: cmd}
	cmd.Stderr = &s.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.in, s.out = in, bufio.NewScanner(out)
	return s, cmd.Start()
}

// line waits for the next line.
func (s *side) line() (string, error) {
	if s.out.Scan() {
		return s.out.Text(), nil
	}
	return "", fmt.Errorf("%v ended early: %w\n%s", s.cmd.Args, errors.Join(s.out.Err(), s.cmd.Wait()), &s.stderr)
}

func (s *side) end() error {
	if err := errors.Join(s.in.Close(), s.cmd.Wait()); err != nil {
		return fmt.Errorf("%v: %w\n%s", s.cmd.Args, err, &s.stderr)
	}
	return nil
}

// moved is what it took to move a library from one program to another.
type moved struct {
	marks []float64 // seconds from the start of the receiver to each of its lines
	cpu   float64   // seconds of processor of both, until the first of them
	wire  float64   // MiB, both ways, until the last
	peak  float64   // MiB of resident memory of that side which held more
}

// move starts hold, which is told where to listen and answers with its address and more words, then join with
// those, and reads so many lines of it. Between them stands a proxy that counts bytes.
func move(ctx context.Context, hold func(listen string) *exec.Cmd, join func(words []string) *exec.Cmd, lines int) (m moved, err error) {
	var ports [2]int
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return m, err
		}
	}
	at := func(port int) string { return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port) }
	holder, err := begin(hold(at(ports[0])))
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, holder.end()) }()
	said, err := holder.line()
	if err != nil {
		return m, err
	}
	x, err := newProxy(ports[1], ports[0])
	if err != nil {
		return m, err
	}
	defer x.Close()
	before, err := cpu(holder.cmd.Process.Pid)
	if err != nil {
		return m, err
	}
	flush()
	start := time.Now()
	joiner, err := begin(join(strings.Fields(strings.Replace(said, at(ports[0]), at(ports[1]), 1))))
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, joiner.end()) }()
	for range lines {
		if _, err := joiner.line(); err != nil {
			return m, err
		}
		m.marks = append(m.marks, time.Since(start).Seconds())
		if len(m.marks) > 1 {
			continue
		}
		used := -before
		for _, s := range []*side{holder, joiner} {
			t, err := cpu(s.cmd.Process.Pid)
			if err != nil {
				return m, err
			}
			_, peak, err := memory(s.cmd.Process.Pid)
			if err != nil {
				return m, err
			}
			used += t
			m.peak = max(m.peak, float64(peak)/(1<<20))
		}
		m.cpu = used.Seconds()
	}
	m.wire = float64(x.bytes.Load()) / (1 << 20)
	if x.conns.Load() == 0 {
		return m, errors.New("they did not meet through the proxy")
	}
	return m, ctx.Err()
}

// column takes one number from every run.
func column(runs []moved, f func(moved) float64) (out []float64) {
	for _, m := range runs {
		out = append(out, f(m))
	}
	return out
}

// addMoved adds the rows of what was moved, besides the time.
func (t *table) addMoved(runs []moved) {
	t.add(figure{what: "CPU time of both sides", unit: "s", got: column(runs, func(m moved) float64 { return m.cpu })})
	t.add(figure{what: "bytes between them, both ways", unit: "MiB", got: column(runs, func(m moved) float64 { return m.wire })})
	t.add(figure{what: "peak resident memory of the side that took more", unit: "MiB", got: column(runs, func(m moved) float64 { return m.peak })})
}
