package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/node"
)

var shells = []string{"bash", "zsh", "fish", "powershell"}

func (a *app) completionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "completion " + strings.Join(shells, "|"),
		Short: "Print the completion script of a shell",
		Long: "Print the completion script of a shell. It completes commands, flags, and the names of devices\n" +
			"and locations while the daemon runs.",
		Example: "source <(peer completion bash)\n" +
			"peer completion zsh > \"${fpath[1]}/_peer\"\n" +
			"peer completion fish > ~/.config/fish/completions/peer.fish",
		Annotations: exits(2),
		Args:        arguments(1, 1),
		ValidArgs:   shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			var (
				root = cmd.Root()
				b    bytes.Buffer
				err  error
			)
			switch args[0] {
			case "bash":
				err = root.GenBashCompletionV2(&b, true)
			case "zsh":
				err = root.GenZshCompletion(&b)
			case "fish":
				err = root.GenFishCompletion(&b, true)
			case "powershell":
				err = root.GenPowerShellCompletionWithDesc(&b)
			default:
				return &node.Problem{Code: node.CodeUsage, Message: fmt.Sprintf("there is no completion for %q", args[0]),
					Cause: "it is one of " + strings.Join(shells, ", "), Try: "peer completion bash"}
			}
			if err != nil {
				return fmt.Errorf("write the completion script: %w", err)
			}
			return a.write(b.Bytes())
		},
	}
}

// completeTimeout keeps the shell from waiting for a busy daemon.
const completeTimeout = 500 * time.Millisecond

// offer completes with what list returns. Names that would have to be escaped are left out: a shell
// would take them apart.
func (a *app) offer(cmd *cobra.Command, list func(context.Context, *api.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	c, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	names, err := list(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, n := range names {
		if n != "" && clean(n) {
			out = append(out, n)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeDevices(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	return a.offer(cmd, func(ctx context.Context, c *api.Client) (out []string, err error) {
		devices, err := c.Devices(ctx)
		for _, d := range devices {
			if strings.HasPrefix(d.Name, typed) {
				out = append(out, d.Name)
			}
		}
		return out, err
	})
}

func (a *app) completeLocations(own bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.offer(cmd, func(ctx context.Context, c *api.Client) (out []string, err error) {
			all, err := c.Locations(ctx)
			for _, l := range all {
				name := l.Name
				if !l.Self {
					name = l.DeviceName + ":" + l.Name
				}
				if (l.Self || !own) && strings.HasPrefix(name, typed) {
					out = append(out, name)
				}
			}
			return out, err
		})
	}
}

// completePaths offers "device:" besides the files that the shell finds itself.
func (a *app) completePaths(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, _ := a.completeDevices(cmd, args, typed)
	for i := range names {
		names[i] += ":"
	}
	return names, cobra.ShellCompDirectiveNoSpace
}
