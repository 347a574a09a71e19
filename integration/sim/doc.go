// Package sim is the seeded simulator: a library of nodes in one goroutine's worth of scheduling, over
// stores that keep Badger's contract in memory and streams that break in every way streams break. The
// code under test is the product's own: hlc, feed, member, store, backfill, statebatch, snapshot, and the decision
// of package node what is fetched. Only what node does around them is modelled here: the gossip of heads and the
// choice of whom to ask (node_test.go), certificates shown in a hello, the gater and the dropping of feeds
// (member_test.go), and the giving up of what a lazy location holds (lazy_test.go).
//
// Every node has a wall clock of its own, which may be skewed, jump by hours and years, stand or run at
// another rate, and one node may stamp what it likes (clock_test.go). What all devices write together is a
// small set of tags, assignments and notes; what they show is compared with a merge that is written again
// here, over every edit that was ever made (edit_test.go, shared_test.go).
//
// In a third of the worlds devices are invited, leave, and are revoked and forgotten, by who may and by who may
// not, while transfers are under way. Nothing of a device commits at a node that has committed its removal
// (I12), the generation of the membership never goes back (I11), and who belongs is what a second reading of
// the rules makes of the certificates at hand.
//
// In a tenth of the worlds much moves at once: locations become lazy and eager again, and devices fetch snapshots
// (bulk_test.go) of donors that are cut off, die, or lie (liar_test.go). Chunks lie in files that a power cut tears;
// the power goes at the crash points C11 to C15 (fresh_test.go). What is installed is what its owners signed; what
// is not has changed nothing (I13); no chunk that is kept is asked for again, and nothing piles up (I15). In worlds of
// their own a device joins others of which one is dead, slow or hostile (I19, isolation_test.go).
//
// One seed is one world: its nodes, its topology, its faults and its schedule. The same binary and seed
// give the same trace, event by event. A failure prints the seed;
//
//	SIM_SEED=n go test ./integration/sim -run Replay -v
//
// plays it again with the whole trace. With -tags mutant the product is built with its rules breakable
// one at a time (package internal/mutant), and TestMutants requires the invariants to notice.
package sim
