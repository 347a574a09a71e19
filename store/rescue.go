package store

import (
	"crypto/sha256"
	"fmt"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/internal/mutant"
	"peerdex/kv"
	"peerdex/record"
)

// lost returns old, a register that leaves its feed in favour of next, if rule 13 says to rescue it.
func (t *tx) lost(r *row, old *held, next *record.Register) ([]record.Register, error) {
	if !r.state.Feed.IsDevice() || mutant.Is("rescue_skipped") {
		return nil, nil
	}
	reg := registerOf(r.state.Feed, old)
	if reg == nil || reg.Author != r.state.Feed.Device && mutant.Is("rescue_own_words") {
		return nil, nil // shown to nobody before, so nothing vanishes
	}
	others, err := t.others(r.state.Feed, old.Key)
	if err != nil {
		return nil, err
	}
	if feed.Rescue(t.s.cfg.Now(), *reg, next, others) {
		return []record.Register{*reg}, nil
	}
	return nil, nil
}

// others returns the registers of key in all device feeds but one.
func (t *tx) others(but feed.ID, key []byte) (out []record.Register, err error) {
	now := t.s.cfg.Now()
	for _, d := range t.sharedFeeds() {
		if d.id == but {
			continue
		}
		h, err := getEntry(t.kv, d.num, key)
		if err != nil {
			return nil, err
		}
		if reg := registerOf(d.id, h); reg != nil && counts(d.id, *reg, now) {
			out = append(out, *reg)
		}
	}
	return out, nil
}

type sharedFeed struct {
	id  feed.ID
	num num
}

// sharedFeeds returns the device feeds that hold anything, as they were when the transaction first asked.
func (t *tx) sharedFeeds() []sharedFeed {
	if t.devices == nil {
		t.s.mu.Lock()
		defer t.s.mu.Unlock()
		t.devices = []sharedFeed{}
		for id, r := range t.s.rows {
			if id.IsDevice() && r.num != 0 {
				t.devices = append(t.devices, sharedFeed{id, r.num})
			}
		}
	}
	return t.devices
}

// registerOf returns the register of an entry of a device feed; nil if there is none that this version shows.
func registerOf(id feed.ID, h *held) *record.Register {
	if h == nil {
		return nil
	}
	rec, err := accept(id, h.Key, h.Record)
	if err != nil {
		return nil
	}
	reg := rec.(record.Register)
	return &reg
}

// emit writes rescued registers into this device's own feed, author and stamp unchanged (rule 13); a
// frozen clone puts them aside instead (rule 14).
func (t *tx) emit(rescue []record.Register, stamp hlc.Stamp, res *Result) error {
	if len(rescue) == 0 {
		return nil
	}
	if t.s.Frozen() {
		if mutant.Is("aside_dropped") {
			return nil
		}
		for _, reg := range rescue {
			if err := t.setAside(reg); err != nil {
				return err
			}
		}
		res.Aside = t.aside
		return nil
	}
	own, err := t.row(feed.ID{Device: t.s.cfg.Device})
	if err != nil {
		return err
	}
	now := t.s.cfg.Now()
	first := map[string]record.Register{}
	var puts []Put
	for _, reg := range rescue {
		k := string(reg.Key())
		if o, ok := first[k]; !ok || reg.Outranks(o, now) {
			first[k] = reg
		}
	}
	for _, reg := range rescue {
		if k := string(reg.Key()); first[k].Compare(reg) == 0 {
			puts = append(puts, Put{Record: reg})
			delete(first, k)
		}
	}
	res.Rescued = len(puts)
	_, err = t.sign(own, puts, jump{}, stamp)
	res.Aside = t.aside
	return err
}

// setAside keeps a register outside all feeds.
func (t *tx) setAside(reg record.Register) error {
	t.aside++
	v := reg.Append(append([]byte{byte(len(reg.Key()))}, reg.Key()...))
	sum := sha256.Sum256(v)
	return t.kv.Set(append([]byte{famAside}, sum[:16]...), v)
}

// SetAside returns the registers that found no place in any feed: those a frozen clone could not rescue
// (rule 14), and those of the future that gave way to others.
func (s *Store) SetAside() (out []record.Register, err error) {
	err = s.eng.View(func(r kv.Reader) error {
		return r.Scan([]byte{famAside}, nil, func(_, v []byte) error {
			if len(v) < 1 || len(v) < 1+int(v[0]) {
				return fmt.Errorf("register set aside: %w", errRow)
			}
			rec, err := record.Decode(append([]byte(nil), v[1:1+v[0]]...), append([]byte(nil), v[1+v[0]:]...))
			if reg, ok := rec.(record.Register); ok {
				out = append(out, reg)
			}
			return err
		})
	})
	return out, err
}
