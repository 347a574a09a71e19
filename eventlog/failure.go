package eventlog

import (
	"fmt"
	"strings"
	"time"

	"peerdex/internal/english"
)

// SyncError: something went wrong that has no type of its own.
type SyncError struct {
	Kind    string `json:"kind"` // network, database, apply, validation, protocol, auth or internal
	Message string `json:"message"`
}

// BufferOverflow: a bounded queue of hints was full.
type BufferOverflow struct {
	DroppedCount  int64  `json:"dropped_count"`
	MaxBufferSize int64  `json:"max_buffer_size"`
	Phase         string `json:"phase"` // the sync state
	Repeats
}

// StuckDependencies: changes wait for parents that are missing.
type StuckDependencies struct {
	TotalDependencies   int64    `json:"total_dependencies"` // distinct missing parents
	TotalWaitingUpdates int64    `json:"total_waiting_updates"`
	Phase               string   `json:"phase"`
	FirstParents        []string `json:"first_parents"`
	Repeats
}

// WatermarkTooOld: too far behind to catch up step by step.
type WatermarkTooOld struct {
	Feed             string `json:"feed"`
	WatermarkAgeDays int64  `json:"watermark_age_days"`
	ThresholdDays    int64  `json:"threshold_days"`
	Action           string `json:"action"`
}

// ChangeRejected: changes were refused and not applied.
type ChangeRejected struct {
	Feed    string   `json:"feed"`
	Reason  string   `json:"reason"` // decode, schema, signature, unauthorized, future_clock, missing_parent, too_large or other
	Message string   `json:"message"`
	Count   int64    `json:"count"`
	Changes []string `json:"changes"` // the first ids
	By      string   `json:"by"`      // us, or the short id of the device that refused ours
	Repeats
}

// ApplyFailed: a batch could not be applied, for a reason on our side.
type ApplyFailed struct {
	Op      string `json:"op"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Repeats
}

// StoreError: the disk or the store failed.
type StoreError struct {
	Op      string `json:"op"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Repeats
}

// CatalogDiverged: two devices at the same head hold different entries.
type CatalogDiverged struct {
	Feed           string `json:"feed"`
	Seq            uint64 `json:"seq"` // of the head
	Ours           string `json:"ours"`
	Theirs         string `json:"theirs"`
	FirstDifferent string `json:"first_different"` // range of sequence numbers
}

// CatalogConverged: a divergence is over.
type CatalogConverged struct {
	Feed string `json:"feed"`
	Seq  uint64 `json:"seq"`
	Root string `json:"root"`
}

// ProtocolMismatch: a device speaks no version that we speak.
type ProtocolMismatch struct {
	Ours   string `json:"ours"`
	Theirs string `json:"theirs"`
	Repeats
}

// ClockSkewDetected: the wall clocks of two devices differ too much.
type ClockSkewDetected struct {
	OffsetMS      int64 `json:"offset_ms"` // theirs less ours
	UncertaintyMS int64 `json:"uncertainty_ms"`
	Repeats
}

// FeedRescued: values that a transaction would have lost were written again into the own feed.
type FeedRescued struct {
	Feed      string `json:"feed"`
	Registers int64  `json:"registers"`
}

// FeedRolledBack: this device's store is older than what it published; it jumps ahead of that.
type FeedRolledBack struct {
	Feed    string `json:"feed"`
	Method  string `json:"method"` // absorb or jump
	FromSeq uint64 `json:"from_seq"`
	SeenSeq uint64 `json:"seen_seq"`
	ToSeq   uint64 `json:"to_seq"`
}

// FeedCloned: the same key is alive twice; the feed takes no more writes here.
type FeedCloned struct {
	Feed      string `json:"feed"`
	OurBoot   string `json:"our_boot"`
	OtherBoot string `json:"other_boot"`
}

// FeedOrphaned: nobody reachable holds the best head of a feed; a lower one was settled at.
type FeedOrphaned struct {
	Feed       string `json:"feed"`
	FloorSeq   uint64 `json:"floor_seq"`
	SettledSeq uint64 `json:"settled_seq"`
	Reason     string `json:"reason"`
}

// EntriesSetAside: entries that a frozen clone may not write again were put aside.
type EntriesSetAside struct {
	Feed    string `json:"feed"`
	Entries int64  `json:"entries"`
}

func (SyncError) Type() Type         { return "sync_error" }
func (BufferOverflow) Type() Type    { return "buffer_overflow" }
func (StuckDependencies) Type() Type { return "stuck_dependencies" }
func (WatermarkTooOld) Type() Type   { return "watermark_too_old" }
func (ChangeRejected) Type() Type    { return "change_rejected" }
func (ApplyFailed) Type() Type       { return "apply_failed" }
func (StoreError) Type() Type        { return "store_error" }
func (CatalogDiverged) Type() Type   { return "catalog_diverged" }
func (CatalogConverged) Type() Type  { return "catalog_converged" }
func (ProtocolMismatch) Type() Type  { return "protocol_mismatch" }
func (ClockSkewDetected) Type() Type { return "clock_skew_detected" }
func (FeedRescued) Type() Type       { return "feed_rescued" }
func (FeedRolledBack) Type() Type    { return "feed_rolled_back" }
func (FeedCloned) Type() Type        { return "feed_cloned" }
func (FeedOrphaned) Type() Type      { return "feed_orphaned" }
func (EntriesSetAside) Type() Type   { return "entries_set_aside" }

func (d SyncError) Summary() string { return d.Kind + ": " + d.Message }

func (d BufferOverflow) Summary() string {
	return fmt.Sprintf("Buffer overflow: %s dropped during %s (limit %s)%s", english.Plural(d.DroppedCount, "hint", "hints"), d.Phase, english.Count(d.MaxBufferSize), d.Repeats)
}

func (d StuckDependencies) Summary() string {
	return fmt.Sprintf("Stuck dependencies: %s waiting for %s, during %s%s",
		english.Plural(d.TotalWaitingUpdates, "change", "changes"), english.Plural(d.TotalDependencies, "missing parent", "missing parents"), d.Phase, d.Repeats)
}

func (d WatermarkTooOld) Summary() string {
	return fmt.Sprintf("Watermark of %s too old: %s (limit %s): %s", d.Feed, english.Plural(d.WatermarkAgeDays, "day", "days"), english.Count(d.ThresholdDays), d.Action)
}

func (d ChangeRejected) Summary() string {
	return join(fmt.Sprintf("%s of %s refused by %s: %s", english.Plural(d.Count, "change", "changes"), d.Feed, d.By, d.Reason), d.Message) + d.Repeats.String()
}

func (d ApplyFailed) Summary() string { return join(d.Op+" "+d.Code, d.Message) + d.Repeats.String() }
func (d StoreError) Summary() string  { return join(d.Op+" "+d.Code, d.Message) + d.Repeats.String() }

func (d CatalogDiverged) Summary() string {
	return fmt.Sprintf("%s at %s: ours %s, theirs %s", d.Feed, english.Count(d.Seq), d.Ours, d.Theirs)
}

func (d CatalogConverged) Summary() string {
	return fmt.Sprintf("%s at %s: both %s", d.Feed, english.Count(d.Seq), d.Root)
}

func (d ProtocolMismatch) Summary() string {
	return fmt.Sprintf("we speak %s, they speak %s%s", d.Ours, d.Theirs, d.Repeats)
}

func (d ClockSkewDetected) Summary() string {
	return fmt.Sprintf("their clock is off by %v ± %v%s", milliseconds(d.OffsetMS), milliseconds(d.UncertaintyMS), d.Repeats)
}

func (d FeedRescued) Summary() string {
	return fmt.Sprintf("%s of %s written again, or they had been lost", english.Plural(d.Registers, "value", "values"), d.Feed)
}

func (d FeedRolledBack) Summary() string {
	return fmt.Sprintf("%s was at %s, but %s is known elsewhere: %s to %s", d.Feed, english.Count(d.FromSeq), english.Count(d.SeenSeq), d.Method, english.Count(d.ToSeq))
}

func (d FeedCloned) Summary() string {
	return fmt.Sprintf("%s is written by another copy of this device (boot %s): writing stopped", d.Feed, d.OtherBoot)
}

func (d FeedOrphaned) Summary() string {
	return fmt.Sprintf("%s settled at %s below %s: %s", d.Feed, english.Count(d.SettledSeq), english.Count(d.FloorSeq), d.Reason)
}

func (d EntriesSetAside) Summary() string {
	return fmt.Sprintf("%s of %s put aside", english.Plural(d.Entries, "change", "changes"), d.Feed)
}

func (d BufferOverflow) repeatKey() string    { return d.Phase }
func (d StuckDependencies) repeatKey() string { return "" }
func (d ChangeRejected) repeatKey() string    { return d.Reason + " " + d.Feed + " " + d.By }
func (d ApplyFailed) repeatKey() string       { return d.Op + " " + d.Code }
func (d StoreError) repeatKey() string        { return d.Op + " " + d.Code }
func (d ProtocolMismatch) repeatKey() string  { return "" }
func (d ClockSkewDetected) repeatKey() string { return "" }

func (d BufferOverflow) repeat(sum Detail, r Repeats) Detail {
	if before, ok := sum.(BufferOverflow); ok {
		d.DroppedCount += before.DroppedCount
	}
	d.Repeats = r
	return d
}

func (d StuckDependencies) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}

func (d ChangeRejected) repeat(sum Detail, r Repeats) Detail {
	if before, ok := sum.(ChangeRejected); ok {
		d.Count += before.Count
		d.Changes = before.Changes // the first
	}
	d.Repeats = r
	return d
}

func (d ApplyFailed) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}

func (d StoreError) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}

func (d ProtocolMismatch) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}

func (d ClockSkewDetected) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}

// Repeats says that an event stands for several, see storm.go. All are zero in an event that stands for
// one occurrence.
type Repeats struct {
	Repeats int64      `json:"repeats"`
	FirstAt *time.Time `json:"first_at"`
	LastAt  *time.Time `json:"last_at"`
}

func (r Repeats) String() string {
	if r.Repeats == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(" · " + english.Count(r.Repeats) + " more")
	if r.FirstAt != nil && r.LastAt != nil {
		fmt.Fprintf(&b, " within %v", r.LastAt.Sub(*r.FirstAt).Round(time.Millisecond))
	}
	return b.String()
}
