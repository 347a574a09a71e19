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

func (a *app) devicesCmd() *cobra.Command {
	list := func(cmd *cobra.Command, _ []string) error { return a.ask(cmd, a.listDevices) }
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List the devices of the library, and say who belongs",
		Example: "peer devices                   names, ids, sizes, how fresh each is, and who asks to join\n" +
			"peer devices approve 402913    let in a device that shows these digits\n" +
			"peer devices revoke attic      put one out, for good",
		Annotations: exits(2, 3),
		Args:        noSuchCommand,
		RunE:        list,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "ls",
			Short: "List the devices of the library",
			Example: "peer devices ls           names, ids, sizes, how fresh each is, and who asks to join\n" +
				"peer devices ls --wide    without shortening\n" +
				"peer devices ls --json    for scripts",
			Annotations: exits(2, 3),
			Args:        arguments(0, 0),
			RunE:        list,
		},
		&cobra.Command{
			Use:   "show DEVICE",
			Short: "Show all about one device",
			Example: "peer devices show nas\n" +
				"peer devices show 3F9D          by the beginning of its id\n" +
				"peer devices show nas --json    for scripts",
			Annotations:       exits(2, 3, 5),
			Args:              arguments(1, 1),
			ValidArgsFunction: a.completeDevices,
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
					all, err := c.Devices(ctx)
					if err != nil {
						return err
					}
					d, err := api.ResolveDevice(all, args[0])
					switch {
					case err != nil:
						return err
					case a.json:
						return a.document(api.SchemaDevice, d)
					}
					return a.print("%s", a.deviceText(d, all))
				})
			},
		},
		a.devicesApproveCmd(), a.devicesRenameCmd(), a.devicesRevokeCmd(), a.devicesForgetCmd(), a.devicesPauseCmd(), a.devicesResumeCmd(),
	)
	return cmd
}

func (a *app) listDevices(ctx context.Context, c *api.Client) error {
	devices, err := c.Devices(ctx)
	if err != nil {
		return err
	}
	asking, err := c.Requests(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.document(api.SchemaDevices, struct {
			Devices  []node.DeviceView  `json:"devices"`
			Requests []node.RequestView `json:"requests"`
		}{devices, asking})
	}
	return a.print("%s%s", a.devicesText(devices), requestsText(asking))
}

func (a *app) devicesText(list []node.DeviceView) string {
	t := &table{right: map[int]bool{4: true, 5: true}, shrink: 0}
	t.row("NAME", "ID", "ROLE", "LINK", "FILES", "SIZE", "ADDED", "SEEN")
	now := a.now()
	for _, d := range list {
		name, role, link := escape(d.Name), escape(d.Role), a.linkCell(d)
		if d.Self {
			name = name + " *"
		}
		if d.Gone != "" {
			role = escape(d.Gone)
		}
		if d.Paused {
			link += ", paused"
		}
		t.row(name, escape(d.Short), role, link, english.Count(d.Files), size(d.Bytes), a.date(d.Added), seen(now, d))
	}
	return a.render(t)
}

// linkCell says how a device is connected.
func (a *app) linkCell(d node.DeviceView) string {
	switch {
	case d.Self:
		return a.glyph(good) + " here"
	case d.Gone != "":
		return a.glyph(bad) + " out"
	}
	return a.glyph(linkMark(d.Link)) + " " + escape(d.Link)
}

// goneBy says who revoked a device.
func goneBy(d node.DeviceView, all []node.DeviceView) string {
	switch d.GoneBy {
	case "":
		return ""
	case "root":
		return " by the library's root key"
	}
	for _, by := range all {
		if by.ID == d.GoneBy {
			return " by " + escape(by.Name)
		}
	}
	return " by " + escape(d.GoneBy)
}

// requestsText lists who asks to join without an invite.
func requestsText(asking []node.RequestView) string {
	var b strings.Builder
	for _, r := range asking {
		fmt.Fprintf(&b, "\n%s asks to join. Only if it shows the digits %s:\n  %s\n",
			escape(strings.Join(nonEmpty(r.Name, r.OS), ", ")), grouped(r.Digits), escape(r.Approve))
	}
	return b.String()
}

// deviceText is all about one of the devices.
func (a *app) deviceText(d node.DeviceView, all []node.DeviceView) string {
	var b strings.Builder
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-10s %s\n", label, text)
		}
	}
	line("name", escape(d.Name))
	line("id", escape(d.Short))
	line("peer id", escape(d.ID))
	if d.Gone == "" {
		line("role", fmt.Sprintf("%s since %s", escape(d.Role), a.date(d.Added)))
	} else {
		line("role", fmt.Sprintf("%s on %s%s", escape(d.Gone), a.date(d.GoneSince), goneBy(d, all)))
		if !d.Added.IsZero() {
			line("added", a.date(d.Added))
		}
	}
	line("system", escape(strings.Join(nonEmpty(d.OS, d.Version), ", peer ")))
	line("link", a.linkCell(d))
	line("address", escape(d.Address))
	line("error", escape(d.LastError))
	line("holds", fmt.Sprintf("%s, %s", english.Plural(d.Files, "file", "files"), size(d.Bytes)))
	line("seen", seen(a.now(), d))
	if d.Paused {
		line("sync", "paused; peer devices resume "+escape(d.Name))
	}
	return b.String()
}
