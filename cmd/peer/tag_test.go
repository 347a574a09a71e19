package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"peerdex/node"
)

func (f *fake) Tags(context.Context, bool) ([]node.TagView, error) {
	return []node.TagView{
		{ID: strings.Repeat("9f3c12ab", 4), Name: "family", Entries: new(uint64(1204))},
		{ID: strings.Repeat("77aa01ce", 4), Name: hostile, Entries: new(uint64(1))},
		{ID: strings.Repeat("27d589a1", 4), Name: "later", BuiltIn: true, Entries: new(uint64)},
	}, nil
}

func missing(paths []node.PathRef) error {
	for _, p := range paths {
		if p.Path == "/missing" {
			return &node.Problem{Code: node.CodeNotFound, Message: "nothing is catalogued at \"/missing\"", Cause: "it is not", Try: "peer locations"}
		}
	}
	return nil
}

func (f *fake) ChangeTags(_ context.Context, req node.TagRequest) (node.EditView, error) {
	if err := missing(req.Paths); err != nil {
		return node.EditView{}, err
	}
	if err := f.did(fmt.Sprint("tags ", req)); err != nil {
		return node.EditView{}, err
	}
	tags, _ := f.Tags(context.Background(), false)
	v := node.EditView{Now: noon, Targets: 1204, Changed: 1204, Tags: tags[:2], Reached: []string{"laptop", "nas"}, Away: []string{hostile},
		Written: []node.WrittenView{{Entity: "entry 00", Field: "tag/00", Stamp: "0000000000000001"}}}
	switch {
	case req.Remove:
		v.Changed, v.Still = 0, 2
		v.Written = nil
	case req.Query != "":
		v.LeftOut = []string{hostile + ":box"}
	case req.Content:
		v.Targets, v.Changed, v.Away, v.Pending = 3, 1, nil, []string{"nas"}
	}
	return v, nil
}

func (f *fake) RenameTag(_ context.Context, req node.RenameRequest) (node.EditView, error) {
	tags, _ := f.Tags(context.Background(), false)
	if req.To == "same" {
		return node.EditView{Now: noon, Tags: tags[:1]}, nil
	}
	return node.EditView{Now: noon, Tags: tags[1:2], Written: make([]node.WrittenView, 1), Away: []string{"nas", "attic"}}, f.did(fmt.Sprint("rename ", req))
}

func (f *fake) DeleteTag(_ context.Context, tag string) (node.EditView, error) {
	return node.EditView{Now: noon, Written: make([]node.WrittenView, 1)}, f.did("delete " + tag)
}

func (f *fake) SetNote(_ context.Context, req node.NoteRequest) (node.EditView, error) {
	return node.EditView{Now: noon, Targets: 1, Changed: 1, Written: make([]node.WrittenView, 1)}, f.did(fmt.Sprintf("note %v", req))
}

func (f *fake) Note(_ context.Context, p node.PathRef) (node.NoteView, error) {
	tags, _ := f.Tags(context.Background(), false)
	v := node.NoteView{Now: noon, Device: laptopID, Path: p.Path, Tags: tags[:2]}
	switch {
	case strings.HasSuffix(p.Path, "both"):
		v.Note, v.Content = "own", "shared"
	case strings.HasSuffix(p.Path, "content"):
		v.Content = "on the content"
	case !strings.HasSuffix(p.Path, "none"):
		v.Note = "two lines\n" + hostile
	}
	return v, missing([]node.PathRef{p})
}

// Paths, tags and text reach the daemon as they were meant: names of devices as ids, relative paths whole, tags
// without their sign, stdin without its last newline.
func TestEditRequests(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if err := os.WriteFile("one", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"tag add #a,b one nas:two":   fmt.Sprint("tags ", node.TagRequest{Tags: []string{"a", "b"}, Targets: node.Targets{Paths: []node.PathRef{{Path: dir + "/one"}, {Device: nasID, Path: "two"}}}}),
		"tag remove a --content one": fmt.Sprint("tags ", node.TagRequest{Tags: []string{"a"}, Remove: true, Targets: node.Targets{Content: true, Paths: []node.PathRef{{Path: dir + "/one"}}}}),
		"tag add a --query on:nas":   fmt.Sprint("tags ", node.TagRequest{Tags: []string{"a"}, Targets: node.Targets{Query: "on:nas", Names: map[string]string{"nas": nasID}}}),
		"tag find #a,b":              "find  sorted by  on  tagged a,b",
		"tag rename #a #b --merge":   fmt.Sprint("rename ", node.RenameRequest{Tag: "a", To: "b", Merge: true}),
		"tag delete #a":              "delete a",
		"note one -":                 fmt.Sprint("note ", node.NoteRequest{Text: "from\nstdin", Targets: node.Targets{Paths: []node.PathRef{{Path: dir + "/one"}}}}),
	} {
		b := newBench(t)
		b.in = "from\nstdin\n"
		if code, _, stderr := b.run(strings.Fields(line)...); code != 0 || b.fake.log() != want {
			t.Errorf("peer %s: exit %d, %s, asked\n%s, want\n%s", line, code, stderr, b.fake.log(), want)
		}
	}
}

// Tags complete for the first argument, after a comma too, and never with a name that a shell would take apart.
func TestCompleteTags(t *testing.T) {
	for line, want := range map[string][]string{
		"tag add fa": {"family"}, "tag remove x,l": {"x,later"}, "tag rename f": {"family"}, "tag delete ": {"family", "later"}, "tag add a": nil,
	} {
		b := newBench(t)
		args := strings.Split("__complete "+line, " ")
		_, out, _ := b.run(args...)
		var got []string
		for l := range strings.Lines(out) {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, ":") {
				got = append(got, l)
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%q completes to %q, want %q", line, got, want)
		}
	}
}

// Texts for people that are no UTF-8 are refused before a request would change them; nothing is asked.
func TestTextThatIsNoUTF8(t *testing.T) {
	for _, args := range [][]string{
		{"tag", "add", "a,\xffb", "one"}, {"tag", "remove", "\xff", "one"}, {"tag", "find", "a\xff"}, {"tag", "delete", "#\xff"},
		{"tag", "rename", "\xff", "b"}, {"tag", "rename", "keep", "k\xff"}, {"tag", "add", "a", "--query", "\xff"},
		{"note", "one", "\xff\xfe"}, {"note", "one", "-"}, {"devices", "rename", "d\xff"}, {"start", "--name", "d\xff"},
	} {
		b := newBench(t)
		b.in = "caf\xe9"
		code, out, stderr := b.run(args...)
		if code != 2 || out != "" || !strings.Contains(stderr, "cause: ") || !strings.Contains(stderr, "UTF-8") || !strings.Contains(stderr, "try: ") {
			t.Errorf("peer %q: exit %d, %q, %q", args, code, out, stderr)
		}
		if !utf8.ValidString(stderr) || b.fake.log() != "" {
			t.Errorf("peer %q: %q, asked %q", args, stderr, b.fake.log())
		}
	}
}

// Locations are named by the bytes of their folders.
func TestLocationNamedByBytes(t *testing.T) {
	for _, verb := range []string{"remove", "rescan", "set"} {
		b := newBench(t)
		args := []string{"locations", verb, hostile}
		if verb == "set" {
			args = append(args, "--hash", "none")
		}
		if code, _, stderr := b.run(args...); code != 0 || !strings.HasSuffix(b.fake.log(), strings.Repeat("4e", 16)) {
			t.Errorf("%s: exit %d, %s, asked %s", verb, code, stderr, b.fake.log())
		}
	}
}

// Both notes of a file are shown, and with --content that of its content alone; an empty query edits nothing, and
// a name that a tag has already is said to be so.
func TestEditTexts(t *testing.T) {
	for line, want := range map[string]string{
		"note /both": "own\n|on its content:\nshared\n", "note /both --content": "shared\n", "note /x --content": "|nothing is noted\n", "tag rename family same": "#family is called so already; nothing has changed.\n",
	} {
		b := newBench(t)
		code, out, stderr := b.run(strings.Fields(line)...)
		if i := strings.IndexByte(want, '|'); code != 0 || strings.Contains(want, "own") && (out != "own\nshared\n" || !strings.Contains(stderr, "on its content:")) ||
			i < 0 && out != want || i == 0 && (out != "" || !strings.Contains(stderr, strings.TrimSpace(want[1:]))) {
			t.Errorf("peer %s: exit %d, %q, %q, want %q", line, code, out, stderr, want)
		}
	}
	b := newBench(t)
	if code, _, stderr := b.run("tag", "add", "x", "--query", " "); code != 2 || !strings.Contains(stderr, "the query is empty") || b.fake.log() != "" {
		t.Errorf("an empty query: exit %d, %s", code, stderr)
	}
}
