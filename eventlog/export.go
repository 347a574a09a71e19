package eventlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
)

// Format is one way to write events out.
type Format string

// The formats. NDJSON, SQL, CSV and Table hold one event in memory, JSON too; Markdown holds its rows,
// because their number stands before them.
const (
	JSON     Format = "json"     // one array
	NDJSON   Format = "ndjson"   // one object per line
	SQL      Format = "sql"      // SQLite; importing it again, or that of another device, adds what is new
	Markdown Format = "markdown" // a table
	CSV      Format = "csv"      // RFC 4180 with CRLF and a header
	Table    Format = "table"    // for a terminal
)

// Formats lists all.
var Formats = []Format{JSON, NDJSON, SQL, Markdown, CSV, Table}

// ExportOptions tunes Export. The zero value is fine.
type ExportOptions struct {
	Name     func(device string) string // name of a device for people; nil or "" means the id
	Known    func(text string) string   // writes names for ids in a summary for people, in tables and Markdown; nil leaves them
	Zone     *time.Location             // of times in tables; nil means UTC. The other formats are always in UTC
	Exported time.Time                  // said in the header of Markdown; zero leaves it out
}

func (o ExportOptions) name(device string) string {
	if o.Name != nil {
		if name := o.Name(device); name != "" {
			return name
		}
	}
	return device
}

func (o ExportOptions) summary(e Event) string {
	if o.Known == nil {
		return e.Summary
	}
	return o.Known(e.Summary)
}

// Export writes events to w and returns how many. It stops at the first error of events or of w; what
// was written by then is not a whole document. It returns an error at once for an unknown format.
func Export(w io.Writer, format Format, events iter.Seq2[Event, error], options ExportOptions) (n int, err error) {
	f, ok := exporters[format]
	if !ok {
		return 0, fmt.Errorf("%w: unknown format %q", ErrQuery, format)
	}
	out := bufio.NewWriter(w)
	if f.begin != nil {
		f.begin(out, options)
	}
	var rows bytes.Buffer
	each := io.Writer(out)
	if f.end != nil && f.held {
		each = &rows
	}
	for e, err := range events {
		if err != nil {
			return n, fmt.Errorf("export events: %w", err)
		}
		if err := f.event(each, e, n, options); err != nil {
			return n, fmt.Errorf("export event %d: %w", e.Seq, err)
		}
		n++
	}
	if f.end != nil {
		f.end(out, n, rows.Bytes(), options)
	}
	if err := out.Flush(); err != nil {
		return n, fmt.Errorf("export events: %w", err)
	}
	return n, nil
}

// exporter writes one format. Errors of the buffered writer show at the flush.
type exporter struct {
	begin func(w io.Writer, o ExportOptions)
	event func(w io.Writer, e Event, i int, o ExportOptions) error
	end   func(w io.Writer, n int, rows []byte, o ExportOptions)
	held  bool // rows are held back until end
}

var exporters = map[Format]exporter{
	JSON: {
		event: func(w io.Writer, e Event, i int, _ ExportOptions) error {
			if i == 0 {
				io.WriteString(w, "[\n")
			} else {
				io.WriteString(w, ",\n")
			}
			return writeJSON(w, e, "")
		},
		end: func(w io.Writer, n int, _ []byte, _ ExportOptions) {
			if n == 0 {
				io.WriteString(w, "[]\n")
				return
			}
			io.WriteString(w, "\n]\n")
		},
	},
	NDJSON: {event: func(w io.Writer, e Event, _ int, _ ExportOptions) error { return writeJSON(w, e, "\n") }},
	SQL: {
		begin: func(w io.Writer, _ ExportOptions) { io.WriteString(w, sqlHead) },
		event: func(w io.Writer, e Event, _ int, o ExportOptions) error {
			_, err := io.WriteString(w, sqlRow(e, o))
			return err
		},
		end: func(w io.Writer, _ int, _ []byte, _ ExportOptions) { io.WriteString(w, "COMMIT;\n") },
	},
	Markdown: {
		event: func(w io.Writer, e Event, _ int, o ExportOptions) error {
			_, err := fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", e.Timestamp.UTC().Format(time.DateTime),
				markdownCell(o.name(e.DeviceID)), markdownCell(string(e.Type)), markdownCell(string(e.Severity)), markdownCell(o.summary(e)))
			return err
		},
		end: func(w io.Writer, n int, rows []byte, o ExportOptions) {
			io.WriteString(w, "# Sync Event Log\n\n")
			if !o.Exported.IsZero() {
				fmt.Fprintf(w, "**Exported**: %s\n", o.Exported.UTC().Format(time.RFC3339))
			}
			fmt.Fprintf(w, "**Event Count**: %d\n\n", n)
			io.WriteString(w, "| Timestamp | Device | Event Type | Severity | Summary |\n|---|---|---|---|---|\n")
			w.Write(rows)
		},
		held: true,
	},
	CSV: {
		begin: func(w io.Writer, _ ExportOptions) { io.WriteString(w, csvLine(csvHeader)) },
		event: func(w io.Writer, e Event, _ int, o ExportOptions) error {
			_, err := io.WriteString(w, csvLine(csvFields(e, o)))
			return err
		},
	},
	Table: {event: func(w io.Writer, e Event, _ int, o ExportOptions) error {
		_, err := io.WriteString(w, tableLine(e, o))
		return err
	}},
}

func writeJSON(w io.Writer, e Event, end string) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, end...))
	return err
}

const sqlHead = `-- peer event export · schema peer.event/v1
BEGIN;
CREATE TABLE IF NOT EXISTS sync_event_log (
  device_id TEXT NOT NULL, seq INTEGER NOT NULL, timestamp TEXT NOT NULL, hlc TEXT NOT NULL,
  boot_id TEXT NOT NULL, device_name TEXT, event_type TEXT NOT NULL, category TEXT NOT NULL, severity TEXT NOT NULL,
  summary TEXT NOT NULL, details TEXT, correlation_id TEXT, caused_by TEXT, peer_device_id TEXT,
  model_types TEXT, record_count INTEGER, duration_ms INTEGER,
  PRIMARY KEY (device_id, seq)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idx_sync_event_log_timestamp   ON sync_event_log(timestamp);
CREATE INDEX IF NOT EXISTS idx_sync_event_log_type        ON sync_event_log(event_type);
CREATE INDEX IF NOT EXISTS idx_sync_event_log_correlation ON sync_event_log(correlation_id);
`

func sqlRow(e Event, o ExportOptions) string {
	name := o.name(e.DeviceID)
	if name == e.DeviceID {
		name = ""
	}
	return fmt.Sprintf("INSERT OR IGNORE INTO sync_event_log VALUES(%s,%d,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s);\n",
		sqlText(e.DeviceID, false), e.Seq, sqlText(e.Timestamp.UTC().Format(timeLayout), false), sqlText(e.HLC.String(), false),
		sqlText(e.BootID, false), sqlText(Printable(name), true), sqlText(string(e.Type), false), sqlText(string(e.Category), false),
		sqlText(string(e.Severity), false), sqlText(Printable(e.Summary), false), sqlText(details(e), true),
		sqlText(session(e), true), sqlText(e.CausedBy, true), sqlText(e.PeerDeviceID, true),
		sqlText(strings.Join(e.ModelTypes, ","), true), number(e.RecordCount, "NULL"), number(e.DurationMS, "NULL"))
}

// details is JSON that does nothing to a terminal.
func details(e Event) string { return string(VisibleJSON(e.Details)) }

func session(e Event) string {
	if e.CorrelationID.IsZero() {
		return ""
	}
	return e.CorrelationID.String()
}

func number(n *int64, none string) string {
	if n == nil {
		return none
	}
	return strconv.FormatInt(*n, 10)
}

var csvHeader = []string{
	"device_id", "device_name", "seq", "timestamp", "hlc", "boot_id", "event_type", "category", "severity", "summary", "details",
	"correlation_id", "caused_by", "peer_device_id", "model_types", "record_count", "duration_ms",
}

func csvFields(e Event, o ExportOptions) []string {
	return []string{
		e.DeviceID, Printable(o.name(e.DeviceID)), strconv.FormatUint(e.Seq, 10), e.Timestamp.UTC().Format(timeLayout), e.HLC.String(),
		e.BootID, string(e.Type), string(e.Category), string(e.Severity), Printable(e.Summary), details(e),
		session(e), e.CausedBy, e.PeerDeviceID, strings.Join(e.ModelTypes, ","), number(e.RecordCount, ""), number(e.DurationMS, ""),
	}
}

func csvLine(fields []string) string {
	cells := make([]string, len(fields))
	for i, f := range fields {
		cells[i] = csvCell(f)
	}
	return strings.Join(cells, ",") + "\r\n"
}

// tableLine: time, device, severity, type, the other side and the summary, and the beginning of the
// session.
func tableLine(e Event, o ExportOptions) string {
	zone := o.Zone
	if zone == nil {
		zone = time.UTC
	}
	text := o.summary(e)
	if e.PeerDeviceID != "" {
		text = o.name(e.PeerDeviceID) + " · " + text
	}
	line := fmt.Sprintf("%s  %-8s  %-7s  %-26s %s", e.Timestamp.In(zone).Format("2006-01-02 15:04:05.000"),
		Printable(o.name(e.DeviceID)), Printable(string(e.Severity)), Printable(string(e.Type)), Printable(text))
	if !e.CorrelationID.IsZero() {
		line += "  c:" + e.CorrelationID.String()[:8]
	}
	return strings.TrimRight(line, " ") + "\n"
}
