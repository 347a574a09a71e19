package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/node"
)

// app is what every command works with: the world outside as it was at the start, and the global flags.
type app struct {
	in         io.Reader
	out, err   io.Writer
	env        func(string) string
	now        func() time.Time
	zone       *time.Location
	outWidth   int // columns of the terminal that out is; 0: not a terminal
	errWidth   int // likewise of err
	inTerminal bool
	open       opener

	home  string
	json  bool
	color string
	ascii bool
	wide  bool
}

// main runs the command line and returns its exit code.
func (a *app) main(ctx context.Context, args []string) int {
	out := &sink{w: a.out}
	a.out = out
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.failed() // of help, which does not look
	}
	if err == nil {
		return 0
	}
	if end, ok := err.(silent); ok {
		return end.exit()
	}
	p := api.AsProblem(err)
	if a.json || wantsJSON(args) {
		doc, err := api.Document(api.SchemaError, api.ErrorDocument{Error: p})
		if err == nil {
			fmt.Fprintf(a.err, "%s\n", doc)
		}
		return p.Code.Exit()
	}
	if p.Code != node.CodeInterrupted {
		a.showProblem(p)
	}
	return p.Code.Exit()
}

// sink is stdout. It keeps the first error of writing there.
type sink struct {
	w   io.Writer
	mu  sync.Mutex // guards err
	err error
}

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err == nil {
			s.err = err
		}
	}
	return n, err
}

func (s *sink) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return nil
	}
	return unwritten(s.err)
}

// unwritten is the problem of an answer that stdout did not take.
func unwritten(err error) error {
	return &node.Problem{Code: node.CodeInternal, Message: "the answer could not be written to stdout", Cause: reason(err),
		Try: "look at what stdout leads to: a full disk, or a program that has ended"}
}

// wantsJSON looks for --json where the flags could not be parsed.
func wantsJSON(args []string) bool {
	for _, arg := range args {
		switch arg {
		case "--":
			return false
		case "--json", "--json=true":
			return true
		}
	}
	return false
}

// silent ends a command that has said all there is to say, with an exit code of its own.
type silent interface{ exit() int }

// answerPartly ends a command that printed what could be had, and said what could not: exit 6.
type answerPartly struct{}

func (answerPartly) Error() string { return "the answer is not whole" }
func (answerPartly) exit() int     { return 6 }

// answerNo ends a command whose answer is no: exit 10, nothing to say about it.
type answerNo struct{}

func (answerNo) Error() string { return "the answer is no" }
func (answerNo) exit() int     { return 10 }

// showProblem prints the three parts of a problem, and the addresses that were tried.
func (a *app) showProblem(p *node.Problem) {
	part := func(label, text string) {
		if text != "" {
			fmt.Fprintf(a.err, "%-6s %s\n", label, escape(text))
		}
	}
	part("error:", p.Message)
	causes := []string{p.Cause}
	if tried := triedAddresses(p); len(tried) > 0 {
		if strings.Contains(p.Cause, tried[0].Address) { // it is the same list in one line
			causes = nil
		}
		for _, t := range tried {
			causes = append(causes, t.Address+": "+t.Result)
		}
	}
	if line, mark, ok := a.faultIn(p); ok {
		causes = []string{line, mark}
	}
	label := "cause:"
	for _, cause := range causes {
		part(label, cause)
		label = ""
	}
	part("try:", p.Try)
}

// triedAddresses are the addresses that did not answer, for node.CodeUnreachable.
func triedAddresses(p *node.Problem) (tried []node.AddressResult) {
	if p.Code != node.CodeUnreachable {
		return nil
	}
	b, err := json.Marshal(p.Details)
	if err != nil || json.Unmarshal(b, &tried) != nil {
		return nil
	}
	return tried
}

// document prints v as the one JSON document of the command.
func (a *app) document(schema string, v any) error {
	b, err := api.Document(schema, v)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return fmt.Errorf("indent %s: %w", schema, err)
	}
	out.WriteByte('\n')
	return a.write(out.Bytes())
}

func (a *app) write(b []byte) error {
	if _, err := a.out.Write(b); err != nil {
		return unwritten(err)
	}
	return nil
}

// print writes text that has been escaped where it had to be.
func (a *app) print(format string, args ...any) error {
	return a.write(fmt.Appendf(nil, format, args...))
}

// hint writes a line about the answer, not of it.
func (a *app) hint(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.err, format+"\n", args...)
	}
}

// unicode reports whether glyphs beyond ASCII may be printed.
func (a *app) unicode() bool {
	if a.ascii {
		return false
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := a.env(name); v != "" {
			v = strings.ToUpper(v)
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return a.env("OS") == "Windows_NT" || a.env("TERM_PROGRAM") == "Apple_Terminal"
}

// glyph returns the sign of a state; the word beside it says the same.
func (a *app) glyph(kind mark) string {
	g := [...][2]string{good: {"●", "*"}, busy: {"◐", "~"}, away: {"○", "o"}, bad: {"✗", "x"}}[kind]
	if !a.unicode() {
		return g[1]
	}
	return a.paint(kind, g[0])
}

type mark int

const (
	good mark = iota
	busy
	away
	bad
)

func (a *app) paint(kind mark, text string) string {
	switch a.color {
	case "never":
		return text
	case "always":
	default:
		if a.outWidth == 0 || a.env("NO_COLOR") != "" || a.env("TERM") == "dumb" {
			return text
		}
	}
	return "\x1b[" + [...]string{good: "32", busy: "33", away: "90", bad: "31"}[kind] + "m" + text + "\x1b[0m"
}

// sep joins parts of a line.
func (a *app) sep() string {
	if a.unicode() {
		return " · "
	}
	return " - "
}

// client returns a client of the daemon on this home.
func (a *app) client() (*api.Client, error) {
	p, err := a.paths()
	if err != nil {
		return nil, err
	}
	return api.NewClient(p.socket), nil
}

// ask runs fn with a client.
func (a *app) ask(cmd *cobra.Command, fn func(ctx context.Context, c *api.Client) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(cmd.Context(), c)
}

func usage(message, cause, try string) error {
	return &node.Problem{Code: node.CodeUsage, Message: message, Cause: cause, Try: try}
}
