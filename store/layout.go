package store

import (
	"encoding/binary"
	"slices"

	"peerdex/feed"
)

// The key families, by first byte. num is the 4-byte number a feed has in this store, never reused;
// numbers are big-endian. Sizes are of key plus value for an entry with a 16-byte key and a 20-byte name.
//
//	a name               local facts of this device: schema, instance, membership generation, invites, addresses
//	f feed id            -> num, head state, counts                        about 900 bytes, one per feed
//	e num seq key        -> length of local facts, local facts, record     about 120 bytes, one per entry
//	k num key            -> seq                                            29 bytes, one per entry
//	d num seq key        -> nothing                                        29 bytes, one per tombstone
//	r register key num   -> seq                                            about 70 bytes, one per register
//	t num level index    -> leaf (17 bytes an entry) or child hashes       about 21 bytes an entry
//	t num 255 index      -> which entries of a leaf are gone               46 bytes, one per leaf they are gone from
//	l hash               -> register set aside (rule 14)
//	z num                -> nothing: a feed whose keys are being deleted
//	v ...                the event log (package eventlog)
//
// Entries lie in the order of their seq, so that a delta is one scan and a leaf one range. Names, and what lies in
// which folder, are a Follower's. The tree is beside the entries and moves with them.
const (
	famLocal    = 'a'
	famFeed     = 'f'
	famEntry    = 'e'
	famKey      = 'k'
	famTomb     = 'd'
	famRegister = 'r'
	famTree     = 't'
	famAside    = 'l'
	famDropped  = 'z'
)

// feedFamilies are those whose keys begin with the feed's number.
var feedFamilies = []byte{famEntry, famKey, famTomb, famTree}

type num uint32

func (n num) key(family byte, room int) []byte {
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, 5+room), family), uint32(n))
}

// numIn returns the number of the feed that a row belongs to; false for one that belongs to no single feed.
func numIn(key []byte) (n num, ok bool) {
	at := 1
	switch family := key[0]; {
	case family == famRegister:
		at = len(key) - 4
	case !slices.Contains(feedFamilies, family):
		return 0, false
	}
	if at < 1 || len(key) < at+4 {
		return 0, false
	}
	return num(binary.BigEndian.Uint32(key[at:])), true
}

func localKey(name string) []byte { return append([]byte{famLocal}, name...) }

func feedKey(id feed.ID) []byte { return id.Append([]byte{famFeed}) }

func (n num) entry(seq uint64, key []byte) []byte {
	return append(binary.BigEndian.AppendUint64(n.key(famEntry, 8+len(key)), seq), key...)
}

func (n num) byKey(key []byte) []byte { return append(n.key(famKey, len(key)), key...) }

func (n num) tomb(seq uint64, key []byte) []byte {
	return append(binary.BigEndian.AppendUint64(n.key(famTomb, 8+len(key)), seq), key...)
}

func (n num) tree(level int, i uint64) []byte {
	return binary.BigEndian.AppendUint64(append(n.key(famTree, 9), byte(level)), i)
}

// goneLevel is where the tree's rows say which entries of a leaf are gone: above all levels of nodes.
const goneLevel = 0xFF

func (n num) gone(i uint64) []byte { return n.tree(goneLevel, i) }

func (n num) register(key []byte) []byte {
	k := append(append(make([]byte, 0, 5+len(key)), famRegister), key...)
	return binary.BigEndian.AppendUint32(k, uint32(n))
}

func seqBytes(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// splitEntry takes the seq and the key out of a key that entry or tomb made.
func splitEntry(k []byte) (seq uint64, key []byte) {
	return binary.BigEndian.Uint64(k[5:]), k[13:]
}
