package store

// turn is a mutex that is had in the order in which it was asked for. Who gives a sync.Mutex back and asks for it
// again has it before those who wait, twice if need be: between two transactions of a long row nobody else would write.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) Lock() { t <- struct{}{} }

func (t turn) Unlock() { <-t }
