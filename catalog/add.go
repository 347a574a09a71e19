package catalog

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"peerdex/record"
)

// maxLocationName is the longest name of a location, in bytes.
const maxLocationName = 255

// Options are what may be said of a location when it is added.
type Options struct {
	Name   string   // for people; "" means the folder's own name, with a number if that is taken
	Ignore []string // patterns as in a .peerignore file in the folder itself, weaker than those there
	Hash   Policy   // "" means HashAuto
}

// Add makes a folder a location of this device: durable on return, indexed as soon as Run gets to it
// (Status tells). It returns a *Refusal, or the store's error.
func (ix *Indexer) Add(_ context.Context, path string, o Options) (Location, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return Location{}, fmt.Errorf("add %q: %w", path, err)
	}
	ix.change.Lock()
	defer ix.change.Unlock()
	own, err := ix.own()
	if err != nil {
		return Location{}, err
	}
	if err := ix.admit(abs, own); err != nil {
		return Location{}, err
	}
	// The folder itself, not the links that lead to it today: a link put in its place later is not followed.
	l := Location{Owner: ix.cfg.Device, Path: real(abs), Exists: true, Ignore: o.Ignore, Hash: cmp.Or(o.Hash, HashAuto)}
	if l.Name, err = nameFor(abs, o.Name, own); err != nil {
		return Location{}, err
	}
	globs := strings.Join(o.Ignore, "\n")
	if len(globs) > record.MaxValue || len(l.Path) > record.MaxValue {
		return Location{}, &Refusal{Path: abs, Err: ErrBadIgnore}
	}
	if !slices.Contains(Policies, l.Hash) {
		return Location{}, &Refusal{Path: string(l.Hash), Err: ErrBadPolicy}
	}
	rand.Read(l.ID[:])
	e := l.entity()
	regs := []record.Register{
		{Entity: e, Field: record.FieldPath, Value: []byte(l.Path)},
		{Entity: e, Field: record.FieldName, Value: []byte(l.Name)},
		{Entity: e, Field: record.FieldExists, Value: []byte{1}},
	}
	if globs != "" {
		regs = append(regs, record.Register{Entity: e, Field: fieldIgnore, Value: []byte(globs)})
	}
	if l.Hash != HashAuto {
		regs = append(regs, record.Register{Entity: e, Field: fieldHash, Value: []byte(l.Hash)})
	}
	if err := ix.feeds.SetRegisters(regs...); err != nil {
		return Location{}, fmt.Errorf("add location %q: %w", l.Name, err)
	}
	if err := ix.feeds.Sync(); err != nil {
		return Location{}, fmt.Errorf("add location %q: %w", l.Name, err)
	}
	ix.cfg.Events.LocationAdded(l.ID, l.Name, l.Path)
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.start(l, nil)
	return l, nil
}

// admit checks that abs may become a location beside own.
func (ix *Indexer) admit(abs string, own []Location) error {
	refuse := func(err error, other Location) error { return &Refusal{Path: abs, Other: other, Err: err} }
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, errNotDirectory):
		return refuse(ErrMissing, Location{})
	case err != nil:
		return fmt.Errorf("add %q: %w", abs, err)
	case !info.IsDir():
		return refuse(ErrNotDirectory, Location{})
	}
	folder := real(abs)
	if _, ok := beneath(folder, real(ix.cfg.Home)); ok {
		return refuse(ErrHome, Location{})
	}
	for _, o := range own {
		other := real(o.Path)
		if there, err := os.Stat(o.Path); folder == other || err == nil && os.SameFile(info, there) {
			return refuse(ErrIndexed, o)
		}
		if _, ok := beneath(folder, other); ok {
			return refuse(ErrInside, o)
		}
		if _, ok := beneath(other, folder); ok {
			return refuse(ErrContains, o)
		}
	}
	return nil
}

// nameFor returns the name of a new location.
func nameFor(abs, asked string, own []Location) (string, error) {
	taken := func(name string) (Location, bool) {
		i := slices.IndexFunc(own, func(l Location) bool { return l.Name == name })
		if i < 0 {
			return Location{}, false
		}
		return own[i], true
	}
	if asked != "" {
		if !utf8.ValidString(asked) || len(asked) > maxLocationName || strings.ContainsAny(asked, "/\x00") {
			return "", &Refusal{Path: asked, Err: ErrBadName}
		}
		if other, ok := taken(asked); ok {
			return "", &Refusal{Path: asked, Other: other, Err: ErrNameTaken}
		}
		return asked, nil
	}
	base := filepath.Base(abs)
	if base == string(filepath.Separator) || base == "." {
		base = "root"
	}
	name := base
	for n := 2; ; n++ {
		if _, ok := taken(name); !ok {
			return name, nil
		}
		name = fmt.Sprintf("%s-%d", base, n)
	}
}

// real resolves links in path as far as it exists; "" stays "".
func real(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	return path
}

// beneath returns the path of inner below outer: "" if they are the same, false if inner is elsewhere.
func beneath(inner, outer string) (string, bool) {
	rel, err := filepath.Rel(outer, inner)
	if err != nil || inner == "" || outer == "" || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return "", false
	}
	if rel == "." {
		return "", true
	}
	return rel, true
}
