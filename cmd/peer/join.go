package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/internal/english"
	"peerdex/metrics"
	"peerdex/node"
)

// Stages of node.JoinProgress.
const (
	stageDialing   = "dialing"
	stageWaiting   = "waiting"
	stageConnected = "connected"
	stageJoined    = "joined"
	stageSyncing   = "syncing"
	stageInStep    = "in_step"
)

func (a *app) inviteCmd() *cobra.Command {
	var req node.InviteRequest
	var noWait, code bool
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Print the line that lets another device join",
		Long: "Print the line that lets another device join. The part after # is a secret: whoever has it\n" +
			"can join until it is used up or expires. It is printed once and kept nowhere.\n" +
			"On a terminal the command then waits and tells who joined; Ctrl-C leaves the invite valid.",
		Example: "peer invite\n" +
			"peer invite --ttl 1h --uses 3\n" +
			"peer invite --qr",
		Annotations: exits(2, 3, 130),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error { return a.invite(ctx, c, req, noWait, code) })
		},
	}
	req.TTL, req.Uses = metrics.Seconds(10*time.Minute), 1
	cmd.Flags().Var(spanFlag{(*time.Duration)(&req.TTL)}, "ttl", "how long it can be used")
	cmd.Flags().IntVar(&req.Uses, "uses", 1, "how many devices can use it")
	cmd.Flags().BoolVar(&code, "qr", false, "show the line as a QR code too, for a camera")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for who joins")
	return cmd
}

func (a *app) invite(ctx context.Context, c *api.Client, req node.InviteRequest, noWait, code bool) error {
	if code && a.json {
		return usage("--qr is for people, --json is not", "a document holds no picture", "peer invite --qr")
	}
	if req.Uses < 1 {
		return &node.Problem{Code: node.CodeUsage, Message: "an invite for " + english.Plural(req.Uses, "device", "devices") + " lets nobody in",
			Cause: "--uses is at least 1", Try: "peer invite --uses 1"}
	}
	before, err := c.Devices(ctx)
	if err != nil {
		return err
	}
	v, err := c.Invite(ctx, req)
	if err != nil {
		return err
	}
	if a.json {
		return a.document(api.SchemaInvite, v)
	}
	times := "once"
	if v.Uses > 1 {
		times = english.Count(v.Uses) + " times"
	}
	if a.outWidth == 0 || noWait {
		a.hint("join line (works %s, until %s):", times, v.Expires.In(a.zone).Format("15:04"))
		if err := a.print("%s\n", escape(v.Line)); err != nil || !code {
			return err
		}
		return a.showCode(v.Line)
	}
	if err := a.print("join line (works %s, until %s):\n  peer join '%s'\n", times, v.Expires.In(a.zone).Format("15:04"), escape(v.Line)); err != nil {
		return err
	}
	if code {
		if err := a.showCode(v.Line); err != nil {
			return err
		}
	}
	a.hint("waiting…")
	return a.awaitGuests(ctx, c, before, v)
}

// showCode prints text as a QR code of half blocks, or of spaces and hashes where there are none.
func (a *app) showCode(text string) error {
	var b strings.Builder
	if a.ascii {
		qrterminal.GenerateWithConfig(text, qrterminal.Config{Level: qrterminal.L, Writer: &b, BlackChar: "##", WhiteChar: "  ", QuietZone: 2})
	} else {
		qrterminal.GenerateHalfBlock(text, qrterminal.L, &b)
	}
	return a.print("%s", b.String())
}

// awaitGuests tells who joins until the invite is used up or expires.
func (a *app) awaitGuests(ctx context.Context, c *api.Client, before []node.DeviceView, v node.InviteView) error {
	known := map[string]bool{}
	for _, d := range before {
		known[d.ID] = true
	}
	for left := v.Uses; left > 0; {
		select {
		case <-ctx.Done():
			return interrupted()
		case <-time.After(500 * time.Millisecond):
		}
		devices, err := c.Devices(ctx)
		if err != nil {
			return err
		}
		for _, d := range devices {
			if known[d.ID] {
				continue
			}
			known[d.ID] = true
			left--
			if err := a.print("%s joined (%s)\n", escape(d.Name), escape(strings.Join(nonEmpty(d.Short, d.OS, d.Version), ", "))); err != nil {
				return err
			}
		}
		if left > 0 && a.now().After(v.Expires) {
			a.hint("the invite has expired")
			return nil
		}
	}
	return nil
}

func nonEmpty(parts ...string) (out []string) {
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}

func (a *app) joinCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "join LINE|ADDRESS|-",
		Short: "Join the library of another device with the line it printed",
		Long: "Join the library of another device with the line that `peer invite` printed there, and wait\n" +
			"until this device is in step with it. With - the line is read from stdin. Without the secret after #\n" +
			"both devices show six digits, and a person compares them and approves there.",
		Example: "peer join '/ip4/192.168.1.20/udp/4001/quic-v1/p2p/12D3KooW…#k7f3-9qxe'\n" +
			"peer join - < join-line\n" +
			"peer join - --json < join-line",
		Annotations: exits(2, 3, 4, 7, 8, 130),
		Args:        arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			line, err := a.joinLine(args[0])
			if err != nil {
				return err
			}
			req, err := node.ParseJoinLine(line)
			if err != nil {
				return err
			}
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				view := a.joinView()
				last, err := c.Join(ctx, req, view.show)
				view.meter.done()
				if err != nil {
					return err
				}
				if a.json {
					return a.document(api.SchemaJoin, last)
				}
				return nil
			})
		},
	}
}

// joinView tells a join as it goes: what happened on stdout, what is going on on stderr.
type joinView struct {
	a     *app
	meter *meter
	stage string
	err   error // of the first line that could not be printed
}

func (a *app) joinView() *joinView { return &joinView{a: a, meter: a.meter("catalogue", "entries")} }

func (v *joinView) show(p node.JoinProgress) {
	if p.Stage == stageWaiting { // with --json too: nothing comes of it unless a person acts
		v.a.waitFor(p)
	}
	if v.a.json {
		return
	}
	again := p.Stage == v.stage
	v.stage = p.Stage
	say := func(format string, args ...any) {
		v.meter.done()
		if v.err == nil {
			v.err = v.a.print(format+"\n", args...)
		}
	}
	switch p.Stage {
	case stageDialing:
		v.a.hint("dialing %s", escape(p.Address))
	case stageConnected:
		if again {
			return
		}
		how := transport(p.Address)
		if p.RTT > 0 {
			how += ", " + span(p.RTT.Duration())
		}
		say("connected to %s (%s)", escape(p.Device), how)
	case stageJoined:
		say("joined the library of %s", escape(p.Device))
		if p.Renamed != nil {
			say("another device there is called %s: this one is %s now", escape(p.Renamed.From), escape(p.Renamed.To))
		}
	case stageSyncing:
		v.meter.transfer(p.Progress)
	case stageInStep:
		line := "in step with " + escape(p.Device) + "."
		if len(p.Met) > 0 {
			met := make([]string, len(p.Met))
			for i, m := range p.Met {
				met[i] = escape(m)
			}
			line += " Also met: " + strings.Join(met, ", ") + "."
		}
		say("%s Try: peer find holiday", line)
	}
}

// waitFor says what a person has to do at the other device.
func (a *app) waitFor(p node.JoinProgress) {
	fmt.Fprintf(a.err, "waiting for approval. This device shows the digits %s.\nOn the other device, if it shows the same:\n  %s\n", grouped(p.Digits), escape(p.Approve))
}
