//go:build !mutant

// Package mutant breaks one rule of the product at a time, so that the simulator can show that it would
// notice. Only a build with the tag mutant can; in every other one Is is the constant false and whatever it
// guards is not compiled in.
package mutant

// Is reports whether the rule named is broken.
func Is(string) bool { return false }
