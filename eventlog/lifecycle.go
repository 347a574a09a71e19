package eventlog

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"peerdex/internal/english"
)

// NodeStarted: this run of the program began.
type NodeStarted struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	OS        string `json:"os"`
	GoVersion string `json:"go_version"`
	Clean     bool   `json:"clean"` // the run before ended in order
}

// NodeStopped: this run ends in order.
type NodeStopped struct {
	Reason   string `json:"reason"`
	UptimeMS int64  `json:"uptime_ms"`
}

// StateTransition: the node went from one sync state to another.
type StateTransition struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Reason    string `json:"reason"`
	InStateMS int64  `json:"in_state_ms"` // spent in From
}

// Candidate is one device that could have been the donor of a session, and how it was judged.
type Candidate struct {
	Device      string  `json:"device"`
	Online      bool    `json:"online"`
	Complete    float64 `json:"complete"` // share of the wanted heads it is settled at, 0 to 1
	LatencyMS   float64 `json:"latency_ms"`
	ActiveSyncs int     `json:"active_syncs"`
	Penalty     float64 `json:"penalty"` // for a failure not long ago
	Score       float64 `json:"score"`
}

// BackfillSessionStarted: a feed never settled here is being fetched.
type BackfillSessionStarted struct {
	Feed       string      `json:"feed"`
	Candidates []Candidate `json:"candidates"`
	Chosen     string      `json:"chosen"`
	Strategy   string      `json:"strategy"`
}

// BackfillSessionCompleted: the feed is settled. Of a snapshot Chunks and Bytes are those of the feed, also such as had
// come in sessions before.
type BackfillSessionCompleted struct {
	Feed     string           `json:"feed"`
	Records  int64            `json:"records"`
	PerModel map[string]int64 `json:"per_model"`
	Pages    int64            `json:"pages"`
	Chunks   int64            `json:"chunks,omitempty"`
	Bytes    int64            `json:"bytes"`
}

// BackfillSessionFailed: the feed is not settled; what arrived stays.
type BackfillSessionFailed struct {
	Feed       string `json:"feed"`
	ReasonCode string `json:"reason_code"`
	Message    string `json:"message"`
	AtPage     int64  `json:"at_page"`
	AtChunk    int64  `json:"at_chunk,omitempty"` // of a snapshot: how many chunks were put in
	Resumable  bool   `json:"resumable"`
}

// CatchUpSessionStarted: a feed behind its best head is being fetched.
type CatchUpSessionStarted struct {
	Feed   string `json:"feed"`
	Behind int64  `json:"behind"` // changes, an upper bound
}

// CatchUpSessionCompleted: the feed is settled at the head wanted.
type CatchUpSessionCompleted struct {
	Feed    string `json:"feed"`
	Behind  int64  `json:"behind"`
	Applied int64  `json:"applied"`
}

// CatchUpSessionFailed: the feed is still behind.
type CatchUpSessionFailed struct {
	Feed       string `json:"feed"`
	ReasonCode string `json:"reason_code"`
	Message    string `json:"message"`
}

// ReconcileSessionStarted: a feed is compared tree by tree.
type ReconcileSessionStarted struct {
	Feed   string `json:"feed"`
	Method string `json:"method"` // tree_diff
	Reason string `json:"reason"`
}

// ReconcileSessionCompleted: both sides hold the same entries.
type ReconcileSessionCompleted struct {
	Feed            string `json:"feed"`
	Method          string `json:"method"`
	Ranges          int64  `json:"ranges"`            // leaves that differed
	FoundMissingIn  int64  `json:"found_missing_in"`  // entries we lacked
	FoundMissingOut int64  `json:"found_missing_out"` // entries only we had
}

// ReconcileSessionFailed: the comparison ended early.
type ReconcileSessionFailed struct {
	Feed       string `json:"feed"`
	Method     string `json:"method"`
	ReasonCode string `json:"reason_code"`
	Message    string `json:"message"`
}

func (NodeStarted) Type() Type               { return "node_started" }
func (NodeStopped) Type() Type               { return "node_stopped" }
func (StateTransition) Type() Type           { return "state_transition" }
func (BackfillSessionStarted) Type() Type    { return "backfill_session_started" }
func (BackfillSessionCompleted) Type() Type  { return "backfill_session_completed" }
func (BackfillSessionFailed) Type() Type     { return "backfill_session_failed" }
func (CatchUpSessionStarted) Type() Type     { return "catch_up_session_started" }
func (CatchUpSessionCompleted) Type() Type   { return "catch_up_session_completed" }
func (CatchUpSessionFailed) Type() Type      { return "catch_up_session_failed" }
func (ReconcileSessionStarted) Type() Type   { return "reconcile_session_started" }
func (ReconcileSessionCompleted) Type() Type { return "reconcile_session_completed" }
func (ReconcileSessionFailed) Type() Type    { return "reconcile_session_failed" }

func (d NodeStarted) Summary() string {
	s := fmt.Sprintf("version %s on %s", d.Version, d.OS)
	if !d.Clean {
		s += ", after a run that was cut off"
	}
	return s
}

func (d NodeStopped) Summary() string {
	return fmt.Sprintf("%s, after %v", d.Reason, milliseconds(d.UptimeMS).Round(time.Second))
}

func (d StateTransition) Summary() string {
	return fmt.Sprintf("%s → %s: %s", d.From, d.To, d.Reason)
}

func (d BackfillSessionStarted) Summary() string {
	return fmt.Sprintf("%s by %s from %s, chosen of %s", d.Feed, d.Strategy, d.Chosen, english.Plural(len(d.Candidates), "candidate", "candidates"))
}

func (d BackfillSessionCompleted) Summary() string {
	s := d.Feed + ": " + english.Plural(d.Records, "record", "records")
	switch {
	case d.Chunks > 0:
		s += " in " + english.Plural(d.Chunks, "chunk", "chunks") + ", " + size(d.Bytes)
	case d.Pages > 0:
		s += " in " + english.Plural(d.Pages, "page", "pages") + ", " + size(d.Bytes)
	}
	return s
}

func (d BackfillSessionFailed) Summary() string {
	at := "page " + english.Count(d.AtPage)
	if d.AtChunk > 0 {
		at = "chunk " + english.Count(d.AtChunk)
	}
	s := fmt.Sprintf("%s failed at %s: %s", d.Feed, at, d.ReasonCode)
	if d.Resumable {
		s += ", will be resumed"
	}
	return join(s, d.Message)
}

func (d CatchUpSessionStarted) Summary() string {
	return fmt.Sprintf("%s · %s behind", d.Feed, english.Plural(d.Behind, "change", "changes"))
}

func (d CatchUpSessionCompleted) Summary() string {
	return fmt.Sprintf("%s · %s applied", d.Feed, english.Plural(d.Applied, "change", "changes"))
}

func (d CatchUpSessionFailed) Summary() string {
	return join(d.Feed+": "+d.ReasonCode, d.Message)
}

func (d ReconcileSessionStarted) Summary() string {
	return fmt.Sprintf("%s by %s: %s", d.Feed, d.Method, d.Reason)
}

func (d ReconcileSessionCompleted) Summary() string {
	return fmt.Sprintf("%s: %s differed, we lacked %s, %s only here", d.Feed,
		english.Plural(d.Ranges, "range", "ranges"), english.Count(d.FoundMissingIn), english.Count(d.FoundMissingOut))
}

func (d ReconcileSessionFailed) Summary() string {
	return join(fmt.Sprintf("%s by %s: %s", d.Feed, d.Method, d.ReasonCode), d.Message)
}

func size(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// join adds a message if there is one.
func join(s, message string) string {
	if message == "" {
		return s
	}
	return s + ": " + message
}
