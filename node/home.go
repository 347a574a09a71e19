package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/member"
	"peerdex/store"
)

// home is the device's data folder:
//
//	identity.key   the device's Ed25519 seed in hex, 0600
//	root.key       the library's root seed in hex, 0600; only where the library was made
//	root-ID.key    that of a library this device made and left
//	library.json   which library, and this device's certificates
//	clock          the stamp below which none is issued again (package hlc)
//	port           where the device listened last, unless it was told where
//	marker         highest durable seqs, outside the store (package store)
//	snapshot/      chunks of one being fetched, and the one being handed out
//	store/         Badger, see store/current.go
type home string

func (h home) path(name string) string { return filepath.Join(string(h), name) }

// library is what library.json holds.
type library struct {
	ID    string   `json:"library"`  // hex of feed.LibraryID
	Root  string   `json:"root_key"` // hex of the root public key
	Certs []string `json:"certs"`    // hex; of this device and of whom it knew when it was written
}

// open makes the folder if need be, for this user alone.
func (h home) open() error {
	if err := os.MkdirAll(string(h), 0o700); err != nil {
		return fmt.Errorf("make home: %w", err)
	}
	return nil
}

// key reads an Ed25519 key, making it if there is none and create says so.
func (h home) key(name string, create bool) (ed25519.PrivateKey, error) {
	b, err := os.ReadFile(h.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		seed := make([]byte, ed25519.SeedSize)
		rand.Read(seed)
		if err := h.write(name, []byte(hex.EncodeToString(seed)+"\n")); err != nil {
			return nil, err
		}
		return ed25519.NewKeyFromSeed(seed), nil
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%w: %s is no key of %d bytes in hex", errDamaged, h.path(name), ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// rootKey returns the root key of a library, or nil if this home has none. One that was put aside when the
// device left the library is picked up again; root.key of any other library is removed: this device is about
// to leave that, or was cut off while it did.
func (h home) rootKey(lib belonging) (ed25519.PrivateKey, error) {
	switch key, err := h.key("root.key", false); {
	case err == nil && key.Public().(ed25519.PublicKey).Equal(lib.root):
		return key, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	key, err := h.asideKey(lib)
	if err != nil || key == nil {
		return nil, errors.Join(err, h.remove("root.key"))
	}
	return key, h.rename(asideName(lib), "root.key")
}

// asideKey returns the root key of a library that this device made and left, or nil.
func (h home) asideKey(lib belonging) (ed25519.PrivateKey, error) {
	switch key, err := h.key(asideName(lib), false); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !key.Public().(ed25519.PublicKey).Equal(lib.root):
		return nil, nil
	default:
		return key, nil
	}
}

// asideName names the file that keeps the root key of a library that was left: somebody may still need it to
// put an admin out, and the device itself if it comes back.
func asideName(lib belonging) string { return fmt.Sprintf("root-%x.key", lib.id[:4]) }

// write replaces a file durably: whole or not at all.
func (h home) write(name string, data []byte) error { return store.Replace(h.path(name), data) }

// clock returns the device's clock, which keeps its bound in a file of its own: it is asked for stamps
// inside the store's transactions.
func (h home) clock(wall func() time.Time) (*hlc.Clock, error) {
	var floor hlc.Stamp
	b, err := os.ReadFile(h.path("clock"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read clock bound: %w", err)
	default:
		if floor, err = hlc.Parse(strings.TrimSpace(string(b))); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errDamaged, h.path("clock"), err)
		}
	}
	return hlc.NewClock(wall, floor, func(bound hlc.Stamp) error {
		return h.write("clock", []byte(bound.String()+"\n"))
	}), nil
}

// port returns where the device listened last, or 0.
func (h home) port() (int, error) {
	b, err := os.ReadFile(h.path("port"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read port: %w", err)
	}
	p, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", errDamaged, h.path("port"), err)
	}
	return int(p), nil
}

// rename moves a file durably.
func (h home) rename(from, to string) error {
	if err := os.Rename(h.path(from), h.path(to)); err != nil {
		return fmt.Errorf("keep %s: %w", from, err)
	}
	return store.SyncDir(string(h))
}

// remove deletes a file durably; one that is not there is no error.
func (h home) remove(name string) error {
	if err := os.Remove(h.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return store.SyncDir(string(h))
}

// loadLibrary returns the library this home belongs to; false if it has none yet.
func (h home) loadLibrary() (lib belonging, ok bool, err error) {
	b, err := os.ReadFile(h.path("library.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return lib, false, nil
	}
	if err != nil {
		return lib, false, fmt.Errorf("read library: %w", err)
	}
	var f library
	if err := json.Unmarshal(b, &f); err != nil {
		return lib, false, fmt.Errorf("%w: %s: %w", errDamaged, h.path("library.json"), err)
	}
	root, err := hex.DecodeString(f.Root)
	if err != nil || len(root) != ed25519.PublicKeySize {
		return lib, false, fmt.Errorf("%w: %s: root key %q is no key", errDamaged, h.path("library.json"), f.Root)
	}
	lib = belonging{id: member.LibraryOf(root), root: root}
	for _, text := range f.Certs {
		raw, err := hex.DecodeString(text)
		if err != nil {
			return lib, false, fmt.Errorf("%w: %s: certificate: %w", errDamaged, h.path("library.json"), err)
		}
		c, err := member.Parse(raw)
		if err != nil {
			return lib, false, fmt.Errorf("%w: %s: certificate: %w", errDamaged, h.path("library.json"), err)
		}
		lib.certs = append(lib.certs, c)
	}
	return lib, true, nil
}

func (h home) saveLibrary(lib belonging) error {
	f := library{ID: hex.EncodeToString(lib.id[:]), Root: hex.EncodeToString(lib.root)}
	for _, c := range lib.certs {
		f.Certs = append(f.Certs, hex.EncodeToString(c.Append(nil)))
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("write library: %w", err)
	}
	return h.write("library.json", append(b, '\n'))
}

// errDamaged is a file of the home folder that does not hold what it should.
var errDamaged = errors.New("home folder is damaged")

// belonging says which library a device is in and by which certificates.
type belonging struct {
	id    feed.LibraryID
	root  ed25519.PublicKey
	certs []member.Cert
}
