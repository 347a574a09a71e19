package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerdex/eventlog"
	"peerdex/hlc"
	"peerdex/record"
)

// wall is a clock that is off.
type wall struct{ off atomic.Int64 }

func (w *wall) now() time.Time        { return time.Now().Add(time.Duration(w.off.Load())) }
func (w *wall) set(off time.Duration) { w.off.Store(int64(off)) }

// tag puts a tag on what lies at a path of a device.
func (r *running) tag(of *running, path, tag string, remove bool) (EditView, error) {
	r.tb.Helper()
	return r.ChangeTags(r.tb.Context(), TagRequest{Tags: []string{tag}, Remove: remove,
		Targets: Targets{Paths: []PathRef{{Device: idText(of.self), Path: path}}}})
}

func (r *running) mustTag(of *running, path, tag string, remove bool) EditView {
	r.tb.Helper()
	v, err := r.tag(of, path, tag, remove)
	if err != nil {
		r.tb.Fatal(err)
	}
	return v
}

// marks returns the tags and the note that what lies at a path shows.
func (r *running) marks(of *running, path string) string {
	r.tb.Helper()
	v, err := r.Note(r.tb.Context(), PathRef{Device: idText(of.self), Path: path})
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, t := range v.Tags {
		out = append(out, t.Name)
	}
	return strings.Join(append(out, v.Note), " ")
}

func (r *running) note(of *running, path, text string) EditView {
	r.tb.Helper()
	v, err := r.SetNote(r.tb.Context(), NoteRequest{Text: text, Targets: Targets{Paths: []PathRef{{Device: idText(of.self), Path: path}}}})
	if err != nil {
		r.tb.Fatal(err)
	}
	return v
}

func wantProblem(tb testing.TB, what string, err error, code Code) {
	tb.Helper()
	var p *Problem
	if !errors.As(err, &p) || p.Code != code || p.Cause == "" || p.Try == "" {
		tb.Errorf("%s: %v, want %s with a cause and what to do", what, err, code)
	}
}

// What is put on a content shows on every file with it, on every device, and follows no name: a file that is
// changed shows it no more.
func TestTagOnContent(t *testing.T) {
	a, b, _, folder, _ := pair(t)
	one := filepath.Join(folder, "one")
	away := t.TempDir()
	touch(t, away, "two")
	if err := os.WriteFile(filepath.Join(away, "copy"), []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.index(away)
	await(t, "b's files at a", func() bool { return a.marks(b, filepath.Join(away, "copy")) == "" })
	v, err := a.ChangeTags(t.Context(), TagRequest{Tags: []string{"keep"}, Targets: Targets{Content: true, Paths: []PathRef{{Path: one}}}})
	if err != nil || v.Changed != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	for _, n := range []*running{a, b} {
		await(t, "the tag on both copies at "+n.name(), func() bool {
			return n.marks(a, one) == "keep " && n.marks(b, filepath.Join(away, "copy")) == "keep "
		})
		if got := n.marks(b, filepath.Join(away, "two")); got != "" {
			t.Errorf("another content shows %q", got)
		}
	}
	if v := b.mustTag(b, filepath.Join(away, "copy"), "keep", true); v.Changed != 0 || v.Still != 1 {
		t.Errorf("taken from a file that has it through its content: %+v", v)
	}
	tags, err := b.Tags(t.Context(), true)
	if err != nil || tags[slices.IndexFunc(tags, func(v TagView) bool { return v.Name == "keep" })].Entries == nil || *tags[slices.IndexFunc(tags, func(v TagView) bool { return v.Name == "keep" })].Entries != 2 {
		t.Errorf("tags %+v, %v", tags, err)
	}
	if err := os.WriteFile(one, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the changed file shows it no more", func() bool { return b.marks(a, one) == "" && b.marks(b, filepath.Join(away, "copy")) == "keep " })
}

// A first edit makes the tag, a second one uses it; what cannot be done changes nothing and says why.
func TestChangeTags(t *testing.T) {
	a, b, _, folder, loc := pair(t)
	one := filepath.Join(folder, "one")
	if err := errors.Join(os.Mkdir(filepath.Join(folder, "sub"), 0o700), os.WriteFile(filepath.Join(folder, "empty"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	await(t, "all at b", func() bool { return len(b.names(a.self, loc)) == 3 })
	v := a.mustTag(a, one, "Family", false)
	if v.Targets != 1 || v.Changed != 1 || len(v.Written) != 3 || !slices.Equal(v.Reached, []string{"b"}) || len(v.Pending)+len(v.Away) != 0 {
		t.Errorf("tagged: %+v", v)
	}
	if again := b.mustTag(a, one, "family", false); again.Changed != 0 || len(again.Written) != 0 || again.Tags[0].ID != v.Tags[0].ID {
		t.Errorf("tagged again: %+v", again)
	}
	before, _ := a.store.State(locationFeed(a.self, record.LocationID{}))
	refused := func(what string, code Code, err error) {
		t.Helper()
		wantProblem(t, what, err, code)
		if after, _ := a.store.State(locationFeed(a.self, record.LocationID{})); *after.Settled != *before.Settled {
			t.Errorf("%s wrote something", what)
		}
	}
	ctx := t.Context()
	only := func(_ EditView, err error) error { return err }
	refused("a path that is not there", CodeNotFound, only(a.tag(a, filepath.Join(folder, "none"), "x", false)))
	refused("a location", CodeUsage, only(a.tag(a, folder, "x", false)))
	refused("a tag that is not there", CodeUnknownTag, only(a.tag(a, one, "nosuch", true)))
	content := func(n *running, path string) error {
		_, err := n.ChangeTags(ctx, TagRequest{Tags: []string{"x"}, Targets: Targets{Content: true, Paths: []PathRef{{Device: idText(a.self), Path: path}}}})
		return err
	}
	refused("a content not read", CodeConflict, content(b, one))
	refused("a content of a folder", CodeUsage, content(a, filepath.Join(folder, "sub")))
	refused("an empty content", CodeUsage, content(a, filepath.Join(folder, "empty")))
	query := func(text string, paths ...PathRef) error {
		_, err := a.ChangeTags(ctx, TagRequest{Tags: []string{"x"}, Targets: Targets{Query: text, Paths: paths}})
		return err
	}
	refused("a query that is none", CodeBadQuery, query("size:"))
	refused("a query that finds nothing", CodeNotFound, query("nosuch"))
	refused("a query by a tag that is not there", CodeUnknownTag, query("tag:nosuch"))
	refused("a query and a path", CodeUsage, query("one", PathRef{Path: one}))
	refused("no path", CodeUsage, only(a.ChangeTags(ctx, TagRequest{Tags: []string{"x"}})))
	refused("no tag", CodeUsage, only(a.ChangeTags(ctx, TagRequest{Targets: Targets{Paths: []PathRef{{Path: one}}}})))
	for _, name := range []string{"", "#x", " x", "x ", "a/b", "a,b", `a"b`, "a\nb", "a\x1b[2J", "a\u202eb", "\xff", "deadbeef", strings.Repeat("x", record.MaxLabel+1)} {
		refused(fmt.Sprintf("a tag called %q", name), CodeUsage, only(a.tag(a, one, name, false)))
	}
	refused("one good path of two", CodeNotFound, only(a.ChangeTags(ctx, TagRequest{Tags: []string{"x"}, Targets: Targets{Paths: []PathRef{{Path: one}, {Path: one + "?"}}}})))
	refused("a note too long", CodeUsage, only(a.SetNote(ctx, NoteRequest{Text: strings.Repeat("x", record.MaxValue+1), Targets: Targets{Paths: []PathRef{{Path: one}}}})))
	refused("a note that is no text", CodeUsage, only(a.SetNote(ctx, NoteRequest{Text: "\xff", Targets: Targets{Paths: []PathRef{{Path: one}}}})))
	refused("a built-in tag renamed", CodeConflict, only(a.RenameTag(ctx, RenameRequest{Tag: "later", To: "soon"})))
	refused("a built-in tag deleted", CodeConflict, only(a.DeleteTag(ctx, "later")))
	refused("renamed onto another", CodeConflict, only(a.RenameTag(ctx, RenameRequest{Tag: "family", To: "LATER"})))
	refused("renamed to nothing", CodeUsage, only(a.RenameTag(ctx, RenameRequest{Tag: "family", To: ""})))
	refused("merged with itself", CodeUsage, only(a.RenameTag(ctx, RenameRequest{Tag: "family", To: "Family", Merge: true})))
	refused("merged with nothing", CodeUnknownTag, only(a.RenameTag(ctx, RenameRequest{Tag: "family", To: "nosuch", Merge: true})))

	a.note(a, one, "seen from the boat")
	await(t, "tag and note at b", func() bool { return b.marks(a, one) == "Family seen from the boat" })
	if v, err := b.RenameTag(ctx, RenameRequest{Tag: "family", To: "family"}); err != nil || v.Tags[0].Name != "family" {
		t.Errorf("renamed: %+v, %v", v, err)
	}
	b.mustTag(a, one, v.Tags[0].ID[:idDigits], true)
	await(t, "taken away at a", func() bool { return a.marks(a, one) == "seen from the boat" })
	a.note(a, one, "")
	if v := a.note(a, one, ""); v.Changed != 0 || a.marks(a, one) != "" {
		t.Errorf("removed twice: %+v, %q", v, a.marks(a, one))
	}
	a.awaitEvent(eventlog.TagsChanged{})
}

// Two devices make a tag of one name apart: it is two, which nobody can name but by their ids, until they are
// made one. What was put on either then shows that one.
func TestTagsOfOneName(t *testing.T) {
	a, b, _, folder, _ := pair(t)
	one, two := filepath.Join(folder, "one"), filepath.Join(folder, "two")
	touch(t, folder, "two")
	await(t, "the file at b", func() bool { return b.marks(a, two) == "" })
	for _, n := range []*running{a, b} {
		if _, err := n.Pause(t.Context(), "", 0); err != nil {
			t.Fatal(err)
		}
	}
	first, second := a.mustTag(a, one, "beach", false), b.mustTag(a, two, "Beach", false)
	if !slices.Equal(first.Away, []string{"b"}) || len(first.Reached) != 0 {
		t.Errorf("paused, but: %+v", first)
	}
	for _, n := range []*running{a, b} {
		if _, err := n.Resume(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "both in step", func() bool { return inStep(a, b)() && b.marks(a, one) == "beach " && a.marks(a, two) == "Beach " })
	_, err := a.tag(a, two, "beach", false)
	wantProblem(t, "two tags of one name", err, CodeConflict)
	for _, id := range []string{first.Tags[0].ID, second.Tags[0].ID} {
		if !strings.Contains(err.Error(), id[:idDigits]) {
			t.Errorf("%v does not list %s", err, id)
		}
	}
	if _, err := b.RenameTag(t.Context(), RenameRequest{Tag: second.Tags[0].ID, To: first.Tags[0].ID[:idDigits], Merge: true}); err != nil {
		t.Fatal(err)
	}
	await(t, "one tag everywhere", func() bool {
		return a.marks(a, two) == "beach " && b.marks(a, two) == "beach " && a.marks(a, one) == "beach "
	})
	if v := a.mustTag(a, one, second.Tags[0].ID, false); v.Changed != 0 || v.Tags[0].ID != first.Tags[0].ID || v.Tags[0].Entries != nil {
		t.Errorf("by the id of the one that was merged away: %+v", v)
	}
	if v := a.mustTag(a, two, "beach", true); v.Changed != 1 || a.marks(a, two) != "" {
		t.Errorf("taken away under its new name: %+v, %q", v, a.marks(a, two))
	}
	tags, err := a.Tags(t.Context(), true)
	if err != nil || len(tags) != len(first.Tags)+3 || tags[0].Name != "beach" || *tags[0].Entries != 1 {
		t.Errorf("tags %+v, %v", tags, err)
	}
}

// Clocks that differ by minutes, and one that steps back: whoever has seen an edit writes over it.
func TestEditsUnderSkew(t *testing.T) {
	var clocks [3]wall
	for i, off := range []time.Duration{0, 2 * time.Minute, -2 * time.Minute} {
		clocks[i].set(off)
	}
	folder := t.TempDir()
	touch(t, folder, "one")
	one := filepath.Join(folder, "one")
	var nodes [3]*running
	for i := range nodes {
		name := string(rune('a' + i))
		nodes[i] = startBy(t, filepath.Join(t.TempDir(), name), name, clocks[i].now)
		if i == 0 {
			nodes[0].index(folder)
			continue
		}
		nodes[i].joins(nodes[0])
	}
	a := nodes[0]
	await(t, "all in step", inStep(nodes[:]...))
	var last hlc.Stamp
	for round, n := range []int{1, 2, 0, 1, 2, 1, 0, 2} {
		text := fmt.Sprint("edit ", round)
		if round == 3 {
			clocks[1].set(-time.Minute)
		}
		v := nodes[n].note(a, one, text)
		stamp, err := hlc.Parse(v.Written[0].Stamp)
		if err != nil || stamp <= last {
			t.Fatalf("edit %d has stamp %v after %v, %v", round, stamp, last, err)
		}
		last = stamp
		await(t, text+" everywhere", func() bool {
			return !slices.ContainsFunc(nodes[:], func(r *running) bool { return r.marks(a, one) != text })
		})
	}
	for _, n := range nodes {
		if c := n.logged(eventlog.ConflictResolved{}.Type()); len(c) != 0 {
			t.Errorf("%s has a conflict: %s", n.name(), c[0].Details)
		}
	}
}

// A device whose clock is an hour ahead of the others' may not edit while it sees them. What it wrote alone is
// kept and passed on, wins where it is believed, and everywhere once its time has come.
func TestImplausibleClock(t *testing.T) {
	a, b, _, folder, _ := pair(t)
	one := filepath.Join(folder, "one")
	var clocks [2]wall
	homeA, homeB := string(a.home), string(b.home)
	a.stop()
	b.stop()
	clocks[1].set(time.Hour)
	b = startBy(t, homeB, "b", clocks[1].now)
	b.note(a, one, "from the future")
	a = startBy(t, homeA, "a", clocks[0].now)
	await(t, "connected", func() bool { return connected(a, b)() && connected(b, a)() })
	await(t, "in step", inStep(a, b))
	if got := a.marks(a, one); got != "" {
		t.Errorf("a shows %q, an hour early", got)
	}
	_, err := b.tag(a, one, "x", false)
	wantProblem(t, "an edit by a clock an hour ahead", err, CodeClock)
	if !strings.Contains(err.Error(), "ahead of") || !strings.Contains(err.Error(), "1h0m0s") {
		t.Errorf("the refusal does not say by how much: %v", err)
	}
	if _, err := a.tag(a, one, "x", false); err != nil { // two devices: neither can know who is right
		wantProblem(t, "an edit beside a clock an hour ahead", err, CodeClock)
	}
	b.stop()
	a.note(a, one, "now")
	if got := a.marks(a, one); got != "now" {
		t.Errorf("a shows %q", got)
	}
	var conflict eventlog.ConflictResolved
	await(t, "one conflict at a", func() bool {
		all := a.logged(conflict.Type())
		return len(all) == 1 && json.Unmarshal(all[0].Details, &conflict) == nil
	})
	if conflict.Winner.Device != b.self.Short() || conflict.Loser.Device != a.self.Short() || conflict.Model != "note" || conflict.Rule != "hlc" || conflict.Winner.Value != "from the future" || conflict.Loser.Value != "now" || conflict.Entry == "" {
		t.Errorf("the conflict is %+v", conflict)
	}
	clocks[0].set(time.Hour)
	if got := a.marks(a, one); got != "from the future" {
		t.Errorf("an hour later a shows %q", got)
	}
	// b's clock is set right: it can say nothing that anybody would believe until it has caught up
	clocks[0].set(0)
	clocks[1].set(0)
	b = startBy(t, homeB, "b", clocks[1].now)
	await(t, "connected again", func() bool { return connected(a, b)() && connected(b, a)() && inStep(a, b)() })
	if x, y := a.marks(a, one), b.marks(a, one); x != "now" || y != "now" {
		t.Errorf("with both clocks right, a shows %q and b %q", x, y)
	}
	_, err = b.tag(a, one, "x", false)
	wantProblem(t, "an edit by stamps an hour ahead", err, CodeClock)
}

func TestImplausible(t *testing.T) {
	const h = time.Hour
	for _, c := range []struct {
		offsets []time.Duration
		median  time.Duration
	}{
		{nil, 0}, {[]time.Duration{h}, h}, {[]time.Duration{0, h}, 0}, {[]time.Duration{-h, 0}, 0}, {[]time.Duration{h, -h, h}, h},
		{[]time.Duration{h, 0, 0}, 0}, {[]time.Duration{-2 * h, -h}, -h}, {[]time.Duration{h, h, 0, 0}, 0}, {[]time.Duration{hlc.MaxDrift}, hlc.MaxDrift},
	} {
		median, bad := implausible(c.offsets)
		if median != c.median || bad != (c.median.Abs() > hlc.MaxDrift) {
			t.Errorf("%v: %v, %v", c.offsets, median, bad)
		}
	}
}

// Edits made by many at once on one device: none is lost, and a tag made by several of them is one.
func TestEditsAtOnce(t *testing.T) {
	home, folder := filepath.Join(t.TempDir(), "a"), t.TempDir()
	a := start(t, home, "a")
	for i := range 20 {
		touch(t, folder, fmt.Sprint(i))
	}
	a.index(folder)
	done := make(chan error)
	for i := range 20 {
		go func() {
			_, err := a.ChangeTags(context.Background(), TagRequest{Tags: []string{"new"}, Targets: Targets{Paths: []PathRef{{Path: filepath.Join(folder, fmt.Sprint(i))}}}})
			done <- err
		}()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	tags, err := a.Tags(t.Context(), true)
	i := slices.IndexFunc(tags, func(v TagView) bool { return v.Name == "new" })
	if err != nil || len(tags) != 4 || i < 0 || *tags[i].Entries != 20 {
		t.Errorf("tags %+v, %v", tags, err)
	}
}
