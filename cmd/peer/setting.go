package main

import (
	"context"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/catalog"
	"peerdex/internal/english"
	"peerdex/node"
)

// hashFlag lets a person say which files are read; preset is what holds if nothing is said.
func hashFlag(cmd *cobra.Command, policy *string, preset catalog.Policy) {
	cmd.Flags().StringVar(policy, "hash", string(preset), "which files are read to know equal contents: auto, all or none")
	must(cmd.RegisterFlagCompletionFunc("hash", words(catalog.Policies)))
}

// words completes with a closed list.
func words[T ~string](list []T) cobra.CompletionFunc {
	var out []string
	for _, w := range list {
		out = append(out, string(w))
	}
	return cobra.FixedCompletions(out, cobra.ShellCompDirectiveNoFileComp)
}

func (a *app) setLocationCmd() *cobra.Command {
	var hash, fetch string
	cmd := &cobra.Command{
		Use:   "set LOCATION --hash auto|all|none | --fetch eager|lazy|metered",
		Short: "Change which files of a folder are read, or whether those of another device's are kept here",
		Long: "Of a folder of this device, --hash says which files are read, in the background, to know equal contents:\n" +
			"those whose size another file has too, on whatever device (auto), all, or none. What is known\n" +
			"already stays.\n\n" +
			"Of a folder of another device, --fetch says whether its entries are kept on this one: all of them\n" +
			"(eager), none (lazy: `ls`, `find`, `where` and `info` ask a device that has them, while one is\n" +
			"connected), or all, but more than 10,000 in an hour only after `peer sync now` (metered).",
		Example: "peer locations set Pictures --hash all\n" +
			"peer locations set nas:photos --fetch lazy     know how much there is, and keep none of it\n" +
			"peer locations set nas:photos --fetch eager    fetch it whole",
		Annotations:       exits(2, 3, 5, 7),
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeLocations(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if hash == "" && fetch == "" {
				return usage("nothing to change was named", "--hash and --fetch are what can be set", "peer locations set "+args[0]+" --hash all")
			}
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				set := func() (node.LocationView, error) { return c.SetHashing(ctx, locationArg(args[0]), hash) }
				if fetch != "" {
					set = func() (node.LocationView, error) { return c.SetFetch(ctx, args[0], node.Fetch(fetch)) }
				}
				l, err := set()
				switch {
				case err != nil:
					return err
				case a.json:
					return a.document(api.SchemaLocation, l)
				case fetch != "":
					return a.print("%s:%s: %s\n", escape(l.DeviceName), escape(l.Name), fetchingLine(l))
				}
				return a.print("%s: %s\n", escape(a.shorten(l.Path)), hashingLine(l))
			})
		},
	}
	hashFlag(cmd, &hash, "")
	cmd.Flags().StringVar(&fetch, "fetch", "", "whether the entries of another device's folder are kept here: eager, lazy or metered")
	must(cmd.RegisterFlagCompletionFunc("fetch", words(node.Fetches)))
	cmd.MarkFlagsMutuallyExclusive("hash", "fetch")
	return cmd
}

// fetchingLine says what becomes of the entries of another device's location.
func fetchingLine(l node.LocationView) string {
	of := english.Plural(l.Entries, "entry", "entries")
	policy := node.Fetch(l.Fetch)
	switch {
	case policy == node.FetchLazy:
		return "lazy: of " + of + " none is kept here; a device that has them is asked"
	case l.Waits == "metered_large":
		return "metered: up to " + english.Plural(l.Lacks, "entry waits", "entries wait") + " for `peer sync now`"
	case l.Waits != "":
		return escape(l.Fetch) + ": of " + of + " up to " + english.Plural(l.Lacks, "is", "are") + " lacking, for which the disk has no room"
	case l.Lacks > 0:
		return escape(l.Fetch) + ": of " + of + " up to " + english.Plural(l.Lacks, "is", "are") + " lacking; " + comingLine(l)
	case policy == node.FetchMetered:
		return "metered: " + of + ", and much at once waits for `peer sync now`"
	}
	return "eager: " + of + ", kept here"
}

// comingLine says when what a location lacks comes, and from whom.
func comingLine(l node.LocationView) string {
	switch {
	case l.From != "":
		return "fetching from " + escape(l.From)
	case l.Paused != "":
		return "not fetched now: " + escape(l.Paused)
	}
	return "they come when a device that has them is connected"
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
		line += ", " + english.Count(l.Unhashed) + " left"
	}
	return line
}
