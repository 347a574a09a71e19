package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerdex/catalog"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/metrics"
	"peerdex/protocol"
	"peerdex/protocol/protocoltest"
	"peerdex/query"
	"peerdex/record"
)

// put writes a file of a size below a folder.
func put(tb testing.TB, size int, path ...string) {
	tb.Helper()
	whole := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(whole), 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(whole, make([]byte, size), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// foundBy returns the names that a search finds, in order, and what came of it.
func (r *running) foundBy(q FindQuery) ([]string, FindResult, error) {
	var names []string
	res, err := r.Find(r.tb.Context(), q, func(e Entry) error {
		names = append(names, e.Name)
		return nil
	})
	return names, res, err
}

// A lazy location is listed, searched and looked into by asking; what was answered is marked with who said so and
// as of when, comes in order with what is known here, and is not kept. When nobody can be asked that is said.
func TestAskOnDemand(t *testing.T) {
	folder, own := t.TempDir(), t.TempDir()
	put(t, 10, folder, "apple")
	put(t, 3000, folder, "sub", "cherry")
	put(t, 3000, folder, "sub", "cherry copy")
	put(t, 77, folder, "zebra")
	put(t, 20, own, "banana")
	put(t, 3000, own, "my cherry")
	home := filepath.Join(t.TempDir(), "a")
	a := start(t, home, "a")
	loc := a.index(folder)
	b := start(t, filepath.Join(t.TempDir(), "b"), "b")
	b.index(own)
	b.joins(a)
	await(t, "both in step", inStep(a, b))
	await(t, "the twins are read", func() bool {
		names, _, err := b.foundBy(FindQuery{Text: "cherry size:3000"})
		w, werr := b.Where(t.Context(), WhereQuery{Path: filepath.Join(own, "my cherry")})
		return err == nil && werr == nil && len(names) == 3 && w.Hash != "" && len(w.Places) == 3
	})
	id := locationFeed(a.self, loc)
	b.setFetch(a, loc, FetchLazy)

	l, err := b.List(t.Context(), ListQuery{Device: idText(a.self), Path: folder})
	if err != nil || len(l.Entries) != 3 || l.Entries[0].Name != "apple" || l.Entries[1].Path != filepath.Join(folder, "sub") || l.Entries[0].Via != "a" {
		t.Errorf("ls: %+v, %v", l, err)
	}
	st, _ := b.store.State(id)
	if l.Asked == nil || l.Asked.Via != idText(a.self) || l.Asked.Seq != st.Best.Seq || time.Since(l.AsOf) > patience || !l.AsOf.After(st.Best.Stamp.Time()) {
		t.Errorf("ls was answered by %+v", l.Asked)
	}
	l, err = b.List(t.Context(), ListQuery{Device: idText(a.self), Path: filepath.Join(folder, "sub"), After: "cherry", Limit: 1})
	if err != nil || len(l.Entries) != 1 || l.Entries[0].Name != "cherry copy" || l.More {
		t.Errorf("a page of ls: %+v, %v", l, err)
	}
	if l, err = b.List(t.Context(), ListQuery{Device: idText(a.self), Path: folder, Limit: 2}); err != nil || len(l.Entries) != 2 || !l.More {
		t.Errorf("the first page of ls: %+v, %v", l, err)
	}
	if l, err = b.List(t.Context(), ListQuery{Device: idText(a.self), Path: filepath.Join(folder, "zebra")}); err != nil || len(l.Entries) != 1 || l.Entries[0].Size != 77 {
		t.Errorf("ls of a file: %+v, %v", l, err)
	}
	var p *Problem
	if _, err = b.List(t.Context(), ListQuery{Device: idText(a.self), Path: filepath.Join(folder, "none")}); !errors.As(err, &p) || p.Code != CodeNotFound || !strings.Contains(p.Cause, "says a") {
		t.Errorf("ls of nothing: %v", err)
	}

	for text, want := range map[string][]string{
		"":                           {"apple", "banana", "cherry", "cherry copy", "my cherry", "sub", "zebra"},
		"size:3000":                  {"cherry", "cherry copy", "my cherry"},
		"!cherry !sub":               {"apple", "banana", "zebra"},
		"on:" + idText(b.self):       {"banana", "my cherry"},
		"apple on:" + idText(a.self): {"apple"},
		"path:sub/ !copy":            {"cherry"},
	} {
		names, res, err := b.foundBy(FindQuery{Text: text, Sort: "name"})
		if files := uint64(len(names)); text == "" {
			if res.Files != files-2 || res.Found != files {
				t.Errorf("%d files in %d places: copies are not together", res.Files, res.Found)
			}
		}
		if err != nil || !slices.Equal(names, want) || res.Partial {
			t.Errorf("find %q: %q, want %q; %+v, %v", text, names, want, res, err)
		}
	}
	if names, res, err := b.foundBy(FindQuery{Sort: "size", Limit: 2}); err != nil || len(names) != 4 || res.Files != 2 || !res.More || names[2] != "my cherry" || names[3] != "zebra" {
		t.Errorf("the two largest: %q, %+v, %v", names, res, err)
	}
	w, err := b.Where(t.Context(), WhereQuery{Path: filepath.Join(own, "my cherry")})
	if err != nil || len(w.Places) != 3 || w.Partial || w.Places[0].Via != "" || w.Places[1].Via != "a" || w.Hash == "" {
		t.Errorf("where: %+v, %v", w, err)
	}
	if again, err := b.Where(t.Context(), WhereQuery{Hash: w.Hash[:12]}); err != nil || len(again.Places) != 3 {
		t.Errorf("where by hash: %+v, %v", again, err)
	}
	if w, err = b.Where(t.Context(), WhereQuery{Device: idText(a.self), Path: filepath.Join(folder, "zebra")}); err != nil || !w.Unique || len(w.Places) != 1 {
		t.Errorf("where of one of its kind: %+v, %v", w, err)
	}
	i, err := b.Info(t.Context(), WhereQuery{Device: idText(a.self), Path: filepath.Join(folder, "sub", "cherry")})
	if err != nil || i.Entry.Size != 3000 || i.Copies != 3 || i.On != 2 || i.Entry.Via != "a" {
		t.Errorf("info: %+v, %v", i, err)
	}
	if byID, err := b.Info(t.Context(), WhereQuery{Entry: i.Entry.ID}); err != nil || byID.Entry.Path != i.Entry.Path {
		t.Errorf("info by id: %+v, %v", byID, err)
	}
	if _, err := b.SetNote(t.Context(), NoteRequest{Targets: Targets{Paths: []PathRef{{idText(a.self), filepath.Join(folder, "zebra")}}}, Text: "x"}); !errors.As(err, &p) || p.Code != CodeConflict {
		t.Errorf("note: %v", err)
	}
	a.note(a, filepath.Join(folder, "zebra"), "stripes")
	a.mustTag(a, filepath.Join(folder, "zebra"), "herd", false)
	await(t, "the note of what is not kept", func() bool { return b.marks(a, filepath.Join(folder, "zebra")) == "herd stripes" })
	left := []string{"a:" + filepath.Base(folder)}
	if v, err := b.ChangeTags(t.Context(), TagRequest{Tags: []string{"red"}, Targets: Targets{Query: "size:3000"}}); err != nil || v.Targets != 1 || !slices.Equal(v.LeftOut, left) {
		t.Errorf("a tag by a query: %+v, %v", v, err)
	}
	if _, err := b.ChangeTags(t.Context(), TagRequest{Tags: []string{"red"}, Targets: Targets{Query: "zebra"}}); !errors.As(err, &p) || p.Code != CodeNotFound || !strings.Contains(p.Cause, left[0]) {
		t.Errorf("a tag by a query that nothing kept here fits: %v", err)
	}
	if v, err := b.ChangeTags(t.Context(), TagRequest{Tags: []string{"red"}, Targets: Targets{Query: "banana on:" + idText(b.self), Names: map[string]string{idText(b.self): idText(b.self)}}}); err != nil || v.LeftOut != nil {
		t.Errorf("a tag by a query for B alone: %+v, %v", v, err)
	}
	if st, _ := b.store.State(id); holdsAny(st) {
		t.Errorf("answers were kept: %+v", st)
	}
	b.awaitEvent(&eventlog.LookedUp{})
	a.awaitEvent(&eventlog.LookupAnswered{})
	if s := b.Node.metrics.Snapshot(time.Now()).Operations; s.LookupsAsked.By["answered"] == 0 || s.LookupsAsked.By["failed"] > 0 {
		t.Errorf("questions: %+v", s.LookupsAsked)
	}
	if s := a.Node.metrics.Snapshot(time.Now()).Operations; s.LookupsAnswered.By["answered"] == 0 {
		t.Errorf("answers: %+v", s.LookupsAnswered)
	}

	a.setPause(nil, time.Time{})
	if _, err = b.List(t.Context(), ListQuery{Device: idText(a.self), Path: folder}); !errors.As(err, &p) || p.Code != CodeUnreachable || !strings.Contains(p.Cause, "paused") {
		t.Errorf("ls while the other is paused: %v", err)
	}
	a.stop()
	await(t, "B notices", func() bool { return !connected(b, a)() })
	if _, err = b.List(t.Context(), ListQuery{Device: idText(a.self), Path: folder}); !errors.As(err, &p) || p.Code != CodeUnreachable {
		t.Errorf("ls with nobody there: %v", err)
	}
	if names, res, err := b.foundBy(FindQuery{Sort: "name"}); err != nil || !res.Partial || !slices.Equal(names, []string{"banana", "my cherry"}) || len(res.Asked) != 1 || res.Asked[0].Problem == "" {
		t.Errorf("find with nobody there: %q, %+v, %v", names, res, err)
	}
	if _, res, err := b.foundBy(FindQuery{Device: []string{idText(b.self)}}); err != nil || res.Partial {
		t.Errorf("find on this device alone: %+v, %v", res, err)
	}
	if _, _, err := b.foundBy(FindQuery{Device: []string{idText(a.self)}}); !errors.As(err, &p) || p.Code != CodeUnreachable {
		t.Errorf("find where nobody is: %v", err)
	}
	if w, err := b.Where(t.Context(), WhereQuery{Path: filepath.Join(own, "my cherry")}); err != nil || !w.Partial || len(w.Places) != 1 {
		t.Errorf("where with nobody there: %+v, %v", w, err)
	}
}

// A third device that holds the location answers while the owner is away.
func TestAskAnother(t *testing.T) {
	a, b, _, folder, loc := pair(t)
	c := start(t, filepath.Join(t.TempDir(), "c"), "c")
	c.joins(a)
	await(t, "all in step", inStep(a, b, c))
	await(t, "B and C meet", connected(b, c))
	b.setFetch(a, loc, FetchLazy)
	await(t, "B knows that C holds it", func() bool { return slices.Contains(b.holders(locationFeed(a.self, loc)), c.self) })
	b.mu.Lock()
	b.peers[a.self].failedPull = time.Now() // the other is elected before it
	b.mu.Unlock()
	if got := b.holders(locationFeed(a.self, loc)); !slices.Equal(got, []record.DeviceID{a.self, c.self}) {
		t.Errorf("of the two that hold the same %v are asked, not the owner first", got)
	}
	a.stop()
	await(t, "B notices", func() bool { return !connected(b, a)() })
	st, _ := c.store.State(locationFeed(a.self, loc))
	l, err := b.List(t.Context(), ListQuery{Device: idText(a.self), Path: folder})
	if err != nil || len(l.Entries) != 1 || l.Entries[0].Name != "one" || l.Online || l.Asked == nil || l.Asked.ViaName != "c" || !l.AsOf.Equal(st.Settled.Stamp.Time()) {
		t.Errorf("%+v, %v", l, err)
	}
}

// A search of everything in a lazy location of more entries than can be asked for at once is not whole, and says so;
// one that names how much it wants is. What is known of a file from all those of its size is not whole either.
func TestAskForTooMuch(t *testing.T) {
	a, b, _, folder, loc := pair(t)
	b.setFetch(a, loc, FetchLazy)
	if _, err := a.SetHashing(t.Context(), loc.String(), string(catalog.HashNone)); err != nil {
		t.Fatal(err)
	}
	for i := range MostAsked + 1 {
		touch(t, folder, fmt.Sprintf("%05d", i))
	}
	await(t, "word of all files", b.toldOf(a, loc, MostAsked+2))
	for limit, cut := range map[int]bool{0: true, 1: false, MostAsked: false, MostAsked + 1: true} {
		_, res, err := b.foundBy(FindQuery{Limit: limit})
		want := uint64(MostAsked)
		if limit == 1 {
			want = 1
		}
		if err != nil || res.Files != want || !res.More || res.Partial != cut || len(res.Asked) != 1 || res.Asked[0].Cut != cut {
			t.Errorf("at most %d: %d files, asked of %+v, partial %v, %v", limit, res.Files, res.Asked, res.Partial, err)
		}
	}
	if _, res, err := b.foundBy(FindQuery{Text: "one"}); err != nil || res.Files != 1 || res.Partial || res.More {
		t.Errorf("one: %+v, %v", res, err)
	}
	for name, cut := range map[string]bool{"one": false, "00000": true} {
		q := WhereQuery{Device: idText(a.self), Path: filepath.Join(folder, name)}
		w, err := b.Where(t.Context(), q)
		if err != nil || len(w.Places) != 1 || w.Partial != cut || w.Unique == cut || len(w.Asked) != 1 || w.Asked[0].Cut != cut {
			t.Errorf("where is %s: %+v, %v", name, w, err)
		}
		i, err := b.Info(t.Context(), q)
		if err != nil || i.Partial != cut || i.Why != w.Why {
			t.Errorf("info of %s: %+v, %v", name, i, err)
		}
		if want := "its device has not read it; at least 10,000 files have its size"; cut && w.Why != want {
			t.Errorf("%q, want %q", w.Why, want)
		}
	}
}

// What a device answers is believed only as far as it keeps to the question.
func TestConverse(t *testing.T) {
	a, b, _, _, loc := pair(t)
	id := locationFeed(a.self, loc)
	st, _ := b.store.State(id)
	other, _ := b.store.State(feed.ID{Device: a.self})
	l := catalog.Location{Owner: a.self, ID: loc, Path: "/there"}
	hit := func(name string) protocol.Hit {
		f := record.File{ID: record.EntryID{1, byte(len(name))}, Kind: record.Regular, Name: name}
		return protocol.Hit{Key: f.Key(), Record: f.Append(nil)}
	}
	in := func(folder string, h protocol.Hit) protocol.Hit { h.Folder = folder; return h }
	lookup := &protocol.Lookup{Session: protocol.SessionID{1}, Feed: id, After: "a", Limit: 2}
	search := &protocol.Search{Session: protocol.SessionID{1}, Feed: id, Query: query.Query{}.Append(nil), Limit: 2}
	head := *st.Settled
	forged := head
	forged.Seq++
	for what, c := range map[string]struct {
		q    protocol.Message
		f    []*protocol.Found
		want protocol.Code // 0: believed
		n    int
	}{
		"a folder":                 {lookup, []*protocol.Found{{Head: head, Last: true, Hits: []protocol.Hit{hit("b"), hit("cc")}}}, 0, 2},
		"hits":                     {search, []*protocol.Found{{Head: head, Hits: []protocol.Hit{in("x/y", hit("b"))}}, {Head: head, Last: true, Hits: []protocol.Hit{hit("cc")}}}, 0, 2},
		"a record of a newer kind": {search, []*protocol.Found{{Head: head, Last: true, Hits: []protocol.Hit{{Key: []byte{1}, Record: []byte{250, 1}}}}}, 0, 0},
		"names that fall":          {lookup, []*protocol.Found{{Head: head, Last: true, Hits: []protocol.Hit{hit("cc"), hit("b")}}}, protocol.CodeMalformed, 0},
		"a name from before":       {lookup, []*protocol.Found{{Head: head, Last: true, Hits: []protocol.Hit{hit("a")}}}, protocol.CodeMalformed, 0},
		"more than was asked for":  {lookup, []*protocol.Found{{Head: head, Last: true, Hits: []protocol.Hit{hit("b"), hit("cc"), hit("ddd")}}}, protocol.CodeMalformed, 0},
		"nothing, and more":        {search, []*protocol.Found{{Head: head}}, protocol.CodeMalformed, 0},
		"two heads":                {search, []*protocol.Found{{Head: head, Hits: []protocol.Hit{hit("b")}}, {Head: forged, Last: true}}, protocol.CodeMalformed, 0},
		"a forged head":            {search, []*protocol.Found{{Head: forged, Last: true}}, protocol.CodeMismatch, 0},
		"another feed":             {search, []*protocol.Found{{Head: *other.Settled, Last: true}}, protocol.CodeMalformed, 0},
		"a path out of it":         {search, []*protocol.Found{{Head: head, Last: true, Hits: []protocol.Hit{in("x/../..", hit("b"))}}}, protocol.CodeMalformed, 0},
	} {
		near, end := toldBy(t, c.f)
		got := answer{loc: l}
		err := b.converse(near, c.q, &got)
		if protocol.CodeOf(err) != c.want || err == nil && len(got.items) != c.n {
			t.Errorf("%s: %d items, %v", what, len(got.items), err)
		}
		end()
	}
}

// toldBy is a stream on which some answers wait.
func toldBy(tb testing.TB, found []*protocol.Found) (near *protocol.Conn, end func()) {
	tb.Helper()
	here, there := protocoltest.Pipe()
	far := protocol.NewConn(there, protocol.ConnConfig{Protocol: protocol.LookupProtocol})
	for _, f := range found {
		if err := far.Send(f); err != nil {
			tb.Fatal(err)
		}
	}
	if err := far.Flush(); err != nil {
		tb.Fatal(err)
	}
	near = protocol.NewConn(here, protocol.ConnConfig{Protocol: protocol.LookupProtocol})
	return near, func() { near.End(nil); far.End(nil) }
}

// Questions that cannot be answered are refused with a code. Who finds a device busy asks again, for a while.
func TestAnsweringRefuses(t *testing.T) {
	a, b, _, _, loc := pair(t)
	id := locationFeed(a.self, loc)
	by := func(c *metrics.Counts) string { return fmt.Sprint(c.By) }
	answered := func() *metrics.Counts { return a.Node.metrics.Snapshot(time.Now()).Operations.LookupsAnswered }
	asked := func() *metrics.Counts { return b.Node.metrics.Snapshot(time.Now()).Operations.LookupsAsked }
	if got := b.lookUp(a, loc, locationFeed(a.self, record.LocationID{9})); !strings.Contains(got.Problem, protocol.CodeUnknownFeed.Error()) {
		t.Errorf("an unknown feed: %+v", got.Asked)
	}
	for range answerAtOnce {
		a.answers <- struct{}{}
	}
	if got, want := b.lookUp(a, loc, id), "a: "+protocol.CodeBusy.Error(); got.Problem != want {
		t.Errorf("%q, want %q", got.Problem, want)
	}
	before := asked().By["busy"]
	late := make(chan answer)
	go func() { late <- b.lookUp(a, loc, id) }()
	await(t, "it is busy", func() bool { return asked().By["busy"] > before })
	for range answerAtOnce {
		<-a.answers
	}
	if got := <-late; got.Problem != "" || len(got.items) != 1 || got.Via != idText(a.self) {
		t.Errorf("%+v", got)
	}
	if got := asked().By; before < 2 || got["answered"] != 1 || got["refused"] != 1 || got["failed"] != 0 {
		t.Errorf("put off %d times, then %v", before, got)
	}
	await(t, "both sides count the same", func() bool { return by(answered()) == by(asked()) })
	for _, side := range []struct {
		on   *running
		kind eventlog.Type
	}{{a, eventlog.LookupAnswered{}.Type()}, {b, eventlog.LookedUp{}.Type()}} {
		await(t, "the log tells of it", func() bool {
			told := map[string]uint64{"failed": 0}
			for _, e := range side.on.logged(side.kind) {
				for name, count := range details[eventlog.LookedUp](t, e).Outcomes {
					told[name] += uint64(count)
				}
			}
			return fmt.Sprint(told) == by(asked())
		})
	}
}

// lookUp asks about one feed as if it were a lazy location of a.
func (r *running) lookUp(a *running, loc record.LocationID, id feed.ID) answer {
	return r.ask(context.Background(), catalog.Location{Owner: a.self, ID: loc}, "lookup", func(s protocol.SessionID) protocol.Message {
		return &protocol.Lookup{Session: s, Feed: id, Limit: 1}
	})
}

// Who asks one question after the other is never put off, however fast.
func TestAskInTurn(t *testing.T) {
	a, b, _, _, loc := pair(t)
	const questions = 300
	for range questions {
		if got := b.lookUp(a, loc, locationFeed(a.self, loc)); got.Problem != "" || len(got.items) != 1 {
			t.Fatalf("%+v", got)
		}
	}
	for what, by := range map[string]map[string]uint64{
		"asked":    b.Node.metrics.Snapshot(time.Now()).Operations.LookupsAsked.By,
		"answered": a.Node.metrics.Snapshot(time.Now()).Operations.LookupsAnswered.By,
	} {
		if by["answered"] != questions || by["busy"]+by["refused"]+by["failed"] > 0 {
			t.Errorf("%s: %+v", what, by)
		}
	}
}
