package api

import "io/fs"

func ownedByUs(fs.FileInfo) bool    { return true }
func openToOthers(fs.FileInfo) bool { return false }
