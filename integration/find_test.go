package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/node"
)

// writeAll writes files, each with its name as content if none is given.
func writeAll(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// found returns the paths that a query finds on p, sorted.
func (p *peer) found(query string) (out []string) {
	p.t.Helper()
	_, err := p.client.Find(p.t.Context(), node.FindQuery{Text: query}, func(e node.Entry) error {
		out = append(out, e.Path)
		return nil
	})
	if err != nil {
		p.t.Fatalf("find %q: %v", query, err)
	}
	slices.Sort(out)
	return out
}

// Two devices with files of all sorts: every query finds on either what it says, byte for byte, also when the
// other device is away, after a restart, and at once after a change.
func TestFindAndWhere(t *testing.T) {
	t.Parallel()
	dirA, dirB := tempDir(t), tempDir(t)
	evil := "evil \x1b[2J\u202e\n\xff<img>.jpg"
	copied := strings.Repeat("the same content ", 100)
	writeAll(t, dirA, map[string]string{
		"2019/Beach 1.JPG": copied, "2019/draft beach.txt": "x", "tax (2023).pdf": strings.Repeat("t", 5000), "Straße/ÄRGER.md": "ä", evil: "e",
	})
	writeAll(t, dirB, map[string]string{"old/beach-copy.jpg": copied, "lake.jpg": strings.Repeat("l", 2000), "tax.pdf": strings.Repeat("u", 6000)})
	old := time.Date(2019, 7, 4, 12, 0, 0, 0, time.UTC)
	if err := os.Chtimes(filepath.Join(dirB, "lake.jpg"), old, old); err != nil {
		t.Fatal(err)
	}
	a, b := two(t, []string{dirA}, []string{dirB})
	inStep(t, a, b)
	inA, inB := func(name string) string { return filepath.Join(dirA, name) }, func(name string) string { return filepath.Join(dirB, name) }
	eventually(t, "both have read what may be a copy", func() string {
		for _, p := range []*peer{a, b} {
			var v node.Whereabouts
			p.ask(&v, "where", "beta:"+inB("old/beach-copy.jpg"))
			if len(v.Places) != 2 {
				return fmt.Sprintf("%s: %+v", p.name, v)
			}
		}
		return ""
	})
	for _, q := range []struct {
		query string
		want  []string
	}{
		{"beach", []string{inA("2019/Beach 1.JPG"), inA("2019/draft beach.txt"), inB("old/beach-copy.jpg")}},
		{"beach !draft ext:jpg", []string{inA("2019/Beach 1.JPG"), inB("old/beach-copy.jpg")}},
		{`"beach 1" | lake`, []string{inA("2019/Beach 1.JPG"), inB("lake.jpg")}},
		{"path:2019/ on:alpha", []string{inA("2019/Beach 1.JPG"), inA("2019/draft beach.txt")}},
		{"size:5kB..5999", []string{inA("tax (2023).pdf")}},
		{"date:2019-07-04", []string{inB("lake.jpg")}},
		{"date:<2020 | (tax size:>5.5kB)", []string{inB("lake.jpg"), inB("tax.pdf")}},
		{"ärger", []string{inA("Straße/ÄRGER.md")}},
		{"<img>", []string{inA(evil)}},
		{"on:beta ext:pdf", []string{inB("tax.pdf")}},
	} {
		slices.Sort(q.want)
		for _, p := range []*peer{a, b} {
			if got := p.found(q.query); !slices.Equal(got, q.want) {
				t.Errorf("%s finds %q for %q, want %q", p.name, got, q.query, q.want)
			}
		}
	}

	shown := a.run("find", "beach ext:jpg").stdout
	if want := "alpha, beta"; !strings.Contains(shown, want) || strings.Count(shown, "\n") != 1 {
		t.Errorf("copies share a line: %q lacks %q", shown, want)
	}
	for _, args := range [][]string{{"find", "img"}, {"where", inA(evil)}, {"info", inA(evil)}, {"find", "img", "--json"}} {
		if out := a.run(args...); out.code != 0 || bytes.ContainsAny([]byte(out.stdout), "\x1b\xff") || strings.Contains(out.stdout, "\u202e") {
			t.Errorf("%q is not escaped: %q", args, out.stdout)
		}
	}
	if got := a.run("find", "-q", "nothing like it"); got.code != 10 || got.stdout+got.stderr != "" {
		t.Errorf("find -q of nothing: %+v", got)
	}

	a.ask(&node.EditView{}, "tag", "add", "keep", inA("tax (2023).pdf"))
	a.ask(&node.EditView{}, "tag", "add", "sea", "--content", inA("2019/Beach 1.JPG"))
	eventually(t, "the tags have come over", func() string {
		if got := b.run("find", "-0", "tag:keep"); got.stdout != inA("tax (2023).pdf")+"\x00" {
			return fmt.Sprintf("%+v", got)
		}
		if got := b.run("find", "-0", "--tag", "SEA", "old"); got.stdout != "" { // in the path only
			return fmt.Sprintf("%+v", got)
		}
		if got := b.run("find", "-0", "tag:sea on:beta"); got.stdout != inB("old/beach-copy.jpg")+"\x00" {
			return fmt.Sprintf("%+v", got)
		}
		return ""
	})

	var where node.Whereabouts
	a.ask(&where, "where", inA("2019/Beach 1.JPG"))
	if where.Hash == "" || where.On != 2 || len(where.Places) != 2 || !slices.Equal(where.Places[1].Tags, []string{"sea"}) {
		t.Errorf("where: %+v", where)
	}
	for _, by := range []string{where.Hash, "blake3:" + where.Hash[:6], where.Places[0].ID} {
		var again node.Whereabouts
		a.ask(&again, "where", by)
		if again.Hash != where.Hash || len(again.Places) != 2 {
			t.Errorf("where %s: %+v", by, again)
		}
	}
	var info node.Info
	a.ask(&info, "info", inA("tax (2023).pdf"))
	if !info.Unique || info.Entry.Size != 5000 || !slices.Equal(info.Entry.Tags, []string{"keep"}) || info.Entry.Hash != "" {
		t.Errorf("info: %+v", info)
	}
	for _, p := range []struct {
		exit int
		code node.Code
		args []string
	}{
		{2, node.CodeBadQuery, []string{"find", "(a"}},
		{5, node.CodeUnknownTag, []string{"find", "tag:none"}},
		{5, node.CodeUnknownDevice, []string{"find", "on:nobody"}},
		{5, node.CodeNotFound, []string{"where", inA("gone")}},
		{5, node.CodeNotFound, []string{"where", strings.Repeat("ab", 32)}},
		{5, node.CodeNotFound, []string{"info", strings.Repeat("ab", 16)}},
	} {
		if exit, problem := a.problem(p.args...); exit != p.exit || problem.Code != p.code {
			t.Errorf("%q: exit %d, %+v", p.args, exit, problem)
		}
	}

	if exit, problem := a.problem("find", "siz:3"); exit != 2 || problem.Code != node.CodeBadQuery {
		t.Errorf("a query that does not parse: exit %d, %+v", exit, problem)
	}
	eventually(t, "the refusal is logged", func() string {
		for _, e := range a.events(api.EventQuery{Types: []string{"request_refused"}}) {
			if d := detail[eventlog.RequestRefused](t, e); d.Request == "GET /v1/find" && d.Code == string(node.CodeBadQuery) {
				return ""
			}
		}
		return "it is not"
	})

	a.ask(&node.PauseView{}, "sync", "pause")
	writeAll(t, dirB, map[string]string{"brook.jpg": "b"})
	eventually(t, "alpha hears of what it lacks, and shows beta's folder as it was", func() string {
		if l := a.run("ls", "beta:"+dirB); l.code != 0 || !strings.Contains(l.stderr, "beta, as of ") || strings.Contains(l.stdout, "brook") {
			return fmt.Sprintf("%+v", l)
		}
		return ""
	})
	if found := a.run("find", "brook"); !strings.Contains(found.stderr, "nothing found") || !strings.Contains(found.stderr, "alpha now") || strings.Contains(found.stderr, "beta now") {
		t.Errorf("find of what is known to be lacking: %+v", found)
	}
	if found := a.run("find", "lake"); !strings.Contains(found.stdout, "beta (as of ") {
		t.Errorf("find beside what is known to be lacking: %+v", found)
	}
	if l := a.run("locations", "show", "beta:"+filepath.Base(dirB)); !strings.Contains(l.stdout, "beta (as of ") {
		t.Errorf("locations: %+v", l)
	}
	a.ask(&node.PauseView{}, "sync", "resume")
	eventually(t, "beta's folder is shown as it is", func() string {
		if l := a.run("ls", "beta:"+dirB); !strings.Contains(l.stderr, "beta, now") || !strings.Contains(l.stdout, "brook") {
			return fmt.Sprintf("%+v", l)
		}
		return ""
	})

	b.stop()
	writeAll(t, dirA, map[string]string{"new beach.jpg": "n"})
	eventually(t, "the new file is found", func() string {
		if got := a.found("beach on:alpha"); !slices.Contains(got, inA("new beach.jpg")) {
			return fmt.Sprintf("%q", got)
		}
		return ""
	})
	away := a.run("find", "lake")
	if !strings.Contains(away.stdout, inB("lake.jpg")) || !strings.Contains(away.stdout, "beta (as of ") || !strings.Contains(away.stderr, "beta ") {
		t.Errorf("of a device that is away: %+v", away)
	}
	var places node.Whereabouts
	a.ask(&places, "where", "beta:"+inB("lake.jpg"))
	devices, err := a.client.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices { // what is away is as fresh as the last that was heard of it
		if d.Name == "beta" && (d.Seen.IsZero() || !places.Places[0].AsOf.Equal(d.Seen) || !d.AsOf.Equal(d.Seen)) {
			t.Errorf("a place as of %v, the device as of %v, seen %v", places.Places[0].AsOf, d.AsOf, d.Seen)
		}
	}
	a.kill()
	a.start("")
	if got, want := a.found("beach"), 4; len(got) != want {
		t.Errorf("after a restart: %q, want %d", got, want)
	}
}
