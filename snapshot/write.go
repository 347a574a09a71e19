package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/record"
	"peerdex/store"
)

// ErrTooLarge is returned where the feeds are more than one snapshot may hold.
var ErrTooLarge = errors.New("library is too large for one snapshot")

// Author is who makes a snapshot.
type Author struct {
	Library feed.LibraryID
	Device  record.DeviceID
	Sign    func([]byte) []byte // Ed25519, by the device's key
}

// write writes the chunks of pinned feeds to w, each of at most limit bytes of entries unless one entry is more, one
// behind the other, and returns the manifest. Several goroutines read and compress, no further ahead of w than
// MakeMemory. Feeds whose entries have not changed give the same chunks again, up to the place of a change.
func write(ctx context.Context, w io.Writer, pin *store.Pinned, by Author, now hlc.Stamp, limit int) (Manifest, error) {
	m := Manifest{Library: by.Library, Donor: by.Device, Stamp: now}
	if len(pin.Heads) > MaxFeeds {
		return m, fmt.Errorf("%w: %d feeds, limit %d", ErrTooLarge, len(pin.Heads), MaxFeeds)
	}
	var spans []*span
	for i, h := range pin.Heads {
		m.Feeds = append(m.Feeds, Feed{Head: h})
		spans = append(spans, cut(i, h)...)
	}
	todo, begun := make(chan *span), make(chan struct{}, maxBegun)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(todo)
		for _, s := range spans {
			select {
			case begun <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case todo <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range readers() {
		g.Go(func() error {
			for s := range todo {
				if err := s.read(ctx, pin, limit); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error { return m.collect(ctx, w, spans, begun) })
	if err := g.Wait(); err != nil {
		return m, err
	}
	m = m.sign(by.Sign)
	if n := len(m.Append(nil)); n > MaxManifest {
		return m, fmt.Errorf("%w: manifest of %d bytes, limit %d", ErrTooLarge, n, MaxManifest)
	}
	return m, nil
}

// collect writes the chunks of spans as they become ready, in order, and notes them. It takes one from begun for each
// that is through.
func (m *Manifest) collect(ctx context.Context, w io.Writer, spans []*span, begun <-chan struct{}) error {
	chunks := 0
	for _, s := range spans {
		for {
			p, ok, err := s.next(ctx)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if chunks++; chunks > MaxChunks {
				return fmt.Errorf("%w: more than %d chunks", ErrTooLarge, MaxChunks)
			}
			if _, err := w.Write(p.bytes); err != nil {
				return fmt.Errorf("write snapshot: %w", err)
			}
			f := &m.Feeds[s.feed]
			f.Chunks = append(f.Chunks, p.chunk)
		}
		<-begun
	}
	return nil
}

// span is a range of one feed's seqs, read by one goroutine. No chunk goes beyond it.
type span struct {
	feed     int
	from, to uint64 // to is excluded
	out      chan packed
}

type packed struct {
	bytes []byte
	chunk Chunk
}

const (
	spanSeqs = 1 << 16        // seqs of a span, doubled until
	maxSpans = 1 << 10        // no feed has more spans than this
	pipeline = 8              // chunks of a span that may wait to be written
	maxBegun = maxReaders + 1 // spans begun and not written yet

	// MakeMemory is how many bytes it takes at most to make a snapshot: of each span begun and not written yet the
	// chunks that wait, one in hand, and the entries of the next.
	MakeMemory = maxBegun*(pipeline+2)*MaxChunk + 2*MaxManifest
)

// cut divides a feed into spans, at places that move only when it has grown beyond maxSpans of them.
func cut(i int, h feed.Head) (spans []*span) {
	width := uint64(spanSeqs)
	for h.Seq/width >= maxSpans {
		width *= 2
	}
	for from := uint64(0); from <= h.Seq; from += width {
		spans = append(spans, &span{feed: i, from: from, to: min(from+width, h.Seq+1), out: make(chan packed, pipeline)})
	}
	return spans
}

// next waits for the span's next chunk; false after the last.
func (s *span) next(ctx context.Context) (p packed, ok bool, err error) {
	select {
	case p, ok = <-s.out:
		return p, ok, nil
	case <-ctx.Done():
		return p, false, ctx.Err()
	}
}

// read makes the chunks of a span.
func (s *span) read(ctx context.Context, pin *store.Pinned, limit int) error {
	defer close(s.out)
	var (
		raw     = make([]byte, 0, limit)
		entries int
		last    uint64
	)
	put := func() error {
		b, c := pack(raw, entries)
		raw, entries, last = raw[:0], 0, 0
		select {
		case s.out <- packed{b, c}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := pin.Entries(pin.Heads[s.feed].Feed, s.from, s.to, func(e feed.Entry) error {
		if entries > 0 && len(raw)+maxHead+len(e.Key)+len(e.Record) > limit {
			if err := put(); err != nil {
				return err
			}
		}
		raw = appendEntry(raw, last, e)
		entries++
		last = e.Seq
		return nil
	})
	if err == nil && entries > 0 {
		err = put()
	}
	return err
}

const maxHead = 10 + 3 + 3 // bytes of the numbers before an entry's key and record
