package catalog

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// excluded asks the rules as a walk does: a directory above that is left out decides.
func excluded(r *rules, path string, isDir bool) bool {
	dir := ""
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if r.ignores(dir, part, isDir || i < len(parts)-1) {
			return true
		}
		dir = join(dir, part)
	}
	return false
}

func TestIgnoreRules(t *testing.T) {
	for _, c := range []struct {
		text    string
		ignored []string // a final slash marks a directory
		kept    []string
	}{
		{"# note\n\n  \n", nil, []string{"a", "# note"}},
		{"*.o", []string{"a.o", "d/a.o", "d.o/x"}, []string{"a.oo", "o"}},
		{"/a", []string{"a", "a/", "a/b"}, []string{"d/a"}},
		{"d/a", []string{"d/a"}, []string{"x/d/a", "a"}},
		{"a/", []string{"a/", "d/a/", "a/x"}, []string{"a", "d/a"}},
		{"*.o\n!keep.o", []string{"a.o"}, []string{"keep.o", "d/keep.o"}},
		{"!keep.o\n*.o", []string{"keep.o"}, nil},
		{"d/\n!d/keep", []string{"d/keep"}, nil}, // no way back below a directory that is left out
		{"d/*\n!d/keep", []string{"d/x"}, []string{"d/keep", "d/"}},
		{"d/**", []string{"d/x", "d/e/x"}, []string{"d/"}},
		{"**/b", []string{"b", "a/b", "a/c/b"}, []string{"ab"}},
		{"a/**/b", []string{"a/b", "a/x/b", "a/x/y/b"}, []string{"x/a/b", "ab"}},
		{"a**b", []string{"ab", "axb", "d/axxb"}, []string{"a/b"}},
		{"x/a**b", []string{"x/ab", "x/azzb"}, []string{"x/a/b"}},
		{"/*", []string{"a", "a/"}, nil},
		{"/*\n!/src/", []string{"a", "b/x"}, []string{"src/", "src/x"}},
		{`\#a`, []string{"#a"}, []string{`\#a`}},
		{`\!a`, []string{"!a"}, []string{"a"}},
		{"a ", []string{"a"}, []string{"a "}},
		{`a\ `, []string{"a "}, []string{"a"}},
		{"a\r\nb", []string{"a", "b"}, nil},
		{"\ufeffa", []string{"a"}, nil},
		{"[a-c]x", []string{"ax", "cx"}, []string{"dx", "x"}},
		{"[!a-c]x", []string{"dx"}, []string{"ax"}},
		{"[]x]y", []string{"]y", "xy"}, []string{"zy"}},
		{"[[:digit:]-]z", []string{"4z", "-z"}, []string{"az"}},
		{"[a", nil, []string{"a", "[a"}},
		{`a\`, nil, []string{"a", `a\`}},
		{"?", []string{"a", "\xff"}, []string{"ä", "ab"}},
		{"*", []string{"a", ".a", "d/"}, nil},
		{"\xff*", []string{"\xffx"}, []string{"x"}},
		{"/", nil, []string{"a", "a/"}},
		{"a*b*c*d*e*f*g*h", nil, []string{strings.Repeat("abcdefg", 30)}},
	} {
		r := parseRules(nil, "", c.text)
		check := func(paths []string, want bool) {
			for _, p := range paths {
				name, isDir := strings.CutSuffix(p, "/")
				if got := excluded(r, name, isDir); got != want {
					t.Errorf("rules %q: %q ignored = %v, want %v", c.text, p, got, want)
				}
			}
		}
		check(c.ignored, true)
		check(c.kept, false)
	}
}

// The file nearest to the entry decides, and its patterns are relative to where it lies.
func TestIgnoreNested(t *testing.T) {
	top := parseRules(nil, "", "*.log\n/build\n")
	sub := parseRules(top, "pkg/x", "!keep.log\n/build\ngen/*.go\n")
	for path, want := range map[string]bool{
		"a.log": true, "pkg/x/a.log": true, "pkg/x/keep.log": false, "keep.log": true, "build": true,
		"pkg/x/build": true, "pkg/x/y/build": false, "pkg/x/gen/a.go": true, "pkg/x/y/gen/a.go": false,
	} {
		r := top
		if strings.HasPrefix(path, "pkg/x/") {
			r = sub
		}
		dir, name := "", path
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			dir, name = path[:i], path[i+1:]
		}
		if got := r.ignores(dir, name, false); got != want {
			t.Errorf("%q ignored = %v, want %v", path, got, want)
		}
	}
}

// git itself is asked about random rules and paths.
func TestIgnoreAgreesWithGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	run := func(stdin string, args ...string) string {
		cmd := exec.Command(git, append([]string{"-C", dir}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		cmd.Stdin = strings.NewReader(stdin)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil && cmd.ProcessState.ExitCode() != 1 {
			t.Fatalf("git %v: %v: %s", args, err, &errs)
		}
		return string(out)
	}
	run("", "init", "-q")
	var paths []string // of files: directories are seen through what is in them
	for _, a := range []string{"a", "b", "ab", "-", "a]"} {
		for _, b := range []string{"a", "b", "x.o", "sub"} {
			if err := os.MkdirAll(filepath.Join(dir, a, b), 0o755); err != nil {
				t.Fatal(err)
			}
			for _, c := range []string{"a", "b", "aab", "x.o", "!b", "#a", "c d"} {
				paths = append(paths, a+"/"+b+"/"+c)
			}
		}
	}
	piece := rapid.SampledFrom([]string{"a", "b", "*", "**", "?", "/", "/**/", "!", "x.o", "[ab]", "[!a]", "[a-", "[", "]", `\`, "#", " ", "sub", ".", "-", "[[:alpha:]]"})
	// Two stars beside anything but a slash are one star, git's manual says; git itself cuts a literal
	// beginning off first and then takes "a**/b" for "a" and "**/b".
	stars := regexp.MustCompile(`[^/!]\*\*|\*\*[^/]`)
	rapid.Check(t, func(rt *rapid.T) {
		var top, sub strings.Builder
		for _, w := range []*strings.Builder{&top, &sub} {
			for range rapid.IntRange(0, 4).Draw(rt, "lines") {
				line := strings.Join(rapid.SliceOfN(piece, 1, 5).Draw(rt, "line"), "")
				if !stars.MatchString(line) {
					fmt.Fprintln(w, line)
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(top.String()), 0o644); err != nil {
			rt.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "a", ".gitignore"), []byte(sub.String()), 0o644); err != nil {
			rt.Fatal(err)
		}
		theirs := map[string]bool{}
		for _, p := range strings.Split(run(strings.Join(paths, "\x00"), "check-ignore", "--no-index", "-z", "--stdin"), "\x00") {
			theirs[p] = true
		}
		one := parseRules(nil, "", top.String())
		two := parseRules(one, "a", sub.String())
		for _, p := range paths {
			dir, r, got := "", one, false
			for i, part := range strings.Split(p, "/") {
				if got = got || r.ignores(dir, part, i < 2); got {
					break
				}
				if dir = join(dir, part); dir == "a" {
					r = two
				}
			}
			if got != theirs[p] {
				rt.Fatalf("%q: ours %v, git %v\n.gitignore: %q\na/.gitignore: %q", p, got, theirs[p], top.String(), sub.String())
			}
		}
	})
}
