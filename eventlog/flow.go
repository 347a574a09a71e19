package eventlog

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
)

// Batch is the details of an event that stands for all of one kind in a window of time, see Tally.
type Batch struct {
	Reason   string           `json:"reason"`
	PerModel map[string]int64 `json:"per_model"` // adds up to the event's record_count
	Outcomes map[string]int64 `json:"outcomes"`
	Batches  int64            `json:"batches"` // pushes, pages or requests
	Bytes    int64            `json:"bytes"`
	Cursor   uint64           `json:"cursor"`    // the last
	WindowMS int64            `json:"window_ms"` // from the first to the end of the window; duration_ms is the work
}

// BatchIngestion: records from a peer were applied. Reason: live, catch_up, backfill or reconcile.
// Outcomes: applied, duplicate, superseded, rejected, dropped.
type BatchIngestion struct{ Batch }

// BatchBroadcast: records were pushed to a peer.
type BatchBroadcast struct{ Batch }

// BroadcastAcked: a peer acknowledged pushes. Outcomes: its answers.
type BroadcastAcked struct{ Batch }

// BackfillRequestSent: pages were asked for. Reason: the request, such as delta or tree_diff.
type BackfillRequestSent struct{ Batch }

// BackfillRequestReceived: a peer asked for pages.
type BackfillRequestReceived struct{ Batch }

// BackfillResponseSent: pages were sent to a peer.
type BackfillResponseSent struct{ Batch }

// FilesChanged: watched files changed. Reason: the location. Outcomes: added, changed, removed, moved.
type FilesChanged struct{ Batch }

// TagsChanged: tags or notes were edited on this device. Outcomes: added, removed, created, renamed, merged,
// deleted.
type TagsChanged struct{ Batch }

// StrategySelected: a road to come into step was chosen.
type StrategySelected struct {
	Feed       string `json:"feed"`
	Strategy   string `json:"strategy"`
	EntryCount int64  `json:"entry_count"`
	Why        string `json:"why"`
}

// ConflictResolved: two devices had written one field, neither having seen the other's. What they wrote is
// not told here.
type ConflictResolved struct {
	Model  string  `json:"model"`
	Entity string  `json:"entity"` // kind and id
	Field  string  `json:"field"`
	Rule   string  `json:"rule"` // hlc: the later stamp wins; tiebreak: equal stamps, author and value decide
	Winner Written `json:"winner"`
	Loser  Written `json:"loser"`
	More   int64   `json:"more"` // conflicts found with this one that have no event of their own
}

// Written says who wrote a value, and when.
type Written struct {
	Device string `json:"device"` // short id
	Stamp  string `json:"stamp"`  // hybrid time
}

func (BatchIngestion) Type() Type          { return "batch_ingestion" }
func (BatchBroadcast) Type() Type          { return "batch_broadcast" }
func (BroadcastAcked) Type() Type          { return "broadcast_acked" }
func (BackfillRequestSent) Type() Type     { return "backfill_request_sent" }
func (BackfillRequestReceived) Type() Type { return "backfill_request_received" }
func (BackfillResponseSent) Type() Type    { return "backfill_response_sent" }
func (FilesChanged) Type() Type            { return "files_changed" }
func (TagsChanged) Type() Type             { return "tags_changed" }
func (ConflictResolved) Type() Type        { return "conflict_resolved" }
func (StrategySelected) Type() Type        { return "strategy_selected" }

func (d StrategySelected) Summary() string {
	return fmt.Sprintf("%s for %s of %s: %s", d.Strategy, plural(d.EntryCount, "entry change"), d.Feed, d.Why)
}

func (d ConflictResolved) Summary() string {
	more := ""
	if d.More > 0 {
		more = ", and " + plural(d.More, "conflict") + " like it"
	}
	return fmt.Sprintf("%s of %s: %s wins over %s by %s%s", d.Field, d.Entity, d.Winner.Device, d.Loser.Device, d.Rule, more)
}

// Summary names the counts, largest first.
func (d Batch) Summary() string {
	var records int64
	for _, n := range d.PerModel {
		records += n
	}
	var parts []string
	if s := list(d.PerModel); s != "" {
		parts = append(parts, plural(records, "record")+" ("+s+")")
	} else {
		parts = append(parts, plural(records, "record"))
	}
	if d.Batches > 1 {
		parts = append(parts, "in "+plural(d.Batches, "part"))
	}
	if s := list(d.Outcomes); s != "" {
		parts = append(parts, s)
	}
	if d.Bytes > 0 {
		parts = append(parts, size(d.Bytes))
	}
	return strings.TrimSuffix(d.Reason+": "+strings.Join(parts, ", "), ": ")
}

// list writes counts such as "25,000 entry, 40 device".
func list(counts map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if counts[a] != counts[b] {
			return int(min(max(counts[b]-counts[a], -1), 1))
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = humanize.Comma(counts[name]) + " " + name
	}
	return strings.Join(names, ", ")
}
