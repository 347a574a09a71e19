package integration

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/multiformats/go-multiaddr"

	"peerdex/node"
)

// inner is a device that lives in this process: for what no command line asks for, such as listening
// nowhere.
type inner struct {
	*node.Node
	name string
	stop func() // it has ended on return; may be called again
}

// deaf is a listen list with nothing on it: such a device dials and cannot be dialed.
var deaf = []multiaddr.Multiaddr{}

// newInner opens and runs a node. cfg.Home may be empty.
func newInner(t testing.TB, cfg node.Config) *inner {
	t.Helper()
	if cfg.Home == "" {
		cfg.Home = filepath.Join(tempDir(t), "home")
		if err := os.Mkdir(cfg.Home, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Version = "test"
	n, err := node.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := n.Run(ctx); err != nil {
			t.Errorf("node %s: %v", cfg.Name, err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("close node %s: %v", cfg.Name, err)
		}
	}()
	stop := func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return &inner{n, cfg.Name, stop}
}

// join joins by a line and returns when in step.
func (n *inner) join(t testing.TB, line string) {
	t.Helper()
	req, err := node.ParseJoinLine(line)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.Join(ctx, req, func(node.JoinProgress) {}); err != nil {
		t.Fatal(err)
	}
}

// add indexes a folder.
func (n *inner) add(t testing.TB, folder string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := n.AddLocation(ctx, node.AddRequest{Path: folder}, func(node.ScanProgress) {}); err != nil {
		t.Fatal(err)
	}
}

// same waits until viewers show one catalogue with this many rows.
func same(t testing.TB, rows int, viewers ...viewer) (c catalogue) {
	t.Helper()
	eventually(t, "the same everywhere", func() string {
		c = dumpOf(t, viewers[0])
		if len(c.rows) != rows {
			return plural(len(c.rows), "row")
		}
		for _, v := range viewers[1:] {
			if d := c.diff(dumpOf(t, v)); d != "" {
				return d
			}
		}
		return ""
	})
	return c
}
