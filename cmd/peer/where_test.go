package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerdex/node"
)

// What an argument names: a hash and an id by their form, anything else a path, and what is no path but might
// be the beginning of a hash, that.
func TestWhereNames(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	hash, id := strings.Repeat("9F", 32), strings.Repeat("0a", 16)
	for arg, want := range map[string]string{
		hash:                "where is " + laptopID + " " + hash,
		id:                  "where is " + laptopID + " " + id,
		"blake3:9f2c":       "where is " + laptopID + " 9f2c",
		"./9f2c41d8x":       "where is " + laptopID + " " + here + "/9f2c41d8x",
		"nas:/srv/9f2c":     "where is " + nasID + " /srv/9f2c",
		"/x/y":              "where is " + laptopID + " /x/y",
		"9f2c41d8":          "where is " + laptopID + " " + here + "/9f2c41d8\nwhere is " + laptopID + " 9f2c41d8",
		"nas:photos/a.jpg":  "where is " + nasID + " photos/a.jpg",
		"nas:/srv/9f2c41d8": "where is " + nasID + " /srv/9f2c41d8",
	} {
		b := newBench(t)
		b.run("where", arg)
		if got := b.fake.log(); got != want {
			t.Errorf("where %s: %q, want %q", arg, got, want)
		}
	}
}

// The answer stands under the name that was asked for, wherever that copy is in the list.
func TestWhereIsCalled(t *testing.T) {
	v := node.Whereabouts{Places: []node.Entry{{Name: "first"}, {Name: hostile}}}
	for arg, want := range map[string]string{"/x/" + hostile: hostile, "nas:photos/" + hostile: hostile, "/x/other": "first", "blake3:9f2c41d8": "first"} {
		var b bytes.Buffer
		if err := (&app{out: &b, zone: time.UTC, env: func(string) string { return "" }}).where(v, arg); err != nil {
			t.Fatal(err)
		}
		if out := b.String(); !strings.HasPrefix(out, escape(want)+"   ") {
			t.Errorf("where %s: %q, want %q first", arg, out, want)
		}
	}
}
