package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/node"
)

// exitMeaning is the documentation of the exit codes.
var exitMeaning = map[int]string{
	0:   "done; the answer is yes",
	1:   "unexpected failure",
	2:   "wrong usage",
	3:   "no daemon is running",
	4:   "not allowed",
	5:   "not found",
	6:   "partial: for some folders nobody could be asked, or not for all; what could be had was printed",
	7:   "the state forbids it",
	8:   "nothing reachable on the network",
	9:   "the store or a digest is wrong",
	10:  "the answer is no",
	130: "interrupted",
}

const exitNote = "exit"

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "peer",
		Short: "Know which file lies on which of your devices",
		Long: "peer keeps a catalogue of the files on all your devices, and the catalogues in step.\n" +
			"It knows what is where; it copies nothing and never writes to your files.",
		Example: "peer start ~/Pictures                 index a folder and serve it to your other devices\n" +
			"peer start ~/Documents --join LINE    on the next device: the line that the first one printed\n" +
			"peer find beach                       search the names on all devices",
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Annotations:       exits(2),
		Args:              noSuchCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkFlags(cmd) },
	}
	f := root.PersistentFlags()
	f.StringVar(&a.home, "home", "", "directory that holds everything of this node (default $PEER_HOME, else per XDG)")
	f.BoolVar(&a.json, "json", false, "print one JSON document, or one object per line with --watch and --follow")
	f.StringVar(&a.color, "color", "auto", "auto, always or never")
	f.BoolVar(&a.ascii, "ascii", false, "no characters beyond ASCII in tables and bars")
	f.BoolVar(&a.wide, "wide", false, "do not shorten paths to the width of the terminal")
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &node.Problem{
			Code:    node.CodeUsage,
			Message: err.Error(),
			Cause:   fmt.Sprintf("`%s` does not take it like that", cmd.CommandPath()),
			Try:     cmd.CommandPath() + " --help",
		}
	})
	root.SetUsageTemplate(usageTemplate)
	cobra.AddTemplateFunc("exits", exitLines)
	cobra.AddTemplateFunc("indent", indent)
	root.AddCommand(a.startCmd(), a.stopCmd(), a.statusCmd(), a.devicesCmd(), a.addCmd(), a.locationsCmd(),
		a.lsCmd(), a.findCmd(), a.whereCmd(), a.infoCmd(), a.tagCmd(), a.noteCmd(), a.inviteCmd(), a.joinCmd(), a.leaveCmd(), a.syncCmd(), a.snapshotCmd(), a.versionCmd(), a.completionCmd(), a.demoCmd())
	root.SetHelpCommand(&cobra.Command{
		Use:         "help [command]",
		Short:       "Explain a command",
		Annotations: exits(2),
		Args:        cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return noSuchCommand(root, args)
			}
			return c.Help()
		},
	})
	return root
}

func (a *app) checkFlags(cmd *cobra.Command) error {
	if err := cmd.ValidateFlagGroups(); err != nil {
		return usage("these flags exclude each other", err.Error(), cmd.CommandPath()+" --help")
	}
	if !slices.Contains([]string{"auto", "always", "never"}, a.color) {
		return &node.Problem{Code: node.CodeUsage, Message: fmt.Sprintf("--color %q is unknown", a.color),
			Cause: "it is auto, always or never", Try: "--color=auto"}
	}
	return nil
}

// noSuchCommand is the Args of commands that only hold others.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	p := &node.Problem{
		Code:    node.CodeUsage,
		Message: fmt.Sprintf("unknown command %q", args[0]),
		Cause:   fmt.Sprintf("`%s` has no such command", cmd.CommandPath()),
		Try:     cmd.CommandPath() + " --help",
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	if near := api.Nearest(args[0], names); near != "" {
		p.Message += fmt.Sprintf("; did you mean `%s`?", near)
		p.Try = cmd.CommandPath() + " " + near
	}
	return p
}

// arguments is the Args of a command that takes least to most of them; most < 0: any number.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		var cause string
		switch {
		case len(args) < least && len(args) == 0:
			cause = "it needs an argument"
		case len(args) < least:
			cause = fmt.Sprintf("it needs %d arguments, not %d", least, len(args))
		case most == 0 && len(args) > 0:
			cause = fmt.Sprintf("it takes no argument, and %q is one", args[0])
		case most >= 0 && len(args) > most:
			cause = fmt.Sprintf("%q is one argument too many (names with spaces need quotes)", args[most])
		default:
			return nil
		}
		return &node.Problem{Code: node.CodeUsage, Message: fmt.Sprintf("cannot run `%s` like that", cmd.CommandPath()),
			Cause: cause, Try: cmd.UseLine()}
	}
}

// exits documents the codes that a command ends with besides 0 and 1; those that ask the daemon list 3 themselves.
func exits(codes ...int) map[string]string {
	var parts []string
	for _, c := range append([]int{0, 1}, codes...) {
		parts = append(parts, fmt.Sprint(c))
	}
	return map[string]string{exitNote: strings.Join(parts, " ")}
}

func exitLines(cmd *cobra.Command) string {
	var b strings.Builder
	for _, field := range strings.Fields(cmd.Annotations[exitNote]) {
		var code int
		if _, err := fmt.Sscan(field, &code); err == nil {
			fmt.Fprintf(&b, "  %-4d %s\n", code, exitMeaning[code])
		}
	}
	b.WriteString("  Any other code means failure.")
	return b.String()
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

const usageTemplate = `Usage:
  {{.UseLine}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{end}}{{if .HasExample}}

Examples:
{{.Example | indent}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}

Exit codes:
{{exits .}}
`

// interrupted is the end of a command that a signal ended.
func interrupted() error { return &node.Problem{Code: node.CodeInterrupted, Message: "interrupted"} }
