package statebatch

import (
	"errors"
	"fmt"
	"io"
	"time"

	"peerdex/feed"
	"peerdex/internal/mutant"
	"peerdex/kv"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// ErrOtherHistory ends a push stream whose entries do not lead from what both sides held to a head that
// its owner did sign: the owner lies, or was restored from a backup, or runs twice.
var ErrOtherHistory = errors.New("owner's history is not the one held here")

// ReceiverNotes is told what a receiver does.
type ReceiverNotes interface {
	PushReceived(from record.DeviceID, id feed.ID, entries int)
	// PushDone says what became of a push: res is what Apply did if the outcome is Applied.
	PushDone(from record.DeviceID, b *protocol.StateBatch, outcome protocol.Outcome, res store.Result, d time.Duration)
	// PushCommitting is called last in the transaction that settles the feed.
	PushCommitting(tx kv.Tx, from record.DeviceID, b *protocol.StateBatch, res *store.Result) error
	// Look says that a feed is to be pulled.
	Look(id feed.ID)
}

// Receiver applies what peers push.
type Receiver struct {
	Store *store.Store
	Notes ReceiverNotes
	Now   func() time.Time
	// Admit returns the generation of the membership (store.Store.Generation) under which a device is a
	// member, or why it is none, which ends its stream; nil: everybody is. It is asked for each push, and
	// again when the generation has risen before the push was applied.
	Admit func(record.DeviceID) (generation uint64, err error)
	// Follows reports whether this node keeps a feed: its device is a member and its location exists.
	Follows func(feed.ID) bool
	// Declines reports whether the entries that lead to a head of a followed feed are not taken; nil: never.
	Declines func(next feed.Head) bool
	// Paused reports whether sync with a device is paused: its pushes are answered with Busy.
	Paused func(record.DeviceID) bool
}

// Serve answers one peer's pushes until it closes the stream. It blocks. Entries that do not add up to the
// head pushed with them end it with a *protocol.Error.
func (r *Receiver) Serve(conn *protocol.Conn) error {
	for {
		m, err := conn.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b, ok := m.(*protocol.StateBatch)
		if !ok {
			return protocol.Unexpected(m)
		}
		ack, err := r.Receive(conn.Device(), b)
		if err != nil {
			return err
		}
		if ack.Outcome == protocol.Mismatch {
			return fmt.Errorf("%w: %w", ErrOtherHistory,
				&protocol.Error{Code: protocol.CodeMismatch, Detail: fmt.Sprintf("%d entries pushed to feed %v", len(b.Entries), ack.Feed)})
		}
		if err := conn.Send(ack); err != nil {
			return err
		}
		if err := conn.Flush(); err != nil {
			return err
		}
	}
}

// Receive applies one push if it continues what is held (rule 8) and says what became of it, once that
// is durable (rule 2). A head its owner did not sign is a *protocol.Error.
func (r *Receiver) Receive(from record.DeviceID, b *protocol.StateBatch) (*protocol.Ack, error) {
	id, start := b.Next.Feed, r.Now()
	r.Notes.PushReceived(from, id, len(b.Entries))
	outcome, res, err := r.apply(from, b)
	if err != nil {
		r.Notes.PushDone(from, b, outcome, res, r.Now().Sub(start))
		return nil, err
	}
	ack := &protocol.Ack{Feed: id, Outcome: outcome}
	if st, ok := r.Store.State(id); ok && st.Settled != nil && !st.Settled.IsGenesis() {
		ack.Head = *st.Settled
	}
	if mutant.Is("ack_volatile") && outcome != protocol.Applied {
		return ack, nil
	}
	if err := r.Store.Sync(); err != nil { // whatever the outcome: the head may have come by a pull just now
		return nil, err
	}
	r.Notes.PushDone(from, b, outcome, res, r.Now().Sub(start))
	switch outcome {
	case protocol.Gap, protocol.Unsettled, protocol.Mismatch, protocol.Busy:
		r.Notes.Look(id)
	}
	return ack, nil
}

func (r *Receiver) apply(from record.DeviceID, b *protocol.StateBatch) (protocol.Outcome, store.Result, error) {
	if r.Paused != nil && r.Paused(from) {
		return protocol.Busy, store.Result{}, nil
	}
	for {
		outcome, res, err := r.applyAsMember(from, b)
		if !errors.Is(err, store.ErrGeneration) {
			return outcome, res, err
		}
	}
}

// applyAsMember returns store.ErrGeneration if the membership changed between the question whether the
// pusher belongs and what it pushed (invariant I12).
func (r *Receiver) applyAsMember(from record.DeviceID, b *protocol.StateBatch) (protocol.Outcome, store.Result, error) {
	var admitted uint64
	if r.Admit != nil {
		var err error
		if admitted, err = r.Admit(from); err != nil {
			return protocol.Rejected, store.Result{}, err
		}
	}
	id := b.Next.Feed
	if id.Device == r.Store.Device() || !r.Follows(id) {
		return protocol.Rejected, store.Result{}, nil
	}
	outcome, res, err := r.settle(from, b, admitted)
	if err != nil || outcome == protocol.Applied || outcome == protocol.Known {
		return outcome, res, err
	}
	if _, err := r.Store.Observe([]feed.Head{b.Next}, admitted); err != nil { // so that it is pulled
		return failed(err)
	}
	return outcome, res, nil
}

func (r *Receiver) settle(from record.DeviceID, b *protocol.StateBatch, admitted uint64) (protocol.Outcome, store.Result, error) {
	id := b.Next.Feed
	release, ok := r.Store.Claim(id)
	if !ok {
		return protocol.Busy, store.Result{}, nil
	}
	defer release()
	if r.Declines != nil && r.Declines(b.Next) && !mutant.Is("declined_applied") { // asked under the claim: what is declined may just have been given up
		return protocol.Declined, store.Result{}, nil
	}
	res, err := r.Store.Apply(store.Change{
		Feed: id, Prev: &b.Prev, Entries: b.Entries, Settle: &b.Next, Admitted: admitted,
		Within: func(tx kv.Tx, res *store.Result) error { return r.Notes.PushCommitting(tx, from, b, res) },
	})
	switch {
	case errors.Is(err, store.ErrMismatch):
		return protocol.Mismatch, res, nil
	case errors.Is(err, store.ErrStale):
		return protocol.Known, res, nil
	case errors.Is(err, kv.ErrTooBig):
		return protocol.Gap, res, nil // a pull can take it in parts
	case err != nil:
		return failed(err)
	}
	switch res.Push {
	case feed.PushKnown:
		return protocol.Known, res, nil
	case feed.PushUnsettled:
		return protocol.Unsettled, res, nil
	case feed.PushGap:
		return protocol.Gap, res, nil
	}
	return protocol.Applied, res, nil
}

// failed sorts the errors of the store: a forged head accuses the peer, a full disk is told as Busy, and
// anything else is this side's own fault, for which nobody is blamed.
func failed(err error) (protocol.Outcome, store.Result, error) {
	switch {
	case errors.Is(err, feed.ErrSignature):
		return protocol.Mismatch, store.Result{}, &protocol.Error{Code: protocol.CodeMismatch, Detail: err.Error()}
	case errors.Is(err, store.ErrNoSpace):
		return protocol.Busy, store.Result{}, nil
	}
	return protocol.Busy, store.Result{}, err
}
