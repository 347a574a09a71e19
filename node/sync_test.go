package node

import (
	"context"
	"errors"
	"slices"
	"testing"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
)

func TestPullOrder(t *testing.T) {
	one, two := feed.ID{Device: record.DeviceID{1}}, feed.ID{Device: record.DeviceID{2}}
	oneFiles, twoFiles := locationFeed(one.Device, record.LocationID{7}), locationFeed(two.Device, record.LocationID{3})
	feeds := []feed.ID{twoFiles, oneFiles, two, one}
	slices.SortFunc(feeds, pullOrder)
	if want := []feed.ID{one, two, oneFiles, twoFiles}; !slices.Equal(feeds, want) {
		t.Errorf("pulled in the order %v, want %v", feeds, want)
	}
}

// A pull ends with the session beside it, though its own stream may seem to live.
func TestPullEndsWithSession(t *testing.T) {
	a, b, _, _, _ := pair(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	b.mu.Lock()
	b.pulls[a.self] = &pulling{donor: a.self, cancel: cancel}
	b.mu.Unlock()
	a.stop()
	await(t, "the end of the pull", func() bool { return errors.Is(context.Cause(ctx), protocol.CodeLost) })
}
