package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"peerdex/node"
)

// demoBench is a bench whose temporary files lie in a directory of the test, which must be empty when it ends.
func demoBench(t *testing.T) *bench {
	t.Helper()
	b := newHome(t)
	tmp := filepath.Join(b.home, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	t.Cleanup(func() {
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("left on disk: %v, %v", left, err)
		}
	})
	b.open = openNode
	return b
}

// Real devices play the whole script; nothing of them is left, on disk or in memory.
func TestDemo(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent(),
		// Started once per process by libraries and never ended.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
	b := demoBench(t)
	code, stdout, stderr := b.run("demo")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s\n%s", code, stderr, stdout)
	}
	harmless(t, stdout)
	took := regexp.MustCompile(`(?m) +[0-9.]+ (µs|ms|s)$`)
	stdout = regexp.MustCompile(`below .*`).ReplaceAllString(took.ReplaceAllString(stdout, ""), "below DIR")
	stdout = regexp.MustCompile(`#(relatives|kin)`).ReplaceAllString(stdout, "#ONE OF THEM")
	golden(t, "demo.txt", regexp.MustCompile(`as of .*`).ReplaceAllString(stdout, "as of TIME"))

	code, stdout, stderr = b.run("demo", "--nodes", "2", "--json")
	if doc := one(t, stdout); code != 0 || stderr != "" || doc["schema"] != "peer.demo/v1" || len(doc["steps"].([]any)) != 11 {
		t.Errorf("exit %d: %s\n%s", code, stderr, stdout)
	}
}

// dying is a device that ends by itself.
type dying struct{ daemon }

func (dying) Run(context.Context) error { return errors.New("no disk") }

// forgetful is a device that finds no beach.
type forgetful struct{ daemon }

func (f forgetful) Find(ctx context.Context, q node.FindQuery, fn func(node.Entry) error) (node.FindResult, error) {
	if q.Text == "beach" {
		return node.FindResult{}, nil
	}
	return f.daemon.Find(ctx, q, fn)
}

// A step that does not come true ends the demo with exit code 1, and the demo says which; what runs is ended.
func TestDemoFails(t *testing.T) {
	b := demoBench(t)
	for name, c := range map[string]struct {
		open opener
		says string
	}{
		"a node that cannot be opened": {
			func(context.Context, nodeConfig) (daemon, error) { return nil, errors.New("no disk") },
			"the demo failed at: each device starts and indexes a folder of its own\ncause: no disk\n",
		},
		"a node that ends": {
			func(ctx context.Context, cfg nodeConfig) (daemon, error) {
				n, err := openNode(ctx, cfg)
				return dying{n}, err
			},
			"cause: laptop stopped: no disk\n",
		},
		"a wrong answer": {
			func(ctx context.Context, cfg nodeConfig) (daemon, error) {
				n, err := openNode(ctx, cfg)
				return forgetful{n}, err
			},
			"the demo failed at: nas searches for beach\ncause: nas finds 0 of 2\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b.open = c.open
			code, _, stderr := b.run("demo")
			if code != 1 || !strings.Contains(stderr, c.says) {
				t.Errorf("exit %d: %s", code, stderr)
			}
		})
	}
	for _, n := range []int{-1, 0, 1, 6} {
		if code, _, stderr := b.run("demo", "--nodes", fmt.Sprint(n)); code != 2 || !strings.Contains(stderr, "2 to 5") {
			t.Errorf("%d nodes: exit %d: %s", n, code, stderr)
		}
	}
}
