package catalog

import (
	"context"
	"fmt"
	"testing"

	"peerdex/feed"
	"peerdex/record"
)

// A file is found by any number of the first digits of its hash, whatever they are, and by no others.
func TestHashedByDigits(t *testing.T) {
	c := &Catalog{column: newColumn()}
	close(c.column.ready)
	id := feed.ID{Location: record.LocationID{1}}
	s := newSegment()
	c.column.segments[id] = s
	for n := range 256 {
		s.Put(record.File{ID: record.EntryID{1, byte(n)}, Kind: record.Regular, Name: fmt.Sprint(n), Hash: record.Hash{byte(n), 0xD5, byte(255 - n)}})
	}
	for n := range 256 {
		whole := record.Hash{byte(n), 0xD5, byte(255 - n)}.String()
		for _, digits := range []int{4, 5, 6, 64} {
			var b beginnings
			if err := b.addDigits(whole[:digits]); err != nil {
				t.Fatal(err)
			}
			if got := s.holders(id, &b); len(got) != 1 || got[0].entry != (record.EntryID{1, byte(n)}) {
				t.Fatalf("%s: %v", whole[:digits], got)
			}
		}
	}
	var b beginnings
	if err := b.addDigits("9"); err != nil || len(s.holders(id, &b)) != 16 {
		t.Errorf("one digit finds %d, %v", len(s.holders(id, &b)), err)
	}
	if err := c.beginning(context.Background(), []string{"x"}, nil); err == nil {
		t.Error("x is a digit")
	}
}
