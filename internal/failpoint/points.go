// Package failpoint names moments at which a process may die, so that a test can kill it at exactly those. Only a
// build with the tag failpoint can; in every other one At does nothing.
package failpoint

// Points, in the order in which a snapshot passes them.
const (
	C11 = "C11" // a chunk has come, and is not kept under its name
	C12 = "C12" // all chunks are put in, and the last feed is not verified
	C13 = "C13" // everything is verified and durable; CURRENT does not name it
	C14 = "C14" // CURRENT names it, which is not durable
	C15 = "C15" // that is durable too; the files before it are still there
)
