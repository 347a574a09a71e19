// Package eventlog is the operator's timeline: typed events with a gap-free number per device, kept on
// disk by severity, found by time, type, session, peer and severity, and written out in six formats.
//
// Logging never makes the work it describes wait: Add puts an event into a bounded queue and one writer
// (Run) commits. What the queue cannot take is counted and, once there is room, logged as
// events_dropped. What must not be lost if the change it describes is kept goes into the caller's own
// transaction with AddTx.
package eventlog

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"peerdex/hlc"
)

// SchemaVersion is the version of the envelope, peer.event/v1.
const SchemaVersion = 1

// Severity says how much an event matters.
type Severity string

// Severities, in rising order.
const (
	Debug   Severity = "debug"
	Info    Severity = "info"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Severities lists all, in rising order.
var Severities = []Severity{Debug, Info, Warning, Error}

// rank returns the place of s in Severities, or -1.
func (s Severity) rank() int {
	for i, known := range Severities {
		if s == known {
			return i
		}
	}
	return -1
}

// Category says what an event is about.
type Category string

// The categories.
const (
	Lifecycle Category = "lifecycle"
	DataFlow  Category = "data_flow"
	Network   Category = "network"
	Failure   Category = "error"
	Catalogue Category = "catalogue"
	Security  Category = "security"
	System    Category = "system"
)

// Categories lists all.
var Categories = []Category{Lifecycle, DataFlow, Network, Failure, Catalogue, Security, System}

// ID is a session: 16 bytes that its initiator made (a UUIDv7) and both sides know. The zero ID is none.
type ID [16]byte

// IsZero reports whether id names no session.
func (id ID) IsZero() bool { return id == ID{} }

// String writes id as a UUID (RFC 9562, 4).
func (id ID) String() string {
	b := make([]byte, 0, 36)
	for i, part := range [][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return string(b)
}

// ParseID reads what String wrote, in either case and with or without hyphens.
func ParseID(text string) (id ID, err error) {
	plain := strings.ReplaceAll(text, "-", "")
	if n, err := hex.Decode(id[:], []byte(plain[:min(len(plain), 33)])); err != nil || n != len(id) || len(plain) != 32 {
		return ID{}, fmt.Errorf("session id %q: want a UUID", text)
	}
	return id, nil
}

// Event is one thing that happened, as it was at the time.
type Event struct {
	DeviceID  string // of the device whose log this is; with Seq the primary key
	Seq       uint64 // from 1, in the order of commit, without gaps
	Timestamp time.Time
	HLC       hlc.Stamp // rises with Seq; what the log is ordered and searched by
	BootID    string    // of the run of the program

	Type     Type
	Category Category
	Severity Severity
	Summary  string          // for people, at most 200 characters, never parsed
	Details  json.RawMessage // the Detail as a JSON object

	CorrelationID ID       // session; zero: none
	CausedBy      string   // "device/seq" of the event that led to this one; "": none
	PeerDeviceID  string   // the other side; "": none
	ModelTypes    []string // models concerned
	RecordCount   *int64   // nil: the event is not about records
	DurationMS    *int64   // nil: the event has no length
	SchemaVersion int
}

// Position orders events within one log.
type Position struct {
	HLC hlc.Stamp
	Seq uint64
}

// Position returns where e stands.
func (e Event) Position() Position { return Position{e.HLC, e.Seq} }

// Detail decodes the details into the struct of the event's type, such as StateTransition. It returns an
// error for a type of another version.
func (e Event) Detail() (Detail, error) {
	kind, ok := kinds[e.Type]
	if !ok {
		return nil, fmt.Errorf("event %d: unknown type %q", e.Seq, e.Type)
	}
	d, err := kind.decode(e.Details)
	if err != nil {
		return nil, fmt.Errorf("details of event %d: %w", e.Seq, err)
	}
	return d, nil
}

// timeLayout is RFC 3339 with all nine digits, so that text sorts as time does.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// eventJSON is Event as JSON: every key is always there, null where there is nothing to say.
type eventJSON struct {
	DeviceID      string          `json:"device_id"`
	Seq           uint64          `json:"seq"`
	Timestamp     string          `json:"timestamp"`
	HLC           string          `json:"hlc"`
	BootID        string          `json:"boot_id"`
	Type          Type            `json:"event_type"`
	Category      Category        `json:"category"`
	Severity      Severity        `json:"severity"`
	Summary       string          `json:"summary"`
	Details       json.RawMessage `json:"details"`
	CorrelationID *string         `json:"correlation_id"`
	CausedBy      *string         `json:"caused_by"`
	PeerDeviceID  *string         `json:"peer_device_id"`
	ModelTypes    []string        `json:"model_types"`
	RecordCount   *int64          `json:"record_count"`
	DurationMS    *int64          `json:"duration_ms"`
	SchemaVersion int             `json:"schema_version"`
}

// MarshalJSON writes the envelope peer.event/v1. It is valid UTF-8 whatever the event holds.
func (e Event) MarshalJSON() ([]byte, error) {
	out := eventJSON{
		DeviceID: e.DeviceID, Seq: e.Seq, Timestamp: e.Timestamp.UTC().Format(timeLayout), HLC: e.HLC.String(),
		BootID: e.BootID, Type: e.Type, Category: e.Category, Severity: e.Severity, Summary: e.Summary,
		Details: e.Details, CausedBy: optional(e.CausedBy), PeerDeviceID: optional(e.PeerDeviceID),
		ModelTypes: e.ModelTypes, RecordCount: e.RecordCount, DurationMS: e.DurationMS, SchemaVersion: e.SchemaVersion,
	}
	if !e.CorrelationID.IsZero() {
		out.CorrelationID = new(e.CorrelationID.String())
	}
	if out.ModelTypes == nil {
		out.ModelTypes = []string{}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Event) UnmarshalJSON(b []byte) error {
	var in eventJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	at, err := time.Parse(time.RFC3339Nano, in.Timestamp)
	if err != nil {
		return fmt.Errorf("event %d: %w", in.Seq, err)
	}
	stamp, err := hlc.Parse(in.HLC)
	if err != nil {
		return fmt.Errorf("event %d: %w", in.Seq, err)
	}
	*e = Event{
		DeviceID: in.DeviceID, Seq: in.Seq, Timestamp: at.UTC(), HLC: stamp, BootID: in.BootID,
		Type: in.Type, Category: in.Category, Severity: in.Severity, Summary: in.Summary, Details: in.Details,
		CausedBy: value(in.CausedBy), PeerDeviceID: value(in.PeerDeviceID),
		RecordCount: in.RecordCount, DurationMS: in.DurationMS, SchemaVersion: in.SchemaVersion,
	}
	if len(in.ModelTypes) > 0 {
		e.ModelTypes = in.ModelTypes
	}
	if in.CorrelationID != nil {
		if e.CorrelationID, err = ParseID(*in.CorrelationID); err != nil {
			return fmt.Errorf("event %d: %w", in.Seq, err)
		}
	}
	return nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Option adds to an event what its Detail does not say.
type Option func(*Event)

// Session says which session the event belongs to.
func Session[T ~[16]byte](id T) Option { return func(e *Event) { e.CorrelationID = ID(id) } }

// Peer names the other side by its device id.
func Peer(id string) Option { return func(e *Event) { e.PeerDeviceID = clip(id, maxPeer) } }

// Models names the models concerned, at most 16.
func Models(names ...string) Option {
	return func(e *Event) {
		for _, name := range names[:min(len(names), maxModels)] {
			e.ModelTypes = append(e.ModelTypes, clip(name, maxName))
		}
	}
}

// Records says how many records the event is about.
func Records(n int) Option { return func(e *Event) { e.RecordCount = new(int64(n)) } }

// Took says how long the work took.
func Took(d time.Duration) Option { return func(e *Event) { e.DurationMS = new(d.Milliseconds()) } }
