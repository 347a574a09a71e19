package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/spf13/cobra"

	"peerdex/api"
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
