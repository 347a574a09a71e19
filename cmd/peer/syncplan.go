package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/internal/english"
	"peerdex/node"
)

func (a *app) syncPlanCmd() *cobra.Command {
	var device string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what would be fetched, from whom and why, without doing it",
		Long: "Show what would be fetched now, from whom and why, for each device and folder of another device that\n" +
			"is behind here. Nothing is done.",
		Example: "peer sync plan\n" +
			"peer sync plan --device nas    only what nas indexes\n" +
			"peer sync plan --json          with everything each donor is judged by",
		Annotations: exits(2, 3, 5),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				v, err := c.SyncPlan(ctx, device)
				switch {
				case err != nil:
					return err
				case a.json:
					return a.document(api.SchemaSyncPlan, v)
				}
				return a.print("%s", a.planText(v))
			})
		},
	}
	cmd.Flags().StringVar(&device, "device", "", "only the feeds of this device")
	must(cmd.RegisterFlagCompletionFunc("device", a.completeDevices))
	return cmd
}

func (a *app) planText(v node.PlanView) string {
	var b strings.Builder
	if v.Paused != "" {
		fmt.Fprintf(&b, "paused     %s\n", escape(v.Paused))
	}
	fmt.Fprintf(&b, "chosen by  %s\n", strings.Join([]string{
		"push up to " + english.Count(v.Thresholds.Push), "bulk above " + english.Count(v.Thresholds.Bulk),
		"snapshot above " + english.Count(v.Thresholds.Snapshot) + " where fewer are held",
	}, a.sep()))
	if len(v.Feeds) == 0 {
		b.WriteString("nothing is lacking, as far as any device has told\n")
	}
	for _, f := range v.Feeds {
		name := escape(f.DeviceName)
		if f.Name != "" {
			name += ":" + escape(f.Name)
		}
		what := f.Strategy
		switch {
		case f.Running:
			what += ", under way"
		case what == "":
			what = strings.ReplaceAll(f.Decision, "_", " ")
		}
		if f.DonorName != "" {
			what += " from " + escape(f.DonorName)
		}
		fmt.Fprintf(&b, "%s  %s\n  %s\n", name, escape(what), escape(f.Reason))
		if len(f.Candidates) == 0 {
			continue
		}
		t := &table{right: map[int]bool{2: true, 3: true, 4: true, 5: true}, shrink: 0}
		for _, c := range f.Candidates {
			t.row(a.candidateCells(c)...)
		}
		b.WriteString(indent(strings.TrimSuffix(a.render(t), "\n")) + "\n")
	}
	return b.String()
}

// candidateCells say how a device is judged that something might come from.
func (a *app) candidateCells(c node.CandidateView) []string {
	can := "cannot"
	switch {
	case c.Serves:
		can = "can"
	case !c.Online:
		return []string{escape(c.Name), "away"}
	}
	cells := []string{escape(c.Name), can, "score " + english.Tenths(c.Score), fmt.Sprintf("complete %.0f%%", 100*c.Complete),
		span(c.Latency.Duration()), english.Count(c.ActiveSyncs) + " active"}
	if c.Failed {
		cells = append(cells, "failed lately")
	}
	return cells
}
