package backfill

import (
	"errors"
	"testing"

	"peerdex/feed"
	"peerdex/protocol"
	"peerdex/record"
)

// The membership changes while a page is on its way (F1, I12). If the donor belongs no more, nothing of that
// page commits and the pull ends; if it still does, the pull goes on as if nothing had been.
func TestMembershipChangesDuringPull(t *testing.T) {
	for name, c := range map[string]struct {
		own     bool
		revoked bool
		after   int // pages that have come when the membership changes
		held    uint64
	}{
		"first page, revoked":      {false, true, 1, 0},
		"third page, revoked":      {false, true, 3, 2000},
		"third page, still in":     {false, false, 3, 2500},
		"second page, revoked":     {false, true, 2, 1000},
		"taking back, revoked":     {true, true, 2, 1000},
		"taking back, still in":    {true, false, 2, 2500},
		"before anything, revoked": {false, true, 0, 0},
	} {
		a, b := newParty(t, 1, 1), newParty(t, 2, 2)
		id := a.location(1)
		a.commit(t, id, files(0, 2500, "f")...)
		donor := a
		if c.own { // b has a's key, and lost everything
			must := newNotes(t)
			if _, err := b.pull(t, a, must, 0, id); err != nil {
				t.Fatal(err)
			}
			donor, b = b, newParty(t, 1, 9)
		}
		n := newNotes(t)
		in, pages := true, 0
		change := func() {
			if pages == c.after {
				in = !c.revoked
				if err := b.Raise(); err != nil {
					t.Fatal(err)
				}
			}
			pages++
		}
		change()
		n.onPage = change
		p := b.puller(n)
		p.Admit = func(d record.DeviceID) (uint64, error) {
			if d != donor.id || !in {
				return 0, protocol.CodeNotMember
			}
			return b.Generation(), nil
		}
		_, err := b.pullWith(t, donor, p, serveCut(t, donor, 0), id)
		if revoked := errors.Is(err, protocol.CodeNotMember); revoked != c.revoked || err != nil && !revoked {
			t.Errorf("%s: ends with %v", name, err)
		}
		if got := uint64(len(b.entries(t, feed.ID{Device: a.id, Location: id.Location}))); got != c.held {
			t.Errorf("%s: %d entries held, want %d", name, got, c.held)
		}
		if !c.revoked {
			if st, _ := b.State(id); st.Settled == nil {
				t.Errorf("%s: not settled", name)
			}
		}
	}
}
