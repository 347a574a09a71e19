package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/internal/english"
	"peerdex/node"
)

func (a *app) whereCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "where PATH|DEVICE:PATH|HASH|ID",
		Short: "List every place of a file's content, on devices that are away too",
		Long: "List every place of a file's content, on devices that are away too, by a path of one of them, the\n" +
			"hash of the content or its beginning, or the id of an entry. Where the content was not read, the\n" +
			"answer says why. Of a folder that is not kept here at most 10,000 copies are asked for; if there are\n" +
			"more, the command ends with 6.",
		Example: "peer where ~/Pictures/beach.jpg\n" +
			"peer where nas:/srv/photos/beach.jpg\n" +
			"peer where blake3:9f2c41d8 --json",
		Annotations: exits(2, 3, 5, 6, 8),
		Args:        arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				v, err := asked(a, args[0], func(q node.WhereQuery) (node.Whereabouts, error) { return c.Where(ctx, q) })
				if err != nil {
					return err
				}
				if a.json {
					err = a.document(api.SchemaWhere, v)
				} else if err = a.where(v, args[0]); err == nil {
					a.askedOf(v.Now, v.Asked)
					a.unasked(v.Asked)
				}
				return cmp.Or(err, partly(v.Partial))
			})
		},
		ValidArgsFunction: a.completePaths,
	}
}

func (a *app) infoCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "info PATH|DEVICE:PATH|ID",
		Short: "Tell all that is known of one file or folder",
		Long:  "Tell all that is known of one file or folder of any device, also of one that is away.",
		Example: "peer info ~/Pictures/beach.jpg\n" +
			"peer info nas:/srv/photos\n" +
			"peer info ./notes.txt --json",
		Annotations: exits(2, 3, 5, 6, 8),
		Args:        arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				v, err := asked(a, args[0], func(q node.WhereQuery) (node.Info, error) {
					if q.Hash != "" {
						return node.Info{}, usage(fmt.Sprintf("%q names a content, not one file", args[0]), "it may lie in several places", "peer where "+args[0])
					}
					return c.Info(ctx, q)
				})
				if err != nil {
					return err
				}
				if a.json {
					err = a.document(api.SchemaInfo, v)
				} else if err = a.info(v); err == nil {
					a.askedOf(v.Now, v.Asked)
					a.unasked(v.Asked)
				}
				return cmp.Or(err, partly(v.Partial))
			})
		},
		ValidArgsFunction: a.completePaths,
	}
}

// Lengths of what is written in hexadecimal digits.
const (
	idDigits    = 32
	hashDigits  = 64
	hashTold    = 16 // digits of a hash that are shown
	hashGuessed = 8  // digits that may be the beginning of a hash, where they are no path
	hashPrefix  = "blake3:"
)

// asked asks for what an argument names: a hash, an id, a path; or what only might be the beginning of a hash,
// once it turns out that it is no path.
func asked[T any](a *app, arg string, ask func(node.WhereQuery) (T, error)) (v T, err error) {
	hex := len(arg) > 0 && strings.Trim(strings.ToLower(arg), "0123456789abcdef") == ""
	if digits, ok := strings.CutPrefix(arg, hashPrefix); ok {
		return ask(node.WhereQuery{Hash: digits})
	}
	switch {
	case hex && len(arg) == hashDigits:
		return ask(node.WhereQuery{Hash: arg})
	case hex && len(arg) == idDigits:
		return ask(node.WhereQuery{Entry: arg})
	}
	device, path, err := a.lsTarget(arg, "")
	if err != nil {
		return v, err
	}
	missing := func() bool { return err != nil && api.AsProblem(err).Code == node.CodeNotFound }
	v, err = ask(node.WhereQuery{Device: device, Path: path})
	if whole, ok := resolved(device, path); ok && missing() {
		v, err = ask(node.WhereQuery{Path: whole})
	}
	if hex && len(arg) >= hashGuessed && len(arg) < hashDigits && missing() {
		return ask(node.WhereQuery{Hash: arg})
	}
	return v, err
}

// where lists the places of a content, under the name that it was asked for by.
func (a *app) where(v node.Whereabouts, asked string) error {
	first := v.Places[max(0, slices.IndexFunc(v.Places, func(e node.Entry) bool { return e.Name == path.Base(asked) }))]
	parts := []string{escape(first.Name), entrySize(first)}
	if first.Name == "" { // a location as a whole
		parts[0] = escape(first.Path)
	}
	switch {
	case v.Hash != "":
		parts = append(parts, a.shortHash(v.Hash), copiesText(len(v.Places), v.On))
	case first.Kind == "file":
		parts = append(parts, "content not known: "+v.Why)
	}
	if err := a.print("%s\n", strings.Join(parts, "   ")); err != nil {
		return err
	}
	if first.ContentNote != "" { // one for all places
		if err := a.print("on its content: %s\n", escape(first.ContentNote)); err != nil {
			return err
		}
	}
	t := &table{shrink: 1}
	for _, e := range v.Places {
		state := marked(fresh(v.Now, e.Current, e.AsOf), e.Gone)
		cells := []string{escape(e.DeviceName), escape(e.Path) + kindSuffix(e), a.minute(e), state}
		if len(e.Tags) > 0 || e.Note != "" {
			cells = append(cells, tagNames(e.Tags), escape(e.Note))
		}
		t.row(cells...)
	}
	return a.write([]byte(a.render(t)))
}

func (a *app) shortHash(hash string) string {
	ellipsis := "…"
	if !a.unicode() {
		ellipsis = "..."
	}
	return hashPrefix + hash[:min(len(hash), hashTold)] + ellipsis
}

func copiesText(copies, devices int) string {
	return english.Plural(copies, "copy", "copies") + " on " + english.Plural(devices, "device", "devices")
}

func (a *app) info(v node.Info) error {
	e := v.Entry
	t := &table{shrink: 1}
	t.row("path", escape(e.Path)+kindSuffix(e))
	t.row("device", escape(e.DeviceName)+", "+marked(fresh(v.Now, e.Current, e.AsOf), e.Gone))
	t.row("location", escape(v.LocationName))
	t.row("kind", e.Kind)
	if e.Kind == "file" {
		t.row("size", fmt.Sprintf("%s, %s", size(e.Size), english.Plural(e.Size, "byte", "bytes")))
	}
	t.row("mode", modeText(e))
	if !e.Modified.IsZero() {
		t.row("modified", a.clock(e.Modified))
	}
	if e.Kind == "file" {
		content := "not known: " + v.Why
		if e.Hash != "" {
			content = hashPrefix + e.Hash
			t.row("copies", english.Count(v.Copies)+" on "+english.Plural(v.On, "device", "devices"))
		}
		t.row("content", content)
	}
	if len(e.Tags) > 0 {
		t.row("tags", tagNames(e.Tags))
	}
	if e.Note != "" {
		t.row("note", escape(e.Note))
	}
	if e.ContentNote != "" {
		t.row("on content", escape(e.ContentNote))
	}
	if v.Lost {
		t.row("above", "the folders above are not all known yet")
	}
	t.row("id", e.ID)
	return a.write([]byte(a.render(t)))
}

// minute writes when an entry was changed.
func (a *app) minute(e node.Entry) string {
	if e.Modified.IsZero() {
		return "-"
	}
	return e.Modified.In(a.zone).Format("2006-01-02 15:04")
}

// faultIn returns the query of a problem and, to stand below it, marks where it is wrong.
func (a *app) faultIn(p *node.Problem) (line, mark string, ok bool) {
	var f node.QueryFault
	b, err := json.Marshal(p.Details)
	if p.Code != node.CodeBadQuery || err != nil || json.Unmarshal(b, &f) != nil || f.At > f.End || f.End > len(f.Query) {
		return "", "", false
	}
	if own, is := p.Details.(node.QueryFault); is { // bytes that JSON would not carry
		f = own
	}
	cut := "…"
	if !a.unicode() {
		cut = "..."
	}
	const most = 60 // columns of the query on each side of what is wrong, and of that
	before, wrong, after := escape(f.Query[:f.At]), escape(f.Query[f.At:f.End]), escape(f.Query[f.End:])
	if r := []rune(before); len(r) > most {
		before = cut + string(r[len(r)-most:])
	}
	if r := []rune(wrong); len(r) > most {
		wrong, after = string(r[:most]), cut
	}
	if r := []rune(after); len(r) > most {
		after = string(r[:most]) + cut
	}
	return before + wrong + after, strings.Repeat(" ", columns(before)) + strings.Repeat("^", max(1, columns(wrong))), true
}
