// Package protocol is what devices say to each other: connections, streams, frames, messages and their
// limits, error codes, the hello, pairing. This page is the specification of the wire; where the code
// differs, one of them is a bug.
//
// # Connections
//
// A device is a libp2p peer with an Ed25519 key; its peer ID is its device ID. Transports are TCP (TLS 1.3
// or Noise, then yamux) and QUIC v1. A peer whose ID is not an Ed25519 key is disconnected after the
// handshake, and so is one that is no member, except while a pairing window is open.
//
// # The local network
//
// A device announces itself by multicast DNS (RFC 6762, 6763) as an instance of _peerdex._udp.local with a
// random name, on the networks it listens on. The TXT records are up to 8 strings "dnsaddr=" and a multiaddr
// that ends in /p2p/ and the peer ID, as in libp2p's discovery by mDNS. A receiver takes IP addresses that
// are private or on its own networks, of the first device named, and believes none of it: it only dials
// members there, who prove who they are.
//
// # Streams
//
//	/peerdex/session/1     one per connected pair, opened by the dialer; lives as long as the connection
//	/peerdex/pair/1        opened by the joiner; the only one strangers get an answer on
//	/peerdex/statebatch/1  opened by the pusher; long-lived; batches one way, acks the other
//	/peerdex/backfill/1    opened by the puller; one pull of one feed
//	/peerdex/lookup/1      opened by who asks; one question about one location
//	/peerdex/snapshot/1    opened by whoever lacks them; all feeds at once
//
// Membership is checked when a stream opens. A stream ends by closing, or by a reset with one of the codes
// below. Inbound streams per peer and in all: session 2 and 128, pair 1 and 8, statebatch 2 and 128,
// backfill 4 and 64, lookup 4 and 64, snapshot 2 and 16; more are reset with 0x10C or by libp2p with 0x1002.
//
// # Frames
//
//	1 byte   message number
//	1 byte   flags: bit 0 payload compressed with zstd, bit 1 with s2, never both, the others zero
//	uvarint  length of the payload on the wire, at most 5 bytes
//	payload
//	4 bytes  CRC32C of number, flags and payload, little-endian
//
// Each message has a greatest length, before and after compression, which is checked before anything is
// allocated; none exceeds 1 MiB + 64 KiB. A compressed payload is the length of the raw payload as a
// uvarint, then one zstd frame (window at most 1 MiB, no dictionary) or one s2 block. The raw length is at
// most 100 times the compressed one. Only the messages marked bulk may be compressed, and only as the
// other side said in its hello that it understands. A sender leaves payloads below 512 bytes alone.
//
// A receiver waits 15 s for the first frame and 90 s for each later one; on a session, which heartbeats keep
// alive, 15 s for each, and on a push stream as long as the session beside it lasts, its sender 30 s for an
// answer. Once its first byte is here, a frame has 20 s plus one second per 16 KiB to arrive, and as long to be taken by the other side.
//
// # Messages
//
// Control messages are protobuf (wire.proto); unknown fields are skipped. Bulk messages are written by
// hand: all integers are uvarints unless a size is given, "sized" is a uvarint length and bytes, a head is
// the 224 bytes of feed.Head.Append, reserved flag bits are zero, and nothing may follow the last field.
//
//	 1 Hello          control  library (32), session (16, not zero), versions from and to (1 or more), up to 32
//	                           capabilities, name, system and version of the device (UTF-8, 255 bytes each), boot
//	                           nonce, HLC, active syncs, up to 1,280 certificates of 512 bytes, up to 8
//	                           compressions (1 zstd, 2 s2), the preferred first
//	 2 HelloAck       control  the same of the responder; session repeated
//	 3 Ping           control  t1
//	 4 Pong           control  t1, t2, t3: Unix nanoseconds, 0 to 2^62
//	 5 Heads          bulk     flags (1 byte; bit 0: all feeds the sender knows; if these are 2,000, further Heads
//	                           without that bit tell the rest), active syncs, count up to 2,000; each: kind (1
//	                           byte) and heads: 0 best, settled nowhere; 1 settled, best; 2 one head, both settled
//	                           and best; plus 4: no entries of it are taken now
//	 6 Bye            control  code
//	 7 Refused        control  code
//	 8 BulkIndexComplete control  head of a location's feed, entries gained (1 to the head's count), their
//	                           bytes, time (Unix nanoseconds)
//	16 StateBatch     bulk     flags (1 byte; bit 0: previous head present, else genesis), session (16), previous
//	                           head, next head, entries
//	17 Ack            control  feed (48), the receiver's settled head if any, outcome: 1 applied, 2 known,
//	                           3 unsettled, 4 gap, 5 mismatch, 6 rejected, 7 busy, 8 declined
//	24 Lookup         control  session (16), feed (48), path up to 32 KiB, itself, a name to go on after, limit
//	                           of 1 to 1,000
//	25 Search         control  session (16), feed (48), query up to 16 KiB (query/encode.go), order (0 none,
//	                           1 name, 2 size, 3 modified, 4 path), reverse, limit of 1 to 10,000
//	26 Found          bulk     flags (1 byte; bit 0: last of this answer, 1: nothing lies there, 2: the one hit
//	                           is what lies there, 3: there is more), head, count up to 1,000; each: flags (1
//	                           byte; bit 0: folders above are unknown), sized path of its folder up to 32 KiB,
//	                           sized key, sized record
//	32 Open           control  session (16), feed (48)
//	33 Opened         control  head
//	34 Delta          control  after: a seq
//	35 Page           bulk     flags (1 byte; bit 0: last of this answer), entries
//	36 Nodes          control  level 1 to 63, 1 to 1,000 indexes
//	37 NodesReply     bulk     count; each: number of children (1 byte, up to 16), their hashes (32 each), cut
//	                           after the last that is not zero
//	38 Leaves         control  1 to 200 indexes
//	39 LeavesReply    bulk     count; each: sized leaf, up to 256 times (offset in the leaf, 1 byte; digest, 16)
//	40 Fetch          control  1 to 1,000 seqs, not zero
//	48 PairHello      control  invite id (16), nonce (16)
//	49 PairChallenge  control  nonce (16)
//	50 PairProof      control  MAC (32), name, system and version of the joiner
//	51 PairWelcome    control  MAC (32), library (32), root key (32), certificates, name, system and version;
//	                           a name for the joiner, if the one it gave is taken
//	52 PairRequest    control  commitment (32), name, system and version of the joiner
//	53 PairReveal     control  nonce (16)
//
//	56 OpenSnapshot   control  session (16)
//	57 SnapshotManifest bulk   sized manifest, up to 1 MiB
//	58 GetChunks      control  1 to 1,000 runs: first number, count of 1 or more
//	59 Chunk          bulk     number, sized chunk, up to 1 MiB; it is compressed already
//
// Entries are a count up to 1,000, then of each: the distance of its seq from the one before (1 or more;
// the first from 0), sized key (1 to 160 bytes), sized record (1 to 65,536 bytes). Key and record plus 15
// bytes each may sum to 1 MiB.
//
// Numbers are never reused: append only. A message on a stream where it does not belong is refused.
//
// # Session
//
// The initiator mints the session id, a UUIDv7, and sends Hello; the responder answers HelloAck. Both then
// know the version in use, the smaller of the two newest; if the windows do not meet, both end the stream
// with version, each knowing both windows. A hello of another library is answered by Refused library. Then
// follow exactly three Pings of the initiator, each answered before the next. From the pong that came back
// fastest, with t4 the time it came, the offset of the clocks is ((t2-t1)+(t3-t4))/2, the round trip
// (t4-t1)-(t3-t2), and the offset is uncertain by half the round trip. After that both sides send Heads,
// and Pings as heartbeats, when they like; a Ping is answered by a Pong at once. Bye announces the end.
//
// # Push
//
// The pusher sends StateBatches, the receiver answers each with an Ack, in order. What applied, known,
// unsettled and gap mean is rule 8 of docs/replication.md.
//
// # Pull
//
// The puller sends Open; the donor answers Opened with the head it is settled at and will serve until the
// stream ends, or Refused not_settled, unknown_feed, busy or paused. Then the puller asks, one request
// after another: Delta and Fetch are answered by Pages, the last marked so; Nodes by NodesReply, Leaves by
// LeavesReply, element by element as asked. It ends by closing the stream.
//
// # Bulk
//
// A device with the capability "bulk" is sent BulkIndexComplete, on the session, by the owner of a location
// that gained more than 10,000 entries in one scan, or as many as it is configured to; and it is told in Heads
// which feeds the sender declines the entries of. To others such a feed is told like any other. A push of one
// is answered declined.
//
// # Lookup
//
// Who follows a location by head only asks a device that is settled on it: one Lookup or Search on a stream.
// The answer is Found, of a Search as many as it takes, or Refused unknown_feed, not_settled, busy or paused.
// Head is where the answering device was settled when it began to look; the answer is as new, or newer. The
// head is signed by the owner; the entries are the answering device's word. A path is names with slashes
// between them, from the folder of the location down; the Folder of a Lookup's hits is empty. The hits of a
// Search are at most as many contents as the limit says, copies coming one after the other, and at most 10,000;
// those of a Lookup come in the order of the bytes of their names. Terms of a
// query name devices by peer IDs, tags by their IDs, contents by the first digits of their hashes, and, with
// the key "id", entries by theirs. The asker ends the stream when it has heard enough.
//
// # Snapshot
//
// The fetcher sends OpenSnapshot; the donor answers SnapshotManifest, as soon as it has read all its feeds, or
// Refused busy or paused. Then the fetcher asks for the chunks it lacks by their numbers in the manifest, and the
// donor sends them in that order, as fast as they are taken. It ends by closing the stream. What a manifest and a
// chunk are package snapshot says. A donor holds one snapshot for all who ask within ten minutes; one who
// comes back and is shown another manifest knows the chunks it has by their SHA-256.
//
// # Pairing
//
// An invite is a random secret of 128 bits, told outside the network as part of the join line
//
//	MULTIADDR/p2p/PEER-ID#xxxx-xxxx-xxxx-xxxx-xxxx-xxxx-xxxx
//
// in Crockford's base 32, lower case: the secret, then the first 12 bits of SHA-256("peerdex secret check
// 1\0" || secret). Readers take either case, any grouping, o for 0, i and l for 1. Its id is the first 16
// bytes of SHA-256("peerdex invite 1\0" || secret).
//
//	joiner  -> PairHello      invite id, joiner's nonce
//	inviter -> PairChallenge  inviter's nonce; the same whether the invite exists or not
//	joiner  -> PairProof      MAC('J')
//	inviter -> PairWelcome    MAC('I'), library, root key, certificates; or Refused
//
// MAC(role) is HMAC-SHA256 under the secret over "peerdex pair 1\0", the role byte, invite id, joiner's and
// inviter's device ids (32 bytes each), joiner's nonce, inviter's nonce. The connection has proven the
// device ids before. The inviter checks and consumes the invite in one write transaction. Whoever does not
// have the secret learns nothing: an unknown invite and a wrong secret are both refused as invite_invalid;
// invite_used and invite_expired are told only to who proved the secret. The joiner believes the welcome
// only if its MAC is right and the library id is the SHA-256 of the root key.
//
// A joiner that knows an address and no secret asks, and a person decides:
//
//	joiner  -> PairRequest    commitment
//	inviter -> PairChallenge  inviter's nonce
//	joiner  -> PairReveal     joiner's nonce
//	inviter -> PairWelcome    MAC zero, and the rest as above; or Refused
//
// The commitment is SHA-256("peerdex pair commitment 1\0" || joiner's id || inviter's id || joiner's nonce);
// the inviter ends the stream as unauthorized if it is not. Both sides then show six decimal digits: the
// first eight bytes of SHA-256("peerdex pair digits 1\0" || joiner's id || inviter's id || joiner's nonce ||
// inviter's nonce), big-endian, modulo 1,000,000. The person at the inviter approves the request whose
// digits the joiner shows. The address names the inviter's key, so the joiner knows whom it asks. It waits
// up to 11 minutes, in silence; Refused says not_approved, invite_expired after 10 minutes, or busy where
// too many wait. A device that was revoked is refused as revoked, with or without a secret.
//
// # Codes
//
// As reset codes, in Refused and Bye:
//
//	0x101 malformed     0x107 library        0x10D mismatch    0x113 invite_invalid
//	0x102 too_large     0x108 not_member     0x10E timeout     0x114 invite_used
//	0x103 checksum      0x109 unauthorized   0x10F shutdown    0x115 invite_expired
//	0x104 unknown_type  0x10A not_settled    0x110 internal    0x116 paused
//	0x105 unexpected    0x10B unknown_feed   0x111 lost             0x117 not_approved
//	0x106 version       0x10C busy           0x112 unsupported      0x118 revoked
//
// Codes outside 0x100 to 0xFFF are libp2p's: 0x1001 is read as unsupported, 0x1002 and 0x1003 as busy,
// 0x1007 as shutdown, 0x1008 as not_member, every other as lost.
//
// # Versions
//
// Adding a protobuf field, a capability, a compression or a code keeps everything as it is. A message or
// rule that only newer sides understand needs a capability, or a greater newest version in the hello. What
// an older side would misread needs a new stream protocol.
package protocol

// Needs protoc and protoc-gen-go (google.golang.org/protobuf/cmd/protoc-gen-go) of go.mod's version in PATH.
//go:generate protoc --go_out=. --go_opt=module=peerdex/protocol wire.proto
