// Package metrics holds every instrument of a node on one registry: methods named after what happened,
// and two ways out that read the same numbers, the Prometheus registry and Snapshot.
//
// One mutex guards all of it, so that a snapshot or a scrape sees one moment: what was received equals
// what was processed plus what is buffered, in each of them. A method takes some tens of nanoseconds and
// allocates nothing once its label values have been seen. All methods may be called on a nil *Metrics,
// which counts nothing.
//
// Label values are closed lists, or lists capped at a number named below; what is beyond goes to the
// value "_other" and is counted in peerdex_metrics_label_overflow_total. A device's label is
// record.DeviceID.Short. A device nobody made known counts under "_other" too.
package metrics

import (
	"cmp"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Caps on how many values a label may have.
const (
	MaxDevices    = 64
	MaxLocations  = 64
	MaxModels     = 8
	MaxOperations = 8  // of the store, of the catalogue, and strategies
	MaxRoutes     = 16 // of the HTTP interface
	MaxCodes      = 16 // of answers per route
)

// KeptErrors and KeptTransitions are how many of the latest errors and state transitions a snapshot holds.
const (
	KeptErrors      = 100
	KeptTransitions = 100
)

const (
	other    = "_other" // the label value beyond a cap or a closed list
	maxLabel = 64       // bytes of a label value
	maxText  = 512      // bytes of an error message
)

// Config says who is counted.
type Config struct {
	Device   string           // short id of this device; "" if it has none yet
	Version  string           // of the program; "" means "unknown"
	Revision string           // of the source; "" means "unknown"
	Now      func() time.Time // for uptime and time in state at a scrape; nil means time.Now
}

// Metrics counts what happens in one node. Make it with New; nil counts nothing.
type Metrics struct {
	cfg      Config
	registry *prometheus.Registry
	infoText [2]string // version, revision

	mu sync.Mutex // guards all below

	state      stateTimes
	broadcasts [len(broadcastKinds) + 1]uint64
	batches    uint64
	batchSizes *histogram
	broadcast  *histogram
	rejections [len(rejectionReasons)]uint64

	sessionsActive [len(sessionKinds) + 1]int64
	sessions       [len(sessionKinds) + 1][len(sessionResults) + 1]uint64
	sessionLength  [len(sessionKinds) + 1]*histogram
	pages          uint64
	pageTime       *histogram
	chunks         [len(chunkSources) + 1]uint64
	strategies     capped[uint64]
	retryQueue     int64
	retries        [len(retryResults) + 1]uint64
	bulk           [len(bulkDecisions) + 1]uint64
	lookups        [len(directions) + 1][len(lookupResults) + 1]uint64
	hintsDropped   uint64
	strangers      uint64
	joins          [len(joinResults)]uint64
	departed       [len(departures)]uint64
	refused        [len(streamRefusals)]uint64
	stuckChanges   int
	missingParents int

	models       capped[model]
	uncompressed [len(directions) + 1]uint64

	apply      *histogram
	propagated [len(sources) + 1]*histogram
	drift      time.Duration
	logicalMax uint16
	storeOps   capped[histogram]
	storeSize  [2]int64 // lsm, vlog

	memory        [len(memoryUses) + 1]int64 // reserved
	memoryMost    [len(memoryUses) + 1]int64
	memoryRefused [len(memoryRefusals) + 1]uint64

	errors    [len(errorKinds)]uint64
	recent    ring[ErrorEntry]
	conflicts [len(resolutions) + 1]uint64

	devices  map[string]*device // known, with series of their own, and this one
	folded   map[string]*device // known beyond the cap: only whether they are online
	rest     *device            // "_other": made when first needed
	overflow [len(cappedFamilies)]uint64

	tombstones int
	queries    capped[histogram]

	scanned     [len(scanResults) + 1]uint64
	hashed      [len(hashResults) + 1]uint64
	hashedBytes uint64
	hashBacklog int
	scanTime    *histogram
	scanBacklog int
	locations   capped[location]
	overflows   uint64

	eventsLogged  [len(categories) + 1][len(severities) + 1]uint64
	eventsDropped [len(dropReasons) + 1]uint64
	eventQueue    int
	eventsStored  int
	eventBytes    int64
	eventsOldest  time.Time

	routes capped[route]
}

type model struct {
	ops      [len(operations) + 1]uint64
	lastSync time.Time
	records  int
}

type location struct {
	lastScan time.Time
	watched  bool
}

type route struct {
	codes map[int]uint64
	time  *histogram
}

// New returns Metrics on a registry of their own. The node is uninitialized from now on.
func New(cfg Config) *Metrics {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m := &Metrics{
		cfg:        cfg,
		registry:   prometheus.NewRegistry(),
		infoText:   [2]string{cmp.Or(label(cfg.Version), "unknown"), cmp.Or(label(cfg.Revision), "unknown")},
		state:      newStateTimes(cfg.Now()),
		devices:    map[string]*device{},
		folded:     map[string]*device{},
		strategies: capped[uint64]{limit: MaxOperations},
		models:     capped[model]{limit: MaxModels},
		storeOps:   capped[histogram]{limit: MaxOperations},
		queries:    capped[histogram]{limit: MaxOperations},
		locations:  capped[location]{limit: MaxLocations},
		routes:     capped[route]{limit: MaxRoutes},
	}
	m.batchSizes = newHistogram(batchRecords, nil, 1, sizeBounds)
	m.broadcast = newHistogram(broadcastTime, nil, time.Second, latencyBounds)
	m.pageTime = newHistogram(pageTime, nil, time.Second, latencyBounds)
	m.apply = newHistogram(applyTime, nil, time.Second, latencyBounds)
	m.scanTime = newHistogram(scanTime, nil, time.Second, longBounds)
	for i, kind := range withOther(sessionKinds[:]) {
		m.sessionLength[i] = newHistogram(sessionTime, []string{kind}, time.Second, longBounds)
	}
	for i, source := range withOther(sources[:]) {
		m.propagated[i] = newHistogram(propagationTime, []string{source}, time.Second, propagationBounds)
	}
	m.storeOps.make = func(op string) *histogram {
		return newHistogram(storeTime, []string{op}, time.Second, latencyBounds)
	}
	m.queries.make = func(op string) *histogram {
		return newHistogram(queryTime, []string{op}, time.Second, latencyBounds)
	}
	m.routes.make = func(pattern string) *route {
		return &route{
			codes: map[int]uint64{},
			time:  newHistogram(httpTime, []string{pattern}, time.Second, latencyBounds),
		}
	}
	for _, op := range storeOperations {
		m.storeOps.get(op)
	}
	for _, name := range modelNames {
		m.models.get(name)
	}
	if cfg.Device != "" {
		m.devices[cfg.Device] = &device{own: true}
	}
	m.registry.MustRegister(collector{m})
	return m
}

// Registry returns the registry of this node; nil for nil Metrics.
func (m *Metrics) Registry() *prometheus.Registry {
	if m == nil {
		return nil
	}
	return m.registry
}

var goVersion = runtime.Version()

// label makes text fit to be a label value or a name shown to people: valid UTF-8 and short.
func label(text string) string { return clip(text, maxLabel) }

func clip(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && text[limit]&0xC0 == 0x80 { // never inside a character
		limit--
	}
	return text[:limit]
}
