package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/internal/english"
	"peerdex/node"
)

func (a *app) statusCmd() *cobra.Command {
	var (
		watch, check bool
		interval     = 2 * time.Second
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether all is well, with every device and what is lacking",
		Example: "peer status            the whole picture\n" +
			"peer status --check    one line; exit 0 if all is well, 10 if not\n" +
			"peer status --watch    redrawn every 2 seconds",
		Annotations: exits(2, 3, 10, 130),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				if check {
					return a.check(ctx, c)
				}
				return show(ctx, a, api.SchemaStatus, "status", watch, interval, c.Status, a.statusText)
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on until interrupted")
	cmd.Flags().Var(spanFlag{&interval}, "interval", "how often with --watch")
	cmd.Flags().BoolVar(&check, "check", false, "print one line and say it by the exit code")
	cmd.MarkFlagsMutuallyExclusive("watch", "check")
	return cmd
}

// healthy: in step or on its way there, and nothing needs a person.
func healthy(st node.Status) bool {
	if st.State == node.StatePaused || st.State == node.StateUninitialized {
		return false
	}
	for _, at := range st.Attention {
		if at.Severity == "problem" {
			return false
		}
	}
	return true
}

func (a *app) check(ctx context.Context, c *api.Client) error {
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if a.json {
		err = a.document(api.SchemaStatus, st)
	} else {
		line := a.statusHead(st)
		for _, at := range st.Attention {
			if at.Severity == "problem" {
				line += a.sep() + a.attention(st, at)
				break
			}
		}
		err = a.print("%s\n", line)
	}
	if err == nil && !healthy(st) {
		return answerNo{}
	}
	return err
}

func selfOf(list []node.DeviceView) node.DeviceView {
	for _, d := range list {
		if d.Self {
			return d
		}
	}
	return node.DeviceView{}
}

// members counts the devices that belong.
func members(list []node.DeviceView) (n uint64) {
	for _, d := range list {
		if d.Gone == "" {
			n++
		}
	}
	return n
}

func (a *app) statusHead(st node.Status) string {
	g := stateMark(st.State)
	if !healthy(st) && st.State != node.StatePaused {
		g = bad
	}
	head := fmt.Sprintf("%s %s  %s for %s", a.glyph(g), escape(selfOf(st.Devices).Name), stateWord(st.State), span(st.Now.Sub(st.Since).Truncate(time.Second)))
	if st.Reason != "" {
		head += " (" + escape(st.Reason) + ")"
	}
	return head
}

func (a *app) attention(st node.Status, at node.Attention) string {
	for _, d := range st.Devices {
		if d.ID == at.Device && at.Device != "" {
			return escape(d.Name) + ": " + escape(at.Text)
		}
	}
	return escape(at.Text)
}

func (a *app) statusText(st node.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s   %s\n", a.statusHead(st), strings.Join([]string{
		"library " + escape(st.Library[:min(8, len(st.Library))]),
		english.Plural(members(st.Devices), "device", "devices"),
		english.Plural(st.Files, "file", "files"),
	}, a.sep()))
	fmt.Fprintf(&b, "  Catalogue   %s\n", a.catalogueLine(st))
	fmt.Fprintf(&b, "  Index       %s\n", a.indexLine(st))
	for i, at := range st.Attention {
		label := "Attention"
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(&b, "  %-9s   %s (%s)\n", label, a.attention(st, at), escape(at.Severity))
	}
	b.WriteString("\n")
	t := &table{right: map[int]bool{3: true, 4: true, 5: true}, shrink: 0}
	t.row("DEVICE", "LINK", "VIA", "RTT", "WE LACK", "IT LACKS", "SEEN")
	for _, d := range st.Devices {
		t.row(a.linkCells(st.Now, d)...)
	}
	b.WriteString(a.render(t))
	for _, at := range st.Attention {
		if at.Try != "" {
			fmt.Fprintf(&b, "\nNext: %s\n", escape(at.Try))
			break
		}
	}
	return b.String()
}

// linkCells are the cells of a device in a table of links.
func (a *app) linkCells(now time.Time, d node.DeviceView) []string {
	if d.Self {
		return []string{escape(d.Name) + " *", a.glyph(good) + " here", "-", "-", "-", "-", "now"}
	}
	via, rtt := "-", "-"
	if d.Online {
		via = transport(d.Address)
		if d.RTT > 0 {
			rtt = span(d.RTT.Duration())
		}
	}
	link := escape(d.Link)
	if d.Gone != "" {
		return []string{escape(d.Name), a.glyph(bad) + " " + escape(d.Gone), "-", "-", "-", "-", seen(now, d)}
	}
	if d.Paused {
		link += ", paused"
	}
	return []string{escape(d.Name), a.glyph(linkMark(d.Link)) + " " + link, via, rtt,
		orUnknown(d.WeLack), orUnknown(d.ItLacks), seen(now, d)}
}

// transport names how a live connection goes, from its multiaddr.
func transport(address string) string {
	for _, p := range []string{"quic-v1", "webtransport", "tcp"} {
		if strings.Contains(address, "/"+p) {
			return p
		}
	}
	return "-"
}

func (a *app) catalogueLine(st node.Status) string {
	var inStep, parts []string
	for _, d := range st.Devices {
		switch {
		case d.Self, d.Gone != "":
		case !d.Online:
			since := "never in step"
			if !d.AsOf.IsZero() {
				since = fresh(st.Now, false, d.AsOf)
			}
			parts = append(parts, escape(d.Name)+" away, "+since)
		case d.WeLack == nil || d.ItLacks == nil:
			parts = append(parts, escape(d.Name)+": comparing")
		case *d.WeLack == 0 && *d.ItLacks == 0:
			inStep = append(inStep, escape(d.Name))
		default:
			parts = append(parts, fmt.Sprintf("%s: we lack %s, it lacks %s", escape(d.Name), english.Count(*d.WeLack), english.Count(*d.ItLacks)))
		}
	}
	if len(inStep) > 0 {
		parts = append([]string{"in step with " + strings.Join(inStep, ", ")}, parts...)
	}
	if len(parts) == 0 {
		return "no other device yet; `peer invite` prints the line to join with"
	}
	return strings.Join(parts, a.sep())
}

func (a *app) indexLine(st node.Status) string {
	if len(st.Locations) == 0 {
		return "no folder yet; `peer add FOLDER` indexes one"
	}
	var last time.Time
	var unreadable, unhashed uint64
	words := map[string]int{}
	for _, l := range st.Locations {
		words[l.State]++
		unreadable += l.Unreadable
		unhashed += l.Unhashed
		if l.LastScan.After(last) {
			last = l.LastScan
		}
	}
	line := english.Plural(len(st.Locations), "folder", "folders")
	for _, w := range []string{"watching", "polling", "scanning", "waiting", "gone"} {
		switch n := words[w]; {
		case n == len(st.Locations):
			line += ", " + w
		case n > 0:
			line += ", " + english.Count(n) + " " + w
		}
	}
	if !last.IsZero() {
		line += ", last full scan " + ago(st.Now, last)
	}
	if unhashed > 0 {
		line += ", hashing " + english.Count(unhashed) + " left"
	}
	if unreadable > 0 {
		line += ", " + english.Plural(unreadable, "path", "paths") + " unreadable"
	}
	return line
}
