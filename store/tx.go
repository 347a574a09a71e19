package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"peerdex/feed"
	"peerdex/internal/mutant"
	"peerdex/kv"
	"peerdex/record"
)

// tx is one transaction on feeds: entries, indexes, trees and states move in it together (rule 5).
type tx struct {
	s       *Store
	kv      kv.Tx
	rows    map[feed.ID]*row           // as changed by this transaction
	trees   map[feed.ID]*feed.Editor   // with changes not yet written
	devices []sharedFeed               // see sharedFeeds
	aside   int                        // registers set aside
	edited  map[record.EntityKind]bool // kinds of the registers put in or taken out
	loading bool                       // of a Load, whose files go to a Fresh
	files   []FileChange               // for the follower

	foreseen *foreseen // nil: nothing was read ahead
}

// update runs fn in one transaction; the states it changed show once it is committed.
func (s *Store) update(fn func(*tx) error) error {
	if err := s.Room(); err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	t := &tx{s: s, rows: map[feed.ID]*row{}, trees: map[feed.ID]*feed.Editor{}, edited: map[record.EntityKind]bool{}}
	start := s.cfg.Now()
	err := s.eng.Update(func(k kv.Tx) error {
		t.kv = k
		if err := fn(t); err != nil {
			return err
		}
		for id, r := range t.rows {
			if err := k.Set(feedKey(id), r.encode()); err != nil {
				return err
			}
		}
		if t.edited[record.MemberEntity] && !mutant.Is("generation_stays") {
			return setGeneration(k, s.Generation()+1)
		}
		return nil
	})
	if err != nil || len(t.rows) == 0 {
		return err
	}
	if len(t.files) > 0 {
		s.follower.Changed(t.files)
	}
	if s.cfg.Metrics != nil {
		s.cfg.Metrics.StoreOp("commit", s.cfg.Now().Sub(start))
	}
	s.mu.Lock()
	for id, r := range t.rows {
		s.rows[id] = r
	}
	for kind := range t.edited {
		s.edited[kind]++
	}
	if t.edited[record.MemberEntity] && !mutant.Is("generation_stays") {
		s.generation++
	}
	s.commits++
	s.mu.Unlock()
	s.soil()
	return nil
}

// soil says that something waits for a Sync.
func (s *Store) soil() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// row returns the feed's row for changing; an unknown feed gets a number.
func (t *tx) row(id feed.ID) (*row, error) {
	if r, ok := t.rows[id]; ok {
		return r, nil
	}
	t.s.mu.Lock()
	r, ok := t.s.rows[id]
	t.s.mu.Unlock()
	if t.foreseen != nil && t.foreseen.of.state.Feed == id && t.foreseen.of != r { // somebody wrote the feed since
		t.foreseen = nil
	}
	if ok {
		r = r.clone()
	} else {
		r = &row{state: feed.State{Feed: id}}
	}
	if r.num == 0 {
		last, err := lastNum(t.kv)
		if err != nil {
			return nil, err
		}
		r.num = max(last, t.s.topNum) + 1
		if err := setLastNum(t.kv, r.num); err != nil {
			return nil, err
		}
	}
	t.rows[id] = r
	return r, nil
}

// lastNum returns the highest number that a feed ever had.
func lastNum(k kv.Reader) (n num, err error) {
	b, err := k.Get(localKey("feeds"))
	if len(b) == 4 {
		n = num(binary.BigEndian.Uint32(b))
	}
	return n, err
}

func setLastNum(k kv.Tx, n num) error {
	return k.Set(localKey("feeds"), binary.BigEndian.AppendUint32(nil, uint32(n)))
}

func (t *tx) tree(r *row) *feed.Editor {
	e, ok := t.trees[r.state.Feed]
	if !ok {
		e = feed.NewEditor(t.s.cfg.Shape, &nodes{r: t.kv, w: t.kv, shape: t.s.cfg.Shape, row: r, ahead: t.foreseen, read: map[uint64]storedLeaf{}})
		t.trees[r.state.Feed] = e
	}
	return e
}

// root writes the tree and returns the root of a head with seq top.
func (t *tx) root(r *row, top uint64) (feed.Hash, error) { return t.tree(r).Flush(top) }

// held is an entry as it lies on disk.
type held struct {
	feed.Entry
	local []byte
}

// get returns the live entry of key, or nil.
func (t *tx) get(r *row, key []byte) (*held, error) {
	if h, ok := t.foreseen.entry(r, key); ok {
		return h, nil
	}
	return getEntry(t.kv, r.num, key)
}

func getEntry(kvr kv.Reader, n num, key []byte) (*held, error) {
	b, err := kvr.Get(n.byKey(key))
	if err != nil || b == nil {
		return nil, err
	}
	if len(b) != 8 {
		return nil, fmt.Errorf("index of entry %x: %w", key, errRow)
	}
	h := &held{Entry: feed.Entry{Key: bytes.Clone(key), Seq: binary.BigEndian.Uint64(b)}}
	v, err := kvr.Get(n.entry(h.Seq, key))
	if err != nil {
		return nil, err
	}
	if h.local, h.Record, err = splitValue(v); err != nil {
		return nil, fmt.Errorf("entry %x: %w", key, err)
	}
	return h, nil
}

// splitValue takes the local facts and the record out of an entry's value.
func splitValue(v []byte) (local, rec []byte, err error) {
	if len(v) < 1 || len(v) < 1+int(v[0]) {
		return nil, nil, errRow
	}
	return v[1 : 1+v[0]], v[1+v[0]:], nil
}

// upsert puts e in, in place of whatever its key stood for, and returns what that was: nil if nothing.
// An entry already held as it is changes nothing and is returned itself. rec is the record in it, nil if
// accept refuses that.
func (t *tx) upsert(r *row, e feed.Entry, rec record.Record, local []byte) (old *held, err error) {
	if !t.isNew(r, e.Key) {
		if old, err = t.get(r, e.Key); err != nil {
			return nil, err
		}
	}
	if old != nil {
		if old.Seq == e.Seq && bytes.Equal(old.Record, e.Record) {
			return old, nil
		}
		if err := t.erase(r, old, false); err != nil {
			return nil, err
		}
	}
	return old, t.insert(r, e, rec, local)
}

// insert puts in an entry whose key stands for nothing. rec is as of upsert.
func (t *tx) insert(r *row, e feed.Entry, rec record.Record, local []byte) error {
	if err := t.tree(r).Add(feed.Ref{Seq: e.Seq, Digest: e.Digest()}); err != nil {
		return err
	}
	return t.keep(r, e, rec, local)
}

// keep writes everything of an entry but what the tree knows of it.
func (t *tx) keep(r *row, e feed.Entry, rec record.Record, local []byte) error {
	v := make([]byte, 0, 1+len(local)+len(e.Record))
	v = append(append(append(v, byte(len(local))), local...), e.Record...)
	if err := t.kv.Set(r.num.entry(e.Seq, e.Key), v); err != nil {
		return err
	}
	if err := t.kv.Set(r.num.byKey(e.Key), seqBytes(e.Seq)); err != nil {
		return err
	}
	r.state.Count++
	return t.index(r, e, rec)
}

// erase takes an entry out; gone says that its key will not be set again in this transaction.
func (t *tx) erase(r *row, h *held, gone bool) error {
	if err := t.kv.Delete(r.num.entry(h.Seq, h.Key)); err != nil {
		return err
	}
	if gone {
		if err := t.kv.Delete(r.num.byKey(h.Key)); err != nil {
			return err
		}
	}
	r.state.Count--
	if err := t.tree(r).Remove(feed.Ref{Seq: h.Seq, Digest: h.Digest()}); err != nil {
		return err
	}
	return t.unindex(r, h.Entry)
}

// errMisplaced is a record of a model that its kind of feed does not hold.
var errMisplaced = errors.New("record does not belong in this kind of feed")

// accept returns the record of an entry if this version shows it.
func accept(id feed.ID, key, rec []byte) (record.Record, error) {
	r, err := record.Decode(key, rec)
	if err != nil {
		return nil, err
	}
	if record.IsRegister(rec) != id.IsDevice() {
		return nil, errMisplaced
	}
	return r, nil
}

// accepted is accept where nobody asks why not: nil then.
func accepted(id feed.ID, e feed.Entry) record.Record {
	rec, err := accept(id, e.Key, e.Record)
	if err != nil {
		return nil
	}
	return rec
}

// rejectReason names why accept refused a record: decode, schema, unauthorized or other.
func rejectReason(err error) string {
	switch {
	case errors.Is(err, record.ErrUnknownModel), errors.Is(err, errMisplaced):
		return "schema"
	case errors.Is(err, record.ErrNotOwner):
		return "unauthorized"
	case errors.Is(err, record.ErrInvalid):
		return "decode"
	}
	return "other"
}

func (t *tx) index(r *row, e feed.Entry, rec record.Record) error {
	switch rec := rec.(type) {
	case nil:
		r.counts.Opaque++
	case record.File:
		if rec.Kind == record.Directory {
			r.counts.Dirs++
		} else {
			r.counts.Files++
			r.counts.Bytes += rec.Size
		}
		t.tell(r, rec, false)
	case record.Tombstone:
		r.counts.Tombstones++
		if e.Seq <= r.swept {
			r.swept = 0
		}
		return t.kv.Set(r.num.tomb(e.Seq, e.Key), nil)
	case record.Register:
		r.counts.Registers++
		t.edited[rec.Entity.Kind] = true
		return t.kv.Set(r.num.register(e.Key), seqBytes(e.Seq))
	}
	return nil
}

func (t *tx) unindex(r *row, e feed.Entry) error {
	rec, err := accept(r.state.Feed, e.Key, e.Record)
	if err != nil {
		r.counts.Opaque--
		return nil
	}
	switch rec := rec.(type) {
	case record.File:
		if rec.Kind == record.Directory {
			r.counts.Dirs--
		} else {
			r.counts.Files--
			r.counts.Bytes -= rec.Size
		}
		t.tell(r, rec, true)
	case record.Tombstone:
		r.counts.Tombstones--
		return t.kv.Delete(r.num.tomb(e.Seq, e.Key))
	case record.Register:
		r.counts.Registers--
		t.edited[rec.Entity.Kind] = true
		return t.kv.Delete(r.num.register(e.Key))
	}
	return nil
}

// tell notes a file put in or taken out for the follower.
func (t *tx) tell(r *row, f record.File, gone bool) {
	if t.s.follower != nil && !t.loading {
		t.files = append(t.files, FileChange{r.state.Feed, f, gone})
	}
}
