package metrics

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// Snapshot is all numbers of one moment, for people and programs. Its parts add up: the totals of a
// group are the sums of its parts, also after Filter, which leaves out (nil) what is not known per device
// or per model.
type Snapshot struct {
	Time       time.Time `json:"time"`
	Device     string    `json:"device"` // short id of this device
	DeviceName string    `json:"device_name"`
	Version    string    `json:"version"`
	Revision   string    `json:"revision"`

	State       *State      `json:"state,omitempty"`
	Operations  Operations  `json:"operations"`
	Volume      Volume      `json:"data_volume"`
	Performance Performance `json:"performance"`
	Errors      Errors      `json:"errors"`
	Devices     []Device    `json:"devices"` // by short id; "_other" stands for those without numbers of their own
	Catalog     Catalog     `json:"catalog"`
	Observer    *Observer   `json:"observer,omitempty"`
}

// State is how the node fared as a state machine.
type State struct {
	Current     string             `json:"current"`
	Reason      string             `json:"reason"`
	EnteredAt   time.Time          `json:"entered_at"`
	For         Seconds            `json:"for_seconds"`
	Uptime      Seconds            `json:"uptime_seconds"`        // the sum of TimeIn, exactly
	TimeIn      map[string]Seconds `json:"time_in_state_seconds"` // the running state included
	Transitions uint64             `json:"transitions"`           // the sum of Moves
	Moves       []Move             `json:"transition_counts"`
	History     []Transition       `json:"history"` // the last KeptTransitions, oldest first
}

// Move counts the transitions between two states.
type Move struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Count uint64 `json:"count"`
}

// Transition is one change of state.
type Transition struct {
	Time   time.Time `json:"time"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	After  Seconds   `json:"after_seconds"` // time spent in From
}

// Operations is what was sent, received and done.
type Operations struct {
	Broadcasts       *Broadcasts       `json:"broadcasts,omitempty"`
	FailedBroadcasts *Counts           `json:"failed_broadcasts,omitempty"` // by reason
	Received         *Counts           `json:"received,omitempty"`          // by source
	Processed        *Counts           `json:"processed,omitempty"`         // by outcome
	Buffered         *int64            `json:"buffered,omitempty"`          // received less processed
	Rejections       *Counts           `json:"rejections,omitempty"`        // by reason
	HintsDropped     *uint64           `json:"hints_dropped,omitempty"`
	StrangersSeen    *uint64           `json:"strangers_seen,omitempty"`
	Joins            *Counts           `json:"joins,omitempty"`           // asked of this device, by what became of it
	Departures       *Counts           `json:"departures,omitempty"`      // of other devices, by how they went
	StreamsRefused   *Counts           `json:"streams_refused,omitempty"` // by reason
	StuckChanges     *int              `json:"stuck_changes,omitempty"`
	MissingParents   *int              `json:"missing_parents,omitempty"`
	Sessions         []Session         `json:"sessions,omitempty"`
	Pages            *uint64           `json:"pages,omitempty"`
	Chunks           *Counts           `json:"snapshot_chunks,omitempty"` // by source
	Retries          *Counts           `json:"retries,omitempty"`         // by result
	RetryQueue       *int64            `json:"retry_queue,omitempty"`
	Strategies       map[string]uint64 `json:"strategies,omitempty"`
	BulkDecisions    *Counts           `json:"bulk_decisions,omitempty"`   // by decision
	LookupsAsked     *Counts           `json:"lookups_asked,omitempty"`    // by result
	LookupsAnswered  *Counts           `json:"lookups_answered,omitempty"` // of others, by result
}

// Counts is a total and its parts.
type Counts struct {
	Total uint64            `json:"total"`
	By    map[string]uint64 `json:"by"`
}

// Broadcasts counts pushes handed to the network.
type Broadcasts struct {
	Counts              // by kind
	Batches      uint64 `json:"batches"` // those of more than one record
	BatchRecords Sizes  `json:"batch_records"`
}

// Session counts the sessions of one kind.
type Session struct {
	Kind     string    `json:"kind"`
	Active   int64     `json:"active"`
	Ended    Counts    `json:"ended"` // by result
	Duration Durations `json:"duration"`
}

// Volume is how much data moved.
type Volume struct {
	Records       *Counts               `json:"records,omitempty"` // written by sync, by model
	Models        []Model               `json:"models,omitempty"`
	AppliedFrom   *Counts               `json:"applied_from,omitempty"` // changes applied, by device
	SentBytes     *uint64               `json:"sent_bytes,omitempty"`
	ReceivedBytes *uint64               `json:"received_bytes,omitempty"`
	Uncompressed  *Counts               `json:"uncompressed_bytes,omitempty"` // by direction, before compression
	LastSync      map[string]*time.Time `json:"last_sync,omitempty"`          // by device; null: never
}

// Model is what sync wrote of one model.
type Model struct {
	Model    string     `json:"model"`
	Records  Counts     `json:"records"` // by operation
	LastSync *time.Time `json:"last_sync"`
}

// Performance is how long things took.
type Performance struct {
	Broadcast   *Durations           `json:"broadcast,omitempty"`
	Apply       *Durations           `json:"apply,omitempty"`
	Page        *Durations           `json:"backfill_page,omitempty"`
	Propagation map[string]Durations `json:"propagation,omitempty"` // by source
	Store       map[string]Durations `json:"store,omitempty"`       // by operation
	Queries     map[string]Durations `json:"queries,omitempty"`     // by operation
	StoreBytes  *Counts              `json:"store_bytes,omitempty"` // by part
	Memory      map[string]Memory    `json:"memory,omitempty"`      // reserved, by use
	HLCDrift    *Seconds             `json:"hlc_drift_seconds,omitempty"`
	LogicalMax  *uint16              `json:"hlc_logical_max,omitempty"`
}

// Memory is what is reserved for a use.
type Memory struct {
	Bytes   int64  `json:"bytes"`
	Most    int64  `json:"most"` // at a time
	Refused uint64 `json:"refused"`
}

// Errors is what went wrong.
type Errors struct {
	Counts    *Counts      `json:"counts,omitempty"`    // by kind
	Conflicts *Counts      `json:"conflicts,omitempty"` // by resolution
	Recent    []ErrorEntry `json:"recent"`              // the last KeptErrors, oldest first
}

// ErrorEntry is one error.
type ErrorEntry struct {
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Device  string    `json:"device"` // short id, or "" when it is nobody's
	Message string    `json:"message"`
}

// Device is what is known of one device.
type Device struct {
	ID      string `json:"id"` // short
	Name    string `json:"name"`
	OS      string `json:"os"`
	Version string `json:"version"`
	Own     bool   `json:"own"` // this device

	Online              bool       `json:"online"`
	Connection          string     `json:"connection"`
	Attempts            Counts     `json:"connection_attempts"` // by result
	AddressesLearned    Counts     `json:"addresses_learned"`   // by source
	ConsecutiveFailures int        `json:"consecutive_failures"`
	RTT                 Seconds    `json:"rtt_seconds"`
	ClockOffset         Seconds    `json:"clock_offset_seconds"`
	LagIn               uint64     `json:"lag_in"`  // changes it has and we lack
	LagOut              uint64     `json:"lag_out"` // changes we have and it lacks
	Progress            float64    `json:"backfill_progress"`
	LastSync            *time.Time `json:"last_sync"`
	LastSeen            *time.Time `json:"last_seen"`
	StateWatermark      *time.Time `json:"state_watermark"`
	SharedWatermark     *time.Time `json:"shared_watermark"`

	Received         Counts `json:"received"`  // by source
	Processed        Counts `json:"processed"` // by outcome
	Buffered         int64  `json:"buffered"`
	FailedBroadcasts Counts `json:"failed_broadcasts"` // by reason
	SentBytes        uint64 `json:"sent_bytes"`
	ReceivedBytes    uint64 `json:"received_bytes"`
	Errors           Counts `json:"errors"` // by kind

	DigestChecks Counts `json:"digest_checks"` // by result
	Diverged     bool   `json:"diverged"`
	Files        int    `json:"files"`
	FileBytes    int64  `json:"file_bytes"`
}

// Catalog is what is catalogued and how it is kept up to date.
type Catalog struct {
	Records    map[string]int `json:"records,omitempty"` // by model
	Tombstones *int           `json:"tombstones,omitempty"`
	Files      int            `json:"files"` // the sum over Devices
	FileBytes  int64          `json:"file_bytes"`
	Scan       *Scan          `json:"scan,omitempty"`
}

// Scan is how the folders of this device are followed.
type Scan struct {
	Files          Counts     `json:"files"` // by result
	Duration       Durations  `json:"duration"`
	Backlog        int        `json:"backlog"`
	Hashed         Counts     `json:"hashed"` // files, by result
	HashedBytes    uint64     `json:"hashed_bytes"`
	HashBacklog    int        `json:"hash_backlog"`
	WatchOverflows uint64     `json:"watch_overflows"`
	Locations      []Location `json:"locations"`
}

// Location is one indexed folder of this device.
type Location struct {
	ID       string     `json:"id"`
	LastScan *time.Time `json:"last_scan"`
	Watched  bool       `json:"watched"`
}

// Observer is the observer observed.
type Observer struct {
	EventsLogged  uint64                       `json:"events_logged"`             // the sum of ByCategory
	ByCategory    map[string]map[string]uint64 `json:"events_logged_by_category"` // then by severity
	EventsDropped Counts                       `json:"events_dropped"`            // by reason
	EventQueue    int                          `json:"event_queue"`
	EventsStored  int                          `json:"events_stored"`
	EventBytes    int64                        `json:"events_stored_bytes"`
	EventsOldest  *time.Time                   `json:"events_oldest"`
	LabelOverflow Counts                       `json:"label_overflow"` // by metric
	Requests      []Route                      `json:"http_requests"`
}

// Route counts the answers of one route of the local interface.
type Route struct {
	Route    string    `json:"route"`
	Codes    Counts    `json:"codes"`
	Duration Durations `json:"duration"`
}

// Snapshot returns all numbers as of now. It is the zero Snapshot for nil Metrics.
func (m *Metrics) Snapshot(now time.Time) Snapshot {
	if m == nil {
		return Snapshot{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Snapshot{
		Time: now, Device: m.cfg.Device, Version: m.infoText[0], Revision: m.infoText[1],
		State: m.state.snapshot(now), Observer: m.observer(),
	}
	for _, id := range slices.Sorted(maps.Keys(m.devices)) {
		s.Devices = append(s.Devices, m.devices[id].snapshot(id))
	}
	if own := m.devices[s.Device]; own != nil {
		s.DeviceName = own.name
	}
	if m.rest != nil {
		s.Devices = append(s.Devices, m.rest.snapshot(other))
	}
	m.volume(&s.Volume)
	m.operations(&s.Operations)
	m.performance(&s.Performance)
	s.sumDevices()
	s.Errors = Errors{
		Counts:    counts(errorKinds[:], m.errors[:]),
		Conflicts: counts(resolutions[:], m.conflicts[:]),
		Recent:    m.recent.all(),
	}
	m.catalog(&s.Catalog)
	return s
}

// sumDevices fills in the totals that are sums over s.Devices.
func (s *Snapshot) sumDevices() {
	var failed, received, processed Counts
	var buffered int64
	var out, in uint64
	applied := Counts{By: map[string]uint64{}}
	s.Volume.LastSync = map[string]*time.Time{}
	s.Catalog.Files, s.Catalog.FileBytes = 0, 0
	for _, d := range s.Devices {
		failed.add(d.FailedBroadcasts)
		received.add(d.Received)
		processed.add(d.Processed)
		buffered += d.Buffered
		out, in = out+d.SentBytes, in+d.ReceivedBytes
		if n := d.Processed.By["applied"]; n > 0 || !d.Own {
			applied.By[d.ID] = n
			applied.Total += n
		}
		if !d.Own && d.ID != other {
			s.Volume.LastSync[d.ID] = d.LastSync
		}
		s.Catalog.Files += d.Files
		s.Catalog.FileBytes += d.FileBytes
	}
	s.Operations.FailedBroadcasts, s.Operations.Received, s.Operations.Processed = &failed, &received, &processed
	s.Operations.Buffered = &buffered
	s.Volume.AppliedFrom, s.Volume.SentBytes, s.Volume.ReceivedBytes = &applied, &out, &in
}

func (c *Counts) add(o Counts) {
	c.Total += o.Total
	if c.By == nil {
		c.By = map[string]uint64{}
	}
	for k, n := range o.By {
		c.By[k] += n
	}
}

// counts pairs a list with its numbers. What is beyond the list is "_other", and left out while zero.
func counts(list []string, n []uint64) *Counts {
	c := &Counts{By: make(map[string]uint64, len(list))}
	for i, v := range n {
		c.Total += v
		if i < len(list) {
			c.By[list[i]] = v
		} else if v > 0 {
			c.By[other] = v
		}
	}
	return c
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (s *stateTimes) snapshot(now time.Time) *State {
	now = s.tick(now)
	names := withOther(states[:])
	out := &State{
		Current: names[s.current], Reason: s.reason, EnteredAt: s.entered,
		For: Seconds(now.Sub(s.entered)), Uptime: Seconds(now.Sub(s.started)),
		TimeIn: map[string]Seconds{}, Moves: []Move{}, History: s.previous.all(),
	}
	for i, name := range names {
		if spent := s.in(i, now); i < len(states) || spent > 0 {
			out.TimeIn[name] = Seconds(spent)
		}
		for j, n := range s.moves[i] {
			if n > 0 {
				out.Moves = append(out.Moves, Move{name, names[j], n})
				out.Transitions += n
			}
		}
	}
	return out
}

func (d *device) snapshot(id string) Device {
	return Device{
		ID: id, Name: d.name, OS: d.os, Version: d.version, Own: d.own,
		Online: d.online, Connection: connections[d.connection], Attempts: *counts(attemptResults[:], d.attempts[:]),
		AddressesLearned: *counts(addressSources[:], d.learned[:]), ConsecutiveFailures: d.failing, RTT: Seconds(d.rtt), ClockOffset: Seconds(d.offset),
		LagIn: d.lagIn, LagOut: d.lagOut, Progress: d.progress,
		LastSync: moment(d.lastSync), LastSeen: moment(d.lastSeen),
		StateWatermark: moment(d.watermark[0]), SharedWatermark: moment(d.watermark[1]),
		Received: *counts(sources[:], d.received[:]), Processed: *counts(outcomes[:], d.processed[:]),
		Buffered: d.buffered(), FailedBroadcasts: *counts(failureReasons[:], d.failures[:]),
		SentBytes: d.bytesOut, ReceivedBytes: d.bytesIn, Errors: *counts(errorKinds[:], d.errors[:]),
		DigestChecks: *counts(digestResults[:], d.digests[:]), Diverged: d.diverged,
		Files: d.files, FileBytes: d.fileBytes,
	}
}

func (m *Metrics) operations(o *Operations) {
	o.Broadcasts = &Broadcasts{
		Counts: *counts(broadcastKinds[:], m.broadcasts[:]), Batches: m.batches, BatchRecords: m.batchSizes.sizes(),
	}
	o.Rejections = counts(rejectionReasons[:], m.rejections[:])
	o.HintsDropped, o.Pages, o.RetryQueue = new(m.hintsDropped), new(m.pages), new(m.retryQueue)
	o.Chunks, o.StrangersSeen = counts(chunkSources[:], m.chunks[:]), new(m.strangers)
	o.Joins, o.Departures = counts(joinResults[:], m.joins[:]), counts(departures[:], m.departed[:])
	o.StreamsRefused = counts(streamRefusals[:], m.refused[:])
	o.StuckChanges, o.MissingParents = new(m.stuckChanges), new(m.missingParents)
	for i, kind := range withOther(sessionKinds[:]) {
		if h := m.sessionLength[i]; i < len(sessionKinds) || h.count > 0 || m.sessionsActive[i] != 0 {
			o.Sessions = append(o.Sessions, Session{
				Kind: kind, Active: m.sessionsActive[i],
				Ended: *counts(sessionResults[:], m.sessions[i][:]), Duration: h.durations(),
			})
		}
	}
	o.Retries = counts(retryResults[:], m.retries[:])
	o.BulkDecisions = counts(bulkDecisions[:], m.bulk[:])
	o.LookupsAsked = counts(lookupResults[:], m.lookups[index(directions[:], "out")][:])
	o.LookupsAnswered = counts(lookupResults[:], m.lookups[index(directions[:], "in")][:])
	o.Strategies = map[string]uint64{}
	for name, n := range m.strategies.values {
		o.Strategies[name] = *n
	}
}

func (m *Metrics) volume(v *Volume) {
	v.Records = &Counts{By: map[string]uint64{}}
	for _, name := range m.models.sorted() {
		t := m.models.values[name]
		ops := counts(operations[:], t.ops[:])
		v.Models = append(v.Models, Model{name, *ops, moment(t.lastSync)})
		v.Records.By[name] = ops.Total
		v.Records.Total += ops.Total
	}
	v.Uncompressed = counts(directions[:], m.uncompressed[:])
}

func (m *Metrics) performance(p *Performance) {
	p.Broadcast, p.Apply, p.Page = new(m.broadcast.durations()), new(m.apply.durations()), new(m.pageTime.durations())
	p.Propagation = map[string]Durations{}
	for i, source := range withOther(sources[:]) {
		if h := m.propagated[i]; i < len(sources) || h.count > 0 {
			p.Propagation[source] = h.durations()
		}
	}
	p.Store, p.Queries = map[string]Durations{}, map[string]Durations{}
	for op, h := range m.storeOps.values {
		p.Store[op] = h.durations()
	}
	for op, h := range m.queries.values {
		p.Queries[op] = h.durations()
	}
	p.Memory = map[string]Memory{}
	for i, use := range memoryRefusals {
		at := Memory{Refused: m.memoryRefused[i]}
		if i < len(memoryUses) {
			at.Bytes, at.Most = m.memory[i], m.memoryMost[i]
		}
		p.Memory[use] = at
	}
	p.StoreBytes = counts(storeParts[:], []uint64{uint64(m.storeSize[0]), uint64(m.storeSize[1])})
	p.HLCDrift, p.LogicalMax = new(Seconds(m.drift)), new(m.logicalMax)
}

func (m *Metrics) catalog(c *Catalog) {
	c.Records = map[string]int{}
	for name, t := range m.models.values {
		c.Records[name] = t.records
	}
	c.Tombstones = new(m.tombstones)
	c.Scan = &Scan{
		Files: *counts(scanResults[:], m.scanned[:]), Duration: m.scanTime.durations(),
		Hashed: *counts(hashResults[:], m.hashed[:]), HashedBytes: m.hashedBytes, HashBacklog: m.hashBacklog,
		Backlog: m.scanBacklog, WatchOverflows: m.overflows, Locations: []Location{},
	}
	for _, id := range m.locations.sorted() {
		l := m.locations.values[id]
		c.Scan.Locations = append(c.Scan.Locations, Location{id, moment(l.lastScan), l.watched})
	}
}

func (m *Metrics) observer() *Observer {
	o := &Observer{
		ByCategory:    map[string]map[string]uint64{},
		EventsDropped: *counts(dropReasons[:], m.eventsDropped[:]),
		EventQueue:    m.eventQueue, EventsStored: m.eventsStored, EventBytes: m.eventBytes,
		EventsOldest:  moment(m.eventsOldest),
		LabelOverflow: Counts{By: map[string]uint64{}},
		Requests:      []Route{},
	}
	for i, category := range withOther(categories[:]) {
		if c := counts(severities[:], m.eventsLogged[i][:]); i < len(categories) || c.Total > 0 {
			o.ByCategory[category] = c.By
			o.EventsLogged += c.Total
		}
	}
	for i, f := range cappedFamilies {
		if n := m.overflow[i]; n > 0 {
			o.LabelOverflow.By[f.name] = n
			o.LabelOverflow.Total += n
		}
	}
	for _, pattern := range m.routes.sorted() {
		r := m.routes.values[pattern]
		codes := Counts{By: map[string]uint64{}}
		for code, n := range r.codes {
			name := strconv.Itoa(code)
			if code == 0 {
				name = other
			}
			codes.By[name] = n
			codes.Total += n
		}
		o.Requests = append(o.Requests, Route{pattern, codes, r.time.durations()})
	}
	return o
}
