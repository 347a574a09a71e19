package api

import (
	"context"
	"time"

	"peerdex/eventlog"
	"peerdex/metrics"
	"peerdex/node"
)

// Backend is the node as the API needs it. Errors that are *node.Problem reach the person as they are;
// any other becomes node.CodeInternal. Devices and locations are named by their full ids: the API has
// resolved names and prefixes, and refused unknown and ambiguous ones, before it calls. Every method may
// be called from several goroutines at once and returns soon after ctx ends.
type Backend interface {
	Membership
	Snapshots

	Status(ctx context.Context) (node.Status, error)
	// Devices returns every member, this device first, then by name, and after them the devices that were
	// revoked or have left.
	Devices(ctx context.Context) ([]node.DeviceView, error)
	// Locations returns the folders of every device: this one's first, then by device and path.
	Locations(ctx context.Context) ([]node.LocationView, error)

	// AddLocation indexes a folder and returns when its first scan is durable. progress is called now
	// and then from one goroutine. If ctx ends first the location stays and the scan goes on.
	AddLocation(ctx context.Context, req node.AddRequest, progress func(node.ScanProgress)) (node.ScanView, error)
	// RemoveLocation stops indexing a location of this device and drops its entries everywhere. Files are not touched.
	RemoveLocation(ctx context.Context, id string) (node.LocationView, error)
	// SetHashing changes which files of a location of this device are read to hash their contents: "auto",
	// "all" or "none".
	SetHashing(ctx context.Context, id, policy string) (node.LocationView, error)
	// SetFetch changes whether the entries of another device's location are kept here. It returns once those of
	// one that becomes lazy are given up.
	SetFetch(ctx context.Context, device, id string, policy node.Fetch) (node.LocationView, error)
	// Rescan compares a location of this device with the disk and returns when done, like AddLocation.
	Rescan(ctx context.Context, id string, progress func(node.ScanProgress)) (node.ScanView, error)

	List(ctx context.Context, q node.ListQuery) (node.Listing, error)
	// Find calls fn for each hit; an error of fn ends it and is returned.
	Find(ctx context.Context, q node.FindQuery, fn func(node.Entry) error) (node.FindResult, error)
	// Where returns every place of a content.
	Where(ctx context.Context, q node.WhereQuery) (node.Whereabouts, error)
	// Info returns all that is known of one entry.
	Info(ctx context.Context, q node.WhereQuery) (node.Info, error)

	// Tags returns every tag, by name; counted says how many entries show each, which takes longer.
	Tags(ctx context.Context, counted bool) ([]node.TagView, error)
	// ChangeTags and the three after it are shared edits: durable when they return, and with the devices named.
	ChangeTags(ctx context.Context, req node.TagRequest) (node.EditView, error)
	RenameTag(ctx context.Context, req node.RenameRequest) (node.EditView, error)
	DeleteTag(ctx context.Context, tag string) (node.EditView, error)
	SetNote(ctx context.Context, req node.NoteRequest) (node.EditView, error)
	// Note returns what is noted of one file or folder.
	Note(ctx context.Context, p node.PathRef) (node.NoteView, error)

	Invite(ctx context.Context, req node.InviteRequest) (node.InviteView, error)
	// Join pairs with the device behind req and returns when this node is in step with it; progress is
	// called from one goroutine. If ctx ends after stage "joined" the membership stays.
	Join(ctx context.Context, req node.JoinRequest, progress func(node.JoinProgress)) error
	// Stop asks the node to end; it returns before the node has ended.
	Stop(ctx context.Context) (node.StopResult, error)

	SyncStatus(ctx context.Context) (node.SyncStatus, error)
	// Pause stops sync with one device, or with all if device is empty, for a while or (0) until resumed.
	Pause(ctx context.Context, device string, d time.Duration) (node.PauseView, error)
	// Resume ends what Pause began; with an empty device everything that is paused.
	Resume(ctx context.Context, device string) (node.PauseView, error)
	// SyncNow dials and compares heads at once, with one device or all, and returns when each was tried and what was
	// lacking then has come, as far as it can be had; progress is called now and then from one goroutine. If ctx
	// ends first, the transfers go on.
	SyncNow(ctx context.Context, device string, progress func(node.Progress)) (node.NowView, error)

	// SyncPlan says what would be done about what is lacking of one device or all; nothing is done.
	SyncPlan(ctx context.Context, device string) (node.PlanView, error)

	// Refused notes that a request, named by its route, was answered with a problem.
	Refused(route string, code node.Code)

	// Metrics returns every number as of now; the API filters.
	Metrics(ctx context.Context) (metrics.Snapshot, error)
	// Events is eventlog.Log.Query.
	Events(ctx context.Context, q eventlog.Query) ([]eventlog.Event, eventlog.Cursor, error)
	// WatchEvents is eventlog.Log.Watch.
	WatchEvents() (<-chan struct{}, func())
}
