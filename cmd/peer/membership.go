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

func (a *app) devicesApproveCmd() *cobra.Command {
	var refuse, yes bool
	cmd := &cobra.Command{
		Use:   "approve DIGITS|NAME",
		Short: "Let in a device that asks to join without an invite",
		Long: "Let in a device that asks to join without an invite. Compare the digits: only if both devices\n" +
			"show the same, the one that asks is the one in front of you. By its name alone a stranger could\n" +
			"be let in, so the command then asks.",
		Example: "peer devices approve 402913\n" +
			"peer devices approve nas\n" +
			"peer devices approve --refuse 402913",
		Annotations: exits(2, 3, 5, 7),
		Args:        arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error { return a.approve(ctx, c, args[0], refuse, yes) })
		},
	}
	cmd.Flags().BoolVar(&refuse, "refuse", false, "say no")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask when it is named by its name")
	return cmd
}

func (a *app) approve(ctx context.Context, c *api.Client, ref string, refuse, yes bool) error {
	if !refuse {
		all, err := c.Requests(ctx)
		if err != nil {
			return err
		}
		for _, r := range all {
			if r.Name != ref {
				continue
			}
			if ok, err := a.confirm(yes, fmt.Sprintf("%s shows the digits %s?", escape(r.Name), grouped(r.Digits)),
				"say --yes, or approve it by the digits that it shows"); err != nil || !ok {
				return err
			}
			break
		}
	}
	r, err := c.Approve(ctx, ref, refuse)
	switch {
	case err != nil:
		return err
	case a.json:
		return a.document(api.SchemaRequest, r)
	case refuse:
		return a.print("%s was refused\n", escape(r.Name))
	}
	joined := escape(r.Name) + " joined"
	if r.As != "" {
		joined += " as " + escape(r.As) + ", as another device is called so"
	}
	return a.print("%s (%s)\n", joined, escape(strings.Join(nonEmpty(r.Short, r.OS, r.Version), ", ")))
}

// grouped writes digits so that they can be compared at a glance.
func grouped(digits string) string {
	if len(digits) != 6 {
		return escape(digits)
	}
	return digits[:3] + " " + digits[3:]
}

func (a *app) devicesRenameCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "rename [THIS-DEVICE] NAME",
		Short: "Give this device another name",
		Long:  "Give this device another name. A device is renamed by itself alone, and no two have one name.",
		Example: "peer devices rename laptop\n" +
			"peer devices rename mias-macbook laptop    only if this is mias-macbook\n" +
			"peer devices rename laptop --json",
		Annotations: exits(2, 3, 5, 7),
		Args:        arguments(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			device, name := "", args[0]
			if len(args) == 2 {
				device, name = args[0], args[1]
			}
			if err := node.CheckDeviceName(name); err != nil { // before JSON changes what is no UTF-8
				return err
			}
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				v, err := c.Rename(ctx, device, name)
				switch {
				case err != nil:
					return err
				case a.json:
					return a.document(api.SchemaRenaming, v)
				}
				return a.print("%s is called %s now\n", escape(v.From), escape(v.To))
			})
		},
	}
}

func (a *app) devicesRevokeCmd() *cobra.Command {
	var c caution
	cmd := &cobra.Command{
		Use:   "revoke DEVICE",
		Short: "Put a device out of the library, for good",
		Long: "Put a device out of the library, for good: every member refuses it, at once or as soon as it hears\n" +
			"of it. What it wrote before stays and is marked. What it already holds cannot be taken back.",
		Example: "peer devices revoke attic\n" +
			"peer devices revoke attic --dry-run\n" +
			"peer devices revoke K0VN-22EJ --yes --json",
		Annotations:       exits(2, 3, 4, 5, 7),
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, cl *api.Client) error { return a.remove(ctx, cl, args[0], false, c) })
		},
	}
	c.flags(cmd.Flags())
	return cmd
}

func (a *app) devicesForgetCmd() *cobra.Command {
	var c caution
	cmd := &cobra.Command{
		Use:   "forget DEVICE",
		Short: "Put a device out for good, and drop what it wrote on every device",
		Long: "Put a device out of the library, for good, and drop its entries, tags and notes from every\n" +
			"catalogue. For a device that is lost, or whose entries are of no use any more. No file is touched.",
		Example: "peer devices forget attic\n" +
			"peer devices forget attic --dry-run\n" +
			"peer devices forget K0VN-22EJ --yes --json",
		Annotations:       exits(2, 3, 4, 5, 7),
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, cl *api.Client) error { return a.remove(ctx, cl, args[0], true, c) })
		},
	}
	c.flags(cmd.Flags())
	return cmd
}

func (a *app) remove(ctx context.Context, c *api.Client, ref string, forget bool, how caution) error {
	plan, err := c.Remove(ctx, node.RemoveRequest{Device: ref, Forget: forget, DryRun: true})
	if err != nil {
		return err
	}
	if how.dry && a.json {
		return a.document(api.SchemaRemoval, plan)
	}
	what := removalText(plan)
	if how.dry {
		return a.print("%s\nNothing was changed.\n", what)
	}
	if ok, err := a.confirm(how.yes, what, lookFirst); err != nil || !ok {
		return err
	}
	v, err := c.Remove(ctx, node.RemoveRequest{Device: plan.Device.ID, Forget: forget})
	switch {
	case err != nil:
		return err
	case a.json:
		return a.document(api.SchemaRemoval, v)
	}
	done := "revoked"
	if forget {
		done = "forgotten"
	}
	line := fmt.Sprintf("%s is %s.", escape(v.Device.Name), done)
	if len(v.Kept) > 0 {
		line += fmt.Sprintf(" Whom it had let in stays: %s.", deviceNames(v.Kept))
	}
	return a.print("%s%s\n", line, heard(v.Told, v.Later))
}

// removalText is the question before a device is put out.
func removalText(v node.RemoveView) string {
	verb := "Revoke"
	if v.Forget {
		verb = "Forget"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s (%s)? ", verb, escape(v.Device.Name), escape(v.Device.Short))
	by := "this device"
	if len(v.Later) > 0 {
		by += ", " + deviceNames(v.Later)
	}
	fmt.Fprintf(&b, "It will be refused by %s from now on.\n", by)
	entries := english.Plural(v.Device.Files+v.Device.Dirs, "catalogue entry", "catalogue entries")
	if v.Forget {
		fmt.Fprintf(&b, "Its %s, tags and notes are dropped on every device; its files are not touched.", entries)
	} else {
		fmt.Fprintf(&b, "Its %s stay and are marked \"revoked\".", entries)
	}
	if len(v.Kept) > 0 {
		fmt.Fprintf(&b, "\nWhom it had let in stays: %s.", deviceNames(v.Kept))
	}
	b.WriteString("\nWhat it already holds cannot be taken back.")
	return b.String()
}

// heard says which devices know of a change and which do not yet.
func heard(told, later []string) string {
	var out string
	if len(told) > 0 {
		out += " Reached " + deviceNames(told) + "."
	}
	if len(later) > 0 {
		out += " " + deviceNames(later) + " will hear of it later."
	}
	return out
}

// deviceNames writes names of devices as a list for people.
func deviceNames(list []string) string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = escape(n)
	}
	return strings.Join(out, ", ")
}

func (a *app) devicesPauseCmd() *cobra.Command {
	var d time.Duration
	cmd := &cobra.Command{
		Use:   "pause DEVICE",
		Short: "Stop exchanging changes with a device",
		Example: "peer devices pause nas\n" +
			"peer devices pause nas --for 2h\n" +
			"peer devices pause nas --json",
		Annotations:       exits(2, 3, 5),
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				v, err := c.Pause(ctx, args[0], d)
				return a.pauseAnswer(v, err)
			})
		},
	}
	cmd.Flags().Var(spanFlag{&d}, "for", "resume after this long (default: until resumed)")
	return cmd
}

func (a *app) devicesResumeCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "resume DEVICE",
		Short: "Exchange changes with a device again",
		Example: "peer devices resume nas\n" +
			"peer devices resume 3F9D\n" +
			"peer devices resume nas --json",
		Annotations:       exits(2, 3, 5),
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				v, err := c.Resume(ctx, args[0])
				return a.pauseAnswer(v, err)
			})
		},
	}
}

func (a *app) leaveCmd() *cobra.Command {
	var c caution
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Leave the library, with the folders of this device",
		Long: "Leave the library. This device keeps its folders, in a library of its own; the others show it as\n" +
			"left and keep what it wrote. It may join again with an invite.",
		Example: "peer leave\n" +
			"peer leave --dry-run\n" +
			"peer leave --yes --json",
		Annotations: exits(2, 3, 7),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, cl *api.Client) error { return a.leave(ctx, cl, c) })
		},
	}
	c.flags(cmd.Flags())
	return cmd
}

func (a *app) leave(ctx context.Context, c *api.Client, how caution) error {
	plan, err := c.Leave(ctx, true)
	if err != nil {
		return err
	}
	if how.dry && a.json {
		return a.document(api.SchemaLeaving, plan)
	}
	what := "Leave the library"
	if len(plan.Later) > 0 {
		what += " of " + deviceNames(plan.Later)
	}
	what += "? Their catalogues are dropped here; they keep this device's, marked \"left\"."
	if plan.RootKey != "" {
		what += "\nThis device has the library's root key, without which no admin can be put out; it is kept as\n" + escape(plan.RootKey) + "."
	}
	if how.dry {
		return a.print("%s\nNothing was changed.\n", what)
	}
	if ok, err := a.confirm(how.yes, what, lookFirst); err != nil || !ok {
		return err
	}
	v, err := c.Leave(ctx, false)
	switch {
	case err != nil:
		return err
	case a.json:
		return a.document(api.SchemaLeaving, v)
	}
	return a.print("left; this device is in library %s of its own.%s\n", escape(v.To[:min(8, len(v.To))]), heard(v.Told, v.Later))
}
