package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/record"
	"peerdex/store"
)

// pauseAll pauses sync on each node; resumeAll undoes that.
func pauseAll(t *testing.T, nodes ...*running) {
	t.Helper()
	for _, n := range nodes {
		if _, err := n.Pause(t.Context(), "", 0); err != nil {
			t.Fatal(err)
		}
	}
}

func resumeAll(t *testing.T, nodes ...*running) {
	t.Helper()
	for _, n := range nodes {
		if _, err := n.Resume(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *running) conflicts() (out []eventlog.ConflictResolved) {
	r.tb.Helper()
	for _, e := range r.logged(eventlog.ConflictResolved{}.Type()) {
		var d eventlog.ConflictResolved
		if err := json.Unmarshal(e.Details, &d); err != nil {
			r.tb.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

// A tag is deleted on one device while it is renamed on another: it is gone on both, and on a third, and each
// has logged, once, who wanted it to be called what.
func TestDeletedBesideRenamed(t *testing.T) {
	a, b, _, folder, _ := pair(t)
	one := filepath.Join(folder, "one")
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	c.joins(a)
	a.mustTag(a, one, "first", false)
	await(t, "the tag everywhere", func() bool { return b.marks(a, one) == "first " && c.marks(a, one) == "first " })
	await(t, "in step", inStep(a, b, c))
	pauseAll(t, a, b)
	if _, err := a.DeleteTag(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.RenameTag(t.Context(), RenameRequest{Tag: "first", To: "better"}); err != nil {
		t.Fatal(err)
	}
	resumeAll(t, a, b)
	for _, n := range []*running{a, b, c} {
		await(t, "the conflict at "+n.name(), func() bool { return len(n.conflicts()) == 1 })
		e := n.conflicts()[0]
		if e.Rule != "delete" || e.Field != "name" || e.Model != "tag" || e.Tag == "" || e.Loser.Value != "better" || e.Winner.Value != "" ||
			e.Winner.Device != a.self.Short() || e.Loser.Device != b.self.Short() || n.marks(a, one) != "" {
			t.Errorf("%s shows %q after %+v", n.name(), n.marks(a, one), e)
		}
		await(t, "one counted at "+n.name(), func() bool {
			got := n.metrics.Snapshot(time.Now()).Errors.Conflicts
			return got.Total == 1 && got.By["delete"] == 1
		})
	}
}

// The text that lost in a conflict over a note can be had from the event, and the file by the id in it.
func TestLostNote(t *testing.T) {
	a, b, _, folder, _ := pair(t)
	one := filepath.Join(folder, "one")
	pauseAll(t, a, b)
	a.note(a, one, "by a")
	b.note(a, one, "by b")
	resumeAll(t, a, b)
	for _, n := range []*running{a, b} {
		await(t, "the conflict at "+n.name(), func() bool { return len(n.conflicts()) == 1 })
		e := n.conflicts()[0]
		if e.Winner.Value != "by b" || e.Loser.Value != "by a" || e.Device != a.self.Short() {
			t.Errorf("%s: %+v", n.name(), e)
		}
		v, err := n.Info(t.Context(), WhereQuery{Entry: e.Entry})
		if err != nil || v.Entry.Path != one || v.Entry.Location != e.Location || v.Entry.Note != "by b" {
			t.Errorf("%s: the file of the conflict is %+v, %v", n.name(), v.Entry, err)
		}
	}
}

// D8: what was edited while a device was away comes when it is back, by what the other tells it then: it asks
// for nothing but the feed with the edits.
func TestD8EditsOfWhileAway(t *testing.T) {
	a, b, _, folder, _ := pair(t)
	one, home := filepath.Join(folder, "one"), string(b.home)
	b.stop()
	a.mustTag(a, one, "first", false)
	a.note(a, one, "text")
	b = start(t, home, "b")
	await(t, "both edits", func() bool { return b.marks(a, one) == "first text" })
	for _, e := range b.logged(eventlog.StrategySelected{}.Type()) {
		var d eventlog.StrategySelected
		if err := json.Unmarshal(e.Details, &d); err != nil {
			t.Fatal(err)
		}
		if e.Timestamp.After(b.opened()) && (d.Strategy != "delta" || d.Feed != feed.ID{Device: a.self}.String()) {
			t.Errorf("asked for %+v", d)
		}
	}
}

// opened is when the node last started.
func (r *running) opened() time.Time {
	all := r.logged(eventlog.NodeStarted{}.Type())
	return all[len(all)-1].Timestamp
}

// S1: two devices use built-in tags before they meet: that is no conflict, and each is one tag.
func TestS1BuiltInTags(t *testing.T) {
	a, b := start(t, filepath.Join(t.TempDir(), "a"), "a"), start(t, filepath.Join(t.TempDir(), "b"), "b")
	for _, n := range []*running{a, b} {
		folder := t.TempDir()
		touch(t, folder, "one")
		n.index(folder)
		n.mustTag(n, filepath.Join(folder, "one"), "favorite", false)
		n.mustTag(n, filepath.Join(folder, "one"), "later", false)
	}
	b.joins(a)
	for _, n := range []*running{a, b} {
		var got string
		await(t, "every tag twice at "+n.name(), func() bool {
			tags, err := n.Tags(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			got = ""
			for _, v := range tags {
				got += fmt.Sprint(v.Name, " ", *v.Entries, " ")
			}
			return got == "favorite 2 important 0 later 2 "
		})
		if c := n.conflicts(); len(c) != 0 {
			t.Errorf("%s has conflicts: %+v", n.name(), c)
		}
	}
}

// D11: the tags of files that are not there yet are kept, and shown as soon as the files are.
func TestD11TagsBeforeFiles(t *testing.T) {
	a, b, _, _, _ := pair(t)
	home := string(b.home)
	b.stop()
	folder := t.TempDir()
	touch(t, folder, "one")
	touch(t, folder, "two")
	loc := a.index(folder)
	paths := []string{filepath.Join(folder, "one"), filepath.Join(folder, "two")}
	for _, p := range paths {
		a.mustTag(a, p, "early", false)
	}
	n, err := Open(Config{Home: home, Name: "b", Version: "test", Listen: loopback()})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	late := &running{Node: n, tb: t}
	names, err := n.catalog.Follow() // as Run does
	if err != nil {
		t.Fatal(err)
	}
	if err := names(t.Context()); err != nil {
		t.Fatal(err)
	}
	count := func() uint64 {
		tags, err := n.Tags(t.Context(), true)
		i := slices.IndexFunc(tags, func(v TagView) bool { return v.Name == "early" })
		if err != nil || i < 0 {
			t.Fatalf("no tag: %+v, %v", tags, err)
		}
		return *tags[i].Entries
	}
	late.apply(a, feed.ID{Device: a.self})
	if got := count(); got != 0 {
		t.Errorf("on %d files that are not there", got)
	}
	late.apply(a, locationFeed(a.self, loc))
	if got := count(); got != 2 {
		t.Errorf("on %d files, want 2", got)
	}
	for _, p := range paths {
		if got := late.marks(a, p); got != "early " {
			t.Errorf("%s shows %q", p, got)
		}
	}
}

// apply brings a feed to where it is at another node, whatever else is lacking.
func (r *running) apply(from *running, id feed.ID) {
	r.tb.Helper()
	at, _ := r.store.State(id)
	seq := uint64(0)
	if at.Settled != nil {
		seq = at.Settled.Seq
	}
	v, err := from.store.Serve(id)
	if err != nil {
		r.tb.Fatal(err)
	}
	defer v.Close()
	st, _ := from.store.State(id)
	c := store.Change{Feed: id, Settle: st.Settled}
	err = v.After(seq, func(e feed.Entry) error { c.Entries = append(c.Entries, e); return nil })
	if err == nil {
		_, err = r.store.Apply(c)
	}
	if err != nil {
		r.tb.Fatal(err)
	}
}

// N2: a third device holds edits older than the newest that anybody has seen: they still arrive.
func TestN2OlderThanTheNewest(t *testing.T) {
	a, b, _, folder, _ := pair(t)
	one, two := filepath.Join(folder, "one"), filepath.Join(folder, "two")
	touch(t, folder, "two")
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	c.joins(b)
	await(t, "the file at c", func() bool { return c.marks(a, two) == "" })
	pauseAll(t, c)
	old := c.note(a, one, "older")
	c.mustTag(a, two, "older", false)
	fresh := a.note(a, two, "newer")
	await(t, "the newer at b", func() bool { return b.marks(a, two) == "newer" })
	if fresh.Written[0].Stamp <= old.Written[0].Stamp {
		t.Fatalf("%s is not older than %s", old.Written[0].Stamp, fresh.Written[0].Stamp)
	}
	resumeAll(t, c)
	for _, n := range []*running{a, b, c} {
		await(t, "all at "+n.name(), func() bool { return n.marks(a, one) == "older" && n.marks(a, two) == "older newer" })
	}
}

// N1: of four devices one has a clock an hour ahead, one an hour behind, and one steps back: all come to hold the
// same files. The two may not edit; the others' edits keep their order; when an hour has passed and the clocks are
// right, all edit again.
func TestN1ClocksAnHourApart(t *testing.T) {
	var clocks [4]wall
	var nodes [4]*running
	var homes, folders [4]string
	for i := range nodes {
		name := string(rune('a' + i))
		homes[i], folders[i] = filepath.Join(t.TempDir(), name), t.TempDir()
		nodes[i] = startBy(t, homes[i], name, clocks[i].now)
		if i > 0 {
			nodes[i].joins(nodes[0])
		}
	}
	await(t, "all in step", inStep(nodes[:]...))
	for i, off := range map[int]time.Duration{1: time.Hour, 2: -time.Hour} {
		nodes[i].stop()
		clocks[i].set(off)
		nodes[i] = startBy(t, homes[i], nodes[i].label, clocks[i].now)
	}
	a, d := nodes[0], nodes[3]
	var locs [4]record.LocationID
	for i, n := range nodes {
		touch(t, folders[i], "one")
		locs[i] = n.index(folders[i])
	}
	sameFiles := func() bool {
		for i, owner := range nodes {
			for _, n := range nodes {
				if !slices.Equal(n.names(owner.self, locs[i]), owner.names(owner.self, locs[i])) || len(n.names(owner.self, locs[i])) == 0 {
					return false
				}
			}
		}
		return true
	}
	await(t, "the same files everywhere", sameFiles)
	everyone := func() bool {
		for _, n := range nodes {
			if len(n.clockOffsets()) != 3 {
				return false
			}
		}
		return true
	}
	await(t, "all know each other's clocks", everyone)
	one := filepath.Join(folders[0], "one")
	for _, n := range nodes[1:3] {
		_, err := n.tag(a, one, "x", false)
		wantProblem(t, "an edit by "+n.name(), err, CodeClock)
	}
	a.note(a, one, "first")
	await(t, "the first edit at d", func() bool { return d.marks(a, one) == "first" })
	clocks[3].set(-time.Minute)
	d.note(a, one, "second")
	await(t, "the second at a", func() bool { return a.marks(a, one) == "second" })
	a.note(a, one, "third")
	await(t, "the third at d", func() bool { return d.marks(a, one) == "third" })
	if err := os.Remove(filepath.Join(folders[2], "one")); err != nil {
		t.Fatal(err)
	}
	touch(t, folders[2], "two")
	await(t, "files go on to travel", func() bool {
		return slices.Equal(a.names(nodes[2].self, locs[2]), []string{"two"}) && sameFiles()
	})
	for i := range nodes {
		nodes[i].stop()
	}
	for i := range nodes {
		clocks[i].set(time.Hour)
		nodes[i] = startBy(t, homes[i], nodes[i].label, clocks[i].now)
	}
	a = nodes[0]
	await(t, "all meet again", everyone)
	for i, n := range nodes {
		text := fmt.Sprint("again ", i)
		n.note(a, one, text)
		for _, o := range nodes {
			await(t, text+" at "+o.name(), func() bool { return o.marks(a, one) == text })
		}
	}
	for _, n := range nodes {
		if c := n.conflicts(); len(c) != 0 {
			t.Errorf("%s has conflicts: %+v", n.name(), c)
		}
	}
}
