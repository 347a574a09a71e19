package backfill

import (
	"peerdex/feed"
	"peerdex/protocol"
)

// own takes back what this device once signed and no longer has, then signs above it (rule 15).
func (u *pulling) own() error {
	release, ok := u.Store.Claim(u.Feed)
	if !ok {
		return errBusy
	}
	defer release()
	st, _ := u.Store.State(u.Feed)
	if v := st.DecideOwn(u.Boot, &u.Head, u.Head); v.Own != feed.OwnAbsorb {
		return nil // what made the pull worth while has been dealt with
	}
	if err := u.ask(&protocol.Delta{After: 0}, "delta"); err != nil {
		return err
	}
	var (
		all      []feed.Entry
		absorbed = 0
		refs     []feed.Ref          // of everything that came
		held     = map[string]bool{} // keys of a location feed that the donor has
	)
	for at, last := uint64(0), false; !last; {
		page, err := u.page()
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if e.Seq <= at || e.Seq > u.Head.Seq {
				return violation(protocol.CodeMalformed, "entry at %d after %d in a delta up to %d", e.Seq, at, u.Head.Seq)
			}
			at = e.Seq
			refs = append(refs, feed.Ref{Seq: e.Seq, Digest: e.Digest()})
		}
		if len(page.Entries) == 0 && !page.Last {
			return violation(protocol.CodeMalformed, "empty page before the last")
		}
		if absorbed += len(page.Entries); uint64(absorbed) > u.Head.Count { // which this device signed
			return violation(protocol.CodeMismatch, "more entries of own feed %v than the %d it had", u.Feed, u.Head.Count)
		}
		last = page.Last
		if err := u.hold(len(page.Entries) * refSize); err != nil {
			return err
		}
		if u.Feed.IsDevice() {
			if err := u.holdEntries(page.Entries); err != nil {
				return err
			}
			all = append(all, page.Entries...)
			continue
		}
		if err := u.hold(len(page.Entries) * keySize); err != nil {
			return err
		}
		for _, e := range page.Entries {
			held[string(e.Key)] = true
		}
		err = u.asMember(func() error { return u.Store.AbsorbEntries(u.Head, page.Entries, u.admitted) })
		if err != nil {
			return err
		}
	}
	// What is signed next is this device's word again: only what it signed once may go into it.
	if uint64(len(refs)) != u.Head.Count || u.Shape.Root(refs, u.Head.Seq) != u.Head.Root {
		if !u.Feed.IsDevice() {
			u.Rescan(u.Feed.Location) // finds no files for what is made up
		}
		return violation(protocol.CodeMismatch, "entries of own feed %v do not add up to the head this device signed", u.Feed)
	}
	var (
		to  feed.Head
		err error
	)
	if u.Feed.IsDevice() {
		err = u.asMember(func() (err error) {
			to, err = u.Store.AbsorbRegisters(u.Head, all, u.admitted)
			return err
		})
	} else {
		to, err = u.Store.FinishAbsorb(u.Head, func(key []byte) bool { return held[string(key)] })
	}
	if err != nil {
		return err
	}
	u.pending = 0
	u.Notes.Absorbed(u.Pull, absorbed, to)
	if !u.Feed.IsDevice() {
		u.Rescan(u.Feed.Location)
	}
	return nil
}
