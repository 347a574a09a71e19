package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/catalog"
	"peerdex/internal/english"
	"peerdex/node"
)

func (a *app) addCmd() *cobra.Command {
	var req node.AddRequest
	cmd := &cobra.Command{
		Use:   "add FOLDER",
		Short: "Index a folder of this device and watch it",
		Long: "Index a folder of this device and watch it. Names, sizes and times are read first. Then, in the\n" +
			"background, those files are read whose size another file has too, on whatever device, to know\n" +
			"equal contents: --hash all reads every file, --hash none reads none. Nothing is ever written\n" +
			"below the folder.",
		Example: "peer add ~/Pictures\n" +
			"peer add /srv/media --name films\n" +
			"peer add ~/src --ignore node_modules/ --ignore '*.o' --hash none",
		Annotations: exits(2, 3, 5, 7, 130),
		Args:        arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := folder(args[0])
			if err != nil {
				return err
			}
			req.Path = path
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				m := a.meter("indexing", "names")
				v, err := c.AddLocation(ctx, req, func(p node.ScanProgress) { m.update(p.Seen, p.Total) })
				m.done()
				if err != nil {
					return err
				}
				if a.json {
					return a.document(api.SchemaScan, v)
				}
				return a.print("watching   %s\n", a.watchingLine(v.Location))
			})
		},
	}
	cmd.Flags().StringVar(&req.Name, "name", "", "name of the location (default: the folder's)")
	cmd.Flags().StringArrayVar(&req.Ignore, "ignore", nil, "leave out what matches, in the syntax of .gitignore; may be repeated")
	hashFlag(cmd, &req.Hash, catalog.HashAuto)
	return cmd
}

// watchingLine says what became of a folder to watch.
func (a *app) watchingLine(l node.LocationView) string {
	names := english.Plural(l.Files+l.Dirs, "name", "names")
	if l.ScanTook > 0 { // else they are from before
		names += " in " + span(l.ScanTook.Duration())
	}
	line := escape(a.shorten(l.Path)) + " (" + names + ")"
	if l.Unreadable > 0 {
		line += ", " + english.Plural(l.Unreadable, "path", "paths") + " unreadable"
	}
	if l.State == "polling" {
		line += ", by polling: " + escape(l.Cause)
	}
	return line
}

func (a *app) locationsCmd() *cobra.Command {
	list := func(cmd *cobra.Command, _ []string) error {
		return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
			all, err := c.Locations(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.document(api.SchemaLocations, struct {
					Locations []node.LocationView `json:"locations"`
				}{all})
			}
			if len(all) == 0 {
				a.hint("no folder is indexed yet; try: peer add ~/Pictures")
			}
			return a.print("%s", a.locationsText(all))
		})
	}
	cmd := &cobra.Command{
		Use:   "locations",
		Short: "List and manage indexed folders",
		Example: "peer locations                  every folder of every device\n" +
			"peer locations show Pictures    all about one\n" +
			"peer locations rescan Pictures  compare it with the disk now",
		Annotations: exits(2, 3),
		Args:        noSuchCommand,
		RunE:        list,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "ls",
			Short: "List the folders of every device",
			Example: "peer locations ls\n" +
				"peer locations ls --wide    without shortening paths\n" +
				"peer locations ls --json    for scripts",
			Annotations: exits(2, 3),
			Args:        arguments(0, 0),
			RunE:        list,
		},
		&cobra.Command{
			Use:   "show LOCATION",
			Short: "Show all about one folder",
			Example: "peer locations show Pictures\n" +
				"peer locations show nas:photos    of another device\n" +
				"peer locations show 3f9d --json   by the beginning of its id",
			Annotations:       exits(2, 3, 5),
			Args:              arguments(1, 1),
			ValidArgsFunction: a.completeLocations(false),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
					all, err := c.Locations(ctx)
					if err != nil {
						return err
					}
					l, err := api.ResolveLocation(all, args[0])
					if err != nil {
						return err
					}
					if a.json {
						return a.document(api.SchemaLocation, l)
					}
					return a.print("%s", a.locationText(l))
				})
			},
		},
		&cobra.Command{
			Use:   "remove LOCATION",
			Short: "Stop indexing a folder of this device and drop its entries; the files stay",
			Example: "peer locations remove Pictures\n" +
				"peer locations remove ~/Pictures    by its path\n" +
				"peer locations remove 3f9d --json   by the beginning of its id",
			Annotations:       exits(2, 3, 5, 7),
			Args:              arguments(1, 1),
			ValidArgsFunction: a.completeLocations(true),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
					l, err := c.RemoveLocation(ctx, locationArg(args[0]))
					if err != nil {
						return err
					}
					if a.json {
						return a.document(api.SchemaLocation, l)
					}
					return a.print("removed %s (%s) from the catalogue; the files were not touched\n",
						escape(a.shorten(l.Path)), english.Plural(l.Files+l.Dirs, "name", "names"))
				})
			},
		},
		a.setLocationCmd(),
		&cobra.Command{
			Use:   "rescan LOCATION",
			Short: "Compare a folder of this device with the disk now",
			Example: "peer locations rescan Pictures\n" +
				"peer locations rescan ~/Pictures    by its path\n" +
				"peer locations rescan 3f9d --json   by the beginning of its id",
			Annotations:       exits(2, 3, 5, 7, 130),
			Args:              arguments(1, 1),
			ValidArgsFunction: a.completeLocations(true),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
					m := a.meter("scanning", "names")
					v, err := c.Rescan(ctx, locationArg(args[0]), func(p node.ScanProgress) { m.update(p.Seen, p.Total) })
					m.done()
					if err != nil {
						return err
					}
					if a.json {
						return a.document(api.SchemaScan, v)
					}
					parts := []string{english.Count(v.Added) + " added", english.Count(v.Changed) + " changed", english.Count(v.Removed) + " removed",
						english.Count(v.Unchanged) + " unchanged"}
					if v.Unreadable > 0 {
						parts = append(parts, english.Count(v.Unreadable)+" unreadable")
					}
					return a.print("%s: %s in %s\n", escape(a.shorten(v.Location.Path)), strings.Join(parts, a.sep()),
						span(v.Took.Duration()))
				})
			},
		},
	)
	return cmd
}

// locationArg makes a path whole where the argument is one, so that `remove .` works; names stay.
func locationArg(arg string) string {
	if strings.HasPrefix(arg, ".") || strings.HasPrefix(arg, "/") {
		if path, err := folder(arg); err == nil {
			return path
		}
	}
	return arg
}

func (a *app) locationsText(list []node.LocationView) string {
	if len(list) == 0 {
		return ""
	}
	t := &table{right: map[int]bool{3: true, 4: true}, shrink: 2}
	t.row("NAME", "DEVICE", "PATH", "FILES", "SIZE", "STATE", "AS OF")
	now := a.now()
	for _, l := range list {
		t.row(escape(l.Name), escape(l.DeviceName), escape(a.locationPath(l)), english.Count(l.Files), size(l.Bytes),
			a.locationState(l), strings.TrimPrefix(a.locationFresh(now, l), "as of "))
	}
	return a.render(t)
}

func (a *app) locationPath(l node.LocationView) string {
	if l.Self {
		return a.shorten(l.Path)
	}
	return l.Path
}

func (a *app) locationState(l node.LocationView) string {
	if !l.Self {
		return a.fetchState(l)
	}
	m := good
	switch l.State {
	case "gone":
		m = bad
	case "waiting", "scanning", "polling":
		m = busy
	}
	state := a.glyph(m) + " " + escape(l.State)
	if l.Unhashed > 0 {
		state += ", hashing " + english.Count(l.Unhashed)
	}
	return state
}

// fetchState says in a word what becomes of the entries of another device's location.
func (a *app) fetchState(l node.LocationView) string {
	switch {
	case l.Lacks > 0 || l.Waits != "":
		return a.glyph(busy) + " " + escape(l.Fetch) + ", lacks up to " + english.Count(l.Lacks)
	case node.Fetch(l.Fetch) == node.FetchLazy:
		return a.glyph(away) + " lazy, " + english.Plural(l.Entries, "entry", "entries")
	case node.Fetch(l.Fetch) == node.FetchMetered:
		return a.glyph(good) + " metered"
	}
	return "-"
}

func (a *app) locationFresh(now time.Time, l node.LocationView) string {
	return marked(fresh(now, l.Current, l.AsOf), l.Gone)
}

// maxUnreadable is how many unreadable paths are named.
const maxUnreadable = 20

func (a *app) locationText(l node.LocationView) string {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s %s\n", label, fmt.Sprintf(format, args...))
	}
	now := a.now()
	line("name", "%s", escape(l.Name))
	line("id", "%s", escape(l.ID))
	line("device", "%s (%s)", escape(l.DeviceName), a.locationFresh(now, l))
	line("path", "%s", escape(l.Path))
	if node.Fetch(l.Fetch) != node.FetchLazy {
		line("content", "%s, %s, %s", english.Plural(l.Files, "file", "files"), english.Plural(l.Dirs, "folder", "folders"), size(l.Bytes))
	}
	if !l.Self {
		line("fetch", "%s", fetchingLine(l))
		return b.String()
	}
	state := a.locationState(l)
	if l.Cause != "" {
		state += ": " + escape(l.Cause)
	}
	line("state", "%s", state)
	line("hashed", "%s", hashingLine(l))
	if !l.LastScan.IsZero() {
		line("last scan", "%s, took %s", ago(now, l.LastScan), span(l.ScanTook.Duration()))
	}
	line("left out", "%s ignored, %s unreadable", english.Count(l.Ignored), english.Count(l.Unreadable))
	shown := l.Samples[:min(len(l.Samples), maxUnreadable)]
	for _, u := range shown {
		line("unreadable", "%s: %s", escape(u.Path), escape(u.Reason))
	}
	if more := uint64(len(shown)); more > 0 && l.Unreadable > more {
		line("", "and %s more", english.Count(l.Unreadable-more))
	}
	for _, p := range l.Ignore {
		line("ignore", "%s", escape(p))
	}
	return b.String()
}
