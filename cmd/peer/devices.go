package main

import (
	"context"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/node"
)

func (a *app) devicesCmd() *cobra.Command {
	list := func(cmd *cobra.Command, _ []string) error {
		return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
			devices, err := c.Devices(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.document(api.SchemaDevices, struct {
					Devices []node.DeviceView `json:"devices"`
				}{devices})
			}
			return a.print("%s", a.devicesText(devices))
		})
	}
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List the devices of the library",
		Example: "peer devices           names, ids, sizes, and how fresh each is\n" +
			"peer devices ls        the same\n" +
			"peer devices --json    for scripts",
		Annotations: exits(2, 3),
		Args:        noSuchCommand,
		RunE:        list,
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "ls",
		Short: "List the devices of the library",
		Example: "peer devices ls           names, ids, sizes, and how fresh each is\n" +
			"peer devices ls --wide    without shortening\n" +
			"peer devices ls --json    for scripts",
		Annotations: exits(2, 3),
		Args:        arguments(0, 0),
		RunE:        list,
	})
	return cmd
}

func (a *app) devicesText(list []node.DeviceView) string {
	t := &table{right: map[int]bool{3: true, 4: true}, shrink: 0}
	t.row("NAME", "ID", "LINK", "FILES", "SIZE", "ADDED", "SEEN")
	now := a.now()
	for _, d := range list {
		name, link := escape(d.Name), a.glyph(linkMark(d.Link))+" "+escape(d.Link)
		if d.Self {
			name, link = name+" *", a.glyph(good)+" here"
		}
		t.row(name, escape(d.Short), link, count(d.Files), size(d.Bytes), a.date(d.Added), seen(now, d))
	}
	return a.render(t)
}
