package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"
	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// pipeProtocol is spoken between two ends of the raw pipe only.
const pipeProtocol = "/peerdex/bench/pipe/1"

// pipe measures the limit of a join: the rows of a donor's store, all families as they lie there, read in their
// order, compressed, sent over one libp2p stream, and written by Badger's stream writer. Nothing is verified.
func (b *bench) pipe(ctx context.Context, donor *daemon) (moved, error) {
	self, err := os.Executable()
	if err != nil {
		return moved{}, err
	}
	rows, err := storeOf(donor)
	if err != nil {
		return moved{}, err
	}
	dir, err := b.fresh("pipe-")
	if err != nil {
		return moved{}, err
	}
	m, err := move(ctx, func(listen string) *exec.Cmd {
		return exec.CommandContext(ctx, self, pipeEnd, "hold", rows, listen)
	}, func(words []string) *exec.Cmd {
		return exec.CommandContext(ctx, self, pipeEnd, "join", dir, words[0])
	}, 1)
	return m, errors.Join(err, os.RemoveAll(dir))
}

// storeOf returns the folder that holds the rows of a daemon that does not run.
func storeOf(d *daemon) (string, error) {
	root := filepath.Join(d.home, "store")
	name, err := os.ReadFile(filepath.Join(root, "CURRENT"))
	if errors.Is(err, os.ErrNotExist) {
		return root, nil
	}
	return filepath.Join(root, strings.TrimSpace(string(name))), err
}

// pipeEnd as the first argument makes the program one end of the raw pipe.
const pipeEnd = "pipe-end"

// runPipeEnd is `pipe-end hold DIR LISTEN` or `pipe-end join DIR ADDR`.
func runPipeEnd(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s: hold or join, which folder, and where?", pipeEnd)
	}
	if args[0] == "hold" {
		return holdPipe(args[1], args[2])
	}
	return joinPipe(ctx, args[1], args[2])
}

// holdPipe sends the rows in dir to whoever asks.
func holdPipe(dir, listen string) (err error) {
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	h, err := libp2p.New(libp2p.ListenAddrStrings(listen), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	h.SetStreamHandler(pipeProtocol, func(s network.Stream) {
		if err := sendRows(db, s); err != nil {
			fmt.Fprintln(os.Stderr, err)
			_ = s.Reset() // the other end tells what that means
			return
		}
		_ = s.Close() // likewise
	})
	fmt.Printf("%s/p2p/%s\n", listen, h.ID())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

const (
	pipeLot   = 1 << 20   // bytes of rows handed on at a time
	pipeTable = 256 << 10 // bytes, as the store has it when it loads: tables are 32 times as large, and many are made at once
)

// sendRows writes the rows in their order, each family a stream of Badger's, each lot with its length before it.
func sendRows(db *badger.DB, to io.Writer) (err error) {
	w, err := zstd.NewWriter(to, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		return err
	}
	rows := z.NewBuffer(2*pipeLot, "pipe")
	defer func() { err = errors.Join(err, rows.Release()) }()
	lot := func() error {
		if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(rows.LenNoPadding()))); err != nil {
			return err
		}
		_, err := w.Write(rows.Bytes())
		rows.Reset()
		return err
	}
	tx := db.NewTransaction(false)
	defer tx.Discard()
	opt := badger.DefaultIteratorOptions
	opt.PrefetchValues = false // they lie beside the keys
	it := tx.NewIterator(opt)
	defer it.Close()
	var row pb.KV
	for it.Rewind(); it.Valid(); it.Next() {
		key := it.Item().Key()
		family := uint32(key[0])
		if row.StreamId != 0 && row.StreamId != family {
			badger.KVToBuffer(&pb.KV{StreamId: row.StreamId, StreamDone: true}, rows)
		}
		err := it.Item().Value(func(value []byte) error {
			row.Key, row.Value, row.Version, row.StreamId = key, value, 1, family
			badger.KVToBuffer(&row, rows)
			return nil
		})
		if err != nil {
			return err
		}
		if rows.LenNoPadding() < pipeLot {
			continue
		}
		if err := lot(); err != nil {
			return err
		}
	}
	return errors.Join(lot(), w.Close())
}

// joinPipe fills dir with the rows that address sends, and says so when they are on disk.
func joinPipe(ctx context.Context, dir, address string) (err error) {
	donor, err := peer.AddrInfoFromString(address)
	if err != nil {
		return err
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if err := h.Connect(ctx, *donor); err != nil {
		return err
	}
	s, err := h.NewStream(ctx, donor.ID, pipeProtocol)
	if err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil { // also what makes the other end hear of the stream
		return err
	}
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil).WithBaseTableSize(pipeTable))
	if err != nil {
		return err
	}
	if err := errors.Join(receiveRows(db, s), db.Close()); err != nil {
		return err
	}
	fmt.Println("on disk")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func receiveRows(db *badger.DB, from io.Reader) error {
	r, err := zstd.NewReader(from)
	if err != nil {
		return err
	}
	defer r.Close()
	in := bufio.NewReaderSize(r, 1<<20)
	sw := db.NewStreamWriter()
	if err := sw.Prepare(); err != nil {
		return err
	}
	var (
		size [4]byte
		rows []byte
	)
	for {
		if _, err := io.ReadFull(in, size[:]); errors.Is(err, io.EOF) {
			return sw.Flush()
		} else if err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint32(size[:]))
		rows = slices.Grow(rows[:0], n)[:n]
		if _, err := io.ReadFull(in, rows); err != nil {
			return err
		}
		if err := sw.Write(z.NewBufferSlice(rows)); err != nil {
			return err
		}
	}
}
