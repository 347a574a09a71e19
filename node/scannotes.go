package node

import (
	"time"

	"peerdex/catalog"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/record"
)

// locationName is what people call a location, or its id if it has no name here.
func (n *Node) locationName(id feed.ID) string {
	all, err := n.catalog.Locations()
	if err != nil { // whoever asks has something to say even so
		return id.Location.String()
	}
	for _, l := range all {
		if l.Feed() == id {
			return l.Name
		}
	}
	return id.Location.String()
}

// folder is an own location in an event.
func (n *Node) folder(id record.LocationID) eventlog.Folder {
	return eventlog.Folder{Location: id.String(), Name: n.locationName(feed.ID{Device: n.self, Location: id})}
}

// scanNotes makes events of what the indexer does.
type scanNotes struct{ *Node }

func (n scanNotes) LocationAdded(id record.LocationID, name, path string) {
	n.events.Add(eventlog.LocationAdded{Location: id.String(), Name: name, Path: path})
}

func (n scanNotes) LocationRemoved(id record.LocationID, name string, files int) {
	n.events.Add(eventlog.LocationRemoved{Location: id.String(), Name: name, Files: int64(files)})
}

func (n scanNotes) LocationChanged(id record.LocationID, name string, p catalog.Policy) {
	n.events.Add(eventlog.LocationChanged{Location: id.String(), Name: name, Hash: string(p)})
}

func (n scanNotes) FilesHashed(id record.LocationID, files int, bytes uint64) {
	n.events.Add(eventlog.FilesHashed{Folder: n.folder(id), Files: int64(files), Bytes: int64(bytes)})
}

func (n scanNotes) ScanStarted(id record.LocationID) {
	n.events.Add(eventlog.ScanStarted{Folder: n.folder(id)})
}

func (n scanNotes) ScanCompleted(id record.LocationID, c catalog.Counts, d time.Duration) {
	n.events.Add(eventlog.ScanCompleted{
		Folder: n.folder(id), Added: int64(c.Added), Changed: int64(c.Changed), Removed: int64(c.Removed),
		Unchanged: int64(c.Unchanged), Ignored: int64(c.Ignored), Errors: int64(c.Errors),
	}, eventlog.Took(d))
}

func (n scanNotes) PassStarted(id record.LocationID) { n.passFrom(id) }

func (n scanNotes) PassCompleted(id record.LocationID, c catalog.Counts) {
	if uint64(c.Added) <= n.cfg.Thresholds.Bulk {
		return
	}
	if err := n.announceBulk(id, n.cfg.Now()); err != nil {
		n.log.Warn("a large index was not announced", "location", n.folder(id).Name, "err", err)
	}
}

func (n scanNotes) ScanFailed(id record.LocationID, reason string) {
	n.events.Add(eventlog.ScanFailed{Folder: n.folder(id), Cause: "unavailable", Message: reason})
}

func (n scanNotes) WatchDegraded(id record.LocationID, cause string) {
	n.events.Add(eventlog.WatchDegraded{Folder: n.folder(id), Cause: cause})
}

func (n scanNotes) WatchRecovered(id record.LocationID) {
	n.events.Add(eventlog.WatchRecovered{Folder: n.folder(id)})
}

func (n scanNotes) FilesChanged(id record.LocationID, c catalog.Counts, _ time.Duration) {
	n.events.AddBatch(eventlog.Tally{
		Type: eventlog.FilesChanged{}.Type(), Reason: id.String(), Name: n.folder(id).Name,
		Models:   map[string]int{"entry": c.Added + c.Changed + c.Removed},
		Outcomes: map[string]int{"added": c.Added, "changed": c.Changed, "removed": c.Removed},
	})
}
