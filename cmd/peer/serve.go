package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/internal/english"
	"peerdex/node"
)

// serve opens the node and answers for it until ctx ends, somebody asks it to stop or it fails.
func (a *app) serve(ctx context.Context, p plan, l net.Listener) (err error) {
	n, err := a.open(ctx, p.cfg)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() {
		err = errors.Join(err, n.Close())
		if failed := apartFromStop(err); failed == nil && err != nil {
			p.cfg.Log.Debug("ended because it was told to", "err", err)
			err = nil
		}
	}()
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	srv := api.Server{Listener: l, Backend: n, Log: p.cfg.Log}
	if r, ok := n.(api.Requests); ok {
		srv.Requests = r
	}
	g.Go(func() error {
		defer stop() // nil too: somebody asked it to stop
		return n.Run(ctx)
	})
	g.Go(func() error {
		if err := srv.Run(ctx); err != nil {
			return err
		}
		return nil
	})
	g.Go(func() error {
		if err := a.begin(ctx, n, p); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	})
	return g.Wait()
}

// begin does what the command line asked of a fresh daemon and prints what a person needs to know.
func (a *app) begin(ctx context.Context, n daemon, p plan) error {
	var join joining
	if p.join != nil {
		devices, err := n.Devices(ctx)
		if err != nil {
			return err
		}
		if d, joined := hostOf(devices, *p.join); joined {
			a.hint("%s is in this library already; nothing to join", escape(d.Name))
			p.join = nil
		}
	}
	if p.join != nil {
		if err := a.startJoin(ctx, n, *p.join, &join); err != nil {
			return err
		}
	}
	locations, err := a.startFolders(ctx, n, p.folders)
	if err != nil {
		return err
	}
	st, err := n.Status(ctx)
	if err != nil {
		return err
	}
	joins, err := joinsSoFar(ctx, n) // before there is a line to join with
	if err != nil {
		return err
	}
	var invite *node.InviteView
	if p.join == nil {
		switch v, err := n.Invite(ctx, node.InviteRequest{}); {
		case err == nil:
			invite = &v
		case api.AsProblem(err).Code != node.CodeNotAllowed: // a member that may not invite serves all the same
			return err
		}
	}
	if a.json {
		err = a.document("peer.start/v1", struct {
			Status    node.Status         `json:"status"`
			Locations []node.LocationView `json:"locations"`
			Invite    *node.InviteView    `json:"invite,omitempty"`
		}{st, locations, invite})
	} else {
		err = a.write([]byte(a.startText(st, locations, invite)))
	}
	if err != nil {
		return err
	}
	if err := a.finishJoin(ctx, &join); err != nil || a.json {
		return err
	}
	if err := a.tellJoins(ctx, n, selfOf(st.Devices).ID, joins); err != nil && ctx.Err() == nil {
		p.cfg.Log.Warn("who joins is told no longer", "error", err) // the node serves all the same
	}
	return nil
}

// joinsSoFar asks for the events of devices that join from now on.
func joinsSoFar(ctx context.Context, n daemon) (eventlog.Query, error) {
	q := eventlog.Query{Types: []eventlog.Type{eventlog.DeviceJoined{}.Type()}, Limit: 100}
	last := q
	last.Desc, last.Limit = true, 1
	events, _, err := n.Events(ctx, last)
	for _, e := range events {
		q.Cursor = eventlog.After(e)
	}
	return q, err
}

// requestsEvery is how often a start looks whether a device asks to join without an invite.
const requestsEvery = time.Second

// tellJoins prints who joins and who asks to, until ctx ends.
func (a *app) tellJoins(ctx context.Context, n daemon, self string, q eventlog.Query) error {
	wake, cancel := n.WatchEvents()
	defer cancel()
	look := time.NewTicker(requestsEvery)
	defer look.Stop()
	asked := map[string]bool{} // digits that were shown
	for {
		asking, err := n.Requests(ctx)
		if err != nil {
			return err
		}
		for _, r := range asking {
			if asked[r.Digits] {
				continue
			}
			asked[r.Digits] = true
			if err := a.print("%s", strings.TrimPrefix(requestsText([]node.RequestView{r}), "\n")); err != nil {
				return err
			}
		}
		events, next, err := n.Events(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range events {
			q.Cursor = eventlog.After(e)
			var d eventlog.DeviceJoined
			if e.PeerDeviceID == self || json.Unmarshal(e.Details, &d) != nil { // we joined, which was told
				continue
			}
			if err := a.print("%s joined\n", escape(d.Name)); err != nil {
				return err
			}
		}
		if next != (eventlog.Cursor{}) {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-look.C:
		}
	}
}

// hostOf finds the device that a join line leads to among the other members: who starts a second time with
// the same command line has joined.
func hostOf(devices []node.DeviceView, req node.JoinRequest) (node.DeviceView, bool) {
	for _, addr := range req.Addrs {
		id := addr[strings.LastIndexByte(addr, '/')+1:] // an address ends in /p2p/ID
		for _, d := range devices {
			if !d.Self && d.ID == id {
				return d, true
			}
		}
	}
	return node.DeviceView{}, false
}

func (a *app) startText(st node.Status, locations []node.LocationView, invite *node.InviteView) string {
	var b strings.Builder
	self := selfOf(st.Devices)
	fmt.Fprintf(&b, "%s\n", strings.Join([]string{
		"peer " + escape(st.Version),
		fmt.Sprintf("device %s (%s)", escape(self.Name), escape(self.Short)),
		fmt.Sprintf("library %s, %s", escape(st.Library[:min(8, len(st.Library))]), english.Plural(members(st.Devices), "device", "devices")),
	}, a.sep()))
	for _, l := range locations {
		fmt.Fprintf(&b, "  watching   %s\n", a.watchingLine(l))
	}
	if len(locations) == 0 {
		fmt.Fprintf(&b, "  watching   nothing yet; in another terminal: peer add FOLDER\n")
	}
	if invite != nil {
		fmt.Fprintf(&b, "  join from another device within %s:\n    peer start FOLDER --join '%s'\n",
			span(invite.Expires.Sub(st.Now).Round(time.Minute)), escape(invite.Line))
	}
	b.WriteString("Runs until Ctrl-C, `peer stop`, or this window closes.\n")
	return b.String()
}

// startFolders adds the folders that are not indexed yet and returns all locations of this device.
func (a *app) startFolders(ctx context.Context, n daemon, folders []string) ([]node.LocationView, error) {
	known, err := ownLocations(ctx, n)
	if err != nil {
		return nil, err
	}
	var fresh []string
next:
	for _, path := range folders {
		for _, l := range known {
			switch {
			case l.Path == path:
				continue next
			case inside(path, l.Path) || inside(l.Path, path):
				return nil, overlap(path, l.Path)
			}
		}
		fresh = append(fresh, path)
	}
	for _, path := range fresh {
		m := a.meter("indexing "+escape(a.shorten(path)), "names")
		_, err := n.AddLocation(ctx, node.AddRequest{Path: path}, func(p node.ScanProgress) { m.update(p.Seen, p.Total) })
		m.done()
		if err != nil {
			return nil, err
		}
	}
	return ownLocations(ctx, n)
}

func ownLocations(ctx context.Context, n daemon) ([]node.LocationView, error) {
	all, err := n.Locations(ctx)
	if err != nil {
		return nil, err
	}
	own := []node.LocationView{}
	for _, l := range all {
		if l.Self {
			own = append(own, l)
		}
	}
	return own, nil
}
