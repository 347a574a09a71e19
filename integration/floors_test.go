package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "peerdex"

// floors says how high each package stands. A package may import what stands lower, nothing beside it
// and nothing above; a package below another's folder stands on that one's floor and belongs to it.
var floors = map[string]int{
	"internal/failpoint": -1,
	"internal/mutant":    -1,
	"internal/english":   -1,
	"kv":                 0, "hlc": 0, "record": 0, "feed": 0, "member": 0, "metrics": 0, "query": 0,
	"protocol": 1, "store": 1, "eventlog": 1,
	"statebatch": 2, "backfill": 2, "snapshot": 2, "catalog": 2,
	"node":     3,
	"api":      4,
	"cmd/peer": 5, "integration": 5,
}

// beside are the only imports between packages of one floor.
var beside = map[string][]string{
	"record": {"hlc"},
	"feed":   {"record", "hlc"},
	"member": {"feed", "record", "hlc"},
}

// reserved are foreign packages that only some of ours may import, by what their paths begin with.
var reserved = []struct {
	prefix  string
	users   []string
	inTests bool // any test may import it too
}{
	{"github.com/dgraph-io/", []string{"store"}, false},
	{"github.com/libp2p/", []string{"protocol", "node", "cmd/peer", "integration"}, true},
}

// pkg is what the go command says of a package.
type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Error                              *struct{ Err string }
}

// owner returns the package of floors that path belongs to; false for foreign packages and for ours that
// have no floor.
func owner(path string) (string, bool) {
	path, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return "", false
	}
	for p := path; p != "."; {
		if _, ok := floors[p]; ok {
			return p, true
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return "", false
}

// violations returns a sentence for each import that breaks the order of the floors.
func violations(packages []pkg) (out []string) {
	byPath := map[string]pkg{}
	for _, p := range packages {
		byPath[p.ImportPath] = p
	}
	complain := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, p := range packages {
		if !strings.HasPrefix(p.ImportPath, module+"/") {
			continue // foreign; or the module's root, which nobody may import
		}
		self, ok := owner(p.ImportPath)
		if !ok {
			complain("%s stands on no floor", p.ImportPath)
			continue
		}
		for _, to := range p.Imports {
			target, ok := owner(to)
			switch {
			case to == module:
				complain("%s imports the module's root", p.ImportPath)
			case !ok || target == self: // a package of ours without a floor is reported by itself
			case floors[target] > floors[self]:
				complain("%s (floor %d) imports %s above it (floor %d)", p.ImportPath, floors[self], to, floors[target])
			case floors[target] == floors[self] && !slices.Contains(beside[self], target):
				complain("%s imports %s on its own floor %d", p.ImportPath, to, floors[self])
			}
		}
		for _, r := range reserved {
			if slices.Contains(r.users, self) {
				continue
			}
			if path := reach(byPath, p.Imports, r.prefix, nil); path != "" {
				complain("%s imports %s", p.ImportPath, path)
			}
			for _, to := range slices.Concat(p.TestImports, p.XTestImports) {
				if !r.inTests && strings.HasPrefix(to, r.prefix) {
					complain("a test of %s imports %s", p.ImportPath, to)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// reach returns how one comes from imports to a package that begins with prefix through foreign packages
// alone, or nothing: what our own packages import is checked where they stand.
func reach(byPath map[string]pkg, imports []string, prefix string, seen map[string]bool) string {
	if seen == nil {
		seen = map[string]bool{}
	}
	for _, to := range imports {
		if strings.HasPrefix(to, prefix) {
			return to
		}
		if seen[to] || to == module || strings.HasPrefix(to, module+"/") {
			continue
		}
		seen[to] = true
		if rest := reach(byPath, byPath[to].Imports, prefix, seen); rest != "" {
			return to + ", which imports " + rest
		}
	}
	return ""
}

// TestFloors keeps imports strictly downwards, on every system the product is built for.
func TestFloors(t *testing.T) {
	for _, system := range []string{"linux", "darwin", "windows"} {
		cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,TestImports,XTestImports,Error", "./...")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		list, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list for %s: %v\n%s", system, err, complaints.Bytes())
		}
		var packages []pkg
		for dec := json.NewDecoder(bytes.NewReader(list)); ; {
			var p pkg
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("answer of go list for %s: %v", system, err)
			}
			if p.Error != nil {
				t.Errorf("%s for %s: %s", p.ImportPath, system, p.Error.Err)
			}
			packages = append(packages, p)
		}
		for _, v := range violations(packages) {
			t.Errorf("%s: %s", system, v)
		}
	}
}

func TestFloorsAreEnforced(t *testing.T) {
	foreign := []pkg{
		{ImportPath: "github.com/dgraph-io/badger/v4"},
		{ImportPath: "github.com/libp2p/go-libp2p"},
		{ImportPath: "example.org/helper", Imports: []string{"example.org/deeper", "fmt"}},
		{ImportPath: "example.org/deeper", Imports: []string{"github.com/libp2p/go-libp2p", "example.org/helper"}},
		{ImportPath: "fmt"},
	}
	for _, c := range []struct {
		p    pkg
		want string
	}{
		{pkg{ImportPath: "peerdex/store", Imports: []string{"fmt", "peerdex/feed", "peerdex/kv", "github.com/dgraph-io/badger/v4"}}, ""},
		{pkg{ImportPath: "peerdex/member", Imports: []string{"peerdex/feed", "peerdex/record", "peerdex/hlc"}}, ""},
		{pkg{ImportPath: "peerdex/kv/memory", Imports: []string{"peerdex/kv"}}, ""},
		{pkg{ImportPath: "peerdex/protocol/wire", Imports: []string{"peerdex/feed"}}, ""},
		{pkg{ImportPath: "peerdex/protocol", Imports: []string{"peerdex/protocol/wire", "github.com/libp2p/go-libp2p"}}, ""},
		{pkg{ImportPath: "peerdex/integration/sim", Imports: []string{"peerdex/backfill", "peerdex/kv/memory"}}, ""},
		{pkg{ImportPath: "peerdex/cmd/peer", Imports: []string{"peerdex/node", "github.com/libp2p/go-libp2p"}}, ""},
		{pkg{ImportPath: "peerdex/backfill", TestImports: []string{"github.com/libp2p/go-libp2p", "peerdex/statebatch"}}, ""},
		{pkg{ImportPath: "peerdex", Imports: []string{"github.com/dgraph-io/badger/v4"}}, ""},

		{pkg{ImportPath: "peerdex/store", Imports: []string{"peerdex/node"}}, "peerdex/store (floor 1) imports peerdex/node above it (floor 3)"},
		{pkg{ImportPath: "peerdex/eventlog", Imports: []string{"peerdex/store"}}, "peerdex/eventlog imports peerdex/store on its own floor 1"},
		{pkg{ImportPath: "peerdex/hlc", Imports: []string{"peerdex/record"}}, "peerdex/hlc imports peerdex/record on its own floor 0"},
		{pkg{ImportPath: "peerdex/feed", Imports: []string{"peerdex/kv/memory"}}, "peerdex/feed imports peerdex/kv/memory on its own floor 0"},
		{pkg{ImportPath: "peerdex/catalog", Imports: []string{"peerdex/protocol", "github.com/libp2p/go-libp2p"}}, "peerdex/catalog imports github.com/libp2p/go-libp2p"},
		{pkg{ImportPath: "peerdex/api", Imports: []string{"github.com/dgraph-io/badger/v4"}}, "peerdex/api imports github.com/dgraph-io/badger/v4"},
		{pkg{ImportPath: "peerdex/node", XTestImports: []string{"github.com/dgraph-io/badger/v4"}}, "a test of peerdex/node imports github.com/dgraph-io/badger/v4"},
		{pkg{ImportPath: "peerdex/metrics", Imports: []string{"example.org/helper"}}, "peerdex/metrics imports example.org/helper, which imports example.org/deeper, which imports github.com/libp2p/go-libp2p"},
		{pkg{ImportPath: "peerdex/util"}, "peerdex/util stands on no floor"},
		{pkg{ImportPath: "peerdex/cmd/other"}, "peerdex/cmd/other stands on no floor"},
		{pkg{ImportPath: "peerdex/node", Imports: []string{"peerdex"}}, "peerdex/node imports the module's root"},
	} {
		if got := strings.Join(violations(append(slices.Clone(foreign), c.p)), "; "); got != c.want {
			t.Errorf("%s importing %v: %q, want %q", c.p.ImportPath, c.p.Imports, got, c.want)
		}
	}
}
