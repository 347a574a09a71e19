package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerdex/api"
	"peerdex/internal/english"
	"peerdex/metrics"
)

// sections of a snapshot that flags choose; none chosen means all. JSON keys are those of metrics.Snapshot.
var sections = []struct{ flag, key, help string }{
	{"state", "state", "the state machine"},
	{"operations", "operations", "what was sent, received and done"},
	{"volume", "data_volume", "how much data moved"},
	{"performance", "performance", "how long things took"},
	{"errors", "errors", "what went wrong"},
	{"devices", "devices", "each device by itself"},
}

func (a *app) syncMetricsCmd() *cobra.Command {
	var (
		device, peer, model string
		watch               bool
		interval            = 2 * time.Second
		chosen              = make([]bool, len(sections))
	)
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Show the numbers of this run in five groups",
		Long: "Show the numbers of sync in five groups: state, operations, data volume, performance, errors.\n" +
			"They count from the start of the daemon.",
		Example: "peer sync metrics\n" +
			"peer sync metrics --errors --device nas\n" +
			"peer sync metrics --watch --json    one object per line",
		Annotations: exits(2, 3, 5, 130),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			pick := map[string]bool{}
			for i, s := range sections {
				if chosen[i] {
					pick[s.key] = true
				}
			}
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error {
				fetch := func(ctx context.Context) (picked, error) {
					s, err := c.Metrics(ctx, cmp.Or(device, peer), model)
					return picked{s, pick}, err
				}
				return show(ctx, a, api.SchemaMetrics, "metrics", watch, interval, fetch, a.metricsText)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&device, "device", "", "only what concerns this device")
	f.StringVar(&peer, "peer", "", "the same as --device")
	f.StringVar(&model, "model", "", "only this record model: entry, device, location, member, tag, tagging or note")
	for i, s := range sections {
		f.BoolVar(&chosen[i], s.flag, false, "only "+s.help+"; may be combined")
	}
	f.BoolVarP(&watch, "watch", "w", false, "go on until interrupted")
	f.Var(spanFlag{&interval}, "interval", "how often with --watch")
	cmd.MarkFlagsMutuallyExclusive("device", "peer")
	must(cmd.RegisterFlagCompletionFunc("device", a.completeDevices))
	must(cmd.RegisterFlagCompletionFunc("peer", a.completeDevices))
	must(cmd.RegisterFlagCompletionFunc("model", cobra.FixedCompletions([]string{"entry", "device", "location", "member", "tag", "tagging", "note"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// picked is a snapshot of which only some sections are shown; no key means all.
type picked struct {
	metrics.Snapshot
	keys map[string]bool
}

func (p picked) shows(key string) bool { return len(p.keys) == 0 || p.keys[key] }

// MarshalJSON leaves out the groups that were not asked for.
func (p picked) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(p.Snapshot)
	if err != nil || len(p.keys) == 0 {
		return b, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	for _, group := range []string{"state", "operations", "data_volume", "performance", "errors", "devices", "catalog", "observer"} {
		if !p.keys[group] {
			delete(all, group)
		}
	}
	return json.Marshal(all)
}

func (a *app) metricsText(p picked) string {
	var b strings.Builder
	title := "Sync metrics" + a.sep() + escape(cmp.Or(p.DeviceName, p.Device, "-"))
	at := p.Time.In(a.zone).Format("2006-01-02 15:04:05 -07:00")
	fmt.Fprintf(&b, "%s%s%s\n", title, strings.Repeat(" ", max(2, 72-columns(title)-len(at))), at)
	rule := "━"
	if !a.unicode() {
		rule = "="
	}
	fmt.Fprintln(&b, strings.Repeat(rule, 72))
	n := 0
	for _, s := range []struct {
		key  string
		text func(metrics.Snapshot) string
	}{
		{"state", a.stateSection}, {"operations", a.operationsSection}, {"data_volume", a.volumeSection},
		{"performance", a.performanceSection}, {"errors", a.errorsSection}, {"devices", a.devicesSection},
	} {
		if text := s.text(p.Snapshot); p.shows(s.key) && text != "" {
			if n++; n > 1 {
				b.WriteString("\n")
			}
			b.WriteString(text)
		}
	}
	if n == 0 {
		fmt.Fprintln(&b, "nothing of this is known per device or model")
	}
	return b.String()
}

// deviceName returns the name behind a short id, or the id.
func (a *app) deviceName(s metrics.Snapshot, short string) string {
	for _, d := range s.Devices {
		if d.ID == short && d.Name != "" {
			return escape(d.Name)
		}
	}
	return escape(cmp.Or(short, "-"))
}

// figures writes labelled lines of a section.
type figures struct{ b strings.Builder }

func (f *figures) title(text string) { fmt.Fprintln(&f.b, text) }

func (f *figures) line(label, value, rest string) {
	fmt.Fprintln(&f.b, strings.TrimRight(fmt.Sprintf("  %-20s%9s  %s", label, value, rest), " "))
}

// text is a line whose value is words.
func (f *figures) text(label, value string) {
	fmt.Fprintln(&f.b, strings.TrimRight(fmt.Sprintf("  %-20s%s", label, value), " "))
}

func (a *app) stateSection(s metrics.Snapshot) string {
	st := s.State
	if st == nil {
		return ""
	}
	var f figures
	f.title("State")
	current := fmt.Sprintf("%s, for %s", stateWord(st.Current), span(st.For.Duration().Truncate(time.Second)))
	if st.Reason != "" {
		current += fmt.Sprintf("  (%s)", escape(st.Reason))
	}
	f.text("Current", current)
	f.text("Node up", span(st.Uptime.Duration().Truncate(time.Second)))
	var (
		names  []string
		spent  []uint64
		phases []string
	)
	for _, name := range slices.SortedFunc(maps.Keys(st.TimeIn), func(x, y string) int {
		return cmp.Or(cmp.Compare(st.TimeIn[y], st.TimeIn[x]), strings.Compare(x, y))
	}) {
		if st.TimeIn[name] > 0 {
			names = append(names, name)
			spent = append(spent, uint64(st.TimeIn[name]))
		}
	}
	for i, share := range percentages(spent) {
		phases = append(phases, fmt.Sprintf("%s %s %d%%", stateWord(names[i]), span(st.TimeIn[names[i]].Duration().Truncate(time.Second)), share))
	}
	f.text("Time in state", strings.Join(phases, a.sep()))
	arrow := " -> "
	if a.unicode() {
		arrow = "→"
	}
	var way string
	for i, t := range st.History {
		if i == 0 {
			way = stateWord(t.From)
		}
		way += arrow + stateWord(t.To)
	}
	f.text("Transitions", strings.TrimSpace(fmt.Sprintf("%s  %s", english.Count(st.Transitions), way)))
	return f.b.String()
}

// percentages returns whole shares that add up to 100 (largest remainder), or nothing for a sum of 0.
func percentages(parts []uint64) []int {
	var sum uint64
	for _, p := range parts {
		sum += p
	}
	if sum == 0 {
		return nil
	}
	type rest struct {
		i int
		r float64
	}
	out, rests, given := make([]int, len(parts)), make([]rest, len(parts)), 0
	for i, p := range parts {
		exact := float64(p) / float64(sum) * 100
		out[i] = int(exact)
		given += out[i]
		rests[i] = rest{i, exact - float64(out[i])}
	}
	slices.SortStableFunc(rests, func(x, y rest) int { return cmp.Compare(y.r, x.r) })
	for i := range max(0, min(100-given, len(rests))) {
		out[rests[i].i]++
	}
	return out
}

// split lists the parts of a total that are not 0, the greatest first.
func (a *app) split(c *metrics.Counts, name func(string) string) string {
	var parts []string
	for _, k := range slices.SortedFunc(maps.Keys(c.By), func(x, y string) int {
		return cmp.Or(cmp.Compare(c.By[y], c.By[x]), strings.Compare(x, y))
	}) {
		if c.By[k] > 0 {
			parts = append(parts, name(k)+" "+english.Count(c.By[k]))
		}
	}
	return strings.Join(parts, a.sep())
}

// word writes a label of a metric.
func word(label string) string { return strings.ReplaceAll(escape(label), "_", "-") }

func (a *app) operationsSection(s metrics.Snapshot) string {
	o := s.Operations
	var f figures
	f.title("Operations (this run)")
	if o.Broadcasts != nil {
		f.line("Broadcasts", english.Count(o.Broadcasts.Total), a.split(&o.Broadcasts.Counts, word))
		f.line("  batches", english.Count(o.Broadcasts.Batches), fmt.Sprintf("%.1f records each on average", o.Broadcasts.BatchRecords.Avg))
	}
	if o.FailedBroadcasts != nil {
		f.line("  failed", english.Count(o.FailedBroadcasts.Total), a.split(o.FailedBroadcasts, word))
	}
	if o.Received != nil {
		f.line("Received", english.Count(o.Received.Total), a.split(o.Received, word))
	}
	if o.Processed != nil {
		for _, outcome := range []string{"applied", "duplicate", "superseded", "rejected", "dropped"} {
			n := o.Processed.By[outcome]
			rest := ""
			if o.Received != nil && o.Received.Total > 0 {
				rest = fmt.Sprintf("%.1f%%", float64(n)/float64(o.Received.Total)*100)
			}
			if outcome == "rejected" && o.Rejections != nil && n > 0 {
				rest += "  " + a.split(o.Rejections, word)
			}
			f.line("  "+outcome, english.Count(n), rest)
		}
		if n := o.Processed.By["_other"]; n > 0 {
			f.line("  other", english.Count(n), "")
		}
	}
	if o.Buffered != nil {
		f.line("  buffered", english.Count(*o.Buffered), "")
	}
	if o.StuckChanges != nil && *o.StuckChanges > 0 && o.MissingParents != nil {
		f.line("  stuck", english.Count(*o.StuckChanges), "waiting for "+english.Plural(*o.MissingParents, "parent", "parents"))
	}
	if o.HintsDropped != nil && *o.HintsDropped > 0 {
		f.line("Hints dropped", english.Count(*o.HintsDropped), "")
	}
	if o.StrangersSeen != nil && *o.StrangersSeen > 0 {
		f.line("Strangers seen", english.Count(*o.StrangersSeen), "announced on the local network, and ignored")
	}
	for _, c := range []struct {
		label string
		n     *metrics.Counts
	}{{"Joins asked", o.Joins}, {"Devices out", o.Departures}, {"Streams refused", o.StreamsRefused}} {
		if c.n != nil && c.n.Total > 0 {
			f.line(c.label, english.Count(c.n.Total), a.split(c.n, word))
		}
	}
	if len(o.Sessions) > 0 {
		var done, failed, aborted uint64
		var active int64
		var took, n float64
		for _, x := range o.Sessions {
			done += x.Ended.By["completed"]
			failed += x.Ended.By["failed"]
			aborted += x.Ended.By["aborted"]
			active += x.Active
			took += x.Duration.Sum.Duration().Seconds()
			n += float64(x.Duration.Count)
		}
		parts := []string{english.Count(done) + " completed", english.Count(failed) + " failed", english.Count(aborted) + " aborted", english.Count(active) + " active"}
		if o.Pages != nil {
			parts = append(parts, english.Plural(*o.Pages, "page", "pages"))
		}
		if n > 0 {
			parts = append(parts, span(time.Duration(took/n*float64(time.Second)))+" on average")
		}
		f.text("Sessions", strings.Join(parts, a.sep()))
	}
	if o.Retries != nil && o.RetryQueue != nil {
		f.text("Retries", fmt.Sprintf("%s tried, %s succeeded, %s waiting", english.Count(o.Retries.Total), english.Count(o.Retries.By["success"]), english.Count(*o.RetryQueue)))
	}
	if f.b.Len() == len("Operations (this run)\n") {
		return ""
	}
	return f.b.String()
}

func (a *app) volumeSection(s metrics.Snapshot) string {
	v := s.Volume
	var f figures
	f.title("Data volume (this run)")
	if v.Records != nil {
		f.line("Records", english.Count(v.Records.Total), a.split(v.Records, word))
	}
	if v.AppliedFrom != nil {
		f.line("From", english.Count(v.AppliedFrom.Total), a.split(v.AppliedFrom, func(id string) string { return a.deviceName(s, id) }))
	}
	if v.SentBytes != nil && v.ReceivedBytes != nil {
		line := fmt.Sprintf("sent %s%sreceived %s", size(*v.SentBytes), a.sep(), size(*v.ReceivedBytes))
		total := *v.SentBytes + *v.ReceivedBytes
		line += a.sep() + "total " + size(total)
		if v.Uncompressed != nil && v.Uncompressed.Total > 0 {
			line += fmt.Sprintf(" (%s before compression)", size(v.Uncompressed.Total))
		}
		f.text("Bytes", line)
	}
	if f.b.Len() == len("Data volume (this run)\n") {
		return ""
	}
	return f.b.String()
}

func (a *app) performanceSection(s metrics.Snapshot) string {
	p := s.Performance
	t := &table{right: map[int]bool{1: true, 2: true, 3: true, 4: true, 5: true, 6: true}, shrink: -1}
	t.row("", "count", "avg", "p50", "p95", "p99", "max")
	row := func(label string, d *metrics.Durations) {
		if d == nil {
			return
		}
		cells := []string{label, english.Count(d.Count)}
		for _, v := range []metrics.Seconds{d.Avg, d.P50, d.P95, d.P99, d.Max} {
			if d.Count == 0 {
				cells = append(cells, "-")
			} else {
				cells = append(cells, span(v.Duration()))
			}
		}
		t.row(cells...)
	}
	row("Broadcast", p.Broadcast)
	row("Apply", p.Apply)
	row("Backfill page", p.Page)
	many := func(label string, m map[string]metrics.Durations) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if d := m[k]; d.Count > 0 {
				row(label+word(k), &d)
			}
		}
	}
	many("Visible here, ", p.Propagation)
	many("Store ", p.Store)
	many("Query ", p.Queries)
	if len(t.rows) == 1 {
		return ""
	}
	var f figures
	f.title("Performance (this run)")
	f.b.WriteString(t.lines(0, ""))
	var lag, clock []string
	if p.HLCDrift != nil && p.LogicalMax != nil {
		clock = append(clock, fmt.Sprintf("HLC %s, logical max %d", signed(p.HLCDrift.Duration()), *p.LogicalMax))
	}
	for _, d := range s.Devices {
		if d.Own || d.ID == "_other" {
			continue
		}
		name := a.deviceName(s, d.ID)
		if d.Online {
			lag = append(lag, fmt.Sprintf("%s %s", name, english.Plural(d.LagIn, "change", "changes")))
			clock = append(clock, name+" "+signed(d.ClockOffset.Duration()))
			continue
		}
		last := time.Time{}
		if d.LastSeen != nil {
			last = *d.LastSeen
		}
		lag = append(lag, fmt.Sprintf("%s unknown, away, %s", name, fresh(s.Time, false, last)))
	}
	if len(lag) > 0 {
		f.text("Lag", strings.Join(lag, a.sep()))
	}
	f.text("Clock", strings.Join(clock, a.sep()))
	return f.b.String()
}

// signed writes a span with its sign.
func signed(d time.Duration) string {
	if d >= 0 {
		return "+" + span(d)
	}
	return span(d)
}

func (a *app) errorsSection(s metrics.Snapshot) string {
	e := s.Errors
	var f figures
	if e.Counts == nil {
		return ""
	}
	f.title("Errors (this run)")
	f.line("Errors", english.Count(e.Counts.Total), a.split(e.Counts, word))
	if e.Conflicts != nil {
		f.line("Conflicts settled", english.Count(e.Conflicts.Total), a.split(e.Conflicts, word))
	}
	for _, r := range slices.Backward(e.Recent[max(0, len(e.Recent)-10):]) {
		device := "-"
		if r.Device != "" {
			device = a.deviceName(s, r.Device)
		}
		fmt.Fprintf(&f.b, "  %s  %-11s %-10s %s\n", r.Time.In(a.zone).Format("15:04:05"), escape(r.Kind), device, escape(r.Message))
	}
	return f.b.String()
}

func (a *app) devicesSection(s metrics.Snapshot) string {
	if len(s.Devices) == 0 {
		return ""
	}
	t := &table{right: map[int]bool{2: true, 3: true, 4: true, 5: true, 6: true, 7: true}, shrink: -1}
	t.row("DEVICE", "CONNECTION", "RECEIVED", "APPLIED", "SENT", "GOT", "FAILURES", "FILES", "SEEN")
	for _, d := range s.Devices {
		name, link, when := a.deviceName(s, d.ID), escape(d.Connection), "now"
		if d.ID == "_other" {
			name = "others"
		}
		if d.Own {
			name, link = name+" *", "here"
		} else if !d.Online {
			last := time.Time{}
			if d.LastSeen != nil {
				last = *d.LastSeen
			}
			when = ago(s.Time, last)
		}
		t.row(name, link, english.Count(d.Received.Total), english.Count(d.Processed.By["applied"]), size(d.SentBytes), size(d.ReceivedBytes),
			english.Count(d.ConsecutiveFailures), english.Count(max(0, d.Files)), when)
	}
	return "Devices\n" + t.lines(0, "")
}
