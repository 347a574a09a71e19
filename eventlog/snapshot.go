package eventlog

import (
	"fmt"

	"github.com/dustin/go-humanize"
)

// SnapshotProgress: a snapshot that is being fetched has come to its next phase.
type SnapshotProgress struct {
	Phase      string `json:"phase"` // loading, indexing or applying
	Records    int64  `json:"records"`
	Total      int64  `json:"total"`
	Bytes      int64  `json:"bytes"`
	TotalBytes int64  `json:"total_bytes"`
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

// SnapshotImportCompleted: location feeds of a file are here.
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

func (SnapshotProgress) Type() Type        { return "snapshot_progress" }
func (SnapshotExportStarted) Type() Type   { return "snapshot_export_started" }
func (SnapshotExportCompleted) Type() Type { return "snapshot_export_completed" }
func (SnapshotImportCompleted) Type() Type { return "snapshot_import_completed" }
func (SnapshotImportFailed) Type() Type    { return "snapshot_import_failed" }

func (d SnapshotProgress) Summary() string {
	return fmt.Sprintf("%s: %s of %s records", d.Phase, humanize.Comma(d.Records), humanize.Comma(d.Total))
}

func (d SnapshotExportStarted) Summary() string { return "to " + d.File }

func (d SnapshotExportCompleted) Summary() string {
	return fmt.Sprintf("%s, %s to %s", plural(int64(d.Feeds), "feed"), size(d.Bytes), d.File)
}

func (d SnapshotImportCompleted) Summary() string {
	return fmt.Sprintf("%s from %s", plural(int64(d.Feeds), "feed"), d.File)
}

func (d SnapshotImportFailed) Summary() string { return fmt.Sprintf("%s: %s", d.File, d.Message) }
