package eventlog

import (
	"cmp"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"peerdex/internal/english"
)

// Folder says which location an event is about.
type Folder struct {
	Location string `json:"location"`       // id
	Name     string `json:"name,omitempty"` // what it was called then
}

// called is what people know it by.
func (f Folder) called() string { return cmp.Or(f.Name, f.Location) }

// LocationAdded: a folder of this device is indexed from now on.
type LocationAdded struct {
	Location string `json:"location"` // id
	Name     string `json:"name"`
	Path     string `json:"path"`
}

// LocationRemoved: a folder is indexed no more.
type LocationRemoved struct {
	Location string `json:"location"`
	Name     string `json:"name"`
	Files    int64  `json:"files"` // known when it was removed
}

// LocationChanged: other files of a folder are read to hash their contents from now on.
type LocationChanged struct {
	Location string `json:"location"`
	Name     string `json:"name"`
	Hash     string `json:"hash"` // auto, all or none
}

// FilesHashed: files were read and the hashes of their contents written, within the last 30 s or before the
// node stopped.
type FilesHashed struct {
	Folder
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// ScanStarted: a pass over a location began.
type ScanStarted struct {
	Folder
}

// ScanCompleted: a whole pass over a location ended.
type ScanCompleted struct {
	Folder
	Added     int64 `json:"added"`
	Changed   int64 `json:"changed"`
	Removed   int64 `json:"removed"`
	Moved     int64 `json:"moved"`
	Unchanged int64 `json:"unchanged"`
	Ignored   int64 `json:"ignored"`
	Errors    int64 `json:"errors"`
}

// ScanFailed: a pass ended early.
type ScanFailed struct {
	Folder
	Cause   string `json:"cause"`
	Message string `json:"message"`
}

// WatchDegraded: a location is only scanned from time to time.
type WatchDegraded struct {
	Folder
	Cause   string `json:"cause"` // limit, overflow, network_fs or error
	Message string `json:"message"`
}

// WatchRecovered: a location is watched again.
type WatchRecovered struct {
	Folder
}

// DeviceInvited: a one-time secret was made.
type DeviceInvited struct {
	By      string `json:"by"`
	Method  string `json:"method"`
	Uses    int64  `json:"uses"`
	ValidMS int64  `json:"valid_ms"`
}

// DeviceJoined: a device is a member now.
type DeviceJoined struct {
	Name   string `json:"name"`
	OS     string `json:"os"`
	By     string `json:"by"`
	Method string `json:"method"`
}

// DeviceJoinRefused: a device could not prove that it was invited.
type DeviceJoinRefused struct {
	Reason       string `json:"reason"`
	AddressClass string `json:"address_class"`
	Repeats
}

// AuthFailed: somebody who is no member was turned away.
type AuthFailed struct {
	Reason       string `json:"reason"`
	AddressClass string `json:"address_class"`
	Repeats
}

// RequestRefused: what a person or a program asked of this device was refused, and nothing has changed.
type RequestRefused struct {
	Request string `json:"request"` // the route, as in "POST /v1/tags": never a name or a path
	Code    string `json:"code"`    // as in the answer
	Repeats
}

// DiskLow: too little free space; nothing is written until there is more.
type DiskLow struct {
	FreeBytes int64 `json:"free_bytes"`
	NeedBytes int64 `json:"need_bytes"`
}

// MemoryRefused: something was not begun, or ended, because the memory set aside for its kind is in use. It is tried
// again, or by somebody else.
type MemoryRefused struct {
	Use      string `json:"use"` // apply, serve, snapshot or frame
	Bytes    int64  `json:"bytes"`
	CapBytes int64  `json:"cap_bytes"` // 0 of a frame, which counts to its stream and its device
	Repeats
}

// EventsDropped: events were lost. They had no number yet, so the numbers show no gap.
type EventsDropped struct {
	Count    int64  `json:"count"`
	Reason   string `json:"reason"` // queue_full, store_error or encode_error
	AfterSeq uint64 `json:"after_seq"`
	FirstAt  string `json:"first_at"` // RFC 3339
	LastAt   string `json:"last_at"`
}

// EventsPruned: events were removed by retention.
type EventsPruned struct {
	Count       int64            `json:"count"`
	Reason      string           `json:"reason"` // age or size
	PerSeverity map[string]int64 `json:"per_severity"`
	FirstSeq    uint64           `json:"first_seq"`
	LastSeq     uint64           `json:"last_seq"`
}

func (LocationAdded) Type() Type     { return "location_added" }
func (LocationRemoved) Type() Type   { return "location_removed" }
func (LocationChanged) Type() Type   { return "location_changed" }
func (FilesHashed) Type() Type       { return "files_hashed" }
func (ScanStarted) Type() Type       { return "scan_started" }
func (ScanCompleted) Type() Type     { return "scan_completed" }
func (ScanFailed) Type() Type        { return "scan_failed" }
func (WatchDegraded) Type() Type     { return "watch_degraded" }
func (WatchRecovered) Type() Type    { return "watch_recovered" }
func (DeviceInvited) Type() Type     { return "device_invited" }
func (DeviceJoined) Type() Type      { return "device_joined" }
func (DeviceJoinRefused) Type() Type { return "device_join_refused" }
func (AuthFailed) Type() Type        { return "auth_failed" }
func (RequestRefused) Type() Type    { return "request_refused" }
func (DiskLow) Type() Type           { return "disk_low" }
func (MemoryRefused) Type() Type     { return "memory_refused" }
func (EventsDropped) Type() Type     { return "events_dropped" }
func (EventsPruned) Type() Type      { return "events_pruned" }

func (d LocationAdded) Summary() string { return fmt.Sprintf("%s: %s", d.Name, d.Path) }

func (d LocationRemoved) Summary() string {
	return fmt.Sprintf("%s with %s", d.Name, english.Plural(d.Files, "file", "files"))
}

func (d LocationChanged) Summary() string { return fmt.Sprintf("%s: hash %s", d.Name, d.Hash) }

func (d FilesHashed) Summary() string {
	return fmt.Sprintf("%s: %s, %s read", d.called(), english.Plural(d.Files, "file", "files"), size(d.Bytes))
}

func (d ScanStarted) Summary() string { return d.called() }

func (d ScanCompleted) Summary() string {
	return fmt.Sprintf("%s: %s added, %s changed, %s removed, %s moved, %s unchanged, %s ignored, %s", d.called(),
		english.Count(d.Added), english.Count(d.Changed), english.Count(d.Removed), english.Count(d.Moved),
		english.Count(d.Unchanged), english.Count(d.Ignored), english.Plural(d.Errors, "error", "errors"))
}

func (d ScanFailed) Summary() string     { return join(d.called()+": "+d.Cause, d.Message) }
func (d WatchDegraded) Summary() string  { return join(d.called()+": "+d.Cause, d.Message) }
func (d WatchRecovered) Summary() string { return d.called() + " is watched again" }

func (d DeviceInvited) Summary() string {
	return fmt.Sprintf("by %s through %s, %s, valid for %v", d.By, d.Method, english.Plural(d.Uses, "use", "uses"), milliseconds(d.ValidMS).Round(time.Second))
}

func (d DeviceJoined) Summary() string {
	return fmt.Sprintf("%s (%s) by %s through %s", d.Name, d.OS, d.By, d.Method)
}

func (d DeviceJoinRefused) Summary() string {
	return fmt.Sprintf("%s, address %s%s", d.Reason, d.AddressClass, d.Repeats)
}

func (d AuthFailed) Summary() string {
	return fmt.Sprintf("%s, address %s%s", d.Reason, d.AddressClass, d.Repeats)
}

func (d RequestRefused) Summary() string {
	return fmt.Sprintf("%s: %s%s", d.Request, d.Code, d.Repeats)
}

func (d DiskLow) Summary() string {
	return fmt.Sprintf("%s free, %s needed", size(d.FreeBytes), size(d.NeedBytes))
}

func (d MemoryRefused) Summary() string {
	s := humanize.IBytes(uint64(max(d.Bytes, 0))) + " for " + d.Use
	if d.CapBytes > 0 {
		s += ", at most " + humanize.IBytes(uint64(d.CapBytes)) + " at once"
	}
	return s + d.Repeats.String()
}

func (d EventsDropped) Summary() string {
	return fmt.Sprintf("%s lost: %s", english.Plural(d.Count, "event", "events"), d.Reason)
}

func (d EventsPruned) Summary() string {
	return fmt.Sprintf("%s removed by %s: %s", english.Plural(d.Count, "event", "events"), d.Reason, list(d.PerSeverity))
}

func (d DeviceJoinRefused) repeatKey() string { return d.Reason + " " + d.AddressClass }
func (d AuthFailed) repeatKey() string        { return d.Reason + " " + d.AddressClass }
func (d RequestRefused) repeatKey() string    { return d.Request + " " + d.Code }
func (d MemoryRefused) repeatKey() string     { return d.Use }

func (d DeviceJoinRefused) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}

func (d AuthFailed) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}

func (d RequestRefused) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}

func (d MemoryRefused) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}
