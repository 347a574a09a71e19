package sim

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"peerdex/record"
	"peerdex/store"
)

// folder is what a location's files are on the node's file system, the records an indexer makes of them.
type folder map[record.EntryID]record.Record

// future is a record of a model that this version does not know: kept and relayed, byte for byte.
type future struct {
	id   record.EntryID
	body string
}

func (f future) Key() []byte            { return f.id[:] }
func (f future) Append(b []byte) []byte { return append(append(b, 200), f.body...) }
func (f future) Validate() error        { return nil }
func (f future) Model() string          { return "other" }

func fileID(k int) record.EntryID { return record.EntryID{0: 0xF0, 15: byte(k + 1)} }

// change does one thing to the folder: create, write, rename, move, delete or create again. Entry 0 is a
// directory, the last one a model of the future.
func (f folder) change(r *rand.Rand, keys, uid int) {
	k := r.IntN(keys)
	id := fileID(k)
	if chance(r, 0.35) {
		delete(f, id)
		if k == 0 { // what lies in a directory goes with it
			for _, id := range slices.SortedFunc(maps.Keys(f), compareIDs) {
				if file, ok := f[id].(record.File); ok && file.Parent == fileID(0) {
					delete(f, id)
				}
			}
		}
		return
	}
	if k == keys-1 && keys > 3 {
		f[id] = future{id, fmt.Sprintf("\x00later %d", uid)}
		return
	}
	file, _ := f[id].(record.File)
	dir, hasDir := f[fileID(0)].(record.File)
	if file.Name == "" || chance(r, 0.3) {
		file.Name = fmt.Sprintf("n%d\xff", r.IntN(keys)) // names need not be unique, nor UTF-8
	}
	file.ID, file.Kind, file.Mode, file.Parent = id, record.Regular, 0o644, record.EntryID{}
	if k == 0 {
		file.Kind, file.Mode = record.Directory, 0o700+uint32(uid%8)
	} else {
		file.Size, file.ModTime = uint64(uid), int64(uid)
		if hasDir && chance(r, 0.4) {
			file.Parent = dir.ID
		}
	}
	f[id] = file
}

func compareIDs(a, b record.EntryID) int { return bytes.Compare(a[:], b[:]) }

// scan is the indexer: it compares the store with the folder and commits the difference.
func (n *node) scan() {
	n.rescan = false
	if n.st.Frozen() {
		return
	}
	id := n.w.location(n.dev)
	held := map[string][]byte{}
	err := n.st.Entries(id, func(r store.Row) error {
		held[string(r.Key)] = bytes.Clone(r.Record)
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrUnknownFeed) {
		n.ought(err)
		return
	}
	var puts []store.Put
	for _, key := range slices.SortedFunc(maps.Keys(n.fs), compareIDs) {
		if rec := n.fs[key]; !bytes.Equal(held[string(key[:])], rec.Append(nil)) {
			puts = append(puts, store.Put{Record: rec, Local: []byte{key[15]}})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(held)) {
		var e record.EntryID
		copy(e[:], key)
		if _, ok := n.fs[e]; !ok && !record.IsTombstone(held[key]) {
			puts = append(puts, store.Put{Record: record.Tombstone{ID: e}})
		}
	}
	if len(puts) == 0 {
		return
	}
	if _, err := n.st.Commit(id, puts); err != nil {
		n.ought(err)
		return
	}
	n.w.log("scan", n, uint64(len(puts)), 0)
	n.check()
	n.sameAsFolder()
}

// sameAsFolder fails unless the live set of the own location is the folder.
func (n *node) sameAsFolder() {
	live := 0
	err := n.st.Entries(n.w.location(n.dev), func(r store.Row) error {
		if record.IsTombstone(r.Record) {
			return nil
		}
		live++
		var e record.EntryID
		copy(e[:], r.Key)
		if rec, ok := n.fs[e]; !ok || !bytes.Equal(rec.Append(nil), r.Record) {
			n.w.fail("I4", n, "entry %x of the own location is not what the folder holds", r.Key)
		}
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrUnknownFeed) {
		n.ought(err)
	} else if live != len(n.fs) {
		n.w.fail("I3", n, "own location has %d live entries, the folder %d", live, len(n.fs))
	}
}
