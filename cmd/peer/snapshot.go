package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/internal/english"
	"peerdex/node"
)

func (a *app) snapshotCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Move the library by disk",
		Long: "Move the library by disk: one file holds what this device knows of all devices, as it stands. No key,\n" +
			"no secret and nothing that concerns this device alone is in it. Contents of files are not, as ever.",
		Annotations: exits(2),
		Example: "peer snapshot export /media/usb/library.peerdex\n" +
			"peer snapshot import /media/usb/library.peerdex    on the other device\n" +
			"peer sync events --event-type snapshot_import_completed",
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.snapshotExportCmd(), a.snapshotImportCmd())
	return cmd
}

func (a *app) snapshotExportCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "export FILE",
		Short: "Write the library to a new file",
		Long: "Write what this device has of the library to a new file that only this user can read. All of that is on\n" +
			"disk when the command returns; a file that is there already is left alone. It says which folders of\n" +
			"other devices are missing in the file or behind, because they are lazy here or have not all arrived.",
		Example: "peer snapshot export /media/usb/library.peerdex\n" +
			"peer snapshot export ~/library-2026.peerdex\n" +
			"peer snapshot export library.peerdex --json",
		Annotations: exits(2, 3, 4, 5, 7),
		Args:        arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFile(cmd, args[0], func(ctx context.Context, c *api.Client, path string) error {
				v, err := c.ExportSnapshot(ctx, path)
				if err != nil {
					return err
				}
				if a.json {
					return a.document(api.SchemaSnapshot, v)
				}
				text := fmt.Sprintf("exported   %s, %s in %s, %s to %s\n", english.Plural(v.Records, "record", "records"), english.Plural(v.Feeds, "feed", "feeds"),
					span(v.Took.Duration()), size(uint64(v.Bytes)), escape(a.shorten(v.File)))
				for _, f := range v.Missing {
					text += missingLine(f, "the rest is not here yet", "nothing of it is here yet")
				}
				return a.print("%s", text)
			})
		},
	}
}

// missingLine says what there is not of a feed, and why: the rest, or all of it.
func missingLine(f node.MissingFeed, rest, all string) string {
	label, of, why := "missing", "", all
	if f.Behind {
		label, of, why = "behind", "by ", rest
	}
	if node.Fetch(f.Fetch) == node.FetchLazy {
		why = "it is lazy here"
	}
	what := escape(f.DeviceName) + ", its folders' names and its tags"
	if f.Location != "" {
		what = escape(f.DeviceName) + ":" + escape(f.Name)
	}
	if f.Lacks > 0 {
		what += ", " + of + "up to " + english.Plural(f.Lacks, "entry", "entries")
	}
	return fmt.Sprintf("%-10s %s: %s\n", label, what, why)
}

// importText says what came of a file, and what it left out.
func (a *app) importText(v node.SnapshotView) string {
	text := fmt.Sprintf("nothing new in %s, as of %s\n", escape(a.shorten(v.File)), a.clock(v.Made))
	if v.Feeds > 0 {
		text = fmt.Sprintf("imported   %s, %s in %s, as of %s\n", english.Plural(v.Records, "record", "records"), english.Plural(v.Feeds, "feed", "feeds"),
			span(v.Took.Duration()), a.clock(v.Made))
		if v.Held > 0 {
			text += "nothing new in " + english.Plural(v.Held, "other feed", "other feeds") + " of it\n"
		}
	}
	for _, f := range v.Missing {
		if f.InFile {
			text += missingLine(f, "it is in the file, but is coming by sync already", "it is in the file, but is coming by sync already")
			continue
		}
		text += missingLine(f, "the file does not have the newest of it", "the file does not have it")
	}
	return text
}

func (a *app) snapshotImportCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Take in from a file what this device lacks",
		Long: "Take in from a file what this device lacks of its library. Everything is verified against what each\n" +
			"device signed before any of it shows; if something is wrong, all stays as it was. It says which folders\n" +
			"of other devices are missing here or behind even so, because they are not in the file or lazy here.",
		Example: "peer snapshot import /media/usb/library.peerdex\n" +
			"peer snapshot import ~/library-2026.peerdex\n" +
			"peer snapshot import library.peerdex --json",
		Annotations: exits(2, 3, 4, 5, 7, 9),
		Args:        arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFile(cmd, args[0], func(ctx context.Context, c *api.Client, path string) error {
				m := a.meter("importing", "entries")
				v, err := c.ImportSnapshot(ctx, path, m.transfer)
				m.done()
				if err != nil {
					return err
				}
				if a.json {
					return a.document(api.SchemaSnapshot, v)
				}
				return a.print("%s", a.importText(v))
			})
		},
	}
}

// withFile calls fn with the full path of a file that a person named.
func (a *app) withFile(cmd *cobra.Command, name string, fn func(ctx context.Context, c *api.Client, path string) error) error {
	if name == "" {
		return usage("the file has an empty name", "an empty argument names no file", cmd.CommandPath()+" library.peerdex")
	}
	if name == "-" {
		return usage("a snapshot goes to a file, and comes from one", "- is no file", cmd.CommandPath()+" library.peerdex, or ./- for a file of that name")
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return fmt.Errorf("make %s absolute: %w", name, err)
	}
	return a.ask(cmd, func(ctx context.Context, c *api.Client) error { return fn(ctx, c, path) })
}
