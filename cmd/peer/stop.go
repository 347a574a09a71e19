package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/node"
)

// apartFromStop returns what of err is more than that something was called off, as all is when a daemon ends.
func apartFromStop(err error) error {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		var rest []error
		for _, e := range all.Unwrap() {
			rest = append(rest, apartFromStop(e))
		}
		return errors.Join(rest...)
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (a *app) stopCmd() *cobra.Command {
	timeout := 30 * time.Second
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop the daemon and wait until it has ended",
		Example: "peer stop\n" +
			"peer stop --timeout 2m\n" +
			"peer stop --home /srv/peer",
		Annotations: exits(2, 3, 7, 130),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error { return a.stop(ctx, c, timeout) })
		},
	}
	cmd.Flags().Var(spanFlag{&timeout}, "timeout", "how long to wait")
	return cmd
}

func (a *app) stop(ctx context.Context, c *api.Client, timeout time.Duration) error {
	res, err := c.Stop(ctx)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		_, err := c.Status(wait)
		if err != nil && api.AsProblem(err).Code == node.CodeNoDaemon && !alive(res.PID) {
			break
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return interrupted()
			}
			return &node.Problem{Code: node.CodeConflict, Message: fmt.Sprintf("the daemon (pid %d) has not ended within %s", res.PID, span(timeout)),
				Cause: "it was asked to", Try: "peer stop --timeout 2m"}
		case <-time.After(20 * time.Millisecond):
		}
	}
	if a.json {
		return a.document(api.SchemaStop, res)
	}
	return a.print("stopped (pid %d), ran %s\n", res.PID, span(res.Now.Sub(res.Started).Truncate(time.Second)))
}
