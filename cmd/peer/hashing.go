package main

import (
	"context"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/catalog"
	"peerdex/node"
)

// hashFlag lets a person say which files are read; preset is what holds if nothing is said.
func hashFlag(cmd *cobra.Command, policy *string, preset catalog.Policy) {
	cmd.Flags().StringVar(policy, "hash", string(preset), "which files are read to know equal contents: auto, all or none")
	var words []string
	for _, p := range catalog.Policies {
		words = append(words, string(p))
	}
	must(cmd.RegisterFlagCompletionFunc("hash", cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
}

func (a *app) setLocationCmd() *cobra.Command {
	var policy string
	cmd := &cobra.Command{
		Use:   "set LOCATION --hash auto|all|none",
		Short: "Change which files of a folder of this device are read",
		Long: "Change which files of a folder of this device are read, in the background, to know equal contents:\n" +
			"those whose size another file has too, on whatever device (auto), all, or none. What is known\n" +
			"already stays.",
		Example: "peer locations set Pictures --hash all\n" +
			"peer locations set ~/Pictures --hash none    by its path\n" +
			"peer locations set 3f9d --hash auto --json   by the beginning of its id",
		Annotations:       exits(2, 3, 5, 7),
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeLocations(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if policy == "" {
				return usage("nothing to change was named", "--hash is what can be set", "peer locations set "+args[0]+" --hash all")
			}
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				l, err := c.SetHashing(ctx, locationArg(args[0]), policy)
				if err != nil {
					return err
				}
				if a.json {
					return a.document(api.SchemaLocation, l)
				}
				return a.print("%s: %s\n", escape(a.shorten(l.Path)), hashingLine(l))
			})
		},
	}
	hashFlag(cmd, &policy, "")
	return cmd
}

// hashingLine says which files of a location are read, and how far that is.
func hashingLine(l node.LocationView) string {
	line := map[string]string{
		string(catalog.HashAuto): "files whose size occurs more than once",
		string(catalog.HashAll):  "all files",
		string(catalog.HashNone): "no files",
	}[l.Hash]
	if line == "" {
		line = "unknown"
	}
	if l.Unhashed > 0 {
		line += ", " + count(l.Unhashed) + " left"
	}
	return line
}
