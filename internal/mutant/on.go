//go:build mutant

// Package mutant breaks one rule of the product at a time, so that the simulator can show that it would
// notice.
package mutant

import "sync/atomic"

var broken atomic.Pointer[string]

// Break breaks the rule named, and mends the one broken before; the empty name only mends.
func Break(name string) { broken.Store(&name) }

// Is reports whether the rule named is broken.
func Is(name string) bool {
	p := broken.Load()
	return p != nil && *p == name
}
