package store

import (
	"errors"
	"fmt"

	"peerdex/feed"
	"peerdex/record"
)

// ErrWritten is returned by Fill for a feed that was written before.
var ErrWritten = errors.New("feed is not new")

// Fill is the first entries of one of this device's feeds on their way into fresh files, as of a Load: three times as
// fast as transactions if they are very many, since nothing is sorted twice or written to a log. Nothing of them
// shows until Commit. One goroutine uses it.
type Fill struct {
	l     *Load
	a     *arrival
	rec   []byte // of the put at hand
	files chan []Put
	shown chan struct{} // closed when all files are with the follower's
}

// Fill begins to fill a location feed of this device that was never written. It is claimed until Close. Fill
// returns ErrWritten, ErrNotOwner, ErrFrozen, ErrLoading while a Load or another Fill goes on, and ErrNoSpace. It copies
// what the store holds, which takes about a microsecond an entry. Close it.
func (s *Store) Fill(id feed.ID) (*Fill, error) {
	if id.Device != s.cfg.Device || id.IsDevice() {
		return nil, fmt.Errorf("fill feed %v: %w", id, ErrNotOwner)
	}
	if s.Frozen() {
		return nil, fmt.Errorf("fill feed %v: %w", id, ErrFrozen)
	}
	l, err := s.newLoad(0)
	if err != nil {
		return nil, err
	}
	f := &Fill{l: l, a: &arrival{own: true, head: feed.Head{Feed: id, Boot: s.cfg.Boot}}}
	if err := f.begin(); err != nil {
		return nil, fmt.Errorf("fill feed %v: %w", id, errors.Join(err, f.Close()))
	}
	return f, nil
}

func (f *Fill) begin() error {
	l, id := f.l, f.a.head.Feed
	release, ok := l.s.Claim(id)
	if !ok {
		return ErrWritten // somebody is taking it back from a peer
	}
	l.release = append(l.release, release)
	if _, known := l.s.State(id); known {
		return ErrWritten
	}
	l.feeds = []*arrival{f.a}
	if err := l.begin(); err != nil {
		return err
	}
	if f.a.files != nil {
		f.files, f.shown = make(chan []Put, 1), make(chan struct{})
		go f.show()
	}
	return nil
}

// show hands the files to the follower's, beside what else becomes of them.
func (f *Fill) show() {
	defer close(f.shown)
	for puts := range f.files {
		for _, p := range puts {
			if file, ok := p.Record.(record.File); ok {
				f.a.files.Put(file)
			}
		}
	}
}

// Add takes in puts, which are all New, and keeps the slice. It returns what Commit of the Store does for puts that
// cannot be written, and ErrNoSpace.
func (f *Fill) Add(puts []Put) error {
	id := f.a.head.Feed
	if err := errors.Join(check(id, puts), f.l.s.Room()); err != nil {
		return err
	}
	for _, p := range puts {
		f.a.last++
		f.rec = p.Record.Append(f.rec[:0])
		e := feed.Entry{Key: p.Record.Key(), Seq: f.a.last, Record: f.rec}
		err := f.l.tx.keep(f.a.row, e, p.Record, p.Local)
		if err == nil {
			err = f.a.tree.Add(feed.Ref{Seq: e.Seq, Digest: e.Digest()})
		}
		if err != nil {
			return fmt.Errorf("fill feed %v: %w", id, err)
		}
	}
	if f.files != nil {
		f.files <- puts
	}
	return nil
}

// Commit signs a head of what was added and puts it, durably, in the store: in one moment, in which nobody else
// writes. It blocks. ErrStale says that the feed was written by somebody else, ErrUnknownFeed that it was dropped,
// ErrFrozen that no own feed is written any more; whatever it returns but nil, the store is as it was. Close the Fill all the same.
func (f *Fill) Commit() (feed.Head, error) {
	f.stop()
	l, head, start := f.l, &f.a.head, f.l.s.cfg.Now()
	stamp, err := l.s.cfg.Clock()
	if err != nil {
		return feed.Head{}, err
	}
	head.Seq, head.Stamp = f.a.last, stamp
	if _, err := l.Install(nil, nil); err != nil {
		return feed.Head{}, fmt.Errorf("fill feed %v: %w", head.Feed, err)
	}
	if f.a.dropped {
		return feed.Head{}, fmt.Errorf("fill feed %v: dropped meanwhile: %w", head.Feed, ErrUnknownFeed)
	}
	if l.s.cfg.Metrics != nil {
		l.s.cfg.Metrics.StoreOp("fill", l.s.cfg.Now().Sub(start))
	}
	return *head, nil
}

// stop waits until the follower's have all files.
func (f *Fill) stop() {
	if f.files != nil {
		close(f.files)
		<-f.shown
		f.files = nil
	}
}

// Close gives back what the Fill has taken. What was not committed is as if it had never been.
func (f *Fill) Close() error {
	f.stop()
	return f.l.Close()
}
