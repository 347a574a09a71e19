package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/catalog"
	"peerdex/internal/english"
	"peerdex/node"
)

const findLong = `Find files and folders on all devices. Devices that are away are searched too, as they were when last seen.
An empty query, '', finds everything. Copies of one file, known by the hash of its content, share a line.

  beach 2019           both words are in the name; large and small letters are equal
  "beach 2019"         this is in the name, with the space
  beach | lake         either; binds less than the space: a b | c is (a b) | c
  !draft               not this; ! binds to the next term alone
  (beach | lake) 2019  brackets group
  ext:jpg,png          the name ends so; no folders
  size:>10MB           also >= < <=, 1MB..2GB, 1MB.., ..2GB; kB MB GB are of 1000, KiB MiB GiB of 1024
  path:2019/           this is in the whole path, written with slashes
  date:2024-04         changed then: a year, month, day, today, yesterday, > >= < <=, 2023..2024-06
  on:nas,attic         on one of these devices
  tag:family,work      has one of these tags
  hash:9f2c41d8        the hash of the content begins so

Between quotes everything stands for itself, but for \" and \\. A word with a colon that is no key must be quoted.
The shell wants quotes of its own around all that: peer find 'beach | lake'.`

func (a *app) findCmd() *cobra.Command {
	var (
		q           node.FindQuery
		quiet, nuls bool
	)
	cmd := &cobra.Command{
		Use:   "find QUERY…",
		Short: "Find files on all devices by name, size, date or tag, those that are away too",
		Long:  findLong,
		Example: "peer find beach 2019\n" +
			"peer find 'tax ext:pdf size:>1MB date:2023..2024' --on nas --sort size\n" +
			"peer find -0 ext:raw --on laptop | xargs -0 ls -l",
		Annotations: exits(2, 3, 5, 6, 8, 10, 130),
		Args:        arguments(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Text = strings.Join(args, " ")
			if _, err := node.ParseQuery(q.Text, a.now().In(a.zone)); err != nil {
				// A daemon refuses it too, and logs that. Its answer adds nothing, and there need not be one.
				_ = a.ask(cmd, func(ctx context.Context, c *api.Client) error {
					_, err := c.Find(ctx, node.FindQuery{Text: q.Text, Limit: 1}, func(node.Entry) error { return nil })
					return err
				})
				return err
			}
			if q.Limit < 0 {
				return usage("cannot print "+english.Plural(q.Limit, "file", "files"), "--limit is at least 0, which means all", "--limit 100")
			}
			if _, ok := node.Sorts[q.Sort]; !ok {
				return usage(fmt.Sprintf("cannot sort by %q", q.Sort), "it is one of "+strings.Join(findSorts(), ", "), "--sort name")
			}
			if nuls && a.json {
				return usage("-0 and --json exclude each other", "one prints bare paths, the other one document", "peer find --json QUERY")
			}
			if quiet {
				q.Limit, q.Sort = 1, "none"
			}
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error { return a.find(ctx, c, q, quiet, nuls) })
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&q.Device, "on", nil, "only on this device; may be repeated for several")
	f.StringArrayVar(&q.Tag, "tag", nil, "only with this tag; may be repeated for all of several")
	f.StringVar(&q.Sort, "sort", "name", "name, path, size or modified, the greatest first; none prints the first hits soonest")
	f.BoolVar(&q.Reverse, "reverse", false, "the other way round")
	f.IntVar(&q.Limit, "limit", 0, "stop after so many files, of which copies count once (default: all, of a folder that is not kept here the first 10,000)")
	f.BoolVarP(&nuls, "print0", "0", false, "print whole paths only, as they are, each ended by a NUL")
	f.BoolVarP(&quiet, "quiet", "q", false, "print nothing; exit 0 if something was found, 10 if not")
	cmd.MarkFlagsMutuallyExclusive("print0", "quiet")
	must(cmd.RegisterFlagCompletionFunc("on", a.completeDevices))
	must(cmd.RegisterFlagCompletionFunc("tag", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.completeTags(cmd, nil, typed)
	}))
	must(cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(findSorts(), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func findSorts() []string { return slices.Sorted(maps.Keys(node.Sorts)) }

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
		copies  []node.Entry // found one after the other, of one content
		t       = a.findTable()
		now     = a.now()
	)
	if !a.json { // a page is held, never more: to collect the rest early would cost more time than it saves memory
		defer debug.SetGCPercent(debug.SetGCPercent(800))
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
		if len(copies) > 0 && (e.Hash == "" || e.Hash != copies[0].Hash || e.Size != copies[0].Size) {
			t.row(a.hit(now, copies)...)
			copies = copies[:0]
		}
		copies = append(copies, e)
		if len(t.rows) < findPage {
			return nil
		}
		page := t
		t = a.findTable()
		return a.write([]byte(a.render(page)))
	})
	if err != nil {
		return err
	}
	switch {
	case quiet && res.Found == 0:
		return cmp.Or(partly(res.Partial), error(answerNo{}))
	case quiet:
		return nil
	case a.json:
		err := a.document(api.SchemaFind, struct {
			Query   string       `json:"query"`
			Entries []node.Entry `json:"entries"`
			node.FindResult
		}{q.Text, entries, res})
		return cmp.Or(err, partly(res.Partial))
	case nuls:
		a.unasked(res.Asked)
		return partly(res.Partial)
	}
	if len(copies) > 0 {
		t.row(a.hit(now, copies)...)
	}
	if err := a.write([]byte(a.render(t))); err != nil {
		return err
	}
	a.findFooter(res)
	a.askedOf(res.Now, res.Asked)
	a.unasked(res.Asked)
	return partly(res.Partial)
}

// partly is the end of a command whose answer is not whole, nil if it is.
func partly(partial bool) error {
	if partial {
		return answerPartly{}
	}
	return nil
}

// unasked warns of folders that nobody answered for, or not in full.
func (a *app) unasked(asked []node.Asked) {
	for _, q := range asked {
		name := escape(q.DeviceName) + ":" + escape(q.Name)
		switch {
		case q.Problem != "":
			a.hint("%s could not be asked: %s", name, escape(q.Problem))
		case q.Cut:
			a.hint("%s has more: no more than %s can be asked for at once; search for less, or keep it here: peer locations set %s --fetch eager",
				name, english.Plural(node.MostAsked, "entry", "entries"), name)
		case q.More:
			a.hint("%s has more than was asked for", name)
		}
	}
}

// askedOf says for which folders others answered.
func (a *app) askedOf(now time.Time, asked []node.Asked) {
	for _, q := range asked {
		if q.Via != "" {
			a.hint("%s:%s asked of %s: as of %s", escape(q.DeviceName), escape(q.Name), escape(q.ViaName), ago(now, q.AsOf))
		}
	}
}

func (a *app) findTable() *table { return &table{right: map[int]bool{1: true}, shrink: 0} }

// hit are the cells of what was found: the path of the first copy, size, date, devices with their freshness,
// tags.
func (a *app) hit(now time.Time, copies []node.Entry) []string {
	e := copies[0]
	cells := []string{escape(e.Path) + kindSuffix(e), entrySize(e), a.date(e.Modified), a.places(now, copies)}
	var tags []string
	for _, c := range copies {
		tags = append(tags, c.Tags...)
	}
	if len(tags) > 0 {
		slices.SortFunc(tags, func(a, b string) int { // as each entry has them
			return cmp.Or(cmp.Compare(catalog.FoldName(a), catalog.FoldName(b)), cmp.Compare(a, b))
		})
		cells = append(cells, tagNames(slices.Compact(tags)))
	}
	return cells
}

// places writes the devices that copies are on: "laptop ×2, attic (as of 9 d ago)".
func (a *app) places(now time.Time, copies []node.Entry) string {
	var (
		order []string
		count = map[string]int{}
		some  = map[string]node.Entry{}
	)
	for _, c := range copies {
		if count[c.Device]++; count[c.Device] == 1 {
			order = append(order, c.Device)
			some[c.Device] = c
		} else if have := some[c.Device]; !c.Current && (have.Current || c.AsOf.Before(have.AsOf)) {
			some[c.Device] = c // of several folders the least fresh
		}
	}
	for i, id := range order {
		text := escape(some[id].DeviceName)
		if n := count[id]; n > 1 {
			times := "×"
			if !a.unicode() {
				times = "x"
			}
			text += " " + times + english.Count(n)
		}
		if !some[id].Current {
			text += " (" + marked(fresh(now, false, some[id].AsOf), some[id].Gone) + ")"
		}
		order[i] = text
	}
	return strings.Join(order, ", ")
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
	line := english.Plural(res.Files, "entry", "entries")
	if res.Found == 0 {
		line = "nothing found"
	}
	if res.Found > res.Files {
		line += ", " + english.Plural(res.Found, "place", "places")
	}
	if res.More {
		line += " shown, there are more"
	}
	line += ", " + span(res.Took.Duration()) + "."
	var now []string
	var old []string
	for _, d := range res.Devices {
		switch {
		case d.Current:
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
