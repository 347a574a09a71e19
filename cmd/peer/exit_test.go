package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"peerdex/api"
	"peerdex/node"
)

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused := func(code node.Code, details any) *node.Problem {
		return &node.Problem{Code: code, Message: "cannot join", Cause: "the other side said no", Try: "peer invite", Details: details}
	}
	join := []string{"join", goodAddr + "#k7f3-9qxe"}
	for name, c := range map[string]struct {
		args    []string
		problem error // of the daemon
		exit    int
		code    node.Code
		says    string // part of stderr
		partial bool   // what was found before the error is printed
		plain   bool   // not also with --json, which asks for something else
	}{
		"unknown command":      {args: []string{"tmeline"}, exit: 2, code: node.CodeUsage, says: `unknown command "tmeline"`},
		"typo":                 {args: []string{"stauts"}, exit: 2, code: node.CodeUsage, says: "did you mean `status`?"},
		"typo below":           {args: []string{"sync", "pasue"}, exit: 2, code: node.CodeUsage, says: "did you mean `pause`?"},
		"no such list":         {args: []string{"devices", "expel", "nas"}, exit: 2, code: node.CodeUsage, says: `unknown command "expel"`},
		"revoke whom":          {args: []string{"devices", "revoke", "nsa", "--yes"}, exit: 5, code: node.CodeUnknownDevice, says: `the nearest name is "nas"`},
		"revoke na":            {args: []string{"devices", "revoke", "na", "--yes"}, exit: 2, code: node.CodeAmbiguous, says: "ambiguous"},
		"rename another":       {args: []string{"devices", "rename", "nas", "box"}, exit: 7, code: node.CodeConflict, says: "by itself alone"},
		"unknown flag":         {args: []string{"status", "--loud"}, exit: 2, code: node.CodeUsage, says: "--loud"},
		"argument missing":     {args: []string{"find"}, exit: 2, code: node.CodeUsage, says: "it needs an argument"},
		"argument too many":    {args: []string{"add", "/a", "/b"}, exit: 2, code: node.CodeUsage, says: "one argument too many"},
		"argument to none":     {args: []string{"status", "now"}, exit: 2, code: node.CodeUsage, says: "takes no argument"},
		"bad colour":           {args: []string{"status", "--color", "pink"}, exit: 2, code: node.CodeUsage, says: "pink"},
		"both watch, check":    {args: []string{"status", "--watch", "--check"}, exit: 2, code: node.CodeUsage, says: "check"},
		"ambiguous device":     {args: []string{"sync", "status", "--device", "na"}, exit: 2, code: node.CodeAmbiguous, says: `device "na" is ambiguous: nanopi (91HH-T3KB), nas (3F9D-PQ7A)`},
		"unknown device":       {args: []string{"find", "x", "--on", "nsa"}, exit: 5, code: node.CodeUnknownDevice, says: `the nearest name is "nas"`},
		"unknown location":     {args: []string{"locations", "show", "Pcitures"}, exit: 5, code: node.CodeUnknownLocation, says: `the nearest name is "Pictures"`},
		"hash of foreign":      {args: []string{"locations", "set", "photos", "--hash", "all"}, exit: 7, code: node.CodeConflict, says: "belongs to nas"},
		"hash not said":        {args: []string{"locations", "set", "Pictures"}, exit: 2, code: node.CodeUsage, says: "nothing to change"},
		"foreign location":     {args: []string{"locations", "remove", "photos"}, exit: 7, code: node.CodeConflict, says: "belongs to nas"},
		"ambiguous location":   {args: []string{"locations", "show", ""}, exit: 5, code: node.CodeUnknownLocation, says: `there is no location ""`},
		"unknown path":         {args: []string{"ls", "/missing"}, exit: 5, code: node.CodeNotFound, says: "/missing"},
		"device without path":  {args: []string{"ls", "nas:"}, exit: 2, code: node.CodeUsage, says: "lacks a path"},
		"two devices":          {args: []string{"ls", "nas:/a", "--on", "laptop"}, exit: 2, code: node.CodeUsage, says: "named twice"},
		"bad span":             {args: []string{"sync", "pause", "--for", "soon"}, exit: 2, code: node.CodeUsage, says: `"soon" is not a span of time`},
		"long span":            {args: []string{"sync", "pause", "--for", "200000d"}, exit: 2, code: node.CodeUsage, says: "the most is 100 years"},
		"longer span":          {args: []string{"sync", "pause", "--for", "99999999999999999999d"}, exit: 2, code: node.CodeUsage, says: "the most is 100 years"},
		"short span":           {args: []string{"sync", "pause", "--for", "0s"}, exit: 2, code: node.CodeUsage, says: "the least is 1s"},
		"pause ourselves":      {args: []string{"sync", "pause", "--device", "laptop"}, exit: 2, code: node.CodeUsage, says: "is this one"},
		"tag without path":     {args: []string{"tag", "add", "x"}, exit: 2, code: node.CodeUsage, says: "it is not said which files"},
		"tag where not":        {args: []string{"tag", "add", "x", "/missing"}, exit: 5, code: node.CodeNotFound, says: "/missing"},
		"tag elsewhere":        {args: []string{"tag", "add", "x", "nsa:/a"}, exit: 5, code: node.CodeUnknownDevice, says: `the nearest name is "nas"`},
		"tag unknown":          {args: []string{"tag", "remove", "x", "/a"}, problem: refused(node.CodeUnknownTag, nil), exit: 5, code: node.CodeUnknownTag, says: "said no"},
		"tag ambiguous":        {args: []string{"tag", "delete", "x"}, problem: refused(node.CodeAmbiguous, nil), exit: 2, code: node.CodeAmbiguous, says: "said no"},
		"tag taken":            {args: []string{"tag", "rename", "x", "y"}, problem: refused(node.CodeConflict, nil), exit: 7, code: node.CodeConflict, says: "said no"},
		"clock wrong":          {args: []string{"note", "/a", "text"}, problem: refused(node.CodeClock, nil), exit: 7, code: node.CodeClock, says: "said no"},
		"note where not":       {args: []string{"note", "/missing"}, exit: 5, code: node.CodeNotFound, says: "/missing"},
		"no such tagging":      {args: []string{"tag", "ad", "x"}, exit: 2, code: node.CodeUsage, says: "did you mean `add`?"},
		"bad sort":             {args: []string{"find", "x", "--sort", "colour"}, exit: 2, code: node.CodeUsage, says: "colour"},
		"bad limit":            {args: []string{"find", "x", "--limit", "-1"}, exit: 2, code: node.CodeUsage, says: "-1"},
		"long query":           {args: []string{"find", strings.Repeat("x", 2000)}, exit: 2, code: node.CodeBadQuery, says: "2000 bytes"},
		"bad key":              {args: []string{"find", "tax", "extn:pdf"}, exit: 2, code: node.CodeBadQuery, says: "cause: tax extn:pdf\n           ^^^^^\n"},
		"hostile query":        {args: []string{"find", "a\x1b[2J\xff", "| |", "b"}, exit: 2, code: node.CodeBadQuery, says: "cause: a\\x1b[2J\\xff | | b\n                      ^\n"},
		"unknown on":           {args: []string{"find", "x on:nsa"}, exit: 5, code: node.CodeUnknownDevice, says: `the nearest name is "nas"`},
		"ambiguous on":         {args: []string{"find", "on:na"}, exit: 2, code: node.CodeAmbiguous, says: `device "na" is ambiguous`},
		"where unknown":        {args: []string{"where", "/missing"}, exit: 5, code: node.CodeNotFound, says: "/missing"},
		"info unknown device":  {args: []string{"info", "nsa:/x"}, exit: 5, code: node.CodeUnknownDevice, says: "nsa"},
		"info of a hash":       {args: []string{"info", "blake3:9f2c41d8"}, exit: 2, code: node.CodeUsage, says: "names a content"},
		"bad model":            {args: []string{"sync", "metrics", "--model", "tags"}, exit: 2, code: node.CodeUsage, says: `no model "tags"`},
		"nothing found":        {args: []string{"find", "-q", "nothing"}, exit: 10},
		"something found":      {args: []string{"find", "-q", "beach"}, exit: 0},
		"search breaks":        {args: []string{"find", "-0", "breaks"}, exit: 1, code: node.CodeInternal, says: "checksum mismatch", partial: true, plain: true},
		"search in a document": {args: []string{"find", "breaks", "--json"}, exit: 1, code: node.CodeInternal, says: "checksum mismatch", plain: true},
		"bad multiaddr":        {args: []string{"join", "192.168.1.20:4001#k7f3"}, exit: 2, code: node.CodeBadAddress, says: "not a multiaddr"},
		"no peer id":           {args: []string{"join", "/ip4/1.2.3.4/tcp/4001#k7f3"}, exit: 2, code: node.CodeBadAddress, says: "/p2p/"},
		"no address":           {args: []string{"join", "#k7f3"}, exit: 2, code: node.CodeBadAddress, says: "no address"},
		"long join line":       {args: []string{"join", strings.Repeat("x", 5000)}, exit: 2, code: node.CodeBadAddress, says: "5000 bytes"},
		"wrong invite":         {args: join, problem: refused(node.CodeInviteWrong, nil), exit: 4, code: node.CodeInviteWrong, says: "cannot join"},
		"used invite":          {args: join, problem: refused(node.CodeInviteUsed, nil), exit: 4, code: node.CodeInviteUsed, says: "cannot join"},
		"expired invite":       {args: join, problem: refused(node.CodeInviteExpired, nil), exit: 4, code: node.CodeInviteExpired, says: "cannot join"},
		"two settings":         {args: []string{"locations", "set", "photos", "--hash", "all", "--fetch", "lazy"}, exit: 2, code: node.CodeUsage},
		"unreachable": {args: join, problem: refused(node.CodeUnreachable, []node.AddressResult{{Address: "/ip4/1.2.3.4/tcp/1", Result: "connection refused"},
			{Address: "/ip4/1.2.3.4/udp/1/quic-v1", Result: "timed out after 5 s"}}), exit: 8, code: node.CodeUnreachable, says: "/ip4/1.2.3.4/udp/1/quic-v1"},
		"other library":    {args: join, problem: refused(node.CodeOtherLibrary, nil), exit: 7, code: node.CodeOtherLibrary, says: "cannot join"},
		"no uses":          {args: []string{"invite", "--uses", "0"}, exit: 2, code: node.CodeUsage, says: "lets nobody in"},
		"many uses":        {args: []string{"invite", "--uses", "1000"}, exit: 2, code: node.CodeUsage, says: "1000"},
		"long invite":      {args: []string{"invite", "--ttl", "30d"}, exit: 2, code: node.CodeUsage, says: "24 hours"},
		"folder missing":   {args: []string{"add", filepath.Join(dir, "none")}, exit: 5, code: node.CodeFolderMissing, says: "there is no folder"},
		"folder is a file": {args: []string{"add", file}, exit: 2, code: node.CodeNotFolder, says: "is not a folder"},
		"folder overlaps":  {args: []string{"add", dir}, problem: refused(node.CodeFolderOverlap, nil), exit: 7, code: node.CodeFolderOverlap, says: "cannot join"},
		"store broken":     {args: []string{"sync", "resume"}, problem: refused(node.CodeIntegrity, nil), exit: 9, code: node.CodeIntegrity, says: "cannot join"},
		"already running":  {args: []string{"start"}, exit: 7, code: node.CodeAlreadyRunning, says: "already running (pid 1073741824, since 09:25)"},
		"start and add":    {args: []string{"start", dir}, exit: 7, code: node.CodeAlreadyRunning, says: "peer add " + dir},
		"start, no folder": {args: []string{"start", filepath.Join(dir, "none")}, exit: 5, code: node.CodeFolderMissing, says: "there is no folder"},
		"start overlap":    {args: []string{"start", dir, filepath.Dir(dir)}, exit: 7, code: node.CodeFolderOverlap, says: "overlaps"},
		"start bad join":   {args: []string{"start", "--join", "nonsense"}, exit: 2, code: node.CodeBadAddress, says: "not a multiaddr"},
		"start empty join": {args: []string{"start", "--join", ""}, exit: 2, code: node.CodeBadAddress, says: "no address"},
		"start bad addr":   {args: []string{"start", "--listen", "localhost:80"}, exit: 2, code: node.CodeBadAddress, says: "localhost:80"},
		"bad push":         {args: []string{"start", "--push", "0"}, exit: 2, code: node.CodeUsage, says: `"0" is not a number of 1 or more`},
		"long push":        {args: []string{"start", "--push", "1001"}, exit: 2, code: node.CodeUsage, says: "at most 1,000 changes, not 1,001"},
		"push above bulk":  {args: []string{"start", "--push", "101", "--bulk", "100"}, exit: 2, code: node.CodeUsage, says: "thresholds do not fit"},
		"bad bulk":         {args: []string{"start", "--bulk", "many"}, exit: 2, code: node.CodeUsage, says: `"many" is not a number`},
		"export to -":      {args: []string{"snapshot", "export", "-"}, exit: 2, code: node.CodeUsage, says: "goes to a file"},
		"import from -":    {args: []string{"snapshot", "import", "-"}, exit: 2, code: node.CodeUsage, says: "comes from one"},
		"bad snapshot":     {args: []string{"start", "--snapshot", "-1"}, exit: 2, code: node.CodeUsage, says: "--snapshot"},
		"bad mdns":         {args: []string{"start", "--mdns", "maybe"}, exit: 2, code: node.CodeUsage, says: "maybe"},
		"bad pubsub":       {args: []string{"start", "--pubsub", "maybe"}, exit: 2, code: node.CodeUsage, says: "maybe"},
		"bad since":        {args: []string{"sync", "events", "--since", "1 hour before"}, exit: 2, code: node.CodeBadTime, says: `"1 hour before" is not a time`},
		"bad until":        {args: []string{"sync", "events", "--until", "25:00"}, exit: 2, code: node.CodeBadTime, says: "--until '1 hour ago'"},
		"no time between":  {args: []string{"sync", "events", "--since", "1h", "--until", "2h"}, exit: 2, code: node.CodeUsage, says: "not after"},
		"bad event type":   {args: []string{"sync", "events", "--event-type", "peer_conected"}, exit: 2, code: node.CodeUsage, says: `the nearest is "peer_connected"`},
		"bad category":     {args: []string{"sync", "events", "--category", "gossip"}, exit: 2, code: node.CodeUsage, says: "gossip"},
		"bad severity":     {args: []string{"sync", "events", "--min-severity", "fatal"}, exit: 2, code: node.CodeUsage, says: "debug, info, warning, error"},
		"bad session":      {args: []string{"sync", "events", "--correlation-id", "xyz"}, exit: 2, code: node.CodeUsage, says: "is not a session"},
		"bad expression":   {args: []string{"sync", "events", "--grep", "("}, exit: 2, code: node.CodeUsage, says: "regular expression"},
		"bad format":       {args: []string{"sync", "events", "--format", "xml"}, exit: 2, code: node.CodeUsage, says: "xml"},
		"follow in sql":    {args: []string{"sync", "events", "-f", "--format", "sql"}, exit: 2, code: node.CodeUsage, says: "cannot follow", plain: true},
		"bad order":        {args: []string{"sync", "events", "--order", "up"}, exit: 2, code: node.CodeUsage, says: "up"},
		"bad count":        {args: []string{"sync", "events", "--limit", "-5"}, exit: 2, code: node.CodeUsage, says: "-5"},
		"unknown peer":     {args: []string{"sync", "events", "--peer", "attic"}, exit: 5, code: node.CodeUnknownDevice, says: "attic"},
		"no directory":     {args: []string{"sync", "events", "-o", "/nonexistent/events.sql"}, exit: 7, code: node.CodeConflict, says: "cannot write"},
		"empty folder":     {args: []string{"add", ""}, exit: 2, code: node.CodeUsage, says: "empty"},
		"start, empty":     {args: []string{"start", ""}, exit: 2, code: node.CodeUsage, says: "empty"},
		"unknown shell":    {args: []string{"completion", "tcsh"}, exit: 2, code: node.CodeUsage, says: "tcsh"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.fake.problem = c.problem
			code, out, stderr := b.run(c.args...)
			if c.partial {
				out = ""
			}
			if code != c.exit || out != "" || !strings.Contains(stderr, c.says) {
				t.Errorf("exit %d, want %d; stdout %q; stderr %q lacks %q", code, c.exit, out, stderr, c.says)
			}
			harmless(t, stderr)
			if c.problem == nil && b.fake.log() != "" && !strings.HasPrefix(b.fake.log(), "find") && !strings.HasPrefix(b.fake.log(), "list") && !strings.HasPrefix(b.fake.log(), "where") {
				t.Errorf("the daemon was asked to %s", b.fake.log())
			}
			if c.code == "" {
				return
			}
			if c.args[len(c.args)-1] != "--json" {
				for _, part := range []string{"error: ", "cause: ", "try:   "} {
					if strings.Count("\n"+stderr, "\n"+part) != 1 {
						t.Errorf("stderr has not one %q: %q", part, stderr)
					}
				}
			}
			if c.plain {
				return
			}
			_, out, stderr = b.run(append(c.args, "--json")...)
			doc := one(t, stderr)
			if e, _ := doc["error"].(map[string]any); out != "" || e["code"] != string(c.code) || e["message"] == "" {
				t.Errorf("--json: stdout %q, stderr %q", out, stderr)
			}
		})
	}
}

// A round that reached nobody has said so in its answer, and ends like what cannot be reached.
func TestNowNoneReached(t *testing.T) {
	b := newBench(t)
	code, out, stderr := b.run("sync", "now", "--device", "K0VN")
	if code != 8 || !strings.Contains(out, "not reached: connection refused") || !strings.Contains(stderr, "was not reached\ncause: connection refused") {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	harmless(t, out+stderr)
	code, out, stderr = b.run("sync", "now", "--device", "K0VN", "--json")
	if one(t, out); code != 8 || one(t, stderr)["error"] == nil {
		t.Errorf("--json: exit %d, %q, %q", code, out, stderr)
	}
	if code, out, _ := b.run("sync", "now"); code != 0 || strings.Count(out, "  reached") != 2 {
		t.Errorf("one was not reached: exit %d, %q", code, out)
	}
}

// What stdout does not take is told as that, of help too.
func TestStdoutFull(t *testing.T) {
	for _, args := range [][]string{{"status"}, {"status", "--help"}, {"version"}, {"completion", "bash"}} {
		b := newBench(t)
		var stderr bytes.Buffer
		a := b.app(nil, &stderr)
		a.out = full{}
		code := a.main(t.Context(), args)
		if text := stderr.String(); code != 1 || !strings.HasPrefix(text, "error: the answer could not be written to stdout\ncause: no space left on device\ntry: ") {
			t.Errorf("peer %v: exit %d, %q", args, code, text)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "/dev/stdout", Err: errors.New("no space left on device")}
}

// Each address that did not answer is printed once.
func TestUnreachableOnce(t *testing.T) {
	b := newBench(t)
	b.fake.problem = &node.Problem{Code: node.CodeUnreachable, Message: "cannot join: nothing answered", Cause: "/ip4/1.2.3.4/tcp/1 timed out; /ip4/1.2.3.5/tcp/1 no route", Try: "t",
		Details: []node.AddressResult{{Address: "/ip4/1.2.3.4/tcp/1", Result: "timed out"}, {Address: "/ip4/1.2.3.5/tcp/1", Result: "no route"}}}
	_, _, stderr := b.run("join", goodAddr)
	if want := "error: cannot join: nothing answered\ncause: /ip4/1.2.3.4/tcp/1: timed out\n       /ip4/1.2.3.5/tcp/1: no route\ntry:   t\n"; stderr != want {
		t.Errorf("%q, want %q", stderr, want)
	}
}

func TestNoDaemon(t *testing.T) {
	for _, line := range []string{"status", "stop", "devices", "locations", "locations show x", "locations remove x", "locations rescan x", "add .",
		"ls", "ls /x", "find x", "find -q x", "where /x", "where 9f2c41d8", "info /x", "invite", "join " + goodAddr, "sync status", "sync pause", "sync resume", "sync now", "sync metrics", "sync events", "sync events -f"} {
		b := newHome(t)
		code, out, stderr := b.run(strings.Fields(line)...)
		if code != 3 || out != "" || !strings.Contains(stderr, "no daemon is running here") || !strings.Contains(stderr, "peer start") {
			t.Errorf("peer %s: exit %d, stdout %q, stderr %q", line, code, out, stderr)
		}
		if left, err := os.ReadDir(b.home); err != nil || len(left) != 0 {
			t.Errorf("peer %s left %v (%v)", line, left, err)
		}
	}
}

// Homes that a start must not touch, and nodes that do not open.
func TestStartRefuses(t *testing.T) {
	never := func(context.Context, nodeConfig) (daemon, error) {
		t.Error("the node was opened")
		return nil, os.ErrInvalid
	}
	cannot := func(code node.Code) opener {
		return func(context.Context, nodeConfig) (daemon, error) {
			return nil, &node.Problem{Code: code, Message: "cannot open", Cause: "because", Try: "something else"}
		}
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, b *bench)
		open    opener
		exit    int
		says    string
	}{
		"open to others": {func(t *testing.T, b *bench) { os.Chmod(b.home, 0o755) }, never, 7, "mode 0755"},
		"symlink": {func(t *testing.T, b *bench) {
			link := b.home + "-link"
			if err := os.Symlink(b.home, link); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Remove(link) })
			b.home = link
		}, never, 7, "symbolic link"},
		"a file": {func(t *testing.T, b *bench) {
			os.Remove(b.home)
			os.WriteFile(b.home, nil, 0o600)
		}, never, 7, "not a directory"},
		"no write": {func(t *testing.T, b *bench) {
			if os.Getuid() == 0 {
				t.Skip("root writes everywhere")
			}
			os.Chmod(b.home, 0o500)
		}, never, 7, "cannot be written"},
		"newer schema":  {nil, cannot(node.CodeNewerSchema), 7, "cannot open"},
		"port in use":   {nil, cannot(node.CodePortInUse), 7, "cannot open"},
		"corrupt":       {nil, cannot(node.CodeIntegrity), 9, "cannot open"},
		"bad log level": {func(t *testing.T, b *bench) { b.env["PEER_LOG"] = "loud" }, never, 2, "loud"},
		"long socket":   {func(t *testing.T, b *bench) { b.env["PEER_SOCKET"] = "/tmp/" + strings.Repeat("s", 120) }, never, 2, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newHome(t)
			b.open = c.open
			if c.prepare != nil {
				c.prepare(t, b)
			}
			code, out, stderr := b.run("start")
			if code != c.exit || out != "" || !strings.Contains(stderr, c.says) {
				t.Errorf("exit %d, want %d; stdout %q, stderr %q", code, c.exit, out, stderr)
			}
			if _, err := os.Lstat(filepath.Join(b.home, "peer.sock")); err == nil {
				t.Error("the socket was left behind")
			}
		})
	}
}

// Every code has an exit code that the help explains and an HTTP status.
func TestCodes(t *testing.T) {
	for _, c := range node.Codes() {
		if exitMeaning[c.Exit()] == "" {
			t.Errorf("%s: exit code %d is not explained", c, c.Exit())
		}
		if c.Status() < 400 {
			t.Errorf("%s: HTTP status %d", c, c.Status())
		}
	}
	if node.Code("of the future").Exit() != 1 {
		t.Error("an unknown code must mean failure")
	}
}

// valueOfWords is a flag whose value is named by several words.
var valueOfWords = regexp.MustCompile(`(?m)^ +(-\w, )?--[\w-]+( \w\S*){2,}   `)

// Each command shows three examples and its exit codes, and takes no arguments it does not know.
func TestHelp(t *testing.T) {
	a := newHome(t).app(nil, nil)
	var walk func(path string)
	walk = func(path string) {
		b := newHome(t)
		args := append(strings.Fields(path), "--help")
		code, out, stderr := b.run(args...)
		if code != 0 || stderr != "" {
			t.Errorf("peer %v: exit %d, %s", args, code, stderr)
		}
		if wrong := valueOfWords.FindString(out); wrong != "" { // backquotes in the help of a flag name its value
			t.Errorf("peer %v: %q", args, wrong)
		}
		if !strings.Contains(out, "Exit codes:\n  0    done") {
			t.Errorf("peer %v does not name its exit codes", args)
		}
		_, examples, _ := strings.Cut(out, "Examples:\n")
		examples, _, _ = strings.Cut(examples, "\n\n")
		if n := strings.Count("\n"+examples, "\n  peer ") + strings.Count("\n"+examples, "\n  source <(peer "); n != 3 && path != "help" {
			t.Errorf("peer %v has %d examples, want 3", args, n)
		}
		cmd, _, err := a.root().Find(strings.Fields(path))
		if err != nil {
			t.Fatal(err)
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				walk(strings.TrimSpace(path + " " + sub.Name()))
			}
		}
	}
	walk("")
	for _, args := range [][]string{{}, {"help"}, {"help", "sync", "status"}, {"sync"}} {
		if code, out, _ := newHome(t).run(args...); code != 0 || !strings.Contains(out, "Usage:") {
			t.Errorf("peer %v: exit %d, %q", args, code, out)
		}
	}
	if code, _, stderr := newHome(t).run("help", "tmeline"); code != 2 || !strings.Contains(stderr, "tmeline") {
		t.Errorf("peer help tmeline: exit %d, %q", code, stderr)
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := newHome(t).run("version", "--json")
	if doc := one(t, out); code != 0 || doc["version"] != version || doc["go"] == "" {
		t.Errorf("exit %d, %v", code, doc)
	}
	if _, out, _ := newHome(t).run("version"); !strings.HasPrefix(out, "peer "+version+" ") {
		t.Errorf("%q", out)
	}
}

func TestDocumentKeepsMeaning(t *testing.T) {
	text := hostile + "\U000e0001 \u2028 \x7f é 漢 👍"
	doc, err := api.Document("peer.test/v1", map[string]string{"name": text})
	if err != nil {
		t.Fatal(err)
	}
	harmless(t, string(doc))
	var back map[string]string
	if err := json.Unmarshal(doc, &back); err != nil {
		t.Fatal(err)
	}
	if want := strings.ToValidUTF8(text, "\ufffd"); back["name"] != want {
		t.Errorf("%q came back as %q", want, back["name"])
	}
}
