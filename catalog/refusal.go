package catalog

import (
	"errors"
	"fmt"
)

// Why Add or Remove refuse. They come wrapped in *Refusal.
var (
	ErrMissing      = errors.New("there is no such folder")
	ErrNotDirectory = errors.New("not a folder")
	ErrIndexed      = errors.New("already indexed")
	ErrInside       = errors.New("inside a folder that is indexed already")
	ErrContains     = errors.New("contains a folder that is indexed already")
	ErrNameTaken    = errors.New("another location has this name")
	ErrBadName      = errors.New("not a usable name")
	ErrBadIgnore    = errors.New("too many ignore patterns")
	ErrBadPolicy    = errors.New("which files to hash is one of auto, all and none")
	ErrHome         = errors.New("peer keeps its own data there")
	ErrUnknown      = errors.New("no such location on this device")
)

// Refusal says what Add or Remove would not do; nothing was changed.
type Refusal struct {
	Path  string   // or name, or id, that was asked for
	Other Location // the location in the way, for ErrIndexed, ErrInside, ErrContains and ErrNameTaken
	Err   error    // one of the above
}

func (r *Refusal) Error() string {
	if r.Other.ID.IsZero() {
		return fmt.Sprintf("%q: %v", r.Path, r.Err)
	}
	return fmt.Sprintf("%q: %v: location %q at %q", r.Path, r.Err, r.Other.Name, r.Other.Path)
}

func (r *Refusal) Unwrap() error { return r.Err }
