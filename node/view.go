package node

import (
	"encoding/json"
	"time"
	"unicode/utf8"

	"peerdex/metrics"
)

// The views below are what a node tells about itself: plain values, filled under the node's locks and
// then free of it. Times are wall-clock times of this node; sizes are bytes; a nil *uint64 means
// "unknown", which is not zero. Names and paths hold the bytes of the file system: in JSON they are
// strings, and where they are no valid UTF-8 a second field (name_b64, path_b64, target_b64) holds the bytes.

// Device connection states.
const (
	LinkDisconnected = "disconnected"
	LinkConnecting   = "connecting"
	LinkSyncing      = "syncing"
	LinkConnected    = "connected"
)

// Node sync states.
const (
	StateUninitialized = "uninitialized"
	StateBackfilling   = "backfilling"
	StateCatchingUp    = "catching_up"
	StateReady         = "ready"
	StatePaused        = "paused"
)

// Status answers "is it fine?".
type Status struct {
	Now       time.Time      `json:"now"`
	Version   string         `json:"version"`
	PID       int            `json:"pid"`
	Started   time.Time      `json:"started"`
	Boot      string         `json:"boot_id"`
	Home      string         `json:"home"`
	Library   string         `json:"library"`   // hex
	State     string         `json:"state"`     // one of the State constants
	Reason    string         `json:"reason"`    // why it is in this state
	Since     time.Time      `json:"since"`     // when it entered the state
	Listen    []string       `json:"listen"`    // multiaddrs with /p2p/, dialable by others
	Files     uint64         `json:"files"`     // of all devices
	Dirs      uint64         `json:"dirs"`      //
	Bytes     uint64         `json:"bytes"`     //
	Devices   []DeviceView   `json:"devices"`   // this one first, then by name
	Locations []LocationView `json:"locations"` // of this device, by path
	Requests  []RequestView  `json:"requests"`  // devices that ask to join without a secret
	Attention []Attention    `json:"attention"` // worst first
}

// Attention is one thing a person should know about.
type Attention struct {
	Severity string `json:"severity"`         // "problem" or "warning"
	Text     string `json:"text"`             // one sentence without the device's name in front
	Device   string `json:"device,omitempty"` // peer ID of the device it is about
	Try      string `json:"try,omitempty"`    // a command to paste
}

// DeviceView is one member of the library as this node sees it.
type DeviceView struct {
	ID          string          `json:"id"`    // libp2p peer ID
	Short       string          `json:"short"` // record.DeviceID.Short
	Name        string          `json:"name"`
	Self        bool            `json:"self"`
	OS          string          `json:"os,omitempty"`
	Version     string          `json:"version,omitempty"`
	Role        string          `json:"role,omitempty"`        // member or admin; empty: it is out
	Gone        string          `json:"gone,omitempty"`        // how it is out: revoked or left; what it wrote before stays
	GoneBy      string          `json:"gone_by,omitempty"`     // peer ID of the admin that revoked it, or "root"
	GoneSince   time.Time       `json:"gone_since,omitzero"`   // when
	Added       time.Time       `json:"added,omitzero"`        // when it became a member
	Link        string          `json:"link"`                  // one of the Link constants; connected for Self
	Online      bool            `json:"online"`                // a live connection exists
	Seen        time.Time       `json:"seen,omitzero"`         // last authenticated contact; zero: never
	Address     string          `json:"address,omitempty"`     // multiaddr of the live connection
	RTT         metrics.Seconds `json:"rtt_seconds,omitempty"` // smoothed; 0: not measured
	ClockOffset metrics.Seconds `json:"clock_offset_seconds,omitempty"`
	WeLack      *uint64         `json:"we_lack"`  // changes it is known to have and we lack
	ItLacks     *uint64         `json:"it_lacks"` // changes we have and it lacks
	Files       uint64          `json:"files"`
	Dirs        uint64          `json:"dirs"`
	Bytes       uint64          `json:"bytes"`
	AsOf        time.Time       `json:"as_of,omitzero"`     // when all that is kept of it was last known to be all there is; zero: never
	Current     bool            `json:"current"`            // that is known now
	Paused      bool            `json:"paused,omitempty"`   // sync with it is paused here
	Failures    int             `json:"failures,omitempty"` // consecutive failed attempts to connect
	LastError   string          `json:"last_error,omitempty"`
}

// LocationView is one indexed folder of any device.
type LocationView struct {
	ID         string           `json:"id"` // hex of record.LocationID
	Device     string           `json:"device"`
	DeviceName string           `json:"device_name"`
	Gone       string           `json:"device_gone,omitempty"` // how its device is out: revoked or left
	Self       bool             `json:"self"`                  // it is a folder of this device; the fields from State on are known for these alone
	Name       string           `json:"name"`
	Path       string           `json:"path"`
	Files      uint64           `json:"files"`
	Dirs       uint64           `json:"dirs"`
	Bytes      uint64           `json:"bytes"`
	Online     bool             `json:"online"`                       // the device is connected, or this one
	AsOf       time.Time        `json:"as_of,omitzero"`               // when what is held was last known to be all there is; zero: never
	Current    bool             `json:"current"`                      // that is known now
	Fetch      string           `json:"fetch,omitempty"`              // of another device's: whether its entries are kept here: "eager", "lazy" or "metered"
	Entries    uint64           `json:"entries,omitempty"`            // of another device's: in the newest head known, whether they are here or not
	Waits      string           `json:"waits,omitempty"`              // why what is lacking is not fetched: "metered_large" or "disk_low"
	Lacks      uint64           `json:"lacks,omitempty"`              // of one that waits or is to be fetched: entries lacking here, at most
	From       string           `json:"from,omitempty"`               // of one to be fetched: name of the device that it comes from; empty: no device that has it is connected
	Paused     string           `json:"paused,omitempty"`             // of one to be fetched: why it is not at present
	State      string           `json:"state,omitempty"`              // "waiting", "scanning", "watching", "polling" or "gone"
	Cause      string           `json:"cause,omitempty"`              // why it is polling or gone
	Ignore     []string         `json:"ignore,omitempty"`             // patterns given when it was added
	Hash       string           `json:"hash,omitempty"`               // which files are read to hash their contents: "auto", "all" or "none"
	Unhashed   uint64           `json:"unhashed"`                     // files still to be read for that
	Ignored    uint64           `json:"ignored"`                      // entries left out at the last scan
	Unreadable uint64           `json:"unreadable"`                   // paths that could not be read at the last scan
	Samples    []UnreadableView `json:"unreadable_samples,omitempty"` // the first of those
	LastScan   time.Time        `json:"last_scan,omitzero"`
	ScanTook   metrics.Seconds  `json:"scan_seconds"` // duration of the last scan
}

// UnreadableView is a path below a location that could not be read.
type UnreadableView struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// AddRequest names a folder to index.
type AddRequest struct {
	Path   string   `json:"path"`             // absolute
	Name   string   `json:"name,omitempty"`   // empty: the folder's base name
	Ignore []string `json:"ignore,omitempty"` // gitignore patterns besides those in .peerignore
	Hash   string   `json:"hash,omitempty"`   // "auto", "all" or "none"; empty: auto
}

// ScanProgress tells how far a scan is. Total is 0 while unknown (a first scan).
type ScanProgress struct {
	Seen  uint64 `json:"seen"`
	Total uint64 `json:"total"`
}

// ScanView is the outcome of one scan.
type ScanView struct {
	Location   LocationView    `json:"location"`
	Added      uint64          `json:"added"`
	Changed    uint64          `json:"changed"`
	Removed    uint64          `json:"removed"`
	Unchanged  uint64          `json:"unchanged"`
	Ignored    uint64          `json:"ignored"`
	Unreadable uint64          `json:"unreadable"`
	Took       metrics.Seconds `json:"duration_seconds"`
}

// Entry is one file, directory or link on one device.
type Entry struct {
	Device     string    `json:"device"`
	DeviceName string    `json:"device_name"`
	Gone       string    `json:"device_gone,omitempty"` // how its device is out: revoked or left
	Online     bool      `json:"online"`
	AsOf       time.Time `json:"as_of,omitzero"` // when what is held of its location was last known to be all there is; zero: never
	Current    bool      `json:"current"`        // that is known now
	Via        string    `json:"via,omitempty"`  // name of the device that was asked, where the entry is not kept here
	Location   string    `json:"location"`       // hex of record.LocationID
	ID         string    `json:"id"`             // hex of record.EntryID
	Kind       string    `json:"kind"`           // record.Kind's word
	Name       string    `json:"name"`
	Path       string    `json:"path"` // whole, on its device
	Target     string    `json:"target,omitempty"`
	Size       uint64    `json:"size"`
	Mode       uint32    `json:"mode"`
	Modified   time.Time `json:"modified,omitzero"`
	Hash       string    `json:"hash,omitempty"` // hex of record.Hash; empty: not known
	Tags       []string  `json:"tags,omitempty"` // names of those it shows
	Note       string    `json:"note,omitempty"` // filled in where an entry is asked for by itself, as is the next

	ContentNote string `json:"content_note,omitempty"` // of its content, wherever that lies
}

// ListQuery asks for what lies directly in a folder. Path is absolute on the device.
type ListQuery struct {
	Device string // peer ID
	Path   string
	After  string // name after which to go on; empty: from the first
	Limit  int    // at most this many entries; 0: 1,000
}

// Listing is one page of a folder, sorted by the bytes of the names.
type Listing struct {
	Now        time.Time `json:"now"`
	Device     string    `json:"device"`
	DeviceName string    `json:"device_name"`
	Gone       string    `json:"device_gone,omitempty"` // how it is out: revoked or left
	Online     bool      `json:"online"`
	AsOf       time.Time `json:"as_of,omitzero"` // as Entry.AsOf
	Current    bool      `json:"current"`        // as Entry.Current
	Path       string    `json:"path"`
	Asked      *Asked    `json:"asked,omitempty"` // who answered, where the entries are not kept here
	Entries    []Entry   `json:"entries"`         // for a path that is a file: the file
	More       bool      `json:"more"`
}

// InviteRequest asks for a secret that lets a device join.
type InviteRequest struct {
	TTL  metrics.Seconds `json:"ttl_seconds"` // 0: 10 minutes
	Uses int             `json:"uses"`        // 0: once
}

// InviteView is an invite as the other device needs it. It is shown once and kept nowhere in clear.
type InviteView struct {
	Line    string    `json:"line"` // JoinRequest.Line
	Addrs   []string  `json:"addresses"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"`
}

// JoinProgress tells how far a join is. Stages come in this order; "connected" may be repeated while
// records arrive, and "waiting" is for a person's approval, where there is no secret.
type JoinProgress struct {
	Stage   string          `json:"stage"`             // "dialing", "waiting", "joined", "connected", "syncing", "in_step"
	Digits  string          `json:"digits,omitempty"`  // while waiting: what the other side shows as well
	Approve string          `json:"approve,omitempty"` // while waiting: the command that approves there
	Device  string          `json:"device,omitempty"`  // name of the device joined
	Renamed *RenameView     `json:"renamed,omitempty"` // once joined: this device's name was taken there
	Address string          `json:"address,omitempty"` // that answered, or is being dialed
	RTT     metrics.Seconds `json:"rtt_seconds,omitempty"`
	Met     []string        `json:"met,omitempty"` // names of further devices of the library
	Progress
}

// StopResult is the answer to a request to stop; the node has not stopped yet when it is given.
type StopResult struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Now     time.Time `json:"now"`
}

// SyncStatus tells what is moving.
type SyncStatus struct {
	Now         time.Time     `json:"now"`
	State       string        `json:"state"`
	Reason      string        `json:"reason"`
	Since       time.Time     `json:"since"`
	PausedUntil time.Time     `json:"paused_until,omitzero"` // zero in state paused: until resumed
	Sessions    []SessionView `json:"sessions"`              // what comes here
	Serving     []SessionView `json:"serving"`               // what goes to others
	Queues      QueueView     `json:"queues"`
	Devices     []DeviceView  `json:"devices"` // others only
}

// SessionView is one transfer that is going on.
type SessionView struct {
	ID      string    `json:"id"`   // correlation id, UUID text
	Kind    string    `json:"kind"` // backfill, catch_up or reconcile; serving: it goes to the other
	Device  string    `json:"device"`
	Name    string    `json:"device_name"`
	Started time.Time `json:"started"`
	Why     string    `json:"why,omitempty"` // why this device was chosen

	Strategy string `json:"strategy"` // pages, bulk or snapshot
	Progress
}

// SnapshotView is what became of an export or import.
type SnapshotView struct {
	File    string          `json:"file"`
	Feeds   int             `json:"feeds"`   // written, or brought further
	Records uint64          `json:"records"` // in those
	Bytes   int64           `json:"bytes"`   // of all chunks of the file
	Made    time.Time       `json:"made"`    // when the snapshot was made
	Donor   string          `json:"donor"`   // the device that made it
	Took    metrics.Seconds `json:"duration_seconds"`
	Held    int             `json:"held"`    // of an import: feeds of the file in which nothing was new
	Missing []MissingFeed   `json:"missing"` // of an export: what the file lacks; of an import: what this device still lacks
}

// MissingFeed is a feed of which nothing is there, or not the newest, as far as this device has heard.
type MissingFeed struct {
	Device     string `json:"device"` // peer ID of the owner
	DeviceName string `json:"device_name"`
	Location   string `json:"location,omitempty"` // hex of record.LocationID; empty: what the device says of itself
	Name       string `json:"name,omitempty"`     // of the location
	Fetch      string `json:"fetch"`              // eager, lazy or metered
	Behind     bool   `json:"behind"`             // an older state of it is there; else nothing of it
	Lacks      uint64 `json:"lacks"`              // entries, at most; 0: not known
	InFile     bool   `json:"in_file"`            // of an import: the file has the newest of it, and it was not taken
}

// QueueView counts what waits.
type QueueView struct {
	Apply          uint64 `json:"apply"`
	Retry          uint64 `json:"retry"`
	WaitingParents uint64 `json:"waiting_for_parents"`
}

// PauseView is what is paused after a request to pause or resume.
type PauseView struct {
	Now     time.Time `json:"now"`
	Paused  bool      `json:"paused"`         // sync as a whole
	Until   time.Time `json:"until,omitzero"` // zero and Paused: until resumed
	Devices []string  `json:"devices"`        // names of devices paused one by one
}

// NowView is the outcome of a round of sync that was asked for: one line per device.
type NowView struct {
	Now     time.Time    `json:"now"`
	Devices []DeviceView `json:"devices"`
}

// raw returns text's bytes if JSON would not carry them, else nil.
func raw(text string) []byte {
	if utf8.ValidString(text) {
		return nil
	}
	return []byte(text)
}

func restore(text *string, b []byte) {
	if b != nil {
		*text = string(b)
	}
}

type plainEntry Entry

type entryJSON struct {
	plainEntry
	NameB64   []byte `json:"name_b64,omitempty"`
	PathB64   []byte `json:"path_b64,omitempty"`
	TargetB64 []byte `json:"target_b64,omitempty"`
}

func (e Entry) MarshalJSON() ([]byte, error) {
	return json.Marshal(entryJSON{plainEntry(e), raw(e.Name), raw(e.Path), raw(e.Target)})
}

func (e *Entry) UnmarshalJSON(b []byte) error {
	var j entryJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*e = Entry(j.plainEntry)
	restore(&e.Name, j.NameB64)
	restore(&e.Path, j.PathB64)
	restore(&e.Target, j.TargetB64)
	return nil
}

type plainLocation LocationView

type locationJSON struct {
	plainLocation
	NameB64 []byte `json:"name_b64,omitempty"`
	PathB64 []byte `json:"path_b64,omitempty"`
}

func (l LocationView) MarshalJSON() ([]byte, error) {
	return json.Marshal(locationJSON{plainLocation(l), raw(l.Name), raw(l.Path)})
}

func (l *LocationView) UnmarshalJSON(b []byte) error {
	var j locationJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*l = LocationView(j.plainLocation)
	restore(&l.Name, j.NameB64)
	restore(&l.Path, j.PathB64)
	return nil
}

type plainListing Listing

type listingJSON struct {
	plainListing
	PathB64 []byte `json:"path_b64,omitempty"`
}

func (l Listing) MarshalJSON() ([]byte, error) {
	return json.Marshal(listingJSON{plainListing(l), raw(l.Path)})
}

func (l *Listing) UnmarshalJSON(b []byte) error {
	var j listingJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*l = Listing(j.plainListing)
	restore(&l.Path, j.PathB64)
	return nil
}

type plainAdd AddRequest

type addJSON struct {
	plainAdd
	PathB64 []byte `json:"path_b64,omitempty"`
	NameB64 []byte `json:"name_b64,omitempty"`
}

func (a AddRequest) MarshalJSON() ([]byte, error) {
	return json.Marshal(addJSON{plainAdd(a), raw(a.Path), raw(a.Name)})
}

func (a *AddRequest) UnmarshalJSON(b []byte) error {
	var j addJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*a = AddRequest(j.plainAdd)
	restore(&a.Path, j.PathB64)
	restore(&a.Name, j.NameB64)
	return nil
}
