package protocol

import (
	"peerdex/feed"
	"peerdex/protocol/wirepb"
)

// CapabilityBulk is the capability to take BulkIndexComplete, and heads of feeds whose entries the sender
// declines.
const CapabilityBulk = "bulk"

// BulkIndexComplete says that one location of the sender has gained much in one scan. It is a hint: who hears
// it decides what to do about the entries.
type BulkIndexComplete struct {
	Head    feed.Head // after the scan, durable
	Entries uint64    // that the scan left in the feed
	Bytes   uint64    // of those entries, before compression
	Time    int64     // when the scan ended, Unix nanoseconds
}

func (*BulkIndexComplete) number() uint8 { return numBulkIndex }

func (m *BulkIndexComplete) check() error {
	if err := checkHead(m.Head); err != nil {
		return err
	}
	if m.Head.Feed.IsDevice() || m.Entries == 0 || m.Entries > m.Head.Count {
		return malformed("%d of %d entries indexed in feed %v", m.Entries, m.Head.Count, m.Head.Feed)
	}
	return checkTimes(m.Time)
}

func (m *BulkIndexComplete) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.BulkIndexComplete{Head: m.Head.Append(nil), Entries: m.Entries, Bytes: m.Bytes, Time: uint64(m.Time)})
}

func (m *BulkIndexComplete) parse(b []byte) (err error) {
	var pb wirepb.BulkIndexComplete
	if err = parsePB(b, &pb); err != nil {
		return err
	}
	m.Entries, m.Bytes, m.Time = pb.Entries, pb.Bytes, int64(pb.Time)
	m.Head, err = head(pb.Head)
	return err
}
