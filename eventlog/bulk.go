package eventlog

import (
	"fmt"

	"peerdex/internal/english"
)

// BulkIndexAnnounced: a scan of a folder of this device added more than is fetched without a word, and the
// devices that are connected were told.
type BulkIndexAnnounced struct {
	Folder
	EntryCount int64  `json:"entry_count"`
	Bytes      int64  `json:"bytes"` // of the entries, before compression
	HeadSeq    uint64 `json:"head_seq"`
	Told       int64  `json:"told"` // devices
}

// BulkIndexDecided: a device announced a large scan, and this one decided what to do about the entries.
type BulkIndexDecided struct {
	Folder            // its location is the feed
	EntryCount int64  `json:"entry_count"`
	Bytes      int64  `json:"bytes"`
	HeadSeq    uint64 `json:"head_seq"`
	Lacks      int64  `json:"lacks"`    // entries lacking here, at most
	Decision   string `json:"decision"` // fetch, on_demand, wait, refuse, in_step or ignore
	Why        string `json:"why"`      // eager, lazy, metered_small, metered_large, asked_for, disk_low, in_step or unknown_location
}

// LocationFetchChanged: a person said whether the entries of another device's location are kept here.
type LocationFetchChanged struct {
	Device   string `json:"device"` // short id of the owner
	Location string `json:"location"`
	Name     string `json:"name"`
	Fetch    string `json:"fetch"` // eager, lazy or metered
	Was      string `json:"was"`
}

// LookedUp: another device was asked about locations that this one keeps no entries of. Reason: the question.
// Outcomes: answered, busy, refused, failed.
type LookedUp struct{ Batch }

// LookupAnswered: another device asked about locations that it keeps no entries of. Reason: the question.
// Outcomes: answered, busy, refused, failed.
type LookupAnswered struct{ Batch }

func (BulkIndexAnnounced) Type() Type   { return "bulk_index_announced" }
func (BulkIndexDecided) Type() Type     { return "bulk_index_decided" }
func (LocationFetchChanged) Type() Type { return "location_fetch_changed" }
func (LookedUp) Type() Type             { return "looked_up" }
func (LookupAnswered) Type() Type       { return "lookup_answered" }

func (d BulkIndexAnnounced) Summary() string {
	return fmt.Sprintf("%s in %s, %s, told %s", english.Plural(d.EntryCount, "entry", "entries"), d.called(), size(d.Bytes), english.Plural(d.Told, "device", "devices"))
}

func (d BulkIndexDecided) Summary() string {
	return fmt.Sprintf("%s: %s in %s, %s, %s of them lacking: %s", d.Decision, english.Plural(d.EntryCount, "entry", "entries"), d.called(), size(d.Bytes), english.Count(d.Lacks), d.Why)
}

func (d LocationFetchChanged) Summary() string {
	return fmt.Sprintf("%s: %s, was %s", d.Name, d.Fetch, d.Was)
}
