package eventlog

import (
	"bytes"
	"encoding/json"
	"time"
)

// Type names what happened. Names once used keep their meaning.
type Type string

// Detail is what happened: one struct per type, whose JSON form is the event's details.
type Detail interface {
	Type() Type
	// Summary says it in one line; it is cut at 200 characters.
	Summary() string
}

// kind is what holds for all events of a type.
type kind struct {
	category Category
	severity Severity
	window   time.Duration // repetitions within it are summed up, see storm.go; 0: none are
	decode   func(json.RawMessage) (Detail, error)
}

// kinds is every type there is.
var kinds = map[Type]kind{}

func declare[D Detail](category Category, severity Severity, window time.Duration) Type {
	var zero D
	t := zero.Type()
	kinds[t] = kind{category, severity, window, func(text json.RawMessage) (Detail, error) {
		var d D
		err := json.NewDecoder(bytes.NewReader(text)).Decode(&d)
		return d, err
	}}
	return t
}

// Types returns every type there is, in the order of their declaration.
func Types() []Type { return append([]Type(nil), declared...) }

// Category returns the category of t, or "" if t is unknown.
func (t Type) Category() Category { return kinds[t].category }

// Severity returns the severity of events of type t, or "" if t is unknown.
func (t Type) Severity() Severity { return kinds[t].severity }

var declared = []Type{
	declare[NodeStarted](Lifecycle, Info, 0),
	declare[NodeStopped](Lifecycle, Info, 0),
	declare[StateTransition](Lifecycle, Info, 0),
	declare[BackfillSessionStarted](Lifecycle, Info, 0),
	declare[BackfillSessionCompleted](Lifecycle, Info, 0),
	declare[BackfillSessionFailed](Lifecycle, Error, 0),
	declare[CatchUpSessionStarted](Lifecycle, Debug, 0),
	declare[CatchUpSessionCompleted](Lifecycle, Debug, 0),
	declare[CatchUpSessionFailed](Lifecycle, Warning, 0),
	declare[ReconcileSessionStarted](Lifecycle, Debug, 0),
	declare[ReconcileSessionCompleted](Lifecycle, Debug, 0),
	declare[ReconcileSessionFailed](Lifecycle, Warning, 0),

	declare[BatchIngestion](DataFlow, Debug, 0),
	declare[BatchBroadcast](DataFlow, Debug, 0),
	declare[BroadcastAcked](DataFlow, Debug, 0),
	declare[StrategySelected](DataFlow, Debug, 0),
	declare[TransferProgress](DataFlow, Debug, 0),
	declare[SnapshotExportStarted](DataFlow, Info, 0),
	declare[SnapshotExportCompleted](DataFlow, Info, 0),
	declare[SnapshotExportFailed](DataFlow, Warning, 0),
	declare[SnapshotImportCompleted](DataFlow, Info, 0),
	declare[SnapshotImportFailed](DataFlow, Warning, 0),
	declare[BulkIndexAnnounced](DataFlow, Info, 0),
	declare[BulkIndexDecided](DataFlow, Info, 0),
	declare[LookedUp](DataFlow, Debug, 0),
	declare[LookupAnswered](DataFlow, Debug, 0),
	declare[ConflictResolved](DataFlow, Warning, 0),

	declare[PeerConnected](Network, Info, 0),
	declare[PeerDisconnected](Network, Info, 0),
	declare[PeerStalled](Network, Warning, 30*time.Second),
	declare[PeerConnectionFailed](Network, Debug, 5*time.Minute),
	declare[PeerDiscovered](Network, Debug, 5*time.Minute),
	declare[BackfillRequestSent](Network, Debug, 0),
	declare[BackfillRequestReceived](Network, Debug, 0),
	declare[BackfillResponseSent](Network, Debug, 0),

	declare[SyncError](Failure, Error, 0),
	declare[BufferOverflow](Failure, Error, 30*time.Second),
	declare[StuckDependencies](Failure, Warning, 5*time.Minute),
	declare[WatermarkTooOld](Failure, Warning, 0),
	declare[ChangeRejected](Failure, Warning, 30*time.Second),
	declare[ApplyFailed](Failure, Error, 30*time.Second),
	declare[StoreError](Failure, Error, 30*time.Second),
	declare[CatalogDiverged](Failure, Error, 0),
	declare[CatalogConverged](Failure, Info, 0),
	declare[ProtocolMismatch](Failure, Error, time.Hour),
	declare[ClockSkewDetected](Failure, Warning, 10*time.Minute),
	declare[FeedRescued](Failure, Warning, 0),
	declare[FeedRolledBack](Failure, Warning, 0),
	declare[FeedCloned](Failure, Error, 0),
	declare[FeedOrphaned](Failure, Warning, 0),
	declare[EntriesSetAside](Failure, Warning, 0),

	declare[LocationAdded](Catalogue, Info, 0),
	declare[LocationRemoved](Catalogue, Info, 0),
	declare[LocationChanged](Catalogue, Info, 0),
	declare[LocationFetchChanged](Catalogue, Info, 0),
	declare[ScanStarted](Catalogue, Debug, 0),
	declare[ScanCompleted](Catalogue, Info, 0),
	declare[ScanFailed](Catalogue, Warning, 0),
	declare[WatchDegraded](Catalogue, Warning, 0),
	declare[WatchRecovered](Catalogue, Info, 0),
	declare[FilesChanged](Catalogue, Debug, 0),
	declare[TagsChanged](Catalogue, Debug, 0),
	declare[FilesHashed](Catalogue, Debug, 0),

	declare[DeviceInvited](Security, Info, 0),
	declare[DeviceJoined](Security, Info, 0),
	declare[DeviceApproved](Security, Info, 0),
	declare[DeviceRenamed](Security, Info, 0),
	declare[DeviceRevoked](Security, Warning, 0),
	declare[DeviceForgotten](Security, Warning, 0),
	declare[DeviceLeft](Security, Info, 0),
	declare[DeviceJoinRefused](Security, Warning, time.Minute),
	declare[AuthFailed](Security, Warning, time.Minute),

	declare[RequestRefused](System, Info, 30*time.Second),
	declare[DiskLow](System, Warning, 0),
	declare[MemoryRefused](System, Warning, 30*time.Second),
	declare[EventsDropped](System, Warning, 0),
	declare[EventsPruned](System, Debug, 0),
}
