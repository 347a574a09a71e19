package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/internal/english"
	"peerdex/node"
)

type eventFlags struct {
	since, until, peer, device, order, format, output string
	limited                                           bool // --limit was given
	api.EventQuery
}

func (a *app) syncEventsCmd() *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened, from the event log of this device",
		Long: "Show what happened, from the event log of this device, oldest first. Times are RFC 3339,\n" +
			"'2025-10-23 10:00:00', '10:00', today, yesterday, '1 hour ago', 2h, 7d, @1761213600, or start for the\n" +
			"start of the daemon. On a terminal the answer is a table, elsewhere JSON.",
		Example: "peer sync events --since '1 hour ago' --min-severity warning\n" +
			"peer sync events --event-type sync_error --since today -o errors.sql\n" +
			"peer sync events -f --peer nas",
		Annotations: exits(2, 3, 5, 130),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.Peer = cmp.Or(f.peer, f.device)
			f.limited = cmd.Flags().Changed("limit")
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error { return a.events(ctx, c, f) })
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.since, "since", "", "from this time on")
	fs.StringVar(&f.until, "until", "", "before this time")
	fs.StringArrayVar(&f.Types, "event-type", nil, "only this type; sync_error stands for all errors; may be repeated")
	fs.StringArrayVar(&f.Categories, "category", nil, "only this category; may be repeated")
	fs.StringArrayVar(&f.Severities, "severity", nil, "exactly this severity; may be repeated")
	fs.StringVar(&f.MinSeverity, "min-severity", "", "this severity and above: debug, info, warning, error")
	fs.StringVar(&f.Correlation, "correlation-id", "", "only this session, or those whose id begins so")
	fs.StringVar(&f.peer, "peer", "", "only what concerns this other device")
	fs.StringVar(&f.device, "device", "", "the same as --peer")
	fs.StringVar(&f.Model, "model", "", "only this record model: entry, device, location, member, tag, tagging or note")
	fs.IntVar(&f.Limit, "limit", 1000, "at most so many, the newest; 0: all")
	fs.StringVar(&f.order, "order", "asc", "asc: oldest first; desc: newest first")
	fs.StringVar(&f.format, "format", "", "json, ndjson, sql, markdown, csv or table (default: by the extension of -o; else table on a terminal, json elsewhere)")
	fs.StringVarP(&f.output, "output", "o", "", "write to this file, whole or not at all; - is stdout")
	fs.StringVar(&f.Grep, "grep", "", "only what matches this regular expression in summary, type or details")
	fs.BoolVarP(&f.Follow, "follow", "f", false, "go on with what happens, until interrupted")
	cmd.MarkFlagsMutuallyExclusive("peer", "device")
	cmd.MarkFlagsMutuallyExclusive("follow", "output")
	cmd.MarkFlagsMutuallyExclusive("follow", "until")
	for flag, list := range map[string][]string{
		"event-type": names(eventlog.Types()), "category": names(eventlog.Categories), "severity": names(eventlog.Severities),
		"min-severity": names(eventlog.Severities), "format": names(eventlog.Formats), "order": {"asc", "desc"},
		"model": {"entry", "device", "location", "member", "tag", "tagging", "note"},
	} {
		must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)))
	}
	must(cmd.RegisterFlagCompletionFunc("peer", a.completeDevices))
	must(cmd.RegisterFlagCompletionFunc("device", a.completeDevices))
	return cmd
}

func names[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}

// byExtension are the formats that the names of files ask for.
var byExtension = map[string]eventlog.Format{
	".json": eventlog.JSON, ".ndjson": eventlog.NDJSON, ".jsonl": eventlog.NDJSON, ".sql": eventlog.SQL,
	".md": eventlog.Markdown, ".markdown": eventlog.Markdown, ".csv": eventlog.CSV, ".txt": eventlog.Table,
}

// eventFormat returns the format to write; "" is the one document of --json.
func (a *app) eventFormat(f eventFlags) (eventlog.Format, error) {
	format := eventlog.Format(f.format)
	switch {
	case format != "" && !slices.Contains(eventlog.Formats, format):
		return "", usage(fmt.Sprintf("there is no format %q", f.format), "it is one of "+strings.Join(names(eventlog.Formats), ", "), "--format json")
	case f.Follow && (a.json || format == eventlog.NDJSON || format == "" && a.outWidth == 0):
		return eventlog.NDJSON, nil
	case f.Follow && format != "" && format != eventlog.Table:
		return "", usage(fmt.Sprintf("cannot follow in the format %s", format), "it is written as a whole", "--format ndjson")
	case format != "":
		return format, nil
	case f.Follow:
		return eventlog.Table, nil
	case a.json && (f.output == "" || f.output == "-"):
		return "", nil
	}
	if by := byExtension[strings.ToLower(filepath.Ext(f.output))]; by != "" {
		return by, nil
	}
	if a.outWidth > 0 && (f.output == "" || f.output == "-") {
		return eventlog.Table, nil
	}
	return eventlog.JSON, nil
}

func (a *app) events(ctx context.Context, c *api.Client, f eventFlags) error {
	format, err := a.eventFormat(f)
	if err != nil {
		return err
	}
	started := func() (time.Time, error) {
		st, err := c.Status(ctx)
		return st.Started, err
	}
	for _, t := range []struct {
		flag, text string
		at         *time.Time
	}{{"--since", f.since, &f.Since}, {"--until", f.until, &f.Until}} {
		if t.text == "" {
			continue
		}
		if *t.at, err = parseTime(t.flag, t.text, a.now(), a.zone, started); err != nil {
			return err
		}
	}
	switch {
	case f.order != "asc" && f.order != "desc":
		return usage(fmt.Sprintf("there is no order %q", f.order), "it is asc or desc", "--order desc")
	case f.Limit < 0 || f.Limit > api.MaxEvents:
		return usage("cannot print "+english.Plural(f.Limit, "event", "events"), "--limit is from 0, which means all, to "+english.Count(api.MaxEvents), "--limit 100")
	case !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until):
		return usage("--until is not after --since", "no time lies between", "--since '2 hours ago' --until '1 hour ago'")
	}
	f.Desc = f.order == "desc"
	devices, err := c.Devices(ctx)
	if err != nil {
		return err
	}
	options := eventlog.ExportOptions{Zone: a.zone, Exported: a.now(), Name: func(id string) string {
		for _, d := range devices {
			if d.ID == id {
				return d.Name
			}
		}
		return ""
	}}
	if format == eventlog.Table || format == eventlog.Markdown {
		locations, err := c.Locations(ctx)
		if err != nil {
			return err
		}
		options.Known = known(devices, locations)
	}
	if f.Follow {
		if !f.limited {
			f.Limit = 0 // the server knows how many to begin with
		}
		return a.follow(ctx, c, f, format, options)
	}
	return a.export(ctx, c, f, format, options)
}

// known returns what writes names for the ids of devices, folders and feeds in a text.
func known(devices []node.DeviceView, locations []node.LocationView) func(string) string {
	shorts, pairs := map[string]string{}, []string{}
	for _, d := range devices {
		shorts[d.ID] = d.Short
	}
	for _, l := range locations { // before the devices, with whose ids those of their feeds begin
		if short := shorts[l.Device]; short != "" && len(l.ID) > 8 {
			pairs = append(pairs, short+"/"+l.ID[:8], l.DeviceName+":"+l.Name)
		}
		pairs = append(pairs, l.ID, l.Name)
	}
	for _, d := range devices {
		if d.Short != "" {
			pairs = append(pairs, d.Short, d.Name)
		}
	}
	return strings.NewReplacer(pairs...).Replace
}

// export writes the events that f asks for as one document.
func (a *app) export(ctx context.Context, c *api.Client, f eventFlags, format eventlog.Format, options eventlog.ExportOptions) error {
	events := []eventlog.Event{}
	res, err := c.Events(ctx, f.EventQuery, func(e eventlog.Event) error {
		events = append(events, e)
		return nil
	})
	if err != nil {
		return err
	}
	if format == "" {
		return a.document(api.SchemaEvents, struct {
			Events []eventlog.Event `json:"events"`
			api.EventsResult
		}{events, res})
	}
	write := func(w io.Writer) error {
		_, err := eventlog.Export(w, format, each(events), options)
		return err
	}
	if f.output == "" || f.output == "-" {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		if err := a.write(asText(format, b.Bytes())); err != nil {
			return err
		}
	} else if err := writeFile(f.output, write); err != nil {
		return err
	}
	line := english.Plural(res.Found, "event", "events")
	if f.output != "" && f.output != "-" {
		line += " written to " + escape(f.output)
	}
	if res.More {
		line += "; older ones were left out, see --limit"
	}
	if format == eventlog.Table || f.output != "" || res.More {
		a.hint("%s", line)
	}
	return nil
}

// asText keeps JSON from acting on a terminal; the other formats do by themselves.
func asText(format eventlog.Format, b []byte) []byte {
	if format == eventlog.JSON || format == eventlog.NDJSON {
		return eventlog.VisibleJSON(b)
	}
	return b
}

func each(events []eventlog.Event) iter.Seq2[eventlog.Event, error] {
	return func(yield func(eventlog.Event, error) bool) {
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// writeFile writes a file whole or not at all, for this user alone. Behind a link it is the file linked to
// that is replaced; what is no regular file, a device or a pipe, is written to and stays.
func writeFile(path string, write func(io.Writer) error) (err error) {
	cannot := func(err error) error {
		return &node.Problem{Code: node.CodeConflict, Message: "cannot write " + path, Cause: reason(err), Try: "-o FILE in a directory that exists and is yours"}
	}
	switch info, err := os.Stat(path); {
	case err == nil && !info.Mode().IsRegular():
		return writeInto(path, os.O_WRONLY, write, cannot)
	case err == nil:
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return cannot(err)
		}
	default:
		if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 { // to a file that is not there yet
			return writeInto(path, os.O_WRONLY|os.O_CREATE, write, cannot)
		}
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".peer-events-*")
	if err != nil {
		return cannot(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	if err := writeWhole(tmp, write, cannot); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return cannot(err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return cannot(err)
	}
	return nil
}

func writeInto(path string, flags int, write func(io.Writer) error, cannot func(error) error) error {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return cannot(err)
	}
	if err := writeWhole(f, write, cannot); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return cannot(err)
	}
	return nil
}

// writeWhole tells an error of the file, which cannot explains, from one of write.
func writeWhole(f *os.File, write func(io.Writer) error, cannot func(error) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	if _, err := f.Write(b.Bytes()); err != nil {
		return cannot(err)
	}
	return nil
}

// follow prints events as they come.
func (a *app) follow(ctx context.Context, c *api.Client, f eventFlags, format eventlog.Format, options eventlog.ExportOptions) error {
	_, err := c.Events(ctx, f.EventQuery, func(e eventlog.Event) error {
		if format == eventlog.NDJSON {
			line, err := api.Line(api.SchemaEvent, "event", e)
			if err != nil {
				return err
			}
			return a.write(line)
		}
		var b bytes.Buffer
		if _, err := eventlog.Export(&b, format, each([]eventlog.Event{e}), options); err != nil {
			return err
		}
		return a.write(asText(format, b.Bytes()))
	})
	return err
}
