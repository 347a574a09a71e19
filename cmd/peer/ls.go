package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/node"
)

func (a *app) lsCmd() *cobra.Command {
	var (
		on   string
		long bool
	)
	cmd := &cobra.Command{
		Use:   "ls [PATH|DEVICE:PATH]",
		Short: "List a folder from the catalogue, of this device or another",
		Long: "List a folder from the catalogue, of this device or another, also of one that is away.\n" +
			"Without a path: the indexed folders.",
		Example: "peer ls ~/Pictures -l\n" +
			"peer ls nas:/srv/photos/2019\n" +
			"peer ls /srv/photos --on nas --json",
		Annotations: exits(2, 3, 5, 8),
		Args:        arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				if len(args) == 0 {
					return a.lsLocations(ctx, c, on)
				}
				device, path, err := a.lsTarget(args[0], on)
				if err != nil {
					return err
				}
				return a.ls(ctx, c, device, path, long)
			})
		},
		ValidArgsFunction: a.completePaths,
	}
	cmd.Flags().StringVar(&on, "on", "", "the path is on this device")
	cmd.Flags().BoolVarP(&long, "long", "l", false, "with mode, size and time")
	must(cmd.RegisterFlagCompletionFunc("on", a.completeDevices))
	return cmd
}

// lsTarget takes DEVICE:PATH apart; a path of this device is made whole.
func (a *app) lsTarget(arg, on string) (device, path string, err error) {
	device, path = on, arg
	name, rest, colon := strings.Cut(arg, ":")
	drive := runtime.GOOS == "windows" && len(name) == 1
	if colon && !drive && name != "" && !strings.ContainsAny(name, `/\.~`) {
		if on != "" && on != name {
			return "", "", usage("the device is named twice", fmt.Sprintf("%q names one, and so does --on %s", arg, on), "peer ls "+arg)
		}
		device, path = name, rest
	}
	if device != "" {
		if path == "" {
			return "", "", usage(fmt.Sprintf("%q lacks a path", arg), "after the device comes a path on it", "peer locations")
		}
		return device, path, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", "", fmt.Errorf("make %s absolute: %w", path, err)
	}
	return "", abs, nil
}

// lsPage is how many entries are fetched at once.
const lsPage = 5000

func (a *app) ls(ctx context.Context, c *api.Client, device, path string, long bool) error {
	q := node.ListQuery{Device: device, Path: path, Limit: lsPage}
	var all node.Listing
	for {
		page, err := c.List(ctx, q)
		if whole, ok := resolved(device, q.Path); ok && err != nil && api.AsProblem(err).Code == node.CodeNotFound {
			q.Path = whole
			page, err = c.List(ctx, q)
		}
		if err != nil {
			return err
		}
		entries := append(all.Entries, page.Entries...)
		all = page
		all.Entries = entries
		if !page.More || len(page.Entries) == 0 {
			break
		}
		q.After = page.Entries[len(page.Entries)-1].Name
	}
	if a.json {
		return a.document(api.SchemaListing, all)
	}
	t := &table{right: map[int]bool{1: true}, shrink: 0}
	if long {
		t = &table{right: map[int]bool{1: true}, shrink: 3}
	}
	for _, e := range all.Entries {
		name := escape(e.Name) + kindSuffix(e)
		if !long {
			t.row(tagged(e, name)...)
			continue
		}
		modified := "-"
		if !e.Modified.IsZero() {
			modified = e.Modified.In(a.zone).Format("2006-01-02 15:04")
		}
		t.row(tagged(e, modeText(e), entrySize(e), modified, name)...)
	}
	if err := a.write([]byte(a.render(t))); err != nil {
		return err
	}
	if all.Asked != nil {
		a.askedOf(all.Now, []node.Asked{*all.Asked})
	} else if device != "" {
		a.hint("%s, %s", escape(all.DeviceName), marked(fresh(all.Now, all.Current, all.AsOf), all.Gone))
	}
	return nil
}

// resolved returns the path of this device that path leads to through symbolic links, if it is another:
// a location is known by the path without them.
func resolved(device, path string) (string, bool) {
	whole, err := filepath.EvalSymlinks(path)
	return whole, err == nil && device == "" && whole != path
}

func modeText(e node.Entry) string {
	m := fs.FileMode(e.Mode & 0o777)
	switch e.Kind {
	case "dir":
		m |= fs.ModeDir
	case "link":
		m |= fs.ModeSymlink
	}
	return strings.ToLower(m.String()) // Go writes a link as L
}

func (a *app) lsLocations(ctx context.Context, c *api.Client, on string) error {
	all, err := c.Locations(ctx)
	if err != nil {
		return err
	}
	if on != "" {
		devices, err := c.Devices(ctx)
		if err != nil {
			return err
		}
		d, err := api.ResolveDevice(devices, on)
		if err != nil {
			return err
		}
		var of []node.LocationView
		for _, l := range all {
			if l.Device == d.ID {
				of = append(of, l)
			}
		}
		all = of
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
}
