package statebatch

import (
	"errors"
	"testing"

	"peerdex/feed"
	"peerdex/kv/memory"
	"peerdex/protocol"
	"peerdex/record"
)

// The membership changes between the question whether a pusher belongs and the commit of what it pushed
// (F1, I12): it is asked again, and whoever is out by then gets nothing in.
func TestMembershipChangesDuringPush(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		a, b := newParty(t, 1, memory.Config{}), newParty(t, 2, memory.Config{})
		h := a.commit(t, file(1, "one"))
		notes := &receiverNotes{}
		r := b.receiver(notes)
		asked := 0
		r.Admit = func(d record.DeviceID) (uint64, error) {
			if asked++; asked > 1 && revoked {
				return 0, protocol.CodeNotMember
			}
			g := b.Generation()
			if asked == 1 { // right after it was asked
				if err := b.Raise(); err != nil {
					t.Fatal(err)
				}
			}
			return g, nil
		}
		ack, err := r.Receive(a.id, a.batch(t, feed.Head{}))
		st, known := b.State(a.location())
		switch {
		case asked != 2:
			t.Errorf("revoked %v: asked %d times", revoked, asked)
		case revoked && (!errors.Is(err, protocol.CodeNotMember) || known || notes.committed != 0):
			t.Errorf("a revoked device's push: %+v, %v, %+v", ack, err, st)
		case !revoked && (err != nil || ack.Outcome != protocol.Applied || st.Settled == nil || *st.Settled != h):
			t.Errorf("a member's push: %+v, %v, %+v", ack, err, st)
		}
	}
}
