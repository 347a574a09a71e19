package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"peerdex/api"
	"peerdex/eventlog"
	"peerdex/internal/english"
	"peerdex/node"
	"peerdex/protocol"
)

type startFlags struct {
	join, name   string
	joins        bool   // --join was given, be it empty
	pubsub, mdns string // on or off
	listen       []string
	rescan       time.Duration
	thresholds   node.Thresholds
}

func (a *app) startCmd() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use:   "start [FOLDER…]",
		Short: "Index folders and serve them to your other devices, until stopped",
		Long: "Index folders and serve their catalogue to your other devices, in the foreground, until\n" +
			"Ctrl-C or `peer stop`. Nothing is ever written below an indexed folder.",
		Example: "peer start ~/Pictures\n" +
			"peer start ~/Documents --join '/ip4/192.168.1.20/udp/4001/quic-v1/p2p/12D3KooW…#k7f3-9qxe'\n" +
			"peer start --join - < join-line     keeps the secret out of the list of processes",
		Annotations: exits(2, 4, 5, 7, 8, 9),
		Args:        arguments(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.joins = cmd.Flags().Changed("join")
			return a.start(cmd.Context(), args, f)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.join, "join", "", "join the library of another device: the line it printed, or - to read it from stdin")
	fs.StringVar(&f.name, "name", "", "name of this device (default: the host's name)")
	fs.StringArrayVar(&f.listen, "listen", nil, "multiaddr to listen on; may be repeated (default: TCP and QUIC on every interface)")
	fs.StringVar(&f.pubsub, "pubsub", "on", "on or off: gossip hints of changes; sync works without, some seconds later")
	fs.StringVar(&f.mdns, "mdns", "", "on or off: announce this device on the local network, and find others there (default $PEER_MDNS, else on)")
	fs.Var(spanFlag{&f.rescan}, "rescan", "time between full scans of each folder (default 1h)")
	fs.Var(countFlag{&f.thresholds.Push}, "push", "changes that are pushed at most to a device that lacks them, 1000 or fewer (default 100)")
	fs.Var(countFlag{&f.thresholds.Bulk}, "bulk", "entries above which a change is much at once: it is announced, and waits where the folder is metered (default 10000)")
	fs.Var(countFlag{&f.thresholds.Snapshot}, "snapshot", "entries above which a snapshot is fetched where fewer are held (default: as --bulk)")
	for _, name := range []string{"pubsub", "mdns"} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions([]string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp)))
	}
	return cmd
}

// plan is what start was asked, checked before anything is touched.
type plan struct {
	folders []string
	join    *node.JoinRequest
	cfg     nodeConfig
	paths   paths
}

func (a *app) plan(args []string, f startFlags) (p plan, err error) {
	if p.paths, err = a.paths(); err != nil {
		return p, err
	}
	for _, arg := range args {
		path, err := folder(arg)
		if err != nil {
			return p, err
		}
		for _, other := range p.folders {
			if inside(path, other) || inside(other, path) {
				return p, overlap(path, other)
			}
		}
		p.folders = append(p.folders, path)
	}
	if f.joins { // an empty line, as from a variable that is not set, is none to be passed over
		line, err := a.joinLine(f.join)
		if err != nil {
			return p, err
		}
		req, err := node.ParseJoinLine(line)
		if err != nil {
			return p, err
		}
		p.join = &req
	}
	if f.name != "" {
		if err := node.CheckDeviceName(f.name); err != nil {
			return p, err
		}
	}
	if err := f.thresholds.Check(); err != nil {
		return p, err
	}
	var listen []multiaddr.Multiaddr
	for _, text := range f.listen {
		at, err := protocol.ParseListen(text)
		if bad, ok := errors.AsType[*protocol.AddrError](err); ok {
			return p, &node.Problem{Code: node.CodeBadAddress, Message: bad.Problem, Cause: bad.Cause, Try: "--listen " + bad.Try}
		}
		listen = append(listen, at)
	}
	pubsub, err := onOff("--pubsub", f.pubsub, "--pubsub off")
	if err != nil {
		return p, err
	}
	mdns, err := onOff("--mdns", f.mdns, "--mdns off")
	if f.mdns == "" {
		mdns, err = onOff("PEER_MDNS", cmp.Or(a.env("PEER_MDNS"), "on"), "PEER_MDNS=off peer start")
	}
	if err != nil {
		return p, err
	}
	log, err := a.logger()
	if err != nil {
		return p, err
	}
	p.cfg = nodeConfig{Home: p.paths.home, Version: version, Name: f.name, Listen: listen, Pubsub: pubsub, MDNS: mdns, Rescan: f.rescan, Thresholds: f.thresholds, Log: log}
	return p, nil
}

// countFlag is a flag that takes a number of 1 or more.
type countFlag struct{ n *uint64 }

func (f countFlag) String() string {
	if f.n == nil || *f.n == 0 {
		return ""
	}
	return strconv.FormatUint(*f.n, 10)
}

func (f countFlag) Type() string { return "number" }

func (f countFlag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a number of 1 or more", text)
	}
	*f.n = n
	return nil
}

// onOff reads a setting that is on or off.
func onOff(name, value, try string) (bool, error) {
	if value != "on" && value != "off" {
		return false, usage(fmt.Sprintf("%s %q is unknown", name, value), "it is on or off", try)
	}
	return value == "on", nil
}

func overlap(path, other string) error {
	return &node.Problem{Code: node.CodeFolderOverlap, Message: fmt.Sprintf("%s overlaps %s", path, other),
		Cause: "a file belongs to one location only", Try: "name the outer folder alone"}
}

// logger writes to stderr what PEER_LOG asks for; warnings and errors if it asks for nothing.
func (a *app) logger() (*slog.Logger, error) {
	level := slog.LevelWarn
	if text := a.env("PEER_LOG"); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return nil, &node.Problem{Code: node.CodeUsage, Message: fmt.Sprintf("PEER_LOG=%q is unknown", text),
				Cause: "it is debug, info, warn or error", Try: "PEER_LOG=info peer start"}
		}
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level})), nil
}

// joinLine returns the line that was given, or for "-" the first of stdin.
func (a *app) joinLine(arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, 1<<16)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the join line: %w", err)
	}
	// what `peer invite` prints may be pasted with the command around it
	line = strings.TrimSpace(line)
	line = strings.TrimPrefix(line, "peer join ")
	return strings.Trim(line, `'"`), nil
}

func (a *app) start(ctx context.Context, args []string, f startFlags) error {
	p, err := a.plan(args, f)
	if err != nil {
		return err
	}
	if err := a.notRunning(ctx, p); err != nil {
		return err
	}
	if err := prepareHome(p.paths.home); err != nil {
		return err
	}
	l, err := api.Listen(ctx, p.paths.socket)
	if err != nil {
		return err
	}
	return a.serve(ctx, p, l)
}

// notRunning says so if a daemon answers for this home, and what to do with the folders instead.
func (a *app) notRunning(ctx context.Context, p plan) error {
	c := api.NewClient(p.paths.socket)
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := c.Status(ctx)
	if err != nil {
		return nil // Listen tells a dead socket from one that is held
	}
	running := api.AsProblem(api.AlreadyRunning(st))
	switch {
	case len(p.folders) > 0:
		running.Try = "peer add " + args(p.folders)
	case p.join != nil:
		if _, joined := hostOf(st.Devices, *p.join); !joined {
			running.Try = "peer join LINE"
		}
	}
	return running
}

// args writes paths as they can be pasted into a shell; add takes one at a time.
func args(paths []string) string {
	quoted := make([]string, len(paths))
	for i, p := range paths {
		quoted[i] = p
		if strings.ContainsAny(p, " '\"$`\\()&;|<>*?[]#~!{}") {
			quoted[i] = "'" + strings.ReplaceAll(p, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " && peer add ")
}

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

// apartFromStop returns what of err is more than that something was called off, as all is when a daemon ends.
func apartFromStop(err error) error {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		var rest []error
		for _, e := range all.Unwrap() {
			rest = append(rest, apartFromStop(e))
		}
		return errors.Join(rest...)
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
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

// joining is a join that goes on while the folders are indexed.
type joining struct {
	steps chan node.JoinProgress // closed at the end
	err   error                  // valid once steps is closed
}

// startJoin pairs, and returns when this device is a member or could not become one.
func (a *app) startJoin(ctx context.Context, n daemon, req node.JoinRequest, s *joining) error {
	s.steps = make(chan node.JoinProgress, 64)
	go func() {
		defer close(s.steps)
		s.err = n.Join(ctx, req, func(p node.JoinProgress) {
			if p.Stage == stageSyncing { // the next will tell more
				select {
				case s.steps <- p:
				default:
				}
				return
			}
			select {
			case s.steps <- p:
			case <-ctx.Done():
			}
		})
	}()
	view := a.joinView()
	for p := range s.steps {
		view.show(p)
		if p.Stage == stageJoined || p.Stage == stageSyncing || p.Stage == stageInStep {
			return nil
		}
	}
	return s.err
}

// finishJoin shows the rest of a join. The device is a member by then: what stops the first sync is told
// and tried again by the node, and does not end it.
func (a *app) finishJoin(ctx context.Context, s *joining) error {
	if s.steps == nil {
		return nil
	}
	view := a.joinView()
	for p := range s.steps {
		view.show(p)
	}
	view.meter.done()
	if s.err != nil && ctx.Err() == nil {
		a.showProblem(api.AsProblem(s.err))
	}
	return nil
}

func (a *app) stopCmd() *cobra.Command {
	timeout := 30 * time.Second
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop the daemon and wait until it has ended",
		Example: "peer stop\n" +
			"peer stop --timeout 2m\n" +
			"peer stop --home /srv/peer",
		Annotations: exits(2, 3, 7, 130),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *api.Client) error { return a.stop(ctx, c, timeout) })
		},
	}
	cmd.Flags().Var(spanFlag{&timeout}, "timeout", "how long to wait")
	return cmd
}

func (a *app) stop(ctx context.Context, c *api.Client, timeout time.Duration) error {
	res, err := c.Stop(ctx)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		_, err := c.Status(wait)
		if err != nil && api.AsProblem(err).Code == node.CodeNoDaemon && !alive(res.PID) {
			break
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return interrupted()
			}
			return &node.Problem{Code: node.CodeConflict, Message: fmt.Sprintf("the daemon (pid %d) has not ended within %s", res.PID, span(timeout)),
				Cause: "it was asked to", Try: "peer stop --timeout 2m"}
		case <-time.After(20 * time.Millisecond):
		}
	}
	if a.json {
		return a.document(api.SchemaStop, res)
	}
	return a.print("stopped (pid %d), ran %s\n", res.PID, span(res.Now.Sub(res.Started).Truncate(time.Second)))
}
