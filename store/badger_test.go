package store

import (
	"errors"
	"log/slog"
	"sync"
	"testing"

	"peerdex/kv"
)

// Writers and syncs at once: the race detector watches Badger's choice of a log.
func TestSyncBesideWriters(t *testing.T) {
	e, err := openBadger(t.TempDir(), freeSpace, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var all sync.WaitGroup
	for w := range 2 {
		all.Go(func() {
			for i := range 60 {
				err := e.Update(func(tx kv.Tx) error { return tx.Set([]byte{byte(w), byte(i)}, make([]byte, 900<<10)) })
				if err := errors.Join(err, e.Sync()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// While the disk is almost full feeds cannot be written, small facts can a while longer, and everything can
// be read; with room again all goes on.
func TestFreeSpaceGuard(t *testing.T) {
	a := newDevice(t, 1)
	e := a.eng.(*engine)
	id := deviceFeed(a)
	if err := a.SetRegisters(name(a.id, "one")); err != nil {
		t.Fatal(err)
	}
	free, failing := uint64(0), error(nil)
	e.free = func(string) (uint64, error) { return free, failing }
	for _, c := range []struct {
		free         uint64
		feeds, facts bool
	}{{MinFree, true, true}, {MinFree - 1, false, true}, {MinFree / 2, false, true}, {MinFree/2 - 1, false, false}, {0, false, false}, {2 * MinFree, true, true}} {
		free = c.free
		if err := a.Room(); errors.Is(err, ErrNoSpace) == c.feeds {
			t.Errorf("%d bytes free: room is %v", free, err)
		}
		before, _ := a.State(id)
		err := a.SetRegisters(name(a.id, string(rune('a'+c.free%20))+string(rune('a'+len(before.Feed.Device)))+"x"))
		after, _ := a.State(id)
		if c.feeds && err != nil || !c.feeds && (!errors.Is(err, ErrNoSpace) || *after.Settled != *before.Settled) {
			t.Errorf("%d bytes free: feeds give %v", free, err)
		}
		if err := a.SetLocal("fact", []byte{1}); c.facts != (err == nil) || err != nil && !errors.Is(err, ErrNoSpace) {
			t.Errorf("%d bytes free: facts give %v", free, err)
		}
		if _, ok, err := a.Register(name(a.id, "").Entity, "name"); err != nil || !ok {
			t.Errorf("%d bytes free: reading gives %v", free, err)
		}
		if a.Free() != c.free {
			t.Errorf("free says %d", a.Free())
		}
	}
	failing = errors.New("no such device")
	if err := a.SetLocal("fact", []byte{1}); !errors.Is(err, failing) {
		t.Errorf("a guard that cannot see gives %v", err)
	}
}
