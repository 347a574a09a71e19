package node

import (
	"context"
	"errors"
	"fmt"

	"peerdex/catalog"
)

// SetHashing changes which files of a location of this device are read to hash their contents.
func (n *Node) SetHashing(ctx context.Context, id, policy string) (LocationView, error) {
	if err := n.awaitAsked(ctx); err != nil {
		return LocationView{}, err
	}
	loc, err := n.ownLocation(id)
	if err != nil {
		return LocationView{}, err
	}
	if loc, err = n.indexer.SetPolicy(loc.ID, catalog.Policy(policy)); err != nil {
		if errors.Is(err, catalog.ErrBadPolicy) {
			return LocationView{}, &Problem{Code: CodeUsage, Message: fmt.Sprintf("cannot hash %q", policy), Cause: catalog.ErrBadPolicy.Error(), Try: "peer help locations set"}
		}
		return LocationView{}, spaceProblem(err)
	}
	views, err := n.Locations(ctx)
	if err != nil {
		return LocationView{}, err
	}
	for _, v := range views {
		if v.ID == id {
			return v, nil
		}
	}
	return LocationView{}, &Problem{Code: CodeUnknownLocation, Message: "the location was removed meanwhile", Try: "peer locations"}
}
