package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"peerdex/api"
	"peerdex/node"
)

// joinLine returns the line that was given, or for "-" the first of stdin.
func (a *app) joinLine(arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, 1<<16)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the join line: %w", err)
	}
	// what `peer invite` prints may be pasted with the command around it
	line = strings.TrimSpace(line)
	line = strings.TrimPrefix(line, "peer join ")
	return strings.Trim(line, `'"`), nil
}

// joining is a join that goes on while the folders are indexed.
type joining struct {
	steps chan node.JoinProgress // closed at the end
	err   error                  // valid once steps is closed
}

// startJoin pairs, and returns when this device is a member or could not become one.
func (a *app) startJoin(ctx context.Context, n daemon, req node.JoinRequest, s *joining) error {
	s.steps = make(chan node.JoinProgress, 64)
	go func() {
		defer close(s.steps)
		s.err = n.Join(ctx, req, func(p node.JoinProgress) {
			if p.Stage == stageSyncing { // the next will tell more
				select {
				case s.steps <- p:
				default:
				}
				return
			}
			select {
			case s.steps <- p:
			case <-ctx.Done():
			}
		})
	}()
	view := a.joinView()
	for p := range s.steps {
		view.show(p)
		if p.Stage == stageJoined || p.Stage == stageSyncing || p.Stage == stageInStep {
			return nil
		}
	}
	return s.err
}

// finishJoin shows the rest of a join. The device is a member by then: what stops the first sync is told
// and tried again by the node, and does not end it.
func (a *app) finishJoin(ctx context.Context, s *joining) error {
	if s.steps == nil {
		return nil
	}
	view := a.joinView()
	for p := range s.steps {
		view.show(p)
	}
	view.meter.done()
	if s.err != nil && ctx.Err() == nil {
		a.showProblem(api.AsProblem(s.err))
	}
	return nil
}
