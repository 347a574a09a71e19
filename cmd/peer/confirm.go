package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// caution are the flags of a command that cannot be undone.
type caution struct {
	yes, dry bool
}

func (c *caution) flags(f *pflag.FlagSet) {
	f.BoolVar(&c.yes, "yes", false, "do not ask")
	f.BoolVar(&c.dry, "dry-run", false, "say what would be done, and do nothing")
}

// lookFirst is what to do instead of answering, with a command that has the flags of caution.
const lookFirst = "look at it with --dry-run, then say --yes"

// confirm asks a person on the terminal; without one, and with --json, it wants --yes. It returns false if
// the person says no. The text nobody says what to do where there is none to ask.
func (a *app) confirm(yes bool, question, nobody string) (bool, error) {
	if yes {
		return true, nil
	}
	if a.json || !a.inTerminal || a.errWidth == 0 {
		return false, usage("there is nobody to ask", "this wants a person's word, and stdin or stderr is no terminal or --json was given", nobody)
	}
	if _, err := fmt.Fprintf(a.err, "%s [y/N] ", question); err != nil {
		return false, fmt.Errorf("ask: %w", err)
	}
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	a.hint("nothing was changed")
	return false, nil
}
