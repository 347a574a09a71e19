package catalog

import (
	"fmt"
	"slices"

	"peerdex/record"
)

// Policy says which files of a location are read, to hash their contents. Names, sizes and times are
// catalogued whatever it says.
type Policy string

const (
	HashAuto Policy = "auto" // those whose size another file has too, on whatever device
	HashAll  Policy = "all"
	HashNone Policy = "none"
)

// Policies are all there are.
var Policies = []Policy{HashAuto, HashAll, HashNone}

// fieldHash is a field of a location: its policy. Without it the policy is HashAuto.
const fieldHash = "hash"

// policyOf reads a policy as a register holds it. One of a newer version reads nothing.
func policyOf(value []byte) Policy {
	if p := Policy(value); slices.Contains(Policies, p) {
		return p
	}
	return HashNone
}

// SetPolicy changes which files of a location are read to hash their contents: durable on return. Hashes
// that are known stay. It returns a *Refusal or the store's error.
func (ix *Indexer) SetPolicy(id record.LocationID, p Policy) (Location, error) {
	if !slices.Contains(Policies, p) {
		return Location{}, &Refusal{Path: string(p), Err: ErrBadPolicy}
	}
	ix.change.Lock()
	defer ix.change.Unlock()
	own, err := ix.own()
	if err != nil {
		return Location{}, err
	}
	at := slices.IndexFunc(own, func(l Location) bool { return l.ID == id })
	if at < 0 {
		return Location{}, &Refusal{Path: id.String(), Err: ErrUnknown}
	}
	l := own[at]
	if l.Hash == p {
		return l, nil
	}
	l.Hash = p
	err = ix.feeds.SetRegisters(record.Register{Entity: l.entity(), Field: fieldHash, Value: []byte(p)})
	if err == nil {
		err = ix.feeds.Sync()
	}
	if err != nil {
		return Location{}, fmt.Errorf("change location %q: %w", l.Name, err)
	}
	ix.cfg.Events.LocationChanged(l.ID, l.Name, p)
	ix.hasher.again()
	return l, nil
}
