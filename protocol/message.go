package protocol

import (
	"encoding/hex"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/query"
	"peerdex/record"
)

// Limits on messages. A message beyond them is refused by its sender and by its receiver.
const (
	MaxPage         = 1 << 20         // bytes of encoded entries, leaves or nodes in one message
	MaxFrame        = 1<<20 + 64<<10  // bytes of one payload on the wire
	MaxEntries      = 1000            // entries of a Page or StateBatch, and Seqs of a Fetch
	MaxHeads        = 2000            // feeds in one Heads
	MaxNodes        = 1000            // indexes of a Nodes
	MaxLeaves       = 200             // indexes of a Leaves: the fullest of them fit in MaxPage
	MaxLevel        = 63              // of a Nodes
	MaxChildren     = 16              // hashes of one node
	MaxLeaf         = 256 * leafEntry // bytes of one packed leaf
	MaxCerts        = 1280            // certificates in a Hello or PairWelcome
	MaxCert         = 512             // bytes of one certificate
	MaxText         = 255             // bytes of a name, system or version, UTF-8
	MaxCapabilities = 32              // in a Hello
	MaxCompressions = 8               // in a Hello
)

const leafEntry = 1 + feed.DigestSize

// SessionID names one session on both sides; the initiator mints it.
type SessionID [16]byte

// NewSessionID returns a UUIDv7 of the present moment (RFC 9562).
func NewSessionID() SessionID { return SessionID(uuid.Must(uuid.NewV7())) }

// String writes the id as 32 hexadecimal digits.
func (s SessionID) String() string { return hex.EncodeToString(s[:]) }

// Message is one of the pointer types below. What a Conn received may be kept; its byte slices share one
// buffer that belongs to the message.
type Message interface {
	number() uint8
	check() error                    // limits and required fields, for both directions
	append(b []byte) ([]byte, error) // of a checked message
	parse(b []byte) error            // keeps b; check follows
}

// Message numbers are the protocol. Append only; never renumber or reuse.
const (
	numHello         = 1
	numHelloAck      = 2
	numPing          = 3
	numPong          = 4
	numHeads         = 5
	numBye           = 6
	numRefused       = 7
	numBulkIndex     = 8
	numStateBatch    = 16
	numAck           = 17
	numLookup        = 24
	numSearch        = 25
	numFound         = 26
	numOpen          = 32
	numOpened        = 33
	numDelta         = 34
	numPage          = 35
	numNodes         = 36
	numNodesReply    = 37
	numLeaves        = 38
	numLeavesReply   = 39
	numFetch         = 40
	numPairHello     = 48
	numPairChallenge = 49
	numPairProof     = 50
	numPairWelcome   = 51
	numPairRequest   = 52
	numPairReveal    = 53

	numOpenSnapshot     = 56
	numSnapshotManifest = 57
	numGetChunks        = 58
	numChunk            = 59
)

// spec is what a receiver knows of a message before it reads the payload.
type spec struct {
	name string
	max  int // bytes of payload, uncompressed
	bulk bool
	on   []ID // stream protocols it belongs to
	make func() Message
}

const (
	maxHello   = MaxCerts*(MaxCert+8) + 16<<10
	maxControl = 512
	maxNumbers = 16 << 10 // up to 1,000 numbers of up to 10 bytes, and slack for fields to come
)

var specs = [64]spec{
	numHello:         {"hello", maxHello, false, []ID{SessionProtocol}, func() Message { return new(Hello) }},
	numHelloAck:      {"hello_ack", maxHello, false, []ID{SessionProtocol}, func() Message { return new(HelloAck) }},
	numPing:          {"ping", maxControl, false, []ID{SessionProtocol}, func() Message { return new(Ping) }},
	numPong:          {"pong", maxControl, false, []ID{SessionProtocol}, func() Message { return new(Pong) }},
	numHeads:         {"heads", MaxPage, true, []ID{SessionProtocol}, func() Message { return new(Heads) }},
	numBye:           {"bye", maxControl, false, []ID{SessionProtocol}, func() Message { return new(Bye) }},
	numRefused:       {"refused", maxControl, false, []ID{SessionProtocol, BackfillProtocol, PairProtocol, LookupProtocol, SnapshotProtocol}, func() Message { return new(Refused) }},
	numBulkIndex:     {"bulk_index_complete", maxControl, false, []ID{SessionProtocol}, func() Message { return new(BulkIndexComplete) }},
	numStateBatch:    {"state_batch", MaxFrame, true, []ID{StateBatchProtocol}, func() Message { return new(StateBatch) }},
	numAck:           {"ack", maxControl, false, []ID{StateBatchProtocol}, func() Message { return new(Ack) }},
	numLookup:        {"lookup", MaxPath + maxControl + record.MaxName, false, []ID{LookupProtocol}, func() Message { return new(Lookup) }},
	numSearch:        {"search", query.MaxEncoded + maxControl, false, []ID{LookupProtocol}, func() Message { return new(Search) }},
	numFound:         {"found", MaxFrame, true, []ID{LookupProtocol}, func() Message { return new(Found) }},
	numOpen:          {"open", maxControl, false, []ID{BackfillProtocol}, func() Message { return new(Open) }},
	numOpened:        {"opened", maxControl, false, []ID{BackfillProtocol}, func() Message { return new(Opened) }},
	numDelta:         {"delta", maxControl, false, []ID{BackfillProtocol}, func() Message { return new(Delta) }},
	numPage:          {"page", MaxFrame, true, []ID{BackfillProtocol}, func() Message { return new(Page) }},
	numNodes:         {"nodes", maxNumbers, false, []ID{BackfillProtocol}, func() Message { return new(Nodes) }},
	numNodesReply:    {"nodes_reply", MaxPage, true, []ID{BackfillProtocol}, func() Message { return new(NodesReply) }},
	numLeaves:        {"leaves", maxNumbers, false, []ID{BackfillProtocol}, func() Message { return new(Leaves) }},
	numLeavesReply:   {"leaves_reply", MaxPage, true, []ID{BackfillProtocol}, func() Message { return new(LeavesReply) }},
	numFetch:         {"fetch", maxNumbers, false, []ID{BackfillProtocol}, func() Message { return new(Fetch) }},
	numPairHello:     {"pair_hello", maxControl, false, []ID{PairProtocol}, func() Message { return new(PairHello) }},
	numPairChallenge: {"pair_challenge", maxControl, false, []ID{PairProtocol}, func() Message { return new(PairChallenge) }},
	numPairProof:     {"pair_proof", 2048, false, []ID{PairProtocol}, func() Message { return new(PairProof) }},
	numPairWelcome:   {"pair_welcome", maxHello, false, []ID{PairProtocol}, func() Message { return new(PairWelcome) }},
	numPairRequest:   {"pair_request", 2048, false, []ID{PairProtocol}, func() Message { return new(PairRequest) }},
	numPairReveal:    {"pair_reveal", maxControl, false, []ID{PairProtocol}, func() Message { return new(PairReveal) }},

	numOpenSnapshot:     {"open_snapshot", maxControl, false, []ID{SnapshotProtocol}, func() Message { return new(OpenSnapshot) }},
	numSnapshotManifest: {"snapshot_manifest", MaxFrame, true, []ID{SnapshotProtocol}, func() Message { return new(SnapshotManifest) }},
	numGetChunks:        {"get_chunks", maxNumbers, false, []ID{SnapshotProtocol}, func() Message { return new(GetChunks) }},
	numChunk:            {"chunk", MaxFrame, true, []ID{SnapshotProtocol}, func() Message { return new(Chunk) }},
}

// specOf returns what is known of a message number on a stream protocol; an empty id allows all.
func specOf(number uint8, id ID) (spec, error) {
	if int(number) >= len(specs) || specs[number].make == nil {
		return spec{}, faultf(CodeUnknownType, "number %d", number)
	}
	s := specs[number]
	if id != "" && !slices.Contains(s.on, id) {
		return s, faultf(CodeUnexpected, "%s on %s", s.name, id)
	}
	return s, nil
}

// Unexpected returns the *Error for a message that is correct but not what should come now; m may be nil.
func Unexpected(m Message) error {
	if m == nil {
		return faultf(CodeUnexpected, "end of stream")
	}
	return faultf(CodeUnexpected, "%s", specs[m.number()].name)
}

// Encode returns the payload of m, uncompressed, or an *Error if m is beyond a limit.
func Encode(m Message) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	return m.append(nil)
}

// Decode reads a payload that Encode wrote, under its message number. The message keeps b.
func Decode(number uint8, b []byte) (Message, error) {
	s, err := specOf(number, "")
	if err != nil {
		return nil, err
	}
	if len(b) > s.max {
		return nil, tooLarge(s.name, len(b), s.max)
	}
	m := s.make()
	if err := m.parse(b); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name, err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name, err)
	}
	return m, nil
}

// Number returns the message number of m.
func Number(m Message) uint8 { return m.number() }

// Hello is the first message of a session, from the initiator.
type Hello struct {
	Library      feed.LibraryID
	Session      SessionID // minted by the initiator, repeated by the responder
	MinVersion   uint32    // oldest and newest version of the session's rules that are understood
	MaxVersion   uint32
	Capabilities []string // optional abilities; unknown ones are ignored
	Name         string   // of the device, for people
	OS           string
	AppVersion   string
	Boot         uint64 // nonce of the process (rule 16)
	HLC          hlc.Stamp
	ActiveSyncs  uint32        // for donor election
	Certs        [][]byte      // of members, opaque here
	Compression  []Compression // understood, the preferred first; unknown ones are ignored
}

// HelloAck is the responder's Hello, with the initiator's session id.
type HelloAck struct{ Hello }

// Ping asks for a Pong. T1 is the sender's clock at sending, Unix nanoseconds.
type Ping struct{ T1 int64 }

// Pong answers a Ping at once: T1 as received, T2 the answering side's clock when the Ping came, T3 when
// the Pong left; Unix nanoseconds.
type Pong struct{ T1, T2, T3 int64 }

// HeadInfo is what a node knows of one feed.
type HeadInfo struct {
	Settled *feed.Head // where it is settled; nil: nowhere
	Best    feed.Head  // the best head it has seen
	// Declines says that it takes no entries of the feed at present: it follows by head only, or waits. Only
	// who has CapabilityBulk is told so; to others such a feed looks like any other.
	Declines bool
}

// Heads says where the sender stands: at connect, every 30 s and when something changed.
type Heads struct {
	Heads       []HeadInfo
	ActiveSyncs uint32
	Full        bool // what was told before is void; with fewer than MaxHeads, these are all feeds the sender knows
}

// Bye announces that the sender is about to close the session.
type Bye struct{ Reason Code }

// Refused answers a request that cannot be served.
type Refused struct{ Code Code }

// StateBatch pushes the entries of a feed after Prev that lead to Next (rule 8). A zero Prev is genesis.
type StateBatch struct {
	Session SessionID
	Prev    feed.Head
	Entries []feed.Entry // rising seq
	Next    feed.Head
}

// Outcome is what became of a StateBatch.
type Outcome uint8

// Outcomes are part of the encoding. Append only.
const (
	Applied   Outcome = iota + 1 // settled at Next, durably
	Known                        // nothing new in it
	Unsettled                    // the receiver is not settled; a pull is on its way
	Gap                          // it does not continue what the receiver holds; it will pull
	Mismatch                     // the entries did not give Next's root; it will pull
	Rejected                     // not a feed, record or signature the receiver accepts
	Busy                         // the feed is locked by a pull, or too much is waiting
	Declined                     // it follows the feed by head only, or waits
)

var outcomes = [...]string{Applied: "applied", Known: "known", Unsettled: "unsettled", Gap: "gap",
	Mismatch: "mismatch", Rejected: "rejected", Busy: "busy", Declined: "declined"}

func (o Outcome) String() string {
	if o == 0 || int(o) >= len(outcomes) {
		return "other"
	}
	return outcomes[o]
}

// Ack answers StateBatches in their order.
type Ack struct {
	Feed    feed.ID
	Head    feed.Head // where the receiver is settled now; zero: nowhere
	Outcome Outcome
}

// Open begins a pull of one feed; the answer is Opened or Refused.
type Open struct {
	Session SessionID
	Feed    feed.ID
}

// Opened says at which head the donor will serve until the stream ends.
type Opened struct{ Head feed.Head }

// Delta asks for every entry after a seq, in order; the answers are Pages, the last marked Last.
type Delta struct{ After uint64 }

// Page is a run of entries, at most MaxEntries and MaxPage bytes by EntrySize.
type Page struct {
	Entries []feed.Entry // rising seq
	Last    bool
}

// Nodes asks for the children of tree nodes of one level, 1 and up; the answer is a NodesReply.
type Nodes struct {
	Level   int
	Indexes []uint64
}

// NodesReply holds, for each index asked for, the hashes of the node's children, cut after the last that
// is not zero.
type NodesReply struct{ Children [][]feed.Hash }

// Leaves asks for leaves; the answer is a LeavesReply.
type Leaves struct{ Indexes []uint64 }

// LeavesReply holds, for each index asked for, the leaf as feed.Shape.Pack writes it.
type LeavesReply struct{ Leaves [][]byte }

// Fetch asks for the entries at the given seqs; the answers are Pages, the last marked Last. Seqs that
// hold nothing are left out.
type Fetch struct{ Seqs []uint64 }

// PairHello begins a pairing, from the joiner.
type PairHello struct {
	Invite InviteID
	Nonce  Nonce
}

// PairChallenge is the inviter's answer, the same for known and unknown invites and where there is none.
type PairChallenge struct{ Nonce Nonce }

// PairProof shows that the joiner has the secret, and who it is.
type PairProof struct {
	MAC                  MAC
	Name, OS, AppVersion string
}

// PairRequest begins a pairing without a secret, from the joiner.
type PairRequest struct {
	Commitment           Commitment // to the nonce of PairReveal
	Name, OS, AppVersion string
}

// PairReveal shows the nonce that the joiner had committed to.
type PairReveal struct{ Nonce Nonce }

// PairWelcome shows that the inviter has the secret, and hands over what a member needs. Where a person
// approved there is no secret, and MAC is zero.
type PairWelcome struct {
	MAC                  MAC
	Library              feed.LibraryID
	RootKey              [32]byte
	Certs                [][]byte
	Name, OS, AppVersion string
	JoinerName           string
}

func (*Hello) number() uint8         { return numHello }
func (*HelloAck) number() uint8      { return numHelloAck }
func (*Ping) number() uint8          { return numPing }
func (*Pong) number() uint8          { return numPong }
func (*Heads) number() uint8         { return numHeads }
func (*Bye) number() uint8           { return numBye }
func (*Refused) number() uint8       { return numRefused }
func (*StateBatch) number() uint8    { return numStateBatch }
func (*Ack) number() uint8           { return numAck }
func (*Open) number() uint8          { return numOpen }
func (*Opened) number() uint8        { return numOpened }
func (*Delta) number() uint8         { return numDelta }
func (*Page) number() uint8          { return numPage }
func (*Nodes) number() uint8         { return numNodes }
func (*NodesReply) number() uint8    { return numNodesReply }
func (*Leaves) number() uint8        { return numLeaves }
func (*LeavesReply) number() uint8   { return numLeavesReply }
func (*Fetch) number() uint8         { return numFetch }
func (*PairHello) number() uint8     { return numPairHello }
func (*PairChallenge) number() uint8 { return numPairChallenge }
func (*PairProof) number() uint8     { return numPairProof }
func (*PairWelcome) number() uint8   { return numPairWelcome }
func (*PairRequest) number() uint8   { return numPairRequest }
func (*PairReveal) number() uint8    { return numPairReveal }

func (h *Hello) check() error {
	switch {
	case h.Session == SessionID{}:
		return malformed("session id is zero")
	case h.MinVersion == 0 || h.MinVersion > h.MaxVersion:
		return malformed("versions %d to %d", h.MinVersion, h.MaxVersion)
	case len(h.Capabilities) > MaxCapabilities:
		return tooLarge("capabilities", len(h.Capabilities), MaxCapabilities)
	case len(h.Compression) > MaxCompressions:
		return tooLarge("compressions", len(h.Compression), MaxCompressions)
	}
	if err := checkTexts(h.Capabilities...); err != nil {
		return err
	}
	if err := checkTexts(h.Name, h.OS, h.AppVersion); err != nil {
		return err
	}
	return checkCerts(h.Certs)
}

func checkTexts(texts ...string) error {
	for _, t := range texts {
		if len(t) > MaxText {
			return tooLarge("text", len(t), MaxText)
		}
		if !utf8.ValidString(t) {
			return malformed("text is not UTF-8")
		}
	}
	return nil
}

func checkCerts(certs [][]byte) error {
	if len(certs) > MaxCerts {
		return tooLarge("certificates", len(certs), MaxCerts)
	}
	for _, c := range certs {
		if len(c) > MaxCert {
			return tooLarge("certificate", len(c), MaxCert)
		}
	}
	return nil
}

// maxTime keeps sums and differences of times within an int64.
const maxTime = 1 << 62

func checkTimes(times ...int64) error {
	for _, t := range times {
		if t < 0 || t >= maxTime {
			return malformed("time %d", t)
		}
	}
	return nil
}

func (p *Ping) check() error { return checkTimes(p.T1) }
func (p *Pong) check() error { return checkTimes(p.T1, p.T2, p.T3) }

func (h *Heads) check() error {
	if len(h.Heads) > MaxHeads {
		return tooLarge("heads", len(h.Heads), MaxHeads)
	}
	for _, i := range h.Heads {
		if err := checkHead(i.Best); err != nil {
			return err
		}
		if i.Settled == nil {
			continue
		}
		if err := checkHead(*i.Settled); err != nil {
			return err
		}
		if i.Settled.Feed != i.Best.Feed || i.Settled.Library != i.Best.Library {
			return malformed("settled and best head are of two feeds")
		}
	}
	return nil
}

// checkHead looks at a head that is not genesis as far as one can without its owner's key or the tree.
func checkHead(h feed.Head) error {
	if h.Seq == 0 || h.GC > h.Seq || h.Count > h.Seq {
		return malformed("head with seq %d, gc %d, count %d", h.Seq, h.GC, h.Count)
	}
	return nil
}

func (*Bye) check() error { return nil }

func (r *Refused) check() error {
	if r.Code == 0 {
		return malformed("refused without a code")
	}
	return nil
}

func (s *StateBatch) check() error {
	if err := checkHead(s.Next); err != nil {
		return err
	}
	if s.Prev != (feed.Head{}) {
		if err := checkHead(s.Prev); err != nil {
			return err
		}
		if s.Prev.Feed != s.Next.Feed || s.Prev.Library != s.Next.Library {
			return malformed("batch between two feeds")
		}
	}
	return checkEntries(s.Entries)
}

// EntrySize returns an upper bound of the bytes e takes in a Page or StateBatch. The sum over their
// entries may be at most MaxPage.
func EntrySize(e feed.Entry) int { return len(e.Key) + len(e.Record) + 2 + 10 + 3 }

func checkEntries(entries []feed.Entry) error {
	if len(entries) > MaxEntries {
		return tooLarge("entries", len(entries), MaxEntries)
	}
	last, size := uint64(0), 0
	for _, e := range entries {
		switch {
		case len(e.Key) == 0 || len(e.Key) > record.MaxKey:
			return tooLarge("key", len(e.Key), record.MaxKey)
		case len(e.Record) == 0 || len(e.Record) > record.MaxRecord:
			return tooLarge("record", len(e.Record), record.MaxRecord)
		case e.Seq <= last:
			return malformed("seq %d after %d", e.Seq, last)
		}
		last = e.Seq
		size += EntrySize(e)
	}
	if size > MaxPage {
		return tooLarge("page", size, MaxPage)
	}
	return nil
}

func (a *Ack) check() error {
	if a.Outcome == 0 {
		return malformed("ack without an outcome")
	}
	if a.Head == (feed.Head{}) {
		return nil
	}
	if a.Head.Feed != a.Feed {
		return malformed("ack with the head of another feed")
	}
	return checkHead(a.Head)
}

func (o *Open) check() error {
	if o.Session == (SessionID{}) {
		return malformed("session id is zero")
	}
	return nil
}

func (o *Opened) check() error { return checkHead(o.Head) }
func (*Delta) check() error    { return nil }
func (p *Page) check() error   { return checkEntries(p.Entries) }

func checkNumbers(what string, n, limit int) error {
	if n == 0 {
		return malformed("no %s", what)
	}
	if n > limit {
		return tooLarge(what, n, limit)
	}
	return nil
}

func (n *Nodes) check() error {
	if n.Level < 1 || n.Level > MaxLevel {
		return malformed("level %d", n.Level)
	}
	return checkNumbers("indexes", len(n.Indexes), MaxNodes)
}

func (n *NodesReply) check() error {
	if len(n.Children) > MaxNodes {
		return tooLarge("nodes", len(n.Children), MaxNodes)
	}
	for _, c := range n.Children {
		if len(c) > MaxChildren {
			return tooLarge("children", len(c), MaxChildren)
		}
	}
	return nil
}

func (l *Leaves) check() error { return checkNumbers("indexes", len(l.Indexes), MaxLeaves) }

func (l *LeavesReply) check() error {
	if len(l.Leaves) > MaxLeaves {
		return tooLarge("leaves", len(l.Leaves), MaxLeaves)
	}
	for _, b := range l.Leaves {
		if len(b) > MaxLeaf {
			return tooLarge("leaf", len(b), MaxLeaf)
		}
		if len(b)%leafEntry != 0 {
			return malformed("leaf of %d bytes", len(b))
		}
	}
	return nil
}

func (f *Fetch) check() error {
	if slices.Contains(f.Seqs, 0) {
		return malformed("seq 0")
	}
	return checkNumbers("seqs", len(f.Seqs), MaxEntries)
}

func (*PairHello) check() error     { return nil }
func (*PairChallenge) check() error { return nil }
func (p *PairProof) check() error   { return checkTexts(p.Name, p.OS, p.AppVersion) }
func (p *PairRequest) check() error { return checkTexts(p.Name, p.OS, p.AppVersion) }
func (*PairReveal) check() error    { return nil }

func (p *PairWelcome) check() error {
	if err := checkTexts(p.Name, p.OS, p.AppVersion, p.JoinerName); err != nil {
		return err
	}
	return checkCerts(p.Certs)
}
