package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/node"
)

func (a *app) findCmd() *cobra.Command {
	var (
		q           node.FindQuery
		quiet, nuls bool
	)
	cmd := &cobra.Command{
		Use:   "find WORD…",
		Short: "Find files on all devices by name, those that are away too",
		Long: "Find files and folders on all devices by name. Devices that are away are searched too, as they\n" +
			"were when last seen.",
		Example: "peer find beach 2019\n" +
			"peer find tax --on nas --sort size\n" +
			"peer find -0 .raw --on laptop | xargs -0 ls -l",
		Annotations: exits(2, 3, 5, 10, 130),
		Args:        arguments(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Text = strings.Join(args, " ")
			if q.Limit < 0 {
				return usage(fmt.Sprintf("cannot print %d entries", q.Limit), "--limit is at least 0, which means all", "--limit 100")
			}
			if !slices.Contains(findSorts, q.Sort) && q.Sort != "" {
				return usage(fmt.Sprintf("cannot sort by %q", q.Sort), "it is one of "+strings.Join(findSorts, ", "), "--sort name")
			}
			if quiet {
				q.Limit = 1
			}
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error { return a.find(ctx, c, q, quiet, nuls) })
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&q.Device, "on", nil, "only on this device; may be repeated")
	f.StringVar(&q.Sort, "sort", "", "name, size, modified or path (default: as found)")
	f.IntVar(&q.Limit, "limit", 0, "stop after so many (default: all)")
	f.BoolVarP(&nuls, "print0", "0", false, "print whole paths only, as they are, each ended by a NUL")
	f.BoolVarP(&quiet, "quiet", "q", false, "print nothing; exit 0 if something was found, 10 if not")
	cmd.MarkFlagsMutuallyExclusive("print0", "quiet")
	must(cmd.RegisterFlagCompletionFunc("on", a.completeDevices))
	must(cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(findSorts, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

var findSorts = []string{"name", "size", "modified", "path"}

// must is for flags named twice in one function.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// findPage is how many hits are lined up together: output begins before the search ends.
const findPage = 200

func (a *app) find(ctx context.Context, c *api.Client, q node.FindQuery, quiet, nuls bool) error {
	var (
		entries = []node.Entry{}
		now     = a.now()
	)
	flush := func() error {
		t := &table{right: map[int]bool{1: true}, shrink: 0}
		for _, e := range entries {
			t.row(a.hit(now, e)...)
		}
		entries = entries[:0]
		return a.write([]byte(a.render(t)))
	}
	res, err := c.Find(ctx, q, func(e node.Entry) error {
		switch {
		case quiet:
			return nil
		case a.json:
			entries = append(entries, e)
			return nil
		case nuls:
			return a.write([]byte(e.Path + "\x00"))
		}
		if entries = append(entries, e); len(entries) == findPage {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case quiet && res.Found == 0:
		return answerNo{}
	case quiet:
		return nil
	case a.json:
		return a.document(api.SchemaFind, struct {
			Query   string       `json:"query"`
			Entries []node.Entry `json:"entries"`
			node.FindResult
		}{q.Text, entries, res})
	case nuls:
		return nil
	}
	if err := flush(); err != nil {
		return err
	}
	a.findFooter(res)
	return nil
}

// hit are the cells of an entry found: path, size, date, device with its freshness.
func (a *app) hit(now time.Time, e node.Entry) []string {
	device := escape(e.DeviceName)
	if !e.Online {
		device += " (" + fresh(now, false, e.AsOf) + ")"
	}
	return []string{escape(e.Path) + kindSuffix(e), entrySize(e), a.date(e.Modified), device}
}

func kindSuffix(e node.Entry) string {
	switch e.Kind {
	case "dir":
		return "/"
	case "link":
		return " -> " + escape(e.Target)
	}
	return ""
}

func entrySize(e node.Entry) string {
	if e.Kind != "file" {
		return e.Kind
	}
	return size(e.Size)
}

// findFooter says on stderr how much was found and how fresh the answer is.
func (a *app) findFooter(res node.FindResult) {
	line := plural(res.Found, "entry", "entries")
	if res.Found == 0 {
		line = "nothing found"
	}
	if res.More {
		line += " shown, there are more"
	}
	line += ", " + span(res.Took.Duration()) + "."
	var now []string
	var old []string
	for _, d := range res.Devices {
		switch {
		case d.Self || d.Online:
			now = append(now, escape(d.Name))
		case d.Gone != "":
			old = append(old, escape(d.Name)+" "+ago(res.Now, d.AsOf)+" ("+escape(d.Gone)+")")
		default:
			old = append(old, escape(d.Name)+" "+ago(res.Now, d.AsOf))
		}
	}
	var parts []string
	if len(now) > 0 {
		parts = append(parts, strings.Join(now, ", ")+" now")
	}
	if parts = append(parts, old...); len(parts) > 0 {
		line += "  As of: " + strings.Join(parts, a.sep())
	}
	a.hint("%s", line)
}
