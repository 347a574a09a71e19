package eventlog

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"peerdex/internal/english"
)

// Batch is the details of an event that stands for all of one kind in a window of time, see Tally.
type Batch struct {
	Reason   string           `json:"reason"`
	Name     string           `json:"name,omitempty"` // what people call the reason, if that is an id
	PerModel map[string]int64 `json:"per_model"`      // adds up to the event's record_count
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

// ConflictResolved: two devices had written one field, or one of them had made an end of the tag that the other
// renamed or merged, neither having seen the other's. The text that lost is shown nowhere but here.
type ConflictResolved struct {
	Model    string  `json:"model"`
	Entity   string  `json:"entity"`             // kind and id
	Device   string  `json:"device,omitempty"`   // of an entry: short id of the device it is on
	Location string  `json:"location,omitempty"` // of an entry: id
	Entry    string  `json:"entry,omitempty"`    // id, as `peer info` and `peer where` take it
	Hash     string  `json:"hash,omitempty"`     // of a content, as `peer where` takes it
	Tag      string  `json:"tag,omitempty"`      // id of a tag, as `peer tag` takes it
	Field    string  `json:"field"`              // of what lost
	Rule     string  `json:"rule"`               // hlc: the later stamp wins; tiebreak: equal stamps, author and value decide; delete, merge: the tag is gone, or one with another
	Winner   Written `json:"winner"`
	Loser    Written `json:"loser"`
	More     int64   `json:"more"` // conflicts found with this one that have no event of their own
}

// Written says who wrote a value, when, and what, where it is text: a note, or the name of a tag.
type Written struct {
	Device   string `json:"device"` // short id
	Stamp    string `json:"stamp"`  // hybrid time
	Value    string `json:"value,omitempty"`
	ValueB64 string `json:"value_b64,omitempty"` // instead, where JSON would not carry the bytes, or make them many
}

// maxValue is how much of a text is kept, in bytes: two fit into the details of an event.
const maxValue = 4 << 10

// Saying returns w with what was written.
func (w Written) Saying(text []byte) Written {
	text = text[:min(len(text), maxValue)]
	if quoted, err := json.Marshal(string(text)); err == nil && utf8.Valid(text) && len(quoted) <= base64.StdEncoding.EncodedLen(maxValue) {
		w.Value = string(text)
	} else {
		w.ValueB64 = base64.StdEncoding.EncodeToString(text)
	}
	return w
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
	s := d.Strategy + " for up to " + english.Plural(d.EntryCount, "entry", "entries")
	if d.Feed != d.Strategy { // a snapshot is of several feeds
		s += " of " + d.Feed
	}
	return join(s, d.Why)
}

func (d ConflictResolved) Summary() string {
	more := ""
	if d.More > 0 {
		more = ", and " + english.Plural(d.More, "conflict", "conflicts") + " like it"
	}
	entity := d.Entity
	if d.Entry != "" { // the part of it that finds the file
		entity = "entry " + d.Entry
	}
	return fmt.Sprintf("%s of %s: %s wins over %s by %s%s", d.Field, entity, d.Winner.Device, d.Loser.Device, d.Rule, more)
}

// Summary names the counts, largest first.
func (d Batch) Summary() string {
	var records int64
	for _, n := range d.PerModel {
		records += n
	}
	var parts []string
	if s := list(d.PerModel); s != "" {
		parts = append(parts, english.Plural(records, "record", "records")+" ("+s+")")
	}
	if d.Batches > 1 {
		parts = append(parts, "in "+english.Plural(d.Batches, "part", "parts"))
	}
	if s := list(d.Outcomes); s != "" {
		parts = append(parts, s)
	}
	if d.Bytes > 0 {
		parts = append(parts, size(d.Bytes))
	}
	return strings.TrimSuffix(cmp.Or(d.Name, d.Reason)+": "+strings.Join(parts, ", "), ": ")
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
		names[i] = english.Count(counts[name]) + " " + name
	}
	return strings.Join(names, ", ")
}
