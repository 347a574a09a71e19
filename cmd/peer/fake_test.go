package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/hlc"
	"peerdex/metrics"
	"peerdex/node"
)

// noon is the moment at which every test here happens.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	laptopID = "12D3KooWLaptopxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	nasID    = "12D3KooWNasxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	atticID  = "12D3KooWAtticxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	nanoID   = "12D3KooWNanoxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

	goodAddr = "/ip4/192.168.1.20/udp/4001/quic-v1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
)

// hostile is a name that would clear the screen, turn the writing direction, forge a line and break UTF-8.
const hostile = "a\x1b[2J\nerror: forged\u202etxt.\xff\u0085end"

// fake is a scripted backend. It keeps what it was asked to do.
type fake struct {
	api.Backend // nil: a method without a script is a test's fault

	mu    sync.Mutex // guards asked, problem, empty and more
	asked []string
	// problem, if set, answers whatever changes something.
	problem error

	more []eventlog.Event
	wake chan struct{}

	pid     int
	stopped func()
	empty   bool
}

func (f *fake) did(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, what)
	return f.problem
}

func (f *fake) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, "\n")
}

func (f *fake) Devices(context.Context) ([]node.DeviceView, error) {
	self := node.DeviceView{ID: laptopID, Short: "7KQ2-XMDL", Name: "laptop", Self: true, Current: true, OS: "linux", Version: "0.1.0",
		Link: node.LinkConnected, Files: 48210, Dirs: 900, Bytes: 212_400_000_000, Added: noon.AddDate(0, -2, 0)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.empty {
		return []node.DeviceView{self}, nil
	}
	return []node.DeviceView{
		self,
		{ID: atticID, Short: "K0VN-22EJ", Name: hostile, Link: node.LinkDisconnected, Seen: noon.AddDate(0, 0, -9),
			AsOf: noon.AddDate(0, 0, -9), ItLacks: new(uint64(3412)), Files: 12040, Bytes: 96_300_000_000, Failures: 4, LastError: "connection refused by " + hostile},
		{ID: nanoID, Short: "91HH-T3KB", Name: "nanopi", Link: node.LinkConnected, Online: true, Seen: noon,
			AsOf: noon, Current: true, Address: "/ip4/10.0.0.9/tcp/4001", RTT: metrics.Seconds(2 * time.Millisecond), WeLack: new(uint64(0)), ItLacks: new(uint64(0)),
			Added: noon.AddDate(0, -1, 0)},
		{ID: nasID, Short: "3F9D-PQ7A", Name: "nas", Link: node.LinkSyncing, Online: true, Seen: noon, AsOf: noon, Current: true,
			Address: "/ip4/192.168.1.20/udp/4001/quic-v1", RTT: metrics.Seconds(48 * time.Millisecond), WeLack: new(uint64(12)), ItLacks: new(uint64(313)),
			Files: 131902, Bytes: 1_900_000_000_000, Paused: true, Role: "admin", Added: noon.AddDate(0, -2, 0)},
	}, nil
}

func (f *fake) Locations(context.Context) ([]node.LocationView, error) {
	if f.empty {
		return nil, nil
	}
	return []node.LocationView{
		{ID: strings.Repeat("3f", 16), Device: laptopID, DeviceName: "laptop", Self: true, Current: true, Name: "Pictures", Path: "/home/mia/Pictures",
			Files: 48210, Dirs: 900, Bytes: 212_400_000_000, State: "watching", LastScan: noon.Add(-3 * time.Hour), ScanTook: metrics.Seconds(3100 * time.Millisecond),
			Hash: "auto", Unhashed: 1234, Ignored: 7, Unreadable: 24, Ignore: []string{"*.tmp"}, Samples: unreadable()},
		{ID: strings.Repeat("4e", 16), Device: laptopID, DeviceName: "laptop", Self: true, Current: true, Name: hostile, Path: "/srv/" + hostile,
			State: "polling", Cause: "too many folders to watch", Hash: "none"},
		{ID: strings.Repeat("5d", 16), Device: nasID, DeviceName: "nas", Name: "photos", Path: "/srv/photos", Files: 131902,
			Bytes: 1_900_000_000_000, Online: true, AsOf: noon, Current: true, Fetch: "eager", Entries: 140_000},
		{ID: strings.Repeat("6c", 16), Device: atticID, DeviceName: hostile, Name: "box", Path: "/mnt/box", AsOf: noon.AddDate(0, 0, -9), Fetch: "lazy", Entries: 48_000},
	}, nil
}

// unreadable are more paths than are shown, the first of them hostile.
func unreadable() []node.UnreadableView {
	out := []node.UnreadableView{{Path: "/home/mia/Pictures/" + hostile, Reason: "permission denied"}}
	for i := range 22 {
		out = append(out, node.UnreadableView{Path: fmt.Sprintf("/home/mia/Pictures/broken-%02d", i), Reason: "input/output error"})
	}
	return out
}

func (f *fake) Status(ctx context.Context) (node.Status, error) {
	devices, _ := f.Devices(ctx)
	all, _ := f.Locations(ctx)
	st := node.Status{Now: noon, Version: "0.1.0", PID: f.pid, Started: noon.Add(-9254 * time.Second), Boot: "b1", Home: "/home/mia/.local/share/peer",
		Library: "3f9d2a10aabb", State: node.StateReady, Reason: "nothing is lacking", Since: noon.Add(-83 * time.Minute),
		Listen: []string{goodAddr}, Files: 217570, Dirs: 4000, Bytes: 2_300_000_000_000, Devices: devices}
	for _, l := range all {
		if l.Self {
			st.Locations = append(st.Locations, l)
		}
	}
	if !f.empty {
		st.Attention = []node.Attention{
			{Severity: "problem", Text: "its clock differs from ours by 1m35s", Device: nasID, Try: "peer sync status --device nas"},
			{Severity: "warning", Text: "2 paths could not be read"},
		}
	}
	return st, nil
}

func (f *fake) AddLocation(_ context.Context, req node.AddRequest, fn func(node.ScanProgress)) (node.ScanView, error) {
	if err := f.did("add " + req.Path + " as " + req.Name + " without " + strings.Join(req.Ignore, ",") + " hash " + req.Hash); err != nil {
		return node.ScanView{}, err
	}
	fn(node.ScanProgress{Seen: 1000})
	fn(node.ScanProgress{Seen: 48210, Total: 48210})
	return node.ScanView{Location: node.LocationView{Self: true, Path: req.Path, Files: 48000, Dirs: 210, ScanTook: metrics.Seconds(3100 * time.Millisecond), State: "watching"}, Added: 48210, Took: metrics.Seconds(3100 * time.Millisecond)}, nil
}

func (f *fake) RemoveLocation(ctx context.Context, id string) (node.LocationView, error) {
	if err := f.did("remove " + id); err != nil {
		return node.LocationView{}, err
	}
	all, _ := f.Locations(ctx)
	return all[0], nil
}

func (f *fake) SetHashing(ctx context.Context, id, policy string) (node.LocationView, error) {
	if err := f.did("hash " + policy + " of " + id); err != nil {
		return node.LocationView{}, err
	}
	all, _ := f.Locations(ctx)
	all[0].Hash = policy
	return all[0], nil
}

func (f *fake) SetFetch(ctx context.Context, device, id string, policy node.Fetch) (node.LocationView, error) {
	if err := f.did("fetch " + string(policy) + " of " + id + " on " + device); err != nil {
		return node.LocationView{}, err
	}
	all, _ := f.Locations(ctx)
	all[2].Fetch, all[2].Files, all[2].Bytes = string(policy), 0, 0
	if policy == node.FetchMetered {
		all[2].Waits, all[2].Lacks = "metered_large", 12_345
	}
	if policy == node.FetchEager {
		all[2].Lacks, all[2].From = all[2].Entries, hostile
	}
	return all[2], nil
}

func (f *fake) SyncPlan(_ context.Context, device string) (node.PlanView, error) {
	if err := f.did("plan " + device); err != nil {
		return node.PlanView{}, err
	}
	if device == nanoID {
		return node.PlanView{Thresholds: node.Thresholds{Push: 100, Bulk: 10_000, Snapshot: 10_000}, Now: noon, Feeds: []node.FeedPlan{}}, nil
	}
	candidates := []node.CandidateView{
		{Device: nasID, Name: "nas", Serves: true, Settled: 48_000, Online: true, Complete: 1, Latency: metrics.Seconds(48 * time.Millisecond), Score: 145.2},
		{Device: nanoID, Name: "nanopi", Settled: 20_000, Online: true, Complete: .5, Latency: metrics.Seconds(2 * time.Millisecond), ActiveSyncs: 2, Failed: true, Score: 64.8},
		{Device: atticID, Name: hostile, Complete: 1, Score: -0.04},
	}
	return node.PlanView{Thresholds: node.Thresholds{Push: 100, Bulk: 10_000, Snapshot: 10_000}, Now: noon, Paused: "the disk is almost full", Feeds: []node.FeedPlan{
		{Feed: "f1", Device: nasID, DeviceName: "nas", Fetch: "eager", Best: 120, Settled: 100, Lacks: 20, Decision: node.DecideFetch, Why: "eager",
			Strategy: node.StrategyPush, Road: "delta", Reason: "20 lacking", Donor: nasID, DonorName: "nas", Running: true, Candidates: candidates[:1]},
		{Feed: "f2", Device: nasID, DeviceName: "nas", Location: strings.Repeat("5d", 16), Name: hostile, Fetch: "eager", Best: 48_000, Lacks: 48_000,
			Decision: node.DecideFetch, Why: "eager", Strategy: node.StrategyBulk, Road: "delta", Reason: "up to 48,000 lacking: more than 10,000; delta: empty",
			Donor: nasID, DonorName: "nas", Candidates: candidates},
		{Feed: "f3", Device: atticID, DeviceName: hostile, Location: strings.Repeat("6c", 16), Name: "box", Fetch: "lazy", Best: 9, Lacks: 9,
			Decision: node.DecideOnDemand, Why: "lazy", Reason: "it is lazy: whoever is settled is asked when you ask", Candidates: []node.CandidateView{}},
	}}, nil
}

func (f *fake) Rescan(ctx context.Context, id string, fn func(node.ScanProgress)) (node.ScanView, error) {
	if err := f.did("rescan " + id); err != nil {
		return node.ScanView{}, err
	}
	fn(node.ScanProgress{Seen: 500, Total: 1000})
	all, _ := f.Locations(ctx)
	return node.ScanView{Location: all[0], Added: 3, Changed: 2, Removed: 1, Unchanged: 48204, Unreadable: 2, Took: metrics.Seconds(900 * time.Millisecond)}, nil
}

func entries() []node.Entry {
	return []node.Entry{
		{Device: laptopID, DeviceName: "laptop", Online: true, AsOf: noon, Current: true, Kind: "file", Name: "beach.jpg", Path: "/home/mia/Pictures/beach.jpg",
			Size: 1_200_000, Mode: 0o644, Modified: noon.AddDate(-2, 0, 0), Tags: []string{"tax", hostile}},
		{Device: nasID, DeviceName: "nas", Online: true, AsOf: noon, Current: true, Kind: "dir", Name: "beach", Path: "/srv/photos/beach", Mode: 0o755},
		{Device: atticID, DeviceName: hostile, AsOf: noon.AddDate(0, 0, -9), Kind: "file", Name: hostile, Path: "/mnt/box/" + hostile, Size: 312_000,
			Modified: noon.AddDate(-3, 0, 0), Mode: 0o600},
		{Device: nasID, DeviceName: "nas", Online: true, Current: true, Kind: "link", Name: "latest", Path: "/srv/photos/latest", Target: "2026\n\xfe", Mode: 0o777},
	}
}

func (f *fake) List(_ context.Context, q node.ListQuery) (node.Listing, error) {
	if err := f.did("list " + q.Device + " " + q.Path); err != nil {
		return node.Listing{}, err
	}
	l := node.Listing{Now: noon, Device: q.Device, DeviceName: "nas", Online: true, AsOf: noon, Current: true, Path: q.Path}
	switch {
	case strings.HasSuffix(q.Path, "/empty"):
	case strings.Contains(q.Path, "missing"):
		return node.Listing{}, &node.Problem{Code: node.CodeNotFound, Message: "the catalogue has no /missing", Cause: "no location of nas holds it", Try: "peer locations"}
	case strings.HasSuffix(q.Path, "/behind"): // connected, and known to lack something
		l.Entries, l.AsOf, l.Current = entries()[1:2], noon.Add(-time.Hour), false
	case strings.HasSuffix(q.Path, "/asked"):
		l.Entries, l.Online, l.AsOf, l.Current = entries()[1:2], false, noon.Add(-time.Hour), false
		l.Asked = &askedOf()[0]
	case q.After == "": // two pages
		l.Entries, l.More = entries()[:2], true
	default:
		l.Entries = entries()[2:]
	}
	if q.Device == atticID {
		l.DeviceName, l.Online, l.AsOf, l.Current = hostile, false, noon.AddDate(0, 0, -9), false
	}
	return l, nil
}

// copies are entries of which some have one content, with tags.
func copies() []node.Entry {
	all := entries()
	one := strings.Repeat("9f2c41d8", 8)
	return []node.Entry{
		{Device: laptopID, DeviceName: "laptop", Online: true, AsOf: noon, Current: true, Kind: "file", Name: "tax.pdf", Path: "/home/mia/tax.pdf", ID: strings.Repeat("ab", 16),
			Size: 1_200_000, Mode: 0o644, Modified: noon.AddDate(-1, 0, 0), Hash: one, Tags: []string{"tax", hostile}, Note: "paid\n" + hostile, ContentNote: "of all copies\n" + hostile},
		{Device: laptopID, DeviceName: "laptop", Online: true, AsOf: noon, Current: true, Kind: "file", Name: "tax (1).pdf", Path: "/home/mia/Downloads/tax (1).pdf",
			Size: 1_200_000, Mode: 0o644, Modified: noon.AddDate(-1, 0, 0), Hash: one, Tags: []string{"tax"}},
		{Device: atticID, DeviceName: hostile, AsOf: noon.AddDate(0, 0, -9), Kind: "file", Name: "tax.pdf", Path: "/mnt/box/" + hostile, Size: 1_200_000,
			Modified: noon.AddDate(-1, 0, 0), Mode: 0o600, Hash: one},
		all[0],
		all[1],
	}
}

func (f *fake) Where(_ context.Context, q node.WhereQuery) (node.Whereabouts, error) {
	if err := f.did("where is " + q.Device + " " + q.Path + q.Hash + q.Entry); err != nil {
		return node.Whereabouts{}, err
	}
	switch {
	case strings.Contains(q.Path, "missing"), strings.HasSuffix(q.Path, "/9f2c41d8"):
		return node.Whereabouts{}, &node.Problem{Code: node.CodeNotFound, Message: "nothing is catalogued at /missing", Cause: "no location holds it", Try: "peer locations"}
	case strings.HasSuffix(q.Path, "beach.jpg"):
		return node.Whereabouts{Now: noon, Why: "no other file has its size, so that there is no copy of it", Unique: true, Places: entries()[:1], On: 1}, nil
	}
	all := copies()[:3]
	if strings.HasSuffix(q.Path, "/asked") {
		return node.Whereabouts{Now: noon, Hash: all[0].Hash, Places: all, On: 2, Asked: askedOf(), Partial: true}, nil
	}
	return node.Whereabouts{Now: noon, Hash: all[0].Hash, Places: all, On: 2}, nil
}

func (f *fake) Info(_ context.Context, q node.WhereQuery) (node.Info, error) {
	if err := f.did("info of " + q.Device + " " + q.Path + q.Entry); err != nil {
		return node.Info{}, err
	}
	if strings.HasSuffix(q.Path, "beach.jpg") {
		return node.Info{Now: noon, Entry: entries()[0], LocationName: "Pictures", Why: "its device has not read it; 3 files have its size"}, nil
	}
	if q.Device == atticID {
		return node.Info{Now: noon, Entry: entries()[2], LocationName: hostile, Lost: true, Why: "it is empty"}, nil
	}
	return node.Info{Now: noon, Entry: copies()[0], LocationName: "home", Copies: 3, On: 2}, nil
}

// askedOf are locations that are not kept here: one was answered for, one not.
func askedOf() []node.Asked {
	return []node.Asked{
		{Location: strings.Repeat("5d", 16), Name: "photos", Device: nasID, DeviceName: "nas", Via: atticID, ViaName: hostile, Seq: 48_000, AsOf: noon.Add(-time.Hour), More: true},
		{Location: strings.Repeat("6c", 16), Name: hostile, Device: atticID, DeviceName: hostile, Problem: "no device that holds it is connected: " + hostile},
	}
}

func (f *fake) Find(ctx context.Context, q node.FindQuery, fn func(node.Entry) error) (node.FindResult, error) {
	did := "find " + q.Text + " sorted by " + q.Sort + " on " + strings.Join(q.Device, ",") + " tagged " + strings.Join(q.Tag, ",")
	if q.Reverse {
		did += " reversed"
	}
	for _, name := range slices.Sorted(maps.Keys(q.Names)) {
		did += fmt.Sprintf(", %q is %s", name, q.Names[name])
	}
	if err := f.did(did); err != nil {
		return node.FindResult{}, err
	}
	devices, _ := f.Devices(ctx)
	res := node.FindResult{Now: noon, Took: metrics.Seconds(14 * time.Millisecond), Devices: devices}
	if q.Text == "nothing" {
		return res, nil
	}
	if strings.HasPrefix(q.Text, "asked") {
		res.Asked, res.Partial = askedOf(), true
		for i, asked := range res.Asked {
			res.Asked[i].Cut = asked.More && q.Limit == 0
		}
		if q.Text == "asked nothing" {
			return res, nil
		}
	}
	found := entries()
	if q.Text == "behind" {
		stale := func(current *bool, asOf *time.Time) { *current, *asOf = false, noon.Add(-time.Hour) }
		stale(&found[1].Current, &found[1].AsOf)
		for i := range res.Devices {
			if d := &res.Devices[i]; d.ID == nasID {
				stale(&d.Current, &d.AsOf)
			}
		}
	}
	if strings.HasPrefix(q.Text, "copies") {
		found = copies()
	}
	for i, e := range found {
		if i == 0 || e.Hash == "" || e.Hash != found[i-1].Hash {
			if q.Limit > 0 && res.Files == uint64(q.Limit) {
				res.More = true
				break
			}
			res.Files++
		}
		if err := fn(e); err != nil {
			return res, err
		}
		res.Found++
	}
	if q.Text == "breaks" {
		return res, errors.New("read feed: checksum mismatch")
	}
	return res, nil
}

func (f *fake) Invite(_ context.Context, req node.InviteRequest) (node.InviteView, error) {
	if err := f.did("invite"); err != nil {
		return node.InviteView{}, err
	}
	ttl := req.TTL.Duration()
	if ttl == 0 {
		ttl = 10 * time.Minute
	}
	return node.InviteView{Line: goodAddr + "#k7f3-9qxe", Addrs: []string{goodAddr}, Expires: noon.Add(ttl), Uses: max(1, req.Uses)}, nil
}

func (f *fake) Join(_ context.Context, req node.JoinRequest, fn func(node.JoinProgress)) error {
	if err := f.did("join " + strings.Join(req.Addrs, ",") + " secret " + req.Secret); err != nil {
		return err
	}
	fn(node.JoinProgress{Stage: "dialing", Address: req.Addrs[0]})
	if req.Secret == "" {
		fn(node.JoinProgress{Stage: "waiting", Address: req.Addrs[0], Digits: "402913", Approve: "peer devices approve 402913"})
	}
	fn(node.JoinProgress{Stage: "connected", Device: "nas", Address: req.Addrs[0], RTT: metrics.Seconds(3 * time.Millisecond)})
	fn(node.JoinProgress{Stage: "joined", Device: "nas", Renamed: &node.RenameView{From: "laptop", To: "laptop-2"}})
	fn(node.JoinProgress{Stage: "syncing", Device: "nas", Progress: node.Progress{Phase: "loading", Total: 217570}})
	fn(node.JoinProgress{Stage: "syncing", Device: "nas", Progress: node.Progress{Done: 217570, Total: 217570}})
	fn(node.JoinProgress{Stage: "in_step", Device: "nas", Progress: node.Progress{Done: 217570, Total: 217570}, Met: []string{"nanopi", hostile}})
	return nil
}

func (f *fake) Requests(context.Context) ([]node.RequestView, error) { return nil, nil }

func (f *fake) ExportSnapshot(_ context.Context, path string) (node.SnapshotView, error) {
	if err := f.did("export " + filepath.Base(path)); err != nil {
		return node.SnapshotView{}, err
	}
	return node.SnapshotView{
		File: "/media/" + hostile, Feeds: 5, Records: 48210, Bytes: 3_100_000, Made: noon, Donor: nasID, Took: metrics.Seconds(2 * time.Second),
		Missing: []node.MissingFeed{
			{Device: nasID, DeviceName: hostile, Location: "02", Name: hostile, Fetch: "lazy", Lacks: 23_031},
			{Device: nasID, DeviceName: "nas", Location: "01", Name: "docs", Fetch: "eager", Behind: true, Lacks: 1},
			{Device: nasID, DeviceName: "nas", Fetch: "eager"},
		},
	}, nil
}

func (f *fake) ImportSnapshot(_ context.Context, path string, fn func(node.Progress)) (node.SnapshotView, error) {
	if err := f.did("import " + filepath.Base(path)); err != nil {
		return node.SnapshotView{}, err
	}
	fn(node.Progress{Phase: "loading", Done: 1000, Total: 48210})
	v := node.SnapshotView{Missing: []node.MissingFeed{}, File: "/media/" + hostile, Feeds: 1, Records: 48210, Held: 1, Bytes: 3_100_000, Made: noon, Donor: nasID, Took: metrics.Seconds(time.Second)}
	if filepath.Base(path) == "known" {
		v.Feeds, v.Records, v.Held = 0, 0, 2
		v.Missing = []node.MissingFeed{
			{Device: nasID, DeviceName: hostile, Location: "02", Name: hostile, Fetch: "lazy", Lacks: 23_031, InFile: true},
			{Device: nasID, DeviceName: "nas", Location: "01", Name: "docs", Fetch: "eager", Behind: true, Lacks: 1},
			{Device: nasID, DeviceName: "nas", Location: "03", Name: "music", Fetch: "eager", InFile: true},
			{Device: nasID, DeviceName: "nas", Location: "04", Name: "video", Fetch: "eager"},
		}
	}
	return v, nil
}

func (f *fake) Refused(string, node.Code) {}

func (f *fake) Stop(context.Context) (node.StopResult, error) {
	if err := f.did("stop"); err != nil {
		return node.StopResult{}, err
	}
	f.stopped()
	return node.StopResult{PID: f.pid, Started: noon.Add(-9254 * time.Second), Now: noon}, nil
}

func (f *fake) SyncStatus(ctx context.Context) (node.SyncStatus, error) {
	devices, _ := f.Devices(ctx)
	st := node.SyncStatus{Now: noon, State: node.StateBackfilling, Reason: "first sync", Since: noon.Add(-16 * time.Second),
		Queues: node.QueueView{Apply: 1204}, Devices: devices[1:]}
	if !f.empty {
		st.Sessions = []node.SessionView{{ID: "0199a4d2-1111-7222-8333-444455556666", Kind: "backfill", Device: nasID, Name: "nas",
			Started: noon.Add(-16 * time.Second), Why: "it is online, complete, 2 ms away", Strategy: "snapshot",
			Progress: node.Progress{Phase: "loading", Done: 134893, Total: 217570, Bytes: 9_100_000, TotalBytes: 14_700_000, Rate: 8430.8, ETASeconds: 9.8}}}
		st.Serving = []node.SessionView{{ID: "0199a4d3-1111-7222-8333-444455556666", Kind: "serving", Device: nasID, Name: "nas", Strategy: "pages",
			Started: noon.Add(-time.Second), Progress: node.Progress{Phase: "loading", Done: 1, Total: 1}}}
	}
	return st, nil
}

func (f *fake) Pause(_ context.Context, device string, d time.Duration) (node.PauseView, error) {
	if err := f.did("pause " + device + " " + d.String()); err != nil {
		return node.PauseView{}, err
	}
	switch {
	case device != "":
		return node.PauseView{Now: noon, Devices: []string{"nas"}}, nil
	case d > 0:
		return node.PauseView{Now: noon, Paused: true, Until: noon.Add(d)}, nil
	}
	return node.PauseView{Now: noon, Paused: true}, nil
}

func (f *fake) Resume(_ context.Context, device string) (node.PauseView, error) {
	return node.PauseView{Now: noon}, f.did("resume " + device)
}

func (f *fake) SyncNow(ctx context.Context, device string, fn func(node.Progress)) (node.NowView, error) {
	if err := f.did("now " + device); err != nil {
		return node.NowView{}, err
	}
	fn(node.Progress{Phase: "loading", Done: 500, Total: 2000, Rate: 100, ETASeconds: 15})
	devices, _ := f.Devices(ctx)
	v := node.NowView{Now: noon}
	for _, d := range devices[1:] {
		if device == "" || device == d.ID {
			v.Devices = append(v.Devices, d)
		}
	}
	return v, nil
}

func (f *fake) Metrics(context.Context) (metrics.Snapshot, error) {
	m := metrics.New(metrics.Config{Device: "7KQ2-XMDL", Now: func() time.Time { return noon.Add(-2 * time.Hour) }})
	m.DeviceKnown("7KQ2-XMDL", "laptop", "linux", "0.1.0")
	m.DeviceKnown("3F9D-PQ7A", "nas", "linux", "0.1.0")
	m.DeviceKnown("K0VN-22EJ", hostile, "linux", "0.1.0")
	m.StateEntered(node.StateBackfilling, "first sync", noon.Add(-90*time.Minute))
	m.StateEntered(node.StateReady, "buffer drained", noon.Add(-60*time.Minute))
	m.BroadcastSent("state", 1)
	m.BroadcastSent("shared", 54)
	m.BroadcastFailed("3F9D-PQ7A", "timeout")
	m.ChangesReceived("3F9D-PQ7A", "live", 2410)
	m.ChangesReceived("3F9D-PQ7A", "catch_up", 157)
	m.ChangesProcessed("3F9D-PQ7A", "applied", 2549)
	m.ChangesProcessed("3F9D-PQ7A", "duplicate", 13)
	m.ChangesProcessed("3F9D-PQ7A", "rejected", 5)
	m.ChangesRejected("schema", 5)
	m.RecordsSynced("entry", "insert", 2500, noon)
	m.RecordsSynced("location", "update", 49, noon)
	m.BytesSent("3F9D-PQ7A", 45_200_000)
	m.BytesReceived("3F9D-PQ7A", 127_800_000)
	m.Applied(12 * time.Millisecond)
	m.Propagated("live", 600*time.Millisecond)
	m.Online("3F9D-PQ7A", true)
	m.LastSeen("3F9D-PQ7A", noon)
	m.LastSeen("K0VN-22EJ", noon.AddDate(0, 0, -9))
	m.Lag("3F9D-PQ7A", 12, 313)
	m.ClockOffset("3F9D-PQ7A", -95*time.Second)
	m.Error("network", "3F9D-PQ7A", "send "+hostile, noon.Add(-15*time.Minute))
	return m.Snapshot(noon), nil
}

// eventLog is what the event log holds, oldest first.
func eventLog() []eventlog.Event {
	session, err := eventlog.ParseID("0199a4d2-1111-7222-8333-444455556666")
	if err != nil {
		panic(err)
	}
	var out []eventlog.Event
	add := func(ago time.Duration, t eventlog.Type, severity eventlog.Severity, peer, summary, details string, id eventlog.ID) {
		at := noon.Add(-ago)
		out = append(out, eventlog.Event{DeviceID: laptopID, Seq: uint64(len(out) + 1), Timestamp: at, HLC: hlc.At(at), BootID: "b1", Type: t,
			Category: t.Category(), Severity: severity, Summary: summary, Details: json.RawMessage(details), CorrelationID: id,
			PeerDeviceID: peer, SchemaVersion: 1})
	}
	add(3*time.Hour, "node_started", eventlog.Info, "", "peer 0.1.0 started", `{}`, eventlog.ID{})
	add(90*time.Minute, "peer_connected", eventlog.Info, nasID, "via lan, quic-v1, 2ms", `{"path":"lan"}`, eventlog.ID{})
	add(89*time.Minute, "catch_up_session_started", eventlog.Debug, nasID, "3F9D-PQ7A/5d5d5d5d · 41 changes behind, by 3F9D-PQ7A, 4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e", `{"behind":41}`, session)
	add(88*time.Minute, "change_rejected", eventlog.Warning, atticID, "refused "+hostile, `{"reason":"schema"}`, session)
	return out
}

func (f *fake) Events(_ context.Context, q eventlog.Query) ([]eventlog.Event, eventlog.Cursor, error) {
	f.mu.Lock()
	all := append(eventLog(), f.more...)
	f.mu.Unlock()
	if q.Desc {
		slices.Reverse(all)
	}
	limit := min(q.Limit, 2) // small pages, so that turning them shows
	out := []eventlog.Event{}
	passed := q.Cursor == eventlog.Cursor{}
	for _, e := range all {
		if !passed {
			passed = eventlog.After(e) == q.Cursor
			continue
		}
		if !q.Matches(e) {
			continue
		}
		if len(out) == limit {
			return out, eventlog.After(out[limit-1]), nil
		}
		out = append(out, e)
	}
	return out, eventlog.Cursor{}, nil
}

func (f *fake) WatchEvents() (<-chan struct{}, func()) { return f.wake, func() {} }

// happen logs one more event.
func (f *fake) happen(summary string) {
	f.mu.Lock()
	f.more = append(f.more, eventlog.Event{DeviceID: laptopID, Seq: uint64(5 + len(f.more)), Timestamp: noon, HLC: hlc.At(noon) + hlc.Stamp(len(f.more)),
		Type: "node_stopped", Category: eventlog.Lifecycle, Severity: eventlog.Info, Summary: summary, Details: json.RawMessage("{}"), SchemaVersion: 1})
	f.mu.Unlock()
	f.wake <- struct{}{}
}

// join logs that a device has joined.
func (f *fake) join(id, name string) {
	details, err := json.Marshal(eventlog.DeviceJoined{Name: name})
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	f.more = append(f.more, eventlog.Event{DeviceID: laptopID, Seq: uint64(5 + len(f.more)), Timestamp: noon, HLC: hlc.At(noon) + hlc.Stamp(len(f.more)),
		Type: "device_joined", Category: eventlog.DeviceJoined{}.Type().Category(), Severity: eventlog.Info, PeerDeviceID: id,
		Details: details, SchemaVersion: 1})
	f.mu.Unlock()
	f.wake <- struct{}{}
}

// daemon's part of fake, for start.
func (f *fake) Run(ctx context.Context) error {
	<-ctx.Done()
	f.did("ended")
	return nil
}

func (f *fake) Close() error {
	f.did("closed")
	return nil
}

// bench is a command line in front of a fake daemon on a real socket.
type bench struct {
	t        *testing.T
	home     string
	fake     *fake
	in       string
	env      map[string]string
	width    int  // of stdout
	ewidth   int  // of stderr
	terminal bool // whether stdin is one
	open     opener
	cancel   func()
}

// newBench starts the daemon. The home lies in a short path of its own: sockets have short names.
func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchOf(t, func(f *fake) api.Backend { return f })
}

// newBenchOf is newBench with a backend made of the fake one.
func newBenchOf(t *testing.T, backend func(*fake) api.Backend) *bench {
	t.Helper()
	b := newHome(t)
	l, err := api.Listen(t.Context(), filepath.Join(b.home, "peer.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Server{Listener: l, Backend: backend(b.fake)}.Run(ctx) }()
	b.cancel = cancel
	b.fake.stopped = cancel
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return b
}

// newHome is newBench without a daemon.
func newHome(t *testing.T) *bench {
	t.Helper()
	home, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	return &bench{t: t, home: home, fake: &fake{pid: 1 << 30, wake: make(chan struct{}, 1)}, env: map[string]string{"LANG": "C.UTF-8", "HOME": "/home/mia"}}
}

func (b *bench) app(out, err *bytes.Buffer) *app {
	return &app{
		in: strings.NewReader(b.in), out: out, err: err,
		env: func(name string) string {
			if name == "PEER_HOME" {
				return b.home
			}
			return b.env[name]
		},
		now:      func() time.Time { return noon },
		zone:     time.UTC,
		outWidth: b.width, errWidth: b.ewidth, inTerminal: b.terminal,
		open: b.open,
	}
}

// run runs one command line and returns its exit code and what it printed.
func (b *bench) run(args ...string) (code int, stdout, stderr string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, err bytes.Buffer
	code = b.app(&out, &err).main(ctx, args)
	return code, out.String(), err.String()
}
