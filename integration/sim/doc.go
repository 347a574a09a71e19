// Package sim is the seeded simulator: a library of nodes in one goroutine's worth of scheduling, over
// stores that keep Badger's contract in memory and streams that break in every way streams break. The
// code under test is the product's own: feed, store, backfill and statebatch. Only what package node does
// around them, the gossip of heads and the choice of whom to ask, is modelled here (node_test.go).
//
// One seed is one world: its nodes, its topology, its faults and its schedule. The same binary and seed
// give the same trace, event by event. A failure prints the seed;
//
//	SIM_SEED=n go test ./integration/sim -run Replay -v
//
// plays it again with the whole trace. With -tags mutant the product is built with its rules breakable
// one at a time (package internal/mutant), and TestMutants requires the invariants to notice.
package sim
