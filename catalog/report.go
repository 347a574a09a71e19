package catalog

import (
	"time"

	"peerdex/record"
)

// Phase says what an indexer does for a location.
type Phase string

const (
	Waiting     Phase = "waiting"     // for its first pass
	Scanning    Phase = "scanning"    // a full pass is under way
	Watching    Phase = "watching"    // the system reports changes
	Polling     Phase = "polling"     // it does not: the whole location is looked at again and again
	Unavailable Phase = "unavailable" // the folder is not there; what was known of it is kept
)

// Status is what is to be told of one location of this device.
type Status struct {
	Location   record.LocationID
	Name, Path string
	Phase      Phase
	Reason     string // of polling or being unavailable, for people

	Files, Dirs int // known, the folder itself not counted; links and special files are files
	Bytes       uint64

	Scanned  int // entries seen by the running or last full pass
	Expected int // entries the full pass before it knew: with Scanned, how far this one is; 0: unknown

	Unhashed int // files whose contents are still to be read

	Unreadable int      // paths that could not be read when last tried
	Samples    []Sample // the first of them

	Started  time.Time // of the running or last full pass; zero: never
	LastScan time.Time // when a full pass was last completed; zero: never
	Took     time.Duration
	Last     Counts // of the last full pass
}

// Sample is a path that could not be read, below the location and as the file system has it, and why.
type Sample struct {
	Path, Reason string
}

// maxSamples is how many unreadable paths a status names; more are only counted.
const maxSamples = 20

// Metrics counts what indexers do; *metrics.Metrics is one. location is the location's id in hexadecimal.
type Metrics interface {
	ScanFiles(result string, n int) // added changed removed unchanged ignored error
	ScanDone(location string, d time.Duration, now time.Time)
	ScanBacklog(n int) // directories known to need a look, all locations together
	WatchActive(location string, on bool)
	WatchOverflow()
	LocationGone(location string)
	FileHashed(result string, bytes int) // hashed changed unreadable; bytes were read
	HashBacklog(n int)                   // files to be read, all locations together
}

// Events is told what a person may want to look up later. Its methods must not block.
type Events interface {
	LocationAdded(id record.LocationID, name, path string)
	LocationRemoved(id record.LocationID, name string, files int)
	LocationChanged(id record.LocationID, name string, p Policy)
	PassStarted(id record.LocationID)             // one pass: a scan of all, or what was reported as changed at once
	PassCompleted(id record.LocationID, c Counts) // its entries are committed
	ScanStarted(id record.LocationID)
	ScanCompleted(id record.LocationID, c Counts, d time.Duration)
	ScanFailed(id record.LocationID, reason string)
	WatchDegraded(id record.LocationID, cause string) // limit, overflow, network_fs:nfs …, unsupported
	WatchRecovered(id record.LocationID)
	FilesChanged(id record.LocationID, c Counts, window time.Duration) // gathered for up to 30 s or 10,000 entries
	FilesHashed(id record.LocationID, files int, bytes uint64)         // likewise
}

// quiet is told everything and says nothing.
type quiet struct{}

func (quiet) ScanFiles(string, int)                                  {}
func (quiet) ScanDone(string, time.Duration, time.Time)              {}
func (quiet) ScanBacklog(int)                                        {}
func (quiet) WatchActive(string, bool)                               {}
func (quiet) WatchOverflow()                                         {}
func (quiet) LocationGone(string)                                    {}
func (quiet) FileHashed(string, int)                                 {}
func (quiet) HashBacklog(int)                                        {}
func (quiet) LocationChanged(record.LocationID, string, Policy)      {}
func (quiet) FilesHashed(record.LocationID, int, uint64)             {}
func (quiet) LocationAdded(record.LocationID, string, string)        {}
func (quiet) LocationRemoved(record.LocationID, string, int)         {}
func (quiet) PassStarted(record.LocationID)                          {}
func (quiet) PassCompleted(record.LocationID, Counts)                {}
func (quiet) ScanStarted(record.LocationID)                          {}
func (quiet) ScanCompleted(record.LocationID, Counts, time.Duration) {}
func (quiet) ScanFailed(record.LocationID, string)                   {}
func (quiet) WatchDegraded(record.LocationID, string)                {}
func (quiet) WatchRecovered(record.LocationID)                       {}
func (quiet) FilesChanged(record.LocationID, Counts, time.Duration)  {}
