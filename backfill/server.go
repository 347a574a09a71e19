package backfill

import (
	"cmp"
	"errors"
	"io"

	"peerdex/feed"
	"peerdex/internal/mutant"
	"peerdex/protocol"
	"peerdex/record"
	"peerdex/store"
)

// Server answers pulls.
type Server struct {
	Store *store.Store
	Notes ServeNotes
	// Admit is asked at every Open: an error refuses, with its code. It bounds how many pulls run at
	// once and turns away who is no member any more.
	Admit func(record.DeviceID) error
	Limit int // entries of one page; 0 means protocol.MaxEntries
}

// Serve answers one stream until the puller closes it. It blocks. A feed that cannot be served is
// refused and the stream goes on.
func (s *Server) Serve(conn *protocol.Conn) error {
	v := &serving{Server: s, conn: conn}
	defer v.close()
	for {
		m, err := conn.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := v.answer(m); err != nil {
			return err
		}
		if err := conn.Flush(); err != nil {
			return err
		}
	}
}

// serving is one stream: the feed opened last, pinned at one moment (rule 6).
type serving struct {
	*Server
	conn    *protocol.Conn
	session protocol.SessionID
	view    *store.View
}

func (v *serving) close() {
	if v.view != nil {
		v.view.Close()
		v.view = nil
	}
}

func (v *serving) answer(m protocol.Message) error {
	if open, ok := m.(*protocol.Open); ok {
		return v.open(open)
	}
	if v.view == nil {
		return protocol.Unexpected(m)
	}
	switch m := m.(type) {
	case *protocol.Delta:
		head := v.view.State.Settled
		v.Notes.Serving(v.session, v.conn.Device(), min(head.Seq-min(head.Seq, m.After), head.Count))
		p := v.pager("delta")
		if err := v.view.After(m.After, p.add); err != nil {
			return err
		}
		return p.last()
	case *protocol.Nodes:
		return v.nodesReply(m)
	case *protocol.Leaves:
		return v.leavesReply(m)
	case *protocol.Fetch:
		v.Notes.Serving(v.session, v.conn.Device(), uint64(len(m.Seqs)))
		p := v.pager("fetch")
		for _, seq := range m.Seqs {
			if err := v.view.At(seq, p.add); err != nil {
				return err
			}
		}
		return p.last()
	}
	return protocol.Unexpected(m)
}

func (v *serving) open(m *protocol.Open) error {
	v.close()
	v.session = m.Session
	if v.Admit != nil && !mutant.Is("serve_strangers") {
		if err := v.Admit(v.conn.Device()); err != nil {
			return v.conn.Send(&protocol.Refused{Code: protocol.CodeOf(err)})
		}
	}
	view, err := v.Store.Serve(m.Feed)
	switch {
	case err == nil && view.State.Settled.IsGenesis():
		view.Close()
		return v.conn.Send(&protocol.Refused{Code: protocol.CodeUnknownFeed})
	case errors.Is(err, store.ErrUnsettled):
		return v.conn.Send(&protocol.Refused{Code: protocol.CodeNotSettled})
	case errors.Is(err, store.ErrUnknownFeed):
		return v.conn.Send(&protocol.Refused{Code: protocol.CodeUnknownFeed})
	case err != nil:
		return err
	}
	v.view = view
	v.Notes.Served(v.session, v.conn.Device(), m.Feed, "open", 0, 0)
	return v.conn.Send(&protocol.Opened{Head: *view.State.Settled})
}

func (v *serving) nodesReply(m *protocol.Nodes) error {
	reply := &protocol.NodesReply{Children: make([][]feed.Hash, len(m.Indexes))}
	for i, index := range m.Indexes {
		children, err := v.view.Node(m.Level, index)
		if err != nil {
			return err
		}
		reply.Children[i] = children
	}
	v.Notes.Served(v.session, v.conn.Device(), v.view.State.Feed, "nodes", len(m.Indexes), 0)
	return v.conn.Send(reply)
}

func (v *serving) leavesReply(m *protocol.Leaves) error {
	reply := &protocol.LeavesReply{Leaves: make([][]byte, len(m.Indexes))}
	for i, index := range m.Indexes {
		leaf, err := v.view.Leaf(index)
		if err != nil {
			return err
		}
		reply.Leaves[i] = v.view.Pack(leaf)
	}
	v.Notes.Served(v.session, v.conn.Device(), v.view.State.Feed, "leaves", len(m.Indexes), 0)
	return v.conn.Send(reply)
}

// pager packs entries into pages and sends each when it is full.
type pager struct {
	*serving
	request string
	page    *protocol.Page
	size    int
}

func (v *serving) pager(request string) *pager {
	return &pager{serving: v, request: request, page: &protocol.Page{}}
}

func (p *pager) add(e feed.Entry) error {
	size := protocol.EntrySize(e)
	if len(p.page.Entries) == cmp.Or(p.Limit, protocol.MaxEntries) || p.size+size > protocol.MaxPage {
		if err := p.send(); err != nil {
			return err
		}
	}
	p.page.Entries = append(p.page.Entries, e)
	p.size += size
	return nil
}

func (p *pager) send() error {
	p.Notes.Served(p.session, p.conn.Device(), p.view.State.Feed, p.request, len(p.page.Entries), p.size)
	if err := p.conn.Send(p.page); err != nil {
		return err
	}
	p.page, p.size = &protocol.Page{}, 0
	return nil
}

func (p *pager) last() error {
	p.page.Last = true
	return p.send()
}
