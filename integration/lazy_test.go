package integration

import (
	"path/filepath"
	"slices"
	"testing"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/node"
)

// fetchOf returns what a device says of a location of another.
func (p *peer) fetchOf(where string) (v node.LocationView) {
	p.t.Helper()
	p.ask(&v, "locations", "show", where)
	return v
}

// A device indexes 12,000 files while another follows it by head only: that one is told, keeps none of the
// entries, and has ls, find, where and info answered by the owner, with the time. With the owner off it says what
// it cannot know. Then it fetches the location whole, gives it up again, and nothing is left in its catalogue.
func TestLazyLocationOfMany(t *testing.T) {
	t.Parallel()
	const most = 12_000
	dir, own := tempDir(t), tempDir(t)
	write(t, filepath.Join(dir, "first"), "1")
	write(t, filepath.Join(own, "mine"), "2")
	a, b := two(t, []string{dir}, []string{own})
	where := "alpha:" + filepath.Base(dir)
	b.ask(&node.LocationView{}, "locations", "set", where, "--fetch", "lazy")

	wide := tempDir(t)
	fill(t, wide, most)
	scan := a.add(wide)
	many := "alpha:" + scan.Location.Name
	b.ask(&node.LocationView{}, "locations", "set", many, "--fetch", "lazy")
	var decided eventlog.BulkIndexDecided
	eventually(t, "the large scan is announced", func() string {
		es := b.events(api.EventQuery{Types: []string{string(decided.Type())}})
		if len(es) == 0 {
			return "no event"
		}
		decided = detail[eventlog.BulkIndexDecided](t, es[0])
		return ""
	})
	if decided.EntryCount < most || decided.Bytes < most*50 {
		t.Errorf("announced: %+v", decided)
	}
	eventually(t, "its head is known", func() string {
		if v := b.fetchOf(many); v.Fetch != "lazy" || v.Files != 0 || v.Entries < most {
			return "not yet"
		}
		return ""
	})

	var l node.Listing
	b.ask(&l, "ls", "alpha:"+wide)
	var here node.Listing
	a.ask(&here, "ls", wide)
	if len(l.Entries) != len(here.Entries) || l.Asked == nil || l.Asked.ViaName != "alpha" || l.AsOf.IsZero() {
		t.Errorf("ls: %d entries, %d on the owner; %+v", len(l.Entries), len(here.Entries), l.Asked)
	}
	file := firstFile(t, a, wide)
	var found struct {
		Entries []node.Entry
		node.FindResult
	}
	b.ask(&found, "find", file.Name)
	if !slices.ContainsFunc(found.Entries, func(e node.Entry) bool { return e.Path == file.Path && e.Via == "alpha" }) || found.Partial {
		t.Errorf("find: %+v", found)
	}
	var places node.Whereabouts
	b.ask(&places, "where", "alpha:"+file.Path)
	if len(places.Places) == 0 || places.Places[0].Path != file.Path || places.Partial {
		t.Errorf("where: %+v", places)
	}
	var info node.Info
	b.ask(&info, "info", "alpha:"+file.Path)
	if info.Entry.ID != file.ID || info.Entry.Size != file.Size {
		t.Errorf("info: %+v", info)
	}
	if st := b.status(); st.State != node.StateReady {
		t.Errorf("state %s: %s", st.State, st.Reason)
	}

	a.stop()
	eventually(t, "the owner is away", func() string {
		if d, _ := b.other("alpha"); d.Online {
			return "still there"
		}
		return ""
	})
	if code, p := b.problem("ls", "alpha:"+wide); code != 8 || p.Code != node.CodeUnreachable {
		t.Errorf("ls with nobody there: exit %d, %+v", code, p)
	}
	if got := b.run("find", "mine"); got.code != 6 || got.stdout == "" {
		t.Errorf("find with nobody there: exit %d, %s", got.code, got.stdout)
	}
	if got := b.run("find", "mine", "--on", "beta"); got.code != 0 {
		t.Errorf("find on this device: exit %d", got.code)
	}
	if code, p := b.problem("find", "mine", "--on", "alpha"); code != 8 || p.Code != node.CodeUnreachable {
		t.Errorf("find where nobody is: exit %d, %+v", code, p)
	}

	a.start("")
	b.ask(&node.LocationView{}, "locations", "set", many, "--fetch", "eager")
	b.ask(&node.LocationView{}, "locations", "set", where, "--fetch", "eager")
	inStep(t, a, b)
	if v := b.fetchOf(many); v.Files < most {
		t.Errorf("fetched whole: %+v", v)
	}
	b.ask(&node.LocationView{}, "locations", "set", many, "--fetch", "lazy")
	b.ask(&found, "find", "on:beta mine")
	if len(found.Entries) != 1 {
		t.Errorf("find: %+v", found)
	}
	if v := b.fetchOf(many); v.Files != 0 || v.Entries < most {
		t.Errorf("given up: %+v", v)
	}
	var plan node.PlanView
	b.ask(&plan, "sync", "plan", "--device", "alpha")
	if !slices.ContainsFunc(plan.Feeds, func(f node.FeedPlan) bool { return f.Decision == node.DecideOnDemand && f.Name == scan.Location.Name }) {
		t.Errorf("plan: %+v", plan)
	}
}

// firstFile returns a file somewhere below a folder of a device.
func firstFile(t *testing.T, p *peer, dir string) node.Entry {
	t.Helper()
	var l node.Listing
	p.ask(&l, "ls", dir)
	for _, e := range l.Entries {
		if e.Kind == "file" {
			return e
		}
	}
	if len(l.Entries) == 0 {
		t.Fatalf("nothing lies in %s", dir)
	}
	return firstFile(t, p, l.Entries[0].Path)
}
