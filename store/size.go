package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// sizeOf adds up the files of a Badger directory: its tables with the logs of those that are still in
// memory, and the value log. Badger's own account is kept only with its metrics on, and once a minute.
func sizeOf(dir string) (lsm, log int64, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, f := range files {
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // compacted just now
		}
		if err != nil {
			return 0, 0, err
		}
		switch filepath.Ext(f.Name()) {
		case ".sst", memSuffix:
			lsm += taken(info)
		case ".vlog":
			log += taken(info)
		}
	}
	return lsm, log, nil
}
