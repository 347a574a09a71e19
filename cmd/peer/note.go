package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/node"
)

func (a *app) noteCmd() *cobra.Command {
	var req node.NoteRequest
	cmd := &cobra.Command{
		Use:   "note PATH [TEXT|-]",
		Short: "Write a note on a file or folder, or print it",
		Long: "Write a note on a file or folder of any device, in place of the one that was there. Without a text it\n" +
			"is printed; an empty text removes it; - reads it from stdin. It stays with the file through renames and\n" +
			"moves within an indexed folder; with --content it is on what the file holds, wherever that lies.",
		Example: "peer note ~/Pictures/lake.jpg 'shot from the boat'\n" +
			"peer note nas:/srv/photos/lake.jpg\n" +
			"peer note ~/Documents/deed.pdf - < deed.txt",
		Annotations: exits(2, 3, 5, 7),
		Args:        arguments(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.showNote(cmd, args[0], req.Content)
			}
			if req.Text = args[1]; req.Text == "-" {
				text, err := a.stdinNote()
				if err != nil {
					return err
				}
				req.Text = text
			}
			if err := node.CheckNote(req.Text); err != nil { // before JSON changes what is no UTF-8
				return err
			}
			return a.edit(cmd, &req.Targets, args[:1], func(ctx context.Context, c *api.Client) (node.EditView, error) {
				return c.SetNote(ctx, req)
			}, func(v node.EditView) string {
				switch {
				case v.Changed == 0:
					return "The note is as it was."
				case req.Text == "":
					return "The note is removed."
				}
				return "Noted."
			})
		},
	}
	cmd.Flags().BoolVar(&req.Content, "content", false, "on what the file holds, wherever it lies, instead of the file")
	return cmd
}

// maxNoteInput is how much of stdin is read for a note, much more than one may hold.
const maxNoteInput = 512 << 10

// stdinNote reads a note without the newline that ends the last line.
func (a *app) stdinNote() (string, error) {
	b, err := io.ReadAll(io.LimitReader(a.in, maxNoteInput))
	if err != nil {
		return "", fmt.Errorf("read the note: %w", err)
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// showNote prints what is noted of a file, or of its content alone.
func (a *app) showNote(cmd *cobra.Command, arg string, content bool) error {
	var t node.Targets
	if err := a.editTargets(&t, []string{arg}); err != nil {
		return err
	}
	return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
		v, err := c.Note(ctx, t.Paths[0])
		if err != nil && api.AsProblem(err).Code == node.CodeNotFound && whole(t.Paths) {
			v, err = c.Note(ctx, t.Paths[0])
		}
		switch {
		case err != nil:
			return err
		case a.json:
			return a.document(api.SchemaNote, v)
		case v.Content == "" && (content || v.Note == ""):
			a.hint("nothing is noted")
			return nil
		}
		if v.Note != "" && !content {
			if err := a.print("%s\n", escapeLines(v.Note)); err != nil || v.Content == "" {
				return err
			}
		}
		if !content {
			a.hint("on its content:")
		}
		return a.print("%s\n", escapeLines(v.Content))
	})
}

// escapeLines is escape for a text that may have several lines.
func escapeLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = escape(l)
	}
	return strings.Join(lines, "\n")
}
