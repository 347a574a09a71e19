package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/internal/english"
	"peerdex/node"
)

func (a *app) tagCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag",
		Short: "Put tags on files, on all devices",
		Long: "Put tags on files and folders, of this device or any other. Every device may, and all come to show the\n" +
			"same. A tag stays with its file through renames and moves within an indexed folder; with --content\n" +
			"it is on what the file holds, and shows wherever that lies.",
		Example: "peer tag add family ~/Pictures/2019\n" +
			"peer tag ls\n" +
			"peer tag rename familly family",
		Annotations: exits(2),
		Args:        noSuchCommand,
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.tagChangeCmd(false), a.tagChangeCmd(true), a.tagLsCmd(), a.tagFindCmd(), a.tagRenameCmd(), a.tagDeleteCmd())
	return cmd
}

// tagChangeCmd is `peer tag add` and `peer tag remove`.
func (a *app) tagChangeCmd(remove bool) *cobra.Command {
	req := node.TagRequest{Remove: remove}
	cmd := &cobra.Command{
		Use:   "add TAG[,TAG…] PATH…",
		Short: "Put tags on files and folders",
		Long: "Put tags on files and folders: on what lies at paths of this device, or of another as DEVICE:PATH, or\n" +
			"on all that a query finds. A tag that there is not yet is made.",
		Example: "peer tag add family,2019 ~/Pictures/2019 nas:/srv/photos/beach.jpg\n" +
			"peer tag add family --query 'path:2019/ ext:jpg'\n" +
			"peer tag add keep --content ~/Documents/deed.pdf",
		Annotations:       exits(2, 3, 5, 7),
		Args:              arguments(1, -1),
		ValidArgsFunction: a.completeTags,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Tags, err = tagArgs(args[0]); err != nil {
				return err
			}
			if !utf8.ValidString(req.Query) { // JSON would carry another
				return usage(fmt.Sprintf("the query %q cannot be used here", req.Query), "it is not valid UTF-8", "name the files by their paths, as peer find -0 prints them")
			}
			if cmd.Flags().Changed("query") && strings.TrimSpace(req.Query) == "" {
				return usage("the query is empty", "it would find every file there is", "--query path:2019/")
			}
			if len(args) < 2 && req.Query == "" {
				return usage("it is not said which files", "after the tags come paths, or --query", cmd.Example[:strings.IndexByte(cmd.Example, '\n')])
			}
			return a.edit(cmd, &req.Targets, args[1:], func(ctx context.Context, c *api.Client) (node.EditView, error) {
				return c.ChangeTags(ctx, req)
			}, func(v node.EditView) string { return tagsChanged(req, v) })
		},
	}
	if remove {
		cmd.Use, cmd.Short, cmd.Long = "remove TAG[,TAG…] PATH…", "Take tags away from files and folders", "Take tags away from files and folders."
		cmd.Example = "peer tag remove family,2019 ~/Pictures/2019 nas:/srv/photos/beach.jpg\n" +
			"peer tag remove draft --query 'tag:draft date:<2024'\n" +
			"peer tag remove keep --content ~/Documents/deed.pdf"
	}
	cmd.Flags().StringVar(&req.Query, "query", "", "all that it finds, as of peer find, instead of paths")
	cmd.Flags().BoolVar(&req.Content, "content", false, "what the files hold, wherever it lies, instead of the files")
	return cmd
}

// edit asks for an edit of what paths name, and prints what became of it.
func (a *app) edit(cmd *cobra.Command, t *node.Targets, paths []string, ask func(context.Context, *api.Client) (node.EditView, error), say func(node.EditView) string) error {
	if err := a.editTargets(t, paths); err != nil {
		return err
	}
	return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
		v, err := ask(ctx, c)
		if err != nil && api.AsProblem(err).Code == node.CodeNotFound && whole(t.Paths) {
			v, err = ask(ctx, c)
		}
		if err != nil {
			return err
		}
		return a.edited(v, say(v))
	})
}

// editTargets reads paths as ls does.
func (a *app) editTargets(t *node.Targets, paths []string) error {
	t.Paths = nil
	for _, arg := range paths {
		device, path, err := a.lsTarget(arg, "")
		if err != nil {
			return err
		}
		t.Paths = append(t.Paths, node.PathRef{Device: device, Path: path})
	}
	return nil
}

// whole puts paths of this device without symbolic links in place of those that lead through one: a location is
// known by such a path. It reports whether there were any.
func whole(paths []node.PathRef) (changed bool) {
	for i, p := range paths {
		if dir, ok := resolved(p.Device, filepath.Dir(p.Path)); ok { // the last may be a link itself
			paths[i].Path, changed = filepath.Join(dir, filepath.Base(p.Path)), true
		}
	}
	return changed
}

// edited prints the outcome of an edit: what changed, and who has it.
func (a *app) edited(v node.EditView, what string) error {
	if a.json {
		return a.document(api.SchemaEdit, v)
	}
	var parts []string
	if v.Changed > 0 || len(v.Written) > 0 {
		if len(v.Reached) > 0 {
			parts = append(parts, "Reached "+nameList(v.Reached)+".")
		}
		if len(v.Pending) > 0 {
			parts = append(parts, nameList(v.Pending)+" will have it soon.")
		}
		if len(v.Away) > 0 {
			parts = append(parts, nameList(v.Away)+" will learn when "+isBack(len(v.Away))+".")
		}
	}
	for _, l := range v.LeftOut {
		a.hint("%s is lazy and was left out: its entries are not kept on this device", escape(l))
	}
	return a.print("%s\n", strings.Join(append([]string{what}, parts...), " "))
}

func isBack(n int) string {
	if n == 1 {
		return "it returns"
	}
	return "they return"
}

func nameList(list []string) string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = escape(n)
	}
	return strings.Join(out, ", ")
}

// tagNames writes tags as people see them: #family #2019.
func tagNames(list []string) string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = "#" + escape(n)
	}
	return strings.Join(out, " ")
}

// tagged puts the tags that an entry shows behind the cells of its row.
func tagged(e node.Entry, cells ...string) []string {
	if len(e.Tags) == 0 {
		return cells
	}
	return append(cells, tagNames(e.Tags))
}

func tagsOf(v node.EditView) string {
	var list []string
	for _, t := range v.Tags {
		list = append(list, t.Name)
	}
	return tagNames(list)
}

func tagsChanged(req node.TagRequest, v node.EditView) string {
	one, many := "file", "files"
	if req.Content {
		one, many = "content", "contents"
	}
	did, had := "tagged", "had it already"
	if req.Remove {
		did, had = "no longer tagged", "had it not"
	}
	line := fmt.Sprintf("%s %s %s", english.Plural(v.Changed, one, many), did, tagsOf(v))
	if same := v.Targets - v.Changed; same > 0 {
		line += fmt.Sprintf(" (%s %s)", english.Count(same), had)
	}
	line += "."
	if v.Still > 0 {
		line += fmt.Sprintf(" %s still: it is on the content, and goes with --content.", english.Plural(v.Still, "shows it", "show it"))
	}
	return line
}

func (a *app) tagLsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the tags, and how many files show each",
		Example: "peer tag ls           names, ids, and how many files and folders show each\n" +
			"peer tag ls --wide    without shortening\n" +
			"peer tag ls --json    for scripts",
		Annotations: exits(2, 3),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				tags, err := c.Tags(ctx, true)
				if err != nil {
					return err
				}
				if a.json {
					return a.document(api.SchemaTags, struct {
						Tags []node.TagView `json:"tags"`
					}{tags})
				}
				return a.write([]byte(a.tagsText(tags)))
			})
		},
	}
}

func (a *app) tagFindCmd() *cobra.Command {
	var nuls bool
	cmd := &cobra.Command{
		Use:   "find TAG[,TAG…]",
		Short: "List the files of all devices that show tags",
		Long: "List the files and folders of all devices that show all of these tags. peer find knows more: tag:a,b is\n" +
			"either, and !tag:a what does not show it.",
		Example: "peer tag find family,2019\n" +
			"peer tag find family -0 | xargs -0 ls -l\n" +
			"peer find 'tag:family !tag:2019 ext:jpg'",
		Annotations:       exits(2, 3, 5),
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeTags,
		RunE: func(cmd *cobra.Command, args []string) error {
			tags, err := tagArgs(args[0])
			if err != nil {
				return err
			}
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				return a.find(ctx, c, node.FindQuery{Tag: tags}, false, nuls)
			})
		},
	}
	cmd.Flags().BoolVarP(&nuls, "print0", "0", false, "print whole paths only, as they are, each ended by a NUL")
	return cmd
}

// tagArgs takes tags apart that were named with commas between them.
func tagArgs(arg string) (list []string, err error) {
	list = strings.Split(arg, ",")
	for i, t := range list {
		if list[i], err = tagArg(strings.TrimSpace(t)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// tagArg reads the name or id of a tag. One that is no UTF-8 is refused here: the request, which is JSON, would
// carry another.
func tagArg(arg string) (string, error) {
	name := strings.TrimPrefix(arg, "#")
	if !utf8.ValidString(name) {
		return "", node.CheckTagName(name)
	}
	return name, nil
}

// tagDigits is how many digits of an id are shown; the daemon takes so few.
const tagDigits = 8

func (a *app) tagsText(tags []node.TagView) string {
	t := &table{right: map[int]bool{2: true}, shrink: 0}
	t.row("TAG", "ID", "FILES", "")
	for _, tag := range tags {
		kind, files := "", ""
		if tag.Entries != nil {
			files = english.Count(*tag.Entries)
		}
		if tag.BuiltIn {
			kind = "built in"
		}
		t.row(tagNames([]string{tag.Name}), tag.ID[:min(tagDigits, len(tag.ID))], files, kind)
	}
	return a.render(t)
}

func (a *app) tagRenameCmd() *cobra.Command {
	var req node.RenameRequest
	cmd := &cobra.Command{
		Use:   "rename TAG NAME",
		Short: "Call a tag something else, or make one of two",
		Long: "Call a tag something else, on every device. A name that another tag has is refused, but with --merge:\n" +
			"NAME is that tag then, or its id, and what has TAG has that one from now on.",
		Example: "peer tag rename familly family\n" +
			"peer tag rename kin family --merge\n" +
			"peer tag rename 9f3c12ab 77aa01ce --merge",
		Annotations:       exits(2, 3, 5, 7),
		Args:              arguments(2, 2),
		ValidArgsFunction: a.completeTags,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Tag, err = tagArg(args[0]); err != nil {
				return err
			}
			if req.To, err = tagArg(args[1]); err != nil {
				return err
			}
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				v, err := c.RenameTag(ctx, req)
				if err != nil {
					return err
				}
				if len(v.Written) == 0 {
					return a.edited(v, fmt.Sprintf("%s is called so already; nothing has changed.", tagsOf(v)))
				}
				return a.edited(v, fmt.Sprintf("#%s is %s now.", escape(req.Tag), tagsOf(v)))
			})
		},
	}
	cmd.Flags().BoolVar(&req.Merge, "merge", false, "NAME is a tag already: make one of both")
	return cmd
}

func (a *app) tagDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "delete TAG",
		Short: "Make an end of a tag, on every device",
		Long:  "Make an end of a tag, on every device: what has it has it no more. There is no way back.",
		Example: "peer tag delete familly\n" +
			"peer tag delete 9f3c12ab    by its id, where two have one name\n" +
			"peer tag remove family ~/Pictures/2019    only takes it away there",
		Annotations:       exits(2, 3, 5, 7),
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeTags,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := tagArg(args[0])
			if err != nil {
				return err
			}
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				v, err := c.DeleteTag(ctx, name)
				if err != nil {
					return err
				}
				return a.edited(v, fmt.Sprintf("#%s is gone.", escape(name)))
			})
		},
	}
}

// completeTags offers tags for the first argument; after it come paths, which the shell finds itself.
func (a *app) completeTags(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	before, last := "", typed
	if i := strings.LastIndexByte(typed, ','); i >= 0 {
		before, last = typed[:i+1], typed[i+1:]
	}
	return a.offer(cmd, func(ctx context.Context, c *api.Client) (out []string, err error) {
		tags, err := c.Tags(ctx, false)
		for _, t := range tags {
			if strings.HasPrefix(t.Name, last) && !slices.Contains(out, before+t.Name) {
				out = append(out, before+t.Name)
			}
		}
		return out, err
	})
}
