package store

import (
	"slices"
	"testing"
	"testing/synctest"
)

// Whoever gives a turn back and asks for it again has it after all who waited, and these in their order.
func TestTurnsAreTakenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := newTurn()
		var had []int
		turn.Lock()
		for i := range 5 {
			go func() {
				turn.Lock()
				defer turn.Unlock()
				had = append(had, i)
			}()
			synctest.Wait() // until it waits
		}
		turn.Unlock()
		turn.Lock()
		defer turn.Unlock()
		if !slices.Equal(had, []int{0, 1, 2, 3, 4}) {
			t.Errorf("it was had by %v", had)
		}
	})
}
