package eventlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits on what one event may hold. Longer text is cut, except details, which are replaced by their size.
const (
	MaxSummary = 200      // characters
	maxDetails = 16 << 10 // bytes
	maxPeer    = 128
	maxName    = 64
	maxModels  = 16
)

// errRow is returned for bytes that are no event; the disk is corrupt or was written by a newer version.
var errRow = errors.New("not an event")

const rowVersion = 1

// appendRow writes what the key of an event does not say: version, time, boot, type, category, severity,
// summary, details, session, cause, peer, models, record count, duration, schema version. Numbers are
// varints, text has its length before it, and the two that may be absent a byte 0 or 1.
func appendRow(b []byte, e Event) []byte {
	b = append(b, rowVersion)
	b = binary.AppendVarint(b, e.Timestamp.UnixNano())
	b = appendText(b, e.BootID)
	b = appendText(b, string(e.Type))
	b = appendText(b, string(e.Category))
	b = append(b, byte(e.Severity.rank()))
	b = appendText(b, e.Summary)
	b = appendText(b, string(e.Details))
	b = append(b, e.CorrelationID[:]...)
	b = appendText(b, e.CausedBy)
	b = appendText(b, e.PeerDeviceID)
	b = binary.AppendUvarint(b, uint64(len(e.ModelTypes)))
	for _, name := range e.ModelTypes {
		b = appendText(b, name)
	}
	b = appendOptional(b, e.RecordCount)
	b = appendOptional(b, e.DurationMS)
	return binary.AppendUvarint(b, uint64(e.SchemaVersion))
}

// decodeRow reads what appendRow wrote.
func decodeRow(device string, at Position, b []byte) (Event, error) {
	d := decoder{b: b}
	if v := d.byte(); v != rowVersion {
		return Event{}, fmt.Errorf("%w: version %d", errRow, v)
	}
	e := Event{DeviceID: device, HLC: at.HLC, Seq: at.Seq, Timestamp: time.Unix(0, d.varint()).UTC()}
	e.BootID = d.text()
	e.Type = Type(d.text())
	e.Category = Category(d.text())
	severity := int(d.byte())
	e.Summary = d.text()
	e.Details = []byte(d.text())
	copy(e.CorrelationID[:], d.bytes(uint64(len(e.CorrelationID))))
	e.CausedBy = d.text()
	e.PeerDeviceID = d.text()
	if n := d.uvarint(); n > maxModels {
		d.bad = true
	} else if n > 0 {
		e.ModelTypes = make([]string, n)
		for i := range e.ModelTypes {
			e.ModelTypes[i] = d.text()
		}
	}
	e.RecordCount = d.optional()
	e.DurationMS = d.optional()
	version := d.uvarint()
	if d.bad || len(d.b) > 0 || severity >= len(Severities) || version > 1<<16 {
		return Event{}, fmt.Errorf("%w: event %d", errRow, at.Seq)
	}
	e.Severity, e.SchemaVersion = Severities[severity], int(version)
	return e, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendOptional(b []byte, n *int64) []byte {
	if n == nil {
		return append(b, 0)
	}
	return binary.AppendVarint(append(b, 1), *n)
}

// decoder reads fields until one is missing; then everything is zero and bad is set.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) bytes(n uint64) []byte {
	if d.bad || uint64(len(d.b)) < n {
		d.bad = true
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || d.bad {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 || d.bad {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) text() string { return string(d.bytes(d.uvarint())) }

func (d *decoder) optional() *int64 {
	switch d.byte() {
	case 0:
		return nil
	case 1:
		return new(d.varint())
	}
	d.bad = true
	return nil
}

// clip makes text valid UTF-8 of at most limit bytes.
func clip(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// summarize cuts a summary at MaxSummary characters and makes it one line of valid UTF-8.
func summarize(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		return r
	}, text)
	n := 0
	for i := range text {
		if n++; n == MaxSummary && utf8.RuneCountInString(text[i:]) > 1 {
			return text[:i] + "…"
		}
	}
	return text
}
