package protocol

import (
	"google.golang.org/protobuf/proto"

	"peerdex/feed"
	"peerdex/hlc"
	"peerdex/protocol/wirepb"
)

// The control messages are protobuf on the wire, so that fields may be added; unknown ones are dropped.

var (
	marshal   = proto.MarshalOptions{Deterministic: true}
	unmarshal = proto.UnmarshalOptions{DiscardUnknown: true}
)

func parsePB(b []byte, m proto.Message) error {
	if err := unmarshal.Unmarshal(b, m); err != nil {
		return malformed("%v", err)
	}
	return nil
}

// fill copies src into dst, which must have its length.
func fill(dst, src []byte, what string) error {
	if len(src) != len(dst) {
		return malformed("%s of %d bytes, want %d", what, len(src), len(dst))
	}
	copy(dst, src)
	return nil
}

func feedID(b []byte) (feed.ID, error) {
	if len(b) != feed.IDSize {
		return feed.ID{}, malformed("feed id of %d bytes", len(b))
	}
	return feed.ParseID(b), nil
}

func head(b []byte) (feed.Head, error) {
	h, err := feed.ParseHead(b)
	if err != nil {
		return h, malformed("%v", err)
	}
	return h, nil
}

func (h *Hello) append(b []byte) ([]byte, error) {
	m := &wirepb.Hello{
		Library: h.Library[:], Session: h.Session[:], MinVersion: h.MinVersion, MaxVersion: h.MaxVersion,
		Capabilities: h.Capabilities, Name: h.Name, Os: h.OS, AppVersion: h.AppVersion,
		Boot: h.Boot, Hlc: uint64(h.HLC), ActiveSyncs: h.ActiveSyncs, Certs: h.Certs,
	}
	for _, c := range h.Compression {
		m.Compression = append(m.Compression, uint32(c))
	}
	return marshal.MarshalAppend(b, m)
}

func (h *Hello) parse(b []byte) error {
	var m wirepb.Hello
	if err := parsePB(b, &m); err != nil {
		return err
	}
	if err := fill(h.Library[:], m.Library, "library id"); err != nil {
		return err
	}
	if err := fill(h.Session[:], m.Session, "session id"); err != nil {
		return err
	}
	h.MinVersion, h.MaxVersion, h.Capabilities = m.MinVersion, m.MaxVersion, m.Capabilities
	h.Name, h.OS, h.AppVersion = m.Name, m.Os, m.AppVersion
	h.Boot, h.HLC, h.ActiveSyncs, h.Certs = m.Boot, hlc.Stamp(m.Hlc), m.ActiveSyncs, m.Certs
	if len(m.Compression) > MaxCompressions {
		return tooLarge("compressions", len(m.Compression), MaxCompressions)
	}
	for _, c := range m.Compression {
		if c < 256 {
			h.Compression = append(h.Compression, Compression(c))
		}
	}
	return nil
}

func (p *Ping) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Ping{T1: uint64(p.T1)})
}

func (p *Ping) parse(b []byte) error {
	var m wirepb.Ping
	err := parsePB(b, &m)
	p.T1 = int64(m.T1)
	return err
}

func (p *Pong) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Pong{T1: uint64(p.T1), T2: uint64(p.T2), T3: uint64(p.T3)})
}

func (p *Pong) parse(b []byte) error {
	var m wirepb.Pong
	err := parsePB(b, &m)
	p.T1, p.T2, p.T3 = int64(m.T1), int64(m.T2), int64(m.T3)
	return err
}

func (m *Bye) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Bye{Reason: uint32(m.Reason)})
}

func (m *Bye) parse(b []byte) error {
	var pb wirepb.Bye
	err := parsePB(b, &pb)
	m.Reason = Code(pb.Reason)
	return err
}

func (m *Refused) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Refused{Code: uint32(m.Code)})
}

func (m *Refused) parse(b []byte) error {
	var pb wirepb.Refused
	err := parsePB(b, &pb)
	m.Code = Code(pb.Code)
	return err
}

func (a *Ack) append(b []byte) ([]byte, error) {
	m := &wirepb.Ack{Feed: a.Feed.Append(nil), Outcome: uint32(a.Outcome)}
	if a.Head != (feed.Head{}) {
		m.Head = a.Head.Append(nil)
	}
	return marshal.MarshalAppend(b, m)
}

func (a *Ack) parse(b []byte) (err error) {
	var m wirepb.Ack
	if err = parsePB(b, &m); err != nil {
		return err
	}
	if a.Feed, err = feedID(m.Feed); err != nil {
		return err
	}
	if len(m.Head) > 0 {
		if a.Head, err = head(m.Head); err != nil {
			return err
		}
	}
	a.Outcome = Outcome(min(m.Outcome, 255))
	return nil
}

func (o *Open) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Open{Session: o.Session[:], Feed: o.Feed.Append(nil)})
}

func (o *Open) parse(b []byte) (err error) {
	var m wirepb.Open
	if err = parsePB(b, &m); err != nil {
		return err
	}
	if err = fill(o.Session[:], m.Session, "session id"); err != nil {
		return err
	}
	o.Feed, err = feedID(m.Feed)
	return err
}

func (o *Opened) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Opened{Head: o.Head.Append(nil)})
}

func (o *Opened) parse(b []byte) (err error) {
	var m wirepb.Opened
	if err = parsePB(b, &m); err != nil {
		return err
	}
	o.Head, err = head(m.Head)
	return err
}

func (d *Delta) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Delta{After: d.After})
}

func (d *Delta) parse(b []byte) error {
	var m wirepb.Delta
	err := parsePB(b, &m)
	d.After = m.After
	return err
}

func (n *Nodes) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Nodes{Level: uint32(n.Level), Indexes: n.Indexes})
}

func (n *Nodes) parse(b []byte) error {
	var m wirepb.Nodes
	err := parsePB(b, &m)
	n.Level, n.Indexes = int(min(m.Level, MaxLevel+1)), m.Indexes
	return err
}

func (l *Leaves) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Leaves{Indexes: l.Indexes})
}

func (l *Leaves) parse(b []byte) error {
	var m wirepb.Leaves
	err := parsePB(b, &m)
	l.Indexes = m.Indexes
	return err
}

func (f *Fetch) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.Fetch{Seqs: f.Seqs})
}

func (f *Fetch) parse(b []byte) error {
	var m wirepb.Fetch
	err := parsePB(b, &m)
	f.Seqs = m.Seqs
	return err
}

func (p *PairHello) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.PairHello{Invite: p.Invite[:], Nonce: p.Nonce[:]})
}

func (p *PairHello) parse(b []byte) error {
	var m wirepb.PairHello
	if err := parsePB(b, &m); err != nil {
		return err
	}
	if err := fill(p.Invite[:], m.Invite, "invite id"); err != nil {
		return err
	}
	return fill(p.Nonce[:], m.Nonce, "nonce")
}

func (p *PairChallenge) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.PairChallenge{Nonce: p.Nonce[:]})
}

func (p *PairChallenge) parse(b []byte) error {
	var m wirepb.PairChallenge
	if err := parsePB(b, &m); err != nil {
		return err
	}
	return fill(p.Nonce[:], m.Nonce, "nonce")
}

func (p *PairProof) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.PairProof{Mac: p.MAC[:], Name: p.Name, Os: p.OS, AppVersion: p.AppVersion})
}

func (p *PairProof) parse(b []byte) error {
	var m wirepb.PairProof
	if err := parsePB(b, &m); err != nil {
		return err
	}
	p.Name, p.OS, p.AppVersion = m.Name, m.Os, m.AppVersion
	return fill(p.MAC[:], m.Mac, "MAC")
}

func (p *PairWelcome) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.PairWelcome{
		Mac: p.MAC[:], Library: p.Library[:], RootKey: p.RootKey[:], Certs: p.Certs,
		Name: p.Name, Os: p.OS, AppVersion: p.AppVersion, JoinerName: p.JoinerName,
	})
}

func (p *PairWelcome) parse(b []byte) error {
	var m wirepb.PairWelcome
	if err := parsePB(b, &m); err != nil {
		return err
	}
	p.Certs, p.Name, p.OS, p.AppVersion, p.JoinerName = m.Certs, m.Name, m.Os, m.AppVersion, m.JoinerName
	if err := fill(p.Library[:], m.Library, "library id"); err != nil {
		return err
	}
	if err := fill(p.RootKey[:], m.RootKey, "root key"); err != nil {
		return err
	}
	return fill(p.MAC[:], m.Mac, "MAC")
}

func (p *PairRequest) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.PairRequest{Commitment: p.Commitment[:], Name: p.Name, Os: p.OS, AppVersion: p.AppVersion})
}

func (p *PairRequest) parse(b []byte) error {
	var m wirepb.PairRequest
	if err := parsePB(b, &m); err != nil {
		return err
	}
	p.Name, p.OS, p.AppVersion = m.Name, m.Os, m.AppVersion
	return fill(p.Commitment[:], m.Commitment, "commitment")
}

func (p *PairReveal) append(b []byte) ([]byte, error) {
	return marshal.MarshalAppend(b, &wirepb.PairReveal{Nonce: p.Nonce[:]})
}

func (p *PairReveal) parse(b []byte) error {
	var m wirepb.PairReveal
	if err := parsePB(b, &m); err != nil {
		return err
	}
	return fill(p.Nonce[:], m.Nonce, "nonce")
}
