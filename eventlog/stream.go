package eventlog

import (
	"bytes"

	"peerdex/kv"
)

// A query over several indexes walks each in the order of the log and leaps from one to the next: what
// all of them hold is what it asks for. An index is one run of keys, or several that are merged.

// run is one run of an index, read in chunks because scans give no iterator.
type run struct {
	r      kv.Reader
	prefix []byte
	desc   bool
	chunk  []Position // read and not passed yet, in order
	size   int        // of the next chunk
	last   bool       // chunk holds the last of the run
	begun  bool
}

const (
	firstChunk = 16
	lastChunk  = 1024
)

// next returns the first position at or after at; false if there is none.
func (s *run) next(at Position) (Position, bool, error) {
	for {
		for len(s.chunk) > 0 && s.chunk[0].before(at, s.desc) {
			s.chunk = s.chunk[1:]
		}
		if len(s.chunk) > 0 {
			return s.chunk[0], true, nil
		}
		if s.begun && s.last {
			return Position{}, false, nil
		}
		if err := s.fill(at); err != nil {
			return Position{}, false, err
		}
	}
}

func (s *run) fill(at Position) error {
	s.size = min(max(s.size*2, firstChunk), lastChunk)
	s.begun, s.last = true, true
	s.chunk = s.chunk[:0]
	take := func(key []byte) error {
		if len(s.chunk) == s.size {
			s.last = false
			return kv.Stop
		}
		s.chunk = append(s.chunk, positionOf(key))
		return nil
	}
	from := at.append(bytes.Clone(s.prefix))
	if s.desc {
		return s.r.ScanDown(s.prefix, from, func(key, _ []byte) error { return take(key) })
	}
	return s.r.ScanKeys(s.prefix, from, take)
}

// union is several runs merged.
type union []*run

func (u union) next(at Position) (first Position, found bool, err error) {
	for _, s := range u {
		p, ok, err := s.next(at)
		if err != nil {
			return Position{}, false, err
		}
		if ok && (!found || p.before(first, s.desc)) {
			first, found = p, true
		}
	}
	return first, found, nil
}

// meet returns the first position at or after at that every part holds; false if there is none.
func meet(parts []union, at Position, desc bool) (Position, bool, error) {
	for agreed := 0; agreed < len(parts); {
		for _, u := range parts {
			p, ok, err := u.next(at)
			if err != nil || !ok {
				return Position{}, false, err
			}
			if p == at {
				agreed++
				continue
			}
			at, agreed = p, 0
			break
		}
	}
	return at, true, nil
}

// parts returns an index for each thing q asks for that has one; nil if nothing has.
func (q Query) parts(r kv.Reader) (parts []union, err error) {
	single := func(prefix []byte) *run { return &run{r: r, prefix: prefix, desc: q.Desc} }
	if !q.Correlation.IsZero() {
		parts = append(parts, union{single(sessionPrefix(q.Correlation))})
	}
	if q.Peer != "" {
		parts = append(parts, union{single(peerPrefix(q.Peer))})
	}
	if len(q.Types) > 0 {
		u := union{}
		failures := false
		for _, t := range q.Types {
			failures = failures || t == SyncError{}.Type()
		}
		for _, t := range unique(q.Types) {
			if !failures || t.Category() != Failure {
				u = append(u, single(typePrefix(t.Category(), t)))
			}
		}
		if failures {
			if u, err = q.addCategory(r, u, Failure); err != nil {
				return nil, err
			}
		}
		parts = append(parts, u)
	}
	if len(q.Categories) > 0 {
		u := union{}
		for _, c := range unique(q.Categories) {
			if u, err = q.addCategory(r, u, c); err != nil {
				return nil, err
			}
		}
		parts = append(parts, u)
	}
	if ranks := q.ranks(); len(ranks) < len(Severities) {
		u := union{}
		for _, rank := range ranks {
			u = append(u, single(severityPrefix(rank)))
		}
		parts = append(parts, u)
	}
	return parts, nil
}

// ranks returns the severities q asks for.
func (q Query) ranks() (out []int) {
	for rank, s := range Severities {
		listed := len(q.Severities) == 0
		for _, want := range q.Severities {
			listed = listed || want == s
		}
		if listed && (q.MinSeverity == "" || rank >= q.MinSeverity.rank()) {
			out = append(out, rank)
		}
	}
	return out
}

// addCategory adds a run for each type of a category that is on disk, those of other versions included.
func (q Query) addCategory(r kv.Reader, u union, c Category) (union, error) {
	prefix := categoryPrefix(c)
	for from := prefix; from != nil; {
		var found []byte
		err := r.ScanKeys(prefix, from, func(key []byte) error {
			found = bytes.Clone(key[:len(key)-positionSize])
			return kv.Stop
		})
		if err != nil {
			return nil, err
		}
		if from = nil; found != nil {
			u = append(u, &run{r: r, prefix: found, desc: q.Desc})
			from = append(bytes.Clone(found), bytes.Repeat([]byte{0xFF}, positionSize+1)...) // past all of the type
		}
	}
	return u, nil
}

func unique[T comparable](list []T) (out []T) {
	seen := map[T]bool{}
	for _, v := range list {
		if !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	return out
}
