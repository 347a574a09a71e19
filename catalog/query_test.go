//go:build linux

package catalog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerdex/kv"
	"peerdex/query"
	"peerdex/record"
	"peerdex/store"
)

// search returns the paths below the first location that Find yields, in order.
func findAll(t *testing.T, c *Catalog, base string, words ...string) (out []string) {
	t.Helper()
	q, err := query.Parse(strings.Join(words, " "), time.Now())
	must(t, err)
	err = c.Find(context.Background(), FindOptions{Query: q}, func(items []Item) error {
		for _, i := range items {
			out = append(out, strings.TrimPrefix(i.Path, base+"/"))
		}
		return nil
	})
	must(t, err)
	slices.Sort(out)
	return out
}

func TestFindListResolve(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "Holiday/IMG 1.JPG", "Holiday/img 2.jpg", "work/holiday plan.txt", "Straße/ÄRGER", "\xff\xfeimg")
	b := newBench(t, Config{})
	b.run()
	l := b.add(dir, Options{Name: "pics"})
	b.phase(Watching)
	b.settles(l)
	c := New(b.feeds)
	load(t, c)
	for _, q := range []struct {
		words []string
		want  []string
	}{
		{[]string{"holiday"}, []string{"Holiday", "work/holiday plan.txt"}},
		{[]string{"img"}, []string{"Holiday/IMG 1.JPG", "Holiday/img 2.jpg", "\xff\xfeimg"}},
		{[]string{"JPG", "img", "2"}, []string{"Holiday/img 2.jpg"}},
		{[]string{"ärger"}, []string{"Straße/ÄRGER"}},
		{[]string{"STRAßE"}, []string{"Straße"}},
		{[]string{"\xfe"}, []string{"\xff\xfeimg"}},
		{[]string{"K"}, []string{"work"}}, // the Kelvin sign
		{[]string{"nothing of it"}, nil},
	} {
		if got := findAll(t, c, dir, q.words...); !slices.Equal(got, q.want) {
			t.Errorf("find %q: %q, want %q", q.words, got, q.want)
		}
	}
	if err := c.Find(context.Background(), FindOptions{}, func([]Item) error { return errBoom }); !errors.Is(err, errBoom) {
		t.Errorf("an error of the caller comes back as %v", err)
	}
	if err := c.Find(context.Background(), FindOptions{}, func([]Item) error { return kv.Stop }); err != nil {
		t.Errorf("kv.Stop comes back as %v", err)
	}
	for path, want := range map[string]bool{
		dir: true, dir + "/": true, dir + "/Holiday": true, dir + "/Holiday/IMG 1.JPG": true, "pics": true,
		"pics/work/": true, dir + "x": false, dir + "/Holiday/IMG 1": false, "/": false, "pic": false, "pics/nope": false,
		dir + "/work/holiday plan.txt/x": false,
	} {
		i, err := c.Resolve(t.Context(), Ref{l.Owner, path})
		if (err == nil) != want || err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("resolve %q: %+v, %v", path, i, err)
		}
	}
	top, err := c.Resolve(t.Context(), Ref{l.Owner, dir})
	must(t, err)
	names := func(after string, limit int) (out []string) {
		items, err := c.List(t.Context(), top, after, limit)
		must(t, err)
		for _, i := range items {
			out = append(out, i.File.Name)
		}
		return out
	}
	if got, want := names("", 0), []string{"Holiday", "Straße", "work", "\xff\xfeimg"}; !slices.Equal(got, want) {
		t.Errorf("ls: %q, want %q", got, want)
	}
	if got, want := names("Holiday", 2), []string{"Straße", "work"}; !slices.Equal(got, want) {
		t.Errorf("next page: %q, want %q", got, want)
	}
	file, err := c.Resolve(t.Context(), Ref{l.Owner, dir + "/Holiday/IMG 1.JPG"})
	must(t, err)
	info, err := os.Lstat(filepath.Join(dir, "Holiday/IMG 1.JPG"))
	must(t, err)
	if file.File.Size != uint64(info.Size()) || file.File.ModTime != info.ModTime().UnixNano() || file.File.Kind != record.Regular {
		t.Errorf("%+v is not what lies on disk", file.File)
	}
}

var errBoom = errors.New("boom")

// What hangs from nothing, or from itself, is shown and does not hang the search.
func TestFindShowsWhatIsLost(t *testing.T) {
	s := newLedger(t)
	id := record.LocationID{7}
	e := record.Location(testDevice(), id)
	must(t, s.SetRegisters(record.Register{Entity: e, Field: record.FieldPath, Value: []byte("/x")},
		record.Register{Entity: e, Field: record.FieldName, Value: []byte("x")}, record.Register{Entity: e, Field: record.FieldExists, Value: []byte{1}}))
	file := func(n, parent byte, kind record.Kind, name string) store.Put {
		f := record.File{ID: record.EntryID{n}, Kind: kind, Name: name}
		f.Parent[0] = parent
		return store.Put{Record: f}
	}
	_, err := s.Commit(Location{Owner: testDevice(), ID: id}.Feed(), []store.Put{
		file(1, 99, record.Regular, "orphan"), file(2, 98, record.Directory, "dir"), file(3, 2, record.Regular, "below"),
		file(4, 5, record.Directory, "ring a"), file(5, 4, record.Directory, "ring b"), file(6, 0, record.Regular, "fine"),
	})
	must(t, err)
	c := New(s)
	load(t, c)
	got := findAll(t, c, "/x")
	want := []string{"(parent unknown)/dir", "(parent unknown)/dir/below", "(parent unknown)/orphan", "(parent unknown)/ring a", "(parent unknown)/ring b", "fine"}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
