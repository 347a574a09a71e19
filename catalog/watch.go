package catalog

import (
	"errors"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// maxNames is how many changed names of one directory are looked at one by one; more, and the directory
// is listed.
const maxNames = 64

// dirt is what is known to have changed in a directory.
type dirt struct {
	names map[string]bool
	all   bool // names are too many, or unknown
}

// watches are the directories of one location that the system reports changes of. A path is registered
// for the node that stands there in the tree: whoever moves a node lets go of its paths first.
type watches struct {
	open func() (*fsnotify.Watcher, error)

	adding sync.Mutex // held from the look at a path until it is watched; taken before mu

	mu      sync.Mutex // guards the fields below
	w       *fsnotify.Watcher
	byPath  map[string]uint32
	byNode  map[uint32]string
	byID    map[identity]uint32 // the system has one watch of a directory, whatever path it was asked for by
	idOf    map[uint32]identity
	dirty   map[uint32]*dirt
	shaken  bool            // watches may have ended without a word, as when a disk is taken away
	wake    chan struct{}   // capacity 1: something is to be looked at
	readers *sync.WaitGroup // of w

	// fsnotify reports errors with its own lock held, so mu, under which it is called, must not be needed
	// to receive them.
	faults   sync.Mutex // guards the fields below; nothing else is locked or called under it
	overflow bool       // events were lost
	failed   error      // why watching ended
}

func newWatches(open func() (*fsnotify.Watcher, error)) *watches {
	return &watches{open: open, wake: make(chan struct{}, 1)}
}

// start begins anew, with no directory watched. On an error nothing is watched.
func (s *watches) start() error {
	s.stop()
	w, err := s.open()
	if err != nil {
		return err
	}
	readers := &sync.WaitGroup{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w, s.readers, s.shaken = w, readers, false
	s.byPath, s.byNode, s.dirty = map[string]uint32{}, map[uint32]string{}, map[uint32]*dirt{}
	s.byID, s.idOf = map[identity]uint32{}, map[uint32]identity{}
	s.faults.Lock()
	s.overflow, s.failed = false, nil
	s.faults.Unlock()
	readers.Go(func() {
		for e := range w.Events {
			s.event(w, e)
		}
	})
	readers.Go(func() {
		for err := range w.Errors {
			s.fault(err)
		}
	})
	return nil
}

// stop ends watching and waits for the readers.
func (s *watches) stop() {
	s.mu.Lock()
	w, readers := s.w, s.readers
	s.w, s.byPath, s.byNode, s.byID, s.idOf, s.dirty = nil, nil, nil, nil, nil, nil
	s.mu.Unlock()
	if w != nil {
		w.Close() // has no error that says anything
		readers.Wait()
	}
}

// fault notes an error: events that were lost, or the end of watching.
func (s *watches) fault(err error) {
	s.faults.Lock()
	if errors.Is(err, fsnotify.ErrEventOverflow) {
		s.overflow = true
	} else if s.failed == nil && watchCause(err) != "" {
		s.failed = err
	}
	s.faults.Unlock()
	s.signal()
}

// broken returns why watching ended, or nil.
func (s *watches) broken() error {
	s.faults.Lock()
	defer s.faults.Unlock()
	return s.failed
}

func (s *watches) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *watches) event(w *fsnotify.Watcher, e fsnotify.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != w {
		return
	}
	if e.Name == "" { // a watch ended: a directory deleted, or a file system unmounted
		s.shaken = true
		s.signal()
		return
	}
	if n, ok := s.byPath[e.Name]; ok {
		if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
			s.drop(n) // fsnotify lets go of a directory that moved, even if it came back
		}
		s.soil(n, "")
	}
	dir, name := filepath.Split(e.Name)
	if n, ok := s.byPath[filepath.Clean(dir)]; ok && name != "" {
		s.soil(n, name)
	}
	s.signal()
}

// soil notes a change in the directory n, of one name or, if name is empty, of anything; s.mu is held.
func (s *watches) soil(n uint32, name string) {
	d := s.dirty[n]
	if d == nil {
		d = &dirt{names: map[string]bool{}}
		s.dirty[n] = d
	}
	if name == "" || len(d.names) >= maxNames {
		d.all, d.names = true, nil
	}
	if !d.all {
		d.names[name] = true
	}
}

// add watches the directory of a node, if id is still what lies at path: a job may be older than a move.
// Where watching is not possible at all, broken says why; a single directory that cannot be watched cannot
// be listed either, and is reported by whoever lists it.
func (s *watches) add(n uint32, path string, id identity, still func() bool) {
	s.adding.Lock()
	defer s.adding.Unlock()
	s.mu.Lock()
	w := s.w
	has := s.byNode[n] == path
	s.mu.Unlock()
	if w == nil || has || s.broken() != nil || !still() {
		return
	}
	s.mu.Lock()
	if s.w != w {
		s.mu.Unlock()
		return
	}
	s.drop(n)
	if other, ok := s.byPath[path]; ok { // moved on, as a pass to come will find
		s.drop(other)
	}
	// Another node may still have this directory from where it was before. Its watch must go first: it would
	// be the same one, report the old path, and end as soon as the other node lets go of it.
	if other, ok := s.byID[id]; ok && id.ino != 0 {
		s.drop(other)
	}
	s.byPath[path], s.byNode[n] = n, path
	if id.ino != 0 {
		s.byID[id], s.idOf[n] = n, id
	}
	s.mu.Unlock()
	err := w.Add(path)
	if err == nil {
		return
	}
	s.mu.Lock()
	if s.w == w && s.byNode[n] == path {
		s.drop(n)
	}
	s.mu.Unlock()
	if watchCause(err) != "" {
		s.fault(err)
	}
}

// active reports whether directories are watched.
func (s *watches) active() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w != nil
}

// lacks reports whether directories are watched, but not that of n.
func (s *watches) lacks(n uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, has := s.byNode[n]
	return s.w != nil && s.broken() == nil && !has
}

// mark asks for a listing of the directory n in a pass to come.
func (s *watches) mark(n uint32) {
	s.mu.Lock()
	if s.w != nil {
		s.soil(n, "")
	}
	s.mu.Unlock()
	s.signal()
}

// shake asks for a look at the folder itself.
func (s *watches) shake() {
	s.mu.Lock()
	s.shaken = true
	s.mu.Unlock()
	s.signal()
}

// forget lets go of the directory of a node.
func (s *watches) forget(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(n)
	delete(s.dirty, n)
}

func (s *watches) drop(n uint32) {
	path, ok := s.byNode[n]
	if !ok {
		return
	}
	delete(s.byNode, n)
	if s.byPath[path] == n {
		delete(s.byPath, path)
	}
	if id := s.idOf[n]; s.byID[id] == n {
		delete(s.byID, id)
	}
	delete(s.idOf, n)
	// It may have ended already. Errors say no more than that.
	_ = s.w.Remove(path)
}

// take returns what is dirty and forgets it.
func (s *watches) take() map[uint32]*dirt {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dirty
	if s.w != nil {
		s.dirty = map[uint32]*dirt{}
	}
	return d
}

// state returns what happened besides, and forgets it: events lost, watches ended. failed stays.
func (s *watches) state() (overflow, shaken bool, failed error) {
	s.mu.Lock()
	shaken, s.shaken = s.shaken, false
	s.mu.Unlock()
	s.faults.Lock()
	overflow, failed = s.overflow, s.failed
	s.overflow = false
	s.faults.Unlock()
	return overflow, shaken, failed
}
