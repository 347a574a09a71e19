package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// makeTree writes files of a few bytes into about a twentieth as many folders, up to eight deep, and
// returns the folders. The seed decides everything.
func makeTree(dir string, files int, seed uint64) ([]string, error) {
	r := rand.New(rand.NewPCG(seed, 1))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	folders, depth := []string{dir}, map[string]int{dir: 0}
	for len(folders) < max(files/20, 1) {
		up := folders[r.IntN(len(folders))]
		if depth[up] == 7 {
			continue
		}
		f := filepath.Join(up, name(r, len(folders), ""))
		if err := os.Mkdir(f, 0o755); err != nil {
			return nil, err
		}
		folders, depth[f] = append(folders, f), depth[up]+1
	}
	ends := []string{".jpg", ".txt", ".pdf", ".mp4", ".go", ".tar.gz"}
	for i := range files {
		up := folders[int(float64(len(folders))*r.Float64()*r.Float64())] // few are full, most are not
		if err := os.WriteFile(filepath.Join(up, name(r, i, ends[r.IntN(len(ends))])), []byte("content")[:r.IntN(8)], 0o644); err != nil {
			return nil, err
		}
	}
	return folders, nil
}

// name is 8 to 40 bytes long and unique by i.
func name(r *rand.Rand, i int, end string) string {
	words := []string{"holiday", "draft", "invoice", "IMG", "report", "final", "scan", "music", "notes", "backup"}
	tail := fmt.Sprintf("%06x%s", i, end)
	var b strings.Builder
	for want := 8 + r.IntN(33) - len(tail); b.Len() < want; {
		w := words[r.IntN(len(words))] + "_"
		b.WriteString(w[:min(len(w), want-b.Len())])
	}
	if b.Len() < 8-len(tail) {
		b.WriteString("a_")
	}
	return b.String() + tail
}
