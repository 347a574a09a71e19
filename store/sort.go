package store

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// sortBytes is how many bytes of keys and values a sorter holds before it writes them to a file, sorted. What it
// keeps about them takes 16 bytes each besides.
const sortBytes = 16 << 20

// sorter puts the keys of one family in order, in bounded memory.
type sorter struct {
	dir    string // for its files; empty: everything is held
	family byte
	limit  int // bytes held before a file is written
	held   []byte
	items  []sortItem
	sorted bool
	files  []string
}

// sortItem is where a key and the value behind it lie in held.
type sortItem struct {
	first      uint64 // the 8 bytes of the key after the family, which settle most comparisons
	at         uint32
	key, value uint16
}

// add copies key and value.
func (s *sorter) add(key, value []byte) error {
	if len(key) > maxKey || len(value) > maxKey {
		return fmt.Errorf("index row of %d and %d bytes, limit %d", len(key), len(value), maxKey)
	}
	if len(s.held)+len(key)+len(value) > s.limit && len(s.items) > 0 && s.dir != "" {
		if err := s.spill(); err != nil {
			return fmt.Errorf("sort: %w", err)
		}
	}
	if s.held == nil {
		s.held = make([]byte, 0, s.limit)
	}
	var first [8]byte
	copy(first[:], key[1:])
	s.items = append(s.items, sortItem{binary.BigEndian.Uint64(first[:]), uint32(len(s.held)), uint16(len(key)), uint16(len(value))})
	s.held = append(append(s.held, key...), value...)
	s.sorted = false
	return nil
}

func (s *sorter) key(i sortItem) []byte { return s.held[i.at : i.at+uint32(i.key)] }

func (s *sorter) sort() {
	if s.sorted {
		return
	}
	slices.SortFunc(s.items, func(a, b sortItem) int {
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		return bytes.Compare(s.key(a), s.key(b))
	})
	s.sorted = true
}

// spill writes what is held to a file of its own: of each row the lengths of key and value, two bytes each,
// and both.
func (s *sorter) spill() (err error) {
	s.sort()
	name := filepath.Join(s.dir, fmt.Sprintf("sort-%c-%d", s.family, len(s.files)))
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 256<<10)
	for _, i := range s.items {
		var head [4]byte
		binary.BigEndian.PutUint16(head[:], i.key)
		binary.BigEndian.PutUint16(head[2:], i.value)
		w.Write(head[:])
		w.Write(s.held[i.at : i.at+uint32(i.key)+uint32(i.value)])
	}
	if err := w.Flush(); err != nil { // the first error of all
		return err
	}
	s.files = append(s.files, name)
	s.held, s.items = s.held[:0], s.items[:0]
	return nil
}

// rows reads everything added, in order of the keys. It may be called again; nothing may be added in between.
// Close it.
func (s *sorter) rows() (*sortedRows, error) {
	s.sort()
	m := &sortedRows{}
	for _, name := range s.files {
		f, err := os.Open(name)
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		m.open = append(m.open, f)
		if err := m.push(&fileRows{r: bufio.NewReaderSize(f, 64<<10)}); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	return m, m.push(&heldRows{s: s})
}

// free gives memory and files back.
func (s *sorter) free() (err error) {
	for _, name := range s.files {
		err = errors.Join(err, os.Remove(name))
	}
	s.held, s.items, s.files = nil, nil, nil
	return err
}

// rowSource is a sorted run of rows. A row is valid until the next.
type rowSource interface {
	next() error // io.EOF after the last
	row() (key, value []byte)
}

// heldRows are the rows of a sorter that are in memory.
type heldRows struct {
	s *sorter
	n int // rows given out
}

func (h *heldRows) next() error {
	if h.n == len(h.s.items) {
		return io.EOF
	}
	h.n++
	return nil
}

func (h *heldRows) row() (key, value []byte) {
	i := h.s.items[h.n-1]
	end := i.at + uint32(i.key)
	return h.s.held[i.at:end], h.s.held[end : end+uint32(i.value)]
}

// fileRows are the rows that a spill wrote.
type fileRows struct {
	r   *bufio.Reader
	key int
	buf []byte
}

func (f *fileRows) next() error {
	var head [4]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return err
	}
	f.key = int(binary.BigEndian.Uint16(head[:]))
	n := f.key + int(binary.BigEndian.Uint16(head[2:]))
	f.buf = slices.Grow(f.buf[:0], n)[:n]
	_, err := io.ReadFull(f.r, f.buf)
	return err
}

func (f *fileRows) row() (key, value []byte) { return f.buf[:f.key], f.buf[f.key:] }

// sortedRows merges runs; the run with the smallest key is at the top of the heap.
type sortedRows struct {
	runs []rowSource
	open []*os.File
}

func (m *sortedRows) Len() int      { return len(m.runs) }
func (m *sortedRows) Swap(i, j int) { m.runs[i], m.runs[j] = m.runs[j], m.runs[i] }
func (m *sortedRows) Push(x any)    { m.runs = append(m.runs, x.(rowSource)) }
func (m *sortedRows) Less(i, j int) bool {
	a, _ := m.runs[i].row()
	b, _ := m.runs[j].row()
	return bytes.Compare(a, b) < 0
}

func (m *sortedRows) Pop() any {
	last := m.runs[len(m.runs)-1]
	m.runs = m.runs[:len(m.runs)-1]
	return last
}

func (m *sortedRows) push(r rowSource) error {
	switch err := r.next(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("merge: %w", err)
	}
	heap.Push(m, r)
	return nil
}

// row returns the row with the smallest key, valid until the call of drop; false if there is none.
func (m *sortedRows) row() (key, value []byte, ok bool) {
	if len(m.runs) == 0 {
		return nil, nil, false
	}
	key, value = m.runs[0].row()
	return key, value, true
}

// drop goes on to the next row.
func (m *sortedRows) drop() error {
	switch err := m.runs[0].next(); {
	case errors.Is(err, io.EOF):
		heap.Pop(m)
	case err != nil:
		return fmt.Errorf("merge: %w", err)
	default:
		heap.Fix(m, 0)
	}
	return nil
}

func (m *sortedRows) close() (err error) {
	for _, f := range m.open {
		err = errors.Join(err, f.Close())
	}
	return err
}
