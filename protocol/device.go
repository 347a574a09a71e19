package protocol

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerdex/record"
)

// idPrefix begins the peer ID of every Ed25519 key: identity multihash of 36 bytes, then the protobuf
// PublicKey{Type: Ed25519, Data: 32 bytes} (libp2p peer-ids specification).
const idPrefix = "\x00\x24\x08\x01\x12\x20"

// ErrIdentity is returned for a peer ID that is not made of an Ed25519 key.
var ErrIdentity = errors.New("peer id is not an Ed25519 key")

// PeerID returns the libp2p name of a device. Its String is the text people see.
func PeerID(d record.DeviceID) peer.ID { return peer.ID(idPrefix + string(d[:])) }

// DeviceOf returns the device behind a peer ID, or ErrIdentity.
func DeviceOf(p peer.ID) (d record.DeviceID, err error) {
	if len(p) != len(idPrefix)+len(d) || string(p[:len(idPrefix)]) != idPrefix {
		return d, fmt.Errorf("%w: %q", ErrIdentity, p.String())
	}
	copy(d[:], p[len(idPrefix):])
	return d, nil
}
