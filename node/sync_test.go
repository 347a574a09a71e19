package node

import (
	"slices"
	"testing"

	"peerdex/feed"
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
