package eventlog

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

// What was written is in the details whole, whatever its bytes, and not in the summary.
func TestWrittenSays(t *testing.T) {
	for _, text := range []string{"", "the lake", "\x1b[2J\u202e\n", "a\xffb", strings.Repeat("\x01", maxValue), strings.Repeat("x", maxValue), strings.Repeat("\xff", maxValue)} {
		d := ConflictResolved{Model: "note", Entity: "entry " + strings.Repeat("0", 128), Entry: strings.Repeat("1", 32), Field: "note"}
		d.Winner, d.Loser = d.Winner.Saying([]byte(text)), d.Loser.Saying([]byte(text))
		b, err := json.Marshal(d)
		if err != nil || len(b) > maxDetails {
			t.Errorf("%.20q takes %d bytes, %v", text, len(b), err)
		}
		var back ConflictResolved
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		got := back.Loser.Value
		if raw := back.Loser.ValueB64; raw != "" {
			b, err := base64.StdEncoding.DecodeString(raw)
			if err != nil || got != "" {
				t.Errorf("%q beside %q, %v", raw, got, err)
			}
			got = string(b)
		}
		if got != text {
			t.Errorf("%.20q came back as %.20q", text, got)
		}
		if s := d.Summary(); text != "" && strings.Contains(s, text) || !strings.Contains(s, d.Entry) {
			t.Errorf("summary %q", s)
		}
	}
	if w := (Written{}).Saying([]byte(strings.Repeat("x", maxValue+1))); len(w.Value) != maxValue {
		t.Errorf("%d bytes are kept", len(w.Value))
	}
}
