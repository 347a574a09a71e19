package catalog

import "io/fs"

// identify knows nothing: Windows tells a file's number only to who opens it. Entries are known by their
// names alone, so a rename there is a deletion and a new entry.
func identify(fs.FileInfo) identity { return identity{} }
