package eventlog

import (
	"encoding/binary"
	"fmt"

	"peerdex/hlc"
	"peerdex/kv"
)

// Keys of the log. All begin with family; a position is 8 bytes of HLC and 8 of sequence number, both
// big-endian, so that every index is in the order of the log.
//
//	v m                                         what is stored in all, see meta
//	v e position                                the event, see appendRow; about 300 bytes
//	v t len category len type position          empty
//	v c session(16) position                    empty, only of events with a session
//	v p len peer position                       empty, only of events with a peer
//	v s severity(1) position                    empty
const (
	family = 'v'

	tableMeta     = 'm'
	tableEvents   = 'e'
	tableTypes    = 't'
	tableSessions = 'c'
	tablePeers    = 'p'
	tableSeverity = 's'
)

var metaKey = []byte{family, tableMeta}

const positionSize = 16

func (p Position) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(p.HLC.Append(b), p.Seq)
}

func positionOf(key []byte) Position {
	tail := key[len(key)-positionSize:]
	return Position{hlc.FromBytes(tail), binary.BigEndian.Uint64(tail[hlc.Size:])}
}

func eventKey(p Position) []byte { return p.append([]byte{family, tableEvents}) }

func categoryPrefix(c Category) []byte { return appendText([]byte{family, tableTypes}, string(c)) }

func typePrefix(c Category, t Type) []byte { return appendText(categoryPrefix(c), string(t)) }

func sessionPrefix(id ID) []byte { return append([]byte{family, tableSessions}, id[:]...) }

func peerPrefix(peer string) []byte { return appendText([]byte{family, tablePeers}, peer) }

func severityPrefix(rank int) []byte { return []byte{family, tableSeverity, byte(rank)} }

// indexKeys returns the keys of e besides that of the event itself.
func indexKeys(e Event) [][]byte {
	at := e.Position()
	keys := [][]byte{
		at.append(typePrefix(e.Category, e.Type)),
		at.append(severityPrefix(e.Severity.rank())),
	}
	if !e.CorrelationID.IsZero() {
		keys = append(keys, at.append(sessionPrefix(e.CorrelationID)))
	}
	if e.PeerDeviceID != "" {
		keys = append(keys, at.append(peerPrefix(e.PeerDeviceID)))
	}
	return keys
}

// meta is what the log knows of itself; it changes in the transaction of the events it counts.
type meta struct {
	seq   uint64    // the last given out
	stamp hlc.Stamp // of the last event
	count [4]uint64 // events stored, by severity
	bytes [4]uint64 // keys and values of those events
}

const (
	metaVersion = 1
	metaSize    = 1 + 8 + 8 + 4*8 + 4*8
)

func (m meta) total() (events, bytes uint64) {
	for i := range m.count {
		events += m.count[i]
		bytes += m.bytes[i]
	}
	return events, bytes
}

func (m meta) encode() []byte {
	b := append(make([]byte, 0, metaSize), metaVersion)
	b = binary.BigEndian.AppendUint64(b, m.seq)
	b = m.stamp.Append(b)
	for _, n := range m.count {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	for _, n := range m.bytes {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func decodeMeta(b []byte) (m meta, err error) {
	if len(b) != metaSize || b[0] != metaVersion {
		return m, fmt.Errorf("%w: the log's own row, %d bytes", errRow, len(b))
	}
	next := func() uint64 {
		v := binary.BigEndian.Uint64(b)
		b = b[8:]
		return v
	}
	b = b[1:]
	m.seq, m.stamp = next(), hlc.Stamp(next())
	for i := range m.count {
		m.count[i] = next()
	}
	for i := range m.bytes {
		m.bytes[i] = next()
	}
	return m, nil
}

func readMeta(r kv.Reader) (meta, error) {
	b, err := r.Get(metaKey)
	if err != nil || b == nil {
		return meta{}, err
	}
	return decodeMeta(b)
}

// put writes e and its index rows, and counts it in m.
func put(tx kv.Tx, m *meta, e Event) error {
	key, row := eventKey(e.Position()), appendRow(nil, e)
	n := len(key) + len(row)
	if err := tx.Set(key, row); err != nil {
		return err
	}
	for _, key := range indexKeys(e) {
		n += len(key)
		if err := tx.Set(key, []byte{}); err != nil {
			return err
		}
	}
	m.count[e.Severity.rank()]++
	m.bytes[e.Severity.rank()] += uint64(n)
	return nil
}

// remove takes e and its index rows out again.
func remove(tx kv.Tx, m *meta, e Event) error {
	key := eventKey(e.Position())
	n := len(key) + len(appendRow(nil, e))
	if err := tx.Delete(key); err != nil {
		return err
	}
	for _, key := range indexKeys(e) {
		n += len(key)
		if err := tx.Delete(key); err != nil {
			return err
		}
	}
	i := e.Severity.rank()
	m.count[i] -= min(1, m.count[i])
	m.bytes[i] -= min(uint64(n), m.bytes[i])
	return nil
}
