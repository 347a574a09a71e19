package eventlog

import (
	"fmt"
	"time"

	"peerdex/internal/english"
)

// TransferProgress: a transfer of many entries, or one that takes long, has come so far.
type TransferProgress struct {
	Direction        string `json:"direction"` // in or out
	Strategy         string `json:"strategy"`  // pages, bulk or snapshot
	Phase            string `json:"phase"`     // preparing, comparing, loading, installing, applying or done
	Records          int64  `json:"records"`
	Total            int64  `json:"total"` // at most; 0: unknown
	Bytes            int64  `json:"bytes"`
	TotalBytes       int64  `json:"total_bytes"`        // 0: unknown
	RecordsPerSecond int64  `json:"records_per_second"` // lately; of the whole transfer when it is done
	ETAMS            int64  `json:"eta_ms"`             // 0: unknown, or all has come
}

// SnapshotExportStarted: the library is being written to a file.
type SnapshotExportStarted struct {
	File string `json:"file"`
}

// SnapshotExportCompleted: the file is durable.
type SnapshotExportCompleted struct {
	File  string `json:"file"`
	Feeds int    `json:"feeds"`
	Bytes int64  `json:"bytes"`
}

// SnapshotExportFailed: there is no such file.
type SnapshotExportFailed struct {
	File       string `json:"file"`
	ReasonCode string `json:"reason_code"`
	Message    string `json:"message"`
}

// SnapshotImportCompleted: what was new in a file is here; no feeds if nothing was.
type SnapshotImportCompleted struct {
	File  string `json:"file"`
	Feeds int    `json:"feeds"`
}

// SnapshotImportFailed: nothing of the file was taken.
type SnapshotImportFailed struct {
	File       string `json:"file"`
	ReasonCode string `json:"reason_code"`
	Message    string `json:"message"`
}

func (TransferProgress) Type() Type        { return "transfer_progress" }
func (SnapshotExportStarted) Type() Type   { return "snapshot_export_started" }
func (SnapshotExportCompleted) Type() Type { return "snapshot_export_completed" }
func (SnapshotExportFailed) Type() Type    { return "snapshot_export_failed" }
func (SnapshotImportCompleted) Type() Type { return "snapshot_import_completed" }
func (SnapshotImportFailed) Type() Type    { return "snapshot_import_failed" }

func (d TransferProgress) Summary() string {
	s := fmt.Sprintf("%s by %s, %s: %s of %s", d.Direction, d.Strategy, d.Phase, english.Count(d.Records), english.Plural(d.Total, "record", "records"))
	if d.RecordsPerSecond > 0 {
		s += fmt.Sprintf(", %s/s", english.Count(d.RecordsPerSecond))
	}
	if d.ETAMS > 0 {
		s += fmt.Sprintf(", %v left", max(milliseconds(d.ETAMS).Round(time.Second), time.Second))
	}
	return s
}

func (d SnapshotExportStarted) Summary() string { return "to " + d.File }

func (d SnapshotExportCompleted) Summary() string {
	return fmt.Sprintf("%s, %s to %s", english.Plural(d.Feeds, "feed", "feeds"), size(d.Bytes), d.File)
}

func (d SnapshotExportFailed) Summary() string { return fmt.Sprintf("%s: %s", d.File, d.Message) }

func (d SnapshotImportCompleted) Summary() string {
	if d.Feeds == 0 {
		return "nothing new in " + d.File
	}
	return fmt.Sprintf("%s from %s", english.Plural(d.Feeds, "feed", "feeds"), d.File)
}

func (d SnapshotImportFailed) Summary() string { return fmt.Sprintf("%s: %s", d.File, d.Message) }
