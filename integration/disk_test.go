package integration

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/record"
	"peerdex/store"
)

// What a device's files hold, read while it does not run.

// files is an opened home.
type files struct {
	*store.Store
	device  record.DeviceID
	library feed.LibraryID
}

// openHome opens the store of a device that does not run, as the device itself would.
func openHome(t testing.TB, home string) *files {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(home, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(read("identity.key"))))
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	var lib struct {
		ID string `json:"library"`
	}
	if err := json.Unmarshal(read("library.json"), &lib); err != nil {
		t.Fatal(err)
	}
	id, err := hex.DecodeString(lib.ID)
	if err != nil {
		t.Fatal(err)
	}
	f := &files{device: record.DeviceID(key.Public().(ed25519.PublicKey)), library: feed.LibraryID(id)}
	clock := hlc.NewClock(time.Now, hlc.At(time.Now()), func(hlc.Stamp) error { return nil })
	f.Store, err = store.Open(filepath.Join(home, "store"), store.Config{
		Device: f.device, Library: f.library, Boot: 1, Clock: clock.Now,
		Sign: func(h feed.Head) feed.Head { return h.Sign(key) },
	})
	if err != nil {
		t.Fatalf("open the store of %s: %v", home, err)
	}
	return f
}

func (f *files) close(t testing.TB) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// treeNodes keeps a Merkle tree in memory.
type treeNodes struct {
	leaves map[uint64]feed.Leaf
	nodes  map[[2]uint64][]feed.Hash
	height int
}

func (n *treeNodes) Leaf(i uint64) (feed.Leaf, error) { return slices.Clone(n.leaves[i]), nil }
func (n *treeNodes) SetLeaf(i uint64, l feed.Leaf) error {
	n.leaves[i] = l
	return nil
}
func (n *treeNodes) Node(level int, i uint64) ([]feed.Hash, error) {
	return n.nodes[[2]uint64{uint64(level), i}], nil
}
func (n *treeNodes) SetNode(level int, i uint64, children []feed.Hash) error {
	n.nodes[[2]uint64{uint64(level), i}] = slices.Clone(children)
	return nil
}
func (n *treeNodes) Height() (int, error) { return n.height, nil }
func (n *treeNodes) SetHeight(h int) error {
	n.height = h
	return nil
}

// wantWhole fails if a feed that this store would serve is not exactly what its owner signed, its tree
// computed anew from its entries; one that is not settled must not be served. It returns how many feeds
// are not settled.
func (f *files) wantWhole(t testing.TB) (unsettled int) {
	t.Helper()
	for _, st := range f.States() {
		if st.Settled == nil {
			unsettled++
			if v, err := f.Serve(st.Feed); err == nil {
				v.Close()
				t.Errorf("feed %v is not settled and served", st.Feed)
			}
			continue
		}
		if st.Settled.IsGenesis() {
			continue
		}
		if err := st.Settled.Verify(); err != nil {
			t.Errorf("feed %v is settled at a head that its owner did not sign: %v", st.Feed, err)
		}
		tree := feed.NewEditor(feed.DefaultShape, &treeNodes{leaves: map[uint64]feed.Leaf{}, nodes: map[[2]uint64][]feed.Hash{}})
		n := uint64(0)
		err := f.Entries(st.Feed, func(r store.Row) error {
			n++
			return tree.Add(feed.Ref{Seq: r.Seq, Digest: feed.Entry{Key: r.Key, Seq: r.Seq, Record: r.Record}.Digest()})
		})
		if err != nil {
			t.Fatal(err)
		}
		root, err := tree.Flush(st.Settled.Seq)
		if err != nil {
			t.Fatal(err)
		}
		if root != st.Settled.Root || n != st.Settled.Count {
			t.Errorf("feed %v: %d entries with root %x, its owner signed %d and %x", st.Feed, n, root[:4], st.Settled.Count, st.Settled.Root[:4])
		}
	}
	return unsettled
}

// content is what a store holds of a feed that is settled: the head, and a digest of every byte of every entry.
type content struct {
	head    feed.Head
	entries [sha256.Size]byte
}

// contents returns what is held of each settled feed.
func (f *files) contents(t testing.TB) map[feed.ID]content {
	t.Helper()
	out := map[feed.ID]content{}
	for _, st := range f.States() {
		if st.Settled == nil || st.Settled.IsGenesis() {
			continue
		}
		sum := sha256.New()
		err := f.Entries(st.Feed, func(r store.Row) error {
			var size [24]byte
			binary.BigEndian.PutUint64(size[:], r.Seq)
			binary.BigEndian.PutUint64(size[8:], uint64(len(r.Key)))
			binary.BigEndian.PutUint64(size[16:], uint64(len(r.Record)))
			for _, b := range [][]byte{size[:], r.Key, r.Record} {
				sum.Write(b)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		out[st.Feed] = content{*st.Settled, [sha256.Size]byte(sum.Sum(nil))}
	}
	return out
}

// wantEqualOnDisk stops the peers and fails unless their files hold the same feeds, settled at the same
// signed heads, with the same bytes in each entry.
func wantEqualOnDisk(t testing.TB, peers ...*peer) {
	t.Helper()
	for _, p := range peers {
		if p.cmd != nil {
			p.stop()
		}
	}
	var all []map[feed.ID]content
	for _, p := range peers {
		f := openHome(t, p.home)
		if n := f.wantWhole(t); n > 0 {
			t.Errorf("%s: %d feeds are not settled", p.name, n)
		}
		all = append(all, f.contents(t))
		f.close(t)
	}
	for i, feeds := range all[1:] {
		first, other := peers[0].name, peers[i+1].name
		if len(feeds) != len(all[0]) {
			t.Errorf("%s holds %d feeds, %s %d", first, len(all[0]), other, len(feeds))
		}
		for id, h := range all[0] {
			switch o := feeds[id]; {
			case h.head != o.head:
				t.Errorf("feed %v: %s is at %s, %s at %s", id, first, headText(h.head), other, headText(o.head))
			case h.entries != o.entries:
				t.Errorf("feed %v: one head, but other entries", id)
			}
		}
	}
}

func headText(h feed.Head) string {
	return fmt.Sprintf("seq %d, gc %d, %d entries, root %x", h.Seq, h.GC, h.Count, h.Root[:4])
}
