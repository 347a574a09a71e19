package store

import (
	"log/slog"
	"testing"

	"peerdex/kv"
	"peerdex/kv/kvtest"
)

// Badger, behind this package's engine, keeps every sentence of kv's contract.
func TestBadgerKeepsTheContract(t *testing.T) {
	kvtest.Run(t, func(t testing.TB) kv.Engine {
		e, err := openBadger(t.TempDir(), freeSpace, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
		return e
	})
}
