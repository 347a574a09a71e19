package integration

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	corepeer "github.com/libp2p/go-libp2p/core/peer"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/feed"
	"peerdex/node"
	"peerdex/protocol"
	"peerdex/record"
)

// shows returns the tags that p shows in a folder of a device, by the paths of what has any.
func (p *peer) shows(device, folder string) map[string]string {
	p.t.Helper()
	l, err := p.client.List(p.t.Context(), node.ListQuery{Device: device, Path: folder, Limit: 10_000})
	out := map[string]string{}
	if err != nil {
		out["error"] = err.Error()
	}
	for _, e := range l.Entries {
		if len(e.Tags) > 0 {
			out[e.Name] = strings.Join(e.Tags, " ")
		}
	}
	return out
}

// awaitTags waits until each of the peers shows exactly these tags.
func awaitTags(t *testing.T, what, device, folder string, want map[string]string, peers ...*peer) {
	t.Helper()
	for _, p := range peers {
		eventually(t, what+" at "+p.name, func() string {
			if got := p.shows(device, folder); !maps.Equal(got, want) {
				return fmt.Sprintf("%v, want %v", got, want)
			}
			return ""
		})
	}
}

// tags returns the names of the tags that p lists, built-in ones aside.
func (p *peer) tags() (out []string) {
	p.t.Helper()
	all, err := p.client.Tags(p.t.Context(), true)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, tag := range all {
		if !tag.BuiltIn {
			out = append(out, fmt.Sprintf("%s %d", tag.Name, *tag.Entries))
		}
	}
	return out
}

// edit runs an edit by the command line.
func (p *peer) edit(args ...string) (v node.EditView) {
	p.t.Helper()
	p.ask(&v, args...)
	return v
}

func (p *peer) wantNote(device, path, want string) {
	p.t.Helper()
	eventually(p.t, "the note at "+p.name, func() string {
		v, err := p.client.Note(p.t.Context(), node.PathRef{Device: device, Path: path})
		if err != nil || v.Note != want {
			return fmt.Sprintf("%q, %v", v.Note, err)
		}
		return ""
	})
}

// D2, D4: three tags made before the devices ever meet and two after: the second shows all five, by name, on
// the files that have them (D11: though some came before the files did). D1: so it does the location. D7, D8:
// while it is away two edits are made: it returns and shows them, and exactly two records came for that. A
// tagged file and a tagged folder are moved: they keep their tags. A tag is deleted while the other is away.
func TestTagsTravel(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	fill(t, dir, 300)
	for _, f := range []string{"one", "two", "three", "sub/four"} {
		write(t, filepath.Join(dir, f), f)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	line := a.start("", dir).Invite.Line
	a.edit("tag", "add", "Family", at("one"), at("two"))
	a.edit("tag", "add", "lake,2019", at("one"), at("sub"))
	b.join(line)
	v := a.edit("tag", "add", "fourth", at("three"))
	if v.Changed != 1 || len(v.Pending)+len(v.Away)+len(v.Reached) != 1 {
		t.Errorf("%+v", v)
	}
	b.edit("tag", "add", "fifth,family", "alpha:"+at("three"))
	want := map[string]string{"one": "2019 Family lake", "two": "Family", "sub": "2019 lake", "three": "Family fifth fourth"}
	awaitTags(t, "all tags", "alpha", dir, want, a, b)
	for _, p := range []*peer{a, b} {
		if got, want := p.tags(), []string{"2019 2", "Family 3", "fifth 1", "fourth 1", "lake 2"}; !slices.Equal(got, want) {
			t.Errorf("%s lists %q, want %q", p.name, got, want)
		}
	}
	inStep(t, a, b)

	b.stop()
	if v := a.edit("tag", "remove", "lake", at("one")); !slices.Equal(v.Away, []string{"beta"}) {
		t.Errorf("with beta away: %+v", v)
	}
	a.edit("note", at("one"), "seen from the boat")
	b.start("")
	want["one"] = "2019 Family"
	awaitTags(t, "what was edited meanwhile", "alpha", dir, want, b)
	b.wantNote("alpha", at("one"), "seen from the boat")
	eventually(t, "exactly a tagging and a note", func() string {
		m := b.metrics()
		if m.Operations.Received.Total != 2 || m.Operations.Processed.By["applied"] != 2 || m.Volume.Records.By["tagging"] != 1 || m.Volume.Records.By["note"] != 1 {
			return fmt.Sprintf("received %v, processed %v, records %v", m.Operations.Received, m.Operations.Processed, m.Volume.Records)
		}
		return ""
	})

	if v := b.edit("tag", "add", "found", "--query", "on:alpha (two | four) !tag:fourth"); v.Targets != 2 || v.Changed != 2 {
		t.Errorf("tagged by a query: %+v", v)
	}
	want["two"] += " found"
	awaitTags(t, "tagged by a query", "alpha", dir, want, a, b)
	var hits struct {
		Entries []node.Entry `json:"entries"`
	}
	b.ask(&hits, "tag", "find", "family,found")
	if len(hits.Entries) != 1 || hits.Entries[0].Path != at("two") {
		t.Errorf("found by two tags: %+v", hits.Entries)
	}
	if err := errors.Join(os.Rename(at("one"), at("renamed")), os.Rename(at("sub"), at("moved"))); err != nil {
		t.Fatal(err)
	}
	want["renamed"], want["moved"] = want["one"], want["sub"]
	delete(want, "one")
	delete(want, "sub")
	awaitTags(t, "moved with their tags", "alpha", dir, want, a, b)
	b.wantNote("alpha", at("renamed"), "seen from the boat")

	b.stop()
	a.edit("tag", "delete", "2019")
	a.edit("tag", "rename", "family", "Kin")
	b.start("")
	want = map[string]string{"renamed": "Kin", "two": "found Kin", "moved": "lake", "three": "fifth fourth Kin"}
	awaitTags(t, "a tag deleted and one renamed", "alpha", dir, want, a, b)
	if code, p := b.problem("tag", "remove", "2019", "alpha:"+at("moved")); code != 5 || p.Code != node.CodeUnknownTag {
		t.Errorf("a deleted tag: exit %d, %+v", code, p)
	}
}

// D5: a chain: what the first tags comes to the third, which never meets it.
func TestD5TagsAlongAChain(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	write(t, filepath.Join(dir, "one"), "1")
	b := newPeer(t, "beta")
	line := b.start("", dir).Invite.Line
	a := newInner(t, node.Config{Name: "alpha", Listen: deaf})
	a.join(t, line)
	c := newInner(t, node.Config{Name: "gamma", Listen: deaf})
	c.join(t, b.invite())
	one := node.PathRef{Device: b.status().Devices[0].ID, Path: filepath.Join(dir, "one")}
	if _, err := a.ChangeTags(t.Context(), node.TagRequest{Tags: []string{"far"}, Targets: node.Targets{Paths: []node.PathRef{one}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "alpha's tag at gamma", func() string {
		if v, err := c.Note(t.Context(), one); err != nil || len(v.Tags) != 1 || v.Tags[0].Name != "far" {
			return fmt.Sprintf("%+v, %v", v.Tags, err)
		}
		return ""
	})
	wantNeverMet(t, c, "alpha")
}

// D9, N3, S1: two devices edit the same fields while apart. Both end with the value of the later stamp, and so
// do one that heard of it as it happened, one that took it from a file, one that joined later and one that did so
// by a snapshot; each counts each conflict once, and says who won. That both gave a file the same built-in tag is
// none.
func TestD9N3ConflictIsTheSameOnEveryRoad(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	one := filepath.Join(dir, "one")
	for i := range 5 {
		write(t, filepath.Join(dir, []string{"one", "two", "three", "four", "five"}[i]), strings.Repeat("x", i))
	}
	a, b, c, d := newPeer(t, "alpha"), newPeer(t, "beta"), newPeer(t, "gamma"), newPeer(t, "delta")
	apart, fresh := newPeer(t, "epsilon"), newPeer(t, "zeta", "--bulk", "3")
	b.join(a.start("", dir).Invite.Line)
	c.join(a.invite())
	apart.join(a.invite())
	a.edit("tag", "add", "first", one)
	inStep(t, a, b, c, apart)
	apart.ask(&node.PauseView{}, "sync", "pause")
	for _, p := range []*peer{a, b} {
		p.ask(&node.PauseView{}, "sync", "pause")
	}
	a.edit("note", one, "by alpha")
	a.edit("tag", "rename", "first", "of alpha")
	a.edit("tag", "add", "favorite", one)
	b.edit("note", "alpha:"+one, "by beta")
	b.edit("tag", "rename", "first", "of beta")
	b.edit("tag", "add", "favorite", "alpha:"+one)
	for _, p := range []*peer{a, b} {
		p.ask(&node.PauseView{}, "sync", "resume")
	}
	check := func(peers ...*peer) {
		t.Helper()
		awaitTags(t, "the later one", "alpha", dir, map[string]string{"one": "favorite of beta"}, peers...)
		for _, p := range peers {
			p.wantNote("alpha", one, "by beta")
			m := p.metrics()
			events := p.events(api.EventQuery{Types: []string{"conflict_resolved"}})
			if m.Errors.Conflicts.Total != 2 || m.Errors.Conflicts.By["hlc"] != 2 || len(events) != 2 {
				t.Errorf("%s counts %v, and has %d events", p.name, m.Errors.Conflicts, len(events))
			}
			models := map[string]bool{}
			for _, e := range events {
				x := detail[eventlog.ConflictResolved](t, e)
				winner, loser := p.known("beta").Short, p.known("alpha").Short
				if x.Winner.Device != winner || x.Loser.Device != loser || x.Winner.Stamp <= x.Loser.Stamp || x.Rule != "hlc" || x.More != 0 {
					t.Errorf("%s: %s: %+v", p.name, e.Summary, x)
				}
				models[x.Model] = true
			}
			if !models["tag"] || !models["note"] {
				t.Errorf("%s has conflicts of %v", p.name, models)
			}
		}
	}
	inStep(t, a, b, c)
	check(a, b, c)
	a.stop()
	b.stop()
	library := filepath.Join(tempDir(t), "library")
	c.ask(&node.SnapshotView{}, "snapshot", "export", library)
	apart.ask(&node.SnapshotView{}, "snapshot", "import", library)
	check(apart)
	d.join(c.invite())
	check(d)
	fresh.join(c.invite())
	check(fresh)
	if got := fresh.metrics().Operations; got.Strategies[node.StrategySnapshot] != 1 || got.Chunks.By["peer"] == 0 {
		t.Errorf("the last did not come by a snapshot: %v, %v", got.Strategies, got.Chunks.By)
	}
}

// known returns what p shows of the device called name, itself or another.
func (p *peer) known(name string) node.DeviceView {
	p.t.Helper()
	for _, d := range p.status().Devices {
		if d.Name == name {
			return d
		}
	}
	p.t.Fatalf("%s knows no %s", p.name, name)
	return node.DeviceView{}
}

func (p *peer) deviceID() record.DeviceID {
	p.t.Helper()
	id, err := corepeer.Decode(p.known(p.name).ID)
	if err != nil {
		p.t.Fatal(err)
	}
	d, err := protocol.DeviceOf(id)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

// D14: a device writes what only another may, in its own feed, where it can write anything: it is refused where
// it arrives, and nothing changes.
func TestD14NotItsOwn(t *testing.T) {
	t.Parallel()
	a := newPeer(t, "alpha")
	r := joined(t, a.start(""), a.invite())
	entries := r.entries(1)
	forged := record.Register{Entity: record.Device(r.target), Field: record.FieldName, Value: []byte("mine"), Author: r.device, Stamp: r.hello().HLC}
	if err := forged.Validate(); !errors.Is(err, record.ErrNotOwner) {
		t.Errorf("where it is written: %v", err)
	}
	entries = append(entries, feed.Entry{Key: forged.Key(), Seq: 2, Record: forged.Append(nil)})
	conn, err := protocol.Dial(t.Context(), r.host, r.target, protocol.StateBatchProtocol, protocol.ConnConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Reset(protocol.CodeShutdown)
	head := r.head(entries)
	if err := errors.Join(conn.Send(&protocol.StateBatch{Session: protocol.NewSessionID(), Entries: entries, Next: head}), conn.Flush()); err != nil {
		t.Fatal(err)
	}
	m, err := conn.Recv()
	if ack, ok := m.(*protocol.Ack); err != nil || !ok || ack.Outcome != protocol.Applied {
		t.Fatalf("answered %+v, %v", m, err)
	}
	events := a.events(api.EventQuery{Types: []string{"change_rejected"}})
	if len(events) != 1 || detail[eventlog.ChangeRejected](t, events[0]).Reason != "unauthorized" {
		t.Errorf("events: %v", events)
	}
	if d := a.of(r.device.Short()); d.Processed.By["rejected"] != 1 || d.Processed.By["applied"] != 1 {
		t.Errorf("processed %v", d.Processed.By)
	}
	if name := a.status().Devices[0].Name; name != "alpha" {
		t.Errorf("alpha is called %q now", name)
	}
}

// D16: 12,000 records of mixed kinds, written in turns; the receiver is killed when some kinds have come and
// others have not, and later again: nothing is skipped.
func TestD16CutBetweenKinds(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	fill(t, dir, 5000)
	a, b := newPeer(t, "alpha"), newPeer(t, "beta")
	line := a.start("", dir).Invite.Line
	var paths []node.PathRef
	for _, r := range a.dumpCatalogue().rows {
		if r.Kind == "file" {
			paths = append(paths, node.PathRef{Path: r.Path})
		}
	}
	for i := range 5 {
		part := node.Targets{Paths: paths[i*1000 : (i+1)*1000]}
		if _, err := a.client.ChangeTags(t.Context(), node.TagRequest{Tags: []string{fmt.Sprint("tag ", i)}, Targets: part}); err != nil {
			t.Fatal(err)
		}
		part.Paths = part.Paths[:390]
		if _, err := a.client.SetNote(t.Context(), node.NoteRequest{Text: fmt.Sprint("note ", i), Targets: part}); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "later", fmt.Sprint(i)), "")
	}
	b.join(line)
	for _, kind := range []string{"tagging", "note", "entry"} {
		eventually(t, "the first of model "+kind, func() string {
			m := b.metrics()
			if st := b.status(); m.Volume.Records.By[kind] > 0 || st.State == node.StateReady && st.Files == 5005 {
				return ""
			}
			return fmt.Sprint(m.Volume.Records.By)
		})
		b.kill()
		b.start("")
	}
	inStep(t, a, b).wantOnDisk(t, dir)
	if got, want := b.tags(), []string{"tag 0 1000", "tag 1 1000", "tag 2 1000", "tag 3 1000", "tag 4 1000"}; !slices.Equal(got, want) {
		t.Errorf("beta lists %q, want %q", got, want)
	}
	wantEqualOnDisk(t, a, b)
	models := map[string]int{}
	for _, id := range []string{a.home, b.home} {
		f := openHome(t, id)
		for _, kind := range []record.EntityKind{record.TagEntity, record.EntryEntity} {
			if err := f.Registers(kind, func(r record.Register) error { models[r.Model()]++; return nil }); err != nil {
				t.Error(err)
			}
		}
		f.close(t)
	}
	if want := map[string]int{"tag": 2 * 10, "tagging": 2 * 5000, "note": 2 * 1950}; !maps.Equal(models, want) {
		t.Errorf("both hold %v, want %v", models, want)
	}
}

// model is what shared edits come to: for each field the greatest of all that were ever written, by stamp,
// author and hash of the value.
type model struct {
	sync.Mutex
	fields map[string]written
}

type written struct {
	stamp, author string // as text that sorts as they do
	value         byte
}

func (m *model) wrote(author record.DeviceID, v node.EditView, value byte) {
	m.Lock()
	defer m.Unlock()
	for _, w := range v.Written {
		one, at := written{w.Stamp, author.String(), value}, w.Entity+" "+w.Field
		if old, ok := m.fields[at]; !ok || one.above(old) {
			m.fields[at] = one
		}
	}
}

func (w written) above(o written) bool {
	a, b := sha256.Sum256([]byte{w.value}), sha256.Sum256([]byte{o.value})
	switch {
	case w.stamp != o.stamp:
		return w.stamp > o.stamp
	case w.author != o.author:
		return w.author > o.author
	}
	return bytes.Compare(a[:], b[:]) > 0
}

// Three devices put the same twenty tags on the same files and take them away, more than 10,000 times, in
// partitions that come and go. In the end all three hold the same, field by field, and it is what a model
// makes of the stamps that the edits returned.
func TestTwentyTagsUnderPartitions(t *testing.T) {
	t.Parallel()
	const files, edits, rounds = 25, 10_000, 4
	dir := tempDir(t)
	var paths []node.PathRef
	for i := range files {
		path := filepath.Join(dir, fmt.Sprintf("f%02d", i))
		write(t, path, "")
		paths = append(paths, node.PathRef{Device: "alpha", Path: path})
	}
	a, b, c := newPeer(t, "alpha"), newPeer(t, "beta"), newPeer(t, "gamma")
	peers := []*peer{a, b, c}
	b.join(a.start("", dir).Invite.Line)
	c.join(a.invite())
	inStep(t, a, b, c)
	m := &model{fields: map[string]written{}}
	var tags []string
	for i := range 20 {
		tags = append(tags, fmt.Sprint("tag ", i))
	}
	authors := map[*peer]record.DeviceID{}
	for _, p := range peers {
		authors[p] = p.deviceID()
	}
	first, err := a.client.ChangeTags(t.Context(), node.TagRequest{Tags: tags, Targets: node.Targets{Paths: paths[:1]}})
	if err != nil {
		t.Fatal(err)
	}
	m.wrote(authors[a], first, 1)
	inStep(t, a, b, c)

	// change edits until it has written so much
	change := func(p *peer, random *rand.Rand, enough int) error {
		for n := 0; n < enough; {
			req := node.TagRequest{Remove: random.IntN(2) == 0}
			for _, i := range random.Perm(len(tags))[:10] {
				req.Tags = append(req.Tags, tags[i])
			}
			for _, i := range random.Perm(files)[:10] {
				req.Paths = append(req.Paths, paths[i])
			}
			v, err := p.client.ChangeTags(t.Context(), req)
			if err != nil {
				return err
			}
			value := byte(1)
			if req.Remove {
				value = 0
			}
			m.wrote(authors[p], v, value)
			n += len(v.Written)
		}
		return nil
	}
	for round := range rounds {
		apart := []*peer{peers[round%3]}
		if round%2 == 0 {
			apart = peers
		}
		pause := func(what string) {
			for _, p := range apart {
				p.ask(&node.PauseView{}, "sync", what)
			}
			for _, p := range peers { // they need not wait for it
				if !slices.Contains(apart, p) {
					p.ask(&node.PauseView{}, "sync", what, "--device", apart[0].name)
				}
			}
		}
		pause("pause")
		failed := make(chan error)
		for i, p := range peers {
			random := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			go func() { failed <- change(p, random, edits/rounds/len(peers)+1) }()
		}
		for range peers {
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		}
		pause("resume")
		if round == 1 { // and one of them without a word
			c.kill()
			c.start("")
		}
		inStep(t, a, b, c)
	}
	shown := a.shows("alpha", dir)
	awaitTags(t, "the same tags", "alpha", dir, shown, b, c)
	wantEqualOnDisk(t, a, b, c)
	for _, p := range peers {
		f := openHome(t, p.home)
		held := map[string]written{}
		err := f.Registers(record.EntryEntity, func(r record.Register) error {
			held[r.Entity.String()+" "+r.Field] = written{r.Stamp.String(), r.Author.String(), r.Value[0]}
			return nil
		})
		f.close(t)
		for at, w := range m.fields {
			if strings.HasPrefix(at, "entry ") && held[at] != w {
				t.Fatalf("%s holds %+v in %s, the model %+v", p.name, held[at], at, w)
			}
		}
		if err != nil || len(held) != 20*files {
			t.Errorf("%s holds %d fields, %v", p.name, len(held), err)
		}
	}
}
