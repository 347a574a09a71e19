package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/internal/english"
	"peerdex/node"
)

func (a *app) syncCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "See and steer how devices get into step",
		Example: "peer sync status --watch\n" +
			"peer sync metrics --errors\n" +
			"peer sync events --since '1 hour ago' --min-severity warning",
		Annotations: exits(2),
		Args:        noSuchCommand,
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.syncStatusCmd(), a.syncPauseCmd(), a.syncResumeCmd(), a.syncNowCmd(), a.syncPlanCmd(), a.syncMetricsCmd(), a.syncEventsCmd())
	return cmd
}

func (a *app) syncStatusCmd() *cobra.Command {
	var (
		device   string
		watch    bool
		interval = 2 * time.Second
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is moving, how fast, and what is lacking",
		Example: "peer sync status\n" +
			"peer sync status --device nas\n" +
			"peer sync status --watch --json    one object per line",
		Annotations: exits(2, 3, 5, 130),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				id := ""
				if device != "" {
					d, err := a.resolve(ctx, c, device)
					if err != nil {
						return err
					}
					id = d.ID
				}
				fetch := func(ctx context.Context) (node.SyncStatus, error) {
					st, err := c.SyncStatus(ctx)
					if id != "" {
						st = onlyDevice(st, id)
					}
					return st, err
				}
				return show(ctx, a, api.SchemaSyncStatus, "sync_status", watch, interval, fetch, a.syncText)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&device, "device", "", "only what concerns this device")
	f.BoolVarP(&watch, "watch", "w", false, "go on until interrupted")
	f.Var(spanFlag{&interval}, "interval", "how often with --watch")
	must(cmd.RegisterFlagCompletionFunc("device", a.completeDevices))
	return cmd
}

// resolve finds a device by any of its names.
func (a *app) resolve(ctx context.Context, c *api.Client, ref string) (node.DeviceView, error) {
	list, err := c.Devices(ctx)
	if err != nil {
		return node.DeviceView{}, err
	}
	return api.ResolveDevice(list, ref)
}

func onlyDevice(st node.SyncStatus, id string) node.SyncStatus {
	other := func(s node.SessionView) bool { return s.Device != id }
	st.Sessions, st.Serving = slices.DeleteFunc(st.Sessions, other), slices.DeleteFunc(st.Serving, other)
	var devices []node.DeviceView
	for _, d := range st.Devices {
		if d.ID == id {
			devices = append(devices, d)
		}
	}
	st.Devices = devices
	return st
}

func (a *app) syncText(st node.SyncStatus) string {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", label, fmt.Sprintf(format, args...))
	}
	state := fmt.Sprintf("%s %s for %s", a.glyph(stateMark(st.State)), stateWord(st.State), span(st.Now.Sub(st.Since).Truncate(time.Second)))
	if st.Reason != "" {
		state += " (" + escape(st.Reason) + ")"
	}
	if st.State == node.StatePaused && !st.PausedUntil.IsZero() {
		state += ", until " + st.PausedUntil.In(a.zone).Format("15:04")
	}
	line("state", "%s", state)
	for _, s := range append(slices.Clone(st.Sessions), st.Serving...) {
		line(strings.ReplaceAll(escape(s.Kind), "_", "-"), "%s", a.sessionLine(s))
		if s.Why != "" {
			line("", "chosen because %s", escape(s.Why))
		}
	}
	line("queues", "%s", strings.Join([]string{
		"apply " + english.Count(st.Queues.Apply),
		"retry " + english.Count(st.Queues.Retry),
		"waiting for parents " + english.Count(st.Queues.WaitingParents),
	}, a.sep()))
	if len(st.Devices) == 0 {
		line("lag", "no other device")
		return b.String()
	}
	b.WriteString("\n")
	t := &table{right: map[int]bool{3: true, 4: true, 5: true}, shrink: 0}
	t.row("DEVICE", "LINK", "VIA", "RTT", "WE LACK", "IT LACKS", "SEEN")
	for _, d := range st.Devices {
		t.row(a.linkCells(st.Now, d)...)
	}
	b.WriteString(a.render(t))
	return b.String()
}

func (a *app) sessionLine(s node.SessionView) string {
	id := escape(s.ID)
	id = "c:" + id[:min(8, len(id))]
	head := "from "
	if s.Kind == "serving" {
		head = "to "
	}
	head += escape(s.Name)
	if s.Total > 0 {
		head += fmt.Sprintf(", %d%%  %s", uint64(float64(min(s.Done, s.Total))/float64(s.Total)*100), a.bar(s.Done, s.Total, cells))
	}
	return head + "  " + strings.Join(a.progress(s.Progress, "entries"), a.sep()) + "  " + id
}

func (a *app) syncPauseCmd() *cobra.Command {
	var (
		device string
		d      time.Duration
	)
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Stop exchanging changes, with all devices or one; indexing goes on",
		Example: "peer sync pause\n" +
			"peer sync pause --for 2h\n" +
			"peer sync pause --device nas",
		Annotations: exits(2, 3, 5),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				v, err := c.Pause(ctx, device, d)
				return a.pauseAnswer(v, err)
			})
		},
	}
	cmd.Flags().StringVar(&device, "device", "", "only with this device")
	cmd.Flags().Var(spanFlag{&d}, "for", "resume after this long (default: until resumed)")
	must(cmd.RegisterFlagCompletionFunc("device", a.completeDevices))
	return cmd
}

func (a *app) syncResumeCmd() *cobra.Command {
	var device string
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "End a pause",
		Example: "peer sync resume\n" +
			"peer sync resume --device nas\n" +
			"peer sync resume --json",
		Annotations: exits(2, 3, 5),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				v, err := c.Resume(ctx, device)
				return a.pauseAnswer(v, err)
			})
		},
	}
	cmd.Flags().StringVar(&device, "device", "", "only with this device")
	must(cmd.RegisterFlagCompletionFunc("device", a.completeDevices))
	return cmd
}

func (a *app) pauseAnswer(v node.PauseView, err error) error {
	if err != nil {
		return err
	}
	if a.json {
		return a.document(api.SchemaPause, v)
	}
	names := make([]string, len(v.Devices))
	for i, n := range v.Devices {
		names[i] = escape(n)
	}
	switch {
	case v.Paused && v.Until.IsZero():
		return a.print("sync is paused until `peer sync resume`\n")
	case v.Paused:
		return a.print("sync is paused until %s (for %s)\n", a.clock(v.Until), span(v.Until.Sub(v.Now).Round(time.Second)))
	case len(names) > 0:
		return a.print("sync is on, except with %s\n", strings.Join(names, ", "))
	}
	return a.print("sync is on\n")
}

func (a *app) syncNowCmd() *cobra.Command {
	var device string
	cmd := &cobra.Command{
		Use:   "now",
		Short: "Dial and compare at once, and wait until what is lacking is here",
		Long: "Dial the other devices and compare at once, without waiting for the next round, and wait until what this\n" +
			"device lacks is here, as far as anybody who is reached has it. What metered folders lack is fetched\n" +
			"as well. Ctrl-C ends the waiting alone.",
		Example: "peer sync now\n" +
			"peer sync now --device nas\n" +
			"peer sync now --json",
		Annotations: exits(2, 3, 5, 7, 8, 130),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				m := a.meter("catalogue", "entries")
				v, err := c.SyncNow(ctx, device, m.transfer)
				m.done()
				if err != nil {
					return err
				}
				switch {
				case a.json:
					err = a.document(api.SchemaSyncNow, v)
				case len(v.Devices) == 0:
					err = a.print("no other device; `peer invite` prints the line to join with\n")
				default:
					err = a.print("%s", a.nowText(v))
				}
				if err != nil {
					return err
				}
				return noneReached(v)
			})
		},
	}
	cmd.Flags().StringVar(&device, "device", "", "only with this device")
	must(cmd.RegisterFlagCompletionFunc("device", a.completeDevices))
	return cmd
}

// nowText says of each device what came of dialing it.
func (a *app) nowText(v node.NowView) string {
	t := &table{right: map[int]bool{4: true, 5: true, 6: true}, shrink: 1}
	t.row("DEVICE", "RESULT", "LINK", "VIA", "RTT", "WE LACK", "IT LACKS", "SEEN")
	for _, d := range v.Devices {
		cells := a.linkCells(v.Now, d)
		t.row(append([]string{cells[0], reached(d)}, cells[1:]...)...)
	}
	return a.render(t)
}

// reached says whether a device was, and else why not.
func reached(d node.DeviceView) string {
	if d.Online {
		return "reached"
	}
	switch {
	case d.LastError != "":
		return "not reached: " + escape(d.LastError)
	case d.Paused:
		return "not reached: paused"
	}
	return "not reached"
}

// noneReached is the problem of a round that found nobody of those it was to find.
func noneReached(v node.NowView) error {
	if len(v.Devices) == 0 {
		return nil
	}
	paused := 0
	for _, d := range v.Devices {
		switch {
		case d.Online:
			return nil
		case d.Paused:
			paused++
		}
	}
	p := &node.Problem{Code: node.CodeUnreachable, Message: "no other device was reached", Cause: "none of " + english.Plural(len(v.Devices), "device", "devices") + " answered",
		Try: "check that `peer status` works on the other device, and that both are on one network"}
	if len(v.Devices) == 1 {
		p.Message, p.Cause = v.Devices[0].Name+" was not reached", "it did not answer"
		p.Cause = cmp.Or(v.Devices[0].LastError, p.Cause)
	}
	if paused == len(v.Devices) {
		p.Cause, p.Try = "sync is paused", "peer sync resume"
	}
	return p
}
